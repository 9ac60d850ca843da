//! Tensor operations on a GPU that return a modified copy.

use crate::cuda::{Array, Element, table};
use crate::error::Result;

pub(super) fn columns(x: &Array, first: usize, width: usize) -> Result<Array> {
    let from = x.dims2().1;
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("at least one dimension") = width;
    let out = Array::new(x.context(), &dims, Element::F32)?;
    table::Columns { out: &out, x, count: out.len(), from, first, width }.launch()?;
    Ok(out)
}

pub(super) fn clamp(x: &Array, limit: f32) -> Result<Array> {
    let out = x.uninit_like()?;
    table::Clamp { out: &out, x, count: x.len(), limit }.launch()?;
    Ok(out)
}
