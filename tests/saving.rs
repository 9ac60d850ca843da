//! Tests of saving: runs that save under the same name, runs that are killed or find the disk full,
//! other files in the folder, and leftovers.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use outlier::results::sealed;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::interrupt::{start, wait_until};
use crate::project::{FINAL, FULL, Outcome, Project};

/// Pairs of concurrent saves; `OUTLIER_TEST_PAIRS` sets another number.
const PAIRS: usize = 40;
const KILLS: usize = 15;
/// Sequences of the two analyses.
const ROWS: [usize; 2] = [12, 11];

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

/// `save(name)` stores an analysis of so many sequences.
fn analysis(rows: usize) -> String {
    format!(
        "let ids = []; for s in 0..{rows} {{ let row = []; for i in 0..16 {{ row.push((i * 7 + s * 13) % 500); }} ids.push(row); }}
         let acts = load_model(\"model\").extract_layernorms(load_tokens(#{{ ids: ids }}), #{{ thresholds: [0.5, 2.5] }});
         let all = #{{ activations: acts, found: acts.detect_outliers(#{{ magnitude_threshold: 2.5 }}) }};\n"
    )
}

fn saving(rows: usize, name: &str) -> String {
    format!("{}save_results(\"{name}\", all);", analysis(rows))
}

fn record(path: &Path) -> Value {
    let data = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&data).unwrap();
    serde_json::from_str(&metadata.metadata().as_ref().unwrap()["outlier"]).unwrap()
}

/// The number of sequences, which every file of the folder must agree on.
#[track_caller]
fn whole(project: &Project, name: &str) -> usize {
    let folder = format!("results/{name}");
    let last = project.json(&format!("{folder}/{FINAL}"));
    let rows = last["batch_results"].as_array().unwrap().len();
    let stored = record(&project.path(&format!("{folder}/activations.stats")));
    let batches = project
        .files(&folder)
        .into_iter()
        .filter(|file| file.starts_with("batch_") && file.ends_with("_results.json"))
        .count();
    let config = &project.json(&format!("{folder}/config.json"))["tokens"]["num_sequences"];
    assert_eq!((stored["num_sequences"].as_u64(), batches, config), (Some(rows as u64), rows, &json!(rows)), "{name}");
    let csv = project.text(&format!("{folder}/features.csv")).lines().count() - 1;
    assert_eq!(csv, last["pooled"]["features"].as_array().unwrap().len(), "{name}");
    if let Some(hash) = last["record"]["sha256"].as_str() {
        let found = Sha256::digest(project.bytes(&format!("{folder}/activations.stats")));
        assert_eq!(hash, found.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), "{name}");
    }
    rows
}

/// Nothing hidden is left beside analyses or in them.
#[track_caller]
fn nothing_left(project: &Project) {
    let hidden = |file: &String| file.split('/').any(|part| part.starts_with('.'));
    let left: Vec<String> = project.files("results").into_iter().filter(hidden).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A run that waits for a word before every save.
struct Saver {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Saver {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "it ended: {:?}", self.child.wait());
        line
    }
}

#[test]
fn two_runs_that_save_one_name_leave_one_whole_analysis_and_the_other_is_told() {
    let pairs = std::env::var("OUTLIER_TEST_PAIRS").ok().map_or(PAIRS, |pairs| pairs.parse().unwrap());
    let project = project();
    // Every other pair has a name of its own, the rest replace what is there.
    let name = |pair: usize| if pair.is_multiple_of(2) { format!("pair_{pair}") } else { "same".to_string() };
    let mut savers = ROWS.map(|rows| {
        let script = format!(
            "{}print(\"ready\");
             for pair in 0..{pairs} {{
                 while !has_results(`go_${{pair}}`) {{ sleep(0.001); }}
                 save_results(if pair % 2 == 0 {{ `pair_${{pair}}` }} else {{ \"same\" }}, all);
                 print(\"saved\");
             }}",
            analysis(rows)
        );
        project.file(&format!("{rows}.rhai"), script);
        let mut child = project.command(&["run", &format!("{rows}.rhai")]);
        let told = std::fs::File::create(project.path(&format!("{rows}.told"))).unwrap();
        let mut child = child.stdout(Stdio::piped()).stderr(told).spawn().unwrap();
        Saver { said: BufReader::new(child.stdout.take().unwrap()), child }
    });
    savers.iter_mut().for_each(|saver| assert_eq!(saver.line(), "ready\n"));
    let mut winners = [0; 2];
    for pair in 0..pairs {
        project.file(&format!("results/go_{pair}/{FINAL}"), "{}");
        savers.iter_mut().for_each(|saver| assert_eq!(saver.line(), "saved\n"));
        let rows = whole(&project, &name(pair));
        winners[ROWS.iter().position(|own| *own == rows).unwrap()] += 1;
    }
    savers.iter_mut().for_each(|saver| assert!(saver.child.wait().unwrap().success()));
    let told = ROWS.map(|rows| project.text(&format!("{rows}.told"))).concat();
    println!("{pairs} pairs, last were {winners:?}");
    for pair in (0..pairs).step_by(2) {
        let warning = format!("results/pair_{pair}: another run has saved this name at ");
        assert_eq!(told.matches(&warning).count(), 1, "pair {pair} in {told}");
    }
    if pairs > 1 {
        assert!(told.matches("results/same: another run has saved this name at ").count() >= pairs / 2);
    }
    nothing_left(&project);
}

#[test]
fn one_run_after_another_is_told_nothing() {
    let project = project();
    let one = project.script(&saving(ROWS[0], "a")).ends(0).stderr;
    let other = project.script(&format!("{} save_results(\"a\", all);", saving(ROWS[1], "a"))).ends(0).stderr;
    assert!(!format!("{one}{other}").contains("another run"), "{one}{other}");
    assert_eq!(whole(&project, "a"), ROWS[1]);
}

#[test]
pub fn a_record_of_another_run_is_not_believed() {
    let project = project();
    project.script(&saving(ROWS[0], "a")).ok();
    project.script(&saving(ROWS[1], "b")).ok();
    let load = "print(load_results(\"a\").activations.num_sequences);";
    assert_eq!(project.script(load).ok(), format!("{}\n", ROWS[0]));
    let (last, own) = (format!("results/a/{FINAL}"), project.bytes("results/a/activations.stats"));
    project.file("results/a/activations.stats", project.bytes("results/b/activations.stats"));
    let outcome = project.script(load).ends(3);
    assert!(
        outcome.stderr.contains("not the record that final_analysis_results.json was made from"),
        "{}",
        outcome.stderr
    );
    // What older programs have saved has no hash.
    let mut json = project.json(&last);
    assert_eq!(json["record"]["bytes"], own.len());
    json.as_object_mut().unwrap().remove("record");
    project.file("results/a/activations.stats", own).file(&last, json.to_string());
    assert_eq!(project.script(load).ok(), format!("{}\n", ROWS[0]));
}

#[test]
fn a_kill_while_saving_leaves_the_analysis_of_before_or_the_new_one() {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let project = project();
    project.script(&saving(ROWS[0], "a")).ok();
    project.file("results/a/notes.md", "mine").file("results/a/tables/t.csv", "x\n1\n").file("results/a/in/b", "deep");
    for kill in 0..KILLS {
        let rows = ROWS[kill % 2];
        project
            .file("script.rhai", format!("{} print(\"ready\"); loop {{ save_results(\"a\", all); }}", analysis(rows)));
        let mut child = start(&project, &["run", "script.rhai"]);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        std::thread::sleep(Duration::from_micros(random.random_range(0..60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ROWS.contains(&whole(&project, "a")));
        assert_eq!(project.text("results/a/notes.md"), "mine");
    }
    // The next one who saves cleans up.
    project.script(&saving(ROWS[0], "a")).ok();
    assert_eq!(whole(&project, "a"), ROWS[0]);
    let own = ["notes.md", "tables/t.csv", "in/b"].map(|name| project.text(&format!("results/a/{name}")));
    assert_eq!(own, ["mine", "x\n1\n", "deep"]);
    nothing_left(&project);
}

#[test]
pub fn a_full_disk_leaves_the_analysis_of_before() {
    let project = project();
    project.script(&saving(ROWS[0], "a")).ok();
    let before: Vec<_> = project.files("results/a");
    let bytes =
        |project: &Project| before.iter().map(|name| project.bytes(&format!("results/a/{name}"))).collect::<Vec<_>>();
    let whole_before = bytes(&project);
    let sizes = before.iter().map(|name| project.bytes(&format!("results/a/{name}")).len() / 1024);
    let most = sizes.max().unwrap();
    project.file("script.rhai", saving(ROWS[1], "a"));
    assert!(most > 8);
    for blocks in [0, 1, most / 8, most / 4, most / 2, most * 3 / 4] {
        let program = project.command(&["run", "script.rhai"]);
        let mut limited = std::process::Command::new("sh");
        limited
            .args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" run script.rhai")])
            .arg(program.get_program());
        limited.current_dir(project.path("")).envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let outcome = Outcome::of(limited.output().unwrap());
        assert_eq!(outcome.code, 3, "{blocks} blocks: {}", outcome.stderr);
        assert!(bytes(&project) == whole_before, "{blocks} blocks");
        nothing_left(&project);
    }
}

#[test]
fn other_files_stay_when_an_analysis_is_replaced() {
    let project = project();
    project.script(&format!("{} save_results(\"a/inner\", all);", saving(ROWS[0], "a"))).ok();
    project.script("export_tables(load_results(\"a\"), \"csv\"); write_text(\"results/a/note.md\", \"mine\");").ok();
    project.file(&format!("results/a/{FULL}"), "large").file("results/a/batch_notes.txt", "mine, too");
    let others = |project: &Project| -> Vec<(String, Vec<u8>)> {
        let own = |name: &String| !name.contains('/') && (name.starts_with("batch_0") || name.ends_with(".stats"));
        let own = |name: &String| own(name) || [FINAL, "config.json", "features.csv"].contains(&name.as_str());
        let names = project.files("results/a").into_iter().filter(|name| !own(name));
        names.map(|name| (name.clone(), project.bytes(&format!("results/a/{name}")))).collect()
    };
    let before = others(&project);
    assert!(before.len() > 10, "{before:?}");
    project.script(&saving(ROWS[1], "a")).ok();
    assert!(others(&project) == before);
    assert_eq!((whole(&project, "a"), whole(&project, "a/inner")), (ROWS[1], ROWS[0]));
    nothing_left(&project);
}

#[test]
pub fn unfinished_files_of_killed_runs_are_removed_and_those_of_others_are_not() {
    let project = project();
    let ids: Vec<Vec<u32>> = (0..16).map(|s| (0..256).map(|t| (s + t) % 256).collect()).collect();
    project.file("ids.json", serde_json::to_string(&ids).unwrap());
    let unfinished = || -> Vec<String> {
        project.files("results/a").into_iter().filter(|name| name.starts_with(".partial-")).collect()
    };
    project.file(
        "long.rhai",
        "load_model(miniature_model(\"olmoe\").path)
             .extract_layernorms(load_tokens(#{ ids: \"ids.json\" }), #{ keep: \"full\", out: \"results/a\" });",
    );
    let mut killed = start(&project, &["run", "long.rhai"]);
    wait_until(&mut killed, "its activations", || !unfinished().is_empty());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = unfinished();
    assert_eq!(left.len(), 1);
    let mut at_work = start(&project, &["run", "long.rhai"]);
    wait_until(&mut at_work, "activations of its own", || unfinished().iter().any(|name| *name != left[0]));
    project.script(&format!("{} write_text(\"results/a/note.md\", \"mine\");", saving(ROWS[0], "a"))).ok();
    let full = format!("results/a/{FULL}");
    assert!(!unfinished().contains(&left[0]));
    assert!(unfinished().len() == 1 || project.has(&full));
    Outcome::of(at_work.wait_with_output().unwrap()).ok();
    assert!(project.has(&full) && project.has("results/a/note.md"));
    assert_eq!((whole(&project, "a"), unfinished().len()), (ROWS[0], 0));
}

/// Two writers of one checkpoint: who comes second is told, or writes a whole one; nobody writes into a finished file.
#[test]
fn a_sealed_file_is_never_opened_by_two() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("point");
    std::thread::scope(|scope| {
        for writer in 0..3u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..100 {
                    let file = sealed::Writer::create(path, &json!({ "writer": writer }));
                    let Some(mut file) = known(file) else { continue };
                    file.write_all(&[writer; 5000]).unwrap();
                    file.finish().unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..300 {
                let Some((header, mut reader)) = sealed::Reader::open(&path).unwrap() else { continue };
                let mut payload = vec![0; 5000];
                reader.read_exact(&mut payload).unwrap();
                reader.finish().unwrap();
                assert!(payload.iter().all(|byte| json!(byte) == header["writer"]));
            }
        });
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn known(file: outlier::error::Result<sealed::Writer>) -> Option<sealed::Writer> {
    match file {
        Ok(file) => Some(file),
        Err(error) => {
            assert!(error.message.contains("another run writes it"), "{error}");
            None
        }
    }
}
