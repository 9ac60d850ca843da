//! Load, gates and outputs of experts: what decides which of them could be left out (REAP, Lasby et
//! al. 2025), and which write the largest values (super experts, Su et al. 2025).

use std::ops::Range;

use rayon::prelude::*;

use super::observer::{ExpertRows, Observer};
use super::stored;
use super::top::{Found, largest};
use crate::error::Result;
use crate::record::{Experts, Site, SiteId, Tokens};
use crate::tensor::Tensor;
use crate::vector::vectorised;

/// Number of features in one parallel task.
const BLOCK: usize = 512;

pub struct ExpertsObserver<'a> {
    tokens: &'a Tokens,
    /// Router logits of the layer at work, [all tokens, experts].
    logits: Vec<f32>,
    /// For each token, the largest of them, and the sum of exponentials relative to it.
    sums: Vec<(f32, f64)>,
    /// The layer at work.
    current: Option<Layer>,
    done: Vec<Experts>,
}

/// The experts of the layer at work.
struct Layer {
    experts: Experts,
    /// For each expert, sums over its tokens.
    sums: Vec<TokenSums>,
    /// Sums of x^2 of what each expert reads, [experts, hidden].
    input_sum2: Vec<f64>,
    /// For each token, its experts in ascending order.
    chosen: Vec<Vec<u16>>,
}

/// Sums over the tokens of an expert: of routing weights, and of weights times lengths of outputs.
#[derive(Clone, Copy, Default)]
struct TokenSums {
    gate_mass: f64,
    reap: f64,
    reap_softmax: f64,
}

impl Layer {
    fn new(of: &ExpertRows, hidden: usize, tokens: usize) -> Self {
        let experts = of.experts;
        Self {
            experts: Experts {
                layer: of.layer,
                top_k: of.top_k,
                tokens: vec![0; experts],
                gate_mass: vec![0.0; experts],
                output_absmax: vec![0.0; experts],
                output_absmax_at: vec![None; experts],
                reap: vec![0.0; experts],
                reap_softmax: vec![0.0; experts],
                coactivation: vec![0; experts * experts],
                input_sum2: Vec::new(),
            },
            sums: vec![TokenSums::default(); experts],
            input_sum2: vec![0.0; experts * hidden],
            chosen: vec![Vec::new(); tokens],
        }
    }

    fn finish(mut self) -> Experts {
        let count = self.experts.tokens.len();
        for chosen in &self.chosen {
            for a in chosen {
                for b in chosen {
                    self.experts.coactivation[*a as usize * count + *b as usize] += 1;
                }
            }
        }
        for (expert, tokens) in self.experts.tokens.iter().enumerate().filter(|(_, tokens)| **tokens > 0) {
            let TokenSums { gate_mass, reap, reap_softmax } = self.sums[expert];
            self.experts.gate_mass[expert] = gate_mass as f32;
            self.experts.reap[expert] = (reap / *tokens as f64) as f32;
            self.experts.reap_softmax[expert] = (reap_softmax / *tokens as f64) as f32;
        }
        self.experts.input_sum2 = self.input_sum2.iter().map(|sum| *sum as f32).collect();
        self.experts
    }
}

impl<'a> ExpertsObserver<'a> {
    pub fn new(tokens: &'a Tokens) -> Self {
        Self { tokens, logits: Vec::new(), sums: Vec::new(), current: None, done: Vec::new() }
    }

    pub fn finish(self) -> Vec<Experts> {
        self.done
    }

    fn num_tokens(&self) -> usize {
        self.tokens.info.num_sequences * self.tokens.info.sequence_length
    }

    /// The softmax over all router logits of a token, for one expert.
    fn softmax(&self, token: usize, expert: usize, experts: usize) -> f64 {
        match (self.logits.get(token * experts + expert), self.sums.get(token)) {
            (Some(logit), Some((max, sum))) => f64::from(logit - max).exp() / sum,
            _ => f64::NAN,
        }
    }
}

/// The Euclidean norm of a row.
fn length(row: &[f32]) -> f64 {
    vectorised!(|| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()).sqrt()
}

/// sums += x^2 over some rows of `x` [tokens, hidden].
fn add_squares(sums: &mut [f64], x: &[f32], rows: &[u32]) {
    let hidden = sums.len();
    sums.par_chunks_mut(BLOCK).enumerate().for_each(|(block, sums)| {
        for row in rows {
            let row = &x[*row as usize * hidden + block * BLOCK..][..sums.len()];
            vectorised!(|| sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x)));
        }
    });
}

impl Observer for ExpertsObserver<'_> {
    fn wants(&self, site: SiteId) -> bool {
        site.site == Site::RouterLogits
    }

    fn observe(&mut self, _site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let (rows, experts) = x.dims2()?;
        self.logits.resize(self.num_tokens() * experts, 0.0);
        self.sums.resize(self.num_tokens(), (0.0, 1.0));
        let first = sequences.start * self.tokens.info.sequence_length;
        x.with_values(|values| {
            self.logits[first * experts..][..rows * experts].copy_from_slice(values);
            let sums = self.sums[first..][..rows].par_iter_mut();
            sums.zip(values.par_chunks_exact(experts)).for_each(|(to, logits)| {
                let max = logits.iter().fold(f32::NEG_INFINITY, |max, logit| max.max(*logit));
                *to = (max, logits.iter().map(|logit| f64::from(logit - max).exp()).sum());
            });
        })
    }

    fn wants_experts(&self, _layer: usize) -> bool {
        true
    }

    fn observe_expert(&mut self, of: &ExpertRows) -> Result<()> {
        let ((_, hidden), (_, width)) = (of.input.dims2()?, of.output.dims2()?);
        let mut layer = self.current.take().unwrap_or_else(|| Layer::new(of, hidden, self.num_tokens()));
        let expert = of.expert;
        let tokens: Vec<usize> = of.tokens().collect();
        tokens.iter().for_each(|token| layer.chosen[*token].push(expert as u16));
        let (lengths, top) = of.output.with_values(|y| {
            let lengths: Vec<f64> = y.par_chunks_exact(width).map(length).collect();
            (lengths, largest(y, width, 1, None, |row| tokens[row]))
        })?;
        of.input.with_values(|x| add_squares(&mut layer.input_sum2[expert * hidden..][..hidden], x, of.rows))?;
        layer.experts.tokens[expert] += tokens.len() as u64;
        for ((weight, length), token) in of.weights.iter().zip(&lengths).zip(&tokens) {
            let sums = &mut layer.sums[expert];
            sums.gate_mass += f64::from(*weight);
            sums.reap += f64::from(*weight) * length;
            sums.reap_softmax += self.softmax(*token, expert, of.experts) * length;
        }
        let experts = &mut layer.experts;
        if let Some(found) = top.first()
            && (experts.output_absmax_at[expert].is_none() || found.value.abs() > experts.output_absmax[expert])
        {
            experts.output_absmax[expert] = found.value.abs();
            experts.output_absmax_at[expert] = Some(Found::of_tokens(found, self.tokens));
        }
        self.current = Some(layer);
        Ok(())
    }

    fn end_layer(&mut self, _layer: usize, _stream: &[(Range<usize>, &Tensor)]) -> Result<()> {
        self.logits.clear();
        self.sums.clear();
        self.done.extend(self.current.take().map(Layer::finish));
        Ok(())
    }

    stored::kept_in!(done);
}
