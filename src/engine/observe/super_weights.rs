//! Super weights (Yu et al. 2024, "The Super Weight in Large Language Models"): where the largest
//! input and the largest output of each layer's down projection meet.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::observer::{ExpertRows, Observer};
use super::stored;
use super::top::{Found, largest};
use crate::error::Result;
use crate::record::{Site, SiteId, Tokens, TopValue};
use crate::tensor::Tensor;

/// The place in a layer's down projection to which its largest input and output point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meeting {
    pub layer: usize,
    pub expert: Option<usize>,
    /// The largest input of the down projection.
    pub input: TopValue,
    /// The largest output, before any routing weight.
    pub output: TopValue,
    /// The input at the token of `output`, in the dimension of `input`.
    pub input_there: f32,
}

impl stored::OfLayer for Meeting {
    fn layer(&self) -> usize {
        self.layer
    }
}

pub struct SuperWeightsObserver<'a> {
    tokens: &'a Tokens,
    /// The layers whose network is the same for all tokens.
    dense: Vec<usize>,
    /// The inputs of the down projection whose outputs come next, by their first sequence. Several
    /// devices have some.
    inputs: BTreeMap<usize, (Range<usize>, Tensor)>,
    /// Of the layer at work, by sequence.
    sequences: BTreeMap<usize, Largest>,
    /// The expert at work, and the one with the largest output so far.
    expert: Option<(usize, Largest)>,
    best: Option<(usize, Largest)>,
    done: Vec<Meeting>,
}

/// The largest input and output of some rows.
struct Largest {
    input: Found,
    output: Found,
    /// All inputs at the token of the output.
    inputs_there: Vec<f32>,
}

impl Largest {
    /// Of `inputs` [rows, inner] and `outputs` [rows, hidden]; None if no value is finite.
    fn of(inputs: &Tensor, outputs: &Tensor, token: &(impl Fn(usize) -> usize + Sync)) -> Result<Option<Self>> {
        let ((_, inner), (_, hidden)) = (inputs.dims2()?, outputs.dims2()?);
        // The token of a row stands for the row here.
        let first = |x: &[f32], width: usize| largest(x, width, 1, None, |row| row).first().copied();
        let (input, output) = (inputs.with_values(|x| first(x, inner))?, outputs.with_values(|x| first(x, hidden))?);
        let (Some(input), Some(output)) = (input, output) else { return Ok(None) };
        let inputs_there = inputs.with_values(|x| x[output.token * inner..][..inner].to_vec())?;
        let placed = |found: Found| Found { token: token(found.token), ..found };
        Ok(Some(Self { input: placed(input), output: placed(output), inputs_there }))
    }

    /// The larger of both for each, of rows that follow.
    fn merge(&mut self, later: Self) {
        if later.input.order(&self.input).is_lt() {
            self.input = later.input;
        }
        if later.output.order(&self.output).is_lt() {
            (self.output, self.inputs_there) = (later.output, later.inputs_there);
        }
    }

    fn meeting(self, layer: usize, expert: Option<usize>, tokens: &Tokens) -> Meeting {
        let (input, output) = (self.input.of_tokens(tokens), self.output.of_tokens(tokens));
        Meeting { layer, expert, input, output, input_there: self.inputs_there[self.input.dim] }
    }
}

impl<'a> SuperWeightsObserver<'a> {
    pub fn new(tokens: &'a Tokens, dense: Vec<usize>) -> Self {
        let (sequences, done) = (BTreeMap::new(), Vec::new());
        Self { tokens, dense, inputs: BTreeMap::new(), sequences, expert: None, best: None, done }
    }

    /// Compares the expert at work with the best one.
    fn settle_expert(&mut self) {
        let Some((expert, of)) = self.expert.take() else { return };
        let larger = |(_, best): &(usize, Largest)| of.output.value.abs() > best.output.value.abs();
        if self.best.as_ref().is_none_or(larger) {
            self.best = Some((expert, of));
        }
    }

    pub fn finish(self) -> Vec<Meeting> {
        self.done
    }
}

impl Observer for SuperWeightsObserver<'_> {
    fn wants(&self, site: SiteId) -> bool {
        // In a mixture the experts are looked at, and their sum is not.
        matches!(site.site, Site::FfnMid | Site::FfnWrite) && self.dense.contains(&site.layer)
    }

    fn wants_experts(&self, _layer: usize) -> bool {
        true
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        if site.site == Site::FfnMid {
            self.inputs.insert(sequences.start, (sequences, x.clone()));
            return Ok(());
        }
        let Some((of, inputs)) = self.inputs.remove(&sequences.start) else { return Ok(()) };
        if of != sequences {
            return Ok(());
        }
        let positions = self.tokens.info.sequence_length;
        for (i, sequence) in sequences.enumerate() {
            let rows = |x: &Tensor| x.rows(i * positions, positions);
            let token = |row: usize| sequence * positions + row;
            if let Some(found) = Largest::of(&rows(&inputs)?, &rows(x)?, &token)? {
                self.sequences.insert(sequence, found);
            }
        }
        Ok(())
    }

    fn observe_expert(&mut self, rows: &ExpertRows) -> Result<()> {
        if self.expert.as_ref().is_some_and(|(expert, _)| *expert != rows.expert) {
            self.settle_expert();
        }
        let tokens: Vec<usize> = rows.tokens().collect();
        let Some(found) = Largest::of(rows.inner, rows.output, &|row: usize| tokens[row])? else { return Ok(()) };
        match &mut self.expert {
            Some((_, so_far)) => so_far.merge(found),
            None => self.expert = Some((rows.expert, found)),
        }
        Ok(())
    }

    fn end_layer(&mut self, layer: usize, _stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        self.settle_expert();
        self.inputs.clear();
        let mut sequences = std::mem::take(&mut self.sequences).into_values();
        let dense = sequences.next().map(|mut first| {
            sequences.for_each(|later| first.merge(later));
            (None, first)
        });
        let routed = self.best.take().map(|(expert, of)| (Some(expert), of));
        let meeting = routed.or(dense).map(|(expert, of)| of.meeting(layer, expert, self.tokens));
        self.done.extend(meeting);
        Ok(())
    }

    stored::kept_in!(done);
}
