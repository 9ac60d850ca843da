//! Activation functions of feed-forward networks, alone and fused with the product of a gate. All f32, in one pass.

use candle_core::{CpuStorage, CustomOp1, InplaceOp1, InplaceOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::vector::{exp, sigmoid, vectorised};
use super::{PIECE, values, values_mut};
use crate::vocabulary::Activation;

/// gpt-oss: slope of the sigmoid in its SwiGLU (transformers `GptOssExperts.alpha`).
const GPT_OSS_ALPHA: f32 = 1.702;

/// tanh by way of the exponential function; within 1e-7 of it.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    // For large |x| the exponential ends at e^-87 or e^88: the quotient is then 1.
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[inline(always)]
fn swiglu(gate: f32, up: f32, limit: f32) -> f32 {
    // Comparisons that keep NaN.
    let gate = if gate > limit { limit } else { gate };
    let up = if up > limit { limit } else { up };
    let up = if up < -limit { -limit } else { up };
    (up + 1.0) * gate * sigmoid(GPT_OSS_ALPHA * gate)
}

/// values = f(gate) * values, or f(values) without a gate; elementwise.
fn map(values: &mut [f32], gate: Option<&[f32]>, f: impl Fn(f32) -> f32 + Sync) {
    match gate {
        Some(gate) => values.par_chunks_mut(PIECE).zip(gate.par_chunks(PIECE)).for_each(|(values, gate)| {
            vectorised(|| values.iter_mut().zip(gate).for_each(|(value, gate)| *value *= f(*gate)));
        }),
        None => values
            .par_chunks_mut(PIECE)
            .for_each(|values| vectorised(|| values.iter_mut().for_each(|value| *value = f(*value)))),
    }
}

/// values = f(gate) * values, or f(values) without a gate. Where gate and up are interleaved in rows of `width` values, the
/// result is in the first half of each row.
pub(crate) fn combine(activation: Activation, gate: Option<&[f32]>, values: &mut [f32], width: usize) {
    match activation {
        Activation::Silu => map(values, gate, |x| x * sigmoid(x)),
        Activation::Relu => map(values, gate, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::GeluTanh => map(values, gate, |x| {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + tanh(inner))
        }),
        Activation::GeluErf => {
            map(values, gate, |x| 0.5 * x * (1.0 + candle_core::cpu::erf::erf_f32(x * std::f32::consts::FRAC_1_SQRT_2)))
        }
        Activation::ClampedSwiglu { limit } => {
            values.par_chunks_exact_mut(width).with_min_len(PIECE / width + 1).for_each(|row| {
                vectorised(|| {
                    for i in 0..width / 2 {
                        row[i] = swiglu(row[2 * i], row[2 * i + 1], limit);
                    }
                });
            });
        }
    }
}

pub fn activate(activation: Activation, x: &Tensor) -> Result<()> {
    x.inplace_op1(&Activate(activation))
}

pub fn gate(activation: Activation, gate: &Tensor, x: &Tensor) -> Result<()> {
    x.inplace_op2(gate, &Activate(activation))
}

pub fn sigmoid_gate(x: &Tensor, gate: &Tensor) -> Result<()> {
    x.inplace_op2(gate, &SigmoidGate)
}

pub fn interleaved_swiglu(x: &Tensor, limit: f32) -> Result<Tensor> {
    x.apply_op1_no_bwd(&Interleaved { limit })
}

struct Activate(Activation);

impl InplaceOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        combine(self.0, None, values_mut(x, layout)?, 1);
        Ok(())
    }
}

impl InplaceOp2 for Activate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout, gate: &CpuStorage, gate_layout: &Layout) -> Result<()> {
        combine(self.0, Some(values::<f32>(gate, gate_layout)?), values_mut(x, layout)?, 1);
        Ok(())
    }
}

struct SigmoidGate;

impl InplaceOp2 for SigmoidGate {
    fn name(&self) -> &'static str {
        "sigmoid_gate"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout, gate: &CpuStorage, gate_layout: &Layout) -> Result<()> {
        let (x, gate) = (values_mut(x, layout)?, values::<f32>(gate, gate_layout)?);
        let per_gate = x.len() / gate.len().max(1);
        if per_gate == 1 {
            map(x, Some(gate), sigmoid);
        } else {
            x.par_chunks_exact_mut(per_gate).zip(gate).for_each(|(x, gate)| {
                let factor = sigmoid(*gate);
                x.iter_mut().for_each(|x| *x *= factor);
            });
        }
        Ok(())
    }
}

struct Interleaved {
    limit: f32,
}

impl CustomOp1 for Interleaved {
    fn name(&self) -> &'static str {
        "interleaved_swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values::<f32>(x, layout)?;
        let mut out = vec![0f32; x.len() / 2];
        out.par_chunks_mut(PIECE).zip(x.par_chunks(2 * PIECE)).for_each(|(out, x)| {
            let pairs = x.as_chunks::<2>().0;
            vectorised(|| {
                out.iter_mut().zip(pairs).for_each(|(out, [gate, up])| *out = swiglu(*gate, *up, self.limit))
            });
        });
        let mut dims = layout.dims().to_vec();
        *dims.last_mut().expect("at least one dimension") /= 2;
        Ok((CpuStorage::F32(out), dims.into()))
    }
}
