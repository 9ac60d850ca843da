//! Adding into the residual stream in place.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{PIECE, values, values_mut, vectorised};

pub fn add(residual: &Tensor, x: &Tensor) -> Result<()> {
    residual.inplace_op2(x, &Add)
}

struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, residual: &mut CpuStorage, layout: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        let (residual, x) = (values_mut(residual, layout)?, values::<f32>(x, xl)?);
        residual.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(residual, x)| {
            vectorised(|| residual.iter_mut().zip(x).for_each(|(residual, x)| *residual += x));
        });
        Ok(())
    }
}
