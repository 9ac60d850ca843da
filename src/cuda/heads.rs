//! Products of all heads of attention in one batch.

use std::sync::Arc;

use super::array::{Array, Element};
use super::blas::{Batch, Precision, products};
use super::context::Context;
use super::table::Addresses;
use crate::error::{Result, fault};

/// Sizes of the heads of attention; `group` heads share one of keys and values.
#[derive(Clone, Copy)]
pub struct HeadSizes {
    pub heads: usize,
    pub group: usize,
    pub head_dim: usize,
}

/// What the products of one piece of attention work on, all f32 on one GPU.
pub struct Operands {
    /// Queries and results, both [queries, heads * head_dim].
    pub q: Array,
    pub out: Array,
    /// Keys and values, both [keys, heads / group * head_dim].
    pub k: Array,
    pub v: Array,
    /// Room for [heads, queries, keys].
    pub scores: Array,
}

/// The addresses of the heads' operands on a GPU, for one piece of attention after the other.
pub struct Heads {
    sizes: HeadSizes,
    /// Queries, keys, values, scores and results: [5, heads]. Nobody else has them.
    lists: Array,
}

/// The heads of one piece of attention.
pub struct Piece<'a> {
    heads: &'a mut Heads,
    /// Kept until the products have been put on the stream.
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

    /// Looks up where the heads of these operands are.
    ///
    /// # Errors
    /// `internal` when the operands do not fit each other.
    pub fn piece(&mut self, operands: Operands) -> Result<Piece<'_>> {
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
        Ok(Piece { heads: self, operands, queries, keys })
    }
}

impl Piece<'_> {
    /// scores = q · kᵀ for each head.
    pub fn scores(&self, precision: Precision) -> Result<()> {
        let HeadSizes { head_dim, .. } = self.heads.sizes;
        let (scores, q, k) = (self.list(3, self.keys)?, self.list(0, self.width())?, self.list(1, self.shared())?);
        let sizes = [self.queries, head_dim, self.keys];
        // SAFETY: `piece` has put the addresses of these heads on the stream, of operands that have all rows at these distances.
        unsafe { products(&self.operands.q, [scores, q, k], sizes, self.heads.sizes.heads, false, precision) }
    }

    /// out = scores · v for each head.
    pub fn results(&self, precision: Precision) -> Result<()> {
        let HeadSizes { head_dim, .. } = self.heads.sizes;
        let (out, scores, v) = (self.list(4, self.width())?, self.list(3, self.keys)?, self.list(2, self.shared())?);
        let sizes = [self.queries, self.keys, head_dim];
        // SAFETY: as for `scores`.
        unsafe { products(&self.operands.q, [out, scores, v], sizes, self.heads.sizes.heads, true, precision) }
    }

    /// Numbers of a row of queries, and of a row of keys.
    fn width(&self) -> usize {
        self.heads.sizes.heads * self.heads.sizes.head_dim
    }

    fn shared(&self) -> usize {
        self.width() / self.heads.sizes.group
    }

    /// One list of addresses, of matrices whose rows are `stride` numbers apart.
    fn list(&self, i: usize, stride: usize) -> Result<Batch> {
        Ok(Batch { list: self.heads.lists.rows(i, 1)?.address()?, stride })
    }
}
