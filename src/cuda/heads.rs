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
    pub head_dim: usize,
}

/// The operands of attention for one batch of queries, all f32 on one GPU.
pub struct Operands {
    /// Queries and outputs, both [queries, heads * head_dim].
    pub q: Array,
    pub out: Array,
    /// Keys and values, both [keys, heads / group * head_dim].
    pub k: Array,
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
        let HeadSizes { heads, group, head_dim } = self.sizes;
        let Operands { q, out, k, v, scores } = &operands;
        let (queries, keys) = (q.dims2().0, k.dims2().0);
        let (width, shared) = (heads * head_dim, heads / group * head_dim);
        let fits = [(q, queries * width), (out, queries * width), (k, keys * shared), (v, keys * shared)];
        if fits.iter().any(|(array, count)| array.len() != *count) || scores.len() < heads * queries * keys {
            fault!("attention of {q:?} to {k:?} and {v:?}, to {out:?}, with room for {scores:?}");
        }
        Addresses { lists: &self.lists, q, k, v, scores, out, heads, group, head_dim, per_head: queries * keys }
            .launch()?;
        Ok(HeadBatch { heads: self, operands, queries, keys })
    }
}

impl HeadBatch<'_> {
    /// scores = q · kᵀ for each head.
    pub fn scores(&self, precision: Precision) -> Result<()> {
        let HeadSizes { head_dim, .. } = self.heads.sizes;
        let (scores, q, k) = (self.list(3, self.keys)?, self.list(0, self.width())?, self.list(1, self.shared())?);
        let sizes = [self.queries, head_dim, self.keys];
        // SAFETY: `bind` put the addresses of these heads on the stream, and the operands have all
        // their rows at these distances.
        unsafe { gemm_batched(&self.operands.q, [scores, q, k], sizes, self.heads.sizes.heads, false, precision) }
    }

    /// out = scores · v for each head.
    pub fn outputs(&self, precision: Precision) -> Result<()> {
        let HeadSizes { head_dim, .. } = self.heads.sizes;
        let (out, scores, v) = (self.list(4, self.width())?, self.list(3, self.keys)?, self.list(2, self.shared())?);
        let sizes = [self.queries, self.keys, head_dim];
        // SAFETY: as for `scores`.
        unsafe { gemm_batched(&self.operands.q, [out, scores, v], sizes, self.heads.sizes.heads, true, precision) }
    }

    /// Numbers in a row of queries. `shared` is the same for a row of keys.
    fn width(&self) -> usize {
        self.heads.sizes.heads * self.heads.sizes.head_dim
    }

    fn shared(&self) -> usize {
        self.width() / self.heads.sizes.group
    }

    /// List `i` of addresses, for matrices whose rows are `stride` elements apart.
    fn list(&self, i: usize, stride: usize) -> Result<Batch> {
        Ok(Batch { list: self.heads.lists.rows(i, 1)?.address()?, stride })
    }
}
