//! RMSNorm and LayerNorm over the last dimension, with the rounding of each model family.

use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use half::bf16;
use rayon::prelude::*;

use super::{Element, values};
use crate::model::spec::NormKind;

struct Norm {
    kind: NormKind,
    eps: f32,
    to: DType,
}

/// `x` [.., size] in f32 or bf16, `weight` and `bias` [size] in f32; the result has dtype `to`.
pub fn norm(kind: NormKind, eps: f64, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, to: DType) -> Result<Tensor> {
    let op = Norm { kind, eps: eps as f32, to };
    // Only a LayerNorm looks at its third operand.
    x.apply_op3_no_bwd(weight, bias.unwrap_or(weight), &op)
}

impl Norm {
    fn run<X: Element, Y: Element>(&self, x: &[X], weight: &[f32], bias: &[f32]) -> Vec<Y> {
        let size = weight.len();
        let mut out = vec![Y::store(0.0); x.len()];
        let rows = out.par_chunks_exact_mut(size).zip(x.par_chunks_exact(size));
        rows.with_min_len(super::PIECE / size + 1).for_each(|(out, x)| self.row(x, weight, bias, out));
        out
    }

    fn row<X: Element, Y: Element>(&self, x: &[X], weight: &[f32], bias: &[f32], out: &mut [Y]) {
        let size = x.len() as f32;
        match self.kind {
            NormKind::Layer => {
                let mean = pairwise(x, &|v| v) / size;
                let variance = pairwise(x, &|v| (v - mean) * (v - mean)) / size;
                let scale = 1.0 / (variance + self.eps).sqrt();
                for (((out, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                    *out = Y::store((x.load() - mean) * scale * w + b);
                }
            }
            kind => {
                let scale = 1.0 / (pairwise(x, &|v| v * v) / size + self.eps).sqrt();
                for ((out, x), w) in out.iter_mut().zip(x).zip(weight) {
                    let unit = x.load() * scale;
                    *out = match kind {
                        NormKind::Rms => Y::store(w * Y::store(unit).load()),
                        NormKind::RmsZeroCentred => Y::store((1.0 + w) * unit),
                        _ => Y::store(w * unit),
                    };
                }
            }
        }
    }
}

/// Sum in sixteen lanes and blocks: the error grows with the logarithm of the length, as in the reference.
fn pairwise<X: Element>(x: &[X], f: &impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 16;
    const BLOCK: usize = 256;
    if x.len() > BLOCK {
        let middle = (x.len() / 2).next_multiple_of(LANES);
        return pairwise(&x[..middle], f) + pairwise(&x[middle..], f);
    }
    let mut lanes = [0f32; LANES];
    for piece in x.chunks(LANES) {
        for (lane, v) in lanes.iter_mut().zip(piece) {
            *lane += f(v.load());
        }
    }
    lanes.iter().sum()
}

impl CustomOp3 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (w, b) = (values::<f32>(weight, weight_layout)?, values::<f32>(bias, bias_layout)?);
        let out = match (x, self.to) {
            (CpuStorage::F32(_), DType::F32) => CpuStorage::F32(self.run(values::<f32>(x, x_layout)?, w, b)),
            (CpuStorage::F32(_), DType::BF16) => CpuStorage::BF16(self.run(values::<f32>(x, x_layout)?, w, b)),
            (CpuStorage::BF16(_), DType::F32) => CpuStorage::F32(self.run(values::<bf16>(x, x_layout)?, w, b)),
            (CpuStorage::BF16(_), DType::BF16) => CpuStorage::BF16(self.run(values::<bf16>(x, x_layout)?, w, b)),
            _ => bail!("norm of an unexpected dtype"),
        };
        Ok((out, x_layout.shape().clone()))
    }
}
