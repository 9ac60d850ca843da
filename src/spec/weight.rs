//! Weights of a model as the checkpoint has them.

use std::ops::Range;

use crate::formats::{Format, Piece};

/// A weight of the model: which tensor of the checkpoint it is, and how that is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    pub name: String,
    /// Of the whole tensor, as plain floats.
    pub shape: Vec<usize>,
    /// Where it is not plain floats: several tensors hold it.
    pub format: Option<&'static Format>,
    /// Of a tensor that stacks one matrix for each expert, the one that is meant.
    pub slice: Option<usize>,
    /// Of a matrix, or of each in a stack, the rows that are meant, where several weights lie one below the other.
    pub rows: Option<Rows>,
}

/// Some rows of a matrix of `of` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub first: usize,
    pub count: usize,
    pub of: usize,
}

/// A tensor of the checkpoint as it lies there.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// Bytes that stand for something else, not floats.
    pub packed: bool,
    /// How many weights it holds.
    pub weights: u64,
}

impl TensorSpec {
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), format: None, slice: None, rows: None }
    }

    pub fn stored_as(self, format: &'static Format) -> Self {
        Self { format: Some(format), ..self }
    }

    /// The matrix of expert `index`.
    pub fn slice(&self, index: usize) -> Self {
        Self { slice: Some(index), ..self.clone() }
    }

    /// Rows `first..first + count` of it.
    pub fn rows(&self, first: usize, count: usize) -> Self {
        let of = self.shape[self.shape.len() - 2];
        Self { rows: Some(Rows { first, count, of }), ..self.clone() }
    }

    /// Of what is loaded.
    pub fn loaded_shape(&self) -> Vec<usize> {
        let mut shape = if self.slice.is_some() { self.shape[1..].to_vec() } else { self.shape.clone() };
        if let Some(rows) = self.rows {
            let matrix = shape.len() - 2;
            shape[matrix] = rows.count;
        }
        shape
    }

    /// Which of `bytes` bytes of a tensor that holds it are its own; those are in one piece.
    pub fn own_bytes(&self, bytes: u64) -> Range<u64> {
        let stacked = self.slice.map_or(1, |_| self.shape[0].max(1) as u64);
        let matrix = bytes / stacked;
        let begin = self.slice.map_or(0, |index| index as u64 * matrix);
        let rows = self.rows.map_or(0..matrix, |rows| {
            let row = matrix / rows.of.max(1) as u64;
            rows.first as u64 * row..(rows.first + rows.count) as u64 * row
        });
        begin + rows.start..begin + rows.end
    }

    /// Values after loading.
    pub fn elements(&self) -> usize {
        self.loaded_shape().iter().product()
    }

    /// The tensors of the checkpoint that hold it, stacks as a whole.
    pub fn stored(&self) -> Vec<StoredTensor> {
        let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        let plain = |shape: &Vec<usize>| StoredTensor {
            name: self.name.clone(),
            shape: shape.clone(),
            packed: false,
            weights: elements(shape),
        };
        let Some(format) = self.format else { return vec![plain(&self.shape)] };
        let piece = |piece: Piece| StoredTensor {
            name: format!("{}{}", self.name, piece.ending),
            weights: piece.weights_per_element * elements(&piece.shape),
            shape: piece.shape,
            packed: true,
        };
        (format.pieces)(&self.shape).into_iter().map(piece).collect()
    }
}
