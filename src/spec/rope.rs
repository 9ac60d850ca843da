//! Rotary position embedding: which frequencies, and the tables of cosines and sines made from them.
//!
//! Dimension j turns with j + dim/2, j < dim/2, or with its neighbour; dimensions from `dim` on pass through. The scaling kinds
//! and their parameters are those of Hugging Face `rope_scaling` / `rope_parameters`; YaRN after Peng et al. 2023.
//! Frequencies are computed in f64 and rounded once to f32, angles in f32 as the reference does.

use crate::vocabulary::Pairs;

#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    None,
    /// Frequencies divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Base grows with the sequence beyond `original` positions (NTK-aware).
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
    Yarn {
        factor: f64,
        original: f64,
        beta_fast: f64,
        beta_slow: f64,
        truncate: bool,
        attention_factor: f64,
    },
    /// Each frequency divided by a factor of its own, of one list for sequences up to `original` positions and of another for longer
    /// ones (Ding et al. 2024).
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
    /// How many leading dimensions of a head turn; even.
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
    /// Whether both give the same cosines and sines, however they are spelled.
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
                // The dimension at which `rotations` full turns fit into the original context.
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

    /// Factor on cosines and sines (the attention temperature of YaRN and LongRoPE), 1 otherwise.
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

/// YaRN's magnitude correction for a context stretched by `scale`.
pub fn yarn_mscale(scale: f64, mscale: f64) -> f64 {
    if scale <= 1.0 { 1.0 } else { 0.1 * mscale * scale.ln() + 1.0 }
}
