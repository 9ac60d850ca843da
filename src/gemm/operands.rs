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
    /// Rows [out, input] of codes.
    Codes(&'a dyn Codes),
}

/// A weight in codes, of which a few numbers at a time are made where they are used.
pub trait Codes: Sync {
    /// The numbers of row `row` from column `from` on, as many as `to` has room for.
    fn decode(&self, row: usize, from: usize, to: &mut [f32]);
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

impl Rhs<'_> {
    /// Decodes outputs `first..first + width` and words `from..from + depth` of `per_word` inputs
    /// each into `room`, as a weight of its own. Returns `None` if the weight is not quantised.
    #[inline]
    pub(super) fn numbers<'n>(
        &self,
        first: usize,
        width: usize,
        per_word: usize,
        from: usize,
        depth: usize,
        room: &'n mut [f32],
    ) -> Option<Rhs<'n>> {
        let Values::Codes(codes) = self.values else { return None };
        let begin = per_word * from;
        let (out, input) = (width.min(self.out - first), (per_word * depth).min(self.input - begin));
        let room = &mut room[..out * input];
        for (n, row) in room.chunks_exact_mut(input).enumerate() {
            codes.decode(first + n, begin, row);
        }
        Some(Rhs { values: Values::F32(room), stride: input, order: Order::OutIn, input, out })
    }
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
    let codes = matches!(w.values, Values::Codes(_));
    assert!(!codes || w.order == Order::OutIn, "codes that lie in rows of outputs");
    assert!(bias.is_none_or(|bias| bias.len() >= w.out), "a bias for every output of a product");
    assert!(x.rows <= 1 || y.stride >= w.out, "rows of a product that do not overlap");
    let room = x.rows.checked_sub(1).map_or(Some(0), |above| above.checked_mul(y.stride)?.checked_add(w.out));
    assert!(room.is_some_and(|room| y.values.len() >= room), "room for a product");
}
