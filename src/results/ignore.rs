//! Linear layers that a quantiser had better leave as they are: those whose inputs it would damage
//! most, and those that make the largest values of the model.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::record::{Activations, ModuleInput, QuantFormat, Site};
use crate::stats;

/// Which linear layers are left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IgnoreRule {
    pub format: QuantFormat,
    /// Layers are left out whose input has a larger relative error in this format.
    pub max_error: f64,
    /// Whether down projections with a super weight are left out, and super experts.
    pub super_weights: bool,
    pub super_experts: bool,
}

/// Names of linear layers as compressed-tensors' `ignore` takes them, with the reason for each. A
/// name that begins with `re:` is a regular expression.
///
/// # Errors
/// `not_found` if the record has no quantisation errors.
pub fn ignored(acts: &Activations, rule: &IgnoreRule) -> Result<BTreeMap<String, String>> {
    let measures = &acts.measures;
    if measures.quantisation_error.is_empty() {
        return Err(Error::not_found("export_ignore_recipe: the record has no quantisation errors").hint(
            "measure them: model.extract(tokens, #{ sites: [\"attn_in\", \"attn_out\", \"ffn_in\", \"ffn_mid\"], \
             observe: [\"quantisation_error\", \"super_weights\", \"experts\"] })",
        ));
    }
    let mut ignored = BTreeMap::new();
    // The first reason for a name is the one that is told.
    let mut leave = |name: String, reason: String| {
        ignored.entry(name).or_insert(reason);
    };
    let super_weights = stats::super_weights(acts);
    let down = |module: &&ModuleInput| matches!(module.at.site, Site::FfnMid);
    let in_layer = |layer: usize| measures.modules.iter().filter(move |module| module.at.layer == layer);
    for found in super_weights.iter().filter(|found| rule.super_weights && found.candidate) {
        let reason = format!("the weight [{}, {}] is a super weight", found.of.output.dim, found.of.input.dim);
        let names = in_layer(found.of.layer).filter(down).filter_map(|module| name(module, found.of.expert));
        names.for_each(|name| leave(name, reason.clone()));
    }
    for found in stats::super_experts(acts).iter().filter(|_| rule.super_experts) {
        let reason = format!("a super expert, whose largest output is {}", found.output_absmax);
        let routed = in_layer(found.layer).filter(|module| module.module.is_empty());
        let names = routed.filter_map(|module| name(module, Some(found.expert)));
        names.for_each(|name| leave(name, reason.clone()));
    }
    for module in &measures.modules {
        let Some(name) = name(module, None) else { continue };
        if module.at.site == Site::FinalNorm {
            leave(name, "the head".to_string());
        } else if module.gguf.contains("ffn_gate_inp") {
            leave(name, "a router".to_string());
        } else if let Some(error) = error_of(acts, module, rule.format).filter(|error| *error > rule.max_error) {
            leave(name, format!("its input has an error of {error:.2e}"));
        }
    }
    Ok(ignored)
}

/// The relative error of what a module reads.
fn error_of(acts: &Activations, module: &ModuleInput, format: QuantFormat) -> Option<f64> {
    let of_site = acts.measures.quantisation_error.iter().find(|of| of.at == module.at)?;
    of_site.formats.iter().find(|of| of.format == format).map(|of| f64::from(of.all))
}

/// The name of a module. A module of routed experts is that of one of them, or of all.
fn name(module: &ModuleInput, expert: Option<usize>) -> Option<String> {
    if !module.module.is_empty() {
        return Some(module.module.clone());
    }
    let routed = &module.routed;
    match (routed.split_once(ModuleInput::EXPERT), expert) {
        _ if routed.is_empty() => None,
        (None, _) => Some(routed.clone()),
        (Some((before, after)), Some(expert)) => Some(format!("{before}{expert}{after}")),
        (Some((before, after)), None) => {
            Some(format!("re:{}\\d+{}$", before.replace('.', "\\."), after.replace('.', "\\.")))
        }
    }
}

/// The list as a file: a JSON object with `ignore`, and `reasons` by name.
///
/// # Errors
/// Those of `ignored`.
pub fn ignore_recipe(acts: &Activations, rule: &IgnoreRule) -> Result<Vec<u8>> {
    let ignored = ignored(acts, rule)?;
    let names: Vec<&String> = ignored.keys().collect();
    let json: Value = json!({ "ignore": names, "reasons": ignored });
    let mut bytes = serde_json::to_vec_pretty(&json).expect("text is JSON");
    bytes.push(b'\n');
    Ok(bytes)
}
