//! Rotary position embedding: the frequencies, and the tables of cosines and sines computed from
//! them.
//!
//! Dimension j is rotated with j + dim/2, j < dim/2, or with its neighbour. Dimensions from `dim`
//! on are unchanged. The kinds of scaling and their parameters are those of Hugging Face's
//! `rope_scaling` / `rope_parameters`; YaRN after Peng et al. 2023. Frequencies are computed in f64
//! and rounded once to f32, angles are in f32 as in the reference.

use crate::vocabulary::Pairs;

#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    None,
    /// Frequencies are divided by `factor`.
    Linear {
        factor: f64,
    },
    /// The base grows with sequences beyond `original` positions (NTK-aware).
    Dynamic {
        factor: f64,
        original: f64,
    },
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original: f64,
    },
    /// Only this number of leading pairs of the head is rotated (Gemma 4).
    Proportional {
        turning: usize,
    },
    Yarn {
        factor: f64,
        original: f64,
        beta_fast: f64,
        beta_slow: f64,
        truncate: bool,
        attention_factor: f64,
    },
    /// Each frequency is divided by its own factor, from one list for sequences up to `original`
    /// positions and from another for longer ones (Ding et al. 2024).
    LongRope {
        short: Vec<f64>,
        long: Vec<f64>,
        original: f64,
        attention_factor: f64,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// Number of leading dimensions of a head that are rotated; even.
    pub dim: usize,
    pub pairs: Pairs,
    pub scaling: Scaling,
}

/// Cosines and sines, each [positions, dim / 2], row-major.
pub struct Tables {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Rope {
    /// True if both have the same cosines and sines, for any spelling.
    pub fn turns_like(&self, other: &Self) -> bool {
        let grows = |rope: &Self| matches!(rope.scaling, Scaling::Dynamic { .. } | Scaling::LongRope { .. });
        let tables = |rope: &Self| (rope.dim, rope.inverse_frequencies(1), rope.table_factor());
        self == other || (!grows(self) && !grows(other) && tables(self) == tables(other))
    }

    /// Inverse frequencies [dim / 2] for sequences of `positions` tokens.
    pub fn inverse_frequencies(&self, positions: usize) -> Vec<f32> {
        let dim = self.dim as f64;
        let theta = match self.scaling {
            Scaling::Dynamic { factor, original } if positions as f64 > original => {
                let stretch = factor * positions as f64 / original - (factor - 1.0);
                self.theta * stretch.powf(dim / (dim - 2.0))
            }
            _ => self.theta,
        };
        let plain = (0..self.dim / 2).map(|j| theta.powf(-2.0 * j as f64 / dim));
        let scaled = plain.enumerate().map(|(j, frequency)| match &self.scaling {
            Scaling::None | Scaling::Dynamic { .. } => frequency,
            Scaling::Proportional { turning } => {
                if j < *turning {
                    frequency
                } else {
                    0.0
                }
            }
            Scaling::Linear { factor } => frequency / factor,
            &Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let wavelength = 2.0 * std::f64::consts::PI / frequency;
                if wavelength > original / low_freq_factor {
                    frequency / factor
                } else if wavelength < original / high_freq_factor {
                    frequency
                } else {
                    let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
            &Scaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
                // The dimension with `rotations` full rotations in the original context.
                let correction = |rotations: f64| {
                    dim * (original / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (correction(beta_fast), correction(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001; // the reference avoids a division by zero this way
                }
                let ramp = ((j as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * ramp + frequency * (1.0 - ramp)
            }
            Scaling::LongRope { short, long, original, .. } => {
                frequency / if positions as f64 > *original { long[j] } else { short[j] }
            }
        });
        scaled.map(|frequency| frequency as f32).collect()
    }

    /// The factor of cosines and sines (the attention temperature of YaRN and LongRoPE), 1
    /// otherwise.
    pub fn table_factor(&self) -> f32 {
        match self.scaling {
            Scaling::Yarn { attention_factor, .. } | Scaling::LongRope { attention_factor, .. } => {
                attention_factor as f32
            }
            _ => 1.0,
        }
    }

    pub fn tables(&self, positions: usize) -> Tables {
        let frequencies = self.inverse_frequencies(positions);
        let factor = self.table_factor();
        let angles = (0..positions).flat_map(|t| frequencies.iter().map(move |f| t as f32 * f));
        let (cos, sin) = angles.map(|angle| (angle.cos() * factor, angle.sin() * factor)).unzip();
        Tables { cos, sin }
    }
}

/// YaRN's magnitude correction for a context extended by `scale`.
pub fn yarn_mscale(scale: f64, mscale: f64) -> f64 {
    if scale <= 1.0 { 1.0 } else { 0.1 * mscale * scale.ln() + 1.0 }
}
