//! Primitives of statistics and stored results, as scripts see them.

use super::primitive::{Area, Opt, Primitive, opt};

const MAGNITUDE: Opt =
    opt("magnitude_threshold", "float", "6.0", "|x| from which a value is a hit; a rung of the ladder");
const LAYERS: Opt = opt("min_layer_percentage", "float", "0.25", "share of layers that a feature must reach, 0 to 1");
const POSITIONS: Opt =
    opt("min_seq_percentage", "float", "0.06", "share of positions that a feature must reach, 0 to 1");
const UNIT: Opt =
    opt("layer_unit", "\"norm\" | \"block\"", "\"norm\"", "what a layer is: each norm, or each decoder layer");
const SCOPE: Opt = opt(
    "scope",
    "\"pooled\" | \"per_sequence\"",
    "\"pooled\"",
    "\"pooled\" asks once, over all sequences together; \"per_sequence\" asks for every sequence by itself and puts all answers into one \
     list, so that a feature stands there once for each sequence in which it passes",
);
const SKIP: Opt = opt("skip_positions", "int", "0", "1 leaves the first position of each sequence out");
const SYSTEMATIC: Opt = opt("systematic_layers", "float", "0.9", "layer share from which a feature is SYSTEMATIC");

/// Options of a criterion.
pub(super) const CRITERION: &[Opt] = &[MAGNITUDE, LAYERS, POSITIONS, UNIT, SCOPE, SKIP, SYSTEMATIC];
/// Options of resampling.
pub(super) const RESAMPLES: [Opt; 4] = [
    opt("n_resamples", "int", "10000", "number of resamples"),
    opt("confidence_level", "float", "0.95", "between 0 and 1"),
    opt("method", "\"percentile\" | \"bca\"", "\"bca\"", "percentile is used where BCa is undefined"),
    opt("seed", "int", "a fixed one", "equal seeds give equal intervals"),
];
/// Options of both.
pub(super) const BOOTSTRAP: &[Opt] = &[
    MAGNITUDE,
    LAYERS,
    POSITIONS,
    UNIT,
    SCOPE,
    SKIP,
    SYSTEMATIC,
    RESAMPLES[0],
    RESAMPLES[1],
    RESAMPLES[2],
    RESAMPLES[3],
];

/// Saving comes before loading.
pub(super) const STORED: Area = Area {
    title: "Results",
    about: "Folders below results/: one per analysis.",
    primitives: &[
        Primitive {
            name: "save_results",
            signatures: &["save_results(name: string, options: map) -> string"],
            summary: "Writes results/<name>/ and gives its path. The folder is replaced as a whole: the earlier analysis is there until the new \
                      one is. An absolute path, or one that begins with ~/, is a place of its own, which `outlier run --allow-write DIR` must allow.",
            options: &[
                opt("activations", "activations", "", "what extract_layernorms returned"),
                opt("found", "detection", "", "what detect_outliers returned"),
                opt("intervals", "intervals", "", "what bootstrap_ci returned"),
                opt("settings", "map", "#{}", "notes of your own"),
            ],
            example: r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));
print(save_results("first", #{ activations: acts, found: acts.detect_outliers() }));"#,
        },
        Primitive {
            name: "load_results",
            signatures: &["load_results(path: string) -> results"],
            summary: "Reads a folder below results/ back. What it gives answers detect_outliers and bootstrap_ci without the model. Options \
                      that are left out are the defaults then, as on fresh activations; the criterion that was stored is \
                      `found.criterion`, and stored.detect_outliers(stored.found.criterion) applies it again. `outlier rethreshold` \
                      keeps it instead. Answers that the record does not give were changed in their file: that is told, and the \
                      record's own are given.",
            options: &[],
            example: r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));
save_results("first", #{ activations: acts, found: acts.detect_outliers() });
let stored = load_results("first");
print(stored.detect_outliers(#{ magnitude_threshold: 3.0 }).num_features);"#,
        },
        Primitive {
            name: "has_results",
            signatures: &["has_results(path: string) -> bool"],
            summary: "Whether a finished analysis of this name is stored.",
            options: &[],
            example: r#"if !has_results("not_made_yet") { print("not yet"); }"#,
        },
    ],
};

pub(super) const STATISTICS: Area = Area {
    title: "Statistics",
    about: "On fresh and on stored activations. A new threshold needs no model.",
    primitives: &[
        Primitive {
            name: "detect_outliers",
            signatures: &[
                "detect_outliers(acts: activations, options?: map) -> detection",
                "detect_outliers(stored: results, options?: map) -> detection",
            ],
            summary: "The features that pass the criterion of Dettmers et al. 2022, with their shares of layers and positions, extremes, \
                      and classes.",
            options: CRITERION,
            example: r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));
for threshold in [3.0, 4.0, 6.0] {
    let found = acts.detect_outliers(#{ magnitude_threshold: threshold });
    print(`${threshold}: ${format_count(found.num_features, "feature")}, ${found.classification}`);
}"#,
        },
        Primitive {
            name: "bootstrap_ci",
            signatures: &[
                "bootstrap_ci(acts: activations, options?: map) -> intervals",
                "bootstrap_ci(stored: results, options?: map) -> intervals",
            ],
            summary: "Intervals of what detect_outliers finds, by resampling whole sequences, and how often the class held.",
            options: BOOTSTRAP,
            example: r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] }));
let ci = acts.bootstrap_ci(#{ magnitude_threshold: 3.0, n_resamples: 200 });
print(`features: ${ci.num_features.low} to ${ci.num_features.high}`);"#,
        },
    ],
};
