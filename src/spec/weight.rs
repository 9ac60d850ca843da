//! Weights of a model as they are stored in the checkpoint.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use crate::formats::{self, Along, Coding};

/// A weight of the model: the tensor of the checkpoint that holds it, and how it is stored.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    pub name: String,
    /// The shape of the whole tensor as plain floats.
    pub shape: Vec<usize>,
    /// The coding of a weight that is not stored as plain floats. Several tensors hold it.
    pub coding: Option<Arc<dyn Coding>>,
    /// The expert's index, if the tensor stacks one matrix for each expert.
    pub slice: Option<usize>,
    /// The rows of the matrix, or of each matrix of a stack, if several weights are stored one
    /// below the other.
    pub rows: Option<Rows>,
}

/// A range of rows of a matrix that has `of` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub first: usize,
    pub count: usize,
    pub of: usize,
}

/// A stored tensor of the checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// The type of codes and scales. None for plain floats, which may be of several types.
    pub dtype: Option<Dtype>,
    /// The division of the tensor along the weight.
    pub along: Along,
    /// Number of weights that it holds.
    pub weights: u64,
    /// The format of the codes of a weight, in words.
    pub format: Option<String>,
}

impl PartialEq for TensorSpec {
    fn eq(&self, other: &Self) -> bool {
        let pieces = |of: &Self| of.coding.as_ref().map(|coding| coding.pieces().to_vec());
        let rest = |of: &Self| (of.slice, of.rows, pieces(of));
        self.name == other.name && self.shape == other.shape && rest(self) == rest(other)
    }
}

impl TensorSpec {
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), coding: None, slice: None, rows: None }
    }

    /// The matrix of expert `index`.
    pub fn slice(&self, index: usize) -> Self {
        Self { slice: Some(index), ..self.clone() }
    }

    /// Rows `first..first + count` of this weight.
    pub fn rows(&self, first: usize, count: usize) -> Self {
        let of = self.shape[self.shape.len() - 2];
        Self { rows: Some(Rows { first, count, of }), ..self.clone() }
    }

    /// The shape of the loaded weight.
    pub fn loaded_shape(&self) -> Vec<usize> {
        let mut shape = if self.slice.is_some() { self.shape[1..].to_vec() } else { self.shape.clone() };
        if let Some(rows) = self.rows {
            let matrix = shape.len() - 2;
            shape[matrix] = rows.count;
        }
        shape
    }

    /// Number of rows of the matrix, or of each matrix of a stack, in the tensor. Any other tensor
    /// counts as one row.
    fn height(&self) -> usize {
        self.rows.map(|rows| rows.of).unwrap_or_else(|| match self.shape[usize::from(self.slice.is_some())..] {
            [.., rows, _] => rows,
            _ => 1,
        })
    }

    /// The rows of the matrix that belong to this weight.
    pub fn own_rows(&self) -> Range<usize> {
        self.rows.map_or(0..self.height(), |rows| rows.first..rows.first + rows.count)
    }

    /// The rows that are read for `own_rows`. Rows that share codes or scales with them are
    /// included.
    pub fn window(&self) -> Range<usize> {
        let own = self.own_rows();
        self.coding.as_ref().map_or(own.clone(), |coding| formats::window(coding.pieces(), &own, self.height()))
    }

    /// The contiguous range of the `bytes` bytes of `tensor`, one of those that hold this weight,
    /// that is read for it.
    pub fn own_bytes(&self, tensor: &StoredTensor, bytes: u64) -> Range<u64> {
        let (slice, experts) = self.slice.map_or((0, 1), |slice| (slice, self.shape[0]));
        tensor.along.own_bytes(bytes, (slice, experts), &self.window(), self.height())
    }

    /// Number of values after loading.
    pub fn elements(&self) -> usize {
        self.loaded_shape().iter().product()
    }

    /// The tensors of the checkpoint that hold this weight, with stacks as a whole.
    pub fn stored(&self) -> Vec<StoredTensor> {
        let weights = self.shape.iter().product::<usize>() as u64;
        let Some(coding) = &self.coding else {
            let along = Along::rows(self.slice.is_some(), 1);
            let (name, shape) = (self.name.clone(), self.shape.clone());
            return vec![StoredTensor { name, shape, dtype: None, along, weights, format: None }];
        };
        let pieces = coding.pieces().iter().enumerate().map(|(place, piece)| StoredTensor {
            name: piece.name.clone(),
            shape: piece.shape.clone(),
            dtype: Some(piece.dtype),
            along: piece.along,
            weights: if place == 0 { weights } else { 0 },
            format: (place == 0).then(|| coding.words()),
        });
        pieces.collect()
    }
}
