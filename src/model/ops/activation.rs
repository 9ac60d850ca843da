//! Activation functions of feed-forward networks, alone and fused with the product of a gate.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use half::bf16;
use rayon::prelude::*;

use super::{Element, PIECE, values};
use crate::model::spec::Activation;

/// gpt-oss: slope of the sigmoid in its SwiGLU (transformers `GptOssExperts.alpha`).
const GPT_OSS_ALPHA: f32 = 1.702;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn function(activation: Activation) -> fn(f32) -> f32 {
    match activation {
        Activation::Silu => |x| x * sigmoid(x),
        Activation::Relu => |x| x.max(0.0),
        Activation::GeluTanh => |x| {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        },
        Activation::GeluErf => {
            |x| 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f32(x * std::f32::consts::FRAC_1_SQRT_2))
        }
        // Needs both halves: see `interleaved_swiglu`.
        Activation::ClampedSwiglu { .. } => |x| x,
    }
}

/// f(x), elementwise.
pub fn activate(activation: Activation, x: &Tensor) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Map { f: function(activation) })
}

/// f(gate) * up, elementwise.
pub fn gated(activation: Activation, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.apply_op2_no_bwd(up, &Product { f: function(activation) })
}

/// x * sigmoid(gate), elementwise; the gate may also be one number per row, [rows, 1].
pub fn sigmoid_gate(x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    gate.apply_op2_no_bwd(x, &Product { f: sigmoid })
}

/// [rows, 2 * size] with gate and up interleaved to [rows, size]: (up + 1) * gate * sigmoid(1.702 gate), gate <= limit,
/// |up| <= limit.
pub fn interleaved_swiglu(x: &Tensor, limit: f32) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Interleaved { limit })
}

struct Map {
    f: fn(f32) -> f32,
}

impl Map {
    fn run<T: Element>(&self, x: &[T]) -> Vec<T> {
        let mut out = vec![T::store(0.0); x.len()];
        out.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(out, x)| {
            for (out, x) in out.iter_mut().zip(x) {
                *out = T::store((self.f)(x.load()));
            }
        });
        out
    }
}

impl CustomOp1 for Map {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.run(values::<f32>(x, layout)?)),
            CpuStorage::BF16(_) => CpuStorage::BF16(self.run(values::<bf16>(x, layout)?)),
            _ => bail!("activation of an unexpected dtype"),
        };
        Ok((out, layout.shape().clone()))
    }
}

struct Product {
    f: fn(f32) -> f32,
}

impl Product {
    fn run<T: Element>(&self, gate: &[T], x: &[T]) -> Vec<T> {
        let mut out = vec![T::store(0.0); x.len()];
        let per_gate = x.len() / gate.len();
        if per_gate == 1 {
            out.par_chunks_mut(PIECE).zip(gate.par_chunks(PIECE)).zip(x.par_chunks(PIECE)).for_each(
                |((out, gate), x)| {
                    for ((out, gate), x) in out.iter_mut().zip(gate).zip(x) {
                        *out = T::store((self.f)(gate.load()) * x.load());
                    }
                },
            );
        } else {
            out.par_chunks_mut(per_gate).zip(gate).zip(x.par_chunks(per_gate)).for_each(|((out, gate), x)| {
                let factor = (self.f)(gate.load());
                for (out, x) in out.iter_mut().zip(x) {
                    *out = T::store(factor * x.load());
                }
            });
        }
        out
    }
}

impl CustomOp2 for Product {
    fn name(&self) -> &'static str {
        "gated_product"
    }

    fn cpu_fwd(&self, gate: &CpuStorage, gl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.run(values::<f32>(gate, gl)?, values::<f32>(x, xl)?)),
            CpuStorage::BF16(_) => CpuStorage::BF16(self.run(values::<bf16>(gate, gl)?, values::<bf16>(x, xl)?)),
            _ => bail!("gated product of an unexpected dtype"),
        };
        Ok((out, xl.shape().clone()))
    }
}

struct Interleaved {
    limit: f32,
}

impl Interleaved {
    fn run<T: Element>(&self, x: &[T]) -> Vec<T> {
        let mut out = vec![T::store(0.0); x.len() / 2];
        out.par_chunks_mut(PIECE).zip(x.par_chunks(2 * PIECE)).for_each(|(out, x)| {
            for (out, pair) in out.iter_mut().zip(x.chunks_exact(2)) {
                let gate = pair[0].load().min(self.limit);
                let up = pair[1].load().clamp(-self.limit, self.limit);
                *out = T::store((up + 1.0) * gate * sigmoid(GPT_OSS_ALPHA * gate));
            }
        });
        out
    }
}

impl CustomOp1 for Interleaved {
    fn name(&self) -> &'static str {
        "interleaved_swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = match x {
            CpuStorage::F32(_) => CpuStorage::F32(self.run(values::<f32>(x, layout)?)),
            CpuStorage::BF16(_) => CpuStorage::BF16(self.run(values::<bf16>(x, layout)?)),
            _ => bail!("activation of an unexpected dtype"),
        };
        let mut dims = layout.dims().to_vec();
        *dims.last_mut().expect("at least one dimension") /= 2;
        Ok((out, dims.into()))
    }
}
