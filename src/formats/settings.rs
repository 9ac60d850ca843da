//! The settings of quantised weights in a config, in the spellings of the programs that write them.
//!
//! The program takes from the settings only what the tensors cannot tell, and refuses settings that
//! contradict the tensors. Lists of modules that are not quantised matter only where there is a
//! config alone: otherwise the tensors tell how each weight is stored.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::modules::{Modules, parts, spellings};
use crate::error::{Error, Result};
use crate::plain::plain;

/// The advice about quantised weights that are not read.
pub const HINT: &str = "the files are good, but of quantised weights only those that docs/quantised.md lists are read: use this model's \
                        release in one of these formats or in BF16, F16 or F32, or dequantise it in Python and save that";

/// Files beside config.json that describe quantised weights, the key inside each, if there is one,
/// and the method that writes it.
pub const BESIDE_CONFIG: &[(&str, Option<&str>, &str)] =
    &[("hf_quant_config.json", Some("quantization"), "modelopt"), ("quantize_config.json", None, "gptq")];

/// The values of `quant_method` whose weights are read.
const METHODS: &[&str] =
    &["auto-round", "awq", "bitsandbytes", "compressed-tensors", "fbgemm_fp8", "fp8", "gptq", "modelopt", "mxfp4"];

/// Widths of integers in bits that are read. No code of these widths crosses a word.
pub(super) const BITS: [usize; 3] = [2, 4, 8];

/// AutoRound's names of the layouts of GPTQ and AWQ.
const AUTO_ROUND: &[&str] = &["auto_round:auto_gptq", "auto_gptq", "auto_round:auto_awq", "auto_awq"];

/// Formats of compressed-tensors that are read.
const CT_FORMATS: &[&str] = &[
    "dense",
    "float-quantized",
    "int-quantized",
    "mixed-precision",
    "mxfp4-pack-quantized",
    "mxfp8-quantized",
    "naive-quantized",
    "nvfp4-pack-quantized",
    "pack-quantized",
];

/// Algorithms of ModelOpt that are read.
const MODELOPT: &[&str] = &[
    "FP8",
    "FP8_PB_REAL",
    "FP8_PB_WO",
    "FP8_PER_CHANNEL_PER_TOKEN",
    "MIXED_PRECISION",
    "MXFP4",
    "MXFP8",
    "NVFP4",
    "W4A16_NVFP4",
    "W4A8_MXFP4_FP8",
    "W4A8_NVFP4_FP8",
];

/// Spellings of the one FP8 type of weights.
const E4M3: &[&str] = &["e4m3", "e4m3fn", "float8_e4m3fn"];

/// Lists of modules that are left plain.
const PLAIN: &[&str] =
    &["modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules", "llm_int8_skip_modules"];

/// Keys of the version of GPTQ's format, and of the format that GPTQModel writes for other methods.
const CHECKPOINT_FORMAT: [&str; 2] = ["checkpoint_format", "format"];

/// Number of characters of a value that a message shows.
const SHOWN: usize = 60;

/// The settings of quantised weights in a config. They are empty where the config has none.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The file and the key, for messages.
    place: String,
    values: Map<String, Value>,
    method: Option<String>,
    groups: Vec<Group>,
    /// Modules whose weights a release leaves plain.
    plain: Modules,
    /// ModelOpt's algorithm for a layer where algorithms are mixed.
    algorithms: HashMap<String, String>,
}

/// The settings of some of the modules (compressed-tensors, ModelOpt).
#[derive(Clone, Debug)]
pub struct Group {
    /// The classes and modules that the group applies to.
    targets: Modules,
    /// The name of the layout in compressed-tensors, where groups have their own.
    pub format: Option<String>,
    /// The settings of the weights.
    weights: Map<String, Value>,
}

impl Group {
    pub fn number(&self, key: &str) -> Option<usize> {
        self.weights.get(key)?.as_u64().and_then(|n| usize::try_from(n).ok())
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.weights.get(key)?.as_str()
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.weights.get(key)?.as_bool()
    }

    /// The numbers of a list, or of a text with an "x" between them.
    pub fn numbers(&self, key: &str) -> Option<Vec<usize>> {
        numbers(self.weights.get(key)?)
    }
}

fn numbers(value: &Value) -> Option<Vec<usize>> {
    match value {
        Value::Array(list) => list.iter().map(|n| n.as_u64().and_then(|n| usize::try_from(n).ok())).collect(),
        Value::String(text) => text.split('x').map(|n| n.trim().parse().ok()).collect(),
        _ => None,
    }
}

/// Modules that stay plain because of settings of their own: GPTQModel has patterns for them, and
/// AutoRound gives them as many bits as a plain number has.
fn exceptions(values: &Map<String, Value>) -> Vec<Value> {
    let map = |key: &str| values.get(key).and_then(Value::as_object).into_iter().flatten();
    let patterns = map("dynamic").filter_map(|(key, _)| Some(format!("re:{}", key.strip_prefix("-:")?).into()));
    let wide = |own: &Value| own.get("bits").and_then(Value::as_u64).is_some_and(|bits| bits >= 16);
    patterns.chain(map("extra_config").filter(|(_, own)| wide(own)).map(|(key, _)| key.as_str().into())).collect()
}

impl Settings {
    /// Parses the settings under a key of config.json or in a file beside it; `place` names both in
    /// messages. `method` is the method of settings that do not name one.
    ///
    /// # Errors
    /// `unsupported` for a method, or a variant of it, that is not read.
    pub fn parse(values: &Map<String, Value>, place: String, method: Option<&str>) -> Result<Self> {
        let text = |key: &str| values.get(key).and_then(Value::as_str);
        let by_algorithm = text("quant_algo").map(|_| "modelopt");
        let by_flag = ["load_in_4bit", "load_in_8bit"].iter().any(|key| values.get(*key) == Some(&Value::Bool(true)));
        let by_flag = by_flag.then_some("bitsandbytes");
        let method = text("quant_method").or(by_algorithm).or(by_flag).or(method).map(|method| {
            let method = method.to_ascii_lowercase().replace('_', "-");
            // ModelOpt appends the algorithm to its name.
            let modelopt = method == "modelopt" || method.starts_with("modelopt-");
            match &method[..] {
                "fbgemm-fp8" => "fbgemm_fp8".to_string(),
                "intel/auto-round" => "auto-round".to_string(),
                _ if modelopt => "modelopt".to_string(),
                _ => method,
            }
        });
        let object = |value: &Value, key: &str| value.get(key).and_then(Value::as_object).cloned();
        let group = |value: &Value| Group {
            targets: Modules::of(list(value.get("targets"))),
            format: value.get("format").and_then(Value::as_str).map(str::to_string),
            weights: object(value, "weights").unwrap_or_default(),
        };
        let groups = values.get("config_groups").and_then(Value::as_object);
        let groups = groups.map(|groups| groups.values().map(group).collect()).unwrap_or_default();
        let exceptions = exceptions(values);
        let plain = Modules::of(PLAIN.iter().flat_map(|key| list(values.get(*key))).chain(&exceptions));
        let layers = values.get("quantized_layers").and_then(Value::as_object).into_iter().flatten();
        let algorithm =
            |(name, layer): (&String, &Value)| Some((name.clone(), layer.get("quant_algo")?.as_str()?.to_string()));
        let algorithms = layers.filter_map(algorithm).collect();
        let settings = Self { place, values: values.clone(), method, groups, plain, algorithms };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        let Some(method) = &self.method else {
            return Err(self.refused("name no `quant_method`"));
        };
        if !METHODS.contains(&&method[..]) {
            let read = METHODS.join(", ");
            return Err(self.refused(&format!("have `quant_method` \"{}\"; read are {read}", plain(method, SHOWN))));
        }
        let one_of = |key: &str, read: &[&str]| match self.text(key) {
            Some(value) if !read.contains(&value) => Err(self.wrong(key, value, read)),
            _ => Ok(()),
        };
        one_of("fmt", E4M3)?;
        if method == "compressed-tensors" {
            one_of("format", CT_FORMATS)?;
            for format in self.groups.iter().filter_map(|group| group.format.as_deref()) {
                if !CT_FORMATS.contains(&format) {
                    return Err(self.wrong("format", format, CT_FORMATS));
                }
            }
        }
        if method == "modelopt" {
            one_of("quant_algo", MODELOPT)?;
        }
        self.check_integers(method)?;
        for key in ["sparsity_config", "transform_config"] {
            let Some(Value::Object(map)) = self.values.get(key) else { continue };
            let dense = map.get("format").and_then(Value::as_str) == Some("dense");
            if !dense && map.values().any(|value| !nothing(value)) {
                return Err(self.refused(&format!("have a `{key}`, which changes the weights and is not read")));
            }
        }
        Ok(())
    }

    /// Refuses integers of other widths and layouts than those that are read.
    fn check_integers(&self, method: &str) -> Result<()> {
        let bits = |key: &str, bits: Option<usize>, read: &[usize]| match bits.filter(|bits| !read.contains(bits)) {
            Some(other) => {
                let read: Vec<String> = read.iter().map(usize::to_string).collect();
                Err(self.wrong(key, &other.to_string(), &read.iter().map(String::as_str).collect::<Vec<_>>()))
            }
            None => Ok(()),
        };
        let one_of = |key: &str, read: &[&str]| match self.text(key) {
            Some(value) if !read.iter().any(|name| name.eq_ignore_ascii_case(value)) => {
                Err(self.wrong(key, value, read))
            }
            _ => Ok(()),
        };
        match method {
            "compressed-tensors" => {
                let integers = self.groups.iter().filter(|group| group.text("type") == Some("int"));
                integers.map(|group| group.number("num_bits")).try_for_each(|found| bits("num_bits", found, &BITS))
            }
            "gptq" => {
                bits("bits", self.number("bits"), &BITS)?;
                if self.flag("is_marlin_format") == Some(true) {
                    return Err(
                        self.refused("have `is_marlin_format` true: codes in the order of a kernel are not read")
                    );
                }
                one_of("pack_dtype", &["int32"])?;
                CHECKPOINT_FORMAT.iter().try_for_each(|key| one_of(key, &["gptq", "gptq_v2"]))
            }
            "awq" => {
                bits("bits", self.number("bits"), &[4])?;
                one_of("version", &["gemm"])?;
                CHECKPOINT_FORMAT.iter().try_for_each(|key| one_of(key, &["gemm"]))
            }
            "auto-round" => {
                one_of("data_type", &["int"])?;
                one_of("packing_format", AUTO_ROUND)?;
                bits("bits", self.number("bits"), if self.is_packed_as("awq") { &[4] } else { &BITS })
            }
            _ => Ok(()),
        }
    }

    /// The error of settings that are not read. `problem` is a sentence's end whose subject is "the
    /// settings".
    pub fn refused(&self, problem: &str) -> Error {
        Error::unsupported(format!("{}: the weights are quantised, and their settings {problem}", self.place))
            .hint(HINT)
    }

    /// The error of a key with a value that is not read.
    pub fn wrong(&self, key: &str, value: &str, read: &[&str]) -> Error {
        self.refused(&format!("have `{key}` \"{}\"; read are {}", plain(value, SHOWN), read.join(", ")))
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    /// The method that made the weights, in one spelling: "fp8", "compressed-tensors", "modelopt".
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    pub fn is(&self, method: &str) -> bool {
        self.method() == Some(method)
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// A whole number. The value -1, which some programs write for "all", counts as none.
    pub fn number(&self, key: &str) -> Option<usize> {
        self.get(key)?.as_u64().and_then(|n| usize::try_from(n).ok())
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    pub fn numbers(&self, key: &str) -> Option<Vec<usize>> {
        numbers(self.get(key)?)
    }

    /// The version of GPTQ's format.
    pub fn checkpoint_format(&self) -> Option<&str> {
        CHECKPOINT_FORMAT.iter().find_map(|key| self.text(key))
    }

    /// Whether integers are packed as "gptq" or "awq" packs them, whatever program made them.
    pub fn is_packed_as(&self, layout: &str) -> bool {
        match self.text("packing_format") {
            _ if self.is(layout) => true,
            Some(format) => self.is("auto-round") && format.to_ascii_lowercase().ends_with(layout),
            None => self.is("auto-round") && layout == "gptq",
        }
    }

    /// Every number under this key at any depth, because lists of exceptions have many spellings.
    pub fn every(&self, key: &str) -> Vec<i64> {
        fn collect(value: &Value, key: &str, found: &mut Vec<i64>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get(key).and_then(Value::as_i64));
                    map.values().for_each(|value| collect(value, key, found));
                }
                Value::Array(list) => list.iter().for_each(|value| collect(value, key, found)),
                _ => (),
            }
        }
        let mut found: Vec<i64> = self.values.get(key).and_then(Value::as_i64).into_iter().collect();
        self.values.values().for_each(|value| collect(value, key, &mut found));
        found
    }

    /// The group of a module: the first that names it, otherwise the first that applies to all.
    pub fn group(&self, module: &str) -> Option<&Group> {
        let all = |group: &&Group| group.targets.is_empty() || group.targets.names("Linear");
        self.groups.iter().find(|group| group.targets.mean(module)).or_else(|| self.groups.iter().find(all))
    }

    /// The name of the layout of a module's weight in compressed-tensors.
    pub fn format(&self, module: &str) -> Option<&str> {
        self.group(module).and_then(|group| group.format.as_deref()).or_else(|| self.text("format"))
    }

    /// ModelOpt's algorithm for a module. It is that of the layer where algorithms are mixed.
    pub fn algorithm(&self, module: &str) -> Option<&str> {
        let known = |module: &String| parts(module).find_map(|part| self.algorithms.get(part)).map(String::as_str);
        let mixed = if self.algorithms.is_empty() { None } else { spellings(module).iter().find_map(known) };
        mixed.or_else(|| self.text("quant_algo").filter(|algorithm| *algorithm != "MIXED_PRECISION"))
    }

    /// Whether a release leaves the weight of this module plain, as far as its lists tell.
    pub fn leaves_plain(&self, module: &str) -> bool {
        self.method.is_none() || self.plain.mean(module)
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether a setting has no value at any depth.
fn nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.values().all(nothing),
        Value::Array(list) => list.iter().all(nothing),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(value: Value) -> Result<Settings> {
        Settings::parse(value.as_object().unwrap(), "config.json: `quantization_config`".into(), None)
    }

    #[test]
    fn lists_of_modules_in_all_spellings() {
        for (key, entry, module, plain) in [
            ("modules_to_not_convert", "gate", "model.layers.0.mlp.gate", true),
            ("modules_to_not_convert", "gate", "model.layers.0.mlp.gate_proj", false),
            ("modules_to_not_convert", "model.language_model.layers.0.mlp.gate", "model.layers.0.mlp.gate", true),
            ("ignored_layers", "lm_head", "lm_head", true),
            ("ignore", "re:.*self_attn.*", "model.layers.0.self_attn.q_proj", true),
            ("ignore", "re:self_attn", "model.layers.0.self_attn.q_proj", false),
            ("exclude_modules", "model.layers.0.self_attn*", "model.layers.0.self_attn.q_proj", true),
            ("exclude_modules", "model.layers.1.self_attn*", "model.layers.11.self_attn.q_proj", false),
            ("ignore", "model.layers.1", "model.layers.11.self_attn.q_proj", false),
            ("ignore", "model.layers.1", "model.layers.1.self_attn.q_proj", true),
        ] {
            let settings = settings(json!({ "quant_method": "fp8", key: [entry] })).unwrap();
            assert_eq!(settings.leaves_plain(module), plain, "{key} {entry} {module}");
        }
    }

    #[test]
    fn groups_by_name_before_classes() {
        let settings = settings(json!({
            "quant_method": "compressed-tensors",
            "config_groups": {
                "a": { "targets": ["Linear"], "weights": { "num_bits": 8 } },
                "b": { "targets": ["re:.*down_proj"], "weights": { "num_bits": 4, "block_structure": "128x64" } },
            },
        }));
        let settings = settings.unwrap();
        assert_eq!(settings.group("model.layers.0.mlp.up_proj").unwrap().number("num_bits"), Some(8));
        let group = settings.group("model.layers.0.mlp.down_proj").unwrap();
        assert_eq!((group.number("num_bits"), group.numbers("block_structure")), (Some(4), Some(vec![128, 64])));
    }

    #[test]
    fn what_changes_the_weights_is_refused_and_what_is_empty_is_not() {
        let with = |key: &str, value: Value| settings(json!({ "quant_method": "compressed-tensors", key: value }));
        assert!(with("sparsity_config", json!({})).is_ok());
        assert!(with("sparsity_config", json!({ "format": "dense", "global_sparsity": 0.1 })).is_ok());
        assert!(with("transform_config", json!({ "config_groups": {} })).is_ok());
        let rotated =
            with("transform_config", json!({ "config_groups": { "u": { "type": "hadamard" } } })).unwrap_err();
        assert!(rotated.message.contains("`transform_config`"), "{rotated}");
        let sparse = with("format", json!("marlin-24")).unwrap_err();
        assert!(sparse.message.contains("`format` \"marlin-24\""), "{sparse}");
        let unknown = settings(json!({ "quant_method": "aqlm" })).unwrap_err();
        assert!(unknown.message.contains("`quant_method` \"aqlm\""), "{unknown}");
        let e5m2 = settings(json!({ "quant_method": "fp8", "fmt": "e5m2" })).unwrap_err();
        assert!(e5m2.message.contains("`fmt` \"e5m2\""), "{e5m2}");
    }
}
