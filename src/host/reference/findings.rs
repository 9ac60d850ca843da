//! Primitives for further analysis of records: sweeps of criteria, significance tests, figures,
//! tables and files.

use super::primitive::{Area, Opt, Primitive, opt};
use super::results::{CRITERION, RESAMPLES};

const TEST_RESAMPLES: Opt =
    opt("n_resamples", "int", "100000", "permutations drawn; where there are no more in all, each is taken once");
/// For a curve or for many criteria, which need fewer resamples than the intervals of a result.
const FEWER: Opt = opt("n_resamples", "int", "1000", "number of resamples");
/// As `BOOTSTRAP`, for the sizes of a sample.
const OF_SIZES: &[Opt] = &[
    CRITERION[0],
    CRITERION[1],
    CRITERION[2],
    CRITERION[3],
    CRITERION[4],
    CRITERION[5],
    CRITERION[6],
    FEWER,
    RESAMPLES[1],
    RESAMPLES[2],
    RESAMPLES[3],
];
const ALTERNATIVE: Opt =
    opt("alternative", "\"two-sided\" | \"greater\" | \"less\"", "\"two-sided\"", "what is held against chance");
const SEED: Opt = opt("seed", "int", "a fixed one", "equal seeds give equal p-values");
const SKIP: Opt = opt("skip_positions", "int", "0", "1 leaves the first position of each sequence out");
const COLUMNS: Opt =
    opt("columns", "int", "256, or 1024 for heat_map_data", "columns that features are put together in");

const MAGNITUDES: Opt = opt("magnitude_threshold", "float | array", "6.0", "one value or several");
const LAYERS: Opt = opt("min_layer_percentage", "float | array", "0.25", "one value or several");
const POSITIONS: Opt = opt("min_seq_percentage", "float | array", "0.06", "one value or several");
const UNITS: Opt = opt("layer_unit", "string | array", "\"norm\"", "\"norm\", \"block\" or both");
const SKIPS: Opt = opt("skip_positions", "int | array", "0", "0, 1 or both");
const SYSTEMATIC: Opt = opt("systematic_layers", "float | array", "0.9", "one value or several");

/// The fixed options of an index: layer unit, scope, skipped positions.
const FIXED: &[Opt] = &[CRITERION[3], CRITERION[4], CRITERION[5]];

/// The record parameter.
macro_rules! acts {
    ($rest:literal) => {
        concat!(
            "let model = load_model(\"examples/shakespeare-olmoe\");\n",
            "let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });\n",
            "let acts = model.extract_layernorms(tokens, #{ logits: true });\n",
            $rest
        )
    };
}

const fn row(
    name: &'static str,
    signatures: &'static [&'static str],
    summary: &'static str,
    options: &'static [Opt],
    example: &'static str,
) -> Primitive {
    Primitive { name, signatures, summary, options, example }
}

pub(super) const LOOKING: Area = Area {
    title: "Looking further",
    about: "More questions to one record, without another pass.",
    primitives: &[
        row(
            "sweep_criteria",
            &[
                "sweep_criteria(acts: activations, options: map) -> array",
                "sweep_criteria(stored: results, options: map) -> array",
            ],
            "Every combination of the values given, each with its bootstrap: one row per criterion.",
            &[MAGNITUDES, LAYERS, POSITIONS, UNITS, SKIPS, SYSTEMATIC, FEWER, RESAMPLES[1], RESAMPLES[2], RESAMPLES[3]],
            acts!("print(acts.sweep_criteria(#{ magnitude_threshold: [3.0, 4.0], n_resamples: 100 }).len());"),
        ),
        row(
            "threshold_index",
            &[
                "threshold_index(acts: activations, options?: map) -> index",
                "threshold_index(stored: results, options?: map) -> index",
            ],
            "The record arranged for loops over criteria: count_features and feature_dims then take microseconds. Options fix what \
             the loop does not change. Thresholds are rungs of the ladder, which `acts.ladder` lists; between two of them there is an \
             answer only where both bounds agree (`thresholds` of extract_layernorms adds rungs).",
            FIXED,
            acts!(
                r#"let index = acts.threshold_index();
for threshold in acts.ladder {
    if index.count_features(threshold, 0.25, 0.06) == 0 { print(`nothing passes at ${threshold}`); break; }
}"#
            ),
        ),
        row(
            "count_features",
            &["count_features(index: index, magnitude_threshold: float, min_layer_percentage: float, \
               min_seq_percentage: float) -> int"],
            "How many features pass at this criterion: `num_features` of detect_outliers. An error where a threshold between two rungs \
             leaves that open.",
            &[],
            acts!("print(acts.threshold_index().count_features(3.0, 0.25, 0.06));"),
        ),
        row(
            "feature_dims",
            &["feature_dims(index: index, magnitude_threshold: float, min_layer_percentage: float, \
               min_seq_percentage: float) -> array"],
            "The dimensions that pass at this criterion, largest magnitude first. An error as of count_features.",
            &[],
            acts!("print(acts.threshold_index(#{ layer_unit: \"block\" }).feature_dims(3.0, 0.25, 0.06));"),
        ),
        row(
            "sequences_needed",
            &[
                "sequences_needed(acts: activations, options?: map) -> map",
                "sequences_needed(stored: results, options?: map) -> map",
            ],
            "How far the classification depends on the number of sequences, and how many would decide it.",
            OF_SIZES,
            acts!("print(acts.sequences_needed(#{ magnitude_threshold: 3.0, n_resamples: 100 }).sufficient);"),
        ),
        row(
            "per_sequence",
            &[
                "per_sequence(acts: activations, options?: map) -> array",
                "per_sequence(stored: results, options?: map) -> array",
            ],
            "The criterion within every sequence: one row each, for tests between models or settings.",
            CRITERION,
            acts!("print(acts.per_sequence(#{ magnitude_threshold: 3.0 }).map(|row| row.num_features));"),
        ),
        row(
            "layer_agreement",
            &["layer_agreement(found: map) -> float"],
            "Mean share of norms that pairs of passing features have in common, 0 to 1; () for fewer than two.",
            &[],
            acts!("print(layer_agreement(acts.detect_outliers(#{ magnitude_threshold: 3.0 })));"),
        ),
        row(
            "perplexity",
            &[
                "perplexity(model: model, tokens: tokens, options?: map) -> map",
                "perplexity(acts: activations, options?: map) -> map",
                "perplexity(stored: results, options?: map) -> map",
            ],
            "Perplexity of a model on tokens, in one pass, or of a record that was extracted with logits: true, with an interval over \
             sequences.",
            &[
                opt("memory_budget", "bytes", "\"1GiB\"", "of a model: workspace beside weights and hidden states"),
                RESAMPLES[0],
                RESAMPLES[1],
                RESAMPLES[2],
                RESAMPLES[3],
            ],
            acts!("print(acts.perplexity(#{ n_resamples: 100 }).perplexity.value);"),
        ),
    ],
};

pub(super) const CLAIMS: Area = Area {
    title: "Tests of claims",
    about: "Permutation tests on lists of numbers, with effect sizes.",
    primitives: &[
        row(
            "paired_test",
            &["paired_test(a: array, b: array, options?: map) -> map"],
            "Whether two lists with a value for each of the same sequences differ: permutation of signs, Cohen's d_z.",
            &[TEST_RESAMPLES, ALTERNATIVE, SEED],
            "print(paired_test([3.0, 4.0, 6.0], [1.0, 2.5, 3.0]).p_value);",
        ),
        row(
            "group_test",
            &["group_test(groups: array, options?: map) -> map"],
            "Whether groups of values differ in their mean: permutation of labels; Hedges' g for two groups, else eta squared.",
            &[TEST_RESAMPLES, ALTERNATIVE, SEED],
            "print(group_test([[3.0, 4.0, 6.0], [1.0, 2.5, 3.0]]).effect_size);",
        ),
        row(
            "correlation_test",
            &["correlation_test(x: array, y: array, options?: map) -> map"],
            "Whether two lists go together: permutation of pairs; Spearman's rho, or Pearson's r.",
            &[TEST_RESAMPLES, ALTERNATIVE, SEED, opt("ranks", "bool", "true", "false takes the values as they are")],
            "print(correlation_test([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 9.0]).p_value);",
        ),
        row(
            "adjust_p_values",
            &["adjust_p_values(p_values: array, method: string) -> array"],
            "p-values corrected for their number: \"holm\" or \"benjamini_hochberg\".",
            &[],
            "print(adjust_p_values([0.01, 0.04, 0.03], \"holm\"));",
        ),
    ],
};

pub(super) const FIGURES: Area = Area {
    title: "Figures",
    about: "The numbers that figures show, and the figures: maps with kind \"lines\", \"points\", \"bars\", \"intervals\" or \"heat_map\".",
    primitives: &[
        row(
            "heat_map",
            &["heat_map(acts: activations, options?: map) -> map", "heat_map(stored: results, options?: map) -> map"],
            "Largest |x| by norm and column of features: values[norm][column], feature_dims, norms, features_per_column.",
            &[COLUMNS, SKIP],
            acts!("print(acts.heat_map(#{ columns: 32 }).values.len());"),
        ),
        row(
            "heat_map_data",
            &[
                "heat_map_data(acts: activations, options?: map) -> map",
                "heat_map_data(stored: results, options?: map) -> map",
            ],
            "The same, fine and packed as base64 for a page to draw: one byte a cell on a logarithmic scale.",
            &[COLUMNS, SKIP],
            acts!("print(acts.heat_map_data().keys());"),
        ),
        row(
            "layer_profile",
            &[
                "layer_profile(acts: activations, dims: array, options?: map) -> array",
                "layer_profile(stored: results, dims: array, options?: map) -> array",
            ],
            "Largest |x| of features in every norm, one row each.",
            &[SKIP],
            acts!("print(acts.layer_profile([0, 1]).len());"),
        ),
        row(
            "magnitude_histogram",
            &[
                "magnitude_histogram(acts: activations, options?: map) -> array",
                "magnitude_histogram(stored: results, options?: map) -> array",
            ],
            "How many values lie between the rungs of the ladder.",
            &[SKIP],
            acts!("print(acts.magnitude_histogram().len() > 0);"),
        ),
        row(
            "svg",
            &["svg(figure: map) -> string"],
            "A figure as SVG text.",
            &[],
            "let text = svg(#{ kind: \"bars\", title: \"Two\", categories: [\"a\", \"b\"], groups: [#{ values: [1.0, 2.0] }] });\nprint(text.len() > 0);",
        ),
        row(
            "save_figure",
            &["save_figure(path: string, figure: map) -> string"],
            "A figure as a file below results/, SVG or PNG by its name.",
            &[],
            "save_figure(\"results/two.png\", #{\n    kind: \"bars\", title: \"Two\", categories: [\"a\", \"b\"], groups: [#{ values: [1.0, 2.0] }],\n});",
        ),
        row(
            "sparkline",
            &["sparkline(values: array) -> string"],
            "One character per number, for a look in the terminal.",
            &[],
            "print(sparkline([1.0, 5.0, 3.0]));",
        ),
        row(
            "bar_chart",
            &["bar_chart(names: array, values: array, width: int) -> string"],
            "One bar per line, the longest so many characters wide.",
            &[],
            "print(bar_chart([\"a\", \"b\"], [1.0, 2.0], 40));",
        ),
    ],
};

pub(super) const FILES: Area = Area {
    title: "Tables and files",
    about: "Files are written below results/ and logs/, whole or not at all.",
    primitives: &[
        row(
            "list_results",
            &["list_results() -> array"],
            "Names of all finished analyses below results/, sorted.",
            &[],
            "print(list_results());",
        ),
        row(
            "write_json",
            &["write_json(path: string, value: any) -> string"],
            "Writes a value as JSON and gives the path.",
            &[],
            "write_json(\"results/summary.json\", #{ models: 7 });",
        ),
        row(
            "write_text",
            &["write_text(path: string, text: string) -> string"],
            "Writes a text and gives the path.",
            &[],
            "write_text(\"results/note.md\", \"# Notes\");",
        ),
        row(
            "write_table",
            &[
                "write_table(path: string, rows: array) -> string",
                "write_table(path: string, columns: array, rows: array) -> string",
            ],
            "Writes rows (maps) as a table: CSV, Parquet or JSON by the name of the file.",
            &[],
            "write_table(\"results/summary.csv\", [#{ model: \"a\", features: 3 }]);",
        ),
        row(
            "export_tables",
            &["export_tables(stored: results, format: string) -> array"],
            "Writes every table of a stored analysis beside it, as \"csv\" or \"parquet\", and gives the paths.",
            &[],
            acts!(
                "save_results(\"exported\", #{ activations: acts, found: acts.detect_outliers() });\nprint(load_results(\"exported\").export_tables(\"csv\").len());"
            ),
        ),
        row(
            "stdlib_json",
            &["stdlib_json(name: string) -> any"],
            "A data file of the standard library as a value; one in the project's stdlib/ wins.",
            &[],
            "print(type_of(stdlib_json(\"published.json\")));",
        ),
        row(
            "stdlib_text",
            &["stdlib_text(name: string) -> string"],
            "A data file of the standard library as text; one in the project's stdlib/ wins.",
            &[],
            "print(stdlib_text(\"report.html\").len() > 0);",
        ),
        row(
            "html_table",
            &["html_table(columns: array, rows: array) -> string"],
            "Rows as a table for a web page.",
            &[],
            "print(html_table([\"model\", \"features\"], [#{ model: \"a\", features: 3 }]));",
        ),
        row(
            "markdown_table",
            &["markdown_table(columns: array, rows: array) -> string"],
            "Rows as a table in Markdown.",
            &[],
            "print(markdown_table([\"model\", \"features\"], [#{ model: \"a\", features: 3 }]));",
        ),
        row(
            "escape_html",
            &["escape_html(text: string) -> string"],
            "A text as it stands in a web page.",
            &[],
            "print(escape_html(\"a < b\"));",
        ),
    ],
};
