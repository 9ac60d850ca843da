//! Tests of input that asks for too much or has no meaning: JSON that grows in memory, losses and
//! measurements that are not numbers, a system without threads, pipes in place of keys, and endless
//! names.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::fake_hub::hostile::Hostile;
use crate::fake_hub::{Hub, Model, Mood};
use crate::hostile_worker::{Answer, HostileWorker, honest};
use crate::interrupt::{ending, start};
use crate::project::{FINAL, Outcome, Project, program};
use crate::schema;

/// The exit code of a script whose model, file or machine failed.
const FAILED: i32 = 3;
/// Available memory in kilobytes: more than a program takes that reads the file, and less than a
/// tree of it takes.
const MEMORY: u32 = 1_500_000;
const PROVISION: &str =
    "let gpu = provision_gpu(#{ provider: \"ssh\", host: \"localhost\", patience_minutes: 0.02 });\n";

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

/// The same command with so much memory available and no more.
fn limited(command: &Command, folder: &Project) -> Child {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\"")]).arg(command.get_program());
    limited.args(command.get_args()).current_dir(folder.path(""));
    limited.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?)))).env("RAYON_NUM_THREADS", "2");
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A script that may hang, or ask for more memory than available.
fn small(project: &Project, script: &str) -> Outcome {
    project.file("script.rhai", script);
    ending(limited(&project.command(&["run", "script.rhai"]), project))
}

/// A list of objects with a text of so many megabytes.
fn bomb(megabytes: usize) -> String {
    format!("[{}0]", "{\"a\":0},".repeat(megabytes << 17))
}

#[test]
fn json_that_grows_in_memory_is_refused_wherever_it_comes_from() {
    let project = project();
    for (file, begin) in
        [("config.json", r#"{"model_type":"llama","x":"#), ("tokenizer.json", r#"{"version":"1.0","x":"#)]
    {
        project.copy("examples/shakespeare-olmoe", "bomb");
        project.file(&format!("bomb/{file}"), format!("{begin}{}}}", bomb(if file == "config.json" { 3 } else { 60 })));
        let script = "let m = load_model(\"bomb\");
            load_tokens(#{ text: \"model/config.json\", format: \"text\", model: m, num_sequences: 1, sequence_length: 4 });";
        let outcome = small(&project, script).ends(FAILED);
        assert!(outcome.stderr.contains("values, which no such text has"), "{file}: {}", outcome.stderr);
    }
    project.copy("examples/shakespeare-olmoe", "bomb");
    project.file("bomb/config.json", format!("{{\"x\":{}}}", bomb(60)));
    let outcome = small(&project, "load_model(\"bomb\")").ends(FAILED);
    assert!(outcome.stderr.contains("more than any config.json has"), "{}", outcome.stderr);
}

#[test]
fn the_json_of_a_hub_takes_no_more_memory_than_what_is_needed_of_it() {
    let project = project();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let description = format!("{{\"sha\":\"{commit}\",\"x\":{}}}", bomb(40)).into_bytes();
    let hub = Hub::start().with("datasets/lab/texts", Model::Folder(project.path("model")));
    let hostile = Hostile::Answer("revision/main", "200 OK", vec![], description);
    hub.mood(Mood { hostile: vec![hostile], ..Mood::default() });
    let script =
        "load_tokens(#{ dataset: \"lab/texts\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 8 });";
    let outcome = ending(limited(&hub.command(&project, script), &project)).ends(FAILED);
    // What it needed was there: the commit.
    assert!(outcome.stderr.contains("no Parquet, JSON or CSV files of a config"), "{}", outcome.stderr);
}

#[test]
fn the_json_of_a_provider_that_grows_in_memory_is_refused() {
    let (hub, project) = (Hub::start(), Project::new());
    let hostile = Hostile::Answer("/v2/pods", "200 OK", vec![], bomb(30).into_bytes());
    hub.mood(Mood { hostile: vec![hostile], ..Mood::default() });
    let mut command = project.command(&["gpus", "--all"]);
    command.env("OUTLIER_RUNPOD_URL", &hub.address).env("RUNPOD_API_KEY", "rpa_mine");
    let outcome = ending(limited(&command, &project));
    assert!(outcome.stderr.contains("values, which no such text has"), "{}", outcome.stderr);
}

const SAVE: &str = "let m = load_model(\"model\"); let t = load_tokens(#{ ids: [[5, 6, 7, 8], [1, 2, 3, 4]] });
    let acts = m.extract_layernorms(t); save_results(\"x\", #{ activations: acts, found: acts.detect_outliers() });\n";

#[test]
fn settings_of_a_result_that_grow_in_memory_are_refused() {
    let project = project();
    project.script(SAVE).ok();
    let path = format!("results/x/{FINAL}");
    let mut json = project.json(&path);
    json["settings"] = json!({ "mark": 7 });
    let text = json.to_string().replace(r#"{"mark":7}"#, &format!("{{\"x\":{}}}", bomb(40)));
    project.file(&path, text);
    let outcome = small(&project, "load_results(\"x\")").ends(FAILED);
    assert!(outcome.stderr.contains("`settings`: more than"), "{}", outcome.stderr);
}

/// Gives the head of the model weights that are finite and far too large.
fn with_huge_head(project: &Project) {
    let mut data = project.bytes("model/model.safetensors");
    let (start, length) = {
        let tensors = SafeTensors::deserialize(&data).unwrap();
        let head = tensors.tensor("lm_head.weight").unwrap().data();
        (head.as_ptr() as usize - data.as_ptr() as usize, head.len())
    };
    // bfloat16, about 3e38 with the sign that was there.
    for value in data[start..start + length].chunks_exact_mut(2) {
        value.copy_from_slice(&[0x60, (value[1] & 0x80) | 0x7f]);
    }
    project.file("model/model.safetensors", data);
}

#[test]
pub fn an_analysis_with_infinite_losses_is_saved_and_loaded() {
    let project = project();
    project.script(SAVE).ok();
    with_huge_head(&project);
    let script = "let t = load_tokens(#{ ids: [[5, 6, 7, 8], [1, 2, 3, 4]] });
        let acts = load_model(\"model\").extract_layernorms(t, #{ logits: true });
        save_results(\"x\", #{ activations: acts, found: acts.detect_outliers() });
        let losses = load_results(\"x\").activations.mean_nll;
        print(`${losses.len()} ${type_of(losses[0])} ${losses[0].is_finite()}`);
        try { acts.perplexity(); } catch (e) { print(e.message); }";
    let said = project.script(script).ok();
    assert!(said.starts_with("2 f64 false\n") && said.contains("is among the values of the sequences"), "{said}");
    let json = project.json(&format!("results/x/{FINAL}"));
    let is_named = |loss: &Value| ["Infinity", "-Infinity", "NaN"].iter().any(|name| loss == name);
    assert!(json["mean_nll"].as_array().unwrap().iter().all(is_named), "{}", json["mean_nll"]);
    schema::check(&json, "final_analysis_results");
}

/// A run of `script` with a machine that lies.
fn with_worker(project: &Project, script: &str, lie: impl Fn(&mut Answer) -> bool + Send + Sync + 'static) -> Outcome {
    project.file("work/script.rhai", format!("{PROVISION}{script}"));
    let worker = HostileWorker::start(program(), "", lie);
    let mut command = project.command(&["run", "--allow-commands", "script.rhai"]);
    command.current_dir(project.path("work"));
    let mut command = worker.command(command, &project.path("home"));
    ending(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// A float that JSON can hold replaces one that it cannot hold in an answer.
const MARK: f64 = 123456789.25;

#[test]
pub fn measurements_that_are_no_numbers_replace_no_analysis() {
    let lies = Arc::new([
        ("wall_seconds", f64::NAN),
        ("tokens_per_second", f64::INFINITY),
        ("waited_for_weights_seconds", f64::NEG_INFINITY),
        ("read_bytes_per_second", -1.0),
        ("machine_cost_usd", f64::NAN),
    ]);
    let count = lies.len();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let lie = move |answer: &mut Answer| {
        if !answer.asks("Extract") {
            return answer.faithful();
        }
        let Some((key, number)) = lies.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) else {
            return answer.faithful();
        };
        let mut reply = honest(answer.op()).unwrap();
        reply["Activations"]["measurements"][*key] = json!(MARK);
        let id = answer.request["Call"]["id"].clone();
        let outcome = json!({ "Outcome": { "id": id, "outcome": { "Ok": reply } } });
        let mut frame = rmp_serde::to_vec_named(&outcome).unwrap();
        let mark = MARK.to_be_bytes();
        let at = frame.windows(8).position(|window| window == mark).unwrap();
        frame[at..at + 8].copy_from_slice(&number.to_be_bytes());
        answer.bytes(&(frame.len() as u64).to_le_bytes()) && answer.bytes(&frame)
    };
    let script = format!(
        "let m = gpu.load_model(\"m\"); let t = load_tokens(#{{ ids: [[1, 2], [3, 4]] }});
         for i in 0..{} {{
             try {{ let a = m.extract_layernorms(t); save_results(\"x\", #{{ activations: a, found: a.detect_outliers() }});
                 print(\"saved\"); }} catch (e) {{ print(e.kind); }}
         }}
         load_results(\"x\");",
        count + 1
    );
    let said = with_worker(&Project::new(), &script, lie).ok();
    assert_eq!(said, format!("{}saved\n", "corrupt\n".repeat(count)));
}

#[test]
fn tokens_without_a_position_are_no_answer() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "work/model").file("work/t.txt", "one two three");
    let none = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for rows in [0, 2] {
        let lie = move |answer: &mut Answer| {
            if !answer.asks("Tokens") {
                return answer.faithful();
            }
            let info = json!({ "source": "there", "revision": null, "num_sequences": rows, "sequence_length": 0, "sha256": none });
            let ids = vec![Vec::<u32>::new(); rows];
            answer.reply(json!({ "Tokens": { "ids": ids, "info": info } }))
        };
        let script = format!(
            "let m = gpu.load_model(\"m\");
             let t = load_tokens(#{{ text: \"t.txt\", model: m, num_sequences: {}, sequence_length: 4 }});
             load_model(\"model\").extract_layernorms(t);",
            rows.max(1)
        );
        let outcome = with_worker(&project, &script, lie).ends(FAILED);
        assert!(outcome.stderr.contains("no answer to what was asked"), "{rows}: {}", outcome.stderr);
    }
}

#[test]
fn texts_deep_below_an_analysis_are_written_while_it_is_saved() {
    let project = project();
    let again = "for i in 0..60 { save_results(\"x\", #{ activations: acts, found: acts.detect_outliers() }); }";
    project.file("save.rhai", format!("{SAVE}{again}"));
    let mut saving = start(&project, &["run", "save.rhai"]);
    crate::interrupt::wait_until(&mut saving, "an analysis", || project.has(&format!("results/x/{FINAL}")));
    let script = "for i in 0..300 { write_text(\"results/x/y/sub/deep.txt\", `${i}`); }";
    project.script(script).ok();
    ending(saving).ok();
    assert_eq!(project.text("results/x/y/sub/deep.txt"), "299");
    let left: Vec<String> = project.files("results").into_iter().filter(|file| file.contains("partial")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Starts a command with so many threads and processes available to its user. If the user of these
/// tests may have any number, as root may, it runs as the user `other`.
fn with_threads(mut command: Command, most: u64, other: libc::uid_t) -> Child {
    // SAFETY: system calls only, between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            if libc::setrlimit(libc::RLIMIT_NPROC, &limit) != 0 || (libc::geteuid() == 0 && libc::setuid(other) != 0) {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_system_without_threads_is_an_error_and_no_panic() {
    let project = project();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(project.path(""), mode).unwrap();
    // Where the program is, another user may not be let in.
    std::fs::copy(program(), project.path("outlier")).unwrap();
    // Those that ask somebody are asked for threads before they ask: with more of them they would wait for an answer.
    let cases = [
        ("load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));", &[1, 3, 4, 6, 8][..]),
        ("provision_gpu(#{ provider: \"ssh\", host: \"localhost\" });", &[1, 3, 4, 6, 8]),
        ("load_model(\"lab/model\");", &[1, 3, 4]),
        (
            "load_tokens(#{ dataset: \"lab/texts\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 8 });",
            &[1, 3, 4],
        ),
        ("provision_gpu(#{ provider: \"runpod\", gpu: \"H100\", max_price: 3.0 });", &[1, 3, 4]),
    ];
    // A user who has no other processes, in each case.
    let mut other = 1_000_000 + 100 * std::process::id();
    for (script, limits) in cases {
        for &most in limits {
            project.file("script.rhai", script);
            let usual = project.command(&["run", "--allow-commands", "script.rhai"]);
            let mut command = Command::new(project.path("outlier"));
            command.args(usual.get_args()).current_dir(project.path("")).stdin(Stdio::null());
            command.envs(usual.get_envs().filter_map(|(key, value)| Some((key, value?))));
            command.env("OUTLIER_RUNPOD_URL", "http://127.0.0.1:9").env("RUNPOD_API_KEY", "rpa_mine");
            command.env("HF_ENDPOINT", "http://localhost:9").env("HOME", project.path("home"));
            other += 1;
            // A panic of any thread fails this.
            let outcome = ending(with_threads(command, most, other));
            assert!([0, 1, FAILED].contains(&outcome.code), "{script} {most}: {} {}", outcome.code, outcome.stderr);
            if most == 1 {
                assert!(outcome.stderr.contains("error: "), "{script}: {}", outcome.stderr);
            }
        }
    }
}

#[test]
pub fn messages_stay_short_whatever_stands_in_files_and_names() {
    let project = project();
    project.script(SAVE).ok();
    let path = format!("results/x/{FINAL}");
    let json = project.json(&path);
    let long = "x".repeat(100_000);
    let lies = [
        ("schema_version", json!(long)),
        ("schema_version", json!([1, 2, 3])),
        ("pooled", json!(long)),
        ("settings", json!(long)),
        ("intervals", json!({ "args": { "method": long } })),
        ("measurements", json!(long)),
        ("record", json!(long)),
    ];
    for (key, lie) in lies {
        let mut broken = json.clone();
        broken[key] = lie;
        project.file(&path, broken.to_string());
        let outcome = project.script("load_results(\"x\")").ends(FAILED);
        assert!(outcome.stderr.contains(FINAL) && outcome.stderr.len() < 2000, "{key}: {} bytes", outcome.stderr.len());
    }
    let name = "let name = \"ab\"; for i in 0..20 { name += name; }";
    for call in ["load_model(name)", "load_results(name)", "load_tokens(#{ ids: name })", "miniature_model(name)"] {
        let outcome = project.script(&format!("{name}\n{call};"));
        assert!(outcome.code != 0 && outcome.stderr.len() < 20_000, "{call}: {} bytes", outcome.stderr.len());
    }
}

#[test]
pub fn pipes_and_devices_are_no_keys_and_are_not_sent() {
    let project = Project::new();
    let pipe = project.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (option, path) in [("key", "pipe"), ("known_hosts", "pipe"), ("key", "/dev/zero"), ("known_hosts", "/dev/zero")]
    {
        let script = format!(
            "provision_gpu(#{{ provider: \"ssh\", host: \"root@127.0.0.1:9\", {option}: {path:?}, patience_minutes: 0.02 }});"
        );
        project.file("script.rhai", script);
        let outcome = ending(start(&project, &["run", "script.rhai"])).ends(FAILED);
        assert!(outcome.stderr.contains("not a regular file"), "{option} {path}: {}", outcome.stderr);
    }
    std::fs::create_dir_all(project.path("work")).unwrap();
    assert!(Command::new("mkfifo").arg(project.path("work/pipe")).status().unwrap().success());
    let outcome = with_worker(&project, "gpu.upload(\"pipe\", \"x\");", |answer| answer.faithful()).ends(FAILED);
    assert!(outcome.stderr.contains("not a regular file"), "{}", outcome.stderr);
}
