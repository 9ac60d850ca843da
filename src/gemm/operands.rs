//! The operands of matrix products: rows of activations, weights, and destinations.

use half::bf16;

use crate::vocabulary::Order;

/// The left operand: `rows` rows of activations, or the rows with the indices `indices`.
#[derive(Clone, Copy)]
pub struct Lhs<'a> {
    pub values: &'a [f32],
    /// Distance between rows in numbers.
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub indices: Option<&'a [u32]>,
}

impl<'a> Lhs<'a> {
    /// All rows of a contiguous [rows, columns].
    pub fn all(values: &'a [f32], columns: usize) -> Self {
        Self { values, stride: columns, rows: values.len() / columns.max(1), columns, indices: None }
    }

    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        let i = self.indices.map_or(i, |indices| indices[i] as usize);
        &self.values[i * self.stride..][..self.columns]
    }
}

#[derive(Clone, Copy)]
pub enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// The right operand: a weight [out, input] or [input, out], with rows `stride` numbers apart.
#[derive(Clone, Copy)]
pub struct Rhs<'a> {
    pub values: Values<'a>,
    pub stride: usize,
    pub order: Order,
    pub input: usize,
    pub out: usize,
}

/// The destination of a product, with rows `stride` numbers apart.
pub struct Dst<'a> {
    pub values: &'a mut [f32],
    pub stride: usize,
}

/// One of several products with the same left operand: weight, bias [out] and destination.
pub struct Gemm<'a> {
    pub w: Rhs<'a>,
    pub bias: Option<&'a [f32]>,
    pub y: Dst<'a>,
}

/// Panics unless the operands of a product fit each other. Micro-kernels access them by pointers
/// and tasks write in parallel, without further checks of lengths.
pub(super) fn check(x: &Lhs, w: &Rhs, bias: Option<&[f32]>, y: &Dst) {
    assert_eq!(x.columns, w.input, "inner dimensions of a product");
    assert!(bias.is_none_or(|bias| bias.len() >= w.out), "a bias for every output of a product");
    assert!(x.rows <= 1 || y.stride >= w.out, "rows of a product that do not overlap");
    let room = x.rows.checked_sub(1).map_or(Some(0), |above| above.checked_mul(y.stride)?.checked_add(w.out));
    assert!(room.is_some_and(|room| y.values.len() >= room), "room for a product");
}
