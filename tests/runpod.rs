//! Tests of rented machines, with a simulated RunPod on this machine whose pods are real SSH
//! servers: no machine is left and no result is lost, whatever the service does.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::emulated_gpu::emulate;
use crate::fake_runpod::{Blow, FAULTS, FakeRunPod, Fault, KEY};
use crate::project::{FINAL, Outcome, Project, stripped};
use crate::ssh::{same, steps};

/// The program with an account at `fake`.
pub fn command(project: &Project, fake: &FakeRunPod, words: &[&str]) -> Command {
    let mut command = project.command(words);
    command.env("OUTLIER_RUNPOD_URL", &fake.url).env("RUNPOD_API_KEY", KEY).env("OUTLIER_POLL_SECONDS", "0.1");
    command.env("OUTLIER_WORKER", stripped());
    command
}

/// The pods are on this computer, so commands must be allowed.
fn script(project: &Project, fake: &FakeRunPod, text: &str) -> Outcome {
    project.file("script.rhai", text);
    Outcome::of(command(project, fake, &["run", "--allow-commands", "script.rhai"]).output().unwrap())
}

fn gpus(project: &Project, fake: &FakeRunPod, words: &[&str]) -> Outcome {
    Outcome::of(command(project, fake, &[&["gpus"], words].concat()).output().unwrap())
}

/// A run that ended without any machine left.
#[track_caller]
pub fn clean(fake: &FakeRunPod, outcome: &Outcome) {
    assert_eq!(fake.alive(), [""; 0], "{}", outcome.stderr);
    assert!(outcome.stderr.contains("runpod: 0 machines of this run alive, by its own listing"), "{}", outcome.stderr);
}

const PROVISION: &str = "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: [\"A40\", \"L40S\", \"A100\"] });\n";

/// Checks that a sweep over sequences of `length` tokens on pods of `fake` ends with the same
/// results as one here, whose environment has `here_too`. Returns the device that computed each
/// model there.
fn sweep_on_pods(fake: &FakeRunPod, models: &[&str], length: &'static str, here_too: &[(&str, &str)]) -> Vec<String> {
    let (there, here) = (Project::new(), Project::new());
    there.copy("scripts", "scripts");
    here.copy("scripts", "scripts");
    let few = ["--num-sequences", "4", "--sequence-length", length];
    let chosen = if models.is_empty() { Vec::new() } else { [&["--models"], models].concat() };
    let sweep = |more: &[&'static str]| [&["run", "scripts/sweep.rhai", "--miniature"], &few[..], more].concat();
    let count = if models.is_empty() { 7 } else { models.len() };
    let rented = sweep(&["--provider", "runpod", "--gpu", "A40", "--stagger", "0.2", "--max-cost", "20"]);
    let words = [&rented[..], &chosen].concat();
    let outcome = Outcome::of(command(&there, fake, &words).output().unwrap()).ends(0);
    println!("{}{}", outcome.stderr, outcome.stdout);
    clean(fake, &outcome);
    assert_eq!(fake.created(), count);
    assert!(fake.most_at_once() >= count.min(4), "in parallel: {}", fake.most_at_once());
    let mut command_here = here.command(&[&sweep(&[])[..], &chosen].concat());
    Outcome::of(command_here.envs(here_too.iter().copied()).output().unwrap()).ok();
    let mut names = here.files("results").into_iter().filter(|file| file.ends_with(FINAL)).collect::<Vec<_>>();
    names.iter_mut().for_each(|file| *file = file.split('/').next().unwrap().to_string());
    assert_eq!(names.len(), count);
    let mut devices = Vec::new();
    for name in &names {
        same(&here, &there, name);
        let log = there.text(&format!("logs/{name}.log"));
        assert!(log.lines().next().unwrap().ends_with(" begins") && log.ends_with(" done\n"), "{log}");
        let whole = there.json(&format!("results/{name}/{FINAL}"));
        assert_eq!(whole["measurements"]["machine"], "runpod NVIDIA A40");
        assert!(whole["measurements"]["machine_cost_usd"].as_f64().unwrap() > 0.0);
        devices.push(whole["provenance"]["model"]["device"].as_str().unwrap().to_string());
    }
    // A second time everything is there, and no machine is asked for.
    let outcome = Outcome::of(command(&there, fake, &words).output().unwrap()).ends(0);
    assert_eq!(outcome.stderr.matches("stored already").count(), count, "{}", outcome.stderr);
    assert_eq!(fake.created(), count);
    let status = [&sweep(&["--status"])[..], &chosen].concat();
    let status = Outcome::of(command(&there, fake, &status).output().unwrap()).ends(0);
    assert_eq!(status.stdout.matches(" done ").count(), 2 * count, "state and last word\n{}", status.stdout);
    devices
}

#[test]
fn seven_models_on_seven_pods() {
    assert_eq!(sweep_on_pods(&FakeRunPod::start(), &[], "128", &[]), ["cpu"; 7]);
}

/// The same sweep uses the GPUs of pods, which the program finds there.
fn on_pods_with_gpus(models: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    emulate(folder.path());
    let libraries = ("LD_LIBRARY_PATH", folder.path().to_str().unwrap());
    sweep_on_pods(&FakeRunPod::start().with_environment(libraries.0, libraries.1), models, "32", &[libraries])
}

#[test]
fn two_models_on_two_pods_with_gpus() {
    assert_eq!(on_pods_with_gpus(&["01", "05"]), ["cuda:0"; 2]);
}

#[test]
#[ignore = "as two_models_on_two_pods_with_gpus: `make pods` runs it"]
fn seven_models_on_seven_pods_with_gpus() {
    assert_eq!(on_pods_with_gpus(&[]), ["cuda:0"; 7]);
}

/// After every fault another machine is taken, and nothing is left.
#[test]
fn whatever_the_service_does() {
    for fault in FAULTS {
        let fake = FakeRunPod::start().with_faults(&[*fault]);
        let project = Project::new();
        let work = "print(gpu.run_command(\"sleep 0.3; echo worked\").out);";
        let text = match fault {
            // It goes away while it is used: the work is done on another one.
            Fault::Vanishes(_) => "import \"deploy\" as deploy; \
                 deploy::with_machine(#{ provider: \"runpod\", gpu: \"A40\", patience_minutes: 0.02 }, \
                 |gpu| { let r = run_command(gpu, \"sleep 4; echo worked\"); print(r.out); });"
                .to_string(),
            _ => format!("{PROVISION}{work}"),
        };
        let outcome = script(&project, &fake, &text).ends(0);
        assert!(outcome.stdout.contains("worked"), "{fault:?}: {}", outcome.stderr);
        clean(&fake, &outcome);
        let created = fake.created();
        assert!(created <= 2, "{fault:?}: {created} pods for one machine");
        let twice = matches!(fault, Fault::Stuck | Fault::NeverReachable | Fault::WrongHostKey | Fault::Vanishes(_));
        // `Dearer` costs more than the catalogue says, but no limit was set.
        assert_eq!(created, if twice { 2 } else { 1 }, "{fault:?}: {}", outcome.stderr);
        let known = gpus(&project, &fake, &[]).ok();
        assert!(known.contains("no machine of this project is known to be alive"), "{fault:?}: {known}");
    }
}

#[test]
fn failures_say_what_to_do() {
    let project = Project::new();
    let told = |fake: &FakeRunPod, text: &str, message: &str, hint: &str| {
        let outcome = script(&project, fake, text).ends(3);
        assert!(outcome.stderr.contains(message), "{message:?} in {}", outcome.stderr);
        let line = outcome.stderr.lines().find_map(|line| line.strip_prefix("  hint: "));
        assert!(line.is_some_and(|line| line.contains(hint)), "{hint:?} in {}", outcome.stderr);
        assert_eq!(fake.alive(), [""; 0]);
    };
    let fake = FakeRunPod::start();
    let options = |more: &str| format!("provision_gpu(#{{ provider: \"runpod\", {more} }});");
    told(&fake, &options("gpu: \"H100\""), "nothing on offer fits", "outlier offers");
    told(&fake, &options("gpu: \"H200\", max_price: 1.0"), "nothing on offer fits", "a higher `max_price`");
    told(&fake, &options("gpu: \"H200\", max_cost: 0.1"), "more than `max_cost` leaves", "raise `max_cost`");
    told(&fake, &format!("limit_cost(0.1); {}", options("gpu: \"H200\"")), "more than `max_cost`", "raise `max_cost`");
    let poor = FakeRunPod::start().with_faults(&[Fault::NoFunds]);
    told(&poor, &options("gpu: \"A40\""), "the account cannot pay for this", "add funds");
    let full = FakeRunPod::start().with_faults(&[Fault::NoCapacity]);
    told(&full, &options("gpu: \"A40\""), "no such machine is free", "outlier offers");
    let dear = FakeRunPod::start().with_faults(&[Fault::Dearer]);
    told(&dear, &options("gpu: \"A40\", max_price: 1.0"), "more than `max_price`", "raise `max_price`");
    assert_eq!(dear.created(), 1, "it was given back at once");
    let deaf = FakeRunPod::start().with_faults(&[Fault::NeverReachable; 2]);
    told(&deaf, &options("gpu: \"A40\""), "could not be reached", "outlier gpus logs");
    assert_eq!(fake.created() + poor.created() + full.created(), 0, "nothing was paid for");
}

#[test]
fn keys_are_asked_for() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    project.file("script.rhai", PROVISION);
    let run = |key: Option<&str>| {
        let mut command = command(&project, &fake, &["run", "script.rhai"]);
        command.env("HOME", project.path("home"));
        match key {
            Some(key) => command.env("RUNPOD_API_KEY", key),
            None => command.env_remove("RUNPOD_API_KEY"),
        };
        Outcome::of(command.output().unwrap())
    };
    let none = run(None).ends(3);
    assert!(none.stderr.contains("no RunPod API key: looked at RUNPOD_API_KEY"), "{}", none.stderr);
    assert!(none.stderr.contains("hint: make a key at RunPod"), "{}", none.stderr);
    let wrong = run(Some("rpa_WRONGWRONGWRONG")).ends(3);
    assert!(wrong.stderr.contains("the API key is not accepted (401"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("rpa_WRONG"), "{}", wrong.stderr);
    let broken = run(Some("rpa_with a blank")).ends(3);
    assert!(broken.stderr.contains("holds blanks") && !broken.stderr.contains("rpa_with"), "{}", broken.stderr);
    // The files of RunPod's own tools, in both layouts.
    for text in [format!("apikey = \"{KEY}\"\n"), format!("[default]\napi_key = \"{KEY}\"\n")] {
        project.file("home/.runpod/config.toml", text);
        clean(&fake, &run(None).ends(0));
    }
    // .env, but a variable that is set wins.
    project.file(".env", "RUNPOD_API_KEY=rpa_WRONGWRONGWRONG\n");
    run(None).ends(3);
    clean(&fake, &run(Some(KEY)).ends(0));
}

/// A proxy would get the key unencrypted, and may be anybody's.
#[test]
fn a_key_for_this_computer_passes_no_proxy() {
    let (fake, proxy, project) = (FakeRunPod::start(), crate::fake_hub::Hub::start(), Project::new());
    project.file("script.rhai", PROVISION);
    for variable in ["HTTP_PROXY", "ALL_PROXY"] {
        let mut command = command(&project, &fake, &["run", "script.rhai"]);
        command.env("RUNPOD_API_KEY", KEY).env(variable, &proxy.address).env_remove("NO_PROXY").env_remove("no_proxy");
        clean(&fake, &Outcome::of(command.output().unwrap()).ends(0));
        assert!(proxy.requests.lock().unwrap().is_empty(), "{variable}");
    }
}

/// A machine is paid for only if the model is available and fits.
#[test]
fn a_model_is_looked_at_first() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    let provision = |model: &str| format!("provision_gpu(#{{ provider: \"runpod\", gpu: \"A40\", model: {model} }});");
    let outcome = script(&project, &fake, &provision("\"no/such-model\"")).ends(3);
    assert!(outcome.stderr.contains("no/such-model"), "{}", outcome.stderr);
    let outcome = script(&project, &fake, &provision("#{ id: \"x\", dtyp: \"f32\" }")).ends(1);
    assert!(outcome.stderr.contains("unknown option `dtyp`"), "{}", outcome.stderr);
    let huge = r#"#{ id: miniature_model("olmoe").path, num_sequences: 100000, sequence_length: 2048 }"#;
    let outcome = script(&project, &fake, &provision(huge)).ends(3);
    assert!(outcome.stderr.contains("nothing on offer fits"), "{}", outcome.stderr);
    assert_eq!(fake.created(), 0);
    assert!(fake.requests().iter().all(|(method, ..)| method == "GET"), "{:?}", fake.requests());
}

fn spawn(project: &Project, fake: &FakeRunPod) -> Child {
    let mut command = command(project, fake, &["run", "script.rhai"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !is() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a script has printed its first line.
fn wait_for_line(child: &mut Child) {
    let stdout = child.stdout.as_mut().unwrap();
    let mut byte = [0];
    while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {}
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn however_a_run_ends_its_machine_is_given_back() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    let endings: [(&str, i32, Option<&str>); 5] = [
        ("print(\"done\");", 0, None),
        ("throw \"an error\";", 1, None),
        ("nonsense(1);", 1, None),
        ("print(\"up\"); loop { sleep(1); }", 130, Some("-INT")),
        ("print(\"up\"); loop { sleep(1); }", 130, Some("-TERM")),
    ];
    for (text, code, name) in endings {
        project.file("script.rhai", format!("{PROVISION}{text}"));
        let mut child = spawn(&project, &fake);
        if let Some(name) = name {
            wait_for_line(&mut child);
            signal(&child, name);
        }
        let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(code);
        clean(&fake, &outcome);
    }
    // While it is being made ready.
    project.file("script.rhai", PROVISION);
    let child = spawn(&project, &fake);
    wait_for("the machine", || fake.reached() > 0);
    signal(&child, "-INT");
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(130);
    clean(&fake, &outcome);
}

#[test]
fn a_machine_that_does_not_end_is_told() {
    let fake = FakeRunPod::start().with_faults(&[Fault::EndAlwaysFails]);
    let outcome = script(&Project::new(), &fake, PROVISION).ends(4);
    assert!(outcome.stderr.contains("may still be running and costing money"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("1 machine of this run alive") && outcome.stderr.contains("costs $0.49/h"));
}

#[test]
fn a_machine_that_is_kept_says_what_it_costs() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    let text = "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\", keep_running: true }); print(gpu.id);";
    let outcome = script(&project, &fake, text).ends(0);
    let id = outcome.stdout.trim();
    assert_eq!(fake.alive().len(), 1);
    assert!(
        outcome.stderr.contains(&format!("{id} (NVIDIA A40) is kept running and costs $0.49/h")),
        "{}",
        outcome.stderr
    );
    let listed = gpus(&project, &fake, &["--all"]).ok();
    assert!(listed.contains(id) && listed.contains("kept running") && !listed.contains("training-box"), "{listed}");
    let said = gpus(&project, &fake, &["ssh", id, "echo", "hello from $RUNPOD_POD_ID"]).ok();
    assert_eq!(said.trim(), format!("hello from {id}"));
    assert!(gpus(&project, &fake, &["logs", id]).ok().contains("Setting up SSH"));
    // Another project of the same account sees it and does not touch it.
    let other = Project::new();
    assert!(gpus(&other, &fake, &["--all"]).ok().contains("ORPHAN or of another project"));
    assert!(gpus(&other, &fake, &["reap"]).ok().contains("left alone"));
    assert_eq!(fake.alive().len(), 1);
    let said = gpus(&project, &fake, &["terminate", id]).ok();
    assert!(said.contains("is given back"), "{said}");
    assert_eq!(fake.alive(), [""; 0]);
    // Other people's machines are none of ours.
    let refused = gpus(&project, &fake, &["terminate", "other1training"]).ends(1);
    assert!(refused.stderr.contains("was not made by this program"), "{}", refused.stderr);
}

#[test]
fn what_a_killed_run_leaves_is_taken_over_or_given_back() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    let work = r#"
        let made = gpu.miniature_model("qwen3_next");
        let model = gpu.load_model(made.path);
        let tokens = load_tokens(#{ text: made.text, model: model, num_sequences: 16, sequence_length: 256 });
        let acts = with_log("work", || extract_layernorms(model, tokens));
        print(acts.detect_outliers().num_features);
    "#;
    let provision = "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\", task: \"t\" });";
    project.file("script.rhai", format!("{provision}{work}"));
    let mut child = spawn(&project, &fake);
    wait_for("the first layers", || project.has("logs/work.log") && steps(&project, "work").len() > 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fake.alive().len(), 1);
    let listed = gpus(&project, &fake, &[]).ok();
    assert!(listed.contains("its run has died"), "{listed}");
    let before = steps(&project, "work");
    let outcome = Outcome::of(spawn(&project, &fake).wait_with_output().unwrap()).ends(0);
    assert!(outcome.stderr.contains("taken over from a run that died"), "{}", outcome.stderr);
    clean(&fake, &outcome);
    assert_eq!(fake.created(), 1, "the same machine");
    let all = steps(&project, "work");
    let layers = *all.last().unwrap();
    assert_eq!(all[before.len()..], (1..=layers).collect::<Vec<_>>(), "what had happened is told again, computed once");
    // One that nobody takes over is given back by whoever comes next.
    project.file("script.rhai", format!("{provision}print(\"up\"); loop {{ sleep(1); }}"));
    let mut child = spawn(&project, &fake);
    wait_for_line(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let said = gpus(&project, &fake, &["reap"]).ok();
    assert!(said.contains("was left over by a run that died: given back"), "{said}");
    assert_eq!(fake.alive(), [""; 0]);
}

/// The machine disappears in the middle of a model. The next one continues at the layer that the
/// first had reached.
#[test]
fn a_lost_machine_costs_few_layers() {
    let fake = FakeRunPod::start();
    let (project, whole) = (Project::new(), Project::new());
    let work = |gpu: &str| {
        format!(
            r#"
            import "deploy" as deploy;
            deploy::with_machine(#{{ {gpu} }}, |gpu| {{
                let made = miniature_model(gpu, "qwen3_next");
                let model = load_model(gpu, made.path);
                let tokens = load_tokens(#{{
                    text: made.text, model: model, num_sequences: 32, sequence_length: 384, overlap: 0.9,
                }});
                let options = #{{ checkpoint: "checkpoints/x", checkpoint_layers: 1 }};
                let acts = with_log("work", || extract_layernorms(model, tokens, options));
                save_results("x", #{{ activations: acts, found: detect_outliers(acts) }});
                print(acts.measurements.resumed_at_layer);
            }});
            "#
        )
    };
    project.file("script.rhai", work("provider: \"runpod\", gpu: \"A40\", patience_minutes: 0.02"));
    let child = spawn(&project, &fake);
    wait_for("a few layers", || project.has("checkpoints/x") && steps(&project, "work").len() > 3);
    fake.switch_off();
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
    clean(&fake, &outcome);
    assert_eq!(fake.created(), 2);
    let resumed: usize = outcome.stdout.trim().parse().unwrap();
    assert!(resumed > 0, "{}", outcome.stderr);
    assert!(!project.has("checkpoints/x"), "it is not needed any more");
    whole.script(&work("provider: \"local\"")).ok();
    same(&whole, &project, "x");
}

#[test]
fn a_machine_ends_itself_when_nobody_wants_it() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    let provision = |more: &str| format!("let gpu = provision_gpu(#{{ provider: \"runpod\", gpu: \"A40\", {more} }});");
    // Its client dies: the lease runs out.
    project.file("script.rhai", format!("{}print(\"up\"); loop {{ sleep(1); }}", provision("lease_minutes: 0.1")));
    let mut child = spawn(&project, &fake);
    wait_for_line(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("its end", || fake.alive().is_empty());
    // Its client lives, but its time is over.
    let before = fake.ended_by_themselves();
    project.file("script.rhai", format!("{}print(\"up\"); loop {{ sleep(1); }}", provision("max_hours: 0.004")));
    let mut child = spawn(&project, &fake);
    wait_for_line(&mut child);
    wait_for("its end", || fake.ended_by_themselves() > before);
    signal(&child, "-INT");
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(130);
    clean(&fake, &outcome);
}

/// The client has gone, and then this happens to the machine that is left.
#[track_caller]
fn a_deserted_pod_ends_itself_after(fake: FakeRunPod, blow: Blow) {
    let project = Project::new();
    project.file(
        "script.rhai",
        "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\", lease_minutes: 0.1 }); print(\"up\"); loop { sleep(1); }",
    );
    let mut child = spawn(&project, &fake);
    wait_for_line(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(fake.strike(blow) > 0, "{blow:?} hits something");
    let begin = Instant::now();
    while !fake.alive().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(150), "{blow:?}: the pod runs on and costs money");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fake.ended_by_themselves(), 1, "{blow:?}");
}

#[test]
fn a_deserted_pod_ends_itself_though_its_worker_is_killed() {
    a_deserted_pod_ends_itself_after(FakeRunPod::start(), Blow::KillWorker);
}

#[test]
fn a_deserted_pod_ends_itself_though_its_worker_aborts() {
    a_deserted_pod_ends_itself_after(FakeRunPod::start(), Blow::AbortWorker);
}

#[test]
fn a_deserted_pod_ends_itself_though_its_worker_stands_still() {
    a_deserted_pod_ends_itself_after(FakeRunPod::start(), Blow::StopWorker);
}

#[test]
fn a_deserted_pod_ends_itself_though_its_guardian_is_killed() {
    a_deserted_pod_ends_itself_after(FakeRunPod::start(), Blow::KillGuardian);
}

#[test]
fn a_deserted_pod_ends_itself_though_nothing_is_left_in_it() {
    let fake = FakeRunPod::start().with_starts(Duration::from_secs(40));
    a_deserted_pod_ends_itself_after(fake, Blow::KillBoth);
}

#[test]
fn secrets_stay_where_they_belong() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    const TOKEN: &str = "hf_verySecretTokenOfTheHub";
    project.copy("scripts", "scripts");
    let few = ["--models", "01", "--num-sequences", "2", "--sequence-length", "64"];
    let words = [&["run", "scripts/sweep.rhai", "--miniature", "--provider", "runpod"], &few[..]].concat();
    let mut command = command(&project, &fake, &words);
    command.env("HF_TOKEN", TOKEN);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Everything that processes of the pod and of this side show while it runs.
    let id = child.id();
    let (sender, seen) = std::sync::mpsc::channel();
    let watcher = std::thread::spawn({
        let fake = fake.clone();
        move || {
            let mut all = String::new();
            while seen.try_recv().is_err() {
                all += &fake.processes().join("\n");
                all += &std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
                std::thread::sleep(Duration::from_millis(100));
            }
            all
        }
    });
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
    sender.send(()).unwrap();
    let mut places =
        vec![("processes", watcher.join().unwrap()), ("output", format!("{}{}", outcome.stdout, outcome.stderr))];
    assert!(places[0].1.contains("worker"), "the worker was seen");
    places.push(("what was asked", format!("{:?} {}", fake.requests(), fake.bodies())));
    for file in project.files("") {
        let bytes = project.bytes(&file);
        places.push(("a file", format!("{file} {}", String::from_utf8_lossy(&bytes))));
    }
    for (place, text) in places {
        for secret in [KEY, TOKEN] {
            assert!(!text.contains(secret), "{place} holds {secret}: {}", &text[..text.len().min(200)]);
        }
    }
}

#[test]
fn what_is_on_offer() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    let offers = |words: &[&str]| {
        let words = [&["offers"], words].concat();
        Outcome::of(command(&project, &fake, &words).output().unwrap())
    };
    let all = offers(&[]).ok();
    assert!(
        all.contains("NVIDIA A40") && all.contains("0.49") && !all.contains("H100"),
        "sold out ones are left out\n{all}"
    );
    let few = offers(&["--gpu", "L40S", "--cloud", "community"]).ok();
    assert!(few.contains("0.79") && !few.contains("0.99"), "{few}");
    let two = offers(&["--gpu", "H200", "--gpu-count", "2"]).ok();
    assert!(two.contains("9.18"), "the price is for all GPUs together\n{two}");
    let none = offers(&["--max-price", "0.1"]).ends(3);
    assert!(none.stderr.contains("nothing on offer fits"), "{}", none.stderr);
}

/// A sum of nothing has no sign.
#[test]
fn a_run_that_got_no_machine_has_cost_nothing() {
    let (fake, project) = (FakeRunPod::start(), Project::new());
    let outcome = script(&project, &fake, "provision_gpu(#{ provider: \"runpod\", gpu: \"No Such GPU\" });").ends(3);
    clean(&fake, &outcome);
    assert!(outcome.stderr.contains("; cost $0.00\n"), "{}", outcome.stderr);
}

/// A machine that cannot be given back may be alive, and the exit code says so.
#[test]
fn what_cannot_be_reaped_may_be_alive() {
    let (fake, project) = (FakeRunPod::start(), Project::new());
    project.file("script.rhai", format!("{PROVISION} sleep(3600);"));
    let mut child = command(&project, &fake, &["run", "script.rhai"]).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while fake.created() == 0 {
        assert!(begin.elapsed() < Duration::from_secs(300), "no pod was asked for");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut reap = command(&project, &fake, &["gpus", "reap"]);
    let outcome = Outcome::of(reap.env("OUTLIER_RUNPOD_URL", "http://127.0.0.1:9").output().unwrap()).ends(4);
    assert!(outcome.stderr.contains("may still be running and costing money"), "{}", outcome.stderr);
    assert!(gpus(&project, &fake, &["reap"]).ok().contains("was left over by a run that died"));
    assert_eq!(fake.alive(), [""; 0]);
}
