//! Passes through models in a plan: their duration and needs, from estimates and from earlier
//! measurements.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::session::{Planned, Step};

/// The name of this machine in plans.
pub(crate) const HERE: &str = "this machine";

/// Rates that are assumed before anything was measured: bytes per second from the hub, here and to
/// a rented machine; from disk; operations per second of a few cores here, and of the ten or so
/// cores of a rented machine.
const HUB_HERE: f64 = 1e8;
const HUB_RENTED: f64 = 1e9;
const DISK: f64 = 1e9;
const CORES: f64 = 1e11;
const CORES_RENTED: f64 = 4e11;

/// Memory of the process in addition to a pass and to an estimate's share for the program: values
/// of the script, code, and pages that the allocator cannot return. A debug build is larger.
const BESIDE: u64 = if cfg!(debug_assertions) { 34 << 20 } else { 14 << 20 };

/// One pass through a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    pub model: String,
    pub place: String,
    pub num_sequences: usize,
    pub sequence_length: usize,
    pub download_bytes: u64,
    pub read_bytes: u64,
    pub memory_bytes: u64,
    /// By the assumed rates.
    pub assumed_minutes: f64,
    pub minutes: f64,
    /// The source of `minutes`.
    pub basis: String,
    pub dollars: Option<f64>,
    /// The measurements after the run.
    pub actual: Option<Actual>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Actual {
    pub minutes: f64,
    pub read_bytes: u64,
    pub memory_bytes: u64,
    pub dollars: f64,
}

impl Pass {
    /// The key of passes with the same work.
    pub fn key(&self) -> (&str, usize, usize) {
        (&self.model, self.num_sequences, self.sequence_length)
    }
}

/// The passes in `planned`, at the given place with its price in USD per hour. `earlier` are passes
/// of stored plans.
pub(crate) fn list(planned: &Planned, place: &str, price: Option<f64>, earlier: &[Pass]) -> Vec<Pass> {
    let measured = |key: (&str, usize, usize)| -> Vec<&Actual> {
        let same = |pass: &&Pass| pass.key() == key && pass.place == place;
        let passes = earlier.iter().filter(same);
        passes.filter_map(|pass| pass.actual.as_ref()).collect()
    };
    let factor = factor(place, earlier);
    // Memory of the earlier passes' records, which the script keeps.
    let mut records = 0;
    let pass = |step: Step| {
        let e = &step.estimate;
        let here = place == HERE;
        let (hub, compute) = if here { (HUB_HERE, CORES) } else { (HUB_RENTED, CORES_RENTED) };
        let download_bytes = if step.download { e.download_bytes } else { 0 };
        let seconds = download_bytes as f64 / hub + (e.read_bytes as f64 / DISK).max(e.flops / compute);
        let model = shown(&planned.shown(&step.model.id));
        let assumed_minutes = seconds / 60.0;
        let before = measured((&model, step.num_sequences, step.sequence_length));
        let (minutes, basis) = match before.first() {
            Some(actual) => (actual.minutes, "measured".to_string()),
            None => match factor {
                Some(factor) => (assumed_minutes * factor, "earlier runs".to_string()),
                None => (assumed_minutes, "assumed rates".to_string()),
            },
        };
        let expected = e.total_bytes + BESIDE + records;
        let memory_bytes = before.iter().map(|actual| actual.memory_bytes).fold(expected, u64::max);
        records += record_bytes(&step);
        Pass {
            memory_bytes,
            model,
            place: place.to_string(),
            num_sequences: step.num_sequences,
            sequence_length: step.sequence_length,
            download_bytes,
            read_bytes: e.read_bytes,
            assumed_minutes,
            minutes,
            basis,
            dollars: price.map(|price| price * minutes / 60.0),
            actual: None,
        }
    };
    planned.take_steps().into_iter().map(pass).collect()
}

/// Size in bytes of a pass's record: the largest and the smallest value of every feature, by norm
/// and sequence, with and without the first position.
fn record_bytes(step: &Step) -> u64 {
    step.num_norms as u64 * step.num_sequences as u64 * step.estimate.hidden_size as u64 * 16
}

/// Factor between the measured and the assumed time of passes here.
fn factor(place: &str, earlier: &[Pass]) -> Option<f64> {
    let passes = earlier.iter().filter(|pass| pass.place == place);
    let pairs = passes.filter_map(|pass| Some((pass.assumed_minutes, pass.actual.as_ref()?.minutes)));
    let (assumed, actual) = pairs.fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    (assumed > 0.0).then(|| actual / assumed)
}

/// A miniature is shown by its name, in any folder.
pub(crate) fn shown(id: &str) -> String {
    match Path::new(id).parent().and_then(Path::file_name) {
        Some(folder) if folder == "miniature_models" => {
            format!("miniature {}", Path::new(id).file_name().unwrap_or_default().display())
        }
        _ => id.to_string(),
    }
}
