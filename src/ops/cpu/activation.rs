//! Activation functions of feed-forward networks, alone and fused with the product with a gate. All
//! are f32 and need one pass over memory.

use rayon::prelude::*;

use super::pieces::PIECE;
use crate::vector::{exp, sigmoid, vectorised};
use crate::vocabulary::Activation;

/// Slope of the sigmoid in gpt-oss's SwiGLU (transformers `GptOssExperts.alpha`).
const GPT_OSS_ALPHA: f32 = 1.702;

/// The factor in `quick_gelu` (transformers `QuickGELUActivation`).
const QUICK: f32 = 1.702;

/// The slope of `leaky_relu` below zero (PyTorch `nn.LeakyReLU`).
const LEAK: f32 = 0.01;

/// tanh(x) by the exponential function, with an error of at most 1e-7.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    // The exponential is clamped to e^-87..e^88, so that the result is 1 or -1 for large |x|.
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// x * tanh(ln(1 + e^x)). With e = e^x, the tangent is e (e + 2) / (e (e + 2) + 2). It is 1 from 20
/// on, where e^2 would not fit.
#[inline(always)]
fn mish(x: f32) -> f32 {
    let e = exp(if x > 20.0 { 20.0 } else { x });
    let squared = e * (e + 2.0);
    x * (squared / (squared + 2.0))
}

/// relu(x), at most 6. These comparisons keep NaN.
#[inline(always)]
fn relu6(x: f32) -> f32 {
    let x = if x < 0.0 { 0.0 } else { x };
    if x > 6.0 { 6.0 } else { x }
}

/// ln(1 + e^x).
#[inline(always)]
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { exp(x).ln_1p() }
}

/// The distribution function of a normal law (transformers `LaplaceActivation`).
#[inline(always)]
fn laplace(x: f32) -> f32 {
    const MEAN: f32 = 707_107.0 / 1e6;
    const DEVIATION: f32 = 0.282095;
    0.5 * (1.0 + libm::erff((x - MEAN) / (DEVIATION * std::f32::consts::SQRT_2)))
}

#[inline(always)]
fn swiglu(gate: f32, up: f32, limit: f32) -> f32 {
    // These comparisons keep NaN.
    let gate = if gate > limit { limit } else { gate };
    let up = if up > limit { limit } else { up };
    let up = if up < -limit { -limit } else { up };
    (up + 1.0) * gate * sigmoid(GPT_OSS_ALPHA * gate)
}

/// values = f(gate) * values, or f(values) without a gate; elementwise.
fn map(values: &mut [f32], gate: Option<&[f32]>, f: impl Fn(f32) -> f32 + Sync) {
    match gate {
        Some(gate) => values.par_chunks_mut(PIECE).zip(gate.par_chunks(PIECE)).for_each(|(values, gate)| {
            vectorised!(|| values.iter_mut().zip(gate).for_each(|(value, gate)| *value *= f(*gate)));
        }),
        None => values
            .par_chunks_mut(PIECE)
            .for_each(|values| vectorised!(|| values.iter_mut().for_each(|value| *value = f(*value)))),
    }
}

/// values = f(gate) * values, or f(values) without a gate. If rows of `width` values contain both
/// gate and up, the result is written to the first half of each row.
pub(crate) fn activate(activation: Activation, gate: Option<&[f32]>, values: &mut [f32], width: usize) {
    match activation {
        Activation::Silu => map(values, gate, |x| x * sigmoid(x)),
        Activation::Relu => map(values, gate, |x| if x < 0.0 { 0.0 } else { x }),
        Activation::ReluSquared => map(values, gate, |x| if x < 0.0 { 0.0 } else { x * x }),
        Activation::GeluTanh => map(values, gate, |x| {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + tanh(inner))
        }),
        Activation::GeluErf => map(values, gate, gelu),
        Activation::GeluClipped => map(values, gate, |x| {
            // These comparisons keep NaN.
            let y = gelu(x);
            if y > 10.0 { 10.0 } else { y }
        }),
        Activation::Relu6 => map(values, gate, relu6),
        Activation::LeakyRelu => map(values, gate, |x| if x < 0.0 { LEAK * x } else { x }),
        Activation::Mish => map(values, gate, mish),
        Activation::HardSwish => map(values, gate, |x| x * relu6(x + 3.0) * (1.0 / 6.0)),
        Activation::SqrtSoftplus => map(values, gate, |x| softplus(x).sqrt()),
        Activation::Laplace => map(values, gate, laplace),
        Activation::Sigmoid => map(values, gate, sigmoid),
        Activation::Tanh => map(values, gate, tanh),
        Activation::Linear => map(values, gate, |x| x),
        Activation::GeluQuick => map(values, gate, |x| x * sigmoid(QUICK * x)),
        Activation::XIelu { alpha_p, alpha_n, beta, eps } => map(values, gate, |x| {
            if x > 0.0 {
                alpha_p * x * x + beta * x
            } else {
                ((if x < eps { x } else { eps }).exp_m1() - x) * alpha_n + beta * x
            }
        }),
        Activation::Halves(act) => halves(*act, values, width),
        Activation::ClampedSwiglu { limit } => {
            values.par_chunks_exact_mut(width).with_min_len(PIECE / width + 1).for_each(|row| {
                vectorised!(|| {
                    for i in 0..width / 2 {
                        row[i] = swiglu(row[2 * i], row[2 * i + 1], limit);
                    }
                });
            });
        }
    }
}

/// act(gate) * up for rows of `width` values with gate in the first half and up in the second. The
/// result is written to the first half.
fn halves(activation: Activation, values: &mut [f32], width: usize) {
    values.par_chunks_exact_mut(width).with_min_len(PIECE / width + 1).for_each(|row| {
        let (gate, up) = row.split_at_mut(width / 2);
        activate(activation, Some(gate), up, 0);
        gate.copy_from_slice(up);
    });
}

/// x = x * sigmoid(gate). The gate has as many values as x, or one per row.
pub(crate) fn sigmoid_gate(x: &mut [f32], gate: &[f32]) {
    let per_gate = x.len() / gate.len().max(1);
    if per_gate == 1 {
        map(x, Some(gate), sigmoid);
    } else {
        x.par_chunks_exact_mut(per_gate).zip(gate).for_each(|(x, gate)| {
            let factor = sigmoid(*gate);
            x.iter_mut().for_each(|x| *x *= factor);
        });
    }
}

/// Maps rows [gate | up] of `width` values to act(gate) * up, with half as many values.
pub(crate) fn gate_halves(activation: Activation, x: &[f32], width: usize) -> Vec<f32> {
    let mut out = vec![0f32; x.len() / 2];
    out.par_chunks_exact_mut(width / 2).zip(x.par_chunks_exact(width)).for_each(|(out, row)| {
        let (gate, up) = row.split_at(width / 2);
        out.copy_from_slice(up);
        activate(activation, Some(gate), out, 0);
    });
    out
}

/// Maps interleaved pairs of gate and up to (up + 1) * gate * sigmoid(1.702 gate), clamped by
/// `limit`, with half as many values.
pub(crate) fn interleaved_swiglu(x: &[f32], limit: f32) -> Vec<f32> {
    let mut out = vec![0f32; x.len() / 2];
    out.par_chunks_mut(PIECE).zip(x.par_chunks(2 * PIECE)).for_each(|(out, x)| {
        let pairs = x.as_chunks::<2>().0;
        vectorised!(|| out.iter_mut().zip(pairs).for_each(|(out, [gate, up])| *out = swiglu(*gate, *up, limit)));
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each by its definition, in f64.
    #[test]
    fn activations_by_their_definitions() {
        let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt()));
        let all: [(Activation, &dyn Fn(f64) -> f64); 12] = [
            (Activation::GeluQuick, &|x| x / (1.0 + (-1.702 * x).exp())),
            (Activation::GeluErf, &gelu),
            (Activation::GeluClipped, &|x| gelu(x).clamp(-10.0, 10.0)),
            (Activation::Relu6, &|x| x.clamp(0.0, 6.0)),
            (Activation::LeakyRelu, &|x| if x < 0.0 { 0.01 * x } else { x }),
            (Activation::Mish, &|x| x * x.exp().ln_1p().tanh()),
            (Activation::Laplace, &|x| 0.5 * (1.0 + libm::erf((x - 707_107.0 / 1e6) / (0.282095 * 2f64.sqrt())))),
            (Activation::HardSwish, &|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
            (Activation::SqrtSoftplus, &|x| (x.max(0.0) + (-x.abs()).exp().ln_1p()).sqrt()),
            (Activation::Sigmoid, &|x| 1.0 / (1.0 + (-x).exp())),
            (Activation::Tanh, &f64::tanh),
            (Activation::Linear, &|x| x),
        ];
        let numbers = [-200.0, -20.0, -3.0, -0.5, 0.0, 0.7, 4.0, 19.0, 30.0, 80.0];
        for (activation, definition) in all {
            let (mut alone, mut gated) = (numbers, [2.0; 10]);
            activate(activation, None, &mut alone, 10);
            activate(activation, Some(&numbers), &mut gated, 10);
            for ((alone, gated), number) in alone.iter().zip(gated).zip(numbers) {
                let expected = definition(f64::from(number)) as f32;
                let close = (alone - expected).abs() <= 1e-6 * expected.abs().max(1.0);
                assert!(close, "{activation:?} of {number}: {alone} and not {expected}");
                assert_eq!(gated, 2.0 * alone);
            }
        }
        for activation in all.map(|(activation, _)| activation) {
            let mut nan = [f32::NAN];
            activate(activation, None, &mut nan, 1);
            assert!(nan[0].is_nan(), "{activation:?} keeps NaN");
        }
    }
}
