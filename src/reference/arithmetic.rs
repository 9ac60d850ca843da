//! Projections, norms, activations and feed-forward networks of one token, in f64.

use std::f64::consts::{FRAC_1_SQRT_2, PI, SQRT_2};

use crate::spec::{Linear, Mlp, Norm};
use crate::vocabulary::{Activation, NormKind, Order};

/// One number per feature.
pub(super) type Row = Vec<f64>;
/// One row per token.
pub(super) type Rows = Vec<Row>;

/// A loaded weight, row-major.
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The product of a matrix [out, in] and `x`.
pub(super) fn rows(matrix: &Array, x: &[f64]) -> Row {
    matrix.values.chunks_exact(x.len()).map(|row| dot(row, x)).collect()
}

pub(super) fn linear(of: &Linear<Array>, x: &[f64]) -> Row {
    let mut y = match of.order {
        Order::OutIn => rows(&of.weight, x),
        Order::InOut => {
            let out = of.weight.shape.last().copied().unwrap_or(1);
            (0..out).map(|o| x.iter().enumerate().map(|(i, x)| x * of.weight.values[i * out + o]).sum()).collect()
        }
    };
    if let Some(bias) = &of.bias {
        y.iter_mut().zip(&bias.values).for_each(|(y, b)| *y += b);
    }
    y
}

pub(super) fn norm(of: &Norm<Array>, x: &[f64]) -> Row {
    let bias = of.bias.as_ref().map(|bias| &bias.values[..]);
    normed(of.kind, of.eps, &of.weight.values, bias, x)
}

pub(super) fn normed(kind: NormKind, eps: f64, weight: &[f64], bias: Option<&[f64]>, x: &[f64]) -> Row {
    let count = x.len() as f64;
    let centre = match kind {
        NormKind::Layer | NormKind::LayerZeroCentred => x.iter().sum::<f64>() / count,
        _ => 0.0,
    };
    let more = if matches!(kind, NormKind::RmsZeroCentred | NormKind::LayerZeroCentred) { 1.0 } else { 0.0 };
    let scale = (x.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / count + eps).sqrt();
    let value = |i: usize| (x[i] - centre) / scale * (more + weight[i]) + bias.map_or(0.0, |bias| bias[i]);
    (0..x.len()).map(value).collect()
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

pub(super) fn softmax(x: &[f64]) -> Row {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exp: Row = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

pub(super) fn feed(of: &Mlp<Array>, x: &[f64]) -> Row {
    let up = linear(&of.up, x);
    let half = up.len() / 2;
    let inner: Row = match of.activation {
        Activation::ClampedSwiglu { limit } => {
            let limit = f64::from(limit);
            let one = |i: usize| (up[2 * i].min(limit), up[2 * i + 1].clamp(-limit, limit));
            (0..half).map(one).map(|(gate, up)| (up + 1.0) * gate * sigmoid(1.702 * gate)).collect()
        }
        Activation::Halves(act) => (0..half).map(|i| activated(*act, up[i]) * up[half + i]).collect(),
        act => {
            let curve = |x: f64| activate(act, of, x);
            match &of.gate {
                Some(gate) => linear(gate, x).into_iter().zip(up).map(|(gate, up)| curve(gate) * up).collect(),
                None => up.into_iter().map(curve).collect(),
            }
        }
    };
    linear(&of.down, &inner)
}

fn activate(activation: Activation, of: &Mlp<Array>, x: f64) -> f64 {
    if let Some(xielu) = &of.xielu {
        let (beta, eps) = (xielu.beta.values[0], xielu.eps.values[0]);
        let (p, n) = (softplus(xielu.alpha_p.values[0]), beta + softplus(xielu.alpha_n.values[0]));
        return if x > 0.0 { p * x * x + beta * x } else { (x.min(eps).exp_m1() - x) * n + beta * x };
    }
    activated(activation, x)
}

/// An activation that has no parameters.
pub(super) fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::GeluErf => 0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2)),
        Activation::GeluQuick => x / (1.0 + (-1.702 * x).exp()),
        Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Activation::GeluClipped => activated(Activation::GeluErf, x).clamp(-10.0, 10.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu => x.max(0.01 * x),
        Activation::Mish => x * softplus(x).tanh(),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::SqrtSoftplus => softplus(x).sqrt(),
        Activation::Laplace => 0.5 * (1.0 + libm::erf((x - 707_107.0 / 1e6) / (0.282095 * SQRT_2))),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Linear => x,
        _ => silu(x),
    }
}
