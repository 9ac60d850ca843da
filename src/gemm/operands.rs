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
    /// Rows [out, input] of codes.
    Codes(&'a dyn Codes),
}

/// A weight in codes, of which a few numbers at a time are made where they are used.
pub trait Codes: Sync {
    /// The numbers of row `row` from column `from` on, as many as `to` has room for.
    fn decode(&self, row: usize, from: usize, to: &mut [f32]);
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

impl Weight<'_> {
    /// Of a weight in codes, outputs `first..first + width` and words `from..from + depth` of `per_word` inputs each as numbers in
    /// `room`: a weight of their own. None where it is numbers as it is.
    #[inline]
    pub(super) fn numbers<'n>(
        &self,
        first: usize,
        width: usize,
        per_word: usize,
        from: usize,
        depth: usize,
        room: &'n mut [f32],
    ) -> Option<Weight<'n>> {
        let Values::Codes(codes) = self.values else { return None };
        let begin = per_word * from;
        let (out, input) = (width.min(self.out - first), (per_word * depth).min(self.input - begin));
        let room = &mut room[..out * input];
        for (n, row) in room.chunks_exact_mut(input).enumerate() {
            codes.decode(first + n, begin, row);
        }
        Some(Weight { values: Values::F32(room), stride: input, order: Order::OutIn, input, out })
    }
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
    let codes = matches!(w.values, Values::Codes(_));
    assert!(!codes || w.order == Order::OutIn, "codes that lie in rows of outputs");
    assert!(bias.is_none_or(|bias| bias.len() >= w.out), "a bias for every output of a product");
    assert!(x.rows <= 1 || y.stride >= w.out, "rows of a product that do not overlap");
    let room = x.rows.checked_sub(1).map_or(Some(0), |above| above.checked_mul(y.stride)?.checked_add(w.out));
    assert!(room.is_some_and(|room| y.values.len() >= room), "room for a product");
}
