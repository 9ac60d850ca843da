//! What one layer does to all sequences: norms, a token mixer, a feed-forward network or experts.

use super::Run;
use crate::error::{Error, Result};
use crate::model::attention::{self, Batch};
use crate::model::inventory;
use crate::model::load::tensor_error;
use crate::model::reader::{Portion, Weights};
use crate::model::routing::Assignment;
use crate::model::spec::{Ffn, Layer, Mixer, Moe};
use crate::model::tensor::Tensor;
use crate::model::{deltanet, linear, moe, ops};
use crate::record::{ExpertCoverage, NormId, Site};

impl Run<'_> {
    /// The rows of the residual stream that belong to some sequences.
    fn residual(&self, first: usize, count: usize) -> candle_core::Result<Tensor> {
        self.hidden.rows(first * self.positions(), count * self.positions())
    }

    /// Norm `site` of layer `i` for one batch, seen by the tap.
    fn normed(
        &mut self,
        i: usize,
        site: Site,
        layer: &Layer,
        weights: &Weights,
        batch: (usize, usize),
    ) -> Result<Tensor> {
        let spec = match site {
            Site::InputLayernorm => &layer.input_norm,
            Site::PostAttentionLayernorm => &layer.ffn_norm,
        };
        let residual = self.residual(batch.0, batch.1).map_err(tensor_error)?;
        let normed = linear::norm(spec, weights, &residual).map_err(tensor_error)?;
        if self.probe.tap {
            self.tap.see(2 * i + site as usize, batch.0, &normed).map_err(tensor_error)?;
        }
        if let Some(full) = &mut self.full {
            let values = normed.values();
            let per_sequence = self.tokens.info.sequence_length * self.model.spec.hidden_size;
            full.write(&NormId { layer: i, site }.name(), batch.0 * per_sequence, &values.map_err(tensor_error)?)?;
        }
        Ok(normed)
    }

    /// x += mixer(input_norm(x)) for one batch, or for parts of it where the whole is too much for the device.
    pub(super) fn mix(
        &mut self,
        i: usize,
        layer: &Layer,
        weights: &Weights,
        (first, count): (usize, usize),
        rotary: Option<&(Tensor, Tensor)>,
    ) -> Result<()> {
        ops::halving(first, count, &Error::is_full, &mut |first, count| {
            let x = self.normed(i, Site::InputLayernorm, layer, weights, (first, count))?;
            let batch = Batch { sequences: count, positions: self.positions(), rotary };
            let mixed = match &layer.mixer {
                Mixer::Attention(spec) => attention::attention(spec, weights, &x, &batch),
                Mixer::DeltaNet(spec) => deltanet::delta_net(spec, weights, &x, &batch),
            };
            let mixed = mixed.map_err(tensor_error)?;
            Ok(self.residual(first, count).and_then(|residual| ops::add(&residual, &mixed)).map_err(tensor_error))
        })
    }

    /// x += mlp(ffn_norm(x)); only the norm when nothing needs the rest.
    pub(super) fn dense(&mut self, i: usize, layer: &Layer, weights: &Weights) -> Result<()> {
        for (first, count) in self.batches() {
            ops::halving(first, count, &Error::is_full, &mut |first, count| {
                let x = self.normed(i, Site::PostAttentionLayernorm, layer, weights, (first, count))?;
                let residual = self.residual(first, count).map_err(tensor_error)?;
                Ok(self.feed_forward(i, layer, weights, &x, &residual).map_err(tensor_error))
            })?;
        }
        Ok(())
    }

    fn feed_forward(
        &self,
        i: usize,
        layer: &Layer,
        weights: &Weights,
        x: &Tensor,
        residual: &Tensor,
    ) -> candle_core::Result<()> {
        let (Ffn::Dense(mlp), true) = (&layer.ffn, self.needs_ffn(i)) else { return Ok(()) };
        let inner = mlp.up.weight.shape.iter().product::<usize>() / self.model.spec.hidden_size;
        let rows = self.cut.ffn_rows(self.model.spec.hidden_size, inner);
        ops::in_pieces(x, residual, rows, |x| linear::mlp(mlp, weights, x))
    }

    /// x += mixer(input_norm(x)), then x += experts(ffn_norm(x)), all tokens of all sequences grouped by expert.
    pub(super) fn mixture(
        &mut self,
        i: usize,
        layer: &Layer,
        moe: &Moe,
        weights: Weights,
        rotary: Option<&(Tensor, Tensor)>,
    ) -> Result<()> {
        let (hidden_size, positions) = (self.model.spec.hidden_size, self.positions());
        let tokens = self.tokens.info.num_sequences * positions;
        let all = Tensor::zeros((tokens, hidden_size), &self.model.device).map_err(tensor_error)?;
        let correction = moe.router.correction_bias.as_ref();
        let correction = correction.map(|bias| linear::weight(&weights, &bias.name)?.values()).transpose();
        let correction = correction.map_err(tensor_error)?;
        let mut assignment = Assignment::new(moe.num_experts);
        let mut asked: Vec<usize> = Vec::new();
        let rows = self.cut.ffn_rows(hidden_size, moe.intermediate);
        for (first, count) in self.batches() {
            self.mix(i, layer, &weights, (first, count), rotary)?;
            ops::halving(first, count, &Error::is_full, &mut |first, count| {
                let x = self.normed(i, Site::PostAttentionLayernorm, layer, &weights, (first, count))?;
                let logits = moe::router_logits(moe, &weights, &x).map_err(tensor_error)?;
                let (first_row, scoring) = (first * positions, &moe.router.scoring);
                assignment.route(first_row, &logits, moe.top_k, scoring, correction.as_deref());
                let rest = || {
                    if let Some(shared) = &moe.shared {
                        let residual = self.residual(first, count)?;
                        ops::in_pieces(&x, &residual, rows, |x| moe::shared_expert(shared, &weights, x))?;
                    }
                    all.set_rows(&x, first_row)
                };
                Ok(rest().map_err(tensor_error))
            })?;
            let end = first + count;
            if end == self.tokens.info.num_sequences || end.is_multiple_of(self.round()) {
                for expert in assignment.used().into_iter().filter(|e| !asked.contains(e)).collect::<Vec<_>>() {
                    self.ask(Portion::Expert { layer: i, expert }, inventory::expert(&moe.experts, expert))?;
                    asked.push(expert);
                }
            }
        }
        drop(weights);
        self.plan.skip_other_experts(i, moe.num_experts, &asked);
        let room = ops::Room::default();
        for expert in asked {
            let weights = self.reader.take(Portion::Expert { layer: i, expert })?;
            let chosen = moe::Chosen { expert, assignment: &assignment, rows_per_product: rows, room: &room };
            moe::routed_expert(moe, &weights, &chosen, &all, &self.hidden).map_err(tensor_error)?;
            drop(weights);
            self.model.device.pace()?;
        }
        let tokens_per_expert = assignment.rows.iter().map(|rows| rows.len() as u64).collect();
        self.coverage.push(ExpertCoverage { layer: i, tokens_per_expert });
        Ok(())
    }
}
