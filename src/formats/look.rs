//! The view of a weight from which a format decides whether the weight is stored in it.

use std::collections::{HashMap, HashSet};

use safetensors::Dtype;

use super::piece::{Along, Announced, Piece};
use super::settings::{HINT, Settings};
use crate::error::{Error, Result};

/// The type and shape of a tensor in the header of a file.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
}

/// The tensors of a checkpoint, under their names in the whole model.
pub trait Headers {
    fn header(&self, name: &str) -> Option<Header<'_>>;
}

/// Tensors that a release is expected to have.
impl Headers for HashMap<String, (Dtype, Vec<usize>)> {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        self.get(name).map(|(dtype, shape)| Header { dtype: *dtype, shape })
    }
}

impl Headers for Vec<Announced> {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        let (_, dtype, shape) = self.iter().find(|(called, ..)| called == name)?;
        Some(Header { dtype: *dtype, shape })
    }
}

/// A weight of the model, and the tensors around its name in the checkpoint.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// `P.weight`, or a name without that ending for stacks of experts.
    pub name: &'a str,
    /// [out, in], or [experts, out, in] of a stack.
    pub shape: &'a [usize],
    pub headers: &'a dyn Headers,
    pub settings: &'a Settings,
    /// The names of all weights of the model, as if none were quantised.
    pub model: &'a HashSet<String>,
    /// Whether scales of some weight are in the checkpoint (`has_scales`).
    pub scaled: bool,
    /// The place of the files, for messages.
    pub place: &'a str,
}

impl<'a> Look<'a> {
    /// The module, `P` of `P.weight`.
    pub fn module(&self) -> &'a str {
        self.name.strip_suffix(".weight").unwrap_or(self.name)
    }

    /// `P.{name}` for a weight `P.weight`.
    pub fn beside(&self, name: &str) -> String {
        format!("{}.{name}", self.module())
    }

    /// The name with an ending: `P.weight_scale`.
    pub fn with(&self, ending: &str) -> String {
        format!("{}{ending}", self.name)
    }

    pub fn header(&self, name: &str) -> Option<Header<'a>> {
        self.headers.header(name)
    }

    /// The tensor that has the weight's own name.
    pub fn own(&self) -> Option<Header<'a>> {
        self.header(self.name)
    }

    /// The first of these tensors that exists.
    pub fn first(&self, names: &[String]) -> Option<(String, Header<'a>)> {
        names.iter().find_map(|name| Some((name.clone(), self.header(name)?)))
    }

    /// Whether the model has a weight of this name, quantised or not.
    pub fn in_model(&self, name: &str) -> bool {
        self.model.contains(name)
    }

    /// Number of matrices, or None if there is no stack, and the rows and columns of each.
    pub fn sizes(&self) -> (Option<usize>, usize, usize) {
        match *self.shape {
            [experts, out, input] => (Some(experts), out, input),
            [out, input] => (None, out, input),
            _ => (None, 1, self.shape.iter().product()),
        }
    }

    /// The dimensions of `shape` after the experts of a stack.
    pub fn of_matrix<'s>(&self, shape: &'s [usize]) -> &'s [usize] {
        match shape {
            [_, rest @ ..] if self.sizes().0.is_some() => rest,
            all => all,
        }
    }

    /// The shape [experts, ..matrix] for a stack, or `matrix` otherwise.
    pub fn stacked(&self, matrix: &[usize]) -> Vec<usize> {
        let experts = self.sizes().0;
        experts.iter().chain(matrix).copied().collect()
    }

    /// A piece that must have the shape `matrix` per matrix, with a row for each `rows` rows of it.
    ///
    /// # Errors
    /// `corrupt` if it has another shape.
    pub fn piece(&self, name: &str, header: Header, matrix: &[usize], rows: usize) -> Result<Piece> {
        let shape = self.stacked(matrix);
        if header.shape != shape {
            return Err(self.misshapen(name, header.shape, &shape));
        }
        let along = Along::rows(self.sizes().0.is_some(), rows);
        Ok(Piece { name: name.to_string(), dtype: header.dtype, shape, along })
    }

    /// A piece that belongs to the whole weight.
    pub fn whole(&self, name: &str, header: Header) -> Piece {
        Piece { name: name.to_string(), dtype: header.dtype, shape: header.shape.to_vec(), along: Along::WHOLE }
    }

    /// The error of a tensor whose shape does not fit the weight.
    pub fn misshapen(&self, name: &str, found: &[usize], due: &[usize]) -> Error {
        let found = &found[..found.len().min(SHOWN_SIZES)];
        Error::corrupt(format!(
            "{}: tensor `{name}` has shape {found:?}; the weight `{}` of {:?} needs {due:?}",
            self.place, self.name, self.shape
        ))
        .hint("weights and settings belong to different models, or the file is damaged; download the model again")
    }

    /// The error of a tensor without which the weight has no values.
    pub fn missing(&self, name: &str, why: &str) -> Error {
        Error::not_found(format!(
            "{}: the weight `{}` is {why}, and `{name}` is missing: without it the codes have no values",
            self.place, self.name
        ))
        .hint("the checkpoint is incomplete; download it again")
    }

    /// The error of a tensor whose stored type is not possible for it.
    pub fn mistyped(&self, name: &str, found: Dtype, expected: &str) -> Error {
        Error::unsupported(format!("{}: tensor `{name}` is {found:?}, expected {expected}", self.place))
            .hint("look for a copy of this model in one of these types")
    }

    /// The error of a weight that is stored in a way that is known but not read.
    pub fn unread(&self, what: &str) -> Error {
        Error::unsupported(format!("{}: the weight `{}` {what}", self.place, self.name)).hint(HINT)
    }
}

/// Number of sizes of a shape that a message shows.
const SHOWN_SIZES: usize = 8;
