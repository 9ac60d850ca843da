//! Command lines of the program's own words, which are read from its help, and of other words.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use crate::chance::Chance;
use crate::mutate;
use crate::process::Start;
use crate::workshop::{Workshop, copy, link};

const WORDS: &[&str] = &[
    "scripts/sweep.rhai",
    "scripts/analyze.rhai",
    "scripts/quickstart.rhai",
    "examples/01_hello.rhai",
    "stdlib",
    "scripts",
    "results/first",
    "results",
    "nosuch",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e300",
    "0",
    "1",
    "3.0",
    "-0",
    "9223372036854775808",
    "18446744073709551616",
    "--models",
    "01",
    "--miniature",
    "--text",
    "--status",
    "terminate",
    "reap",
    "logs",
    "load_model",
    "?",
    "A100",
    "--help",
    "--layer-unit",
    "block",
    "block,norm",
    "--",
    "-h",
    "-V",
    "--a=b",
    "--max-steps=0",
    "--max-minutes=1e-300",
    "--quiet",
    "tests",
    "serve",
    "attach",
    "w",
];

/// `end-pod` and `ssh` speak to what is outside; commands of a script would be run on this machine.
const LEFT_OUT: &[&str] = &["end-pod", "ssh", "--allow-commands"];

pub fn commands(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    for part in ["examples", "scripts", "stdlib"] {
        link(&workshop.project().join(part), &folder.join(part));
    }
    copy(&workshop.project().join("results"), &folder.join("results"));
    if chance.one_in(10) {
        // A folder that contains itself.
        std::os::unix::fs::symlink("..", folder.join("scripts/up")).unwrap();
    }
    let known: Vec<&String> = workshop.words.iter().filter(|word| !LEFT_OUT.contains(&word.as_str())).collect();
    let commands: Vec<&&String> = known.iter().filter(|word| !word.starts_with('-')).collect();
    let mut words = vec![OsString::from(chance.pick(&commands).as_str())];
    if words[0] == "worker" {
        words.push(chance.pick(&["serve", "attach", "--help", "x"]).into());
        words.extend(["--folder".into(), "w".into()]);
    }
    for _ in 0..chance.below(6) {
        let word = match chance.below(10) {
            0..=3 => OsString::from(chance.pick(&known).as_str()),
            4..=7 => OsString::from(chance.pick(WORDS)),
            8 => OsString::from(chance.pick(mutate::TEXTS).replace('\0', "")),
            _ => OsString::from_vec(
                chance.pick(&[&b"\xff"[..], b"--text=\xff\xfe", b"\xc3\x28", b"results/\xf0\x9f", b"--\xff"]).to_vec(),
            ),
        };
        words.push(word.clone());
        // What gives a machine back is tried until it works.
        if word == "--on-end" {
            words.push("true".into());
        }
    }
    let leaves_processes = words.iter().any(|word| word == "worker" || word == "repl");
    Start { words, leaves_processes, ..Start::default() }.interrupted(6.0)
}
