//! Tests that defaults are as documented: an option that is left out has the same effect as its
//! documented default.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::project::{Project, repository};

/// A call for every primitive whose defaults can be told by what it gives: `OPTIONS` stands for the option map, in which each has
/// what it needs anyway.
const CALLS: &[(&str, &str, &str)] = &[
    ("load_model", "load_model(\"model\", OPTIONS)", ""),
    ("load_tokens", "load_tokens(OPTIONS)", "ids: \"ids.safetensors\""),
    ("load_tokens", "load_tokens(OPTIONS)", "text: \"docs.jsonl\", model: model, num_sequences: 2, sequence_length: 8"),
    (
        "load_tokens",
        "load_tokens(OPTIONS)",
        "text: \"docs.jsonl\", shuffle: true, model: model, num_sequences: 2, sequence_length: 8",
    ),
    ("encode", "encode(model, \"Speak, lords.\", OPTIONS)", ""),
    ("decode", "decode(model, [[5, 6, 7]], OPTIONS)", ""),
    ("extract_layernorms", "extract_layernorms(model, tokens, OPTIONS)", ""),
    ("estimate_vram", "estimate_vram(\"model\", OPTIONS)", ""),
    ("detect_outliers", "detect_outliers(acts, OPTIONS)", ""),
    ("bootstrap_ci", "bootstrap_ci(acts, OPTIONS)", "magnitude_threshold: 3.0"),
    ("sweep_criteria", "sweep_criteria(acts, OPTIONS)", "magnitude_threshold: [3.0], min_seq_percentage: 0.2"),
    ("sweep_criteria", "sweep_criteria(acts, OPTIONS)", ""),
    ("sequences_needed", "sequences_needed(acts, OPTIONS)", "magnitude_threshold: 3.0"),
    ("per_sequence", "per_sequence(acts, OPTIONS)", "magnitude_threshold: 3.0"),
    ("cells", "cells(acts, OPTIONS)", "dims: [1, 2]"),
    ("halves", "halves(acts, OPTIONS).map(|half| half.per_sequence(#{ magnitude_threshold: 3.0 }))", ""),
    ("threshold_index", "threshold_index(acts, OPTIONS).feature_dims(3.0, 0.25, 0.06)", ""),
    ("perplexity", "perplexity(acts, OPTIONS)", ""),
    ("perplexity", "perplexity(model, tokens, OPTIONS)", ""),
    ("paired_test", "paired_test(x, y, OPTIONS)", ""),
    ("paired_test", "paired_test(acts, acts, \"max_magnitude\", OPTIONS)", ""),
    ("group_test", "group_test([x, y], OPTIONS)", ""),
    ("correlation_test", "correlation_test(x, y, OPTIONS)", ""),
    ("heat_map", "heat_map(acts, OPTIONS)", ""),
    ("heat_map_data", "heat_map_data(acts, OPTIONS)", ""),
    ("layer_profile", "layer_profile(acts, [0, 1], OPTIONS)", ""),
    ("magnitude_histogram", "magnitude_histogram(acts, OPTIONS)", ""),
];

/// Defaults that are words of their own, and where else they are held to be true.
const IN_WORDS: &[(&str, &str)] = &[
    ("max_vram", "what is free"),
    ("checkpoint_layers", "by time"),
    ("seed", "a fixed one"),
    ("windows", "\"tokens\", or \"documents\" with separator or texts"),
    ("where", "the two limits"),
    ("where_name", "a function of the script"),
];

const SETUP: &str = "
    let model = load_model(\"model\");
    let tokens = load_tokens(#{ ids: \"many.json\" });
    let acts = model.extract_layernorms(tokens, #{ logits: true });
    let x = []; let y = [];
    for i in 0..40 { x.push((i * 7919 % 101) * 0.37); y.push((i * 104729 % 97) * 0.41 + 0.02 * i); }
    // What a run measures of itself is another every time.
    fn told(value) {
        let text = value.to_json();
        if text.contains(\"measurements\") { text.crop(0, text.index_of(\"measurements\")); }
        text
    }
";

/// An option as `outlier doc` tells it.
#[derive(Debug)]
struct Documented {
    key: String,
    default: String,
}

/// The options of a primitive that have a default, off the reference that the program prints: a heading for each, and a table of
/// `| key | type | default | meaning |`.
fn documented(markdown: &str, name: &str) -> Vec<Documented> {
    let section = markdown
        .split("\n### ")
        .find(|section| section.starts_with(&format!("`{name}`")) || section.starts_with(&format!("{name}\n")));
    let section = section.unwrap_or_else(|| panic!("{name} has no section in the reference"));
    let row = |line: &str| {
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let key = cells[0].strip_prefix('`')?.strip_suffix('`')?.to_string();
        Some(Documented { key, default: cells.get(2)?.replace('\u{1}', "|") })
    };
    section.lines().filter_map(row).filter(|option| option.default != "–").collect()
}

fn markdown() -> String {
    Project::new().run(&["doc", "--markdown"]).ok()
}

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project.copy("examples/shakespeare-olmoe/reference.safetensors", "ids.safetensors");
    let rows: Vec<Vec<usize>> = (0..9).map(|s| (0..12).map(|t| (s * 31 + t * 17 + s * t) % 250).collect()).collect();
    project.file("many.json", serde_json::to_string(&rows).unwrap());
    let documents: Vec<String> =
        (0..9).map(|i| format!("{{\"text\": \"Speak {i}, and the king will hear of it, lords.\"}}")).collect();
    project.file("docs.jsonl", documents.join("\n"));
    project
}

/// What a call gives with each of these option maps, a line each.
fn given(project: &Project, call: &str, options: &[String]) -> Vec<String> {
    let line = |options: &String| format!("print(told({}));", call.replace("OPTIONS", &format!("#{{ {options} }}")));
    let script = format!("{SETUP}{}", options.iter().map(line).collect::<Vec<_>>().join("\n"));
    let lines: Vec<String> = project.script(&script).ok().lines().map(str::to_string).collect();
    assert_eq!(lines.len(), options.len());
    lines
}

/// The options that a call needs, and one more.
fn with(needed: &str, more: &str) -> String {
    [needed, more].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ")
}

/// Whether an option goes with the others of a call.
fn fits(name: &str, call: &str, needed: &str, key: &str) -> bool {
    match (name, key) {
        ("load_tokens", "tensor") => needed.starts_with("ids"),
        // Of a dataset, which only a hub has.
        ("load_tokens", "split" | "revision") => false,
        ("load_tokens", "seed") => needed.contains("shuffle"),
        ("load_tokens", _) => needed.starts_with("text"),
        ("perplexity", "memory_budget") => call.contains("model"),
        // Lists take the options of the test only.
        ("paired_test", key) => call.contains("acts") || ["n_resamples", "alternative", "seed"].contains(&key),
        _ => true,
    }
}

#[test]
fn an_option_that_is_left_out_has_its_documented_default() {
    let (project, markdown) = (project(), markdown());
    let (mut wrong, mut held) = (Vec::new(), BTreeSet::new());
    for (name, call, needed) in CALLS {
        let own = |key: &str| needed.split(", ").any(|part| part.split(':').next() == Some(key));
        let (mut literal, mut maps) = (Vec::new(), vec![needed.to_string()]);
        for Documented { key, default } in documented(&markdown, name) {
            if own(&key) || !fits(name, call, needed, &key) {
                continue;
            }
            if serde_json::from_str::<Value>(&default).is_err() {
                assert!(IN_WORDS.contains(&(&key, &default)), "{name}: `{key}` is {default}");
                continue;
            }
            maps.push(with(needed, &format!("{key}: {default}")));
            literal.push((key, default));
        }
        let lines = given(&project, call, &maps);
        for ((key, default), line) in literal.into_iter().zip(&lines[1..]) {
            if *line != lines[0] {
                wrong.push(format!("{name}: `{key}` is documented to be {default}"));
            }
            held.insert((*name, key));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(held.len() > 80, "{}: {held:?}", held.len());
}

/// What the test above relies on: another number of resamples shows.
#[test]
fn another_number_of_resamples_is_another_outcome() {
    let (project, markdown) = (project(), markdown());
    let names = [
        "bootstrap_ci",
        "sweep_criteria",
        "sequences_needed",
        "perplexity",
        "paired_test",
        "group_test",
        "correlation_test",
    ];
    for name in names {
        let (_, call, needed) = CALLS.iter().find(|(other, ..)| *other == name).unwrap();
        let options = documented(&markdown, name);
        let option = options.iter().find(|option| option.key == "n_resamples").unwrap();
        let tenth = option.default.parse::<usize>().unwrap() / 10;
        let lines = given(&project, call, &[needed.to_string(), with(needed, &format!("n_resamples: {tenth}"))]);
        assert_ne!(lines[0], lines[1], "{name}");
    }
}

#[test]
fn defaults_in_words_are_what_they_say() {
    let project = project();
    let call = |name: &str| CALLS.iter().find(|(other, ..)| *other == name).unwrap().1;
    for name in ["bootstrap_ci", "paired_test"] {
        let lines = given(&project, call(name), &[String::new(), String::new()]);
        assert_eq!(lines[0], lines[1], "{name}: a fixed seed");
    }
    project.file("plain.txt", "To be or not to be, and what then\n---\nThat is the question that was asked\n");
    let text = |more: &str| with("text: \"plain.txt\", model: model, num_sequences: 2, sequence_length: 4", more);
    let maps = [
        text(""),
        text("windows: \"tokens\""),
        text("separator: \"---\""),
        text("separator: \"---\", windows: \"documents\""),
        text("separator: \"---\", windows: \"tokens\""),
    ];
    let lines = given(&project, call("load_tokens"), &maps);
    assert_eq!(lines[0], lines[1]);
    assert_eq!(lines[2], lines[3]);
    assert_ne!(lines[2], lines[4]);
}

/// Numbers of other pages than the reference.
#[test]
fn other_pages_name_the_same_numbers() {
    let page = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap();
    let markdown = markdown();
    let default = |name: &str, key: &str| {
        let options = documented(&markdown, name);
        options.into_iter().find(|option| option.key == key).unwrap().default
    };
    assert_eq!(default("paired_test", "n_resamples"), "100000");
    assert!(page("docs/statistics.md").contains("`n_resamples` (100,000)"));
    for (name, key, told) in [("provision_gpu", "cloud", "`any`"), ("provision_gpu", "min_cuda", "12.8")] {
        let row = page("docs/machines.md");
        let row = row.lines().find(|line| line.contains("`gpu_count`, `min_vram_gb`")).unwrap();
        assert!(row.contains(told) && told.contains(default(name, key).trim_matches('"')), "{row}");
    }
}
