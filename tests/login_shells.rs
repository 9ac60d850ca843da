//! Tests of machines whose users have other login shells than bash, or one whose startup files
//! print or do anything.

use serde_json::Value;

use crate::project::{Outcome, Project, stripped};
use crate::sshd::Sshd;

/// Login shells, and a file that each reads when it starts, with what stands there. All of them print.
pub const SHELLS: [(&str, &str, &str); 4] = [
    ("bash", ".bashrc", "echo 'Welcome to the Cluster! Quota: 5% used'\necho 'a warning' >&2\n"),
    ("tcsh", ".tcshrc", "echo Welcome\nsh -c 'echo a warning >&2'\n"),
    ("fish", ".config/fish/config.fish", "echo Welcome\necho a warning >&2\n"),
    ("zsh", ".zshenv", "echo Welcome\necho a warning >&2\n"),
];

/// A machine with this login shell.
pub fn machine(shell: &str, file: &str, text: &str, environment: &[(&str, &str)]) -> Sshd {
    let mut sshd = Sshd::for_client(environment);
    sshd.at_home(file, text);
    sshd.login_shell(shell).up();
    sshd
}

fn provision(sshd: &Sshd) -> String {
    format!(
        "provision_gpu(#{{ provider: \"ssh\", host: \"{}\", key: \"{}\" }})",
        sshd.target(),
        sshd.key_file().display()
    )
}

fn run(project: &Project, script: &str) -> Outcome {
    project.file("script.rhai", script);
    let mut command = project.command(&["run", "--allow-commands", "script.rhai"]);
    Outcome::of(command.env("OUTLIER_WORKER", stripped()).output().unwrap())
}

/// A command with all that shells read differently, and what comes of it.
const COMMAND: &str = r#"
    let said = gpu.run_command("x='it is'\nprintf '%s|' \"$x 100%\" '!x' \"it's\" '\\\\' $((1 + 1)) '{a,b}'; echo err >&2; exit 3");
    print(said.to_json());
"#;

#[track_caller]
fn is_right(line: &str) {
    let said: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(said["out"], "it is 100%|!x|it's|\\\\|2|{a,b}|");
    assert_eq!((&said["err"], &said["code"]), (&"err\n".into(), &3.into()));
}

#[test]
fn work_is_the_same_under_every_login_shell() {
    let here = Project::new();
    let analysis = r#"
        let made = gpu.miniature_model("gpt_oss");
        let model = gpu.load_model(made.path);
        let tokens = load_tokens(#{ text: made.text, model: model, num_sequences: 2, sequence_length: 64 });
        let acts = model.extract_layernorms(tokens);
        save_results("x", #{ activations: acts, found: acts.detect_outliers() });
    "#;
    here.script(&format!("let gpu = provision_gpu();\n{analysis}")).ok();
    // Bytes that a shell, or a terminal on the way, would not let pass.
    let blob: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (shell, file, text) in SHELLS {
        let sshd = machine(shell, file, text, &[]);
        let there = Project::trusting(&sshd.fingerprint());
        there.file("data/blob.bin", &blob).file("data/small.txt", "small");
        let files = "gpu.sync(#{ up: [\"data\"] });\ngpu.upload(\"data/blob.bin\", \"copy\");\ngpu.download(\"copy\", \"back\");\n";
        let outcome = run(&there, &format!("let gpu = {};\n{files}{COMMAND}{analysis}", provision(&sshd))).ends(0);
        is_right(outcome.stdout.lines().next().unwrap_or_default());
        assert!(there.bytes("back") == blob, "{shell}");
        assert!(
            !outcome.stderr.contains("Welcome") && !outcome.stderr.contains("a warning"),
            "{shell}: {}",
            outcome.stderr
        );
        crate::ssh::same(&here, &there, "x");
    }
}

/// Each of these has been seen in somebody's startup files.
#[test]
fn startup_files_may_do_what_they_like() {
    let mut sshd = Sshd::for_client(&[]);
    sshd.login_shell("bash").up();
    let project = Project::trusting(&sshd.fingerprint());
    for text in [
        "exec zsh\n",
        "exec tcsh\n",
        "read -r answer\necho \"you said $answer\"\n",
        "sleep 5\necho slow\n",
        "set -euC; umask 077; alias echo=false; alias exec=echo\n",
        "printf 'no end of line'\nset -v\n",
    ] {
        sshd.at_home(".bashrc", text);
        let script = format!("let gpu = {};\n{COMMAND}", provision(&sshd));
        let outcome = run(&project, &script);
        assert_eq!(outcome.code, 0, "{text}: {}", outcome.stderr);
        is_right(outcome.stdout.lines().next().unwrap_or_default());
    }
}

#[test]
fn accounts_that_run_no_commands_say_so() {
    for (command, said) in [
        (
            "echo This account is for transfers only; exit 7",
            "exit code 7 and started no /bin/sh; it said: This account is for",
        ),
        ("/usr/sbin/nologin", "it said: This account is currently not available."),
        ("exec bash -r -c \"$SSH_ORIGINAL_COMMAND\"", "exec: restricted"),
        ("true", "exit code 0 and started no /bin/sh; it said nothing"),
    ] {
        let mut sshd = Sshd::for_client(&[]);
        sshd.line(format!("ForceCommand {command}")).up();
        let project = Project::trusting(&sshd.fingerprint());
        let begin = std::time::Instant::now();
        project.refuses(&provision(&sshd), 3, said, "use another account, or ask for another shell");
        assert!(begin.elapsed().as_secs() < 60, "it was not waited for what cannot come");
    }
}

#[test]
fn a_login_shell_that_never_starts_another_is_given_up() {
    let sshd = Sshd::start();
    sshd.at_home(".bashrc", "echo waiting for a licence\nsleep 100000\n");
    let project = Project::trusting(&sshd.fingerprint());
    let expected = "its login shell has not started /bin/sh for 60 s; it said: waiting for a licence";
    project.refuses(&provision(&sshd), 3, expected, "do its startup files (.bashrc, .cshrc, config.fish) wait");
}

/// A command that leaves something at work, which holds its outputs, has ended all the same.
#[test]
fn a_command_ends_when_it_ends() {
    let sshd = Sshd::start();
    let project = Project::trusting(&sshd.fingerprint());
    let script = format!(
        "let gpu = {};\nprint(gpu.run_command(\"sleep 100000 & echo begun\").to_json());\n\
         print(gpu.run_command(\"kill -9 $$\").code);\n\
         try {{ gpu.run_command(\"kill -9 $PPID; sleep 1\"); }} catch (e) {{ print(e.kind + \": \" + e.message); }}",
        provision(&sshd)
    );
    let said = run(&project, &script).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("\"code\":0") && lines[0].contains("begun\\n"), "{said}");
    assert_eq!(lines[1], "137");
    assert!(lines[2].starts_with("lost: ") && lines[2].contains("ended before its command did"), "{said}");
}

/// Mounts a small file system at the machine's home folder.
fn mounted(sshd: &Sshd, options: &str) -> impl Drop {
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let made =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(sshd.home()).status();
    assert!(made.unwrap().success(), "a file system of one's own needs root");
    Mounted(sshd.home())
}

#[test]
fn a_home_folder_that_no_program_starts_in_is_told() {
    let sshd = Sshd::start();
    // SAFETY: it only tells who we are.
    let user = unsafe { libc::geteuid() };
    let instead = std::path::PathBuf::from(format!("/var/tmp/outlier-{user}"));
    let was_there = instead.exists();
    let _mounted = mounted(&sshd, "noexec,size=1g");
    let project = Project::trusting(&sshd.fingerprint());
    let script = format!("let gpu = {};\nprint(gpu.run_command(\"echo done\").out);", provision(&sshd));
    for _ in 0..2 {
        let outcome = run(&project, &script).ends(0);
        let told = format!("no program can be started in {}/.outlier/bin (mounted noexec)", sshd.home().display());
        assert!(
            outcome.stderr.contains(&told) && outcome.stderr.contains("goes to /var/tmp/outlier-"),
            "{}",
            outcome.stderr
        );
        assert_eq!(outcome.stdout.trim(), "done");
    }
    if !was_there {
        std::fs::remove_dir_all(instead).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_not_begun() {
    let sshd = Sshd::start();
    let _mounted = mounted(&sshd, "size=1g");
    let project = Project::trusting(&sshd.fingerprint());
    project.file("script.rhai", "");
    for name in ["data/a", "data/b"] {
        std::fs::create_dir_all(project.path("data")).unwrap();
        std::fs::File::create(project.path(name)).unwrap().set_len(600 << 20).unwrap();
    }
    let gpu = provision(&sshd);
    let outcome = run(&project, &format!("let gpu = {gpu};\ngpu.sync(#{{ up: [\"data\"] }});")).ends(3);
    assert!(outcome.stderr.contains("the disk is full, data does not fit: it takes 1.3 GB, "), "{}", outcome.stderr);
    let sent = std::process::Command::new("find").arg(sshd.home()).args(["-size", "+1M", "-path", "*data*"]).output();
    assert_eq!(String::from_utf8(sent.unwrap().stdout).unwrap(), "", "nothing of it was sent");
    let asked = gpu.replace(" })", ", disk_gb: 100000 })");
    let outcome = run(&project, &asked).ends(3);
    assert!(
        outcome.stderr.contains("what `disk_gb` asks for does not fit: it takes 100000.0 GB"),
        "{}",
        outcome.stderr
    );
}
