//! Routing: the experts and routing weights of each token, computed from router logits.
//!
//! Ties go to the expert with the lower index.

use rayon::prelude::*;

use crate::spec::{Divisor, Score, Scoring};

/// For each expert, its tokens in ascending order and their routing weights.
pub(super) struct Assignment {
    pub rows: Vec<Vec<u32>>,
    pub weights: Vec<Vec<f32>>,
}

/// Numbers of a router for each expert, [experts] each.
#[derive(Default)]
pub(super) struct ExpertValues {
    /// Terms of the scores in the selection.
    pub correction: Option<Vec<f32>>,
    /// Factors of the routing weights.
    pub factors: Option<Vec<f32>>,
}

impl Assignment {
    pub(super) fn new(experts: usize) -> Self {
        Self { rows: vec![Vec::new(); experts], weights: vec![Vec::new(); experts] }
    }

    /// Adds the tokens from `first_row` on, whose router logits are `logits` [tokens, experts].
    pub(super) fn route(
        &mut self,
        first_row: usize,
        logits: &[f32],
        (top_k, scoring): (usize, &Scoring),
        values: &ExpertValues,
    ) {
        let experts = self.rows.len();
        let correction = values.correction.as_deref();
        let factor = |expert: usize| values.factors.as_ref().map_or(1.0, |factors| factors[expert]);
        let chosen: Vec<Vec<(usize, f32)>> =
            logits.par_chunks_exact(experts).map(|logits| choose(logits, top_k, scoring, correction)).collect();
        for (row, chosen) in (first_row..).zip(chosen) {
            for (expert, weight) in chosen {
                self.rows[expert].push(row as u32);
                self.weights[expert].push(weight * factor(expert));
            }
        }
    }

    /// Takes these tokens from an expert.
    pub(super) fn remove(&mut self, expert: usize, tokens: &std::ops::Range<usize>) {
        let kept: Vec<bool> = self.rows[expert].iter().map(|row| !tokens.contains(&(*row as usize))).collect();
        let (mut of_rows, mut of_weights) = (kept.iter(), kept.iter());
        self.rows[expert].retain(|_| of_rows.next() == Some(&true));
        self.weights[expert].retain(|_| of_weights.next() == Some(&true));
    }

    /// True if the expert has at least one token.
    pub(super) fn uses(&self, expert: usize) -> bool {
        !self.rows[expert].is_empty()
    }
}

/// Indices of the `k` largest scores, largest first.
fn top(scores: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let by_score = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k, by_score);
        order.truncate(k);
    }
    order.sort_unstable_by(by_score);
    order
}

fn softmax(logits: impl Iterator<Item = f32> + Clone) -> Vec<f32> {
    let max = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f32> = logits.map(|logit| (logit - max).exp()).collect();
    let sum: f32 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

/// The (expert, weight) pairs of one token.
fn choose(logits: &[f32], k: usize, scoring: &Scoring, correction: Option<&[f32]>) -> Vec<(usize, f32)> {
    let scores: Vec<f32> = match scoring.score {
        Score::Softmax => softmax(logits.iter().copied()),
        Score::Sigmoid => logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
        Score::Chosen => logits.to_vec(),
        Score::SparseMixer { jitter } => return sparse_mixer(logits, k, jitter),
    };
    let mut choice = scores.clone();
    for (choice, correction) in choice.iter_mut().zip(correction.unwrap_or(&[])) {
        *choice += correction;
    }
    if let Some(groups) = scoring.groups {
        let size = choice.len() / groups.count;
        let best = |group: &[f32]| top(group, groups.judged_by).iter().map(|e| group[*e]).sum();
        let judged: Vec<f32> = choice.chunks(size).map(best).collect();
        let kept = top(&judged, groups.top);
        for (group, choice) in choice.chunks_mut(size).enumerate() {
            if !kept.contains(&group) {
                choice.fill(groups.masked);
            }
        }
    }
    let experts = top(&choice, k);
    let weights = match scoring.score {
        Score::Chosen => softmax(experts.iter().map(|e| scores[*e])),
        _ => experts.iter().map(|e| scores[*e]).collect(),
    };
    let sum = || weights.iter().sum::<f32>();
    let divisor = match scoring.divisor {
        Divisor::One => 1.0,
        Divisor::Sum(eps) => sum() + eps,
        Divisor::AtLeast(least) => sum().max(least),
    };
    experts.into_iter().zip(&weights).map(|(e, weight)| (e, weight / divisor * scoring.factor)).collect()
}

/// The expert with the largest logit, then the one with the largest of the remaining logits. The
/// weight of each is its softmax over the logits that are close to its own (transformers
/// `sparsemixer`, Liu et al. 2023).
fn sparse_mixer(logits: &[f32], k: usize, jitter: f32) -> Vec<(usize, f32)> {
    let mut left = logits.to_vec();
    let mut chosen = Vec::with_capacity(k);
    for _ in 0..k {
        // No expert is chosen twice, even where no logit is a number.
        let is_left = |expert: &usize| chosen.iter().all(|(taken, _)| taken != expert);
        let by_logit = |a: &usize, b: &usize| left[*a].total_cmp(&left[*b]).then(b.cmp(a));
        let Some(best) = (0..left.len()).filter(is_left).max_by(by_logit) else { break };
        let largest = left[best];
        let near = |(logit, left): (&f32, &f32)| {
            let distance = (largest - logit) / logit.abs().max(largest);
            if distance > 2.0 * jitter { f32::NEG_INFINITY } else { *left }
        };
        let kept: Vec<f32> = logits.iter().zip(&left).map(near).collect();
        chosen.push((best, softmax(kept.into_iter())[best]));
        left[best] = f32::NEG_INFINITY;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Groups;

    #[test]
    fn softmax_weights_with_and_without_renormalising() {
        let logits = [1.0, 3.0, 2.0, 0.0];
        let plain = choose(&logits, 2, &Scoring::softmax(false), None);
        assert_eq!(plain.iter().map(|c| c.0).collect::<Vec<_>>(), [1, 2]);
        assert!((plain[0].1 - 0.643_914).abs() < 1e-5 && (plain[1].1 - 0.236_883).abs() < 1e-5);
        let whole = choose(&logits, 2, &Scoring::softmax(true), None);
        let top_k = choose(&logits, 2, &Scoring::new(Score::Chosen, Divisor::One), None);
        assert!((whole[0].1 + whole[1].1 - 1.0).abs() < 1e-6);
        assert!(whole.iter().zip(&top_k).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6));
    }

    #[test]
    fn correction_bias_chooses_but_does_not_weigh() {
        let groups = Some(Groups { count: 2, top: 1, judged_by: 2, masked: f32::NEG_INFINITY });
        let scoring = Scoring { groups, factor: 2.5, ..Scoring::new(Score::Sigmoid, Divisor::Sum(1e-20)) };
        // Without the correction the second group wins, and with it the first.
        let logits = [0.0, 0.0, 1.0, 1.0];
        let chosen = choose(&logits, 2, &scoring, Some(&[1.0, 0.9, 0.0, 0.0]));
        assert_eq!(chosen.iter().map(|c| c.0).collect::<Vec<_>>(), [0, 1]);
        assert!(chosen.iter().all(|c| (c.1 - 1.25).abs() < 1e-6));
    }

    #[test]
    fn every_token_gets_k_distinct_experts_and_ties_go_low() {
        let mut assignment = Assignment::new(4);
        let scoring = Scoring::new(Score::Chosen, Divisor::One);
        assignment.route(10, &[0.0; 8], (2, &scoring), &ExpertValues::default());
        assert_eq!(assignment.rows, [vec![10, 11], vec![10, 11], vec![], vec![]]);
        assert_eq!([0, 1, 2, 3].map(|expert| assignment.uses(expert)), [true, true, false, false]);
    }

    #[test]
    fn logits_that_are_no_numbers_choose_no_expert_twice() {
        for odd in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for logits in [[odd; 4], [0.5, odd, odd, odd], [odd, 2.0, -1.0, odd]] {
                for scoring in
                    [Scoring::softmax(false), Scoring::new(Score::SparseMixer { jitter: 0.01 }, Divisor::One)]
                {
                    let mut chosen: Vec<usize> = choose(&logits, 3, &scoring, None).iter().map(|c| c.0).collect();
                    chosen.sort_unstable();
                    chosen.dedup();
                    assert_eq!(chosen.len(), 3, "{logits:?}");
                }
            }
        }
    }

    #[test]
    fn factors_of_experts_weigh_and_do_not_choose() {
        let mut assignment = Assignment::new(3);
        let values = ExpertValues { factors: Some(vec![0.5, 2.0, 100.0]), ..ExpertValues::default() };
        assignment.route(0, &[1.0, 1.0, 0.0], (2, &Scoring::softmax(true)), &values);
        assert_eq!(assignment.weights, [vec![0.25], vec![1.0], vec![]]);
    }
}
