//! Tests of the pages for readers (README, docs/ and the others at the top): their length, that the
//! things they name exist, and that the output they show is what the program prints.
//!
//! A comment in a page tells these tests what the block below it is:
//!
//! - `<!-- file: scripts/mine.rhai -->`: the block is saved under that name,
//! - `<!-- printed by: outlier run scripts/mine.rhai -->`: the block is what the command prints,
//!
//! in a project in which `scripts/quickstart.rhai` has been run before. `REWRITE=1 cargo test --test outlier pages`
//! writes what is printed now into the pages, and draws README's picture again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::{Outcome, Project, repository};

const WIDEST: usize = 120;
const MOST_WORDS_OF_README: usize = 1100;
/// The page that `outlier doc --markdown` makes, from texts that have a width of their own.
const GENERATED: &str = "docs/reference.md";
/// Pages whose lines may be longer: the generated one, and one of shell commands.
const WIDE: [&str; 2] = [GENERATED, "tests/fixtures/README.md"];

struct Page {
    /// The path, relative to the repository.
    path: String,
    text: String,
}

/// A fenced block with the content of the comment above it.
#[derive(Debug)]
struct Block {
    language: String,
    mark: Option<String>,
    /// The lines of the block, without the fences, each with its end.
    text: String,
    /// The byte range of `text` in the page.
    range: std::ops::Range<usize>,
}

fn page(path: &str) -> Page {
    Page { path: path.to_string(), text: std::fs::read_to_string(repository().join(path)).unwrap() }
}

/// Every page: those at the top, those in docs/, and those beside examples, results, logs, benchmarks and fixtures.
fn pages() -> Vec<Page> {
    let in_folder = |folder: &str| {
        let entries = std::fs::read_dir(repository().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names = names.filter(|name| name.ends_with(".md"));
        names.map(|name| if folder.is_empty() { name } else { format!("{folder}/{name}") }).collect::<Vec<_>>()
    };
    let mut paths: Vec<String> = ["", "docs", "examples", "results", "logs", "benches", "tests/fixtures"]
        .into_iter()
        .flat_map(in_folder)
        .collect();
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    paths.iter().map(|path| page(path)).collect()
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut mark, mut at) = (Vec::new(), None, 0);
    let mut open: Option<(String, usize)> = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end();
        match (&open, bare.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_string(), at + line.len())),
            (Some((language, begin)), Some("")) => {
                let range = *begin..at;
                let text = text[range.clone()].to_string();
                blocks.push(Block { language: language.clone(), mark: mark.take(), text, range });
                open = None;
            }
            (None, None) if bare.starts_with("<!--") => {
                mark = bare.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).map(str::to_string);
            }
            (None, None) if !bare.is_empty() => mark = None,
            _ => (),
        }
        at += line.len();
    }
    assert!(open.is_none(), "a block is never closed");
    blocks
}

#[track_caller]
fn none(wrong: Vec<String>, rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

#[test]
fn the_readme_takes_three_minutes() {
    // Lines of tables, such as │ and |, are no words.
    let is_word = |word: &&str| word.chars().any(char::is_alphanumeric);
    let words = page("README.md").text.split_whitespace().filter(is_word).count();
    assert!(words <= MOST_WORDS_OF_README, "{words} words; tables and details belong to docs/");
}

#[test]
fn lines_of_pages_are_not_too_long_for_a_screen() {
    let mut wrong = Vec::new();
    for page in pages().iter().filter(|page| !WIDE.contains(&page.path.as_str())) {
        let mut printed = false;
        for (number, line) in page.text.lines().enumerate() {
            printed = line == "```text" || printed && !line.starts_with("```");
            // A row of a table is one line, however many cells it has; what the program prints into a pipe is shown as it is.
            let may_be_long = (line.starts_with('|') || printed) && page.path != "README.md";
            if line.chars().count() > WIDEST && !may_be_long {
                wrong.push(format!("{}:{}: {} columns", page.path, number + 1, line.chars().count()));
            }
        }
    }
    none(wrong, "no line over 120 columns");
}

/// The name of a heading in links: lower case, words joined by `-`, everything else left out.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    let fenced: Vec<_> = blocks(text).into_iter().map(|block| block.range).collect();
    let mut at = 0;
    let mut found = BTreeSet::new();
    for line in text.split_inclusive('\n') {
        if line.starts_with('#') && !fenced.iter().any(|range| range.contains(&at)) {
            found.insert(anchor(line.trim_start_matches('#').trim()));
        }
        at += line.len();
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    let mut followed = 0;
    for page in pages() {
        let folder = Path::new(&page.path).parent().unwrap().to_path_buf();
        for behind in page.text.split("](").skip(1) {
            let target = behind.split(')').next().unwrap();
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { PathBuf::from(&page.path) } else { folder.join(file) };
            let there = repository().join(&path);
            if !there.exists() {
                wrong.push(format!("{}: {target}", page.path));
            } else if !heading.is_empty() && !anchors(&std::fs::read_to_string(there).unwrap()).contains(heading) {
                wrong.push(format!("{}: {target}: no such heading", page.path));
            }
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed}");
    none(wrong, "links lead to files and headings");
}

/// Messages, comments and scripts name pages that exist.
#[test]
fn pages_that_are_named_are_there() {
    let mut named = BTreeSet::new();
    for folder in ["src", "tests", "scripts", "stdlib", "examples", "benches", "docs", ".ci"] {
        let mut folders = vec![repository().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let Ok(text) = std::fs::read_to_string(&path) else { continue };
                for behind in text.split("docs/").skip(1) {
                    let name: String =
                        behind.chars().take_while(|c| c.is_ascii_alphanumeric() || "_-/.".contains(*c)).collect();
                    if let Some((name, _)) = name.split_once(".md") {
                        named.insert((format!("docs/{name}.md"), path.clone()));
                    }
                }
            }
        }
    }
    assert!(named.len() > 20);
    let missing = named.iter().filter(|(name, _)| !repository().join(name).exists());
    none(missing.map(|(name, path)| format!("{}: {name}", path.display())).collect(), "a page that is named is there");
}

/// `docs/README.md` lists every page and its readers.
#[test]
fn every_page_is_in_the_list() {
    let list = page("docs/README.md").text;
    let unlisted = pages().into_iter().filter_map(|page| {
        let name = page.path.strip_prefix("docs/")?;
        (name != "README.md" && !list.contains(&format!("]({name})"))).then(|| page.path.clone())
    });
    none(unlisted.collect(), "a page has its row in docs/README.md");
}

/// Scripts in pages pass `outlier check`. Those of the reference are run by another test.
#[test]
fn scripts_in_pages_have_no_mistakes() {
    let project = Project::new();
    project.copy("scripts", "scripts").copy("stdlib", "stdlib").copy("examples", "examples");
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages().iter().filter(|page| page.path != GENERATED) {
        for block in blocks(&page.text).into_iter().filter(|block| block.language == "rhai") {
            checked += 1;
            project.file("scripts/block.rhai", &block.text);
            let outcome = project.run(&["check", "scripts/block.rhai"]);
            if outcome.code != 0 {
                wrong.push(format!("{}:\n{}\n{}", page.path, block.text, outcome.stderr));
            }
        }
    }
    assert!(checked > 5, "{checked}");
    none(wrong, "a script in a page passes `outlier check`");
}

/// The words behind a program's name in the shell blocks of pages: `run` of `outlier run x`, `demo` of `make demo`.
fn said(program: &str) -> BTreeSet<(String, String)> {
    let mut words = BTreeSet::new();
    for page in pages() {
        for block in blocks(&page.text).into_iter().filter(|block| block.language == "sh") {
            for line in block.text.lines() {
                let line = line.trim_start_matches("./target/release/");
                let rest = line.strip_prefix(program).and_then(|rest| rest.strip_prefix(' '));
                if let Some(word) = rest.and_then(|rest| rest.split_whitespace().next()) {
                    words.insert((word.to_string(), page.path.clone()));
                }
            }
        }
    }
    words
}

#[test]
fn commands_in_pages_are_commands() {
    let help = Project::new().run(&["--help"]).ok();
    let commands: BTreeSet<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.contains("run") && commands.len() > 8, "{help}");
    let said_of_it = said("outlier");
    assert!(said_of_it.len() > 10);
    let unknown = said_of_it.iter().filter(|(word, _)| !word.starts_with('-') && !commands.contains(word.as_str()));
    none(unknown.map(|(word, page)| format!("{page}: outlier {word}")).collect(), "commands in pages are known");
    let makefile = std::fs::read_to_string(repository().join("Makefile")).unwrap();
    let is_target = |word: &str| makefile.lines().any(|line| line.starts_with(&format!("{word}:")));
    let unknown = said("make").into_iter().filter(|(word, _)| !is_target(word));
    none(unknown.map(|(word, page)| format!("{page}: make {word}")).collect(), "targets in pages are targets");
}

/// Runs the blocks of a page in order, and returns the page as it should be.
fn as_printed(page: &Page, project: &Project) -> String {
    let (mut text, mut end) = (String::new(), 0);
    for block in blocks(&page.text) {
        let mark = block.mark.as_deref().unwrap_or_default();
        if let Some(file) = mark.strip_prefix("file: ") {
            project.file(file, &block.text);
        }
        let Some(line) = mark.strip_prefix("printed by: ") else { continue };
        let words: Vec<&str> = line.split(' ').collect();
        let printed = match words[0] {
            "outlier" => project.run(&words[1..]),
            "python3" => match python(project, &words[1..]) {
                Some(outcome) => outcome,
                None => continue,
            },
            other => panic!("{}: {other} is not known here", page.path),
        };
        let printed = printed.ok();
        text += &page.text[end..block.range.start];
        text += &printed.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
        end = block.range.end;
    }
    text + &page.text[end..]
}

/// The interpreter, or None if there is no Python with the packages that the script needs.
fn python(project: &Project, words: &[&str]) -> Option<Outcome> {
    let output = Command::new("python3").args(words).current_dir(project.path("")).output().ok()?;
    let outcome = Outcome::of(output);
    (!outcome.stderr.contains("ModuleNotFoundError")).then_some(outcome)
}

#[test]
fn what_pages_show_is_what_is_printed() {
    let project = Project::new();
    project.copy("scripts", "scripts").copy("examples", "examples");
    project.run(&["run", "scripts/quickstart.rhai", "--quiet"]).ok();
    let mut wrong = Vec::new();
    let mut shown = 0;
    for page in pages() {
        let marks = blocks(&page.text).iter().filter(|block| block.mark.is_some()).count();
        if marks == 0 {
            continue;
        }
        shown += marks;
        let now = as_printed(&page, &project);
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(repository().join(&page.path), &now).unwrap();
        } else if now != page.text {
            let different = page.text.lines().zip(now.lines()).find(|(a, b)| a != b);
            wrong.push(format!("{}: {different:?}", page.path));
        }
    }
    assert!(shown >= 6, "{shown}");
    none(wrong, "REWRITE=1 cargo test --test outlier pages writes what is printed now");
}

/// The texts of a figure: title, labels and numbers. Colours may differ by a step where sums are
/// rounded differently.
fn texts(svg: &str) -> Vec<&str> {
    let texts = svg.split("<text ").skip(1).filter_map(|text| text.split_once('>')?.1.split_once("</text>"));
    texts.map(|(text, _)| text).collect()
}

#[test]
fn the_picture_of_the_readme_is_what_the_program_draws() {
    const PICTURE: &str = "docs/images/shakespeare_olmoe.svg";
    assert!(page("README.md").text.contains(PICTURE));
    let project = Project::new();
    project.copy("examples", "examples").copy("docs/images/picture.rhai", "picture.rhai");
    project.run(&["run", "picture.rhai"]).ok();
    let drawn = project.text("results/figures/shakespeare_olmoe.svg");
    let file = repository().join(PICTURE);
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&file, &drawn).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap();
    assert!(texts(&stored).len() > 10);
    assert_eq!(texts(&stored), texts(&drawn), "REWRITE=1 cargo test --test outlier pages draws it again");
}

/// The overview of primitives agrees with the reference of the program.
#[test]
fn the_overview_of_primitives_has_all_of_them() {
    let reference = Project::new().run(&["doc", "--markdown"]).ok();
    let page = page("docs/scripts.md").text;
    let words: BTreeSet<&str> = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let names: Vec<&str> = reference.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert!(names.len() > 60, "{names:?}");
    // A module has a heading like `import "compare"`.
    let names = names.into_iter().map(|name| name.trim_start_matches("import ").trim_matches('"'));
    let missing = names.filter(|name| !words.contains(name));
    none(missing.map(str::to_string).collect(), "docs/scripts.md names every primitive");
}

/// The exit codes of the page are those that `outlier --help` names.
#[test]
fn the_page_of_exit_codes_has_all_of_them() {
    let help = Project::new().run(&["--help"]).ok();
    let (_, told) = help.split_once("Exit codes: ").unwrap();
    let mut codes: Vec<u32> = told.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    codes.sort_unstable();
    let page = page("docs/exit_codes.md").text;
    let rows: Vec<u32> =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(rows, codes);
    assert_eq!(codes.len(), 7);
}

/// Hub ids of the models that the scripts are for.
fn ids_of_scripts() -> Vec<String> {
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(repository().join("scripts")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('0') {
            let text = std::fs::read_to_string(&path).unwrap();
            let line = text.lines().find_map(|line| line.trim().strip_prefix("model: \"")).unwrap();
            ids.push(line.trim_end_matches("\",").to_string());
        }
    }
    ids.sort();
    assert_eq!(ids.len(), 7);
    ids
}

/// A model of the sweep has the same name in every page.
#[test]
fn models_are_called_as_in_the_scripts() {
    let ids = ids_of_scripts();
    let listed = std::fs::read_to_string(repository().join("scripts/models.rhai")).unwrap();
    none(ids.iter().filter(|id| !listed.contains(*id)).cloned().collect(), "scripts/models.rhai has every model");
    let models = page("docs/models.md").text;
    none(
        ids.iter().filter(|id| !models.contains(&format!("`{id}`"))).cloned().collect(),
        "docs/models.md has every model",
    );
    let names: BTreeSet<&str> = ids.iter().map(|id| id.split('/').nth(1).unwrap()).collect();
    // Releases of these series have a date or a kind in their names, which is easily left out or mixed up.
    let series = ["OLMoE-1B-7B-", "Qwen3-Next-80B-", "Mixtral-8x7B-", "GLM-4.5-"];
    let mut wrong = Vec::new();
    for page in pages() {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        for word in page.text.split(|c: char| !is_part(c)).map(|word| word.trim_matches(['.', '-'])) {
            if series.iter().any(|series| word.starts_with(series)) && !names.contains(word) {
                wrong.push(format!("{}: {word}", page.path));
            }
        }
    }
    none(wrong, "models are called as in scripts/0N_*.rhai");
}

/// The kinds of models that the page lists are those that the program knows.
#[test]
fn the_page_of_models_lists_every_architecture() {
    let project = Project::new();
    project.file("model/config.json", r#"{"model_type": "zzz"}"#);
    let stderr = project.script("load_model(\"model\")").ends(3).stderr;
    let (_, told) = stderr.split_once("supported are ").unwrap();
    let known: BTreeSet<&str> = told.lines().next().unwrap().split(", ").collect();
    let page = page("docs/models.md").text;
    let rows = page.lines().skip_while(|line| !line.starts_with("| `model_type`")).skip(2);
    let listed: BTreeSet<&str> = rows
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert_eq!(listed, known);
}

/// The versions of file formats and protocols are those of the source.
#[test]
fn the_changelog_names_the_versions_of_the_formats() {
    let source = |path: &str| std::fs::read_to_string(repository().join("src").join(path)).unwrap();
    let number = |path: &str, before: &str| {
        let text = source(path);
        let (_, behind) = text.split_once(before).unwrap_or_else(|| panic!("{path} has no {before}"));
        behind.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().to_string()
    };
    let changelog = page("CHANGELOG.md").text;
    for (what, version) in [
        ("program", env!("CARGO_PKG_VERSION").to_string()),
        ("result files (`schema_version`)", number("results/analysis.rs", "SCHEMA_VERSION: u32 =")),
        ("record (`activations.stats`)", number("results/stats_file.rs", "VERSION: u32 =")),
        ("checkpoint", number("results/sealed.rs", "b\"outlier checkpoint  v")),
        ("wire (client and worker)", number("session/wire.rs", "PROTOCOL: u32 =")),
    ] {
        let row = format!("| {what} | {version} |");
        assert!(changelog.contains(&row), "CHANGELOG.md has no row {row}");
    }
    let citation = std::fs::read_to_string(repository().join("CITATION.cff")).unwrap();
    assert!(citation.contains(&format!("\nversion: {}\n", env!("CARGO_PKG_VERSION"))));
}

/// README says that system packages are installed as root. The commands that do so name them before
/// they begin.
#[test]
fn packages_are_named_before_they_are_installed() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new();
    // A machine that has everything but fish, and an apt-get that says when it is called.
    let stub = |name: &str, text: &str| {
        project.file(&format!("bin/{name}"), format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(project.path(&format!("bin/{name}")), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    for name in ["cc", "c++", "make", "perl", "cargo", "sshd", "tcsh", "zsh", "curl", "slurmctld", "python3"] {
        stub(name, "exit 0");
    }
    // A static OpenSSL is there, and written down as found.
    stub("pkg-config", "echo lib");
    project.file("lib/libcrypto.a", "").file(".cargo/config.toml", "");
    stub("apt-get", "echo \"apt-get $*\" >&2");
    for (user, code, told) in
        [("0", 0, "installing with apt-get, as root: fish\napt-get"), ("1000", 1, "please install: fish\n")]
    {
        stub("id", &format!("echo {user}"));
        let mut command = Command::new("/bin/sh");
        command.arg(repository().join(".ci/packages")).arg("tests").env("PATH", project.path("bin"));
        command.current_dir(project.path(""));
        let outcome = Outcome::of(command.output().unwrap()).ends(code);
        assert!(outcome.stderr.starts_with(told), "{}", outcome.stderr);
    }
}

/// The settings for OpenSSL in cargo's environment: its place and static linking, or nothing if the
/// user has set something.
#[test]
fn cargo_is_told_where_a_static_openssl_is() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::new();
    let stub = |name: &str, text: &str| {
        project.file(&format!("bin/{name}"), format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(project.path(&format!("bin/{name}")), std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    ["cc", "make", "perl", "cargo"].iter().for_each(|name| stub(name, "exit 0"));
    stub("id", "echo 1000");
    stub("pkg-config", "case $1 in *libdir) echo lib;; *includedir) echo include;; esac");
    project.file("lib/libcrypto.a", "");
    let run = || {
        let mut command = Command::new("/bin/sh");
        command
            .arg(repository().join(".ci/packages"))
            .env("PATH", format!("{}:/usr/bin:/bin", project.path("bin").display()));
        Outcome::of(command.current_dir(project.path("")).output().unwrap()).ends(0);
    };
    run();
    let written = project.text(".cargo/config.toml");
    let settings = ["NO_VENDOR = \"1\"", "STATIC = \"1\"", "LIB_DIR = \"lib\"", "INCLUDE_DIR = \"include\""];
    for setting in settings {
        assert!(written.contains(&format!("\nOPENSSL_{setting}\n")), "{setting}: {written}");
    }
    // What an earlier version of this program has written is brought up to date.
    let (first, _) = written.split_once('\n').unwrap();
    project.file(".cargo/config.toml", format!("{first}\n[env]\nOPENSSL_STATIC = \"1\"\n"));
    run();
    assert_eq!(project.text(".cargo/config.toml"), written);
    // Where there is none it is compiled.
    std::fs::remove_file(project.path("lib/libcrypto.a")).unwrap();
    run();
    assert!(!project.has(".cargo/config.toml"));
    for own in ["", "[build]\njobs = 1\n"] {
        project.file("lib/libcrypto.a", "").file(".cargo/config.toml", own);
        run();
        assert_eq!(project.text(".cargo/config.toml"), own);
    }
}

/// The pages say how long the first build takes before they ask for it.
#[test]
fn the_time_of_the_first_build_is_the_same_everywhere() {
    let readme = page("README.md").text;
    let (_, behind) = readme.split_once("The first build takes ").expect("README says how long the first build takes");
    let (time, _) = behind.split_once(" on two cores").expect("it says on how many cores");
    let makefile = std::fs::read_to_string(repository().join("Makefile")).unwrap();
    assert!(makefile.contains(&format!("The first build takes {time} on two cores")), "{time}: {makefile}");
    let tutorial = page("docs/tutorial.md").text;
    assert!(tutorial.contains(&format!("the first build, {time} on two cores")), "{time}");
}

#[test]
fn the_readme_names_the_oldest_rust_that_will_do() {
    let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let (_, version) = manifest.split_once("rust-version = \"").unwrap();
    let version = version.split('"').next().unwrap();
    assert!(page("README.md").text.contains(&format!("Rust {version}")), "{version}");
}
