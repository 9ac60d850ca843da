//! Attribution: how much of a value of the residual stream was written by the embedding and by each
//! part of each layer.
//!
//! Which values are large is known only after a layer, and what earlier layers wrote there is gone
//! by then. So all writes are kept of cells that are chosen before: all dimensions at some tokens,
//! and some dimensions at all tokens. Each takes a bounded number of bytes. docs/measures.md has
//! the definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::observer::{ExpertRows, Observer};
use super::stored;
use super::top::{Found, largest};
use crate::error::{Error, Result};
use crate::record::{AttributedValue, Attribution, ExpertWrite, LayerWrites, MeasureArgs, Site, SiteId, Tokens};
use crate::spec::Model;
use crate::tensor::Tensor;

/// The most bytes that the writes at the chosen tokens take, and those in the chosen dimensions.
const MOST_BYTES: usize = 256 << 20;
/// Number of values of each layer that may get into the record.
const OF_A_LAYER: usize = 16;
/// The most values in the record.
const MOST: usize = 64;

pub struct AttributionObserver<'a> {
    tokens: &'a Tokens,
    cells: Cells,
    /// Of each layer: true if experts and the shared expert add to the stream themselves.
    routed: Vec<bool>,
    /// True for layers whose tokens also go through a shared expert.
    shared: Vec<bool>,
    kept: Kept,
}

/// The cells whose writes are kept.
struct Cells {
    /// Tokens all of whose dimensions are kept, ascending, and the dimensions kept of all tokens.
    rows: Vec<usize>,
    dims: Vec<usize>,
    tokens: usize,
    hidden: usize,
    sequences: usize,
    positions: Vec<usize>,
}

/// What has been added to the residual stream, and the stream itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Writer {
    Embedding,
    Attention,
    FeedForward,
    Shared,
    Residual,
}

/// The values at the cells.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    writes: BTreeMap<(usize, Writer), Vec<f32>>,
    /// By layer, token and expert: all dimensions of a chosen token, or the chosen dimensions.
    experts: BTreeMap<(usize, usize, usize), Vec<f32>>,
    /// For each layer, the tokens and dimensions of its largest values, largest first.
    large: BTreeMap<usize, Vec<(usize, usize)>>,
}

/// The most writes that are kept of a cell.
pub(super) fn values_of_a_cell(model: &Model) -> usize {
    model.layers.iter().map(|layer| 3 + layer.moe().map_or(0, |moe| moe.top_k)).sum()
}

/// Number of cells whose writes are kept, and of tokens that have all dimensions, for a text of
/// `sequences` of `positions`.
pub(super) fn cells(model: &Model, text: (usize, usize), args: &MeasureArgs) -> (usize, usize) {
    let cells = Cells::new(model, text, args);
    (cells.len(), cells.rows.len())
}

impl Cells {
    fn new(model: &Model, (sequences, length): (usize, usize), args: &MeasureArgs) -> Self {
        let all = sequences;
        let positions: BTreeSet<usize> = args.attributed_positions.iter().copied().collect();
        let values = values_of_a_cell(model);
        let all_dims = (4 * values * model.hidden_size).max(1);
        let all_tokens = (4 * values * sequences * length).max(1);
        let sequences = sequences.min((MOST_BYTES / all_dims / positions.len().max(1)).max(1));
        let of_sequence = |sequence: usize| positions.iter().map(move |position| sequence * length + position);
        let mut dims: Vec<usize> = args.dims.clone();
        dims.truncate(MOST_BYTES / all_tokens);
        Self {
            rows: (0..sequences).flat_map(of_sequence).collect(),
            dims,
            tokens: all * length,
            hidden: model.hidden_size,
            sequences,
            positions: positions.into_iter().collect(),
        }
    }

    /// Number of values of one writer.
    fn len(&self) -> usize {
        self.rows.len() * self.hidden + self.tokens * self.dims.len()
    }

    /// Copies what is kept of `x` [rows, hidden], whose first row is token `first`.
    fn copy(&self, to: &mut [f32], first: usize, x: &Tensor) -> Result<()> {
        let (count, _) = x.dims2()?;
        let chosen = self.rows.iter().enumerate().filter(|(_, token)| (first..first + count).contains(*token));
        for (row, token) in chosen {
            let values = x.rows(token - first, 1)?.values()?;
            to[row * self.hidden..][..self.hidden].copy_from_slice(&values);
        }
        if self.dims.is_empty() {
            return Ok(());
        }
        let width = self.dims.len();
        let columns = &mut to[self.rows.len() * self.hidden + first * width..][..count * width];
        x.with_values(|x| {
            for (to, x) in columns.chunks_exact_mut(width).zip(x.chunks_exact(self.hidden)) {
                to.iter_mut().zip(&self.dims).for_each(|(to, dim)| *to = x[*dim]);
            }
        })
    }

    /// The kept value at a cell.
    fn at(&self, kept: &[f32], token: usize, dim: usize) -> Option<f32> {
        let place = match self.rows.binary_search(&token) {
            Ok(row) => row * self.hidden + dim,
            Err(_) => {
                let column = self.dims.iter().position(|of| *of == dim)?;
                self.rows.len() * self.hidden + token * self.dims.len() + column
            }
        };
        kept.get(place).copied()
    }

    /// The largest values of the residual stream at the cells, largest first.
    fn largest(&self, kept: &[f32]) -> Vec<(usize, usize)> {
        let (rows, columns) = kept.split_at(self.rows.len() * self.hidden);
        let mut found = largest(rows, self.hidden, OF_A_LAYER, None, |row| self.rows[row]);
        if !self.dims.is_empty() {
            let of_columns = largest(columns, self.dims.len(), OF_A_LAYER, None, |token| token);
            found.extend(of_columns.into_iter().map(|of| Found { dim: self.dims[of.dim], ..of }));
        }
        found.sort_by(Found::order);
        let mut places: Vec<(usize, usize)> = found.iter().map(|of| (of.token, of.dim)).collect();
        places.dedup();
        places.truncate(OF_A_LAYER);
        places
    }
}

impl<'a> AttributionObserver<'a> {
    pub fn new(model: &Model, tokens: &'a Tokens, args: &MeasureArgs) -> Self {
        let routed = model.layers.iter().map(|layer| {
            let plain = layer.ffn.as_ref().is_some_and(|ffn| ffn.is_plain());
            plain && layer.moe().is_some_and(|moe| moe.sum_norm.is_none())
        });
        let shared = model.layers.iter().map(|layer| layer.moe().is_some_and(|moe| moe.shared.is_some()));
        let cells = Cells::new(model, (tokens.info.num_sequences, tokens.info.sequence_length), args);
        Self { tokens, cells, routed: routed.collect(), shared: shared.collect(), kept: Kept::default() }
    }

    /// Whether experts of this layer write by themselves. Layers behind the last are asked about.
    fn is_routed(&self, layer: usize) -> bool {
        self.routed.get(layer).copied().unwrap_or(false)
    }

    fn keep(&mut self, layer: usize, writer: Writer, first_sequence: usize, x: &Tensor) -> Result<()> {
        let size = self.cells.len();
        let kept = self.kept.writes.entry((layer, writer)).or_insert_with(|| vec![0.0; size]);
        self.cells.copy(kept, first_sequence * self.tokens.info.sequence_length, x)
    }

    fn value(&self, layer: usize, writer: Writer, (token, dim): (usize, usize)) -> Option<f32> {
        self.cells.at(self.kept.writes.get(&(layer, writer))?, token, dim)
    }

    /// What every layer has written at a cell.
    fn layers_at(&self, cell: (usize, usize), embedding: f32) -> Vec<LayerWrites> {
        let (token, dim) = cell;
        let mut before = embedding;
        let mut layers = Vec::new();
        for layer in 0..self.routed.len() {
            let Some(residual) = self.value(layer, Writer::Residual, cell) else { continue };
            let of = |writer| self.value(layer, writer, cell);
            let column = match self.cells.rows.binary_search(&token) {
                Ok(_) => Some(dim),
                Err(_) => self.cells.dims.iter().position(|of| *of == dim),
            };
            let of_token = self.kept.experts.range((layer, token, 0)..(layer, token + 1, 0));
            let expert = |((_, _, expert), values): (&(usize, usize, usize), &Vec<f32>)| {
                Some(ExpertWrite { expert: *expert, value: *values.get(column?)? })
            };
            let experts: Vec<ExpertWrite> = of_token.filter_map(expert).collect();
            let (attention, feed_forward) = (of(Writer::Attention), of(Writer::FeedForward));
            let shared_expert = of(Writer::Shared);
            let singles = [attention, feed_forward, shared_expert].into_iter().flatten();
            let written: f64 = singles.chain(experts.iter().map(|of| of.value)).map(f64::from).sum();
            let rest = (f64::from(residual) - f64::from(before) - written) as f32;
            layers.push(LayerWrites { layer, attention, feed_forward, shared_expert, experts, rest, residual });
            before = residual;
        }
        layers
    }

    /// The largest values of the layers: the largest of each, then the second of each, and so on.
    fn chosen(&self) -> Vec<(usize, usize)> {
        let mut chosen: Vec<(usize, usize)> = Vec::new();
        for rank in 0..OF_A_LAYER {
            for cell in self.kept.large.values().filter_map(|of| of.get(rank)) {
                if chosen.len() < MOST && !chosen.contains(cell) {
                    chosen.push(*cell);
                }
            }
        }
        chosen
    }

    pub fn finish(self) -> Attribution {
        let length = self.tokens.info.sequence_length;
        let value = |cell: (usize, usize)| {
            let embedding = self.value(0, Writer::Embedding, cell)?;
            let (sequence, position) = (cell.0 / length, cell.0 % length);
            Some(AttributedValue {
                sequence,
                position,
                token_id: self.tokens.ids[sequence][position],
                dim: cell.1,
                embedding,
                layers: self.layers_at(cell, embedding),
            })
        };
        let mut values: Vec<AttributedValue> = self.chosen().into_iter().filter_map(value).collect();
        let most = |of: &AttributedValue| of.layers.iter().fold(0f32, |most, layer| most.max(layer.residual.abs()));
        values.sort_by(|a, b| {
            most(b)
                .total_cmp(&most(a))
                .then_with(|| (a.sequence, a.position, a.dim).cmp(&(b.sequence, b.position, b.dim)))
        });
        let Cells { sequences, positions, dims, .. } = self.cells;
        Attribution { sequences, positions, dims, values }
    }
}

impl Observer for AttributionObserver<'_> {
    /// The stream after a layer is taken when the layer is done.
    fn wants(&self, site: SiteId) -> bool {
        match site.site {
            Site::Embed | Site::AttnWrite | Site::ResidPost => true,
            Site::FfnWrite => !self.is_routed(site.layer),
            _ => false,
        }
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        match site.site {
            Site::Embed => self.keep(0, Writer::Embedding, sequences.start, x),
            Site::AttnWrite => self.keep(site.layer, Writer::Attention, sequences.start, x),
            Site::FfnWrite => self.keep(site.layer, Writer::FeedForward, sequences.start, x),
            _ => Ok(()),
        }
    }

    fn wants_experts(&self, layer: usize) -> bool {
        self.is_routed(layer)
    }

    fn observe_expert(&mut self, of: &ExpertRows) -> Result<()> {
        let width = self.cells.dims.len();
        let columns = if width > 0 { Some(of.output.values()?) } else { None };
        for (row, token) in of.tokens().enumerate() {
            // The output has its weight already if that multiplied the input.
            let weight = if of.on_input { 1.0 } else { of.weights[row] };
            let values = match (self.cells.rows.binary_search(&token), &columns) {
                (Ok(_), _) => of.output.rows(row, 1)?.values()?,
                (Err(_), Some(all)) => {
                    let y = &all[row * self.cells.hidden..][..self.cells.hidden];
                    self.cells.dims.iter().map(|dim| y[*dim]).collect()
                }
                (Err(_), None) => continue,
            };
            let written = values.iter().map(|y| weight * y).collect();
            self.kept.experts.insert((of.layer, token, of.expert), written);
        }
        Ok(())
    }

    fn wants_shared_expert(&self, layer: usize) -> bool {
        self.is_routed(layer) && self.shared[layer]
    }

    fn observe_shared_expert(&mut self, layer: usize, sequences: Range<usize>, y: &Tensor) -> Result<()> {
        self.keep(layer, Writer::Shared, sequences.start, y)
    }

    fn end_layer(&mut self, layer: usize, stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        for (sequences, x) in stream {
            self.keep(layer, Writer::Residual, sequences.start, x)?;
        }
        if let Some(kept) = self.kept.writes.get(&(layer, Writer::Residual)) {
            self.kept.large.insert(layer, self.cells.largest(kept));
        }
        Ok(())
    }

    fn save(&mut self, _layers: usize, checkpoint: &mut dyn Write) -> Result<()> {
        stored::write(&self.kept, checkpoint)
    }

    fn resume(&mut self, layers: usize, checkpoint: &mut dyn Read) -> Result<()> {
        let kept: Kept = stored::read(checkpoint)?;
        let cells = &self.cells;
        let of_cells =
            |((layer, _), values): (&(usize, Writer), &Vec<f32>)| *layer < layers && values.len() == cells.len();
        let of_expert = |((layer, token, _), values): (&(usize, usize, usize), &Vec<f32>)| {
            let whole = cells.rows.binary_search(token).is_ok();
            let expected = if whole { cells.hidden } else { cells.dims.len() };
            *layer < layers && *token < cells.tokens && values.len() == expected
        };
        let mut large = kept.large.values().flatten();
        let fits = kept.writes.iter().all(of_cells)
            && kept.experts.iter().all(of_expert)
            && large.all(|(token, dim)| *token < cells.tokens && *dim < cells.hidden);
        if !fits {
            return Err(Error::corrupt("its writes are those of another pass"));
        }
        self.kept = kept;
        Ok(())
    }

    fn reset(&mut self) {
        self.kept = Kept::default();
    }
}
