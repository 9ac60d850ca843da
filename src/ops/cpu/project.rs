//! Projections on the CPU: rows of f32 times weights in f32 or bf16, several weights at once where they read the same rows.

use candle_core::{CpuStorage, Layout, Result, Storage, bail};
use half::bf16;

use super::values;
use crate::gemm::{self, Factor, Out, Rows, Values, Weight};
use crate::memory;
use crate::tensor::Tensor;
use crate::vocabulary::Order;

/// A weight, how it is stored, and its bias [out] in f32.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    pub weight: &'a Tensor,
    pub order: Order,
    pub bias: Option<&'a Tensor>,
}

impl Projection<'_> {
    /// (input, out)
    pub fn sizes(&self) -> Result<(usize, usize)> {
        let (rows, columns) = self.weight.dims2()?;
        Ok(match self.order {
            Order::OutIn => (columns, rows),
            Order::InOut => (rows, columns),
        })
    }
}

/// The operand of a product behind the storage of a weight.
pub(crate) fn operand<'a>(storage: &'a CpuStorage, layout: &Layout, order: Order) -> Result<Weight<'a>> {
    let (rows, columns) = layout.shape().dims2()?;
    let (input, out) = if order == Order::OutIn { (columns, rows) } else { (rows, columns) };
    let values = match storage {
        CpuStorage::F32(_) => Values::F32(values::<f32>(storage, layout)?),
        CpuStorage::BF16(_) => Values::Bf16(values::<bf16>(storage, layout)?),
        _ => bail!("a weight is neither f32 nor bf16"),
    };
    Ok(Weight { values, stride: columns, order, input, out })
}

/// Products of `x` with each weight, into `outs` [rows, out].
pub(crate) fn multiply(x: &Rows, projections: &[Projection], rounded: bool, outs: &mut [&mut [f32]]) -> Result<()> {
    let stored: Vec<_> = projections.iter().map(|p| Ok(p.weight.cpu()?.storage_and_layout())).collect::<Result<_>>()?;
    let biases = projections.iter().map(|p| p.bias.map(|bias| Ok(bias.cpu()?.storage_and_layout())).transpose());
    let biases: Vec<_> = biases.collect::<Result<_>>()?;
    let mut factors = Vec::new();
    for (((p, (storage, layout)), bias), y) in projections.iter().zip(&stored).zip(&biases).zip(outs) {
        let Storage::Cpu(storage) = &**storage else { bail!("a weight is not in CPU memory") };
        let bias = match bias {
            Some((storage, layout)) => match &**storage {
                Storage::Cpu(storage) => Some(values::<f32>(storage, layout)?),
                _ => bail!("a bias is not in CPU memory"),
            },
            None => None,
        };
        let w = operand(storage, layout, p.order)?;
        let stride = w.out;
        factors.push(Factor { w, bias, y: Out { values: y, stride } });
    }
    // Weights that are read together are stored alike.
    let all_bf16 = factors.iter().all(|f| matches!(f.w.values, Values::Bf16(_)));
    gemm::multiply(gemm::Kind::best(rounded && all_bf16), x, &mut factors);
    Ok(())
}

pub fn project(x: &candle_core::Tensor, projections: &[Projection], rounded: bool) -> Result<Vec<candle_core::Tensor>> {
    let (rows, input) = x.dims2()?;
    let mut outs = Vec::new();
    for p in projections {
        let (expected, out) = p.sizes()?;
        if expected != input {
            bail!("a projection of {expected} inputs meets rows of {input}");
        }
        outs.push(memory::unset::<f32>(rows * out));
    }
    {
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("projections run in CPU memory") };
        let x = Rows::all(values::<f32>(storage, layout)?, input);
        let mut slices: Vec<&mut [f32]> = outs.iter_mut().map(Vec::as_mut_slice).collect();
        multiply(&x, projections, rounded, &mut slices)?;
    }
    let tensor = |y, p: &Projection| candle_core::Tensor::from_vec(y, (rows, p.sizes()?.1), x.device());
    outs.into_iter().zip(projections).map(|(y, p)| tensor(y, p)).collect()
}
