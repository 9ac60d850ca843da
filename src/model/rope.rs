//! Rotary position embedding: which frequencies, and the tables of cosines and sines made from them.
//!
//! Half-split layout: dimension j turns with j + dim/2, j < dim/2; dimensions from `dim` on pass through. The scaling kinds
//! and their parameters are those of Hugging Face `rope_scaling` / `rope_parameters`; YaRN after Peng et al. 2023.
//! Frequencies are computed in f64 and rounded once to f32, angles in f32 as the reference does.

use serde_json::{Map, Value, json};

use super::config::{Config, shown};
use super::spec::Mixer;
use super::tensor::{Device, Tensor};
use crate::error::{Error, Result};
use crate::outside;

/// YaRN's full turns within the original context, above which a frequency stays and below which it is divided.
const BETA_FAST: f64 = 32.0;
const BETA_SLOW: f64 = 1.0;

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
}

impl Scaling {
    /// YaRN with the usual parameters.
    pub fn yarn(factor: f64, original: f64, truncate: bool) -> Self {
        let attention_factor = yarn_mscale(factor, 1.0);
        Self::Yarn { factor, original, beta_fast: BETA_FAST, beta_slow: BETA_SLOW, truncate, attention_factor }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// How many leading dimensions of a head turn; even.
    pub dim: usize,
    pub scaling: Scaling,
}

/// Cosines and sines, each [positions, dim / 2], row-major.
pub struct Tables {
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

impl Rope {
    /// From `rope_theta` + `rope_scaling` + `partial_rotary_factor`, or from `rope_parameters`, which holds all three.
    /// Without a `default_share` the architecture always turns whole heads.
    pub fn from_config(c: &Config, head_dim: usize, default_theta: f64, default_share: Option<f64>) -> Result<Self> {
        let empty = Map::new();
        let (key, params) = match (c.get("rope_parameters"), c.get("rope_scaling")) {
            (Some(Value::Object(map)), None) => ("rope_parameters", map),
            (Some(parameters), Some(scaling)) if parameters == scaling => {
                ("rope_parameters", parameters.as_object().unwrap_or(&empty))
            }
            (Some(_), Some(_)) => {
                return Err(c.wrong("rope_scaling", "and `rope_parameters` are both present and differ; remove one"));
            }
            (None, Some(Value::Object(map))) => ("rope_scaling", map),
            (None, None) => ("rope_scaling", &empty),
            (Some(other), None) => {
                return Err(c.wrong("rope_parameters", &format!("is {}, expected an object", shown(other))));
            }
            (None, Some(other)) => {
                return Err(c.wrong("rope_scaling", &format!("is {}, expected an object", shown(other))));
            }
        };
        let section = Section { c, key, params };
        let theta = section.number("rope_theta")?.or(c.opt_f64("rope_theta")?).unwrap_or(default_theta);
        let share = section.number("partial_rotary_factor")?.or(c.opt_f64("partial_rotary_factor")?);
        if default_share.is_none() && share.is_some_and(|share| share != 1.0) {
            return Err(c.wrong("partial_rotary_factor", "is not known to this architecture"));
        }
        let share = share.or(default_share).unwrap_or(1.0);
        let dim = (head_dim as f64 * share) as usize;
        if dim == 0 || !dim.is_multiple_of(2) || dim > head_dim {
            return Err(c.wrong("partial_rotary_factor", &format!("gives {dim} rotary dimensions of {head_dim}")));
        }
        let scaling = section.scaling(c)?;
        Ok(Self { theta, dim, scaling })
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
        let scaled = plain.enumerate().map(|(j, frequency)| match self.scaling {
            Scaling::None | Scaling::Dynamic { .. } => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
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
            Scaling::Yarn { factor, original, beta_fast, beta_slow, truncate, .. } => {
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
        });
        scaled.map(|frequency| frequency as f32).collect()
    }

    /// Factor on cosines and sines (YaRN's attention temperature), 1 otherwise.
    fn table_factor(&self) -> f32 {
        match self.scaling {
            Scaling::Yarn { attention_factor, .. } => attention_factor as f32,
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
fn yarn_mscale(scale: f64, mscale: f64) -> f64 {
    if scale <= 1.0 { 1.0 } else { 0.1 * mscale * scale.ln() + 1.0 }
}

/// The `rope_scaling` or `rope_parameters` object, with errors that name the key inside it.
struct Section<'a> {
    c: &'a Config,
    key: &'static str,
    params: &'a Map<String, Value>,
}

impl Section<'_> {
    fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.params.get(name).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, &format!("is {}, expected a number", shown(value)))),
            },
        }
    }

    fn required(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn wrong(&self, name: &str, problem: &str) -> Error {
        self.c.wrong(&format!("{}.{name}", self.key), problem)
    }

    fn scaling(&self, c: &Config) -> Result<Scaling> {
        let kind = |name| self.params.get(name).and_then(Value::as_str);
        let kind = kind("rope_type").or(kind("type")).unwrap_or("default");
        // Where the original context is not given, the reference takes the model's.
        let original = || match self.number("original_max_position_embeddings")? {
            Some(original) => Ok(original),
            None => c.f64("max_position_embeddings"),
        };
        let (scaling, known): (Scaling, &[&str]) = match kind {
            "default" => (Scaling::None, &[]),
            "linear" => (Scaling::Linear { factor: self.required("factor")? }, &["factor"]),
            "dynamic" => {
                let scaling = Scaling::Dynamic {
                    factor: self.required("factor")?,
                    // Not `original_max_position_embeddings`, which the reference does not read here.
                    original: c.f64("max_position_embeddings")?,
                };
                (scaling, &["factor", "original_max_position_embeddings"])
            }
            "llama3" => {
                let scaling = Scaling::Llama3 {
                    factor: self.required("factor")?,
                    low_freq_factor: self.required("low_freq_factor")?,
                    high_freq_factor: self.required("high_freq_factor")?,
                    original: original()?,
                };
                (scaling, &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"])
            }
            "yarn" => (
                self.yarn(original()?)?,
                &[
                    "factor",
                    "original_max_position_embeddings",
                    "beta_fast",
                    "beta_slow",
                    "truncate",
                    "attention_factor",
                    "mscale",
                    "mscale_all_dim",
                ],
            ),
            other => {
                return Err(self.wrong(
                    "rope_type",
                    &format!("is \"{}\"; supported are default, linear, dynamic, llama3, yarn", outside::shown(other)),
                ));
            }
        };
        let common = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        for (name, value) in self.params {
            if !value.is_null() && !known.contains(&name.as_str()) && !common.contains(&name.as_str()) {
                return Err(self.wrong(name, &format!("is {}: not understood for rope type \"{kind}\"", shown(value))));
            }
        }
        Ok(scaling)
    }

    fn yarn(&self, original: f64) -> Result<Scaling> {
        let factor = match self.number("factor")? {
            Some(factor) => factor,
            None => self.c.f64("max_position_embeddings")? / original,
        };
        let truncate = match self.params.get("truncate") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(value)) => *value,
            Some(other) => {
                return Err(self.wrong("truncate", &format!("is {}, expected {}", shown(other), json!(true))));
            }
        };
        let attention_factor =
            match (self.number("attention_factor")?, self.number("mscale")?, self.number("mscale_all_dim")?) {
                (Some(given), _, _) => given,
                (None, Some(mscale), Some(all)) if mscale != 0.0 && all != 0.0 => {
                    yarn_mscale(factor, mscale) / yarn_mscale(factor, all)
                }
                _ => yarn_mscale(factor, 1.0),
            };
        // As in the reference, 0 stands for the default.
        let beta = |name, default| Ok(self.number(name)?.filter(|beta| *beta != 0.0).unwrap_or(default));
        Ok(Scaling::Yarn {
            factor,
            original,
            beta_fast: beta("beta_fast", BETA_FAST)?,
            beta_slow: beta("beta_slow", BETA_SLOW)?,
            truncate,
            attention_factor,
        })
    }
}

/// Cosines and sines of the rotary embedding last used; layers share them where they agree.
#[derive(Default)]
pub struct Rotary(Option<(Rope, (Tensor, Tensor))>);

impl Rotary {
    pub fn prepare(&mut self, mixer: &Mixer, positions: usize, device: &Device) -> candle_core::Result<()> {
        let Mixer::Attention(attention) = mixer else {
            return Ok(());
        };
        let Some(rope) = &attention.rope else {
            self.0 = None;
            return Ok(());
        };
        if self.0.as_ref().is_none_or(|(cached, _)| cached != rope) {
            let tables = rope.tables(positions);
            let shape = (positions, rope.dim / 2);
            let cos = Tensor::from_vec(tables.cos, shape, device)?;
            self.0 = Some((rope.clone(), (cos, Tensor::from_vec(tables.sin, shape, device)?)));
        }
        Ok(())
    }

    pub fn get(&self) -> Option<&(Tensor, Tensor)> {
        self.0.as_ref().map(|(_, tables)| tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(text: &str) -> Result<Rope> {
        Rope::from_config(&Config::parse(text, "config.json").unwrap(), 64, 10_000.0, Some(1.0))
    }

    #[test]
    fn old_and_new_spellings_agree() {
        let old = rope(
            r#"{"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4}, "partial_rotary_factor": 0.5}"#,
        );
        let new = rope(
            r#"{"rope_parameters": {"rope_theta": 500000, "rope_type": "linear", "factor": 4.0, "partial_rotary_factor": 0.5}}"#,
        );
        assert_eq!(old.unwrap(), new.unwrap());
    }

    #[test]
    fn gpt_oss_yarn_temperature() {
        let yarn = rope(
            r#"{"rope_theta": 150000, "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "truncate": false,
                "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0}}"#,
        );
        assert!((yarn.unwrap().table_factor() - 1.34657).abs() < 1e-5);
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_it() {
        let error = rope(r#"{"rope_scaling": {"rope_type": "longrope", "factor": 2}}"#).unwrap_err();
        assert!(error.message.contains("`rope_scaling.rope_type` is \"longrope\""), "{error}");
        let error = rope(r#"{"rope_scaling": {"rope_type": "linear", "factor": 2, "betta": 1}}"#).unwrap_err();
        assert!(error.message.contains("`rope_scaling.betta`"), "{error}");
    }
}
