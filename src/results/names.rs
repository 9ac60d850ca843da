//! The names of the files that saving an analysis writes.

use super::features_csv;

pub(super) const STATS: &str = "activations.stats";
pub(super) const CONFIG: &str = "config.json";
pub(super) const FINAL: &str = "final_analysis_results.json";
/// The files that saving writes, beside one per sequence.
const FILES: [&str; 4] = [STATS, features_csv::FILE, CONFIG, FINAL];

pub(super) fn batch_file(sequence: usize) -> String {
    format!("batch_{sequence:03}_results.json")
}

/// Returns whether a file in the folder of an analysis is one that saving writes.
pub(super) fn is_own(name: &str) -> bool {
    let batch = name.strip_prefix("batch_").and_then(|name| name.strip_suffix("_results.json"));
    let number = |text: &str| text.len() >= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    FILES.contains(&name) || batch.is_some_and(number)
}
