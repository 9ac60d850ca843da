//! Many criteria on one record: what they share is computed once, and most of an answer only when
//! it is read.
//!
//! Which features pass follows from an index of the record in far fewer steps than their
//! statistics. Of a small record, from the fourth criterion on, the index gives what is nearly
//! always read, and the rest of a detection waits until a field of it is read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::ThresholdIndex;
use super::criterion::{BoundCriterion, check_numbers};
use super::detect::{detect, detect_bound};
use crate::error::Result;
use crate::record::{Activations, Answer, Classification, Criterion, Detection, LayerUnit, Scope};

/// Criteria on a record before an index is made of it, which costs as much as a few detections.
const BEFORE_INDEX: usize = 3;
/// The largest number of bytes of a record of which answers keep a reference, and of its index.
const SMALL: usize = 32 << 20;

/// A record, with what was computed for earlier criteria.
pub struct Questions {
    acts: Arc<Activations>,
    asked: AtomicUsize,
    is_small: OnceLock<bool>,
    /// By layer unit, scope and skipped positions. Nothing for a record that has no answers.
    indices: [OnceLock<Option<ThresholdIndex>>; 8],
}

impl Questions {
    pub fn new(acts: Arc<Activations>) -> Arc<Self> {
        Arc::new(Self { acts, asked: AtomicUsize::new(0), is_small: OnceLock::new(), indices: Default::default() })
    }

    pub fn activations(&self) -> &Arc<Activations> {
        &self.acts
    }

    /// As `detect`, with the same errors.
    pub fn detect(self: &Arc<Self>, criterion: Criterion) -> Result<Found> {
        match self.brief(&criterion) {
            Some(brief) => {
                Ok(Found::Brief(Box::new(Later { questions: self.clone(), criterion, brief, whole: OnceLock::new() })))
            }
            None => Ok(Found::Whole(Arc::new(detect(&self.acts, &criterion)?))),
        }
    }

    /// The numbers that the index knows. Nothing for a criterion that is refused or that has only
    /// bounds, and for a record without an index.
    fn brief(&self, criterion: &Criterion) -> Option<Brief> {
        if self.asked.fetch_add(1, Ordering::Relaxed) < BEFORE_INDEX || !self.is_small() {
            return None;
        }
        check_numbers(criterion).ok()?;
        self.acts.fold(criterion.skip_positions)?;
        let skips = usize::from(criterion.skip_positions > 0);
        let blocks = usize::from(criterion.layer_unit == LayerUnit::Block);
        let by_sequence = usize::from(criterion.scope == Scope::PerSequence);
        let index = &self.indices[4 * blocks + 2 * by_sequence + skips];
        let index = index.get_or_init(|| ThresholdIndex::new(&self.acts, criterion).ok()).as_ref()?;
        let (num_features, classification) = index.class(criterion)?;
        Some(Brief { answer: Answer::Exact, classification, num_features, max_magnitude: index.max_magnitude() })
    }

    fn is_small(&self) -> bool {
        let acts = &self.acts;
        let counts = acts.ladder.len().saturating_mul(acts.num_sequences).saturating_mul(acts.hidden_size);
        *self.is_small.get_or_init(|| counts.saturating_mul(size_of::<u32>()).saturating_add(acts.bytes()) <= SMALL)
    }
}

/// The numbers of a detection that an index knows, with the names that it has for them.
#[derive(Serialize)]
pub struct Brief {
    answer: Answer,
    classification: Classification,
    num_features: usize,
    max_magnitude: f32,
}

/// What a criterion found.
pub enum Found {
    Whole(Arc<Detection>),
    /// Known in part, until more is read.
    Brief(Box<Later>),
}

/// A detection that is computed when it is read.
pub struct Later {
    questions: Arc<Questions>,
    criterion: Criterion,
    brief: Brief,
    whole: OnceLock<Arc<Detection>>,
}

impl Found {
    pub fn whole(&self) -> &Arc<Detection> {
        match self {
            Found::Whole(found) => found,
            Found::Brief(later) => later.whole.get_or_init(|| {
                let applied = BoundCriterion::of_checked(&later.questions.acts, &later.criterion);
                Arc::new(detect_bound(&applied))
            }),
        }
    }

    /// What is known without computing the rest, unless all of it is. It is of an exact answer.
    pub fn brief(&self) -> Option<&Brief> {
        match self {
            Found::Brief(later) if later.whole.get().is_none() => Some(&later.brief),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dense::{Dense, uniform};
    use super::*;
    use crate::record::{field, plain};

    #[test]
    fn every_answer_is_that_of_a_detection_alone() {
        let mut next = uniform(11);
        let dense = Dense::drawn([3, 4, 6, 20], |_| (8.0 * (next() - 0.5) * (1.0 + next() * 3.0)) as f32);
        let acts = Arc::new(dense.activations(&[2.0, 4.0, 6.0, 9.0]));
        let questions = Questions::new(acts.clone());
        let (mut briefs, mut passing) = (0, 0);
        for magnitude_threshold in [2.0, 4.0, 5.0, 6.0, 9.0, 30.0, -1.0] {
            for (min_layer_percentage, min_seq_percentage) in [(0.0, 0.0), (0.25, 0.06), (0.5, 0.3), (1.0, 0.1)] {
                for layer_unit in [LayerUnit::Norm, LayerUnit::Block] {
                    for scope in [Scope::Pooled, Scope::PerSequence] {
                        for skip_positions in [0, 1, 2] {
                            let criterion = Criterion {
                                magnitude_threshold,
                                min_layer_percentage,
                                min_seq_percentage,
                                layer_unit,
                                scope,
                                skip_positions,
                                ..Criterion::default()
                            };
                            let found = questions.detect(criterion.clone());
                            let alone = detect(&acts, &criterion);
                            let (found, alone) = match (found, alone) {
                                (Ok(found), Ok(alone)) => (found, alone),
                                (found, alone) => {
                                    assert_eq!(found.err(), alone.err());
                                    continue;
                                }
                            };
                            if let Some(brief) = found.brief() {
                                let fields = plain(brief);
                                for (name, value) in fields.as_object().unwrap() {
                                    assert_eq!(Some(value), field(&alone, name).as_ref(), "{name} at {criterion:?}");
                                }
                                briefs += 1;
                                passing += usize::from(alone.num_features > 0);
                            }
                            assert_eq!(**found.whole(), alone);
                            assert!(found.brief().is_none());
                        }
                    }
                }
            }
        }
        assert!(briefs > 100 && passing > 50, "{briefs} of an index, {passing} with features");
    }

    #[test]
    fn answers_of_a_large_record_do_not_keep_it() {
        let acts = Dense::filled(1, 2, 4, 4, 7.0).activations(&[6.0]);
        let large = Activations { num_sequences: SMALL, ..acts.clone() };
        assert!(!Questions::new(Arc::new(large)).is_small());
        let questions = Questions::new(Arc::new(acts));
        let few: Vec<Found> =
            (0..BEFORE_INDEX).map(|_| questions.detect(Criterion::default()).expect("a rung")).collect();
        assert_eq!(Arc::strong_count(&questions), 1, "{}", few.len());
        let next = questions.detect(Criterion::default()).expect("a rung");
        assert_eq!((Arc::strong_count(&questions), next.whole().num_features), (2, 4));
    }
}
