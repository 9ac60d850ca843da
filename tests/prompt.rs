//! Tests of `outlier repl`: through a pipe, at a terminal, and attached to a machine that keeps
//! running.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::fake_runpod::FakeRunPod;
use crate::project::{Outcome, Project};
use crate::runpod::command;

/// Feeds lines to a prompt that is no terminal.
fn piped(mut command: Command, input: impl AsRef<[u8]>) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_ref()).unwrap();
    Outcome::of(child.wait_with_output().unwrap())
}

fn said(project: &Project, input: &str) -> Outcome {
    piped(project.command(&["repl"]), input)
}

const SESSION: &str = r#"let made = miniature_model("olmoe");
let model = load_model(made.path);
let tokens = load_tokens(#{
    text: made.text, model: model,
    num_sequences: 4, sequence_length: 64,
});
let acts = model.extract_layernorms(tokens);
fn count(acts, threshold) {
    acts.detect_outliers(#{ magnitude_threshold: threshold }).num_features
}
count(acts, 6.0)
count(acts, 24.0)
let found = acts.detect_outliers(#{ magnitude_threshold: 16.0 });
found.classification
"#;

#[test]
fn a_session_saved_as_a_script_gives_the_same_numbers() {
    let project = Project::new();
    let outcome = said(&project, &format!("{SESSION}:save mine\n")).ends(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}", outcome.stdout);
    assert!(lines[0].parse::<usize>().unwrap() > 0 && lines[3].contains("mine.rhai"), "{}", outcome.stdout);
    let script = project.run(&["run", "mine.rhai"]).ok();
    assert_eq!(script.lines().collect::<Vec<_>>(), lines[..3], "{}", project.text("mine.rhai"));
    project.run(&["check", "mine.rhai"]).ok();
}

#[test]
fn an_error_is_explained_and_ends_nothing() {
    let outcome = said(&Project::new(), "let a = 1;\nlet b = aa + 1;\nload_modle(5)\na + 1\n").ends(3);
    assert_eq!(outcome.stdout, "2\n");
    assert!(outcome.stderr.contains(" 1 | let b = aa + 1;\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: did you mean `load_model`?"), "{}", outcome.stderr);
}

#[test]
fn commands_and_questions() {
    let outcome = said(
        &Project::new(),
        "let threshold = 6.0\nfn twice(x) { 2 * x }\n:vars\n:gpus\n:help\n?detect_outliers\n?\n:sav\n[#{ a: 1, b: [1, 2] }, #{ a: 2, b: [] }]\n#{ x: 1.5, y: \"z\" }\n",
    );
    for part in [
        "threshold        float        6.0",
        "twice            function     (x)",
        "this machine only",
        ":detach",
        "detect_outliers(acts: activations, options?: map) -> detection",
        "Models, tokens, activations",
        "│ 1 ┆ [1, 2] │",
        "│ x     ┆ 1.5   │",
    ] {
        assert!(outcome.stdout.contains(part), "{part:?} in\n{}", outcome.stdout);
    }
    assert!(outcome.stderr.contains("no command `:sav`") && outcome.stderr.contains("did you mean `save`?"));
}

#[test]
fn modules_stay_for_the_lines_after_their_import() {
    let project = Project::new();
    project.file("own.rhai", "export const TWO = 2;\nfn twice(x) { 2 * x }");
    let outcome = said(
        &project,
        "import \"compare\" as c;\nc::mean([1.0, 3.0])\nimport \"own\" as own;\nfn four(x) { own::twice(own::twice(x)) }\nfour(1)\n\
         own::TWO\n:vars\n:save mine\n",
    )
    .ends(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[..3], ["2.0", "4", "2"], "{}", outcome.stdout);
    assert!(outcome.stdout.contains("c                module       the one inside the program"), "{}", outcome.stdout);
    assert_eq!(project.run(&["run", "mine.rhai"]).ok(), "2.0\n4\n2\n");
    // A failed import leaves nothing behind.
    let outcome = said(&project, "import \"ownn\" as own;\nown::twice(1)\n").ends(3);
    assert_eq!(outcome.stdout, "", "{}", outcome.stderr);
}

#[test]
fn bare_words_leave_and_help() {
    for word in ["quit", "exit", "quit()", "exit();", "exit(0)", ":quit", ":q"] {
        let outcome = said(&Project::new(), &format!("{word}\nprint(\"still here\")\n")).ends(0);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""), "{word}");
    }
    let outcome = said(&Project::new(), "help\nhelp()\nhelp load_model\nhelp(detect_outliers)\n").ends(0);
    assert_eq!(outcome.stdout.matches("?NAME").count(), 2, "{}", outcome.stdout);
    for part in ["load_model(id: string", "detect_outliers(acts: activations"] {
        assert!(outcome.stdout.contains(part), "{part:?} in\n{}", outcome.stdout);
    }
    // Whoever has a variable of that name means it.
    assert_eq!(said(&Project::new(), "let help = 5;\nhelp\nlet quit = 6;\nquit\n").ends(0).stdout, "5\n6\n");
}

#[test]
fn long_values_are_laid_out_and_cut() {
    let project = Project::new();
    let input = "let rows = []; for i in 0..300 { rows.push([i, i * i]); }\nrows\nprint(#{ rows: rows, name: \"x\" })\n[1, 2]\nprint([1])\n";
    let outcome = said(&project, input).ends(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 100) && lines.len() < 200, "{}", outcome.stdout);
    let cut = "… and more: print(value.to_json()) shows all of it";
    assert_eq!(outcome.stdout.matches(cut).count(), 2, "{}", outcome.stdout);
    assert!(lines.contains(&"  [17, 289],") && lines.contains(&"    [17, 289],"), "{}", outcome.stdout);
    assert_eq!(lines[lines.len() - 2..], ["[1, 2]", "[1]"]);
    // The same in a script, and what it names shows all.
    let script = "let rows = []; for i in 0..300 { rows.push([i, i * i]); }\nprint(rows);\nprint(rows.to_json());";
    let text = project.script(script).ok();
    assert!(text.contains(cut) && text.lines().last().unwrap().ends_with("[299,89401]]"), "{text}");
    let table =
        said(&project, "let rows = []; for i in 0..30 { rows.push(#{ a: i }); }\n#{ rows: rows }\n").ends(0).stdout;
    assert!(table.contains("[30 items]") && table.contains("in short: a field shows more by its name"), "{table}");
}

#[test]
fn names_of_primitives_that_are_given_away_are_told() {
    let outcome = said(&Project::new(), "let table = 1;\nlet mine = 2;\nfn log(text) { text }\nlog(\"x\")\n").ends(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines[0].starts_with("`table` is a primitive, too"), "{}", outcome.stdout);
    assert!(lines[1].starts_with("log(…) now calls this function"), "{}", outcome.stdout);
    assert_eq!(lines[2..], ["x"], "{}", outcome.stdout);
}

#[test]
fn models_stay_loaded_on_a_machine_that_keeps_running() {
    let fake = FakeRunPod::start();
    let project = Project::new();
    let script = "let gpu = provision_gpu(#{ provider: \"runpod\", gpu: \"A40\", keep_running: true });
        let model = gpu.load_model(gpu.miniature_model(\"olmoe\").path);";
    project.file("script.rhai", script);
    let outcome = Outcome::of(command(&project, &fake, &["run", "script.rhai"]).output().unwrap()).ends(0);
    assert!(outcome.stderr.contains("is kept running and costs $0.49/h"), "{}", outcome.stderr);
    let machine = fake.alive().remove(0);
    let attach = |input: &str| piped(command(&project, &fake, &["repl", "--attach", &machine]), input).ends(0);
    let ids = "load_tokens(#{ ids: [[5, 6, 7, 8, 9, 10, 11, 12]] })";
    let ask = format!(
        "models.len()\nlet acts = models[0].extract_layernorms({ids});\nacts.detect_outliers().max_magnitude\nacts.measurements.machine\n"
    );
    let first = attach(&format!(
        "{ask}gpu.load_model(gpu.miniature_model(\"mixtral\").path, #{{ dtype: \"bf16\" }});\n:save live\n"
    ));
    assert!(first.stdout.starts_with("attached to ") && first.stdout.contains("models[0]: id: "), "{}", first.stdout);
    assert!(first.stdout.contains("runpod NVIDIA A40"), "{}", first.stdout);
    let left = "is left running: $0.49/h";
    assert!(
        first.stderr.contains(left) && first.stderr.contains("it stays until it is terminated"),
        "{}",
        first.stderr
    );
    assert_eq!(fake.alive().len(), 1, "{}", first.stderr);
    // From another terminal: the same models, the new one with its options, the same numbers.
    let second = attach(&format!("{ask}models[1].dtype\n:detach\n"));
    let numbers = |outcome: &Outcome| -> Vec<String> {
        let lines = outcome.stdout.lines().filter(|line| line.parse::<f64>().is_ok());
        lines.map(str::to_string).collect()
    };
    assert_eq!(numbers(&first), ["1".to_string(), numbers(&first)[1].clone()], "{}", first.stdout);
    assert_eq!(numbers(&second), ["2".to_string(), numbers(&first)[1].clone()], "{}", second.stdout);
    assert!(second.stdout.contains("\nbf16\n") && second.stdout.contains("is left running"), "{}", second.stdout);
    // The session as a script attaches too.
    let script = Outcome::of(command(&project, &fake, &["run", "live.rhai"]).output().unwrap()).ends(0);
    assert!(script.stdout.contains(&numbers(&first)[1]), "{}", script.stdout);
    assert_eq!((fake.alive().len(), fake.created()), (1, 1));
    let unknown = piped(command(&project, &fake, &["repl", "--attach", "other"]), "").ends(3);
    assert!(unknown.stderr.contains("this project has no machine \"other\""), "{}", unknown.stderr);
    let ended = command(&project, &fake, &["gpus", "terminate", &machine]).output().unwrap();
    assert!(Outcome::of(ended).ok().contains("is given back"));
    assert_eq!(fake.alive(), [""; 0]);
}

/// A program at a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(project: &Project) -> Self {
        let (mut master, mut slave) = (0, 0);
        let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the two descriptors are written, nothing else.
        let made = unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null(), &size) };
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: both are open and belong to nobody else.
        let (keyboard, slave) = unsafe { (File::from_raw_fd(master), File::from_raw_fd(slave)) };
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let mut command = project.command(&["repl"]);
        command
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .env("TERM", "xterm")
            .env("HOME", project.path("home"));
        let terminal = slave.into_raw_fd();
        // SAFETY: both calls are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY as _, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // SAFETY: it was given away above and is open.
        drop(unsafe { File::from_raw_fd(terminal) });
        let screen: Arc<Mutex<String>> = Arc::default();
        let (mut reader, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = reader.read(&mut buffer)
                && count > 0
            {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { child, keyboard, screen }
    }

    /// Types, and waits until the screen shows `expected` behind what was there before.
    #[track_caller]
    fn types(&mut self, keys: &str, expected: &str) {
        let before = self.screen.lock().unwrap().len();
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.waits(before, expected);
    }

    #[track_caller]
    fn waits(&self, from: usize, expected: &str) {
        let begin = Instant::now();
        while !self.screen.lock().unwrap()[from..].contains(expected) {
            let late = begin.elapsed() > Duration::from_secs(300);
            assert!(!late, "waiting for {expected:?} on\n{}", self.screen.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn at_a_terminal() {
    let project = Project::new();
    let mut terminal = Terminal::start(&project);
    terminal.waits(0, ":help says what there is");
    terminal.types("1 + 2\r", "\r\n3\r\n");
    terminal.types("for i in 0..2 {\r", "\n");
    terminal.types("print(`line ${i}`);\r}\r", "line 1");
    // Tab completes what can only be one thing: primitives, and option keys.
    terminal.types("detect_o\t", "detect_outliers(");
    terminal.types("\u{3}", "(:quit leaves)");
    terminal.types("load_model(\"x\", #{ chunk\t", "chunk_layers: ");
    terminal.types("\u{3}", "(:quit leaves)");
    // Ctrl-C ends the call and not the session.
    terminal.types("let n = 5;\r", "> ");
    // Said when it runs, and not when it is typed.
    terminal.types("loop { n += 1; if n == 99 { print(\"go\" + \"ing\"); } }\r", "going");
    terminal.types("\u{3}", "error: interrupted");
    terminal.types("n > 5\r", "true");
    // What is not finished is ended by two empty lines, and told.
    terminal.types("let open = [1,\r\r\r", "hint: ");
    // Ctrl-D leaves.
    terminal.types("\u{4}", "\n");
    let status = terminal.child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{}", terminal.screen.lock().unwrap());
    assert!(project.text("home/.outlier/history").contains("1 + 2"), "the next session remembers");
}

#[test]
fn a_line_that_is_no_text_ended_the_input_without_a_word() {
    let project = Project::new();
    let input = b"\xef\xbb\xbfprint(1)\r\nprint(\"caf\xe9\")\nprint(3)\n";
    let outcome = piped(project.command(&["repl"]), input).ends(3);
    assert_eq!(outcome.stdout, "1\n3\n");
    assert!(outcome.stderr.contains("line 2 of the input is not UTF-8"), "{}", outcome.stderr);
    // What cannot be read is told too.
    let folder = std::fs::File::open(project.path(".")).unwrap();
    let outcome = Outcome::of(project.command(&["repl"]).stdin(folder).output().unwrap()).ends(3);
    assert!(outcome.stderr.contains("the input ends before line 1"), "{}", outcome.stderr);
}
