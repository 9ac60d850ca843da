//! Tests of work in jobs of a Slurm cluster: a real one of one node, which has the user's home
//! folder.

use std::collections::HashSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::{FINAL, Outcome, Project, stripped};
use crate::slurm_cluster::{Cluster, kill};
use crate::sshd::Sshd;

const GPU: &str = "let gpu = provision_gpu(#{ provider: \"slurm\", gres: \"gpu:1\", max_hours: 1 });\n";
const ALIVE: &str = "slurm: 0 machines of this run alive, by its own listing";
/// The longest wait. What the tests wait for takes seconds, including the transfer of the program.
const PATIENCE: Duration = Duration::from_secs(300);

/// An analysis on `gpu`, saved as `x`.
fn analysis(miniature: &str) -> String {
    format!(
        r#"
        let made = gpu.miniature_model("{miniature}");
        let model = gpu.load_model(made.path);
        let tokens = load_tokens(#{{ text: made.text, model: model, num_sequences: 4, sequence_length: 64 }});
        let acts = model.extract_layernorms(tokens);
        save_results("x", #{{ activations: acts, found: acts.detect_outliers(), intervals: acts.bootstrap_ci() }});
        "#
    )
}

/// An extraction long enough to be interrupted, with a log of its layers in `logs/work.log`.
const LONG: &str = r#"
    let made = gpu.miniature_model("qwen3_next");
    let model = gpu.load_model(made.path);
    let tokens = load_tokens(#{ text: made.text, model: model, num_sequences: 16, sequence_length: 256 });
    let acts = with_log("work", || extract_layernorms(model, tokens));
"#;

/// The nodes of this cluster are this computer.
fn command(cluster: &Cluster, project: &Project) -> Command {
    let mut command = project.command(&["run", "--allow-commands", "script.rhai"]);
    cluster.log_in(&mut command).env("OUTLIER_POLL_SECONDS", "0.3");
    command
}

fn run(cluster: &Cluster, project: &Project, script: &str) -> Outcome {
    project.file("script.rhai", script);
    Outcome::of(command(cluster, project).output().unwrap())
}

fn start(cluster: &Cluster, project: &Project, script: &str) -> Child {
    project.file("script.rhai", script);
    command(cluster, project).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn wait_for(what: &str, ready: impl Fn() -> bool) {
    let begin = Instant::now();
    while !ready() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The layers in the log of the long extraction.
fn steps(project: &Project) -> Vec<u64> {
    let step = |line: &str| line.rsplit_once(": ")?.1.split_once('/')?.0.parse().ok();
    if project.has("logs/work.log") { project.text("logs/work.log").lines().filter_map(step).collect() } else { vec![] }
}

#[track_caller]
fn wait_for_work(child: &mut Child, project: &Project) {
    let begin = Instant::now();
    while steps(project).len() < 2 {
        if child.try_wait().unwrap().is_some() || begin.elapsed() > PATIENCE {
            let _ = child.kill();
            let mut said = String::new();
            std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut said).unwrap();
            panic!("waited in vain for the first layers: {said}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

/// Name, id and stage of every machine in the ledger.
fn ledger(project: &Project) -> Vec<(String, String, String)> {
    if !project.has("results/gpus.sqlite") {
        return Vec::new();
    }
    let db = rusqlite::Connection::open(project.path("results/gpus.sqlite")).unwrap();
    let rows = db.prepare("SELECT name, id, stage FROM machines WHERE provider LIKE 'slurm%' ORDER BY since");
    // The file is there before its table is.
    let Ok(mut rows) = rows else { return Vec::new() };
    let text = |row: &rusqlite::Row, column: usize| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let rows = rows.query_map([], |row| Ok((text(row, 0)?, text(row, 1)?, text(row, 2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Checks that no job of the project is in the queue or runs, and that the ledger says so.
#[track_caller]
fn nothing_is_left(cluster: &Cluster, project: &Project, jobs: usize) {
    let rows = ledger(project);
    assert_eq!(rows.len(), jobs, "{rows:?}");
    for (name, _, stage) in &rows {
        assert_eq!(stage, "closed", "{name}");
        assert!(cluster.jobs(name).is_empty(), "{name} is in the queue");
        // The queue is left first, then the job's script tidies up.
        let runs = || cluster.processes().iter().any(|(_, words, _)| words.contains(name));
        wait_for("the end of the job's processes", || !runs());
    }
}

#[track_caller]
fn refuses(cluster: &Cluster, options: &str, code: i32, message: &str, hint: &str) {
    let project = Project::new();
    let outcome = run(cluster, &project, &format!("provision_gpu(#{{ provider: \"slurm\", {options} }});")).ends(code);
    let error = outcome.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains(message), "expected {message:?} in\n{}", outcome.stderr);
    let told = outcome.stderr.lines().find_map(|line| line.strip_prefix("  hint: ")).unwrap_or_default();
    assert!(told.contains(hint), "expected the hint {hint:?} in\n{}", outcome.stderr);
    assert!(outcome.stderr.contains(ALIVE), "{}", outcome.stderr);
    nothing_is_left(cluster, &project, 1);
}

/// The header without the place of the model, and the data.
fn stats(project: &Project) -> (Value, Vec<u8>) {
    let bytes = project.bytes("results/x/activations.stats");
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

#[track_caller]
fn same_results(one: &Project, other: &Project) {
    assert!(one.files("results/x").len() > 5);
    assert_eq!(one.files("results/x"), other.files("results/x"));
    for file in one.files("results/x").iter().filter(|file| file.ends_with(".csv") || file.starts_with("batch_")) {
        let path = format!("results/x/{file}");
        assert!(one.bytes(&path) == other.bytes(&path), "{path} differs");
    }
    let found = |project: &Project| {
        let mut whole = project.json(&format!("results/x/{FINAL}"));
        for key in ["measurements", "provenance"] {
            assert!(whole.as_object_mut().unwrap().remove(key).is_some(), "{key}");
        }
        whole.to_string()
    };
    assert_eq!(found(one), found(other));
    assert!(stats(one).1 == stats(other).1, "activations.stats differs");
    let header = |project| {
        let mut header = stats(project).0;
        header.as_object_mut().unwrap().remove("__metadata__").expect("it says how it was made");
        header
    };
    assert_eq!(header(one), header(other));
}

#[test]
fn a_job_gives_the_same_results_as_this_machine() {
    let cluster = Cluster::shared();
    let (here, there) = (Project::new(), Project::new());
    here.script(&format!("let gpu = provision_gpu();\n{}", analysis("gpt_oss"))).ok();
    let blob: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    there.file("data/blob.bin", &blob);
    let more = r#"
        gpu.sync(#{ up: ["data"] });
        let said = gpu.run_command("echo out; echo err >&2; mkdir -p back; cp data/blob.bin back; exit 3");
        gpu.sync(#{ down: ["back"] });
        let variables = gpu.run_command("echo $SLURM_JOB_ID $CUDA_VISIBLE_DEVICES $SLURM_NNODES").out;
        print(#{ code: said.code, out: said.out, err: said.err, variables: variables, id: gpu.id }.to_json());
    "#;
    let outcome = run(&cluster, &there, &format!("{GPU}{}{more}", analysis("gpt_oss"))).ends(0);
    same_results(&here, &there);
    assert!(!there.has("results/miniature_models"), "it was made in the job");
    assert!(outcome.stderr.contains(&format!("{ALIVE}; cost $0.00")), "{}", outcome.stderr);
    let said: Value = serde_json::from_str(outcome.stdout.lines().next_back().unwrap()).unwrap();
    assert_eq!((&said["code"], &said["out"], &said["err"]), (&3.into(), &"out\n".into(), &"err\n".into()));
    let variables: Vec<&str> = said["variables"].as_str().unwrap().split_whitespace().collect();
    assert_eq!(variables[0], said["id"].as_str().unwrap());
    assert_eq!(variables.len(), 3, "a GPU and a node: {variables:?}");
    assert!(there.bytes("back/blob.bin") == blob);
    nothing_is_left(&cluster, &there, 1);
    // What the job's script leaves in the home folder: that it ended well, and what its worker said.
    let jobs = cluster.home().join(".outlier/jobs");
    let left = |extension: &str| std::fs::read_to_string(jobs.join(format!("{}.{extension}", variables[0]))).unwrap();
    // By itself, or because scancel was quicker.
    assert!(["0\n", "143\n"].contains(&left("exit").as_str()), "{}", left("exit"));
    let ends = ["the worker ends: a client ended it", "CANCELLED"];
    assert!(ends.iter().any(|end| left("log").contains(end)), "{}", left("log"));
    let folder = std::path::Path::new("/tmp").join(&ledger(&there)[0].0);
    assert!(!folder.exists(), "{} is removed", folder.display());
}

/// The whole miniature sweep in a job for each model gives the same results as on this machine, and
/// leaves no job.
#[test]
fn the_sweep() {
    let cluster = Cluster::shared();
    let (here, there) = (Project::new(), Project::new());
    let few = ["run", "scripts/sweep.rhai", "--miniature", "--num-sequences", "2", "--sequence-length", "64"];
    for project in [&here, &there] {
        project.copy("scripts", "scripts");
    }
    here.run(&few).ok();
    let far = ["--provider", "slurm", "--gres", "gpu:1", "--max", "3", "--stagger", "0.2", "--max-hours", "1"];
    let mut command = there.command(&[&few[..], &far].concat());
    cluster.log_in(&mut command).env("OUTLIER_POLL_SECONDS", "0.3").env("OUTLIER_WORKER", stripped());
    let outcome = Outcome::of(command.output().unwrap()).ends(0);
    assert!(outcome.stderr.contains(ALIVE), "{}", outcome.stderr);
    let files = here.files("results").into_iter();
    let names: Vec<String> = files.filter_map(|file| Some(file.strip_suffix(FINAL)?.to_string())).collect();
    assert_eq!(names.len(), 7);
    for name in names {
        crate::ssh::same(&here, &there, name.trim_end_matches('/'));
    }
}

#[test]
fn the_job_ends_with_a_script_that_fails() {
    let cluster = Cluster::shared();
    let project = Project::new();
    let outcome = run(&cluster, &project, &format!("{GPU}gpu.load_model(\"no/such/model\");")).ends(3);
    assert!(outcome.stderr.contains("no/such/model") && outcome.stderr.contains(ALIVE), "{}", outcome.stderr);
    nothing_is_left(&cluster, &project, 1);
}

#[test]
fn the_job_ends_with_ctrl_c() {
    let cluster = Cluster::shared();
    let project = Project::new();
    let mut child = start(&cluster, &project, &format!("{GPU}{LONG}"));
    wait_for_work(&mut child, &project);
    interrupt(&child);
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(130);
    assert!(outcome.stderr.contains(ALIVE), "{}", outcome.stderr);
    nothing_is_left(&cluster, &project, 1);
}

#[test]
fn a_job_that_waits_is_cancelled_with_ctrl_c() {
    let cluster = Cluster::shared();
    let project = Project::new();
    let child = start(&cluster, &project, "provision_gpu(#{ provider: \"slurm\", partition: \"closed\" });");
    let created = || ledger(&project).iter().any(|(.., stage)| stage == "created");
    wait_for("the job", created);
    let (name, id, _) = ledger(&project).remove(0);
    assert_eq!(cluster.jobs(&name), [(name.clone(), id.clone())]);
    // Long enough for a deadline of the pace set above, if there were one.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(cluster.jobs(&name).len(), 1);
    interrupt(&child);
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(130);
    assert!(outcome.stderr.contains(&format!("{id}: it waits in the queue (PartitionDown)")), "{}", outcome.stderr);
    nothing_is_left(&cluster, &project, 1);
}

/// Kills all connections, and every job step with everything that it started, as a cluster does at
/// the end of a step.
#[test]
fn a_cut_connection_does_not_cost_a_layer() {
    let cluster = Cluster::shared();
    let (here, there) = (Project::new(), Project::new());
    let save = "save_results(\"x\", #{ activations: acts, found: acts.detect_outliers() });";
    here.script(&format!("let gpu = provision_gpu();\n{LONG}{save}")).ok();
    let mut child = start(&cluster, &there, &format!("{GPU}{LONG}{save}"));
    wait_for_work(&mut child, &there);
    let (name, id, _) = ledger(&there).remove(0);
    let worker = || {
        let serving = |words: &str| words.contains("worker\0serve") && words.contains(&name);
        let found: HashSet<i32> =
            cluster.processes().into_iter().filter(|(_, words, _)| serving(words)).map(|(pid, ..)| pid).collect();
        found
    };
    let before = worker();
    assert_eq!(before.len(), 1, "{before:?}");
    let connections: Vec<i32> =
        cluster.connections().into_iter().filter(|(_, words)| words.contains(&name)).map(|(pid, _)| pid).collect();
    assert!(!connections.is_empty());
    connections.iter().for_each(|pid| kill(*pid));
    let steps_now = cluster.command("squeue", &["-h", "--steps", "-j", &id, "-o", "%i"]);
    for step in String::from_utf8(steps_now.stdout).unwrap().lines().filter(|step| !step.ends_with("batch")) {
        cluster.command("scancel", &[step]);
    }
    let at_cut = steps(&there).len();
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
    let stderr = &outcome.stderr;
    assert!(stderr.contains("connecting again") && stderr.contains("connected again"), "{stderr}");
    let all = steps(&there);
    assert!(at_cut < all.len(), "it was cut while it worked");
    let whole: Vec<u64> = (1..=*all.last().unwrap()).collect();
    assert_eq!(all, whole, "every layer was told once: none was computed again");
    same_results(&here, &there);
    nothing_is_left(&cluster, &there, 1);
}

#[test]
fn a_job_that_somebody_cancels_is_lost() {
    let cluster = Cluster::shared();
    let project = Project::new();
    let script = format!("{GPU}try {{ {LONG} }} catch (error) {{ print(error.kind + \": \" + error.message); }}");
    let mut child = start(&cluster, &project, &script);
    wait_for_work(&mut child, &project);
    let (_, id, _) = ledger(&project).remove(0);
    cluster.command("scancel", &[&id]);
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
    assert!(outcome.stdout.starts_with(&format!("lost: Slurm job {id}: ")), "{}", outcome.stdout);
    nothing_is_left(&cluster, &project, 1);
}

/// Kills as the kernel does when memory is short: no process in the job can do anything more.
#[test]
fn a_job_that_dies_is_lost() {
    let cluster = Cluster::shared();
    let project = Project::new();
    let script = format!("{GPU}try {{ {LONG} }} catch (error) {{ print(error.kind + \": \" + error.message); }}");
    let mut child = start(&cluster, &project, &script);
    wait_for_work(&mut child, &project);
    let (_, id, _) = ledger(&project).remove(0);
    let inside = format!("SLURM_JOB_ID={id}");
    for (pid, _, environment) in cluster.processes() {
        if environment.split('\0').any(|variable| variable == inside) {
            kill(pid);
        }
    }
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
    assert!(outcome.stdout.starts_with(&format!("lost: Slurm job {id}: the job has ended (")), "{}", outcome.stdout);
    nothing_is_left(&cluster, &project, 1);
}

#[test]
fn the_next_run_cancels_what_a_killed_one_left() {
    let cluster = Cluster::shared();
    let project = Project::new();
    let mut child = start(&cluster, &project, &format!("{GPU}{LONG}"));
    wait_for_work(&mut child, &project);
    child.kill().unwrap();
    child.wait().unwrap();
    let (name, _, stage) = ledger(&project).remove(0);
    assert_eq!((stage.as_str(), cluster.jobs(&name).len()), ("ready", 1));
    let outcome = run(&cluster, &project, "provision_gpu(#{ provider: \"slurm\", gpu_count: 0 });").ends(0);
    assert!(outcome.stderr.contains(&format!("{name} (gpu:1) was left over by a run that died")), "{}", outcome.stderr);
    nothing_is_left(&cluster, &project, 2);
}

#[test]
fn the_job_of_a_killed_run_is_taken_over() {
    let cluster = Cluster::shared();
    let (here, there) = (Project::new(), Project::new());
    let save = "save_results(\"x\", #{ activations: acts, found: acts.detect_outliers() });";
    here.script(&format!("let gpu = provision_gpu();\n{LONG}{save}")).ok();
    let gpu = GPU.replace("max_hours: 1", "max_hours: 1, task: \"work\"");
    let mut child = start(&cluster, &there, &format!("{gpu}{LONG}{save}"));
    wait_for_work(&mut child, &there);
    child.kill().unwrap();
    child.wait().unwrap();
    let outcome = run(&cluster, &there, &format!("{gpu}{LONG}{save}")).ends(0);
    assert!(outcome.stderr.contains("taken over from a run that died"), "{}", outcome.stderr);
    same_results(&here, &there);
    nothing_is_left(&cluster, &there, 1);
}

#[test]
fn what_the_cluster_does_not_have_is_told() {
    let cluster = Cluster::shared();
    refuses(&cluster, "partition: \"nope\"", 1, "sbatch: invalid partition specified: nope", "`sinfo -s` lists");
    refuses(&cluster, "gres: \"tpu:1\"", 3, "Invalid generic resource (gres)", "`gpu_count: 0` for none");
    refuses(
        &cluster,
        "gpu_count: 9",
        3,
        "Requested node configuration is not available",
        "lists GPUs, cores and memory",
    );
    refuses(&cluster, "memory_gb: 900", 3, "Memory specification can not be satisfied", "lower `memory_gb`");
    refuses(&cluster, "cpus: 500", 3, "it can never start (PartitionConfig): no node of the partition has all", "");
    refuses(&cluster, "partition: \"short\"", 3, "it can never start (PartitionTimeLimit): lower `max_hours`", "");
}

#[test]
fn options_of_other_providers_are_refused() {
    let cluster = Cluster::shared();
    let project = Project::new();
    let outcome = run(&cluster, &project, "provision_gpu(#{ provider: \"slurm\", min_vram_gb: 24.0 });").ends(1);
    assert!(outcome.stderr.contains("provider \"slurm\" cannot look after `min_vram_gb`"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: choose nodes by `partition`, `gres` or `gpu`"), "{}", outcome.stderr);
}

#[test]
fn a_machine_without_slurm_says_so() {
    let project = Project::new();
    project.file("script.rhai", GPU);
    std::fs::create_dir(project.path("empty")).unwrap();
    let mut command = project.command(&["run", "script.rhai"]);
    let outcome = Outcome::of(command.env("PATH", project.path("empty")).output().unwrap()).ends(3);
    let expected = "Slurm is not there: this machine has no command sbatch, squeue, scontrol, scancel, srun";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: run this on a login node"), "{}", outcome.stderr);
}

#[test]
fn tokens_do_not_go_with_the_job() {
    let cluster = Cluster::shared();
    let project = Project::new();
    let token = "hf_NotToBeSeenInAnyJob";
    let script = format!(
        "{GPU}gpu.run_command(\"env\"); gpu.run_command(\"touch ready; while [ ! -f go ]; do sleep 0.1; done\");"
    );
    project.file("script.rhai", script);
    project.file(".env", format!("RUNPOD_API_KEY={token}\n"));
    let mut command = command(&cluster, &project);
    let child = command.env("HF_TOKEN", token).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let folder = || {
        let projects = std::fs::read_dir(cluster.home().join(".outlier/projects")).into_iter().flatten().flatten();
        let name =
            project.path("").file_name().unwrap().to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        projects.map(|entry| entry.path()).find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&name))
    };
    wait_for("the command in the job", || folder().is_some_and(|folder| folder.join("ready").exists()));
    let inside = cluster.processes();
    assert!(inside.iter().any(|(_, words, _)| words.contains("worker\0serve")));
    let found = inside.iter().find(|(_, words, environment)| words.contains(token) || environment.contains(token));
    assert!(found.is_none(), "{found:?}");
    // What the controller keeps of jobs on its disk.
    let kept =
        Command::new("grep").arg("-rl").arg(token).arg(cluster.path("state")).arg(cluster.path("spool")).output();
    assert_eq!(String::from_utf8(kept.unwrap().stdout).unwrap(), "");
    std::fs::write(folder().unwrap().join("go"), "").unwrap();
    let outcome = Outcome::of(child.wait_with_output().unwrap()).ends(0);
    assert!(!outcome.stdout.contains(token) && !outcome.stderr.contains(token));
    nothing_is_left(&cluster, &project, 1);
}

#[test]
fn from_elsewhere_over_a_login_node() {
    let cluster = Cluster::shared();
    let config = cluster.config().display().to_string();
    let login = Sshd::start_with(&[("SLURM_CONF", &config)]);
    let (here, there) = (Project::new(), Project::trusting(&login.fingerprint()));
    here.script(&format!("let gpu = provision_gpu();\n{}", analysis("olmoe"))).ok();
    let (host, key, fingerprint) = (login.target(), login.key_file(), login.fingerprint());
    let gpu = format!(
        "let gpu = provision_gpu(#{{ provider: \"slurm\", gres: \"gpu:1\", host: \"{host}\", key: \"{}\", fingerprint: \"{fingerprint}\" }});",
        key.display()
    );
    there.file("script.rhai", format!("{gpu}{}", analysis("olmoe")));
    let mut command = there.command(&["run", "script.rhai"]);
    // Nothing here leads to the cluster.
    let outcome =
        Outcome::of(command.env_remove("SLURM_CONF").env("OUTLIER_POLL_SECONDS", "0.3").output().unwrap()).ends(0);
    same_results(&here, &there);
    let expected = format!("slurm:{host}: 0 machines of this run alive, by its own listing");
    assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
    nothing_is_left(&cluster, &there, 1);
}

/// A script's machine in a job, through a login node.
fn far(login: &Sshd, options: &str) -> String {
    let (host, key) = (login.target(), login.key_file());
    format!(
        "let gpu = provision_gpu(#{{ provider: \"slurm\", gpu_count: 0, host: \"{host}\", key: \"{}\"{options} }});\n",
        key.display()
    )
}

fn far_command(project: &Project, words: &[&str]) -> Outcome {
    let mut command = project.command(words);
    command.env_remove("SLURM_CONF").env("OUTLIER_POLL_SECONDS", "0.3").env("OUTLIER_WORKER", stripped());
    Outcome::of(command.output().unwrap())
}

/// The output and the syntax of a login shell do not come between the program and the cluster.
#[test]
fn a_job_is_handed_in_over_every_login_shell() {
    let cluster = Cluster::shared();
    let config = cluster.config().display().to_string();
    for (shell, file, text) in crate::login_shells::SHELLS {
        let login = crate::login_shells::machine(shell, file, text, &[("SLURM_CONF", &config)]);
        let project = Project::trusting(&login.fingerprint());
        let work = r#"
            let made = gpu.miniature_model("gpt_oss");
            print(gpu.run_command("echo out; echo err >&2; exit 4").to_json());
            print(gpu.load_model(made.path).num_layers > 0);
        "#;
        project.file("script.rhai", format!("{}{work}", far(&login, "")));
        let outcome = far_command(&project, &["run", "--allow-commands", "script.rhai"]).ends(0);
        let mut lines = outcome.stdout.lines();
        let said: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(
            (&said["code"], &said["out"], &said["err"]),
            (&4.into(), &"out\n".into(), &"err\n".into()),
            "{shell}"
        );
        assert_eq!(lines.next(), Some("true"), "{shell}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("Welcome"), "{}", outcome.stderr);
        nothing_is_left(&cluster, &project, 1);
        let refused = far(&login, ", partition: \"nope\"");
        let outcome = project.script(&refused).ends(1);
        assert!(outcome.stderr.contains("sbatch: invalid partition specified: nope"), "{shell}: {}", outcome.stderr);
    }
}

#[test]
fn an_account_that_runs_no_commands_gets_no_job() {
    let mut login = Sshd::for_client(&[]);
    login.line("ForceCommand echo transfers only".to_string()).up();
    let project = Project::trusting(&login.fingerprint());
    project.refuses(
        &far(&login, ""),
        3,
        "started no /bin/sh; it said: transfers only",
        "commands must be allowed there",
    );
    assert!(ledger(&project).is_empty(), "nothing was asked of the cluster");
}

/// Sites put Slurm on the path in the profile, which a command over SSH does not read.
#[test]
fn slurm_is_found_where_only_a_login_finds_it() {
    let cluster = Cluster::shared();
    let config = cluster.config().display().to_string();
    let mut login = Sshd::for_client(&[("SLURM_CONF", &config), ("PATH", "/tmp/nowhere")]);
    let few = login.path("bin");
    std::fs::create_dir(&few).unwrap();
    for name in ["sh", "bash", "env", "sed", "id", "cat", "setsid", "mkdir"] {
        std::os::unix::fs::symlink(format!("/usr/bin/{name}"), few.join(name)).unwrap();
    }
    login.at_home(".bash_profile", "echo Modules loaded\nexport PATH=/usr/local/bin:/usr/bin:/bin\n");
    login.at_home(".bashrc", &format!("export PATH={}\n", few.display()));
    login.login_shell("bash").up();
    let project = Project::trusting(&login.fingerprint());
    project.file("script.rhai", format!("{}print(gpu.run_command(\"exit 5\").code);", far(&login, "")));
    let outcome = far_command(&project, &["run", "--allow-commands", "script.rhai"]).ends(0);
    assert_eq!(outcome.stdout, "5\n");
    nothing_is_left(&cluster, &project, 1);
    login.at_home(".bash_profile", &format!("export PATH={}\n", few.display()));
    let missing = "has no command sbatch, squeue, scontrol, scancel, srun";
    project.refuses(&far(&login, ""), 3, missing, "after `module load slurm` where that is needed");
}

#[test]
fn a_person_gets_a_shell_in_a_job() {
    let cluster = Cluster::shared();
    let config = cluster.config().display().to_string();
    let login = crate::login_shells::machine("tcsh", ".tcshrc", "", &[("SLURM_CONF", &config)]);
    let here = "let gpu = provision_gpu(#{ provider: \"slurm\", gpu_count: 0, max_hours: 1, keep_running: true });\nprint(gpu.id);";
    let there = format!("{}print(gpu.id);", far(&login, ", max_hours: 1, keep_running: true"));
    for script in [here, &there] {
        let project = Project::trusting(&login.fingerprint());
        project.file("script.rhai", script);
        let run = |words: &[&str]| {
            let mut command = project.command(words);
            cluster.log_in(&mut command).env("OUTLIER_POLL_SECONDS", "0.3").env("OUTLIER_WORKER", stripped());
            if script == there {
                command.env_remove("SLURM_CONF");
            }
            Outcome::of(command.output().unwrap())
        };
        let id = run(&["run", "script.rhai"]).ends(0).stdout.trim().to_string();
        let said = run(&["gpus", "ssh", &id, "echo", "$SLURM_JOB_ID it\\'s \"100%\"!;", "exit 3"]).ends(3).stdout;
        assert_eq!(said, format!("{id} it's 100%!\n"));
        run(&["gpus", "terminate", &id]).ends(0);
        nothing_is_left(&cluster, &project, 1);
    }
}
