//! The object of a config that describes rotary embeddings, with errors that name the key inside
//! it.

use serde_json::{Map, Value, json};

use super::config::{Config, shown};
use super::rope::{Rope, Scaling, yarn_mscale};
use super::rope_contexts::context;
use super::rope_keys::{FOREIGN_ROPE_KEYS, ROPE_KEYS};
use crate::error::{Error, Result};
use crate::outside;
use crate::vocabulary::Pairs;

/// The names of both keys inside the object.
const THETA: &str = "rope_theta";
const SHARE: &str = "partial_rotary_factor";

/// The name in messages of the object that a config leaves out.
pub(super) const IMPLIED: &str = "rope_parameters (left out)";

/// YaRN's numbers of full rotations in the original context: above the first a frequency stays, and
/// below the second it is divided.
const BETA_FAST: f64 = 32.0;
const BETA_SLOW: f64 = 1.0;

/// The rope of an architecture in transformers if its config has no value.
pub struct RopeDefaults {
    pub theta: f64,
    /// The share of a head that is rotated. None if the architecture has no partial rotary
    /// embedding.
    pub partial_rotary_factor: Option<f64>,
    /// The names of `rope_theta` and `partial_rotary_factor` in the config, outside the object.
    /// Only these names are read there.
    pub theta_key: &'static str,
    pub share_key: &'static str,
    /// The value of `original_max_position_embeddings`, outside the object, if the config leaves it
    /// out.
    pub original: Option<f64>,
    pub pairs: Pairs,
    /// Types of layers for each of which `rope_parameters` may hold an object.
    pub layer_types: &'static [&'static str],
    /// True if an `alpha` of the kind "dynamic" stretches the base for all lengths (Hunyuan).
    pub alpha: bool,
    /// Keys of `rope_parameters` that do not affect angles. The architecture reads them itself.
    pub read_elsewhere: &'static [&'static str],
    /// The value of `rope_parameters` as JSON, if the config leaves it out.
    pub parameters: Option<&'static str>,
    /// Other names of the kind of scaling "longrope".
    pub longrope: &'static [&'static str],
    /// Whether one dimension more is rotated where the share of a head is an odd number. That is
    /// what the modeling files do that rotate as many dimensions as there are cosines; the others
    /// fail.
    pub rounds_up: bool,
}

/// The defaults of Llama, which most related architectures share.
pub(super) const DEFAULTS: RopeDefaults = RopeDefaults {
    theta: 10_000.0,
    partial_rotary_factor: None,
    theta_key: THETA,
    share_key: SHARE,
    original: None,
    pairs: Pairs::Halves,
    layer_types: &[],
    alpha: false,
    read_elsewhere: &[],
    parameters: None,
    longrope: &[],
    rounds_up: false,
};

/// The object under `key`, if there is one.
pub(super) fn object<'a>(c: &'a Config, key: &str) -> Result<Option<&'a Map<String, Value>>> {
    match c.get(key) {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(other) => Err(c.wrong(key, &format!("is {}, expected an object", shown(other)))),
    }
}

fn null(c: &Config, key: &str) -> bool {
    !c.missing(key) && !c.has(key)
}

pub(super) fn section<'a>(c: &'a Config, key: &'static str, params: &'a Map<String, Value>) -> Section<'a> {
    Section { c, key, params, of: Of::Model }
}

/// The `rope_scaling` or `rope_parameters` object, with errors that name the key inside it.
pub(super) struct Section<'a> {
    pub c: &'a Config,
    pub key: &'static str,
    pub params: &'a Map<String, Value>,
    pub of: Of,
}

/// The layers for which an object is read: all layers, or those of one type that has a rope of its
/// own.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Of {
    Model,
    /// The keys outside the object count for these layers.
    MainType,
    /// The keys outside the object do not count for these layers.
    OtherType,
}

impl Section<'_> {
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.params.get(name).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(name, &format!("is {}, expected a number", shown(value)))),
            },
        }
    }

    pub(super) fn required(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| self.wrong(name, "is missing"))
    }

    fn wrong(&self, name: &str, problem: &str) -> Error {
        self.c.wrong(&format!("{}.{name}", self.key), problem)
    }

    fn uncomputed(&self, name: &str, problem: &str) -> Error {
        self.c.uncomputed(&format!("{}.{name}", self.key), problem)
    }

    fn tell(&self, name: &str, says: &str) {
        self.c.tell(&format!("{}.{name}", self.key), says);
    }

    /// A number inside the object, or outside it under the name `other`. The one inside has
    /// precedence, as in the reference.
    fn inside_or_beside(&self, name: &str, other: &str) -> Result<Option<f64>> {
        let beside =
            |key: &str| Ok::<_, Error>(self.c.opt_f64(key)?.filter(|_| self.of != Of::OtherType || key != name));
        let (inside, named) = (self.number(name)?, beside(other)?);
        if let (Some(inside), Some(beside)) = (inside, named)
            && inside != beside
        {
            let key = self.key;
            self.c.tell(
                other,
                &format!("is {beside}, but `{key}.{name}` is {inside}; as in transformers, the latter counts"),
            );
        }
        let counts = inside.or(named);
        if other != name
            && let Some(unread) = beside(name)?.filter(|unread| Some(*unread) != counts)
        {
            self.c.tell(name, &format!("is {unread}, which has no effect: transformers reads `{other}`"));
        }
        Ok(counts)
    }

    pub(super) fn read(&self, head_dim: usize, defaults: &RopeDefaults) -> Result<Rope> {
        if self.params.values().any(Value::is_object) {
            return self.read_layers(head_dim, defaults);
        }
        self.not_null(THETA, defaults.theta_key)?;
        let theta = self.inside_or_beside(THETA, defaults.theta_key)?.unwrap_or(defaults.theta);
        let share = self.share(defaults)?;
        if defaults.partial_rotary_factor.is_none() && share.is_some_and(|share| share != 1.0) {
            return Err(self.c.wrong("partial_rotary_factor", "is not known to this architecture"));
        }
        let share = share.or(defaults.partial_rotary_factor).unwrap_or(1.0);
        let divisor = (head_dim as f64 * share) as usize;
        let odd = !divisor.is_multiple_of(2);
        let dim = divisor + usize::from(odd && defaults.rounds_up);
        // transformers cannot stretch an odd number by YaRN either.
        if dim == 0 || !dim.is_multiple_of(2) || dim > head_dim || odd && self.kind()? == "yarn" {
            return Err(self.c.wrong(defaults.share_key, &format!("gives {divisor} rotary dimensions of {head_dim}")));
        }
        let alpha = if defaults.alpha { self.number("alpha")?.filter(|alpha| *alpha != 0.0) } else { None };
        if let Some(alpha) = alpha
            && self.kind()? == "dynamic"
        {
            let stretch = alpha.powf(head_dim as f64 / (head_dim as f64 - 2.0));
            // Every release has the other keys beside `alpha`.
            self.unread("dynamic", &["alpha", "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"])?;
            return Ok(Rope { theta: theta * stretch, dim, divisor, pairs: defaults.pairs, scaling: Scaling::None });
        }
        Ok(Rope { theta, dim, divisor, pairs: defaults.pairs, scaling: self.scaling(dim, defaults)? })
    }

    /// The share of a head that turns, or None if the config leaves it out.
    ///
    /// A null beside the object takes the place of the class's default: whole heads turn, or, with
    /// classes that need the number, no model can be made.
    fn share(&self, defaults: &RopeDefaults) -> Result<Option<f64>> {
        let share = self.inside_or_beside(SHARE, defaults.share_key)?;
        if defaults.partial_rotary_factor.is_none_or(|usual| usual == 1.0) {
            return Ok(share);
        }
        let looked_up = defaults.rounds_up && defaults.share_key == SHARE;
        if share.is_none() && looked_up && !self.params.contains_key(SHARE) && null(self.c, SHARE) {
            self.c.tell(SHARE, "is null: whole heads turn, as in transformers");
            return Ok(Some(1.0));
        }
        self.not_null(SHARE, defaults.share_key)?;
        Ok(share)
    }

    /// Refuses a null inside the object, and one outside it, named `other`, that would count.
    fn not_null(&self, name: &str, other: &str) -> Result<()> {
        let problem = "is null, which is no number: transformers cannot make the model either";
        if let Some(inside) = self.params.get(name) {
            return if inside.is_null() { Err(self.wrong(name, problem)) } else { Ok(()) };
        }
        let counts = self.of != Of::OtherType || other != name;
        if counts && null(self.c, other) { Err(self.c.wrong(other, problem)) } else { Ok(()) }
    }

    /// Reads one object for each type of layer, as transformers 5 writes them. They are accepted if
    /// all describe the same rope.
    fn read_layers(&self, head_dim: usize, defaults: &RopeDefaults) -> Result<Rope> {
        let mut first: Option<(&str, Rope)> = None;
        for (name, value) in self.params {
            let Some(params) = value.as_object() else {
                let problem = format!("is {} beside the ropes of layer types", shown(value));
                return Err(self.wrong(&outside::shown(name), &problem));
            };
            if !defaults.layer_types.contains(&name.as_str()) {
                let name = outside::shown(name);
                return Err(self.wrong(&name, "is the rope of a type of layer that this architecture does not have"));
            }
            let rope = Section { params, of: Of::MainType, ..*self }.read(head_dim, defaults)?;
            match &first {
                Some((other, same)) if !same.turns_like(&rope) => {
                    let problem = format!("differs from `{other}`: layers with ropes of their own are not computed");
                    return Err(self.uncomputed(name, &problem));
                }
                Some(_) => {}
                None => first = Some((name.as_str(), rope)),
            }
        }
        Ok(first.expect("some value is an object").1)
    }

    /// The kind of scaling: `rope_type`, or `type` in configs before 4.45.
    pub(super) fn kind(&self) -> Result<&str> {
        // The reference looks `type` up where `rope_type` is not there. It has no rope called None.
        let counts = if self.params.contains_key("rope_type") { "rope_type" } else { "type" };
        if self.params.get(counts).is_some_and(Value::is_null) {
            let problem = "is null, which is no kind of rope: transformers cannot make the model either";
            return Err(self
                .wrong(counts, problem)
                .hint("take it out where nothing is scaled, or name the kind that the model was trained with"));
        }
        let text = |name: &str| match self.params.get(name).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(self.wrong(name, &format!("is {}, expected a text", shown(other)))),
        };
        match (text("rope_type")?, text("type")?) {
            (Some(kind), Some(old)) if kind != old => {
                let says = format!(
                    "is \"{}\", but `rope_type` is \"{}\", which counts",
                    outside::shown(old),
                    outside::shown(kind)
                );
                self.tell("type", &says);
                Ok(kind)
            }
            (kind, old) => Ok(kind.or(old).unwrap_or("default")),
        }
    }

    /// The context before it was extended. As in the reference, a key of the model outside the
    /// object has precedence, and without one the model's context is used.
    pub(super) fn original(&self, defaults: &RopeDefaults) -> Result<f64> {
        const NAME: &str = "original_max_position_embeddings";
        let beside = self.c.opt_f64(NAME)?.or(defaults.original).filter(|_| self.of == Of::Model);
        match (beside, self.number(NAME)?) {
            (Some(beside), Some(inside)) if inside != beside => {
                let which = if self.c.has(NAME) { "beside it is" } else { "of the class is" };
                self.tell(
                    NAME,
                    &format!("is {inside}, but `{NAME}` {which} {beside}; as in transformers, the latter counts"),
                );
                Ok(beside)
            }
            (Some(original), _) | (None, Some(original)) => Ok(original),
            (None, None) if self.params.contains_key(NAME) => {
                Err(self.wrong(NAME, "is null, which is no number: transformers cannot make the model either"))
            }
            (None, None) => context(self.c),
        }
    }

    fn scaling(&self, dim: usize, defaults: &RopeDefaults) -> Result<Scaling> {
        let kind = self.kind()?;
        let kind = if defaults.longrope.contains(&kind) { "longrope" } else { kind };
        let (scaling, read): (Scaling, &[&str]) = match kind {
            "default" => {
                if let Some(factor) = self.number("factor")?.filter(|factor| *factor != 1.0) {
                    let problem =
                        format!("is {factor}, but the rope type \"default\" scales nothing; which type is meant?");
                    return Err(self.wrong("factor", &problem));
                }
                (Scaling::None, &["factor"])
            }
            "linear" => (Scaling::Linear { factor: self.required("factor")? }, &["factor"]),
            "dynamic" => {
                let scaling = Scaling::Dynamic {
                    factor: self.required("factor")?,
                    // The reference does not read `original_max_position_embeddings` here.
                    original: context(self.c)?,
                };
                (scaling, &["factor"])
            }
            "llama3" => {
                let scaling = Scaling::Llama3 {
                    factor: self.required("factor")?,
                    low_freq_factor: self.required("low_freq_factor")?,
                    high_freq_factor: self.required("high_freq_factor")?,
                    original: self.original(defaults)?,
                };
                (scaling, &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"])
            }
            "yarn" => (
                self.yarn(self.original(defaults)?)?,
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
            "longrope" => (
                self.longrope(dim, defaults)?,
                &["factor", "original_max_position_embeddings", "short_factor", "long_factor", "attention_factor"],
            ),
            other => {
                return Err(self.uncomputed(
                    "rope_type",
                    &format!(
                        "is \"{}\"; supported are default, linear, dynamic, llama3, yarn, longrope",
                        outside::shown(other)
                    ),
                ));
            }
        };
        self.unread(kind, &[read, defaults.read_elsewhere].concat())?;
        Ok(scaling)
    }

    /// Checks the keys that this kind of scaling does not read. Keys of other kinds and known
    /// additions of other programs have no effect in the reference, which warns about them. Any
    /// other key is an error.
    fn unread(&self, kind: &str, read: &[&str]) -> Result<()> {
        let common = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
        for (name, value) in self.params {
            let name = name.as_str();
            if value.is_null() || read.contains(&name) || common.contains(&name) {
                continue;
            }
            if !ROPE_KEYS.contains(&name) && !FOREIGN_ROPE_KEYS.contains(&name) {
                let name = outside::shown(name);
                return Err(self.wrong(&name, &format!("is {}: not understood for rope type \"{kind}\"", shown(value))));
            }
            let says = format!(
                "is {}, which has no effect: transformers does not read it for rope type \"{kind}\"",
                shown(value)
            );
            self.tell(name, &says);
        }
        Ok(())
    }

    fn longrope(&self, dim: usize, defaults: &RopeDefaults) -> Result<Scaling> {
        let original = self.original(defaults)?;
        let factors = |name: &str| {
            let numbers = self.params.get(name).and_then(Value::as_array).and_then(|list| {
                list.iter().map(|number| number.as_f64().filter(|number| *number > 0.0)).collect::<Option<Vec<_>>>()
            });
            let numbers = numbers.filter(|numbers| numbers.len() == dim / 2);
            numbers.ok_or_else(|| self.wrong(name, &format!("is no list of {} positive numbers", dim / 2)))
        };
        let factor = match self.number("factor")? {
            Some(factor) => factor,
            None => context(self.c)? / original,
        };
        let attention_factor = match self.number("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / original.ln()).sqrt(),
        };
        Ok(Scaling::LongRope {
            short: factors("short_factor")?,
            long: factors("long_factor")?,
            original,
            attention_factor,
        })
    }

    fn yarn(&self, original: f64) -> Result<Scaling> {
        let factor = match self.number("factor")? {
            Some(factor) => factor,
            // The reference looks the key up, and takes the ratio of the contexts for null only.
            None if !self.params.contains_key("factor") => return Err(self.wrong("factor", "is missing")),
            None => context(self.c)? / original,
        };
        let truncate = match self.params.get("truncate") {
            // The reference does not look for it in an object for a type of layer.
            _ if self.of != Of::Model => true,
            None => true,
            Some(Value::Bool(value)) => *value,
            // For the reference, null is not a missing key, and it does not count as true.
            Some(Value::Null) => false,
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
        // As in the reference, 0 means the default.
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
