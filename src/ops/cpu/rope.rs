//! Rotary embedding in place, half-split: see `spec::rope`.

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor};
use rayon::prelude::*;

use super::{values, values_mut, vectorised};

struct Rotate {
    heads: usize,
    head_dim: usize,
    positions: usize,
}

pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<()> {
    let (_, positions, heads, head_dim) = x.dims4()?;
    x.inplace_op3(cos, sin, &Rotate { heads, head_dim, positions })
}

impl Rotate {
    fn run(&self, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        let half = cos.len() / self.positions;
        let row = self.heads * self.head_dim;
        x.par_chunks_exact_mut(row).enumerate().with_min_len(super::PIECE / row + 1).for_each(|(token, row)| {
            let t = token % self.positions;
            let (cos, sin) = (&cos[t * half..][..half], &sin[t * half..][..half]);
            vectorised(|| {
                for head in row.chunks_exact_mut(self.head_dim) {
                    let (low, high) = head[..2 * half].split_at_mut(half);
                    for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                        (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
                    }
                }
            });
        });
    }
}

impl InplaceOp3 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<()> {
        let (cos, sin) = (values::<f32>(cos, cos_layout)?, values::<f32>(sin, sin_layout)?);
        self.run(values_mut(x, layout)?, cos, sin);
        Ok(())
    }
}
