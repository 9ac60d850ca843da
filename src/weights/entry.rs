//! A tensor of a checkpoint and its place in the files.

use std::ops::Range;

use safetensors::Dtype;

use crate::hub::FileRange;
use crate::memory::PAGE;

/// A tensor of a checkpoint, with its place.
#[derive(Clone)]
pub struct Entry {
    /// The tensor's name in its file.
    pub name: String,
    pub(super) file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The strides in elements, if its numbers are not contiguous.
    pub(super) strides: Option<Vec<usize>>,
    /// Offset of the data in the file in bytes.
    pub(super) begin: u64,
    pub bytes: u64,
}

impl Entry {
    /// The range of the file with bytes `range` of the tensor's data.
    pub fn part(&self, range: Range<u64>) -> FileRange {
        FileRange { file: self.file, range: self.begin + range.start..self.begin + range.end }
    }

    /// Whether its numbers lie one behind the other in the file.
    pub fn lies_together(&self) -> bool {
        self.strides.is_none()
    }

    /// The offset in a page of the file of byte `offset` of the tensor's data. Memory with the same
    /// offset in its page can be read into directly.
    pub fn phase(&self, offset: u64) -> usize {
        ((self.begin + offset) % PAGE as u64) as usize
    }
}
