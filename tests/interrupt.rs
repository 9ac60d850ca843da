//! Tests of Ctrl-C: scripts stop, models stop at the next layer, and finished work is kept.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::{FINAL, FULL, Outcome, Project};

/// Whatever is waited for takes seconds; this ends a test whose program hangs.
const PATIENCE: Duration = Duration::from_secs(600);

pub const INTERRUPTED: i32 = 130;

pub fn start(project: &Project, words: &[&str]) -> Child {
    start_with(project, words, |_| ())
}

/// The same in another environment.
fn start_with(project: &Project, words: &[&str], change: impl FnOnce(&mut Command)) -> Child {
    use std::os::unix::process::CommandExt;
    let mut command = project.command(words);
    change(&mut command);
    // The tests may run in the background of a shell, where Ctrl-C is not heard, or under nohup.
    // SAFETY: signal(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn interrupt(child: &Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits for the end of a program that may hang.
pub fn ending(mut child: Child) -> Outcome {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the program did not stop");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Outcome::of(child.wait_with_output().unwrap())
}

/// Waits until the program has taken signals into its own hands, as `/proc` says of every process.
pub fn wait_until_it_hears(child: &mut Child) {
    let status = format!("/proc/{}/status", child.id());
    let caught = || {
        let status = std::fs::read_to_string(&status).ok()?;
        u64::from_str_radix(status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim(), 16).ok()
    };
    // Signals count from 1.
    wait_until(child, "it hears Ctrl-C", || caught().is_some_and(|caught| caught >> (libc::SIGINT - 1) & 1 == 1));
}

pub fn wait_until(child: &mut Child, what: &str, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "the program ended before {what}");
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Enough tokens that ten layers take far longer than it takes to press a key.
pub fn many_tokens(project: &Project) {
    let ids: Vec<Vec<u32>> = (0..32).map(|s| (0..512).map(|t| (s + t) % 256).collect()).collect();
    project.file("ids.json", serde_json::to_string(&ids).unwrap());
}

/// Waits until norm outputs are being written.
fn wait_for_work(child: &mut Child, project: &Project) {
    wait_until(child, "the first activations", || !project.files("results/full").is_empty());
}

/// Starts a script, waits until it has printed a line, sends Ctrl-C and returns how it ended.
fn interrupted_after_first_line(script: &str) -> Outcome {
    let project = Project::new();
    project.file("script.rhai", script);
    let mut child = start(&project, &["run", "script.rhai"]);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    interrupt(&child);
    let mut outcome = ending(child);
    stdout.read_to_string(&mut outcome.stdout).unwrap();
    outcome
}

#[test]
fn an_endless_loop_stops() {
    let outcome = interrupted_after_first_line("print(\"started\"); loop {}").ends(INTERRUPTED);
    assert!(outcome.stderr.contains("press Ctrl-C again to stop now"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error: interrupted"), "{}", outcome.stderr);
}

/// Seconds of processors that a process has had.
fn processor_seconds(process: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let behind: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // SAFETY: only asks.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    (behind[11].parse::<f64>().unwrap() + behind[12].parse::<f64>().unwrap()) / ticks
}

/// What a machine under load leaves to it does not make a script go on.
#[test]
fn a_script_ends_by_the_clock_after_ctrl_c() {
    let project = Project::new();
    project.file("script.rhai", "print(\"started\"); loop {}");
    let mut child = start(&project, &["run", "script.rhai"]);
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    interrupt(&child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("again to stop now") {
        assert_ne!(stderr.read_line(&mut text).unwrap(), 0, "{text}");
    }
    assert!(text.contains("interrupted: stopping, a model after its layer at work"), "{text}");
    let process = child.id();
    let told = processor_seconds(process);
    wait_until(&mut child, "the script has gone on", || processor_seconds(process) > told + 0.05);
    let signal = |signal: &str| {
        assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
    };
    signal("-STOP");
    let had = processor_seconds(process);
    std::thread::sleep(Duration::from_secs(3));
    signal("-CONT");
    // SAFETY: both places are valid for writing.
    let (status, usage) = unsafe {
        let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
        assert_eq!(libc::wait4(process as i32, &mut status, 0, &mut usage), process as i32);
        (status, usage)
    };
    assert_eq!(libc::WEXITSTATUS(status), INTERRUPTED);
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let all = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    assert!(all - had < 0.5, "{all} s, and {had} s before it was held");
}

#[test]
fn a_script_cannot_catch_it() {
    let script = "print(\"started\"); try { loop {} } catch (e) { print(\"caught\"); } print(\"after\");";
    assert_eq!(interrupted_after_first_line(script).ends(INTERRUPTED).stdout, "");
}

#[test]
fn a_script_may_catch_the_interruption_of_a_model() {
    let project = Project::new();
    let script = r#"
        let model = load_model(miniature_model("olmoe").path);
        let tokens = load_tokens(#{ ids: "ids.json" });
        try {
            model.extract_layernorms(tokens, #{ keep: "full", out: "results/full" });
        } catch (error) {
            print(error.kind);
        }
        print("tidied up");
    "#;
    many_tokens(&project);
    project.file("script.rhai", script);
    let mut child = start(&project, &["run", "script.rhai"]);
    wait_for_work(&mut child, &project);
    interrupt(&child);
    assert_eq!(ending(child).ends(INTERRUPTED).stdout, "interrupted\ntidied up\n");
}

#[test]
fn parallel_work_stops() {
    let script = "print(\"started\"); parallel([1, 2, 3], |x| { loop {} }); print(\"after\");";
    assert_eq!(interrupted_after_first_line(script).ends(INTERRUPTED).stdout, "");
}

#[test]
fn a_model_stops_at_the_next_layer() {
    let project = Project::new();
    many_tokens(&project);
    project.file(
        "script.rhai",
        r#"
        let made = miniature_model("olmoe");
        let model = load_model(made.path);
        let tokens = load_tokens(#{ ids: "ids.json" });
        print("started");
        let acts = model.extract_layernorms(tokens, #{ keep: "full", out: "results/full" });
        save_results("whole", #{ activations: acts, found: acts.detect_outliers() });
        "#,
    );
    let mut child = start(&project, &["run", "script.rhai"]);
    wait_for_work(&mut child, &project);
    interrupt(&child);
    ending(child).ends(INTERRUPTED);
    let left = project.files("results");
    let whole = |file: &String| file.contains(FINAL) || file.contains(FULL) || file.contains(".partial-");
    assert!(!left.iter().any(whole), "{left:?}");
}

#[test]
fn the_finished_models_of_a_sweep_are_kept() {
    let project = Project::new();
    project.copy("scripts", "scripts");
    let first = format!("results/miniature_olmoe_1b_7b/{FINAL}");
    let mut child = start(&project, &["run", "scripts/sweep.rhai", "--miniature", "--models", "01", "04"]);
    // Its files are there a moment before the sweep has it among its finished ones, which it has when the next one begins.
    wait_until(&mut child, "the second model", || {
        project.has(&first) && project.has("results/miniature_models/mixtral")
    });
    interrupt(&child);
    let outcome = ending(child).ends(INTERRUPTED);
    assert_eq!(project.json(&first)["analysis_summary"]["synthetic_model"], true);
    assert!(!project.has(&format!("results/miniature_mixtral_8x7b/{FINAL}")), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("interrupted; done and kept: 1 model"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("│ miniature_olmoe_1b_7b "), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("results: results/miniature_olmoe_1b_7b"), "{}", outcome.stdout);
}

#[test]
fn twice_is_now() {
    let project = Project::new();
    // One long step, which does not look up: the first Ctrl-C waits for its end.
    let script = "let a = []; for i in 0..4000 { a.push(i * 1.5); }\nprint(\"started\"); paired_test(a, a.map(|x| x * x), #{ n_resamples: 10000000 });";
    project.file("script.rhai", script);
    let mut child = start(&project, &["run", "script.rhai"]);
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    interrupt(&child);
    // The handler says so when it has taken notice.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("again to stop now") {
        assert_ne!(stderr.read_line(&mut text).unwrap(), 0, "{text}");
    }
    assert!(child.try_wait().unwrap().is_none());
    interrupt(&child);
    ending(child).ends(INTERRUPTED);
}

#[test]
fn sleep_ends_with_the_first_one() {
    let outcome = interrupted_after_first_line("print(\"started\"); sleep(3600); print(\"after\");").ends(INTERRUPTED);
    assert_eq!(outcome.stdout, "");
    let script = "print(\"started\"); parallel([1, 2], #{ stagger: 3600 }, |x| x); print(\"after\");";
    assert_eq!(interrupted_after_first_line(script).ends(INTERRUPTED).stdout, "");
}

/// `nohup`, and what a shell does to work in the background.
#[test]
pub fn signals_that_are_ignored_stay_so() {
    for signal in ["HUP", "INT", "TERM"] {
        let project = Project::new();
        project.file("script.rhai", "print(\"started\"); while !has_results(\"go\") { sleep(0.05); } print(\"done\");");
        let mut shell = Command::new("bash");
        let program = project.command(&[]).get_program().to_owned();
        shell.args(["-c", &format!("trap '' {signal}; exec \"$0\" run script.rhai")]).arg(program);
        shell.current_dir(project.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        for _ in 0..2 {
            assert!(
                Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap().success()
            );
        }
        project.file(&format!("results/go/{FINAL}"), "{}");
        let outcome = ending(child).ends(0);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert!(rest == "done\n" && !outcome.stderr.contains("interrupted"), "{signal}: {rest} {}", outcome.stderr);
    }
}

#[test]
fn the_search_for_tests_stops() {
    let project = Project::new();
    project.file("a_test.rhai", "fn test_a() { while !has_results(\"never\") { } }\nfn test_b() { }");
    let mut child = start(&project, &["test", "."]);
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    ending(child).ends(INTERRUPTED);
}

/// A command that is silent, and what it has started, end with the first one; so does one that does not want to.
#[test]
fn a_command_ends_with_the_first_one() {
    for (machine, command) in [
        ("provision_gpu()", "sleep 3600"),
        ("provision_gpu()", "(sleep 3600 & sleep 3600) | cat"),
        ("provision_gpu()", "trap '' TERM INT; while true; do sleep 1; done"),
        ("provision_gpu(#{ provider: \"ssh\", host: \"localhost\" })", "sleep 3600"),
    ] {
        let project = Project::new();
        let script = format!(
            "let gpu = {machine}; print(\"started\");
             gpu.run_command(\"echo $$ > \" + \"{}\" + \"; {command}\"); print(\"after\");",
            project.path("pid").display()
        );
        project.file("script.rhai", script);
        let mut child = start_with(&project, &["run", "--allow-commands", "script.rhai"], |command| {
            command.env("HOME", project.path("home")).env("OUTLIER_WORKER", crate::project::stripped());
        });
        wait_until(&mut child, "the command", || {
            std::fs::read_to_string(project.path("pid")).is_ok_and(|pid| pid.ends_with('\n'))
        });
        interrupt(&child);
        let outcome = ending(child).ends(INTERRUPTED);
        assert_eq!(outcome.stdout, "started\n", "{command}: {}", outcome.stderr);
        let pid = project.text("pid").trim().to_string();
        let begin = Instant::now();
        while Path::new("/proc").join(&pid).exists() {
            assert!(begin.elapsed() < PATIENCE, "{command} runs on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
