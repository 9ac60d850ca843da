//! Tests of rules for the source, which are read from its text: which part may import which, and
//! what every file must have.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::repository;
use crate::source_tree::Tree;

/// Every room of `src/` (a folder or a single file) and its floor. A file imports from lower floors
/// and from its own room; rooms on one floor do not import each other.
const FLOORS: &[(&str, u32)] = &[
    ("cli", 8),
    ("host", 7),
    ("session", 6),
    ("engine", 5),
    ("miniature", 5),
    ("reference", 5),
    ("weights", 4),
    ("gpu", 3),
    ("ops", 3),
    ("text", 3),
    ("hub", 2),
    ("remote", 2),
    ("results", 2),
    ("spec", 2),
    ("tensor", 2),
    ("cuda", 1),
    ("disk", 1),
    ("exit", 1),
    ("formats", 1),
    ("gemm", 1),
    ("outside", 1),
    ("plot", 1),
    ("stats", 1),
    ("terminal", 1),
    ("error", 0),
    ("home", 0),
    ("memory", 0),
    ("plain", 0),
    ("progress", 0),
    ("record", 0),
    ("secret", 0),
    ("suggest", 0),
    ("threads", 0),
    ("vector", 0),
    ("vocabulary", 0),
    ("words", 0),
];

/// Every room of `src/host/` and its floor there, for which the same rule holds.
const HOST_FLOORS: &[(&str, u32)] = &[
    ("tools", 8),
    ("interpreter", 7),
    ("scripts", 6),
    ("diagnostics", 5),
    ("reference", 4),
    ("primitives", 3),
    ("values", 2),
    ("run", 1),
    ("language", 0),
];

/// The largest number of lines of a file. A longer one has more than one subject.
const MAX_LINES: usize = 450;
/// The same for the file of an architecture, and the lines that half of them do not exceed.
const MAX_ARCHITECTURE_LINES: usize = 130;
const USUAL_ARCHITECTURE_LINES: usize = 70;
/// What a file has that describes an architecture.
const DESCRIBES: &str = "&dyn Names) -> Result<Model>";

/// The largest number of columns of a line of comments, and the room whose comments are help texts.
const COMMENT_COLUMNS: usize = 100;
const WIDER_ROOMS: [&str; 1] = ["cli"];

struct Source {
    /// The path, relative to the repository.
    path: String,
    text: String,
    /// The text without comments.
    code: String,
}

impl Source {
    /// `spec` for `src/spec/arch/llama.rs`, `error` for `src/error.rs`.
    fn room(&self) -> &str {
        let below = self.path.strip_prefix("src/").unwrap();
        below.split('/').next().unwrap().trim_end_matches(".rs")
    }
}

/// All files below `folder` with this extension, sorted by path.
fn files(folder: &str, extension: &str) -> Vec<Source> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut folders = vec![repository().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => paths.push(path),
            }
        }
    }
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    assert!(!paths.is_empty(), "no .{extension} files in {folder}");
    paths.iter().map(|path| source(path)).collect()
}

fn source(path: &Path) -> Source {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    Source { path: path.strip_prefix(repository()).unwrap().display().to_string(), text, code }
}

/// The rooms that a text names after `crate::`, singly or in a group.
fn rooms_named(code: &str) -> Vec<String> {
    let word = |text: &str| text.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_string();
    let mut rooms = Vec::new();
    for behind in code.split("crate::").skip(1) {
        let Some(group) = behind.strip_prefix('{') else {
            rooms.push(word(behind));
            continue;
        };
        // The first word of every entry of the group.
        let (mut depth, mut entry) = (1, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => (),
            }
            if depth == 0 || (depth == 1 && c == ',') {
                rooms.push(word(&entry));
                entry.clear();
            } else {
                entry.push(c);
            }
            if depth == 0 {
                break;
            }
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

fn floor(room: &str) -> u32 {
    let row = FLOORS.iter().find(|(name, _)| *name == room);
    row.unwrap_or_else(|| panic!("`{room}` has no floor: add it to FLOORS in tests/tidy.rs")).1
}

#[track_caller]
fn none(wrong: Vec<String>, rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

fn upward_imports(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources {
        let room = file.room();
        if matches!(room, "main" | "lib") {
            continue;
        }
        // From a room's own file `super` is the crate: another way to the same rooms.
        let above = FLOORS.iter().filter(|(other, _)| file.code.contains(&format!("super::{other}::")));
        let named = rooms_named(&file.code).into_iter().chain(above.map(|(name, _)| name.to_string()));
        for other in named.filter(|other| other != room) {
            if floor(&other) >= floor(room) {
                wrong.push(format!("{} (floor {}) imports {other} (floor {})", file.path, floor(room), floor(&other)));
            }
        }
    }
    wrong
}

#[test]
fn imports_go_down() {
    none(upward_imports(&files("src", "rs")), "a file imports from lower floors only");
}

fn upward_imports_in_host(sources: &[Source]) -> Vec<String> {
    let tree = Tree::new(sources.iter().map(|file| (file.path.as_str(), file.text.as_str())));
    let room = |path: &str| {
        let first = path.strip_prefix("src/host/")?.split('/').next()?;
        Some(first.trim_end_matches(".rs").to_string())
    };
    let floor = |room: &str| {
        let row = HOST_FLOORS.iter().find(|(name, _)| *name == room);
        row.unwrap_or_else(|| panic!("`host/{room}` has no floor: add it to HOST_FLOORS in tests/tidy.rs")).1
    };
    let mut wrong = Vec::new();
    for (from, to) in tree.all_imports() {
        let (Some(from_room), Some(to_room)) = (room(from), room(to)) else { continue };
        if from_room != "mod" && from_room != to_room && floor(&to_room) >= floor(&from_room) {
            wrong.push(format!("{from} (floor {}) imports {to} (floor {})", floor(&from_room), floor(&to_room)));
        }
    }
    wrong
}

#[test]
fn imports_go_down_in_the_host() {
    none(upward_imports_in_host(&files("src", "rs")), "a file of the host imports from its lower rooms only");
    for (room, _) in HOST_FLOORS {
        let folder = repository().join("src/host").join(room);
        assert!(
            folder.is_dir() || folder.with_extension("rs").is_file(),
            "HOST_FLOORS names {room}, src/host/ has none"
        );
    }
}

fn circles(sources: &[Source]) -> Vec<String> {
    let tree = Tree::new(sources.iter().map(|file| (file.path.as_str(), file.text.as_str())));
    tree.circles().into_iter().map(|circle| circle.join(", ")).collect()
}

#[test]
fn no_room_has_a_circle_of_imports() {
    none(circles(&files("src", "rs")), "files of a room do not import each other in circles");
}

#[test]
fn the_floors_are_those_of_the_source() {
    for (room, _) in FLOORS {
        let folder = repository().join("src").join(room);
        assert!(folder.is_dir() || folder.with_extension("rs").is_file(), "FLOORS names {room}, src/ has none");
    }
    assert_eq!(
        rooms_named("use crate::{\n    hub, model::{self, OpenModel}, stats::a::b,\n};\ncrate::record::X"),
        ["hub", "model", "stats", "record"]
    );
}

/// Only the program chooses an allocator, not the library.
const ALLOCATING: [&str; 3] = ["benches/operations.rs", "benches/streaming.rs", "src/main.rs"];

#[test]
fn programs_choose_their_allocator_and_the_library_does_not() {
    let all = ["src", "tests", "benches"].map(|folder| files(folder, "rs"));
    let choosing = all.iter().flatten().filter(|file| file.code.contains("#[global_allocator]"));
    let mut paths: Vec<&str> = choosing.map(|file| file.path.as_str()).collect();
    paths.sort();
    paths.retain(|path| *path != "tests/tidy.rs");
    assert_eq!(paths, ALLOCATING);
}

fn without_header(sources: &[Source]) -> Vec<String> {
    sources.iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path.clone()).collect()
}

#[test]
fn every_file_says_what_it_is_for() {
    let sources = files("src", "rs").into_iter().chain(files("tests", "rs"));
    let all = sources.chain(files("scripts", "rhai")).chain(files("stdlib", "rhai")).chain(files("examples", "rhai"));
    none(without_header(&all.collect::<Vec<_>>()), "a file opens with //!");
}

#[test]
fn libraries_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for file in files("src", "rs") {
        for (library, rooms) in [
            ("candle_", &["tensor", "ops", "weights", "engine"][..]),
            ("cudarc", &["cuda"]),
            ("rhai::", &["host", "cli"]),
        ] {
            if file.code.contains(library) && !rooms.contains(&file.room()) {
                wrong.push(format!("{} uses {library}, which belongs to {rooms:?}", file.path));
            }
        }
    }
    none(wrong, "only the engine knows tensors, only cuda/ the GPU's libraries, only the host the script language");
}

/// Whether a text names the enum of requests as they are sent.
fn names_op(code: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices("Op::").any(|(at, _)| !code[..at].ends_with(is_part))
}

#[test]
fn one_place_takes_requests_apart() {
    let naming = files("src", "rs").into_iter().filter(|file| file.room() == "session" && names_op(&file.code));
    // Elsewhere a request has its own type, which names its reply.
    assert_eq!(naming.map(|file| file.path).collect::<Vec<_>>(), ["src/session/op.rs"]);
    assert!(names_op("match op { Op::Extract(request) => 1 }") && !names_op("MyOp::Load => 1"));
}

#[test]
fn nothing_is_left_undone() {
    let unfinished = ["todo!(", "unimplemented!(", "dbg!("];
    let wrong = files("src", "rs").into_iter().filter(|file| unfinished.iter().any(|mark| file.code.contains(mark)));
    none(wrong.map(|file| file.path).collect(), "no todo!, unimplemented! or dbg!");
}

fn too_long(sources: &[Source]) -> Vec<String> {
    let long = sources.iter().map(|file| (file.text.lines().count(), &file.path));
    long.filter(|(lines, _)| *lines > MAX_LINES).map(|(lines, path)| format!("{path}: {lines} lines")).collect()
}

#[test]
fn files_are_short() {
    none(too_long(&files("src", "rs")), "look for the second noun");
}

/// The number of lines of the file of each architecture.
fn architectures(sources: &[Source]) -> impl Iterator<Item = (usize, &str)> {
    let described = |file: &&Source| {
        file.path.starts_with("src/spec/arch/") && !file.path.ends_with("/mod.rs") && file.code.contains(DESCRIBES)
    };
    sources.iter().filter(described).map(|file| (file.text.lines().count(), file.path.as_str()))
}

fn long_architectures(sources: &[Source]) -> Vec<String> {
    let long = architectures(sources).filter(|(lines, _)| *lines > MAX_ARCHITECTURE_LINES);
    long.map(|(lines, path)| format!("{path}: {lines} lines")).collect()
}

#[test]
fn architectures_are_short() {
    let sources = files("src", "rs");
    none(long_architectures(&sources), "move what other architectures can use");
    let mut lines: Vec<_> = architectures(&sources).map(|(lines, _)| lines).collect();
    lines.sort();
    assert!(lines.len() > 50, "{} files describe architectures", lines.len());
    assert!(lines[lines.len() / 2] <= USUAL_ARCHITECTURE_LINES, "half of them have {} lines", lines[lines.len() / 2]);
}

fn wide_comments(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources.iter().filter(|file| !WIDER_ROOMS.contains(&file.room())) {
        for (number, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if line.trim_start().starts_with("//") && columns > COMMENT_COLUMNS {
                wrong.push(format!("{}:{}: {columns} columns", file.path, number + 1));
            }
        }
    }
    wrong
}

#[test]
fn comments_are_narrow() {
    let sources = [files("src", "rs"), files("src/cuda", "cu"), files("src/cuda", "cuh")].into_iter().flatten();
    none(wide_comments(&sources.collect::<Vec<_>>()), &format!("a comment has {COMMENT_COLUMNS} columns at most"));
}

#[test]
fn each_rule_is_broken_by_a_planted_violation() {
    let mut sources = files("src", "rs");
    let rules =
        [upward_imports, upward_imports_in_host, circles, without_header, too_long, long_architectures, wide_comments];
    let before: Vec<_> = rules.map(|rule| rule(&sources)).into();
    let plant = |path: &str, text: &str| Source { path: path.into(), text: text.into(), code: text.into() };
    sources.push(plant("src/gemm/planted.rs", "//! Up.\nuse crate::engine::extract;\n"));
    sources.push(plant("src/host/run/planted.rs", "//! Up.\nuse crate::host::values::options::Options;\n"));
    sources.push(plant("src/stats/planted.rs", "//! One half.\nuse super::planted_too::f;\npub fn g() {}\n"));
    sources.push(plant("src/stats/planted_too.rs", "//! The other.\nuse super::planted::g;\npub fn f() {}\n"));
    sources.push(plant("src/plot/planted.rs", "pub fn f() {}\n"));
    sources.push(plant("src/plot/planted_too.rs", &format!("//! Long.\n{}", "\n".repeat(MAX_LINES))));
    let described = format!("//! Long.\nfn model(c: &Config, names: {DESCRIBES};\n{}", "\n".repeat(129));
    sources.push(plant("src/spec/arch/planted.rs", &described));
    sources.push(plant("src/record/planted.rs", &format!("//! Wide.\n    // {}\n", "-".repeat(COMMENT_COLUMNS - 6))));
    for ((rule, before), planted) in rules.iter().zip(before).zip([
        "src/gemm/planted.rs (floor 1) imports engine (floor 5)",
        "src/host/run/planted.rs (floor 1) imports src/host/values/options.rs (floor 2)",
        "src/stats/planted.rs, src/stats/planted_too.rs",
        "src/plot/planted.rs",
        "src/plot/planted_too.rs: 451 lines",
        "src/spec/arch/planted.rs: 131 lines",
        "src/record/planted.rs:2: 101 columns",
    ]) {
        let found: Vec<_> = rule(&sources).into_iter().filter(|wrong| !before.contains(wrong)).collect();
        assert_eq!(found, [planted]);
    }
}

/// Records reach scripts as maps, which do not know their possible fields.
#[test]
fn every_field_of_a_record_can_be_suggested() {
    let known = source(&repository().join("src/host/diagnostics/fields.rs")).code;
    let known: BTreeSet<&str> = known.split(|c: char| !c.is_alphanumeric()).collect();
    let mut wrong = Vec::new();
    for room in ["claim", "criterion", "estimate", "finding", "interval", "perplexity", "profile", "sweep"] {
        let record = source(&repository().join("src/record").join(format!("{room}.rs")));
        let records = record.code.lines().filter_map(|line| line.strip_prefix("pub struct ")?.strip_suffix(" {"));
        let records: Vec<_> = records.map(str::to_string).collect();
        assert!(!records.is_empty(), "{room}");
        wrong.extend(records.into_iter().filter(|record| record != "TestArgs" && !known.contains(record.as_str())));
    }
    none(wrong, "add these records to src/host/diagnostics/fields.rs");
}

#[test]
fn dependencies_are_pinned() {
    // Outside a clone (a tarball) there is nothing to ask.
    if repository().join(".git").exists() {
        let git = Command::new("git").args(["ls-files", "Cargo.lock"]).current_dir(repository()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&git.stdout).trim(), "Cargo.lock", "Cargo.lock must be committed");
    }
}
