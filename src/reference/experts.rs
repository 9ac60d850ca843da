//! The choice of experts for a token, and their weights.

use super::arithmetic::{Row, sigmoid, softmax};
use crate::spec::{Divisor, Score, Scoring};

/// The indices of the `k` largest scores, the largest first.
fn top(scores: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.truncate(k);
    order
}

pub(super) fn choose(scoring: &Scoring, k: usize, logits: &[f64], correction: Option<&[f64]>) -> Vec<(usize, f64)> {
    if let Score::SparseMixer { jitter } = scoring.score {
        let mut left = logits.to_vec();
        let mut one = || {
            let best = top(&left, 1)[0];
            let largest = left[best];
            let far = |i: usize| (largest - logits[i]) / logits[i].abs().max(largest) > 2.0 * f64::from(jitter);
            let kept: Row = (0..left.len()).map(|i| if far(i) { f64::NEG_INFINITY } else { left[i] }).collect();
            left[best] = f64::NEG_INFINITY;
            (best, softmax(&kept)[best])
        };
        return (0..k).map(|_| one()).collect();
    }
    let scores: Row = match scoring.score {
        Score::Softmax => softmax(logits),
        Score::Sigmoid => logits.iter().map(|logit| sigmoid(*logit)).collect(),
        _ => logits.to_vec(),
    };
    let mut choice: Row = (0..scores.len()).map(|i| scores[i] + correction.map_or(0.0, |bias| bias[i])).collect();
    if let Some(groups) = scoring.groups {
        let size = choice.len() / groups.count;
        let judged: Row = choice.chunks(size).map(|g| top(g, groups.judged_by).iter().map(|i| g[*i]).sum()).collect();
        let kept = top(&judged, groups.top);
        for (i, choice) in choice.iter_mut().enumerate().filter(|(i, _)| !kept.contains(&(i / size))) {
            debug_assert!(i < scores.len());
            *choice = f64::from(groups.masked);
        }
    }
    let experts = top(&choice, k);
    let weights: Row = experts.iter().map(|e| scores[*e]).collect();
    let weights = if scoring.score == Score::Chosen { softmax(&weights) } else { weights };
    let divisor = match scoring.divisor {
        Divisor::One => 1.0,
        Divisor::Sum(eps) => weights.iter().sum::<f64>() + f64::from(eps),
        Divisor::AtLeast(least) => weights.iter().sum::<f64>().max(f64::from(least)),
    };
    experts.into_iter().zip(weights).map(|(e, w)| (e, w / divisor * f64::from(scoring.factor))).collect()
}
