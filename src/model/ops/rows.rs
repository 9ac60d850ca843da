//! Adding into the residual stream in place: whole blocks of rows, or chosen rows with a weight each.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use half::bf16;
use rayon::prelude::*;

use super::{Element, PIECE, values, values_mut};

/// residual += x, both [rows, size]; the residual is f32.
pub fn add(residual: &Tensor, x: &Tensor) -> Result<()> {
    residual.inplace_op2(x, &Add)
}

/// residual[rows[i]] += weights[i] * x[i]; the rows are distinct, x is [rows.len(), size].
pub fn add_rows(residual: &Tensor, x: &Tensor, rows: &[u32], weights: &[f32]) -> Result<()> {
    residual.inplace_op2(x, &AddRows { rows, weights })
}

struct Add;

impl Add {
    fn run<T: Element>(residual: &mut [f32], x: &[T]) {
        residual.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(residual, x)| {
            for (residual, x) in residual.iter_mut().zip(x) {
                *residual += x.load();
            }
        });
    }
}

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(&self, residual: &mut CpuStorage, layout: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        let residual = values_mut::<f32>(residual, layout)?;
        match x {
            CpuStorage::F32(_) => Self::run(residual, values::<f32>(x, xl)?),
            CpuStorage::BF16(_) => Self::run(residual, values::<bf16>(x, xl)?),
            _ => bail!("add of an unexpected dtype"),
        }
        Ok(())
    }
}

struct AddRows<'a> {
    rows: &'a [u32],
    weights: &'a [f32],
}

impl AddRows<'_> {
    fn run<T: Element>(&self, residual: &mut [f32], x: &[T]) {
        let size = x.len() / self.rows.len().max(1);
        for ((row, weight), x) in self.rows.iter().zip(self.weights).zip(x.chunks_exact(size.max(1))) {
            let residual = &mut residual[*row as usize * size..][..size];
            for (residual, x) in residual.iter_mut().zip(x) {
                *residual += weight * x.load();
            }
        }
    }
}

impl InplaceOp2 for AddRows<'_> {
    fn name(&self) -> &'static str {
        "add_rows"
    }

    fn cpu_fwd(&self, residual: &mut CpuStorage, layout: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        let residual = values_mut::<f32>(residual, layout)?;
        match x {
            CpuStorage::F32(_) => self.run(residual, values::<f32>(x, xl)?),
            CpuStorage::BF16(_) => self.run(residual, values::<bf16>(x, xl)?),
            _ => bail!("add of an unexpected dtype"),
        }
        Ok(())
    }
}
