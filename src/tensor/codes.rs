//! A weight that stays in codes in the memory of the CPU: as many bytes as its file has for it.

use std::sync::Arc;

use crate::formats::{Coding, Kept};
use crate::gemm;

/// A matrix of codes [out, in], of which a few numbers at a time are made where they are used.
#[derive(Clone, Debug)]
pub struct InCodes {
    coding: Arc<dyn Coding>,
    kept: Arc<Kept>,
    dims: [usize; 2],
}

impl InCodes {
    /// `kept` is what `coding` keeps of the matrix [out, in].
    pub fn new(coding: Arc<dyn Coding>, kept: Kept, dims: [usize; 2]) -> Self {
        Self { coding, kept: Arc::new(kept), dims }
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// All numbers, row by row.
    pub fn values(&self) -> Vec<f32> {
        let [rows, width] = self.dims;
        let mut values = vec![0.0; rows * width];
        self.decode_rows(0, &mut values);
        values
    }

    /// The numbers of whole rows from `first` on, as many as `to` has room for.
    pub fn decode_rows(&self, first: usize, to: &mut [f32]) {
        for (row, to) in to.chunks_exact_mut(self.dims[1].max(1)).enumerate() {
            gemm::Codes::decode(self, first + row, 0, to);
        }
    }
}

impl gemm::Codes for InCodes {
    fn decode(&self, row: usize, from: usize, to: &mut [f32]) {
        self.coding.numbers(&self.kept.parts, self.kept.above + row, from, to);
    }
}
