//! Projections on the CPU: rows of f32 times weights in f32 or bf16, several weights at once where they read the same rows.

use candle_core::DType;

use crate::error::{Result, fault};
use crate::gemm::{self, Factor, Out, Rows, Values, Weight};
use crate::memory;
use crate::ops::operands::Projection;
use crate::tensor::{InCodes, Tensor, View};

/// The operands of one projection.
struct Views<'a> {
    weight: Stored<'a>,
    bias: Option<View<'a>>,
}

/// A weight as it is in memory.
enum Stored<'a> {
    Numbers(View<'a>),
    Codes(&'a InCodes),
}

impl<'a> Views<'a> {
    fn of(p: &Projection<'a>) -> Result<Self> {
        let bias = p.bias.map(|bias| View::of(bias.cpu()?)).transpose()?;
        let weight = match p.weight {
            Tensor::Codes(codes) => Stored::Codes(codes),
            weight => Stored::Numbers(View::of(weight.cpu()?)?),
        };
        Ok(Self { weight, bias })
    }
}

/// Products of `x` with each weight, into `outs` [rows, out].
pub fn multiply(x: &Rows, projections: &[Projection], rounded: bool, outs: &mut [&mut [f32]]) -> Result<()> {
    let views = projections.iter().map(Views::of).collect::<Result<Vec<_>>>()?;
    let mut factors = Vec::new();
    for ((p, Views { weight, bias }), y) in projections.iter().zip(&views).zip(outs) {
        let values = match weight {
            Stored::Codes(codes) => Values::Codes(*codes),
            Stored::Numbers(view) => match p.weight.cpu()?.dtype() {
                DType::F32 => Values::F32(view.values()?),
                DType::BF16 => Values::Bf16(view.values()?),
                other => fault!("a weight in {other:?} is neither f32 nor bf16"),
            },
        };
        let (input, out) = p.sizes()?;
        let w = Weight { values, stride: p.weight.dims2()?.1, order: p.order, input, out };
        let bias = bias.as_ref().map(View::values).transpose()?;
        factors.push(Factor { w, bias, y: Out { values: y, stride: out } });
    }
    // Weights that are read together are stored alike. Where x may be rounded, what codes stand for may be as well.
    let narrow = factors.iter().all(|f| matches!(f.w.values, Values::Bf16(_) | Values::Codes(_)));
    gemm::multiply(gemm::Kind::best(rounded && narrow), x, &mut factors);
    Ok(())
}

/// `x` [rows, input] through each projection, [rows, out] each.
pub fn project(x: &[f32], input: usize, projections: &[Projection], rounded: bool) -> Result<Vec<Vec<f32>>> {
    let x = Rows::all(x, input);
    let out = |p: &Projection| Ok(memory::unset::<f32>(x.rows * p.sizes()?.1));
    let mut outs = projections.iter().map(out).collect::<Result<Vec<_>>>()?;
    let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
    multiply(&x, projections, rounded, &mut slices)?;
    Ok(outs)
}
