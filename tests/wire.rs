//! Tests of what a machine can do to the run that uses it: write, print, delay, and pretend. A
//! lying worker sends what must not be accepted, and the run must continue or end with an error.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::hostile_worker::{Answer, GREETING, HIDDEN, HostileWorker, honest, status};
use crate::interrupt::{self, INTERRUPTED};
use crate::project::{Outcome, Project, program};

const PROVISION: &str =
    "let gpu = provision_gpu(#{ provider: \"ssh\", host: \"localhost\", patience_minutes: 0.02 });\n";
const EXTRACT: &str = "let model = gpu.load_model(\"m\");\nlet tokens = load_tokens(#{ ids: [[1, 2], [3, 4]] });\n\
                       let acts = model.extract_layernorms(tokens";

/// A run of `script` with `gpu` in a folder inside the project's, so that the folder above it belongs to the test.
fn command(worker: &HostileWorker, project: &Project, script: &str) -> Command {
    project.file("work/script.rhai", format!("{PROVISION}{script}"));
    let mut command = project.command(&["run", "--allow-commands", "script.rhai"]);
    command.current_dir(project.path("work"));
    worker.command(command, &project.path("home"))
}

fn run(
    project: &Project,
    there: &str,
    script: &str,
    lie: impl Fn(&mut Answer) -> bool + Send + Sync + 'static,
) -> Outcome {
    let worker = HostileWorker::start(program(), there, lie);
    Outcome::of(command(&worker, project, script).output().unwrap())
}

/// The files that this side writes itself: the script, and its list of machines.
const OURS: [&str; 2] = ["work/script.rhai", "work/results/gpus.sqlite"];

/// Everything in the project but the machine's files and the script.
fn written(project: &Project) -> Vec<String> {
    let files = project.files("").into_iter();
    files.filter(|file| !OURS.contains(&file.as_str()) && !file.starts_with("home/")).collect()
}

/// Files that the machine tries to write here.
const BAIT: &str = "mkdir -p .git checkpoints ../elsewhere out; echo evil | tee ../authorized_keys .git/config .env checkpoints/x \
                    ../elsewhere/activations.safetensors out/activations.safetensors >/dev/null";

/// Makes the run fetch files, and gives it time to do so.
fn names_files(answer: &mut Answer) -> bool {
    for path in ["../authorized_keys", ".git/config", ".env", "/tmp/outlier_wire_test", "results/x"] {
        answer.event(json!({ "Checkpoint": { "path": path, "layer": 1 } }));
        std::thread::sleep(Duration::from_millis(600));
    }
    answer.error("NotFound", "that was all")
}

#[test]
pub fn a_machine_names_files_and_none_is_written() {
    let project = Project::new();
    let lie = |answer: &mut Answer| if answer.asks("Extract") { names_files(answer) } else { answer.faithful() };
    let outcome = run(&project, BAIT, &format!("{EXTRACT});"), lie).ends(3);
    assert!(outcome.stderr.contains("that was all"), "{}", outcome.stderr);
    assert_eq!(written(&project), [""; 0]);
}

#[test]
fn only_the_checkpoint_that_was_asked_for_comes() {
    let project = Project::new();
    let lie = |answer: &mut Answer| if answer.asks("Extract") { names_files(answer) } else { answer.faithful() };
    // Under the name that was asked for lies something else than a checkpoint.
    run(&project, BAIT, &format!("{EXTRACT}, #{{ checkpoint: \"checkpoints/x\" }});"), lie).ends(3);
    assert_eq!(written(&project), [""; 0]);
    // One comes, and is not put where other work has its own; it is of no work that anybody does.
    let point = |identity: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let header = json!({ "mark": "0123456789abcdef", "identity": { "of": identity }, "layer": 1, "bytes_read": 0 });
        outlier::results::sealed::Writer::create(&path, &header).and_then(|writer| writer.finish()).unwrap();
        std::fs::read(path).unwrap()
    };
    let file = project.path("point");
    std::fs::write(&file, point("theirs")).unwrap();
    let there = format!("mkdir -p checkpoints; cp {} checkpoints/x", file.display());
    let ask = format!("{EXTRACT}, #{{ checkpoint: \"checkpoints/x\" }});");
    run(&project, &there, &ask, lie).ends(3);
    assert_eq!(written(&project), ["point", "work/checkpoints/x"]);
    assert!(project.bytes("work/checkpoints/x") == point("theirs"));
    project.file("work/checkpoints/x", point("ours"));
    run(&project, &there, &ask, lie).ends(3);
    assert!(project.bytes("work/checkpoints/x") == point("ours"), "it was written over");
    assert_eq!(written(&project).len(), 3);
}

#[test]
fn a_checkpoint_larger_than_it_may_be_is_not_kept() {
    let project = Project::new();
    let lie = |answer: &mut Answer| {
        if !answer.asks("Extract") {
            return answer.faithful();
        }
        answer.event(json!({ "Checkpoint": { "path": "checkpoints/x", "layer": 1 } }));
        std::thread::sleep(Duration::from_secs(3));
        answer.error("NotFound", "that was all")
    };
    let there = "mkdir -p checkpoints; truncate -s 200M checkpoints/x";
    run(&project, there, &format!("{EXTRACT}, #{{ checkpoint: \"checkpoints/x\" }});"), lie).ends(3);
    let kept: Vec<_> = written(&project).into_iter().filter(|file| !file.ends_with(".part")).collect();
    assert_eq!(kept, [""; 0]);
    let partly = project.path("work/checkpoints/x.part").metadata().map_or(0, |part| part.len());
    assert!(partly < 100 << 20, "{partly} bytes");
}

#[test]
fn a_secret_file_is_no_checkpoint() {
    let project = Project::new();
    project.file("work/.env", "HF_TOKEN=hf_secret");
    let outcome = run(&project, "", &format!("{EXTRACT}, #{{ checkpoint: \".env\" }});"), Answer::faithful).ends(1);
    assert!(outcome.stderr.contains("is \".env\", not a file in the project"), "{}", outcome.stderr);
    assert!(!project.files("home").iter().any(|file| file.ends_with(".env")), "it was sent");
}

#[test]
pub fn the_reply_does_not_say_where_all_values_are_put() {
    let project = Project::new();
    let lie = |answer: &mut Answer| {
        if !answer.asks("Extract") {
            return answer.faithful();
        }
        let mut reply = honest(answer.op()).unwrap();
        reply["Activations"]["full_activations"] = "../elsewhere".into();
        answer.reply(reply)
    };
    let outcome = run(&project, BAIT, &format!("{EXTRACT});"), lie).ends(3);
    assert!(outcome.stderr.contains("the folder of all values"), "{}", outcome.stderr);
    run(&project, BAIT, &format!("{EXTRACT}, #{{ keep: \"full\", out: \"out\" }});"), lie).ends(3);
    assert_eq!(written(&project), [""; 0]);
    // What was asked for comes.
    run(&project, BAIT, &format!("{EXTRACT}, #{{ keep: \"full\", out: \"out\" }});"), Answer::faithful).ends(0);
    assert_eq!(written(&project), ["work/out/activations.safetensors"]);
}

/// A script with calls of every kind, each caught. It prints what was caught, one line each.
fn every_call() -> String {
    let calls = [
        "gpu.estimate_vram(\"m\", #{})",
        "gpu.miniature_model(\"olmoe\")",
        "load_tokens(#{ text: \"t.txt\", model: model, num_sequences: 1, sequence_length: 2 })",
        "model.extract_layernorms(tokens)",
        "model.encode(\"one two\")",
        "model.decode([7, 8])",
        "gpu.load_model(\"other\")",
    ];
    let tried = calls.map(|call| {
        format!("try {{ {call}; print(\"done\"); }} catch (e) {{ print(`${{e.kind}}: ${{e.message}}`); }}\n")
    });
    format!(
        "let model = gpu.load_model(\"m\");\nlet tokens = load_tokens(#{{ ids: [[1, 2], [3, 4]] }});\n{}",
        tried.concat()
    )
}

#[test]
pub fn a_reply_of_the_wrong_kind_is_an_error() {
    let project = Project::new();
    project.file("work/t.txt", "one two three");
    assert_eq!(run(&project, "", &every_call(), Answer::faithful).ok(), "done\n".repeat(7));
    for wrong in ["Load", "Tokens", "Extract", "Estimate", "Miniature", "Encode", "Decode"] {
        let lie = move |answer: &mut Answer| {
            let (op, first) = (answer.op().clone(), answer.op()["Load"]["id"] == "m");
            if !op.is_object() || first {
                return answer.faithful();
            }
            // The right reply to another request.
            let tokens = json!({ "ids": [[1]], "info": { "num_sequences": 1, "sequence_length": 1, "sha256": "", "source": "" } });
            let args =
                json!({ "id": "m", "folder": "f", "name": "n", "model": { "id": "m" }, "tokens": tokens, "args": {} });
            answer.reply(honest(&json!({ wrong: args })).unwrap())
        };
        let said = run(&project, "", &every_call(), lie).ok();
        let wrong =
            said.lines().filter(|line| line.starts_with("corrupt: ") && line.contains("no answer to what was asked"));
        // One of the seven calls is answered by its own kind, and may be content.
        assert!(wrong.count() >= 6 && said.lines().count() == 7, "{said}");
    }
}

#[test]
fn a_record_that_was_not_asked_for_is_refused() {
    let lies: Vec<(&str, Value)> = vec![
        ("/num_layers", json!(1u64 << 62)),
        ("/hidden_size", json!(1u64 << 62)),
        ("/num_sequences", json!(3)),
        ("/sequence_length", json!(1)),
        ("/sequence_length", json!(u64::MAX)),
        ("/model/id", json!("another")),
        ("/model/num_layers", json!(u64::MAX)),
        ("/tokens/num_sequences", json!(7)),
        ("/tokens/sha256", json!("0")),
        ("/norms", json!([])),
        ("/norms/0/layer", json!(99)),
        ("/norms/1", json!({ "layer": 0, "site": "input_layernorm" })),
        ("/ladder", json!([])),
        ("/ladder/0", json!(-3.0)),
        ("/all/norms", json!([])),
        ("/all/norms/0/1/max", json!([0.0])),
        ("/all/any_norm", json!([])),
        ("/without_first/norms/3", json!([])),
        ("/all/norms/0/0/positive", json!({ "features": [1, 2], "ends": [4_000_000_000u32, 1], "counts": [7] })),
        ("/all/norms/0/0/negative", json!({ "features": [4_000_000_000u32], "ends": [1], "counts": [1] })),
        (
            "/non_finite",
            json!([{ "norm": { "layer": 0, "site": "input_layernorm" }, "sequence": 9, "nan": 1, "infinite": 0 }]),
        ),
        ("/expert_coverage", json!([{ "layer": 77, "tokens_per_expert": [1] }])),
        ("/expert_coverage", json!([{ "layer": 0, "tokens_per_expert": vec![1; 100] }])),
        ("/mean_nll", json!([0.0, 0.0])),
        ("/measurements/completion_time", json!("x".repeat(10_000))),
        ("/measures/moments", json!([moments()])),
        ("/measures/top", json!([{ "layer": 0, "site": "input_layernorm", "values": [] }])),
        ("/measures/massive", json!([{ "layer": 0, "activations": [], "sinks": [] }])),
        ("/measures/modules", json!([{ "module": "a", "gguf": "a", "layer": 0, "site": "input_layernorm" }])),
        ("/sites", json!([ladders_of_a_site()])),
    ];
    refused("model.extract_layernorms(tokens)", lies);
}

/// Moments of a site of the hostile worker's model, for the two sequences of two tokens of these tests.
fn moments() -> Value {
    let zeros = [0.0; HIDDEN];
    json!({
        "layer": 0, "site": "input_layernorm", "width": HIDDEN, "rows": [4], "non_finite": 0,
        "max_median": { "rows": 0, "mean": 0.0, "max": 0.0 },
        "channels": { "max": zeros, "min": zeros, "sum": zeros, "sum2": zeros, "sumabs": zeros, "sum3": zeros, "sum4": zeros },
    })
}

fn ladders_of_a_site() -> Value {
    let (empty, zeros) = (json!({ "features": [], "ends": [], "counts": [] }), [0.0; HIDDEN]);
    let cell = json!({ "max": zeros, "min": zeros, "positive": empty, "negative": empty });
    let fold = json!({ "norms": vec![vec![cell; 2]], "any_norm": vec![empty; 2] });
    json!({ "site": "resid_post", "width": HIDDEN, "layers": [0], "all": fold, "without_first": fold, "non_finite": [] })
}

#[test]
fn measurements_that_cannot_be_are_refused() {
    let with = |place: &str, lie: Value| {
        let mut of = moments();
        *of.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = lie;
        ("/measures/moments", json!([of]))
    };
    let value = |sequence: u64, dim: u64| {
        json!([{ "layer": 0, "site": "input_layernorm",
            "values": [{ "value": 1.0, "sequence": sequence, "position": 0, "token_id": 1, "dim": dim }] }])
    };
    let lies = vec![
        ("/measures/moments", json!([moments(), moments()])),
        with("/layer", json!(2)),
        with("/site", json!("resid_post")),
        with("/width", json!(1u64 << 62)),
        with("/rows", json!([])),
        with("/rows", json!([5])),
        with("/channels/max", json!([0.0])),
        with("/channels/sum2", json!([-1.0, 0.0, 0.0, 0.0])),
        with("/channels/sum", json!([null, 0.0, 0.0, 0.0])),
        ("/measures/version", json!(2)),
        ("/measures/top", value(2, 0)),
        ("/measures/top", value(0, HIDDEN as u64)),
        ("/measures/massive", json!([{ "layer": 0, "activations": [], "sinks": [] }])),
        ("/sites", json!([ladders_of_a_site()])),
    ];
    refused("model.extract(tokens, #{ sites: [\"attn_in\"], observe: [\"moments\", \"top\"] })", lies);
}

/// Lets a machine lie at each of these places in the record that it gives for `call`. All but the truth are `corrupt`.
fn refused(call: &str, lies: Vec<(&'static str, Value)>) {
    let count = lies.len();
    let call_measures = call.contains("moments");
    let next = AtomicUsize::new(0);
    let lie = move |answer: &mut Answer| {
        let mut reply = honest(answer.op()).unwrap_or_default();
        let Some(record) = reply.get_mut("Activations") else { return answer.faithful() };
        // Without any, measurements of another version say nothing.
        if call_measures {
            record["measures"]["moments"] = json!([moments()]);
        }
        if let Some((place, lie)) = lies.get(next.fetch_add(1, Ordering::Relaxed)) {
            *record.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = lie.clone();
        }
        answer.reply(reply)
    };
    let script = format!(
        "let model = gpu.load_model(\"m\");\nlet tokens = load_tokens(#{{ ids: [[1, 2], [3, 4]] }});
        for i in 0..{} {{
            try {{ {call}; print(`${{i}} done`); }} catch (e) {{ print(`${{i}} ${{e.kind}}`); }}
        }}",
        count + 1
    );
    let said = run(&Project::new(), "", &script, lie).ok();
    let expected: String = (0..count).map(|i| format!("{i} corrupt\n")).collect();
    assert_eq!(said, format!("{expected}{count} done\n"));
}

#[test]
fn a_model_or_tokens_that_cannot_be_are_refused() {
    let project = Project::new();
    project.file("work/t.txt", "one two three");
    for (place, lie) in [
        ("/Model/info/num_layers", json!(1u64 << 40)),
        ("/Model/info/hidden_size", json!(u64::MAX)),
        ("/Model/info/vocab_size", json!(u64::MAX)),
        ("/Model/info/id", json!("another")),
        ("/Model/folder", json!("x".repeat(100_000))),
        ("/Tokens/ids", json!([[1], [2], [3]])),
        ("/Tokens/ids/0", json!([9, 9])),
        ("/Tokens/info/sequence_length", json!(u64::MAX)),
        ("/Miniature/path", json!("/etc")),
        ("/Ids", json!([])),
        ("/Ids/0", json!(vec![7; 10_000])),
        ("/Texts", json!(["seven", "eight"])),
        ("/Texts/0", json!("x".repeat(10_000))),
    ] {
        let tell = move |answer: &mut Answer| {
            let mut reply = honest(answer.op()).unwrap_or_default();
            // The first model is a real one: there must be something to ask about.
            match reply.pointer_mut(place).filter(|_| answer.op()["Load"]["id"] != "m") {
                Some(value) => *value = lie.clone(),
                None => return answer.faithful(),
            }
            answer.reply(reply)
        };
        let said = run(&project, "", &every_call(), tell).ok();
        assert_eq!(said.matches("corrupt: ").count(), 1, "{place}: {said}");
        assert_eq!(said.matches("done").count(), 6, "{place}: {said}");
    }
}

#[test]
pub fn a_frame_larger_than_the_answer_can_be_is_not_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let lie = move |answer: &mut Answer| {
        if !answer.asks("Load") {
            return answer.faithful();
        }
        answer.bytes(&(256u64 << 20).to_le_bytes());
        let piece = vec![0; 1 << 20];
        (0..256).take_while(|_| answer.bytes(&piece)).for_each(|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        false
    };
    let outcome = run(&Project::new(), "", "gpu.load_model(\"m\");", lie).ends(3);
    assert!(outcome.stderr.contains("an answer of 268435456 bytes, where at most"), "{}", outcome.stderr);
    assert!(sent.load(Ordering::Relaxed) < 64, "{} MiB were taken", sent.load(Ordering::Relaxed));
}

#[test]
fn answers_that_are_none_end_the_call() {
    let frames: [&[u8]; 4] = [b"", b"\xc1", b"\x93\x93\x93", b"\xdd\xff\xff\xff\xff"];
    for frame in frames {
        let lie = move |answer: &mut Answer| match answer.asks("Load") {
            true => answer.bytes(&(frame.len() as u64).to_le_bytes()) && answer.bytes(frame),
            false => answer.faithful(),
        };
        let outcome = run(&Project::new(), "", "gpu.load_model(\"m\");", lie).ends(3);
        assert!(outcome.stderr.contains("an answer that is none"), "{}", outcome.stderr);
    }
    // Of another call.
    let lie = |answer: &mut Answer| match answer.asks("Load") {
        true => answer.frame(&json!({ "Event": { "id": "x", "event": "End" } })),
        false => answer.faithful(),
    };
    let outcome = run(&Project::new(), "", "gpu.load_model(\"m\");", lie).ends(3);
    assert!(outcome.stderr.contains("a call that was not made here"), "{}", outcome.stderr);
}

#[test]
fn events_are_bounded_in_what_they_say() {
    let lie = |answer: &mut Answer| match answer.asks("Load") {
        true => (0..40).all(|_| answer.event(json!({ "Warning": "x".repeat(1 << 20) }))),
        false => answer.faithful(),
    };
    let outcome = run(&Project::new(), "", "gpu.load_model(\"m\");", lie).ends(3);
    assert!(outcome.stderr.contains("bytes of text in the events of one call"), "{}", &outcome.stderr[..1000]);
    assert!(outcome.stderr.len() < 1 << 20, "{} bytes were shown", outcome.stderr.len());
}

#[test]
fn absurd_progress_is_shown_without_a_panic() {
    let lie = |answer: &mut Answer| {
        if answer.asks("Load") {
            answer.event(json!({ "Begin": { "what": "x", "total": u64::MAX } }));
            answer.event(json!({ "Resumed": { "path": "x", "layer": u64::MAX } }));
            answer.event(json!({ "Step": { "done": u64::MAX, "bytes": u64::MAX, "tokens": u64::MAX } }));
            // From then on a line is written about it.
            std::thread::sleep(Duration::from_secs(11));
            answer.event(json!({ "Step": { "done": 1, "bytes": u64::MAX, "tokens": u64::MAX } }));
            answer.event(json!({ "Begin": { "what": "y", "total": 0 } }));
            answer.event(json!({ "Step": { "done": 0, "bytes": 0, "tokens": 0 } }));
        }
        answer.faithful()
    };
    run(&Project::new(), "", "with_log(\"work\", || gpu.load_model(\"m\"));", lie).ends(0);
}

/// Events that a machine reports while nobody listens arrive together. Rates are those of its
/// clock, or none.
#[test]
fn rates_are_those_of_the_clock_of_the_machine() {
    let shown = |seconds: Option<f64>| {
        let lie = move |answer: &mut Answer| {
            if answer.asks("Load") {
                let step = |done: u64, bytes: u64| {
                    let mut step = json!({ "Step": { "done": done, "bytes": bytes, "tokens": 100 } });
                    if let Some(seconds) = seconds {
                        step["Step"]["seconds"] = (seconds * done as f64).into();
                    }
                    step
                };
                answer.event(json!({ "Begin": { "what": "x", "total": 4 } }));
                answer.event(step(3, 1_000_000_000));
                answer.event(step(4, 2_000_000_000));
            }
            answer.faithful()
        };
        let outcome = run(&Project::new(), "", "gpu.load_model(\"m\");", lie).ends(0);
        outcome.stderr.lines().find(|line| line.starts_with("x: 4/4")).unwrap_or_default().to_string()
    };
    // Four layers of 100 tokens in 10 seconds.
    assert_eq!(shown(Some(2.5)), "x: 4/4 0.20 GB/s 40 tokens/s/layer ETA 0 s");
    assert_eq!(shown(None), "x: 4/4 ETA 0 s");
}

#[track_caller]
fn is_plain(text: &str) {
    assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
}

const ESCAPES: &str = "\u{1b}]0;pwned\u{7}\u{1b}[31mred\u{1b}[2J\u{9b}1m\r\u{202e}";

#[test]
pub fn a_machine_does_not_order_the_terminal_about() {
    let project = Project::new();
    let lie = |answer: &mut Answer| {
        if !answer.asks("Load") {
            return answer.faithful();
        }
        answer.event(json!({ "Warning": format!("{ESCAPES}\n2099-01-01T00:00:00Z done") }));
        answer.event(json!({ "Begin": { "what": ESCAPES, "total": 1 } }));
        answer.event(json!({ "Step": { "done": 1, "bytes": 1, "tokens": 1 } }));
        answer.error("NotFound", ESCAPES)
    };
    let script = r#"
        let out = gpu.run_command("printf '\\033[31mred\\007\\n' >&2; printf '\\033[2J'");
        print(out.out.contains("\x1b[2J") && out.err.contains("\x1b[31mred\x07"));
        with_log("work", || gpu.load_model("m"));
    "#;
    let outcome = run(&project, "", script, lie).ends(3);
    assert_eq!(outcome.stdout, "true\n", "a script gets what was written");
    is_plain(&outcome.stderr);
    for shown in [
        r"\u{1b}[31mred\u{7}",
        r"\u{1b}[2J",
        r"warning: \u{1b}]0;pwned",
        r"error: on localhost: \u{1b}]0;pwned",
        r"\u{202e}",
    ] {
        assert!(outcome.stderr.contains(shown), "{shown} in {}", outcome.stderr);
    }
    let log = project.text("work/logs/work.log");
    is_plain(&log);
    assert!(log.contains(r"\u{1b}]0;pwned") && log.lines().all(|line| !line.starts_with("2099")), "{log}");
}

#[test]
fn what_a_machine_says_of_its_driver_is_a_part_of_one_line() {
    let lie = |answer: &mut Answer| {
        if answer.request != "Status" {
            return answer.faithful();
        }
        let said = format!("{ESCAPES}\n{}", "x".repeat(100_000));
        let mut status = status();
        status["no_gpu"] = json!({ "driver": true, "error": { "kind": "Unsupported", "message": said, "hint": said } });
        answer.frame(&json!({ "Status": status }))
    };
    let outcome = run(&Project::new(), "", "", lie).ends(0);
    is_plain(&outcome.stderr);
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert!(lines[0].contains("the CPU computes; \\u{1b}]0;pwned"), "{lines:?}");
    assert!(lines.iter().all(|line| line.len() < 1200 && !line.starts_with('x')), "{lines:?}");
}

/// Printed text is data in a file, and is made visible on a terminal.
#[test]
fn what_is_printed_does_not_order_the_terminal_about() {
    let project = Project::new();
    project.file("script.rhai", "print(\"a\\x1b[31mb\"); print(#{ x: \"\\x07\" }); throw \"\\x1b[2J\";");
    let raw = project.run(&["run", "script.rhai"]);
    assert!(raw.stdout.contains("a\u{1b}[31mb"));
    is_plain(&raw.stderr);
    let (mut terminal, mut end) = (0, 0);
    let none = std::ptr::null_mut();
    // SAFETY: both are valid places for descriptors, the rest is left out.
    assert_eq!(unsafe { libc::openpty(&mut terminal, &mut end, none, none.cast(), none.cast()) }, 0);
    use std::os::fd::{FromRawFd, OwnedFd};
    // SAFETY: nobody else has these descriptors.
    let (mut terminal, end) = unsafe { (std::fs::File::from_raw_fd(terminal), OwnedFd::from_raw_fd(end)) };
    let mut command = project.command(&["run", "script.rhai"]);
    let mut child = command.stdout(end.try_clone().unwrap()).stderr(end).spawn().unwrap();
    drop(command);
    child.wait().unwrap();
    let mut shown = Vec::new();
    // The end of a terminal whose other side is closed is an error.
    let _ = std::io::Read::read_to_end(&mut terminal, &mut shown);
    let shown = String::from_utf8(shown).unwrap().replace("\r\n", "\n");
    is_plain(&shown);
    assert!(shown.contains(r"a\u{1b}[31mb") && shown.contains(r"error: \u{1b}[2J"), "{shown}");
}

/// Starts a run, waits until the worker is frozen, presses Ctrl-C once, and returns how the run
/// ended.
fn interrupted(
    project: &Project,
    script: &str,
    still: impl Fn(&mut Answer) -> bool + Send + Sync + 'static,
) -> Outcome {
    let reached = Arc::new(AtomicBool::new(false));
    let here = reached.clone();
    let lie = move |answer: &mut Answer| match still(answer) {
        true => {
            here.store(true, Ordering::Relaxed);
            answer.nothing()
        }
        false => answer.faithful(),
    };
    let worker = HostileWorker::start(program(), "", lie);
    let mut command = command(&worker, project, script);
    command.env("HF_TOKEN", "hf_test").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = command.spawn().unwrap();
    interrupt::wait_until(&mut child, "the worker stands still", || reached.load(Ordering::Relaxed));
    std::thread::sleep(Duration::from_millis(300));
    interrupt::interrupt(&child);
    interrupt::ending(child)
}

#[test]
pub fn one_interrupt_ends_the_wait_for_a_worker_that_stands_still() {
    let load = "gpu.load_model(\"m\");";
    let still = |what: &'static str| move |answer: &mut Answer| answer.asks(what);
    std::thread::scope(|scope| {
        for what in [GREETING, "HubToken", "Status", "Load"] {
            scope.spawn(move || interrupted(&Project::new(), load, still(what)).ends(INTERRUPTED));
        }
    });
}

/// A request that is larger than the system's buffer for a reader that does not read.
#[test]
fn one_interrupt_ends_sending_to_a_worker_that_does_not_read() {
    let project = Project::new();
    project.file("work/t.txt", "lorem ipsum ".repeat(1 << 20));
    let script = "let model = gpu.load_model(\"m\");
        load_tokens(#{ text: \"t.txt\", model: model, num_sequences: 1, sequence_length: 2 });";
    let loaded = AtomicBool::new(false);
    let still = move |answer: &mut Answer| {
        loaded.fetch_or(answer.asks("Load"), Ordering::Relaxed);
        // Everybody is greeted, and once the model is loaded nothing more is read.
        answer.request == GREETING && loaded.load(Ordering::Relaxed) && answer.faithful()
    };
    interrupted(&project, script, still).ends(INTERRUPTED);
}

#[test]
fn a_worker_that_stands_still_is_given_up_after_the_patience() {
    let begun = AtomicBool::new(false);
    let lie = move |answer: &mut Answer| match begun.load(Ordering::Relaxed) && answer.request != GREETING {
        true => answer.nothing(),
        false => {
            begun.fetch_or(answer.asks("Status"), Ordering::Relaxed);
            answer.faithful()
        }
    };
    let project = Project::new();
    let worker = HostileWorker::start(program(), "", lie);
    let mut command = command(&worker, &project, "gpu.load_model(\"m\");");
    command.env("HF_TOKEN", "hf_test").stdout(Stdio::piped()).stderr(Stdio::piped());
    let outcome = interrupt::ending(command.spawn().unwrap()).ends(3);
    assert!(outcome.stderr.contains("not reached for"), "{}", outcome.stderr);
}

#[test]
fn a_worker_that_does_not_end_does_not_hold_the_run() {
    let lie = |answer: &mut Answer| if answer.asks("End") { answer.nothing() } else { answer.faithful() };
    let project = Project::new();
    let worker = HostileWorker::start(program(), "", lie);
    let mut command = command(&worker, &project, "print(gpu.name.len() > 0);");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(interrupt::ending(child).ok(), "true\n");
}
