//! The operands of products: rows of activations, weights, and where the product goes.

use half::bf16;

use crate::vocabulary::Order;

/// Rows of activations: `rows` of them, or those that `chosen` names.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub values: &'a [f32],
    /// Values from one row to the next.
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub chosen: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    /// All of a contiguous [rows, columns].
    pub fn all(values: &'a [f32], columns: usize) -> Self {
        Self { values, stride: columns, rows: values.len() / columns.max(1), columns, chosen: None }
    }

    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        let i = self.chosen.map_or(i, |chosen| chosen[i] as usize);
        &self.values[i * self.stride..][..self.columns]
    }
}

#[derive(Clone, Copy)]
pub enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// The other operand: [out, input] or [input, out], rows `stride` values apart.
#[derive(Clone, Copy)]
pub struct Weight<'a> {
    pub values: Values<'a>,
    pub stride: usize,
    pub order: Order,
    pub input: usize,
    pub out: usize,
}

/// Where a product goes: rows of `stride` values.
pub struct Out<'a> {
    pub values: &'a mut [f32],
    pub stride: usize,
}

/// One of several products of the same rows: weight, bias [out] and where y goes.
pub struct Factor<'a> {
    pub w: Weight<'a>,
    pub bias: Option<&'a [f32]>,
    pub y: Out<'a>,
}

/// Panics unless the operands of a product fit each other: the tiles read and write through pointers, and tasks write side
/// by side, so that nothing below looks at lengths again.
pub(super) fn check(x: &Rows, w: &Weight, bias: Option<&[f32]>, y: &Out) {
    assert_eq!(x.columns, w.input, "inner dimensions of a product");
    assert!(bias.is_none_or(|bias| bias.len() >= w.out), "a bias for every output of a product");
    assert!(x.rows <= 1 || y.stride >= w.out, "rows of a product that do not overlap");
    let room = x.rows.checked_sub(1).map_or(Some(0), |above| above.checked_mul(y.stride)?.checked_add(w.out));
    assert!(room.is_some_and(|room| y.values.len() >= room), "room for a product");
}
