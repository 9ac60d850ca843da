//! The memory of observers in bytes, for estimates: what they keep of all layers, and what of the
//! layer at work.
//!
//! How many values reach a threshold is not known before a run. Of norms few dimensions do, and
//! elsewhere any may.

use super::attribution;
use super::hits::{self, HitSite};
use super::quantiles;
use crate::record::{Measure, MeasureArgs, Site, SiteId};
use crate::spec::{Model, inventory};

/// Of one channel in moments: extremes in f32, and five sums in f64.
const MOMENTS: usize = 2 * 4 + 5 * 8;
/// Rows of a channel in f32 that wait to be summed together.
const WAITING: usize = 16 * 4;
/// Of one channel of one sequence in a ladder: four extremes in f32, and the counts of about eight
/// rungs, with and without the first position.
const LADDER: usize = 16 + 64;
/// Of one value among the largest.
const TOP: usize = 40;
/// Of one entry of an ordered map with a short list.
const ENTRY: usize = 96;

/// What the observers of `args` need for a text of `sequences` of `positions` tokens. `args` names
/// all that it means, and nothing that the model has not.
pub fn bytes(model: &Model, args: &MeasureArgs, (sequences, positions): (usize, usize)) -> u64 {
    let of = Text { model, args, sequences, positions };
    let layers = 0..model.layers.len();
    let kept: usize = layers.clone().map(|layer| of.kept(layer)).sum();
    let at_work = layers.map(|layer| of.at_work(layer)).max().unwrap_or(0);
    (kept + at_work + of.ladder_levels() + of.attribution()) as u64
}

/// A text that is measured in a model.
struct Text<'a> {
    model: &'a Model,
    args: &'a MeasureArgs,
    sequences: usize,
    positions: usize,
}

impl Text<'_> {
    fn asked(&self, measure: Measure) -> bool {
        self.args.observe.contains(&measure)
    }

    fn tokens(&self) -> usize {
        self.sequences * self.positions
    }

    /// Number of experts in a layer and of each token, if it has any.
    fn experts(&self, layer: usize) -> Option<(usize, usize)> {
        self.model.layers[layer].moe().map(|moe| (moe.num_experts, moe.top_k))
    }

    /// The sites of a layer that are measured, with their widths.
    fn sites(&self, layer: usize) -> impl Iterator<Item = (Site, usize)> + '_ {
        let width = move |site: &Site| Some((*site, self.model.site_width(SiteId { layer, site: *site })?));
        self.args.sites.iter().filter_map(width)
    }

    /// Number of experts whose tokens are the rows of a site, or none where its rows are positions.
    fn routed(&self, layer: usize, site: Site) -> Option<(usize, usize)> {
        self.experts(layer).filter(|_| site == Site::FfnMid)
    }

    /// Whether a site has ladders of its own.
    fn is_laddered(&self, layer: usize, site: Site) -> bool {
        self.asked(Measure::Outliers) && !Site::NORMS.contains(&site) && self.routed(layer, site).is_none()
    }

    /// What stays of a layer until the end.
    fn kept(&self, layer: usize) -> usize {
        let mut bytes = 0;
        for (site, width) in self.sites(layer) {
            if self.is_laddered(layer, site) {
                bytes += self.sequences * width * LADDER;
            }
            if self.asked(Measure::Moments) {
                bytes += self.routed(layer, site).map_or(1, |(experts, _)| experts) * width * MOMENTS;
            }
            if self.asked(Measure::Top) {
                bytes += self.args.top * TOP;
            }
            if self.asked(Measure::Hits) && self.routed(layer, site).is_none() {
                bytes += self.hit_rows(site, width) * self.tokens();
            }
        }
        if let Some((experts, _)) = self.experts(layer).filter(|_| self.asked(Measure::Experts)) {
            bytes += experts * (experts * 8 + self.model.hidden_size * 4);
        }
        bytes
    }

    /// What there is of a layer while it is at work.
    fn at_work(&self, layer: usize) -> usize {
        let mut bytes = 0;
        let mut of_expert = 0;
        for (site, width) in self.sites(layer) {
            let routed = self.routed(layer, site);
            let groups = routed.map_or(self.sequences, |(experts, _)| experts);
            if self.asked(Measure::Moments) {
                bytes += groups * width * (MOMENTS + routed.map_or(0, |_| WAITING));
            }
            if self.asked(Measure::Quantiles) {
                bytes += routed.map_or(self.sequences, |_| 1) * quantiles::COUNTS_BYTES;
            }
            if self.asked(Measure::QuantisationError) {
                match routed {
                    None => bytes += self.tokens() * width * 4,
                    // Those of one expert at a time, which may have twice its share of tokens.
                    Some((experts, top_k)) => {
                        of_expert = of_expert.max(2 * self.tokens() * top_k * width * 4 / experts.max(1));
                    }
                }
            }
            if self.asked(Measure::Top) {
                bytes += groups * self.args.top * TOP;
            }
        }
        if self.asked(Measure::Weights) {
            bytes += self.largest_matrix(layer);
        }
        if let Some((experts, top_k)) = self.experts(layer).filter(|_| self.asked(Measure::Experts)) {
            // Logits, their sums, the choice of each token, and sums of squares of inputs.
            bytes += self.tokens() * (4 * experts + 16 + 24 + 4 * top_k.max(4));
            bytes += experts * self.model.hidden_size * 8;
        }
        bytes + of_expert
    }

    /// A copy in f32 of the largest weight of a layer.
    fn largest_matrix(&self, layer: usize) -> usize {
        let layer = &self.model.layers[layer];
        let of_expert = layer.moe().map(|moe| inventory::expert(&moe.experts, 0)).unwrap_or_default();
        let all = inventory::core(layer, true).into_iter().chain(of_expert);
        all.map(|part| part.elements() * 4).max().unwrap_or(0)
    }

    /// Bytes of a token in the rows of hits of one layer.
    fn hit_rows(&self, site: Site, width: usize) -> usize {
        let layers: Vec<usize> = self.model.layers_with(site).into_iter().map(|(layer, _)| layer).collect();
        let of = HitSite { site, layers, wanted: if site.is_hidden() { self.args.dims.clone() } else { Vec::new() } };
        let layers = of.layers.len().max(1);
        let most = hits::most_rows(&of, (self.sequences, self.positions));
        let rows = if Site::NORMS.contains(&site) { hits::LEAST_ROWS + of.wanted.len() } else { width };
        rows.min(most) * (hits::TOKEN_BYTES + layers) / layers
    }

    /// The levels of ladders, one byte for each value of a site, whatever the number of layers.
    fn ladder_levels(&self) -> usize {
        let of_site = |site: &Site| {
            let layers = self.model.layers_with(*site);
            let has = layers.iter().find(|(layer, _)| self.is_laddered(*layer, *site));
            has.map_or(0, |(_, width)| self.tokens() * width)
        };
        self.args.sites.iter().map(of_site).sum()
    }

    /// What has been written to the residual stream at the attributed tokens and dimensions.
    fn attribution(&self) -> usize {
        if !self.asked(Measure::Attribution) {
            return 0;
        }
        let (cells, rows) = attribution::cells(self.model, (self.sequences, self.positions), self.args);
        let tokens = if self.args.dims.is_empty() { rows } else { self.tokens() };
        let chosen: usize = (0..self.model.layers.len()).filter_map(|layer| self.experts(layer)).map(|of| of.1).sum();
        4 * cells * attribution::values_of_a_cell(self.model) + tokens * chosen * ENTRY
    }
}
