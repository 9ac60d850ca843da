//! Tests of mistakes that users make, and of the messages about them. `mistakes/NAME.rhai` is the
//! mistake, and `NAME.stderr` has the exit code and all of stderr. `REWRITE=1 cargo test mistakes`
//! writes the present messages; read the difference before you keep it.

use crate::project::{Project, repository};

const FOLDER: &str = "tests/mistakes";

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "examples/shakespeare-olmoe").copy("tests/mistakes/stdlib", "stdlib");
    project.file("text.txt", "A short text, and no more of it.\n");
    project
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(repository().join(FOLDER)).unwrap();
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".rhai")?.to_string()))
        .collect();
    names.sort();
    names
}

/// Exit code and stderr of a mistake.
fn said(project: &Project, name: &str) -> String {
    project.copy(&format!("{FOLDER}/{name}.rhai"), &format!("{name}.rhai"));
    let outcome = project.run(&["--quiet", "run", &format!("{name}.rhai")]);
    assert_ne!(outcome.code, 0, "{name} is no mistake");
    format!("exit code {}\n{}", outcome.code, outcome.stderr)
}

#[test]
fn mistakes_are_explained() {
    let (project, names) = (project(), names());
    assert!(names.len() >= 40, "{} mistakes", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let said = said(&project, name);
        let file = repository().join(FOLDER).join(format!("{name}.stderr"));
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(&file, said).unwrap();
            continue;
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{name}: expected\n{expected}\nsaid\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Whatever went wrong: a message, a place with a caret, and what to do.
#[test]
fn every_explanation_has_a_place_and_a_hint() {
    for name in names() {
        let text = std::fs::read_to_string(repository().join(FOLDER).join(format!("{name}.stderr"))).unwrap();
        assert!(text.contains("\nerror: ") && text.contains("\n  --> "), "{name}:\n{text}");
        assert!(
            text.lines().any(|line| line.trim_start().starts_with('|') && line.ends_with('^')),
            "{name}: no caret\n{text}"
        );
        let own = name.starts_with("thrown_") || name.starts_with("assert");
        assert!(own || text.contains("\n  hint: "), "{name}: no hint\n{text}");
    }
}

/// What can be seen without running is seen by `outlier check`.
#[test]
fn check_finds_mistakes_without_running() {
    let project = project();
    for name in [
        "function_misspelt",
        "method_misspelt",
        "option_misspelt",
        "option_of_another_primitive",
        "choice_misspelt",
        "provider_misspelt",
        "flag_misspelt_in_the_script",
        "variable_misspelt",
        "variable_out_of_reach",
        "bracket_left_open",
        "module_misspelt",
        "module_function_misspelt",
        "function_without_brackets",
    ] {
        project.copy(&format!("{FOLDER}/{name}.rhai"), &format!("{name}.rhai"));
        let outcome = project.run(&["check", &format!("{name}.rhai")]).ends(1);
        assert!(outcome.stderr.contains(&format!("  --> {name}.rhai:")), "{name}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("  hint: ") || name == "bracket_left_open", "{name}: {}", outcome.stderr);
    }
}
