//! Copies of a tensor in the memory of a GPU, changed on the way.

use crate::cuda::{Arg, Array, Element};
use crate::error::Result;

pub fn columns(x: &Array, first: usize, width: usize) -> Result<Array> {
    let from = x.dims2().1;
    let mut dims = x.dims().to_vec();
    *dims.last_mut().expect("at least one dimension") = width;
    let out = Array::new(x.context(), &dims, Element::F32)?;
    let sizes = [Arg::size(from), Arg::size(first), Arg::size(width)];
    x.each("columns", out.len(), &[&[out.arg(), x.arg(), Arg::count(out.len())][..], &sizes].concat())?;
    Ok(out)
}

pub fn clamp(x: &Array, limit: f32) -> Result<Array> {
    let out = x.like()?;
    x.each("clamp", x.len(), &[out.arg(), x.arg(), Arg::count(x.len()), Arg::F32(limit)])?;
    Ok(out)
}
