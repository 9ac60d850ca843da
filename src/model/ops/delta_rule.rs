//! The two steps of the chunked delta rule that are not products: the decay between positions of a chunk, and the
//! triangular system. Both f32, on small matrices; callers run several heads side by side.

use candle_core::{CpuStorage, CustomOp1, InplaceOp2, Layout, Result, Shape, Tensor};

use super::{values, values_mut};

/// From the log decay since the start of the chunk [heads, length] to that between positions, [heads, length, length]:
/// exp(log[i] - log[j]) for j <= i, else 0.
pub fn pairwise_decay(log: &Tensor) -> Result<Tensor> {
    log.apply_op1_no_bwd(&PairwiseDecay)
}

/// Solves (1 + L) y = `rhs` in place, L being the part of `system` [heads, length, length] below its diagonal and `rhs`
/// [heads, length, width].
pub fn solve_unit_lower(system: &Tensor, rhs: &Tensor) -> Result<()> {
    rhs.inplace_op2(system, &SolveUnitLower { length: system.dim(2)?, width: rhs.dim(2)? })
}

struct PairwiseDecay;

impl CustomOp1 for PairwiseDecay {
    fn name(&self) -> &'static str {
        "pairwise_decay"
    }

    fn cpu_fwd(&self, log: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (heads, length) = layout.shape().dims2()?;
        let mut decay = vec![0f32; heads * length * length];
        for (log, decay) in
            values::<f32>(log, layout)?.chunks_exact(length).zip(decay.chunks_exact_mut(length * length))
        {
            for (i, row) in decay.chunks_exact_mut(length).enumerate() {
                for (to, from) in row.iter_mut().zip(&log[..=i]) {
                    *to = (log[i] - from).exp();
                }
            }
        }
        Ok((CpuStorage::F32(decay), (heads, length, length).into()))
    }
}

struct SolveUnitLower {
    length: usize,
    width: usize,
}

impl InplaceOp2 for SolveUnitLower {
    fn name(&self) -> &'static str {
        "solve_unit_lower"
    }

    fn cpu_fwd(&self, rhs: &mut CpuStorage, rl: &Layout, system: &CpuStorage, sl: &Layout) -> Result<()> {
        let Self { length, width } = *self;
        let systems = values::<f32>(system, sl)?.chunks_exact(length * length);
        for (rhs, system) in values_mut::<f32>(rhs, rl)?.chunks_exact_mut(length * width).zip(systems) {
            for i in 1..length {
                let (solved, rest) = rhs.split_at_mut(i * width);
                let row = &mut rest[..width];
                for (factor, solved) in system[i * length..][..i].iter().zip(solved.chunks_exact(width)) {
                    for (y, solved) in row.iter_mut().zip(solved) {
                        *y -= factor * solved;
                    }
                }
            }
        }
        Ok(())
    }
}
