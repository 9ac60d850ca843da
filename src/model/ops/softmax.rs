//! Attention probabilities in place: scale, causal and sliding-window mask, optional sinks, softmax, all in f32.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

use super::values_mut;

/// Which part of the score matrix a tensor of scores holds, and who may see whom.
#[derive(Clone, Debug)]
pub struct Window {
    /// Position of the first query row and of the first key column.
    pub first_query: usize,
    pub first_key: usize,
    /// Query rows per head.
    pub queries: usize,
    /// A query sees at most this many keys, itself included.
    pub width: Option<usize>,
    /// Factor on the scores.
    pub scale: f32,
    /// One logit per head; takes part in the sum and is then dropped.
    pub sinks: Option<Vec<f32>>,
}

/// `scores` [sequences * kv_heads, group * queries, keys] in f32, rows ordered by head within the group, then query.
pub fn masked_softmax(scores: &Tensor, window: &Window) -> Result<()> {
    scores.inplace_op1(&Softmax { keys: scores.dim(2)?, group_rows: scores.dim(1)?, window })
}

struct Softmax<'a> {
    keys: usize,
    group_rows: usize,
    window: &'a Window,
}

impl Softmax<'_> {
    fn row(&self, row: usize, scores: &mut [f32]) {
        let w = self.window;
        let query = w.first_query + row % w.queries;
        // Keys first_visible..=query are seen; columns count from first_key.
        let first_visible = w.width.map_or(0, |width| (query + 1).saturating_sub(width));
        let begin = first_visible.saturating_sub(w.first_key).min(self.keys);
        let end = (query + 1 - w.first_key).min(self.keys);
        let sink = w.sinks.as_ref().map(|sinks| {
            let (block, in_block) = (row / self.group_rows, row % self.group_rows);
            let group = self.group_rows / w.queries;
            sinks[(block * group + in_block / w.queries) % sinks.len()]
        });
        let (hidden_before, rest) = scores.split_at_mut(begin);
        let (seen, hidden_after) = rest.split_at_mut(end - begin);
        hidden_before.fill(0.0);
        hidden_after.fill(0.0);
        let mut max = sink.unwrap_or(f32::NEG_INFINITY);
        for score in seen.iter_mut() {
            *score *= w.scale;
            max = max.max(*score);
        }
        let mut sum = 0.0;
        for score in seen.iter_mut() {
            *score = (*score - max).exp();
            sum += *score;
        }
        sum += sink.map_or(0.0, |sink| (sink - max).exp());
        let factor = 1.0 / sum;
        for score in seen.iter_mut() {
            *score *= factor;
        }
    }
}

impl InplaceOp1 for Softmax<'_> {
    fn name(&self) -> &'static str {
        "masked_softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let scores = values_mut::<f32>(storage, layout)?;
        scores
            .par_chunks_exact_mut(self.keys)
            .enumerate()
            .with_min_len(super::PIECE / 4 / self.keys + 1)
            .for_each(|(row, scores)| self.row(row, scores));
        Ok(())
    }
}
