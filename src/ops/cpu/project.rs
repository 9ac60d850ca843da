//! Linear projections on the CPU: rows of f32 times weights in f32 or bf16. Weights that multiply
//! the same rows are computed together.

use candle_core::DType;

use crate::error::{Result, fault};
use crate::gemm::{self, Dst, Gemm, Kind, Lhs, Rhs, Seen, Values};
use crate::memory;
use crate::ops::operands::Projection;
use crate::tensor::{InCodes, Tensor, View};
use crate::vocabulary::Order;

/// The values of a projection's weight and bias.
struct Views<'a> {
    weight: Stored<'a>,
    bias: Option<View<'a>>,
}

/// A weight as it is in memory.
enum Stored<'a> {
    Numbers(View<'a>),
    Codes(&'a InCodes),
    /// Of codes that do not lie in rows of outputs.
    Decoded(Vec<f32>),
}

impl<'a> Views<'a> {
    fn of(p: &Projection<'a>) -> Result<Self> {
        let bias = p.bias.map(|bias| View::of(bias.cpu()?)).transpose()?;
        let weight = match p.weight {
            Tensor::Codes(codes) if p.order == Order::OutIn => Stored::Codes(codes),
            Tensor::Codes(codes) => Stored::Decoded(codes.values()),
            weight => Stored::Numbers(View::of(weight.cpu()?)?),
        };
        Ok(Self { weight, bias })
    }

    /// The weight of the projection that these are the views of.
    fn operand(&'a self, p: &Projection) -> Result<Rhs<'a>> {
        let values = match &self.weight {
            Stored::Codes(codes) => Values::Codes(*codes),
            Stored::Decoded(values) => Values::F32(values),
            Stored::Numbers(view) => match p.weight.cpu()?.dtype() {
                DType::F32 => Values::F32(view.values()?),
                DType::BF16 => Values::Bf16(view.values()?),
                other => fault!("a weight in {other:?} is neither f32 nor bf16"),
            },
        };
        let (input, out) = p.sizes()?;
        Ok(Rhs { values, stride: p.weight.dims2()?.1, order: p.order, input, out })
    }
}

/// The products of `x` with each weight, written to `outs` [rows, out].
pub(super) fn multiply(x: &Lhs, projections: &[Projection], rounded: bool, outs: &mut [&mut [f32]]) -> Result<()> {
    let views = projections.iter().map(Views::of).collect::<Result<Vec<_>>>()?;
    let mut gemms = Vec::new();
    for ((p, views), y) in projections.iter().zip(&views).zip(outs) {
        let w = views.operand(p)?;
        let (bias, stride) = (views.bias.as_ref().map(View::values).transpose()?, w.out);
        gemms.push(Gemm { w, bias, y: Dst { values: y, stride } });
    }
    // Weights that multiply the same rows have the same type.
    gemm::gemm_all(kind(gemms.iter().map(|gemm| &gemm.w), rounded), x, &mut gemms);
    Ok(())
}

/// The kind of products with some weights. If x may be rounded, so may the decoded values of codes.
fn kind<'a>(mut weights: impl Iterator<Item = &'a Rhs<'a>>, rounded: bool) -> Kind {
    Kind::best(rounded && weights.all(|w| matches!(w.values, Values::Bf16(_) | Values::Codes(_))))
}

/// As `ops::products_seen`.
pub(crate) fn products_seen<S: Send>(
    xs: &[Tensor],
    weight: &Tensor,
    rounded: bool,
    begin: impl Fn() -> S + Sync,
    see: impl Fn(&mut S, Seen) + Sync,
) -> Result<Vec<S>> {
    let projection = Projection { weight, order: Order::OutIn, bias: None };
    let views = Views::of(&projection)?;
    let w = views.operand(&projection)?;
    let xs = xs.iter().map(|x| View::of(x.cpu()?)).collect::<Result<Vec<_>>>()?;
    let rows = xs.iter().map(|x| Ok(Lhs::all(x.values()?, w.input))).collect::<Result<Vec<_>>>()?;
    Ok(gemm::products_seen(kind(std::iter::once(&w), rounded), &rows, &w, begin, see))
}

/// As `ops::seen_columns`.
pub(crate) fn seen_columns(weight: &Tensor, rounded: bool) -> Result<usize> {
    let projection = Projection { weight, order: Order::OutIn, bias: None };
    let views = Views::of(&projection)?;
    let w = views.operand(&projection)?;
    Ok(gemm::seen_columns(kind(std::iter::once(&w), rounded), w.input))
}

/// `x` [rows, input] through each projection, [rows, out] each.
pub(crate) fn project(x: &[f32], input: usize, projections: &[Projection], rounded: bool) -> Result<Vec<Vec<f32>>> {
    let x = Lhs::all(x, input);
    let out = |p: &Projection| Ok(memory::uninit_vec::<f32>(x.rows * p.sizes()?.1));
    let mut outs = projections.iter().map(out).collect::<Result<Vec<_>>>()?;
    let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
    multiply(&x, projections, rounded, &mut slices)?;
    Ok(outs)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use safetensors::Dtype;

    use super::*;
    use crate::formats::{self, Look, Settings};

    /// Of architectures whose weights are [in, out].
    #[test]
    fn codes_that_lie_in_rows_of_inputs() {
        let headers = vec![
            ("m.weight".to_string(), Dtype::F8_E4M3, vec![2, 3]),
            ("m.weight_scale".to_string(), Dtype::F32, vec![1]),
        ];
        let look = Look {
            name: "m.weight",
            shape: &[2, 3],
            headers: &headers,
            settings: &Settings::default(),
            model: &HashSet::new(),
            scaled: true,
            place: "model",
        };
        let coding = formats::find(&look).unwrap().unwrap();
        // 1, 2, 3 and 1, 1, 2, times a half.
        let pieces = vec![vec![0x38, 0x40, 0x44, 0x38, 0x38, 0x40], 0.5f32.to_le_bytes().to_vec()];
        let kept = coding.keep(pieces, 2, 0..2).unwrap();
        let weight = Tensor::Codes(InCodes::new(coding, kept, [2, 3]));
        let projection = Projection { weight: &weight, order: Order::InOut, bias: None };
        assert_eq!(project(&[2.0, 4.0], 2, &[projection], false).unwrap(), [[3.0, 4.0, 7.0]]);
    }
}
