//! Finds quantised weights from the config and the names of tensors. `formats/` has the formats
//! that are read. Others are refused with a message that names them, because their files are good.

use serde_json::{Map, Value};

use super::config::Config;
use super::keys::{At, QUANTISED};
use crate::error::{Error, Result};
use crate::formats::{HINT, Settings};

/// Keys with the number of bits of a weight.
const BITS: [&str; 3] = ["bits", "num_bits", "w_bit"];

/// The tensors beside a quantised weight that is not read: endings in place of `.weight`, and the
/// method that writes them.
const BESIDE: &[(&[&str], &str)] = &[(&[".W_q"], "HQQ"), (&[".scales"], "MLX")];

/// The method by which the weight of this name is quantised, if the names of its neighbours show
/// one that is not read.
pub fn method(tensor: &str, has: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let stem = tensor.strip_suffix(".weight")?;
    let row = BESIDE.iter().find(|(endings, _)| endings.iter().any(|ending| has(&format!("{stem}{ending}"))));
    row.map(|(_, method)| *method)
}

/// The error of a quantised weight.
pub fn stored(what: &str, method: &str) -> Error {
    Error::unsupported(format!("{what}: the weight is quantised ({method})")).hint(HINT)
}

/// The settings of quantised weights in a config. Values that describe none are left to the table
/// of keys: leftovers without any packed weight, and values without a meaning.
///
/// # Errors
/// `unsupported` for settings that are not read.
pub fn settings(c: &Config) -> Result<Settings> {
    let Some((key, Value::Object(values))) = QUANTISED.into_iter().find_map(|key| Some((key, c.peek(key)?))) else {
        return Ok(Settings::default());
    };
    let mut values = whole(values);
    if At::NothingQuantised.accepts(&Value::Object(values.clone())) || !describes(&values) {
        return Ok(Settings::default());
    }
    let place = c.settings_place(key);
    if key == "quantization" {
        let bits = BITS.iter().find_map(|key| values.get(*key).and_then(Value::as_u64));
        let bits = bits.map_or(String::new(), |bits| format!(", {bits} bits"));
        return Err(Error::unsupported(format!("{place}: the weights are quantised (MLX{bits})")).hint(HINT));
    }
    // DeepSeek-V4 states the type of its experts in a key of its own.
    if let Some(experts) = c.get("expert_dtype") {
        values.entry("expert_dtype").or_insert_with(|| experts.clone());
    }
    let settings = Settings::parse(&values, place, None)?;
    // The key counts as read, whatever else it holds.
    c.without_effect(&QUANTISED);
    Ok(settings)
}

/// The settings with those of an object of their own that some versions of compressed-tensors
/// write: that of quantisation beside that of sparsity.
fn whole(values: &Map<String, Value>) -> Map<String, Value> {
    let Some(Value::Object(inner)) = values.get(QUANTISED[0]) else { return values.clone() };
    let mut all = inner.clone();
    for (key, value) in values.iter().filter(|(key, _)| *key != QUANTISED[0]) {
        all.entry(key).or_insert_with(|| value.clone());
    }
    all.entry("quant_method").or_insert_with(|| "compressed-tensors".into());
    all
}

/// Whether settings name a method, groups or bits.
fn describes(values: &Map<String, Value>) -> bool {
    let named = ["quant_method", "quant_algo", "config_groups"]
        .iter()
        .any(|key| values.get(*key).is_some_and(|v| !v.is_null()));
    let flag = |key: &&str| values.get(*key) == Some(&Value::Bool(true));
    named
        || BITS.iter().any(|key| values.get(*key).is_some_and(Value::is_u64))
        || ["load_in_4bit", "load_in_8bit"].iter().any(flag)
}
