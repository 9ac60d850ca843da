//! Quantised weights: MXFP4 of gpt-oss is read, all others are refused in words that say what they are and what to use instead.
//! Their files are good.

use serde_json::Value;

use super::config::Config;
use super::keys::At;
use crate::error::{Error, Result};
use crate::outside::shown;

/// The method whose weights are read, in models that are released so.
const READ: &str = "mxfp4";
/// Keys of config.json that describe quantised weights: of transformers, of compressed-tensors' early releases, and of MLX.
const KEYS: [&str; 3] = ["quantization_config", "compression_config", "quantization"];
/// Keys that tell the bits of a weight.
const BITS: [&str; 3] = ["bits", "num_bits", "w_bit"];

const HINT: &str = "the files are good, but of quantised weights only the MXFP4 of gpt-oss is read: use this model's release in BF16, F16 \
                    or F32 (mostly the same name without -GPTQ, -AWQ, -FP8, -4bit or the like), or dequantise it in Python and save that";

/// What stands beside a quantised weight: endings that take the place of `.weight`, and the method that writes them.
const BESIDE: &[(&[&str], &str)] = &[
    (&[".qweight"], "GPTQ or AWQ"),
    (&[".W_q"], "HQQ"),
    (&[".weight.absmax", ".weight.quant_map"], "bitsandbytes, 4 bits"),
    (&[".SCB", ".weight.SCB"], "bitsandbytes, 8 bits"),
    (&[".weight_packed"], "compressed-tensors"),
    (&[".weight_scale_inv", ".weight_scale"], "FP8"),
    (&[".scales"], "MLX"),
];

/// The method by which the weight of this name is quantised, if the names of its neighbours say so.
pub fn method(tensor: &str, has: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let stem = tensor.strip_suffix(".weight")?;
    let row = BESIDE.iter().find(|(endings, _)| endings.iter().any(|ending| has(&format!("{stem}{ending}"))));
    row.map(|(_, method)| *method)
}

/// The error of a quantised weight.
pub fn stored(what: &str, method: &str) -> Error {
    Error::unsupported(format!("{what}: the weight is quantised ({method})")).hint(HINT)
}

/// Refuses what a config says of quantised weights, except MXFP4 where `mxfp4` is read. What describes none is left to the table
/// of keys: leftovers with nothing packed, and values that make no sense.
pub fn refuse(c: &Config, mxfp4: bool) -> Result<()> {
    let described = KEYS.into_iter().find_map(|key| Some((key, c.peek(key)?)));
    let Some((key, settings)) = described else { return Ok(()) };
    let text = |key: &str| settings.get(key).and_then(Value::as_str);
    let method = text("quant_method").or(text("quant_algo"));
    if mxfp4 && method == Some(READ) || !mxfp4 && At::NothingQuantised.accepts(settings) {
        return Ok(());
    }
    let flag = |key: &str| settings.get(key) == Some(&Value::Bool(true));
    let bits = BITS.iter().find_map(|key| settings.get(key).and_then(Value::as_u64));
    let bits = bits.or(flag("load_in_4bit").then_some(4)).or(flag("load_in_8bit").then_some(8));
    if method.is_none() && bits.is_none() {
        return Ok(());
    }
    let method =
        method.map_or_else(|| if key == "quantization" { "MLX".into() } else { "no method named".into() }, shown);
    let bits = bits.map_or(String::new(), |bits| format!(", {bits} bits"));
    Err(Error::unsupported(format!("{}: the weights are quantised ({method}{bits})", c.place())).hint(HINT))
}
