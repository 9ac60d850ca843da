//! Stored results that cannot be read back: missing, damaged, of another version, outside the project.

use outlier::record::Criterion;
use outlier::{results, stats};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::project::{FINAL, Project};

const SCRIPT: i32 = 1;
const FILE: i32 = 3;

const LOAD: &str = "print(load_results(\"demo\").found.num_features);";
const RECORD: &str = "results/demo/activations.stats";

/// A project with one finished analysis, `results/demo`.
fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    let save = r#"
        let acts = load_model("model").extract_layernorms(load_tokens(#{ ids: "model/reference.safetensors" }));
        save_results("demo", #{
            activations: acts, found: acts.detect_outliers(), intervals: acts.bootstrap_ci(#{ n_resamples: 50 }),
        });
    "#;
    project.script(save).ok();
    project
}

#[track_caller]
fn refuses(project: &Project, script: &str, code: i32, message: &str, hint: &str) {
    let stderr = project.script(script).ends(code).stderr;
    assert!(stderr.contains(message), "expected {message:?} in\n{stderr}");
    let told = stderr.lines().find_map(|line| line.strip_prefix("  hint: ")).unwrap_or_default();
    assert!(!told.is_empty() && told.contains(hint), "expected the hint {hint:?} in\n{stderr}");
}

#[test]
fn missing() {
    let project = project();
    let hint = "give the folder of a finished analysis";
    refuses(&project, "load_results(\"dem\")", FILE, &format!("reading results/dem/{FINAL}: No such file"), hint);
    std::fs::remove_file(project.path(RECORD)).unwrap();
    refuses(&project, LOAD, FILE, "activations.stats: No such file", "was this analysis saved by save_results?");
    std::fs::remove_file(project.path(&format!("results/demo/{FINAL}"))).unwrap();
    refuses(&project, LOAD, FILE, &format!("{FINAL}: No such file"), hint);
}

#[test]
fn outside_the_project() {
    for path in ["../demo", "results/../../demo", "/tmp/../demo"] {
        let message = format!("load_results: \"{path}\" leads out of the project");
        refuses(&project(), &format!("load_results({path:?})"), SCRIPT, &message, "name a folder below results/");
    }
}

#[test]
fn damaged_record() {
    let project = project();
    let whole = project.bytes(RECORD);
    let hint = "the file is damaged, or written by another version";
    for length in [0, 5, 200, whole.len() / 2, whole.len() - 1] {
        project.file(RECORD, &whole[..length]);
        refuses(&project, LOAD, FILE, "activations.stats: ", hint);
    }
    project.copy("tests/fixtures/llama/reference.safetensors", RECORD);
    refuses(&project, LOAD, FILE, "activations.stats: not an activation record", hint);
}

#[test]
fn other_versions() {
    let project = project();
    let text = String::from_utf8_lossy(&project.bytes(RECORD)).into_owned();
    assert!(text.contains(r#"\"stats_version\":2"#));
    let mut record = project.bytes(RECORD);
    let key = br#"\"stats_version\":2"#;
    let at = record.windows(key.len()).position(|window| window == key).unwrap();
    record[at + key.len() - 1] = b'9';
    project.file(RECORD, record);
    refuses(&project, LOAD, FILE, "version 9 of the format, this program reads 2", "written by another version");

    let path = format!("results/demo/{FINAL}");
    let mut json = project.json(&path);
    json["schema_version"] = 99.into();
    project.file(&path, json.to_string());
    refuses(&project, LOAD, FILE, "schema version 99, this program reads 1", "written by another version");
}

#[test]
fn damaged_final_results() {
    let project = project();
    let path = format!("results/demo/{FINAL}");
    let (text, json) = (project.text(&path), project.json(&path));
    let hint = "the file is damaged, or written by another version";
    project.file(&path, &text[..text.len() / 2]);
    refuses(&project, LOAD, FILE, &format!("{FINAL}: not valid JSON"), hint);
    for key in ["pooled", "intervals", "settings", "measurements"] {
        let mut broken = json.clone();
        broken[key] = 5.into();
        project.file(&path, broken.to_string());
        refuses(&project, LOAD, FILE, &format!("{FINAL}: `{key}`: "), hint);
    }
}

/// Any one byte of a record may be wrong: that is an error or another record, never a crash.
#[test]
fn no_damage_to_a_record_is_a_crash() {
    let project = project();
    let whole = project.bytes(RECORD);
    let folder = project.path("results/demo");
    let mut refused = 0;
    // A stride without common factor visits header and data alike.
    for (i, at) in (0..whole.len()).step_by(whole.len() / 500 + 1).enumerate() {
        let mut damaged = whole.clone();
        damaged[at] ^= [0x01, 0x80, 0xff, 0x04][i % 4];
        project.file(RECORD, damaged);
        let outcome =
            results::load(&folder).and_then(|stored| stats::detect(&stored.activations, &Criterion::default()));
        refused += outcome.is_err() as usize;
    }
    assert!(refused > 10, "{refused} damages were noticed");
}

/// Rewrites the JSON in the record's header.
fn with_header(whole: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let (_, metadata) = SafeTensors::read_metadata(whole).unwrap();
    let text = &metadata.metadata().as_ref().unwrap()["outlier"];
    let mut json: Value = serde_json::from_str(text).unwrap();
    change(&mut json);
    let file = SafeTensors::deserialize(whole).unwrap();
    let tensors: Vec<_> = file.iter().collect();
    safetensors::serialize(tensors, Some([("outlier".to_string(), json.to_string())].into())).unwrap()
}

/// A header can say anything: sizes that overflow, that are nothing, that do not fit the rest.
#[test]
fn impossible_sizes_are_refused() {
    let project = project();
    let whole = project.bytes(RECORD);
    project.file(RECORD, with_header(&whole, |_| ()));
    project.script("load_results(\"demo\").detect_outliers()").ok();
    for (key, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(33)),
        ("num_sequences", json!(0)),
        ("num_sequences", json!(u64::MAX / 2)),
        ("sequence_length", json!(0)),
        ("ladder", json!([])),
        ("ladder", json!([6.0, 3.0])),
        ("norms", json!([])),
        ("tokens", json!(null)),
    ] {
        project.file(RECORD, with_header(&whole, |json| json[key] = value.clone()));
        let script = "let stored = load_results(\"demo\"); stored.detect_outliers(); stored.bootstrap_ci();";
        refuses(&project, script, FILE, "", "damaged");
    }
}
