//! Tests of stored results that cannot be read back: missing, damaged, of another version, or
//! outside the project.

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
    let message = format!("reading results/dem/{FINAL}: No such file");
    refuses(&project, "load_results(\"dem\")", FILE, &message, "did you mean `demo`?");
    std::fs::remove_file(project.path(RECORD)).unwrap();
    refuses(&project, LOAD, FILE, "activations.stats: No such file", "was this analysis saved by save_results?");
    std::fs::remove_file(project.path(&format!("results/demo/{FINAL}"))).unwrap();
    refuses(&project, LOAD, FILE, &format!("{FINAL}: No such file"), "nothing is stored in results");
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

/// As programs without hashes have saved it: then any record is read.
fn without_hash(project: &Project) {
    let path = format!("results/demo/{FINAL}");
    let mut json = project.json(&path);
    json.as_object_mut().unwrap().remove("record");
    project.file(&path, json.to_string());
}

/// Any one byte of a record may be wrong: that is an error or another record, never a crash.
#[test]
fn no_damage_to_a_record_is_a_crash() {
    let project = project();
    let whole = project.bytes(RECORD);
    without_hash(&project);
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
    without_hash(&project);
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

/// `bytes` times `byte`, compressed.
fn frame(byte: u8, bytes: u64) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(byte), bytes), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// The record with another header and with some of its tensors replaced.
fn with_tensors(whole: &[u8], tensors: &[(&str, Vec<u8>)], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let file = SafeTensors::deserialize(whole).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(whole).unwrap();
    let mut json: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["outlier"]).unwrap();
    change(&mut json);
    let views: Vec<(String, Vec<u8>)> = file
        .iter()
        .map(|(name, old)| {
            let new = tensors.iter().find(|(replaced, _)| *replaced == name).map(|(_, data)| data.clone());
            (name.to_string(), new.unwrap_or_else(|| old.data().to_vec()))
        })
        .collect();
    let views = views.iter().map(|(name, data)| {
        (name.clone(), safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![data.len()], data).unwrap())
    });
    safetensors::serialize(views, Some([("outlier".to_string(), json.to_string())].into())).unwrap()
}

/// A header that claims three billion bytes, and a few kilobytes that unpack to as many: with 2.5 GB of memory to have.
#[test]
pub fn a_small_record_does_not_unpack_to_gigabytes() {
    let project = project();
    let whole = project.bytes(RECORD);
    let rows = {
        let stored = results::load(&project.path("results/demo")).unwrap();
        (stored.activations.norms.len() * stored.activations.num_sequences) as u64
    };
    without_hash(&project);
    let hidden = (3u64 << 30) / (4 * rows);
    let zeros = frame(0, 4 * rows * hidden);
    let tensors = [("max", zeros.clone()), ("min", zeros)];
    let bomb = with_tensors(&whole, &tensors, |json| json["hidden_size"] = json!(hidden));
    assert!(bomb.len() < 1 << 20);
    project.file(RECORD, bomb).file("script.rhai", LOAD);
    let program = project.command(&["run", "script.rhai"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -v 2500000; exec \"$0\" run script.rhai"]).arg(program.get_program());
    limited.current_dir(project.path("")).envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let outcome = crate::project::Outcome::of(limited.env("RAYON_NUM_THREADS", "2").output().unwrap()).ends(FILE);
    assert!(outcome.stderr.contains("does not fit a file of"), "{}", outcome.stderr);
    // The same with counts: few cells, each with as many rungs as there can be.
    let hidden = (1u64 << 20) / rows;
    let cells = rows * hidden;
    let ladder: Vec<f32> = (1..=254).map(|rung| rung as f32).collect();
    let tensors = [
        ("max", frame(0, 4 * cells)),
        ("min", frame(0, 4 * cells)),
        ("first.max", frame(0, 0)),
        ("first.min", frame(0, 0)),
        ("positive.rungs", frame(254, cells)),
        ("positive.first", frame(0, cells)),
        ("positive.counts", frame(1, 254 * cells)),
    ];
    let bomb = with_tensors(&whole, &tensors, |json| {
        json["hidden_size"] = json!(hidden);
        json["ladder"] = json!(ladder);
    });
    project.file(RECORD, bomb);
    refuses(&project, LOAD, FILE, "counts, more than a file of its size can have", "damaged");
}

/// What is no file at all: a pipe that nobody writes to, a device without an end, a folder.
#[test]
fn what_is_no_file_is_refused_at_once() {
    let project = project();
    for name in [RECORD.to_string(), format!("results/demo/{FINAL}")] {
        let whole = project.bytes(&name);
        let path = project.path(&name);
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        refuses(&project, LOAD, FILE, "not a regular file", "");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        refuses(&project, LOAD, FILE, "not a regular file", "");
        std::fs::remove_file(&path).unwrap();
        project.file(&name, whole);
    }
}

/// A file of the first versions does not say which record it was made from, and neither does one that somebody has changed.
#[test]
fn a_record_that_nothing_vouches_for_is_told() {
    let project = project();
    let told = "its key `record` is missing";
    let outcome = project.script(LOAD).ends(0);
    assert!(!outcome.stderr.contains(told), "{}", outcome.stderr);
    without_hash(&project);
    let again = project.script(LOAD).ends(0);
    assert_eq!(again.stdout, outcome.stdout);
    assert_eq!(again.stderr.matches(told).count(), 1, "{}", again.stderr);
    let rethreshold = project.run(&["rethreshold", "results/demo"]).ends(0);
    assert!(rethreshold.stderr.contains(told), "{}", rethreshold.stderr);
}
