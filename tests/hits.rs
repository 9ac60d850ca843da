//! Tests of hits by token: against norm outputs of transformers, in records and checkpoints, in the
//! terminal, in tables and in the report.

use std::collections::BTreeMap;

use outlier::engine::extract;
use outlier::hub::{self, Access};
use outlier::progress::Silent;
use outlier::record::{ComputeDtype, ExtractArgs, Measure, MeasureArgs, Site, TokenSource};
use outlier::results::{decode_stats, encode_stats};
use outlier::stats;
use outlier::text::load_tokens;
use outlier::weights::open;

use crate::oracle::{fixtures, load_args, tensors};
use crate::project::Project;
use crate::terminal::{at_terminal, too_wide};

/// Where a value is a hit in the fixture: on the ladder, and reached by some values.
const FROM: f32 = 1.5;

fn measured(name: &str, args: ExtractArgs) -> outlier::record::Activations {
    let folder = fixtures().join(name);
    let path = folder.join("reference.safetensors").display().to_string();
    let tokens = load_tokens(&TokenSource::IdsSafetensors { path, tensor: "input_ids".into() }, &Silent).unwrap();
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent).unwrap();
    let model = open(files, &load_args(&folder, ComputeDtype::F32)).unwrap();
    extract(&model, &tokens, &args, &Silent).unwrap()
}

fn with_hits() -> ExtractArgs {
    let measure = MeasureArgs {
        sites: vec![Site::AttnIn, Site::FfnIn, Site::ResidPost],
        observe: vec![Measure::Outliers, Measure::Hits],
        hits_from: FROM,
        dims: vec![0],
        ..MeasureArgs::default()
    };
    ExtractArgs { thresholds: vec![FROM, 2.0], measure, ..ExtractArgs::default() }
}

#[test]
fn hits_by_token_are_those_of_transformers() {
    let acts = measured("llama", with_hits());
    let reference = tensors(&fixtures().join("llama/reference.safetensors"));
    let mut compared = 0;
    for (site, name) in [(Site::AttnIn, "attn_norm"), (Site::FfnIn, "ffn_norm")] {
        let of = stats::site_hits(&acts, Some(site)).unwrap();
        let layers: Vec<&Vec<f32>> =
            of.layers.iter().map(|layer| &reference[&format!("layers.{layer}.{name}")]).collect();
        let tokens = acts.num_sequences * acts.sequence_length;
        // For each dimension and token the strongest value and the number of layers with a hit.
        let mut expected: BTreeMap<(usize, usize), (f32, usize)> = BTreeMap::new();
        for token in 0..tokens {
            for dim in 0..acts.hidden_size {
                for values in &layers {
                    let x = values[token * acts.hidden_size + dim];
                    if x.abs() >= FROM {
                        let known = expected.entry((dim, token)).or_insert((0.0, 0));
                        known.0 = if x.abs() > known.0.abs() { x } else { known.0 };
                        known.1 += 1;
                    }
                }
            }
        }
        let mut got = BTreeMap::new();
        for dim in &of.dims {
            assert!(dim.whole, "nothing is left out of so little");
            for (i, token) in dim.tokens.token.iter().enumerate() {
                let rungs = &dim.tokens.rungs[i * of.layers.len()..][..of.layers.len()];
                let layers = rungs.iter().filter(|rungs| **rungs > 0).count();
                got.insert((dim.dim, *token as usize), (dim.tokens.value[i], layers));
            }
        }
        assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        for (place, (value, layers)) in &expected {
            let (found, in_layers) = got[place];
            assert!(
                (found - value).abs() < 1e-4 * value.abs() && in_layers == *layers,
                "{name}, {place:?}: {found}, {value}"
            );
        }
        compared += expected.len();
    }
    assert!(compared > 50, "{compared} tokens with hits");
}

#[test]
fn the_file_of_a_record_has_its_hits_and_refuses_damaged_ones() {
    let mut acts = measured("llama", with_hits());
    let pieces: Vec<String> = (0..acts.num_sequences * acts.sequence_length).map(|i| format!(" é{i}\n")).collect();
    acts.measures.token_texts.as_mut().unwrap().set(&pieces);
    let file = encode_stats(&acts).unwrap();
    let mut back = decode_stats(&file, "reading").unwrap();
    back.measurements = acts.measurements.clone();
    assert_eq!(back, acts);
    assert_eq!(back.measures.token_texts.as_ref().unwrap().of(7), Some(" é7\n"));
    stats::check_whole(&acts).unwrap();
    let damages: [fn(&mut outlier::record::Activations); 6] = [
        |acts| acts.measures.hits[0].dims[0].tokens.token[0] = 1 << 20,
        |acts| acts.measures.hits[0].dims[0].tokens.rungs[0] = 200,
        |acts| acts.measures.hits[0].layers[0] = 99,
        |acts| acts.measures.hits[0].dims[0].tokens.value.truncate(0),
        |acts| acts.measures.token_texts.as_mut().unwrap().ends[3] = 1,
        |acts| acts.measures.token_texts.as_mut().unwrap().ids.truncate(3),
    ];
    for (i, damage) in damages.into_iter().enumerate() {
        let mut damaged = acts.clone();
        damage(&mut damaged);
        assert!(stats::check_whole(&damaged).is_err(), "damage {i}");
    }
}

/// A project with an analysis of a trained model with a tokenizer, and one of ids without.
fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model").copy("tests/fixtures/llama", "llama");
    project
        .file("text.txt", "First Citizen:\nBefore we proceed any further, hear me <speak>.\n\nAll:\nSpeak, speak.\n");
    let save = r#"
        fn save(name, acts) {
            save_results(name, #{ activations: acts, found: acts.detect_outliers(#{ magnitude_threshold: 3.0 }) });
        }
        let model = load_model("model");
        let tokens = load_tokens(#{ text: "text.txt", model: model, num_sequences: 1, sequence_length: 36 });
        save("text", model.extract(tokens, #{ sites: ["attn_in", "resid_post"], observe: "all", hits_from: 3.0 }));
        let model = load_model("llama");
        let tokens = load_tokens(#{ ids: "llama/reference.safetensors" });
        save("ids", model.extract(tokens, #{ observe: ["outliers", "hits"], hits_from: 2.0, thresholds: [2.0] }));
        save("none", model.extract_layernorms(tokens));
    "#;
    project.script(save).ok();
    project
}

#[test]
fn show_marks_tokens_and_fits_the_terminal() {
    let project = project();
    let plain = project.run(&["show", "results/text"]).ok();
    assert!(plain.contains("sequence 0 of 1:") && plain.contains("First Citiz") && plain.contains("[⏎]"), "{plain}");
    assert!(plain.contains("[token]strength, 1: |x| ≥ 3.0") && !plain.contains('\u{1b}'), "{plain}");
    let (code, lines) = at_terminal(project.command(&["show", "text"]), 80, "");
    assert!(code == 0 && lines.iter().any(|line| line.contains("\u{1b}[38;5;16;48;5;")), "{lines:?}");
    let mut without_colour = project.command(&["show", "text", "--layer", "3"]);
    without_colour.env("NO_COLOR", "1");
    let (code, lines) = at_terminal(without_colour, 80, "");
    assert!(code == 0 && !lines.iter().any(|line| line.contains('\u{1b}')), "{lines:?}");
    assert!(too_wide(&lines, 80).is_empty() && lines.iter().any(|line| line.contains("in layer 3")), "{lines:?}");
    // Without a tokenizer the ids are shown.
    let ids = project.run(&["show", "ids", "--sequence", "2"]).ok();
    assert!(ids.contains("sequence 2 of 3:") && ids.contains("first position") || ids.contains("tokens"), "{ids}");
    let shown: Vec<&str> =
        ids.split("sequence 2 of 3:").nth(1).unwrap().lines().filter(|line| !line.is_empty()).collect();
    assert!(shown[0].chars().all(|c| c.is_ascii_digit() || " []".contains(c)), "{shown:?}");
    for (words, said) in [
        (vec!["show", "none"], "does not say at which tokens hits are"),
        (vec!["show", "text", "--site", "resid_pots"], "no site is called"),
        (vec!["show", "text", "--site", "ffn_mid"], "no hits by token of ffn_mid"),
        (vec!["show", "text", "--sequence", "9"], "there is no sequence 9"),
        (vec!["show", "text", "--layer", "99"], "layer 99 has no"),
    ] {
        let outcome = project.run(&words);
        assert!(outcome.stderr.contains(said) && outcome.stderr.contains("hint: "), "{words:?}: {}", outcome.stderr);
    }
}

#[test]
fn the_report_has_marked_text_and_what_was_measured() {
    let project = project();
    project.copy("scripts/report.rhai", "scripts/report.rhai");
    project.run(&["run", "scripts/report.rhai", "--all"]).ok();
    let page = project.text("results/report.html");
    assert!(page.contains("Where hits are") && page.contains("Moments by site"), "sections of measurements");
    assert!(page.contains("class=\"hit") && page.contains("title=\"") && page.contains("dimension "), "marked tokens");
    assert!(!page.contains("<speak>"), "text is escaped");
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    for loads in ["src=", "href=", "@import", "url(", "fetch("] {
        assert!(!page.contains(loads), "{loads}");
    }
    // What was not measured has no heading.
    assert!(!page.contains("Massive activations"), "a table without rows");
    let said = project.script(r#"for path in load_results("text").export_tables("parquet") { print(path); }"#).ok();
    for table in [
        "moments",
        "top_values",
        "residual_sinks",
        "attention_sinks",
        "quantisation_error",
        "super_weights",
        "hit_places",
        "token_hits",
    ] {
        assert!(said.contains(&format!("tables/{table}.parquet")), "{table} is not in\n{said}");
    }
    project.script(r#"load_results("text").export_tables("csv")"#).ok();
    let csv = project.text("results/text/tables/token_hits.csv");
    assert!(csv.lines().next().unwrap().contains("position") && csv.lines().count() > 10, "{csv}");
}

#[test]
fn a_report_takes_sections_of_a_script() {
    let project = project();
    project
        .script(
            r#"import "compare" as compare;
            import "reports" as reports;
            let own = #{ title: "Mine & yours", text: "One < two.", rows: [#{ a: 1, b: "x" }], note: "A note." };
            reports::save("results/own", compare::load_all(#{}), "Title", [own]);"#,
        )
        .ok();
    let page = project.text("results/own.html");
    assert!(page.contains("Mine &amp; yours</h2>") && page.contains("One &lt; two.") && page.contains("A note."));
    let text = project.text("results/own.md");
    assert!(text.contains("## Mine & yours") && text.contains("| a | b |"), "{text}");
}

#[test]
fn layers_of_other_sites_are_not_called_norms() {
    let project = project();
    let said = project
        .script(r#"let at = load_results("text").activations.at("resid_post"); show(at.detect_outliers(#{ magnitude_threshold: 3.0 }));"#)
        .ok();
    assert!(said.contains("% of layers") && !said.contains("norms"), "{said}");
}

#[test]
fn the_script_for_real_models_measures_everything_of_any_folder() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model").copy("scripts/real_model.rhai", "scripts/real_model.rhai");
    let words =
        ["run", "scripts/real_model.rhai", "--model", "model", "--sequence-length", "64", "--magnitude-threshold", "4"];
    let said = project.run(&words).ok();
    for word in
        ["a layer is", "decoder layers", "Where hits are", "Quantised activations", "Attention sinks", "report:  "]
    {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    let page = project.text("results/real_model/report.html");
    assert!(page.contains("Norms or decoder layers") && page.contains("Where hits are"), "{} bytes", page.len());
    let figures = project.files("results/real_model/figures");
    for figure in ["kurtosis.svg", "attention_sinks.png", "quantisation_by_site.svg", "expert_outputs.svg"] {
        assert!(figures.contains(&figure.to_string()), "{figure} is not in {figures:?}");
    }
}
