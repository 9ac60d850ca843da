//! What moments of channels say of a site of a layer: docs/measures.md has the definitions and
//! their sources.

use serde::Serialize;

use crate::record::{Activations, Experts, Moments, SuperWeight, number};

/// The share of all experts' outputs below which none is a super expert (Su et al. 2025).
const SUPER_QUANTILE: f64 = 0.995;
/// A super expert's largest output is above this share of the largest of all.
const SUPER_SHARE: f64 = 0.1;

/// Statistics of all values of a site in a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteMoments {
    pub layer: usize,
    pub site: &'static str,
    pub width: usize,
    /// Number of rows, of all experts together.
    pub rows: u64,
    /// Largest |x|.
    #[serde(with = "number")]
    pub absmax: f64,
    /// Root of the mean of x^2.
    #[serde(with = "number")]
    pub rms: f64,
    /// Fourth central moment over the square of the variance, less 3, over all values together
    /// (Bondarenko et al. 2023).
    #[serde(with = "number")]
    pub excess_kurtosis: f64,
    /// Mean over channels of the fourth power of their root mean square, over the square of the
    /// mean of its square (He et al. 2024).
    #[serde(with = "number")]
    pub channel_kurtosis: f64,
    /// Mean over rows of the largest |x| divided by the median |x|.
    #[serde(with = "number")]
    pub max_median_mean: f32,
    #[serde(with = "number")]
    pub max_median_max: f32,
    pub non_finite: u64,
}

/// The statistics of a site from the sums of its channels.
pub fn site_moments(of: &Moments) -> SiteMoments {
    let rows: u64 = of.rows.iter().sum();
    let channels = &of.channels;
    let count = (rows * of.width as u64).saturating_sub(of.non_finite) as f64;
    let total = |sums: &[f64]| sums.iter().sum::<f64>();
    let [s1, s2, s3, s4] = [&channels.sum, &channels.sum2, &channels.sum3, &channels.sum4].map(|sums| total(sums));
    let mean = s1 / count;
    let variance = s2 / count - mean * mean;
    let fourth = s4 / count - 4.0 * mean * s3 / count + 6.0 * mean * mean * s2 / count - 3.0 * mean.powi(4);
    let seen = of.rows.iter().zip(channels.sum2.chunks(of.width.max(1))).filter(|(rows, _)| **rows > 0);
    let squares: Vec<f64> = seen.flat_map(|(rows, sums)| sums.iter().map(|sum| sum / *rows as f64)).collect();
    let fourth_powers: f64 = squares.iter().map(|square| square * square).sum();
    let extremes = channels.max.iter().chain(&channels.min).filter(|x| x.is_finite());
    let ratio = &of.max_median;
    SiteMoments {
        layer: of.at.layer,
        site: of.at.site.name(),
        width: of.width,
        rows,
        absmax: extremes.fold(0.0, |most, x| f64::from(x.abs()).max(most)),
        rms: (s2 / count).sqrt(),
        excess_kurtosis: fourth / (variance * variance) - 3.0,
        channel_kurtosis: squares.len() as f64 * fourth_powers / total(&squares).powi(2),
        max_median_mean: if ratio.rows > 0 { ratio.mean } else { f32::NAN },
        max_median_max: if ratio.rows > 0 { ratio.max } else { f32::NAN },
        non_finite: of.non_finite,
    }
}

/// An expert whose output stands out from those of all experts of all layers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuperExpert {
    pub layer: usize,
    pub expert: usize,
    #[serde(with = "number")]
    pub output_absmax: f32,
}

/// The super experts of a record (Su et al. 2025): those whose largest |output| is above the 99.5th
/// percentile of all experts' and above a tenth of the largest. They come by falling output.
pub fn super_experts(acts: &Activations) -> Vec<SuperExpert> {
    let with_tokens = |of: &Experts| -> Vec<SuperExpert> {
        let all = of.tokens.iter().zip(&of.output_absmax).enumerate().filter(|(_, (tokens, _))| **tokens > 0);
        all.map(|(expert, (_, most))| SuperExpert { layer: of.layer, expert, output_absmax: *most }).collect()
    };
    let mut all: Vec<SuperExpert> = acts.measures.experts.iter().flat_map(with_tokens).collect();
    let place = |of: &SuperExpert| (of.layer, of.expert);
    all.sort_by(|a, b| b.output_absmax.total_cmp(&a.output_absmax).then_with(|| place(a).cmp(&place(b))));
    let count = all.len();
    let ascending = |rank: u64| f64::from(all[count - 1 - rank as usize].output_absmax);
    let quantile = super::quantile::linear_quantile(count as u64, SUPER_QUANTILE, ascending);
    let largest = all.first().map_or(0.0, |first| f64::from(first.output_absmax));
    let stands_out = |of: &SuperExpert| {
        let most = f64::from(of.output_absmax);
        most > quantile && most > SUPER_SHARE * largest
    };
    all.retain(stands_out);
    all
}

/// By how much the largest input and output of a super weight's layer exceed the medians over
/// layers. Yu et al. look at a figure; the number is this program's.
const SUPER_WEIGHT_FACTOR: f64 = 5.0;

/// A weight with the answer whether it is a candidate for a super weight.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuperWeightFound {
    #[serde(flatten)]
    pub of: SuperWeight,
    /// True if the largest input and output of the layer belong to one token, and both are at least
    /// five times the median of that maximum over all layers.
    pub candidate: bool,
}

/// The weights of each layer to which its largest input and output point (Yu et al. 2024).
pub fn super_weights(acts: &Activations) -> Vec<SuperWeightFound> {
    let all = &acts.measures.super_weights;
    let median = |size: fn(&SuperWeight) -> f32| {
        let mut sizes: Vec<f64> = all.iter().map(|of| f64::from(size(of).abs())).collect();
        sizes.sort_unstable_by(f64::total_cmp);
        super::quantile::linear_quantile(sizes.len() as u64, 0.5, |rank| sizes[rank as usize])
    };
    let (input, output) = (median(|of| of.input.value), median(|of| of.output.value));
    let large = |value: f32, median: f64| f64::from(value.abs()) >= SUPER_WEIGHT_FACTOR * median;
    let found = |of: &SuperWeight| {
        let token = |value: &crate::record::TopValue| (value.sequence, value.position);
        let same_token = token(&of.input) == token(&of.output);
        let candidate = same_token && large(of.input.value, input) && large(of.output.value, output);
        SuperWeightFound { of: *of, candidate }
    };
    all.iter().map(found).collect()
}
