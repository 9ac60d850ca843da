//! Reads rotary embeddings from a config: the old spelling (`rope_theta`, `rope_scaling`), that of
//! transformers 5 (`rope_parameters`), or both. Two spellings agree if the ropes compute the same.

use serde_json::{Map, Value};

use super::config::{Config, shown};
use super::rope::Rope;
use super::rope_section::{IMPLIED, Of, Section, object, section};
use crate::error::Result;
use crate::outside;

pub(super) use super::rope_section::{DEFAULTS, RopeDefaults};

impl Rope {
    /// Reads `rope_theta`, `rope_scaling` and `partial_rotary_factor`, or `rope_parameters`, which
    /// holds all three. A config may have both if they agree.
    ///
    /// # Errors
    /// An error if a key changes the frequencies in a way that is not computed, or two spellings
    /// contradict each other.
    pub fn from_config(c: &Config, head_dim: usize, defaults: &RopeDefaults) -> Result<Self> {
        // This marks the keys as read. Some kinds of scaling do nothing else with them.
        for key in ["rope_theta", "partial_rotary_factor", "original_max_position_embeddings"] {
            c.get(key);
        }
        let (parameters, scaling) = (object(c, "rope_parameters")?, object(c, "rope_scaling")?);
        // As in the reference, an empty `rope_scaling` counts as missing, and any other has
        // precedence over `rope_parameters`.
        match (parameters, scaling.filter(|map| !map.is_empty())) {
            (Some(parameters), Some(scaling)) => {
                let (one, other) = (
                    section(c, "rope_parameters", parameters).read(head_dim, defaults)?,
                    section(c, "rope_scaling", scaling).read(head_dim, defaults)?,
                );
                if !one.turns_like(&other) {
                    let problem = "and `rope_parameters` are both present and turn by different angles; transformers would \
                                   take `rope_scaling`; remove the one that is not meant";
                    return Err(c.wrong("rope_scaling", problem));
                }
                Ok(other)
            }
            (Some(parameters), None) => section(c, "rope_parameters", parameters).read(head_dim, defaults),
            (None, Some(scaling)) => section(c, "rope_scaling", scaling).read(head_dim, defaults),
            (None, None) => {
                let usual = usual(defaults);
                section(c, IMPLIED, &usual).read(head_dim, defaults)
            }
        }
    }
}

impl Rope {
    /// Reads the rope of the layers of type `name`, if each type has its own: from the object of
    /// that name in `rope_parameters`, or from the keys of the old spelling. In the old spelling,
    /// `rope_theta` and `rope_scaling` are the rope of the `main` type.
    ///
    /// # Errors
    /// As for `from_config`, and an error if `rope_parameters` does not hold objects by type of
    /// layer.
    pub fn of_type(c: &Config, head_dim: usize, name: &str, main: bool, defaults: &RopeDefaults) -> Result<Self> {
        for key in ["rope_theta", "partial_rotary_factor", "original_max_position_embeddings"] {
            c.get(key);
        }
        let (parameters, scaling) = (object(c, "rope_parameters")?, object(c, "rope_scaling")?);
        let key = if parameters.is_some() { "rope_parameters" } else { "rope_scaling" };
        let mut params = Map::new();
        for (inside, value) in parameters.into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let known = defaults.layer_types.contains(&inside.as_str());
            let Some(object) = value.as_object().filter(|_| known) else {
                let expected = defaults.layer_types.join(", ");
                let inside = outside::shown(inside);
                let problem = format!("is {}, where objects for {expected} are expected", shown(value));
                return Err(c.wrong(&format!("{key}.{inside}"), &problem));
            };
            if inside == name {
                params = object.clone();
            }
        }
        // As in the reference, the old spelling overrides these values. There they have a
        // `rope_type` already, so that the older `type` does not count.
        let old_name = main && parameters.is_none() && scaling.is_some_and(|map| !map.contains_key("rope_type"));
        if let Some(old) = scaling.filter(|_| old_name).and_then(|map| map.get("type")).filter(|old| **old != "default")
        {
            let problem = format!(
                "is {}, but of this architecture transformers reads `rope_type` alone, and scales nothing",
                shown(old)
            );
            return Err(c.wrong("rope_scaling.type", &problem).hint("call it `rope_type` if it is meant"));
        }
        params.extend(scaling.filter(|_| main).cloned().unwrap_or_default());
        let of = if main { Of::MainType } else { Of::OtherType };
        Section { c, key, params: &params, of }.read(head_dim, defaults)
    }
}

/// A number that must be among the parameters of the rope, and that has a meaning besides the
/// angles.
///
/// # Errors
/// An error if it is missing or not a number.
pub(super) fn parameter(c: &Config, defaults: &RopeDefaults, name: &str) -> Result<f64> {
    parameters(c, defaults, |section| section.required(name))
}

/// As `parameter`, for a number that may be missing.
pub(super) fn opt_parameter(c: &Config, defaults: &RopeDefaults, name: &str) -> Result<Option<f64>> {
    parameters(c, defaults, |section| section.number(name))
}

/// The context from which queries grow, and which must be among the parameters of the rope. The
/// reference puts it there for the kinds of rope that are stretched from it.
///
/// # Errors
/// An error if it is missing or not a number.
pub(super) fn original(c: &Config, defaults: &RopeDefaults) -> Result<f64> {
    parameters(c, defaults, |section| match section.kind()? {
        "llama3" | "yarn" | "longrope" => section.original(defaults),
        _ => section.required("original_max_position_embeddings"),
    })
}

fn parameters<T>(c: &Config, defaults: &RopeDefaults, read: impl Fn(&Section) -> Result<T>) -> Result<T> {
    let (parameters, scaling) = (object(c, "rope_parameters")?, object(c, "rope_scaling")?);
    match (parameters, scaling.filter(|map| !map.is_empty())) {
        (_, Some(scaling)) => read(&section(c, "rope_scaling", scaling)),
        (Some(parameters), None) => read(&section(c, "rope_parameters", parameters)),
        (None, None) => {
            let usual = usual(defaults);
            read(&section(c, IMPLIED, &usual))
        }
    }
}

/// The parameters of a config that leaves them out.
fn usual(defaults: &RopeDefaults) -> Map<String, Value> {
    serde_json::from_str(defaults.parameters.unwrap_or("{}")).expect("a default is an object")
}
