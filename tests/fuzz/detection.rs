//! Tests that the fuzzer finds faults, with programs that have one planted fault each, and that two
//! runs of one case agree.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::process::End;
use crate::report::judge;
use crate::workshop::{Workshop, executable, read, write};
use crate::{Fuzz, Limits, TARGETS};

/// Little of everything: the planted faults are quick.
const LIMITS: Limits = Limits { time: Duration::from_secs(2), memory: 64 << 20 };

/// A target, a program as a shell script, and what must be found of it.
const PLANTED: &[(&str, &str, Option<&str>)] = &[
    ("config", "exit 0", None),
    ("config", "exit 3", None),
    ("config", "exit 130", None),
    (
        "config",
        "echo \"thread 'main' panicked at src/x.rs:1:2:\" >&2; echo no >&2; exit 101",
        Some("exit code 101, panic: src/x.rs:1:2: no"),
    ),
    ("config", "echo 'error: a primitive panicked' >&2; exit 3", Some("panic: error: a primitive panicked")),
    ("config", "echo \"thread 'x' panicked at src/y.rs:1:2:\"; exit 0", Some("panic: src/y.rs")),
    ("config", "kill -ABRT $$", Some("signal 6")),
    ("config", "exit 7", Some("exit code 7")),
    ("config", "sleep 60", Some("hang")),
    ("options", "trap '' INT; sleep 60; sleep 60", Some("hang")),
    ("config", "head -c 100000000 /dev/zero | tail -c 100000000 > /dev/null", Some("memory over 64 MB")),
    ("worker", "mkdir -p results; touch results/x", None),
    ("worker", "mkdir .git; touch .git/config", Some("wrote \".git\"")),
    ("worker", "touch ../escaped", Some("wrote \"../escaped\"")),
];

pub fn finds_planted_faults(workshop: &Arc<Workshop>, kept: &Path) {
    for (target, program, expected) in PLANTED {
        let path = workshop.root().join("planted");
        write(&path, format!("#!/bin/sh\n{program}\n"));
        executable(&path);
        let fuzz = Fuzz { limits: LIMITS, ..Fuzz::new(&path, workshop.clone(), 1, kept.to_path_buf()) };
        let make = TARGETS.iter().find(|(name, _)| name == target).expect("a target").1;
        let (ended, ..) = fuzz.once(target, make, 1, LIMITS.time);
        let found = judge(&ended, LIMITS.memory).map(|fault| fault.site);
        let right = match (expected, &found) {
            (None, None) => true,
            (Some(expected), Some(found)) => found.contains(expected),
            _ => false,
        };
        assert!(right, "{target} with `{program}`: expected {expected:?}, found {found:?}, {:?}", ended.end);
    }
    a_case_depends_on_its_number_only(workshop, kept);
}

fn a_case_depends_on_its_number_only(workshop: &Arc<Workshop>, kept: &Path) {
    let path = workshop.root().join("planted");
    write(&path, "#!/bin/sh\nexit 0\n");
    executable(&path);
    let fuzz = Fuzz { limits: LIMITS, ..Fuzz::new(&path, workshop.clone(), 1, kept.to_path_buf()) };
    for (name, make) in TARGETS.iter().filter(|(name, _)| !["client", "hub"].contains(name)) {
        let run = |number| {
            let (ended, folder, words) = fuzz.once(name, *make, number, LIMITS.time);
            assert!(ended.end == End::Code(0), "{name}: {:?}", ended.end);
            let mut files = BTreeMap::new();
            list(folder.path(), folder.path(), &mut files);
            (words, files)
        };
        assert!(run(7) == run(7), "{name}: case 7 is another one the second time");
    }
}

/// The largest file in bytes whose content is compared.
const LARGEST_READ: u64 = 64 << 20;

/// All files below a folder, by their names relative to it.
fn list(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for name in crate::names(folder) {
        let path = folder.join(name);
        if path.is_symlink() {
            continue;
        }
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.is_dir() {
            list(root, &path, files);
            continue;
        }
        // A pipe would be waited for, and a file with holes may be larger than the memory.
        let content = match metadata.is_file() && metadata.len() <= LARGEST_READ {
            true => read(&path),
            false => format!("{:?} of {}", metadata.file_type(), metadata.len()).into_bytes(),
        };
        files.insert(path.strip_prefix(root).expect("below it").display().to_string(), content);
    }
}
