//! Products whose inputs are rounded to a format, as the lanes of a pass ask for them, and weights
//! that are rounded. The formats are in `simulated`.

use rayon::prelude::*;

use super::simulated::{absmax, int4_groups, quantise};
use crate::error::Result;
use crate::ops::{self, Projection};
use crate::record::{ActivationFormat, InputRounding, QUANT_THRESHOLD, QuantFormat, WeightFormat};
use crate::spec::Linear;
use crate::tensor::Tensor;
use crate::vector::vectorised;
use crate::vocabulary::Order;

/// Multiplies the rounded `x` [rows, in] with several projections, to [rows, out] each.
pub(super) fn products(
    all: &[&Linear<Tensor>],
    x: &Tensor,
    rounding: &InputRounding<Tensor>,
    rounded: bool,
) -> Result<Vec<Tensor>> {
    let (mut rest, exact) = split(x, rounding)?;
    let apart = exact.filter(|exact| {
        // With the same weights, both parts are one product.
        let same = rounding.exact.is_none();
        if same {
            rest.iter_mut().zip(exact).for_each(|(rest, exact)| *rest += exact);
        }
        !same
    });
    let tensor = |values: Vec<f32>| Tensor::from_vec(values, x.dims(), &x.device());
    let projections: Vec<Projection> =
        all.iter().map(|of| Projection { weight: &of.weight, order: of.order, bias: of.bias.as_ref() }).collect();
    let products = ops::project(&tensor(rest)?, &projections, rounded)?;
    if let Some(apart) = apart {
        let mut exact = Vec::new();
        for of in all {
            let weight = of.rounding.as_ref().and_then(|own| own.exact.as_ref()).unwrap_or(&of.weight);
            exact.push(Projection { weight, order: of.order, bias: None });
        }
        let more = ops::project(&tensor(apart)?, &exact, rounded)?;
        products.iter().zip(&more).try_for_each(|(sum, more)| ops::add(sum, more))?;
    }
    Ok(products)
}

/// The rounded values, and in a decomposition those that stay exact, with 0 in their places in the
/// rounded ones.
fn split(x: &Tensor, rounding: &InputRounding<Tensor>) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
    let (_, width) = x.dims2()?;
    let mut values = x.values()?;
    let mut exact = None;
    let of_sequence = rounding.rows * width;
    let format = match rounding.format {
        ActivationFormat::Int8Decomposed => {
            let mut kept = vec![0f32; values.len()];
            values
                .par_chunks_mut(of_sequence)
                .zip(kept.par_chunks_mut(of_sequence))
                .for_each(|(values, kept)| move_outlier_columns(values, kept, width));
            exact = Some(kept);
            QuantFormat::Int8Token
        }
        ActivationFormat::Int8 => QuantFormat::Int8Token,
        ActivationFormat::Fp8 => QuantFormat::Fp8Token,
        ActivationFormat::Mxfp4 => QuantFormat::Mxfp4,
        ActivationFormat::Nvfp4 => QuantFormat::Nvfp4,
    };
    values.par_chunks_mut(of_sequence).for_each(|values| {
        let largest = absmax(values);
        values.par_chunks_mut(width).for_each(|row| vectorised!(|| quantise(format, row, largest)));
    });
    Ok((values, exact))
}

/// Moves columns with a magnitude of at least 6 from `values` [rows, width] to `kept`.
fn move_outlier_columns(values: &mut [f32], kept: &mut [f32], width: usize) {
    let mut large = vec![false; width];
    for row in values.chunks_exact(width) {
        large.iter_mut().zip(row).for_each(|(large, x)| *large |= x.abs() >= QUANT_THRESHOLD);
    }
    let columns: Vec<usize> = (0..width).filter(|column| large[*column]).collect();
    for (row, kept) in values.chunks_exact_mut(width).zip(kept.chunks_exact_mut(width)) {
        columns.iter().for_each(|column| kept[*column] = std::mem::take(&mut row[*column]));
    }
}

/// Changes the numbers of a weight, which `change` gets as [out, in] with the number of inputs.
pub(super) fn changed_weight(of: &Linear<Tensor>, change: impl FnOnce(&mut [f32], usize)) -> Result<Tensor> {
    let (first, second) = of.weight.dims2()?;
    let values = of.weight.to_f32_vec()?;
    let transpose = |values: Vec<f32>, rows: usize, columns: usize| -> Vec<f32> {
        (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| values[r * columns + c]).collect()
    };
    let values = match of.order {
        Order::OutIn => {
            let mut values = values;
            change(&mut values, second);
            values
        }
        Order::InOut => {
            let mut turned = transpose(values, first, second);
            change(&mut turned, first);
            transpose(turned, second, first)
        }
    };
    Tensor::from_vec(values, (first, second), &of.weight.device())
}

/// Rounds a weight [out, inputs] to the nearest.
pub(super) fn round_weight(format: WeightFormat, values: &mut [f32], inputs: usize) {
    let largest = absmax(values);
    let row: &(dyn Fn(&mut [f32]) + Sync) = match format {
        WeightFormat::Int8 => &|row| quantise(QuantFormat::Int8Token, row, largest),
        WeightFormat::Int4 => &int4_groups,
        WeightFormat::Fp8 => &|row| quantise(QuantFormat::Fp8Token, row, largest),
        WeightFormat::Nvfp4 => &|row| quantise(QuantFormat::Nvfp4, row, largest),
    };
    values.par_chunks_mut(inputs).for_each(row);
}
