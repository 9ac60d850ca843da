//! RMSNorm and LayerNorm over the last dimension, in f32.

use rayon::prelude::*;

use super::pieces::PIECE;
use crate::memory;
use crate::vector::{sum, vectorised};
use crate::vocabulary::NormKind;

/// Number of values that are summed in one block. The sums of blocks are added pairwise.
const BLOCK: usize = 256;

struct Norm {
    kind: NormKind,
    eps: f32,
}

/// `x` [rows, size], `weight` and `bias` [size], to [rows, size]. Only a LayerNorm has a bias.
///
/// A `weight` with several times `size` elements has a weight for each of that many rows, which
/// repeat (for example one per head).
pub(crate) fn norm(kind: NormKind, eps: f64, x: &[f32], size: usize, weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let op = Norm { kind, eps: eps as f32 };
    let weights = weight.len() / size;
    let mut out: Vec<f32> = memory::uninit_vec(x.len());
    let rows = out.par_chunks_exact_mut(size).zip(x.par_chunks_exact(size)).enumerate();
    rows.with_min_len(PIECE / size + 1).for_each(|(row, (out, x))| {
        let of_row = row % weights * size..(row % weights + 1) * size;
        let bias = bias.map(|bias| &bias[of_row.clone()]);
        vectorised!(|| op.row(x, &weight[of_row], bias, out));
    });
    out
}

impl Norm {
    #[inline(always)]
    fn row(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let size = x.len() as f32;
        match self.kind {
            NormKind::Layer | NormKind::LayerZeroCentred => {
                let more = if self.kind == NormKind::LayerZeroCentred { 1.0 } else { 0.0 };
                let mean = pairwise(x, &|v| v) / size;
                let variance = pairwise(x, &|v| (v - mean) * (v - mean)) / size;
                let scale = 1.0 / (variance + self.eps).sqrt();
                match bias {
                    Some(bias) => {
                        for (((out, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                            *out = (x - mean) * scale * (more + w) + b;
                        }
                    }
                    None => {
                        for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                            *out = (x - mean) * scale * (more + w);
                        }
                    }
                }
            }
            kind => {
                let scale = 1.0 / (pairwise(x, &|v| v * v) / size + self.eps).sqrt();
                // The weights of Gemma and Qwen3-Next are stored minus one.
                let more = if kind == NormKind::RmsZeroCentred { 1.0 } else { 0.0 };
                for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                    *out = (more + w) * (x * scale);
                }
            }
        }
    }
}

/// Pairwise sum: the error grows with the logarithm of the length, as in the reference.
#[inline(always)]
fn pairwise(x: &[f32], f: &impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0f32; 128];
    let block = x.len().div_ceil(sums.len()).next_multiple_of(BLOCK);
    let mut count = 0;
    for (to, block) in sums.iter_mut().zip(x.chunks(block.max(1))) {
        *to = sum(block, f);
        count += 1;
    }
    while count > 1 {
        let half = count / 2;
        for i in 0..half {
            sums[i] = sums[2 * i] + sums[2 * i + 1];
        }
        if count % 2 == 1 {
            sums[half] = sums[count - 1];
        }
        count = count.div_ceil(2);
    }
    sums[0]
}
