//! Primitives that read what was measured beside the ladders of norms: at, measures, channels,
//! top_values, tokens_needed_per_expert.

use std::sync::Arc;

use rhai::{Dynamic, Engine};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::values::handles::{ActivationsHandle, RecordHandle, StoredHandle};
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::record::option::option_set;
use crate::record::option_types::{Choice, Optional, Positive, Whole, Word};
use crate::record::{Activations, Channels, Experts, Moments, QUANTILE_LEVELS, Site, TopValue, plain};
use crate::stats;
use crate::suggest;

/// A statistic of every channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ChannelStatistic {
    Absmax,
    AbsMean,
    Mean,
    Rms,
    Max,
    Min,
    Sum,
    Sum2,
    SumAbs,
    Sum3,
    Sum4,
}

impl Word for ChannelStatistic {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("absmax", Self::Absmax),
        ("absmean", Self::AbsMean),
        ("mean", Self::Mean),
        ("rms", Self::Rms),
        ("max", Self::Max),
        ("min", Self::Min),
        ("sum", Self::Sum),
        ("sum2", Self::Sum2),
        ("sumabs", Self::SumAbs),
        ("sum3", Self::Sum3),
        ("sum4", Self::Sum4),
    ];
}

option_set! {
    /// The options of channels.
    pub(crate) struct ChannelOptions {
        /// the site, by name: docs/sites.md
        site: Choice<Site>;
        /// the layer, from 0
        layer: Whole;
        /// what of each channel: docs/measures.md
        statistic: Choice<ChannelStatistic> = ChannelStatistic::Absmax;
        /// an expert, where a mixture has channels of its own in each
        expert: Optional<Whole>;
    }
}

option_set! {
    /// The options of top_values.
    pub(crate) struct TopOptions {
        /// one site only
        site: Optional<Choice<Site>>;
        /// one layer only
        layer: Optional<Whole>;
        /// one dimension only
        dim: Optional<Whole>;
        /// at most so many values
        n: Positive = 10;
        /// leaves so many first positions of each sequence out
        skip_positions: Whole = 0;
    }
}

pub(crate) const AT: Declared<NoOptions> = Declared::new(
    "at",
    &["at(acts: activations, site: string) -> activations", "at(stored: results, site: string) -> activations"],
    "The record of another site that `extract` has measured, for detect_outliers, bootstrap_ci and all other questions: \
     its units are the layers that have the site.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract(tokens, #{ sites: ["resid_post"] });
print(acts.at("resid_post").detect_outliers(#{ magnitude_threshold: 3.0 }).num_features);"#,
);

pub(crate) const MEASURES: Declared<NoOptions> = Declared::new(
    "measures",
    &["measures(acts: activations) -> map", "measures(stored: results) -> map"],
    "What was measured beside outliers, as lists of rows: moments, top, massive, attention_sinks, experts, super_experts, hits, quantisation_error, \
     super_weights, weights, attribution, quantiles. \
     docs/measures.md defines every number.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract(tokens, #{ observe: ["moments", "attention_sinks"] });
for row in acts.measures().moments { print(`layer ${row.layer}, ${row.site}: ${row.excess_kurtosis}`); }"#,
);

pub(crate) const CHANNELS: Declared<ChannelOptions> = Declared::new(
    "channels",
    &["channels(acts: activations, options: map) -> array", "channels(stored: results, options: map) -> array"],
    "A statistic of every channel of a site in a layer, from a record with `moments`.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract(tokens, #{ observe: ["moments"] });
print(acts.channels(#{ site: "attn_in", layer: 0, statistic: "absmax" }).len());"#,
);

pub(crate) const TOP_VALUES: Declared<TopOptions> = Declared::new(
    "top_values",
    &["top_values(acts: activations, options?: map) -> array", "top_values(stored: results, options?: map) -> array"],
    "The largest values of a record with `top`: value, layer, site, sequence, position, token_id, dim. A record keeps so many \
     of each site of a layer as the option `top` of extract says, 16 by default; with fewer left than were asked for, there \
     may be others that it does not have.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });
let acts = model.extract(tokens, #{ sites: ["resid_post"], observe: ["top"] });
for top in acts.top_values(#{ n: 3 }) { print(`${top.value} at position ${top.position} of dimension ${top.dim}`); }"#,
);

pub(crate) const TOKENS_NEEDED: Declared<NoOptions> = Declared::new(
    "tokens_needed_per_expert",
    &[
        "tokens_needed_per_expert(acts: activations, tokens: int) -> map",
        "tokens_needed_per_expert(stored: results, tokens: int) -> map",
    ],
    "How many tokens a text like the measured one must have until every expert has at least so many, for the expert that \
     is chosen least: on average (`expected`), and with a probability of 95 % (`likely`); and the experts without any.",
    r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] }), #{ logits: true });
print(acts.tokens_needed_per_expert(16).likely);"#,
);

pub(crate) fn register(engine: &mut Engine) {
    register_for::<ActivationsHandle>(engine);
    register_for::<StoredHandle>(engine);
    CHANNELS.register_on_records(engine, |acts, options| channels(acts, &options).map(|values| list(&values)));
    TOP_VALUES.register_on_records(engine, |acts, options| top_values(acts, &options).map(|rows| list(&rows)));
}

fn register_for<T: RecordHandle>(engine: &mut Engine) {
    engine.register_fn(AT.name(), |handle: T, site: &str| -> ScriptResult<ActivationsHandle> {
        thrown(at(handle.activations(), site).map(|acts| ActivationsHandle::new(Arc::new(acts))))
    });
    engine.register_fn(TOKENS_NEEDED.name(), |handle: T, tokens: i64| -> ScriptResult<Dynamic> {
        thrown(stats::tokens_needed_per_expert(handle.activations(), tokens).map(|needed| to_dynamic(&plain(&needed))))
    });
    engine.register_fn(MEASURES.name(), |handle: T| to_dynamic(&measures(handle.activations())));
}

pub(crate) fn list(rows: &impl serde::Serialize) -> Dynamic {
    to_dynamic(&plain(rows))
}

fn at(acts: &Activations, name: &str) -> Result<Activations> {
    let there: Vec<&str> = acts.sites.iter().map(|ladders| ladders.site.name()).collect();
    let Some(site) = Site::of_name(name) else {
        let known = Site::WORDS.iter().map(|(word, _)| *word);
        return Err(Error::bad_argument(format!("at: no site is called {name:?}")).hint(suggest::hint(name, known)));
    };
    if Site::NORMS.contains(&site) {
        return Err(Error::bad_argument(format!("at: {name} is one of the norms, which this record is about"))
            .hint("ask the record itself; its unit \"norm\" counts both norms of a layer"));
    }
    acts.at(site).ok_or_else(|| {
        let error = Error::not_found(format!("at: the record has no ladders of {name}"));
        match there.is_empty() {
            true => error.hint(format!(
                "measure it: model.extract(tokens, #{{ sites: [\"{name}\"] }}); rows of experts have none"
            )),
            false => error.hint(format!("it has those of {}", there.join(", "))),
        }
    })
}

/// Everything that is not one number per channel.
fn measures(acts: &Activations) -> Value {
    let measures = &acts.measures;
    let moments: Vec<_> = measures.moments.iter().map(stats::site_moments).collect();
    let rows =
        |top: &crate::record::Top| top.values.iter().map(|value| row(top.at.layer, top.at.site, value)).collect();
    let top: Vec<Value> = measures.top.iter().flat_map(|top| -> Vec<Value> { rows(top) }).collect();
    let light = |of: &Experts| Experts { coactivation: Vec::new(), input_sum2: Vec::new(), ..of.clone() };
    let experts: Vec<Value> = measures
        .experts
        .iter()
        .map(|of| {
            let mut json = plain(&light(of));
            if let Some(map) = json.as_object_mut() {
                map.remove("coactivation");
                map.remove("input_sum2");
            }
            json
        })
        .collect();
    json!({
        "version": measures.version,
        "moments": plain(&moments),
        "top": top,
        "massive": plain(&measures.massive),
        "attention_sinks": plain(&measures.attention_sinks),
        "experts": experts,
        "hits": hits(acts),
        "quantisation_error": plain(&measures.quantisation_error),
        "super_weights": plain(&stats::super_weights(acts)),
        "weights": plain(&measures.weights),
        "attribution": plain(&measures.attribution),
        "quantile_levels": QUANTILE_LEVELS,
        "quantiles": plain(&measures.quantiles),
        "unread_weights": plain(&measures.unread_weights),
        "super_experts": plain(&stats::super_experts(acts)),
    })
}

/// The features with hits by token, without the tokens.
fn hits(acts: &Activations) -> Value {
    let mut json = plain(&acts.measures.clone_light().hits);
    let sites = json.as_array_mut().into_iter().flatten();
    let dims = sites.filter_map(|of| of.get_mut("dims").and_then(Value::as_array_mut)).flatten();
    for dim in dims.filter_map(Value::as_object_mut) {
        dim.remove("tokens");
    }
    json
}

/// A value with its layer and site.
fn row(layer: usize, site: Site, value: &TopValue) -> Value {
    let mut json = plain(value);
    json["layer"] = layer.into();
    json["site"] = site.name().into();
    json
}

fn channels(acts: &Activations, options: &ChannelOptions) -> Result<Vec<f64>> {
    let ChannelOptions { site, layer, statistic, expert } = *options;
    let all = &acts.measures.moments;
    let Some(of) = all.iter().find(|of| of.at.site == site && of.at.layer == layer) else {
        let error =
            Error::not_found(format!("channels: the record has no moments of {} in layer {layer}", site.name()));
        return Err(match all.is_empty() {
            true => error.hint("measure them: model.extract(tokens, #{ observe: [\"moments\"] })"),
            false => error.hint("acts.measures().moments lists those that it has"),
        });
    };
    let group = match (expert, of.rows.len()) {
        (None, 1) => 0,
        (Some(expert), experts) if experts > 1 && expert < experts => expert,
        (Some(_), 1) => {
            return Err(Error::bad_argument(format!("channels: {} of layer {layer} has no experts", site.name()))
                .hint("leave `expert` out"));
        }
        (_, experts) => {
            return Err(Error::bad_argument(format!(
                "channels: {} of layer {layer} has channels in each of {experts} experts",
                site.name()
            ))
            .hint(format!("add expert: 0, or another up to {}", experts - 1)));
        }
    };
    Ok(of_channels(of, group, statistic))
}

fn of_channels(of: &Moments, group: usize, statistic: ChannelStatistic) -> Vec<f64> {
    let range = group * of.width..(group + 1) * of.width;
    let rows = of.rows.get(group).copied().unwrap_or(0).max(1) as f64;
    let Channels { max, min, sum, sum2, sumabs, sum3, sum4 } = &of.channels;
    let wide = |values: &[f32]| values[range.clone()].iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let mean = |sums: &[f64]| sums[range.clone()].iter().map(|sum| sum / rows).collect::<Vec<_>>();
    match statistic {
        ChannelStatistic::Absmax => {
            wide(max).iter().zip(wide(min)).map(|(max, min)| max.abs().max(min.abs())).collect()
        }
        ChannelStatistic::AbsMean => mean(sumabs),
        ChannelStatistic::Mean => mean(sum),
        ChannelStatistic::Rms => mean(sum2).into_iter().map(f64::sqrt).collect(),
        ChannelStatistic::Max => wide(max),
        ChannelStatistic::Min => wide(min),
        ChannelStatistic::Sum => sum[range].to_vec(),
        ChannelStatistic::Sum2 => sum2[range].to_vec(),
        ChannelStatistic::SumAbs => sumabs[range].to_vec(),
        ChannelStatistic::Sum3 => sum3[range].to_vec(),
        ChannelStatistic::Sum4 => sum4[range].to_vec(),
    }
}

/// Rejects layers and dimensions that no site of the record has: their list would be empty, as if
/// nothing were large there.
fn check_place(acts: &Activations, layer: Option<usize>, dim: Option<usize>) -> Result<()> {
    let tops = &acts.measures.top;
    if let Some(layer) = layer.filter(|layer| tops.iter().all(|top| top.at.layer != *layer)) {
        let last = tops.iter().map(|top| top.at.layer).max().unwrap_or(0);
        return Err(Error::bad_argument(format!("top_values: the record has no largest values of layer {layer}"))
            .hint(format!("layers are numbered from 0; the last one here is {last}")));
    }
    let width = acts.model.hidden_size;
    let wider = || tops.iter().flat_map(|top| &top.values).map(|value| value.dim).max().unwrap_or(0);
    match dim.filter(|dim| *dim >= width.max(wider() + 1)) {
        Some(dim) => Err(Error::bad_argument(format!("top_values: dimension {dim}: the model has {width}"))
            .hint("dimensions are numbered from 0")),
        None => Ok(()),
    }
}

fn top_values(acts: &Activations, options: &TopOptions) -> Result<Vec<Value>> {
    let TopOptions { site, layer, dim, n, skip_positions } = *options;
    if acts.measures.top.is_empty() {
        return Err(Error::not_found("top_values: the record has no largest values")
            .hint("measure them: model.extract(tokens, #{ observe: [\"top\"] })"));
    }
    check_place(acts, layer, dim)?;
    let tops = acts.measures.top.iter();
    let tops =
        tops.filter(|top| site.is_none_or(|site| top.at.site == site) && layer.is_none_or(|of| top.at.layer == of));
    let mut values: Vec<_> = tops.flat_map(|top| top.values.iter().map(move |value| (top.at, value))).collect();
    values.retain(|(_, value)| dim.is_none_or(|dim| value.dim == dim) && value.position >= skip_positions);
    values.sort_by(|(_, a), (_, b)| b.value.abs().total_cmp(&a.value.abs()));
    values.truncate(n);
    Ok(values.into_iter().map(|(at, value)| row(at.layer, at.site, value)).collect())
}
