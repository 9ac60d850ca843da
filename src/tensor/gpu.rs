//! Tensor operations on a GPU that return a modified copy.

use crate::cuda::{Array, Element, table};
use crate::error::{Result, fault};

/// All values of a floating-point array, copied to CPU memory.
pub(super) fn to_f32_vec(x: &Array) -> Result<Vec<f32>> {
    let widen: fn(u16) -> f32 = match x.element() {
        Element::F32 => {
            let mut values = vec![0f32; x.len()];
            x.download(bytemuck::cast_slice_mut(&mut values))?;
            return Ok(values);
        }
        Element::Bf16 => |bits| half::bf16::from_bits(bits).to_f32(),
        Element::F16 => |bits| half::f16::from_bits(bits).to_f32(),
        _ => fault!("expected floats, found {x:?}"),
    };
    let mut halves = vec![0u16; x.len()];
    x.download(bytemuck::cast_slice_mut(&mut halves))?;
    Ok(halves.into_iter().map(widen).collect())
}

pub(super) fn columns(x: &Array, first: usize, width: usize) -> Result<Array> {
    let from = x.dims2().1;
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("at least one dimension") = width;
    let out = Array::new(x.context(), &dims, Element::F32)?;
    table::Columns { out: &out, x, count: out.len(), from, first, width }.launch()?;
    Ok(out)
}

/// [.., m] and [.., n] to [.., m + n].
pub(super) fn join_columns(x: &Array, y: &Array) -> Result<Array> {
    let ((rows, left), (rows_of_y, right)) = (x.dims2(), y.dims2());
    if rows != rows_of_y {
        fault!("columns of {x:?} and {y:?} do not lie side by side");
    }
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("at least one dimension") = left + right;
    let out = Array::new(x.context(), &dims, Element::F32)?;
    table::JoinColumns { out: &out, x, y, count: out.len(), left, right }.launch()?;
    Ok(out)
}

/// [rows, size] to [rows, times, size].
pub(super) fn repeat_rows(x: &Array, times: usize) -> Result<Array> {
    let (rows, size) = x.dims2();
    let out = Array::new(x.context(), &[rows, times, size], Element::F32)?;
    table::RepeatRows { out: &out, x, count: out.len(), size, times }.launch()?;
    Ok(out)
}

pub(super) fn clamp(x: &Array, limit: f32) -> Result<Array> {
    let out = x.uninit_like()?;
    table::Clamp { out: &out, x, count: x.len(), limit }.launch()?;
    Ok(out)
}
