//! Tests of options that a primitive does not have or cannot use: the error names each, and what
//! was probably meant.

use crate::project::Project;

/// Exit codes: a wrong script, and a model that cannot be analysed so.
const SCRIPT: i32 = 1;
const FAILED: i32 = 3;

/// What stands before the call under test: a model, tokens, and what comes of them.
const BEFORE: &str = r#"
let model = load_model("model");
let tokens = load_tokens(#{ ids: [[1, 2, 3, 4], [5, 6, 7, 8]] });
let acts = model.extract_layernorms(tokens);
let found = acts.detect_outliers();
"#;

fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    project
}

#[track_caller]
fn refuses(call: &str, code: i32, message: &str, hint: &str) {
    project().refuses(&format!("{BEFORE}{call};"), code, message, hint);
}

#[test]
fn bytes_beyond_all_measure() {
    for (given, message) in [
        ("\"99999999TB\"", "`memory_budget` is \"99999999TB\", expected a number of bytes"),
        ("\"99999999999999999999GB\"", "above 0, at most 1024TiB"),
        ("9223372036854775807", "above 0, at most 1024TiB"),
        ("0", "above 0, at most 1024TiB"),
        ("\"0\"", "above 0, at most 1024TiB"),
        ("-1", "above 0, at most 1024TiB"),
    ] {
        let call = format!("estimate_vram(\"model\", #{{ memory_budget: {given} }})");
        refuses(&call, SCRIPT, message, "`outlier doc estimate_vram` lists the options");
    }
}

#[test]
fn values_of_a_chart_that_have_no_bar_were_left_out() {
    for (call, message, hint) in [
        ("bar_chart([\"a\"], [1, 2], 10)", "bar_chart: 1 name and 2 values", "one value for each name"),
        ("bar_chart([\"a\", \"b\"], [1], 10)", "bar_chart: 2 names and 1 value", "one value for each name"),
        ("bar_chart([\"a\"], [\"x\"], 10)", "bar_chart: values[0] is \"x\", expected a number", "() stands for"),
        ("bar_chart([\"a\"], [1], -5)", "bar_chart: the width is -5, expected 1 to 500", "characters wide"),
        ("bar_chart([\"a\"], [1], 501)", "bar_chart: the width is 501, expected 1 to 500", "characters wide"),
        (
            "svg(#{ kind: \"bars\", title: \"t\", categories: [\"a\"], groups: [#{ name: \"g\", values: [1, 2] }] })",
            "bars \"t\": categories: 1, values of a group: 2",
            "give a category for each value",
        ),
    ] {
        refuses(call, SCRIPT, message, hint);
    }
    let script = "print(bar_chart([\"a\", \"b\", \"c\"], [1.0 / 0.0, (), -1.0 / 0.0], 4));";
    assert_eq!(Project::new().script(script).ok(), "a  inf\nb  NaN\nc  -inf\n\n");
}

#[test]
fn misspelt_options_of_every_primitive() {
    for (call, function, written, meant) in [
        ("load_model(\"model\", #{ dtyp: \"f32\" })", "load_model", "dtyp", "dtype"),
        ("load_tokens(#{ id: [[1]] })", "load_tokens", "id", "ids"),
        ("model.extract_layernorms(tokens, #{ treshold: 6.0 })", "extract_layernorms", "treshold", "thresholds"),
        (
            "acts.detect_outliers(#{ magnitude_treshold: 6.0 })",
            "detect_outliers",
            "magnitude_treshold",
            "magnitude_threshold",
        ),
        ("acts.bootstrap_ci(#{ n_resample: 10 })", "bootstrap_ci", "n_resample", "n_resamples"),
        ("save_results(\"x\", #{ activation: acts, found: found })", "save_results", "activation", "activations"),
        ("estimate_vram(\"model\", #{ sequence_lenght: 10 })", "estimate_vram", "sequence_lenght", "sequence_length"),
        ("parallel([1], #{ maxx: 2 }, |x| x)", "parallel", "maxx", "max"),
        ("args(#{ models: #{ defualt: [] } })", "args", "defualt", "default"),
    ] {
        refuses(call, SCRIPT, &format!("{function}: unknown option `{written}`"), &format!("did you mean `{meant}`?"));
    }
    // Nothing near: all are listed.
    let message = "extract_layernorms: unknown option `zebra`";
    refuses("model.extract_layernorms(tokens, #{ zebra: 1 })", SCRIPT, message, "known are `thresholds`, `keep`");
}

#[test]
fn options_of_the_wrong_type() {
    for (call, message) in [
        ("load_model(\"model\", #{ chunk_layers: 1.5 })", "`chunk_layers` is 1.5, expected a whole number"),
        ("load_model(\"model\", #{ chunk_layers: -1 })", "`chunk_layers` is -1, expected a whole number"),
        ("load_model(\"model\", #{ dtype: 32 })", "`dtype` is 32, expected \"f32\" or \"bf16\""),
        (
            "load_tokens(#{ text: \"a.txt\", model: \"model\", num_sequences: 1, sequence_length: 1 })",
            "`model` is \"model\", expected a model",
        ),
        ("model.extract_layernorms(tokens, #{ logits: \"yes\" })", "`logits` is \"yes\", expected true or false"),
        (
            "model.extract_layernorms(tokens, #{ thresholds: \"6.0\" })",
            "`thresholds` is \"6.0\", expected a number or an array of numbers",
        ),
        (
            "model.extract_layernorms(tokens, #{ memory_budget: \"2 parsec\" })",
            "`memory_budget` is \"2 parsec\", expected a number of bytes",
        ),
        ("acts.detect_outliers(#{ magnitude_threshold: \"6\" })", "`magnitude_threshold` is \"6\", expected a number"),
        ("acts.bootstrap_ci(#{ seed: -1 })", "`seed` is -1, expected a whole number"),
        ("save_results(\"x\", #{ activations: found, found: found })", "`activations` is"),
        ("save_results(\"x\", #{ activations: acts, found: 5 })", "`found` is not what detect_outliers returned"),
        ("save_results(\"x\", #{ activations: acts, found: found, settings: 5 })", "`settings` is 5, expected a map"),
        ("save_results(\"x\", #{ activations: acts, found: found, settings: #{ f: |x| x } })", "`settings` is"),
        ("parallel([1], #{ max: \"two\" }, |x| x)", "`max` is \"two\", expected a whole number"),
    ] {
        refuses(call, SCRIPT, message, "");
    }
    let call = "load_model(\"model\", #{ dtype: 32 })";
    refuses(call, SCRIPT, "expected \"f32\" or \"bf16\"", "`outlier doc load_model` lists the options");
}

#[test]
fn missing_options() {
    for (call, message) in [
        ("load_tokens(#{})", "load_tokens: neither `ids` nor `text` nor `dataset` is given"),
        ("load_tokens(#{ ids: [[1]], text: \"a.txt\" })", "load_tokens: give `ids` or `text`, not both"),
        (
            "load_tokens(#{ ids: [[1]], num_sequences: 1 })",
            "load_tokens: `num_sequences` goes with `text`, not with `ids`",
        ),
        (
            "load_tokens(#{ text: \"a.txt\", num_sequences: 1, sequence_length: 1 })",
            "load_tokens: option `model` is missing",
        ),
        (
            "load_tokens(#{ text: \"a.txt\", model: model, sequence_length: 1 })",
            "load_tokens: option `num_sequences` is missing",
        ),
        ("save_results(\"x\", #{ found: found })", "save_results: option `activations` is missing"),
        ("save_results(\"x\", #{ activations: acts })", "save_results: option `found` is missing"),
    ] {
        refuses(call, SCRIPT, message, "");
    }
}

#[test]
fn choices() {
    for (call, message, hint) in [
        ("load_model(\"model\", #{ dtype: \"fp32\" })", "load_model: `dtype` is \"fp32\"", "did you mean `f32`?"),
        ("load_model(\"model\", #{ dtype: \"int8\" })", "load_model: `dtype` is \"int8\"", "known are `f32`, `bf16`"),
        ("model.extract_layernorms(tokens, #{ keep: \"ful\" })", "`keep` is \"ful\"", "did you mean `full`?"),
        ("acts.detect_outliers(#{ layer_unit: \"blocks\" })", "`layer_unit` is \"blocks\"", "did you mean `block`?"),
        ("acts.detect_outliers(#{ scope: \"all\" })", "`scope` is \"all\"", "`pooled`"),
        ("acts.bootstrap_ci(#{ method: \"BCA\" })", "`method` is \"BCA\"", "did you mean `bca`?"),
    ] {
        refuses(call, SCRIPT, message, hint);
    }
    let message = "device \"tpu\" is unknown";
    refuses("load_model(\"model\", #{ device: \"tpu\" })", SCRIPT, message, "device is \"auto\"");
}

#[test]
fn numbers_out_of_range() {
    for (call, message, hint) in [
        (
            "load_model(\"model\", #{ chunk_layers: 0 })",
            "`chunk_layers` is 0, expected a whole number, 1 or more",
            "outlier doc load_model",
        ),
        ("parallel([1], #{ max: 0 }, |x| x)", "`max` is 0, expected a whole number, 1 or more", ""),
        ("acts.sweep_criteria(#{ magnitude_threshold: [] })", "a list of values is empty", "one value or more"),
        ("model.extract_layernorms(tokens, #{ thresholds: [0.0] })", "0 is not a positive number", "6.0"),
        ("model.extract_layernorms(tokens, #{ thresholds: [-6.0] })", "-6 is not a positive number", "6.0"),
        ("acts.detect_outliers(#{ magnitude_threshold: 0 })", "`magnitude_threshold` is 0.0", "give a positive number"),
        (
            "acts.detect_outliers(#{ min_layer_percentage: 25 })",
            "`min_layer_percentage` is 25.0, outside 0 to 1",
            "write 0.25 for 25 %",
        ),
        (
            "acts.detect_outliers(#{ min_seq_percentage: -0.1 })",
            "`min_seq_percentage` is -0.1, outside 0 to 1",
            "write 0.25 for 25 %",
        ),
        (
            "acts.detect_outliers(#{ skip_positions: 2 })",
            "`skip_positions` is 2, and only 0 and 1 are recorded",
            "1 leaves out position 0",
        ),
        ("acts.bootstrap_ci(#{ n_resamples: 0 })", "`n_resamples` is 0", ""),
        ("acts.bootstrap_ci(#{ confidence_level: 95 })", "`confidence_level` is 95", "0.95"),
        ("parallel([1], #{ stagger: -1 }, |x| x)", "`stagger` is -1", "seconds"),
    ] {
        refuses(call, SCRIPT, message, hint);
    }
}

#[test]
fn values_of_other_types_are_told_what_is_expected() {
    for (call, message, hint) in [
        ("load_model(\"model\", #{ dtype: 32 })", "`dtype` is 32, expected \"f32\" or \"bf16\"", ""),
        ("load_tokens(#{ ids: 3 })", "`ids` is 3, expected the path of a file or an array of arrays of ids", ""),
        (
            "load_tokens(#{ texts: [], model: model, sequence_length: 4 })",
            "`texts` is an empty list",
            "one text or more",
        ),
        ("paired_test([1, ()], [2, 3])", "a missing value, () is not a number", "leave it out"),
        ("paired_test([1, 0.0 / 0.0], [2, 3])", "NaN is among the values", "leave it out"),
        ("group_test([[1, 2], []])", "a group has no values", "one value or more"),
        ("load_model(\"model\", #{ revision: \"main\" })", "no revision \"main\" of it is known", "leave it out"),
        ("terminate_left_over(\" \")", "the task is empty", "provision_gpu"),
        ("stdlib_json(\"zebra\")", "stdlib_json: there is no \"zebra\"", "known are"),
    ] {
        refuses(call, SCRIPT, message, hint);
    }
}

#[test]
fn whole_numbers_were_no_thresholds_of_an_index() {
    let counts = "let index = acts.threshold_index();
                  print(index.count_features(6, 0, 0) == index.count_features(6.0, 0.0, 0.0));
                  print(index.feature_dims(6, 0, 0) == index.feature_dims(6.0, 0.0, 0.0));";
    assert_eq!(project().script(&format!("{BEFORE}{counts}")).ok(), "true\ntrue\n");
    let call = "acts.threshold_index().count_features(6, 25, 0)";
    refuses(call, SCRIPT, "`min_layer_percentage` is 25.0, outside 0 to 1", "write 0.25 for 25 %");
    let call = "acts.threshold_index().count_features(6, \"a\", 0)";
    refuses(call, SCRIPT, "`min_layer_percentage` is a value of type string, expected a number", "count_features");
}

#[test]
fn places_that_a_record_does_not_have_were_an_empty_list() {
    let measured = "let top = model.extract(tokens, #{ observe: [\"top\"] });";
    for (call, message) in [
        ("top.top_values(#{ layer: 99 })", "the record has no largest values of layer 99"),
        ("top.top_values(#{ dim: 9999 })", "dimension 9999: the model has"),
        ("top.top_values(#{ n: 0 })", "`n` is 0, expected a whole number, 1 or more"),
    ] {
        refuses(&format!("{measured}{call}"), SCRIPT, message, "");
    }
}

#[test]
fn thresholds_that_are_no_rungs() {
    let hint = "extract again with `thresholds: [6.25]`";
    let message = "`magnitude_threshold` 6.25 is not in the ladder of this record";
    refuses("acts.bootstrap_ci(#{ magnitude_threshold: 6.25 })", SCRIPT, message, hint);
    let asked = "acts = model.extract_layernorms(tokens, #{ thresholds: [6.25] });
                 print(acts.detect_outliers(#{ magnitude_threshold: 6.25 }).criterion.magnitude_threshold)";
    assert_eq!(project().script(&format!("{BEFORE}{asked}")).ok(), "6.25\n");
}

#[test]
fn memory_budget_too_small() {
    let call = "model.extract_layernorms(tokens, #{ memory_budget: \"1kB\", keep: \"full\", out: \"results/full\" })";
    let message = "memory_budget of 1000 bytes is too small for one sequence of 4 tokens";
    refuses(call, FAILED, message, "this model needs at least");
    refuses("estimate_vram(\"model\", #{ memory_budget: 1000 })", FAILED, "memory_budget of 1000 bytes", "at least");
    // What the hint says suffices.
    let stderr = project().script(&format!("{BEFORE}{call}")).ends(FAILED).stderr;
    let needed = stderr.split("at least ").nth(1).unwrap().split(' ').next().unwrap().to_string();
    project().script(&format!("{BEFORE}{}", call.replace("\"1kB\"", &needed))).ok();
}

#[test]
fn full_activations_without_a_place() {
    let message = "keep: \"full\" needs a folder to write to";
    refuses("model.extract_layernorms(tokens, #{ keep: \"full\" })", SCRIPT, message, "add out: \"results/NAME\"");
}

#[test]
fn names_that_leave_the_results() {
    let project = project();
    for name in ["../escaped", "/tmp/escaped", "a/../../escaped", ".hidden", "", "a//b", "a b", "a\\b", "ü"] {
        let call = format!("{BEFORE}save_results({name:?}, #{{ activations: acts, found: found }});");
        project.refuses(&call, SCRIPT, "is not a name for results", "use letters, digits");
    }
    assert_eq!(project.files("results"), [""; 0]);
    let project = self::project();
    project.script(&format!("{BEFORE}save_results(\"group/v1.0_a-b\", #{{ activations: acts, found: found }});")).ok();
    assert!(project.has("results/group/v1.0_a-b/final_analysis_results.json"));
}

#[test]
fn fields_that_do_not_exist() {
    for (call, message, hint) in [
        ("print(model.num_layer)", "model has no field `num_layer`", "did you mean `num_layers`?"),
        ("print(tokens.num_sequence)", "tokens has no field `num_sequence`", "did you mean `num_sequences`?"),
        ("print(acts.hiden_size)", "activations has no field `hiden_size`", "did you mean `hidden_size`?"),
        ("print(found.num_feature)", "no field `num_feature`", "did you mean `num_features`?"),
    ] {
        refuses(call, SCRIPT, message, hint);
    }
}

#[test]
fn primitives_that_do_not_exist() {
    refuses(
        "detect_outlier(acts)",
        SCRIPT,
        "no function `detect_outlier (activations)`",
        "did you mean `detect_outliers`?",
    );
    refuses("acts.detect_outliers(6.0)", SCRIPT, "no function `detect_outliers", "it is called as detect_outliers(");
}

#[test]
pub fn times_and_counts_beyond_all_measure() {
    for (call, message) in [
        ("sleep(1e300)", "sleep is 1e300, expected 0 to "),
        ("sleep(9223372036854775807)", ", expected 0 to 315360000 seconds"),
        ("sleep(1.0 / 0.0)", "sleep is inf, expected 0 to "),
        ("estimate_vram(\"model\", #{ num_sequences: 0 })", "`num_sequences` is 0, expected a whole number, 1 or more"),
        (
            "estimate_vram(\"model\", #{ sequence_length: 0 })",
            "`sequence_length` is 0, expected a whole number, 1 or more",
        ),
        ("estimate_vram(\"model\", #{ gpus: 0 })", "`gpus` is 0, expected a whole number, 1 or more"),
        ("estimate_vram(\"model\", #{ num_sequences: 9223372036854775807 })", "expected a whole number, at most"),
        ("estimate_vram(\"model\", #{ num_sequences: 2000000000, sequence_length: 2000000000 })", "tokens in all"),
        (
            "load_tokens(#{ text: \"t.txt\", model: model, num_sequences: 2, sequence_length: 8, skip_sequences: 9223372036854775807 })",
            "`skip_sequences` is 9223372036854775807, expected a whole number, at most",
        ),
        (
            "load_tokens(#{ text: \"t.txt\", model: model, num_sequences: 0, sequence_length: 8 })",
            "load_tokens: num_sequences is 0",
        ),
        ("acts.detect_outliers(#{ skip_positions: 9223372036854775807 })", "expected a whole number, at most"),
        ("parallel([1], #{ stagger: 0.0 / 0.0 }, |x| x)", "parallel: `stagger` is NaN"),
        ("parallel([1], #{ stagger: 1e300 }, |x| x)", "parallel: `stagger` is 1e300"),
    ] {
        let project = project();
        project.file("t.txt", "To be, or not to be, that is the question. ".repeat(20));
        let outcome = project.script(&format!("{BEFORE}{call};")).ends(SCRIPT);
        assert!(outcome.stderr.contains(message), "{call}: {}", outcome.stderr);
    }
    for key in ["lease_minutes", "stall_minutes", "patience_minutes", "max_hours"] {
        for value in ["1e300", "1e18", "0.0", "-1.0", "0.0 / 0.0", "1.0 / 0.0"] {
            let call = format!("provision_gpu(#{{ provider: \"ssh\", host: \"u@127.0.0.1:1\", {key}: {value} }})");
            project().refuses(&call, SCRIPT, &format!("provision_gpu: `{key}` is "), "give a number above 0, at most");
        }
    }
    // Seeds are numbers of any size.
    let project = project();
    let script = format!("{BEFORE}acts.bootstrap_ci(#{{ n_resamples: 10, seed: 9223372036854775807 }});");
    project.script(&script).ends(0);
}

#[test]
fn a_folder_for_activations_that_are_not_kept_is_refused() {
    let project = Project::new();
    let outcome = project
        .script(
            "let model = load_model(miniature_model(\"olmoe\").path);
             model.extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }), #{ out: \"results/kept\" });",
        )
        .ends(1);
    assert!(outcome.stderr.contains("`out` is given, and nothing is kept there"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("keep: \"full\""), "{}", outcome.stderr);
}
