//! Test helper: a small dense array X[n][s][t][d], and its record, computed in the most direct way.
//!
//! Extremes and ladders are over finite values. NaN and infinity are counted in `non_finite` only.

use std::ops::{Index, IndexMut};

use crate::record::{
    Activations, ComputeDtype, Fold, Ladders, Measurements, ModelInfo, NonFinite, NormFold, SiteId, TokensInfo,
};

/// A dense array with two norms per layer, in the order of computation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dense {
    pub layers: usize,
    pub sequences: usize,
    pub length: usize,
    pub hidden: usize,
    values: Vec<f32>,
}

/// Uniform numbers in 0..1 from Knuth's MMIX generator, which a Python snippet can reproduce.
pub(crate) fn uniform(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// `[norm, sequence, position, feature]`
impl Index<[usize; 4]> for Dense {
    type Output = f32;

    fn index(&self, at: [usize; 4]) -> &f32 {
        &self.values[self.offset(at)]
    }
}

impl IndexMut<[usize; 4]> for Dense {
    fn index_mut(&mut self, at: [usize; 4]) -> &mut f32 {
        let offset = self.offset(at);
        &mut self.values[offset]
    }
}

impl Dense {
    pub(crate) fn filled(layers: usize, sequences: usize, length: usize, hidden: usize, value: f32) -> Self {
        let values = vec![value; 2 * layers * sequences * length * hidden];
        Self { layers, sequences, length, hidden, values }
    }

    /// An array whose values are drawn in the order norm, sequence, position, feature.
    pub(crate) fn drawn(
        [layers, sequences, length, hidden]: [usize; 4],
        mut draw: impl FnMut([usize; 4]) -> f32,
    ) -> Self {
        let mut dense = Self::filled(layers, sequences, length, hidden, 0.0);
        for n in 0..2 * layers {
            for s in 0..sequences {
                for t in 0..length {
                    for d in 0..hidden {
                        dense[[n, s, t, d]] = draw([n, s, t, d]);
                    }
                }
            }
        }
        dense
    }

    /// The array of the sequences `chosen`, which may repeat, in this order.
    pub(crate) fn resampled(&self, chosen: &[u32]) -> Self {
        let shape = [self.layers, chosen.len(), self.length, self.hidden];
        Self::drawn(shape, |[n, s, t, d]| self[[n, chosen[s] as usize, t, d]])
    }

    pub(crate) fn norms(&self) -> Vec<SiteId> {
        SiteId::norms(self.layers)
    }

    pub(crate) fn activations(&self, ladder: &[f32]) -> Activations {
        Activations {
            model: ModelInfo {
                id: "dense".into(),
                revision: None,
                model_type: "dense".into(),
                num_layers: self.layers,
                hidden_size: self.hidden,
                vocab_size: 0,
                num_experts: 0,
                num_experts_per_tok: 0,
                parameters: 0,
                active_parameters: 0,
                weight_bytes: 0,
                weights_stored_as: vec![],
                dtype: ComputeDtype::F32,
                device: "cpu".into(),
                chunk_layers: 1,
                synthetic: true,
                files: vec![],
            },
            tokens: TokensInfo {
                source: "test".into(),
                revision: None,
                num_sequences: self.sequences,
                sequence_length: self.length,
                sha256: String::new(),
                parts: vec![],
            },
            norms: self.norms(),
            num_layers: self.layers,
            hidden_size: self.hidden,
            num_sequences: self.sequences,
            sequence_length: self.length,
            ladder: ladder.to_vec(),
            all: self.fold(ladder, 0),
            without_first: self.fold(ladder, 1),
            non_finite: self.non_finite(),
            expert_coverage: vec![],
            mean_nll: None,
            full_activations: None,
            measurements: Measurements::default(),
            sites: Vec::new(),
            measures: Default::default(),
            lanes: Vec::new(),
        }
    }

    fn offset(&self, [n, s, t, d]: [usize; 4]) -> usize {
        ((n * self.sequences + s) * self.length + t) * self.hidden + d
    }

    fn fold(&self, ladder: &[f32], skip: usize) -> Fold {
        let finite = |n, s, d| (skip..self.length).map(move |t| self[[n, s, t, d]]).filter(|x| x.is_finite());
        let ladders = |count: &dyn Fn(usize, f32) -> usize| -> Ladders {
            let counts = |d| ladder.iter().map(move |&rung| count(d, rung) as u32).take_while(|&n| n > 0);
            let all = (0..self.hidden).map(|d| (d as u32, counts(d).collect::<Vec<_>>()));
            all.filter(|(_, counts)| !counts.is_empty()).collect()
        };
        let norm_fold = |n, s| NormFold {
            max: (0..self.hidden).map(|d| finite(n, s, d).fold(f32::NEG_INFINITY, f32::max)).collect(),
            min: (0..self.hidden).map(|d| finite(n, s, d).fold(f32::INFINITY, f32::min)).collect(),
            positive: ladders(&|d, rung| finite(n, s, d).filter(|x| *x >= rung).count()),
            negative: ladders(&|d, rung| finite(n, s, d).filter(|x| *x <= -rung).count()),
        };
        let reaches = |s, t, d, rung: f32| {
            let mut norms = (0..2 * self.layers).map(|n| self[[n, s, t, d]]);
            norms.any(|x| x.is_finite() && x.abs() >= rung)
        };
        let any_norm = |s| ladders(&|d, rung| (skip..self.length).filter(|&t| reaches(s, t, d, rung)).count());
        Fold {
            norms: (0..2 * self.layers).map(|n| (0..self.sequences).map(|s| norm_fold(n, s)).collect()).collect(),
            any_norm: (0..self.sequences).map(any_norm).collect(),
        }
    }

    fn non_finite(&self) -> Vec<NonFinite> {
        let cells = self.norms().into_iter().enumerate().flat_map(|(n, norm)| {
            (0..self.sequences).map(move |sequence| {
                let values = || {
                    let all = (0..self.length).flat_map(move |t| (0..self.hidden).map(move |d| (t, d)));
                    all.map(move |(t, d)| self[[n, sequence, t, d]])
                };
                let nan = values().filter(|x| x.is_nan()).count() as u64;
                let infinite = values().filter(|x| x.is_infinite()).count() as u64;
                NonFinite { norm, sequence, nan, infinite }
            })
        });
        cells.filter(|cell| cell.nan + cell.infinite > 0).collect()
    }
}
