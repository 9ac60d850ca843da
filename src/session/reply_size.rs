//! How many bytes the reply of a machine can have, by what it was asked for.

use crate::record::{MAX_HIT_DIMS, Measure, MeasureArgs, ModelInfo, Site, TokensInfo};

/// Bytes of a reply in addition to arrays: names, hashes of files, measurements.
pub(super) const BESIDE: u64 = 16 << 20;
/// Bytes of a number in a frame, with its tag.
pub(super) const NUMBER: u64 = 5;
/// Bytes of a sum in a frame, which is an f64, with its tag.
const SUM: u64 = 9;
/// Bytes of a value with its place, and of all else that is measured at a site of a layer.
const PLACE: usize = 256;
const MEASURED: usize = 16 << 10;
/// Bytes of a token's text, matrices of a layer beside those of experts, and values whose writers
/// are told.
const TOKEN: u64 = 1 << 10;
const WEIGHTS: usize = 64;
const ATTRIBUTED: usize = 64;
/// The largest width of a site, relative to the residual stream.
const WIDEST: usize = 32;

pub(super) fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1u64, |product, &factor| product.saturating_mul(factor as u64))
}

/// The largest row in bytes of ladders and extremes of `width` features: every feature reaches
/// every rung.
fn row_bytes(width: u64, rungs: usize) -> u64 {
    let ladder = (2 + rungs as u64).saturating_mul(NUMBER);
    width.saturating_mul(2 * NUMBER + 2 * ladder).saturating_add(100)
}

/// The largest record in bytes of `tokens` with a model of this shape.
pub(super) fn record_bytes(info: &ModelInfo, tokens: &TokensInfo, rungs: usize) -> u64 {
    let rows = product(&[2, 2 * info.num_layers + 1, tokens.num_sequences]);
    let experts = product(&[info.num_layers, info.num_experts + 1]);
    let beside = rows.saturating_mul(100).saturating_add(experts.saturating_mul(2 * NUMBER)).saturating_add(BESIDE);
    rows.saturating_mul(row_bytes(info.hidden_size as u64, rungs)).saturating_add(beside)
}

/// The largest part of a record in bytes that is measured beside the norms.
pub(super) fn measured_bytes(info: &ModelInfo, tokens: &TokensInfo, args: &MeasureArgs, rungs: usize) -> u64 {
    if args.is_default() {
        return 0;
    }
    let asked = |measure: Measure| args.observe.is_empty() || args.observe.contains(&measure);
    let sites = if args.sites.is_empty() { Site::ALL.to_vec() } else { args.sites.clone() };
    let (layers, experts, hidden) = (info.num_layers, info.num_experts, info.hidden_size);
    let width = |site: Site| match site {
        Site::RouterLogits => experts as u64,
        _ if site.is_hidden() => hidden as u64,
        _ => product(&[hidden, WIDEST]),
    };
    let mut bytes = product(&[layers, sites.len() + 1, MEASURED + args.top.saturating_mul(PLACE)]);
    let mut add = |more: u64| bytes = bytes.saturating_add(more);
    for site in sites {
        if asked(Measure::Outliers) && !Site::NORMS.contains(&site) {
            let rows = product(&[2, layers + 1, tokens.num_sequences]);
            add(rows.saturating_mul(row_bytes(width(site), rungs)));
        }
        if asked(Measure::Moments) {
            // Rows of `ffn_mid` are those of experts.
            let groups = if site == Site::FfnMid { experts.max(1) } else { 1 };
            add(product(&[layers, groups]).saturating_mul(width(site).saturating_mul(2 * NUMBER + 5 * SUM)));
        }
    }
    if asked(Measure::Experts) {
        add(product(&[layers, experts, experts + hidden]).saturating_mul(NUMBER));
        add(product(&[layers, experts, 2 * PLACE]));
    }
    if asked(Measure::AttentionSinks) {
        add(product(&[layers, hidden]).saturating_mul(NUMBER));
    }
    let positions = product(&[tokens.num_sequences, tokens.sequence_length]);
    if asked(Measure::Hits) {
        let rows = product(&[Site::ALL.len(), MAX_HIT_DIMS + args.dims.len(), layers + 3]);
        add(rows.saturating_mul(positions).saturating_mul(NUMBER));
        add(positions.saturating_mul(TOKEN));
    }
    if asked(Measure::Weights) {
        add(product(&[layers + 1, 3 * experts + WEIGHTS, 4 * PLACE]));
    }
    if asked(Measure::Attribution) {
        add(product(&[ATTRIBUTED, layers, experts + 4, PLACE]));
        add(product(&[args.attributed_positions.len() + args.dims.len()]).saturating_mul(NUMBER));
    }
    bytes
}

/// The largest `activations.safetensors` in bytes of `tokens` with a model.
pub fn full_activations_bytes(info: &ModelInfo, tokens: &TokensInfo, measure: &MeasureArgs) -> u64 {
    let positions = product(&[tokens.num_sequences, tokens.sequence_length]);
    let (sites, times) = match measure.keep_sites.iter().all(|site| Site::NORMS.contains(site)) {
        true if !measure.keep_sites.is_empty() => (2, 1),
        _ => (Site::ALL.len(), WIDEST),
    };
    let kept = product(&[sites, times, info.num_layers, info.hidden_size]).saturating_mul(positions);
    let logits = product(&[tokens.num_sequences, info.vocab_size + 1]);
    kept.saturating_add(logits).saturating_add(positions).saturating_mul(4).saturating_add(BESIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_of_many_experts_fits_into_the_reply() {
        use crate::record::{Channels, Measures, Moments, SiteId};
        let info: ModelInfo = serde_json::from_value(serde_json::json!({
            "id": "m", "revision": null, "model_type": "olmoe", "num_layers": 4, "hidden_size": 256,
            "vocab_size": 256, "num_experts": 128, "num_experts_per_tok": 8, "parameters": 1, "active_parameters": 1,
            "weight_bytes": 1, "weights_stored_as": [], "dtype": "f32", "device": "cpu", "chunk_layers": 2,
            "synthetic": true, "files": [],
        }))
        .unwrap();
        let (experts, width) = (128, 1024);
        let moments = |layer| {
            let (values, sums) = (vec![1.5f32; experts * width], vec![0.1f64; experts * width]);
            let (max, min, sum, sum2) = (values.clone(), values, sums.clone(), sums.clone());
            let channels = Channels { max, min, sum, sum2, sumabs: sums.clone(), sum3: sums.clone(), sum4: sums };
            let at = SiteId { layer, site: Site::FfnMid };
            Moments { at, width, rows: vec![1; experts], non_finite: 0, max_median: Default::default(), channels }
        };
        let measures = Measures { moments: (0..4).map(moments).collect(), ..Measures::default() };
        let bytes = rmp_serde::to_vec_named(&measures).unwrap().len() as u64;
        let (source, sha256) = ("script".to_string(), String::new());
        let tokens = TokensInfo { source, revision: None, num_sequences: 1, sequence_length: 2, sha256, parts: vec![] };
        let most = |args: &MeasureArgs| record_bytes(&info, &tokens, 22) + measured_bytes(&info, &tokens, args, 22);
        let mut args = MeasureArgs::default();
        assert!(most(&args) < bytes, "nothing else is measured: {}", most(&args));
        (args.sites, args.observe) = (vec![Site::FfnMid], vec![Measure::Moments]);
        assert!(most(&args) >= bytes, "{} of {bytes} bytes", most(&args));
    }
}
