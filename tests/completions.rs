//! Tests that completions for shells, and manual pages, are made from the command line and accepted
//! by the shells and by `man`.

use std::process::{Command, Stdio};

use crate::project::Project;

/// The commands that `outlier --help` lists.
fn commands() -> Vec<String> {
    let help = Project::new().run(&["--help"]).ok();
    let lines = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    // What is told of a command may go on in the next line, further to the right.
    let lines = lines.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
    let names = lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let names: Vec<String> = names.map(str::to_string).collect();
    assert!(names.len() > 10, "{help}");
    names
}

fn installed(program: &str) -> bool {
    let asked = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok()
}

#[test]
fn every_shell_reads_its_completions() {
    let project = Project::new();
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let text = project.run(&["completions", shell]).ok();
        for command in commands() {
            assert!(text.contains(&command), "{shell} does not complete {command}");
        }
        // Started by clients only; nobody types it.
        assert!(!text.contains("worker"), "{shell} offers the hidden worker");
        assert!(text.contains("--allow-read") || text.contains("allow-read"), "{shell}");
        if installed(shell) {
            project.file("completions", &text);
            let output = Command::new(shell).arg(check).arg(project.path("completions")).output().unwrap();
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    let outcome = project.run(&["completions", "cmd"]).ends(2);
    assert!(outcome.stderr.contains("possible values: bash"), "{}", outcome.stderr);
}

/// What bash offers behind these words, by the functions that it has read.
#[test]
fn bash_offers_commands_and_flags() {
    if !installed("bash") {
        return;
    }
    let project = Project::new();
    project.file("completions", project.run(&["completions", "bash"]).ok());
    let offered = |words: &[&str]| {
        let script = "source completions; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMP_LINE=\"$*\"; COMP_POINT=${#COMP_LINE};
                      _outlier outlier \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; echo \"${COMPREPLY[@]}\"";
        let mut command = Command::new("bash");
        command.args(["-c", script, "bash"]).args(words).current_dir(project.path(""));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(offered(&["outlier", "re"]).split_whitespace().collect::<Vec<_>>(), ["repl", "rethreshold"]);
    assert_eq!(offered(&["outlier", "rethreshold", "--mag"]).trim(), "--magnitude");
    assert_eq!(offered(&["outlier", "gpus", "term"]).trim(), "terminate");
}

#[test]
fn the_manual_lists_every_command_and_exit_code() {
    let project = Project::new();
    let page = project.run(&["man"]).ok();
    for command in commands() {
        assert!(page.contains(&format!("outlier\\-{command}(1)")), "{command} is not in the page:\n{page}");
        let own = project.run(&["man", &command]).ok();
        assert!(own.starts_with(".ie \\n(.g") && own.contains(".SH NAME") && own.contains(".SH DESCRIPTION"), "{own}");
    }
    assert!(!page.contains("worker"), "{page}");
    let (_, codes) = page.split_once(".SH \"EXIT STATUS\"").unwrap();
    assert!(codes.contains("0 done") && codes.contains("130"), "{page}");
    if installed("man") {
        project.file("outlier.1", &page);
        let mut command = Command::new("man");
        command.args(["--warnings", "-l", "outlier.1"]).current_dir(project.path("")).env("MANWIDTH", "80");
        let output = command.output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).replace('\u{2010}', "-");
        // A system without its manual pages has a `man` that shows none.
        if output.status.success() && shown.contains("NAME") {
            assert!(shown.contains("outlier-rethreshold(1)"), "{shown}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        }
    }
}

#[test]
fn all_manual_pages_go_to_a_folder() {
    let project = Project::new();
    let listed = project.run(&["man", "--dir", "man1"]).ok();
    let files = project.files("man1");
    assert_eq!(listed.lines().count(), files.len());
    assert!(files.contains(&"outlier.1".to_string()) && files.contains(&"outlier-gpus-terminate.1".to_string()));
    for command in commands() {
        assert!(files.contains(&format!("outlier-{command}.1")), "{files:?}");
    }
    let page = project.text("man1/outlier-gpus-terminate.1");
    assert!(page.contains("outlier gpus terminate"), "{page}");
    assert!(page.contains(&format!("\"outlier {}\"", env!("CARGO_PKG_VERSION"))), "{page}");
}

#[test]
fn a_command_without_a_page_is_told() {
    let project = Project::new();
    let outcome = project.run(&["man", "rnu"]).ends(1);
    assert!(
        outcome.stderr.contains("there is no command \"rnu\"") && outcome.stderr.contains("`run`"),
        "{}",
        outcome.stderr
    );
    project.run(&["man", "worker"]).ends(1);
    project.run(&["man", "--dir", "/proc/self/pages"]).ends(3);
}
