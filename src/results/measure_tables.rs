//! Tables of what was measured beside outliers, a row for each place of a number.
//! docs/measures.md defines the columns.

use serde_json::json;

use super::rows::{Row, object, row};
use crate::record::{Activations, Site, SiteHits, TopValue, plain};
use crate::stats;

/// Names and rows of all tables; a table of nothing has no rows.
pub(super) fn of(acts: &Activations) -> Vec<(&'static str, Vec<Row>)> {
    vec![
        ("moments", acts.measures.moments.iter().map(|of| row(&stats::site_moments(of))).collect()),
        ("top_values", top_values(acts)),
        ("massive_activations", massive(acts)),
        ("residual_sinks", residual_sinks(acts)),
        ("attention_sinks", attention_sinks(acts)),
        ("expert_outputs", experts(acts)),
        ("quantisation_error", quantisation(acts)),
        ("super_weights", super_weights(acts)),
        ("hit_places", hit_places(acts)),
        ("token_hits", acts.measures.hits.iter().flat_map(|of| token_hits(acts, of)).collect()),
    ]
}

/// A row with the place of a value, each column behind a prefix.
fn place(value: &TopValue, prefix: &str) -> Row {
    row(value).into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)).collect()
}

fn at(layer: usize, site: Site) -> Row {
    object(json!({ "layer": layer, "site": site.name() }))
}

fn joined(parts: impl IntoIterator<Item = Row>) -> Row {
    parts.into_iter().flatten().collect()
}

fn top_values(acts: &Activations) -> Vec<Row> {
    let of_site = |top: &crate::record::Top| -> Vec<Row> {
        top.values.iter().map(|value| joined([at(top.at.layer, top.at.site), place(value, "")])).collect()
    };
    acts.measures.top.iter().flat_map(of_site).collect()
}

fn massive(acts: &Activations) -> Vec<Row> {
    let rows = acts.measures.massive.iter().flat_map(|of| {
        of.activations.iter().map(|found| {
            let counts = json!({
                "layer": of.layer, "above": found.rule.above, "ratio": found.rule.ratio,
                "median_over": plain(&found.median_over), "count": found.count, "tokens": found.tokens,
            });
            let largest = found.top.first().map(|top| {
                joined([place(&top.at, "largest_"), object(json!({ "largest_ratio": plain(&f64::from(top.ratio)) }))])
            });
            joined([object(counts), largest.unwrap_or_default()])
        })
    });
    rows.collect()
}

fn residual_sinks(acts: &Activations) -> Vec<Row> {
    let rows = acts.measures.massive.iter().flat_map(|of| {
        let of_factor = move |sinks: &crate::record::ResidualSinks| -> Vec<Row> {
            let factor = object(json!({ "layer": of.layer, "factor": sinks.factor }));
            sinks.dims.iter().map(|dim| joined([factor.clone(), row(dim)])).collect()
        };
        of.sinks.iter().flat_map(of_factor)
    });
    rows.collect()
}

/// A row for each layer and number of positions, with the share of heads whose sink is position 0.
fn attention_sinks(acts: &Activations) -> Vec<Row> {
    let share =
        |count: u64, of: &crate::record::AttentionSinks| count as f64 / ((of.sequences * of.heads).max(1)) as f64;
    let of_layer = |of: &crate::record::AttentionSinks| {
        let first = of.above.first().copied().unwrap_or(0);
        object(json!({
            "layer": of.layer, "positions": of.positions, "sequences": of.sequences, "heads": of.heads,
            "first_position_rate": share(first, of), "any_position_rate": share(of.any_above, of), "top1_mean": plain(&of.top1_mean),
        }))
    };
    acts.measures.attention_sinks.iter().map(of_layer).collect()
}

fn experts(acts: &Activations) -> Vec<Row> {
    let supers = stats::super_experts(acts);
    let rows = acts.measures.experts.iter().flat_map(|of| {
        let supers = &supers;
        (0..of.tokens.len()).map(move |expert| {
            let is_super = supers.iter().any(|found| (found.layer, found.expert) == (of.layer, expert));
            object(json!({
                "layer": of.layer, "expert": expert, "tokens": of.tokens[expert], "gate_mass": plain(&of.gate_mass.get(expert)),
                "output_absmax": plain(&of.output_absmax.get(expert)), "reap": plain(&of.reap.get(expert)),
                "reap_softmax": plain(&of.reap_softmax.get(expert)), "super_expert": is_super,
            }))
        })
    });
    rows.collect()
}

fn quantisation(acts: &Activations) -> Vec<Row> {
    let rows = acts.measures.quantisation_error.iter().flat_map(|of| {
        of.formats.iter().map(|format| {
            let energy = json!({
                "dims_energy": plain(&of.dims_energy), "columns": of.columns, "columns_energy": plain(&of.columns_energy),
            });
            joined([at(of.at.layer, of.at.site), row(format), object(energy)])
        })
    });
    rows.collect()
}

fn super_weights(acts: &Activations) -> Vec<Row> {
    let of_layer = |found: &stats::SuperWeightFound| {
        let of = &found.of;
        let weight = json!({
            "layer": of.layer, "expert": of.expert, "row": of.output.dim, "column": of.input.dim,
            "weight": plain(&of.weight), "share": plain(&of.share), "candidate": found.candidate,
        });
        joined([object(weight), place(&of.input, "input_"), place(&of.output, "output_")])
    };
    stats::super_weights(acts).iter().map(of_layer).collect()
}

/// A row for each feature and site; for each kind of tokens the share of them that is hit.
fn hit_places(acts: &Activations) -> Vec<Row> {
    let of_feature = |of: &stats::HitPlaces| {
        let mut all = row(of);
        all.remove("kinds");
        for kind in &of.kinds {
            let name = plain(&kind.kind);
            let share = kind.hit as f64 / kind.tokens.max(1) as f64;
            all.insert(format!("share_of_{}", name.as_str().unwrap_or_default()), share.into());
        }
        all
    };
    stats::places(acts).iter().map(of_feature).collect()
}

fn token_hits(acts: &Activations, of: &SiteHits) -> Vec<Row> {
    let texts = acts.measures.token_texts.as_ref();
    let rows = of.dims.iter().flat_map(|dim| {
        let hits = &dim.tokens;
        hits.token.iter().enumerate().map(move |(i, token)| {
            let token = *token as usize;
            let layers = hits.rungs[i * of.layers.len()..][..of.layers.len()].iter().filter(|rungs| **rungs > 0).count();
            object(json!({
                "site": of.site.name(), "dim": dim.dim, "sequence": token / acts.sequence_length,
                "position": token % acts.sequence_length, "token_id": texts.and_then(|texts| texts.ids.get(token)),
                "token": texts.and_then(|texts| texts.of(token)), "value": plain(&hits.value[i]), "layer": hits.layer[i],
                "layers_hit": layers,
            }))
        })
    });
    rows.collect()
}
