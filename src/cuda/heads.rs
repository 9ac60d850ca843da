//! Matrix products of all heads of attention in one batch.

use std::sync::Arc;

use super::array::{Array, Element};
use super::blas::{Batch, Precision, gemm_batched};
use super::context::Context;
use super::table::Addresses;
use crate::error::{Result, fault};

/// Sizes of the heads of attention. `group` query heads share one head of keys and values.
#[derive(Clone, Copy)]
pub struct HeadSizes {
    pub heads: usize,
    pub group: usize,
    /// Size of a head of queries and of keys.
    pub head_dim: usize,
    /// Size of a head of values and of outputs.
    pub value_dim: usize,
}

impl HeadSizes {
    fn kv_heads(&self) -> usize {
        self.heads / self.group
    }
}

/// The operands of attention for one batch of queries, all f32 on one GPU.
pub struct Operands {
    /// [queries, heads * head_dim]
    pub q: Array,
    /// [queries, heads * value_dim]
    pub out: Array,
    /// [keys, heads / group * head_dim]
    pub k: Array,
    /// [keys, heads / group * value_dim]
    pub v: Array,
    /// Scratch memory for the scores, [heads, queries, keys].
    pub scores: Array,
}

/// GPU memory for the addresses of each head's operands. It is reused for one batch of queries
/// after another.
pub struct Heads {
    sizes: HeadSizes,
    /// Addresses of queries, keys, values, scores and outputs, [5, heads]. The array is not shared.
    lists: Array,
}

/// The operands of one batch of queries, split by head.
pub struct HeadBatch<'a> {
    heads: &'a mut Heads,
    /// They are kept until the products are on the stream.
    operands: Operands,
    queries: usize,
    keys: usize,
}

impl Heads {
    pub fn new(context: &Arc<Context>, sizes: HeadSizes) -> Result<Self> {
        if sizes.group == 0 || !sizes.heads.is_multiple_of(sizes.group) {
            fault!("{} heads in groups of {}", sizes.heads, sizes.group);
        }
        Ok(Self { sizes, lists: Array::new(context, &[5, sizes.heads], Element::Address)? })
    }

    /// Computes the addresses of each head's operands.
    ///
    /// # Errors
    /// `internal` if the operands do not fit each other.
    pub fn bind(&mut self, operands: Operands) -> Result<HeadBatch<'_>> {
        let HeadSizes { heads, group, head_dim, value_dim } = self.sizes;
        let kv_heads = self.sizes.kv_heads();
        let Operands { q, out, k, v, scores } = &operands;
        let (queries, keys) = (q.dims2().0, k.dims2().0);
        let fits = [
            (q, queries * heads * head_dim),
            (out, queries * heads * value_dim),
            (k, keys * kv_heads * head_dim),
            (v, keys * kv_heads * value_dim),
        ];
        if fits.iter().any(|(array, count)| array.len() != *count) || scores.len() < heads * queries * keys {
            fault!("attention of {q:?} to {k:?} and {v:?}, to {out:?}, with room for {scores:?}");
        }
        let (lists, per_head) = (&self.lists, queries * keys);
        Addresses { lists, q, k, v, scores, out, heads, group, head_dim, value_dim, per_head }.launch()?;
        Ok(HeadBatch { heads: self, operands, queries, keys })
    }
}

impl HeadBatch<'_> {
    /// scores = q · kᵀ for each head.
    pub fn scores(&self, precision: Precision) -> Result<()> {
        let sizes @ HeadSizes { heads, head_dim, .. } = self.heads.sizes;
        let (q, k) = (self.list(0, heads * head_dim)?, self.list(1, sizes.kv_heads() * head_dim)?);
        let scores = self.list(3, self.keys)?;
        let sizes = [self.queries, head_dim, self.keys];
        // SAFETY: `bind` put the addresses of these heads on the stream, and the operands have all
        // their rows at these distances.
        unsafe { gemm_batched(&self.operands.q, [scores, q, k], sizes, heads, false, precision) }
    }

    /// out = scores · v for each head.
    pub fn outputs(&self, precision: Precision) -> Result<()> {
        let sizes @ HeadSizes { heads, value_dim, .. } = self.heads.sizes;
        let (out, v) = (self.list(4, heads * value_dim)?, self.list(2, sizes.kv_heads() * value_dim)?);
        let scores = self.list(3, self.keys)?;
        let sizes = [self.queries, self.keys, value_dim];
        // SAFETY: as for `scores`.
        unsafe { gemm_batched(&self.operands.q, [out, scores, v], sizes, heads, true, precision) }
    }

    /// List `i` of addresses, for matrices whose rows are `stride` elements apart.
    fn list(&self, i: usize, stride: usize) -> Result<Batch> {
        Ok(Batch { list: self.heads.lists.rows(i, 1)?.address()?, stride })
    }
}
