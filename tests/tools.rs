//! Tests of the tools around scripts: their documentation, `check`, `test`, `new`, and the
//! examples.

use crate::project::{FINAL, Outcome, Project, repository};
use outlier::host::reference;

fn project() -> Project {
    let project = Project::new();
    project.copy("examples", "examples").copy("scripts", "scripts").copy("stdlib", "stdlib");
    project
}

#[test]
fn the_reference_is_the_one_that_the_program_prints() {
    let file = repository().join("docs/reference.md");
    let now = Project::new().run(&["doc", "--markdown"]).ok();
    if std::env::var_os("REWRITE").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let stored = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(stored == now, "`outlier doc --markdown > docs/reference.md` writes it anew");
}

/// What the engine knows, and what is documented, are the same, down to the numbers of arguments.
#[test]
fn every_primitive_is_documented() {
    let registered = outlier::host::registered();
    // Fields of handles.
    let own = |name: &String| !name.contains('$') && name != "sleep";
    let known: Vec<(String, usize)> = registered.into_iter().filter(|(name, _)| own(name)).collect();
    assert!(known.len() > 30, "{known:?}");
    for (name, arity) in &known {
        let primitive = reference::find(name);
        let primitive = primitive.unwrap_or_else(|| panic!("`{name}` is declared nowhere in src/host/primitives/"));
        assert!(
            primitive.arities().contains(arity),
            "{name} is registered with {arity} arguments: {:?}",
            primitive.signatures
        );
    }
    for primitive in reference::all() {
        for arity in primitive.arities() {
            let there = known.contains(&(primitive.name.to_string(), arity));
            assert!(there, "{} is documented with {arity} arguments and not registered so", primitive.name);
        }
    }
}

/// Each example runs as it stands, in the world it is meant for.
#[test]
fn every_example_of_the_reference_runs() {
    let project = project();
    let mut tests = String::from("//! Examples of the reference.\n");
    for primitive in reference::all() {
        // A test function wants its lines inside.
        let lines: String = primitive.example.lines().map(|line| format!("    {line}\n")).collect();
        if primitive.name.starts_with("fake_") {
            tests += &format!("\nfn test_{}() {{\n{lines}}}\n", primitive.name);
            continue;
        }
        let file = format!("example_{}.rhai", primitive.name);
        project.file(&file, primitive.example);
        let mut command = project.command(&["run", "--allow-commands", &file]);
        command.env("HOME", project.path("home"));
        let code = if primitive.name == "report_failure" { 3 } else { 0 };
        let outcome = Outcome::of(command.output().unwrap());
        assert_eq!(outcome.code, code, "the example of {}:\n{}", primitive.name, outcome.stderr);
        project.run(&["check", &file]).ok();
    }
    project.file("reference_test.rhai", tests);
    assert!(project.run(&["test", "reference_test.rhai"]).ok().contains(" 0 failed"));
}

#[test]
fn the_terminal_tells_what_there_is() {
    let project = Project::new();
    let all = project.run(&["doc"]).ok();
    for primitive in reference::all() {
        assert!(all.contains(&format!("  {} ", primitive.name)), "{}", primitive.name);
    }
    assert!(all.contains("  dettmers ") && all.lines().all(|line| line.chars().count() <= 125), "{all}");
    let one = project.run(&["doc", "detect_outliers"]).ok();
    for part in [
        "detect_outliers(acts: activations, options?: map) -> detection",
        "magnitude_threshold",
        "default 6.0",
        "Example:",
    ] {
        assert!(one.contains(part), "{part} in {one}");
    }
    let module = project.run(&["doc", "dettmers"]).ok();
    assert!(module.contains("dettmers::run(experiment, flags, place)"), "{module}");
    let function = project.run(&["doc", "deploy::with_machine"]).ok();
    assert!(function.contains("gives the machine back"), "{function}");
    let wrong = project.run(&["doc", "detect_outlier"]).ends(1);
    assert!(wrong.stderr.contains("hint: did you mean `detect_outliers`?"), "{}", wrong.stderr);
}

#[test]
fn editors_get_definitions() {
    let project = Project::new();
    project.run(&["doc", "--definitions", "types"]).ok();
    let text = project.text("types/outlier.d.rhai");
    assert!(text.starts_with("module static;\n"));
    for line in [
        "fn load_model(id: string) -> model;",
        "fn load_model(gpu: gpu, id: string, options: map) -> model;",
        "fn parallel(items: array, work: Fn) -> array;",
        "/// - `dtype`: how products are computed",
    ] {
        assert!(text.contains(line), "{line}");
    }
    assert!(project.text("types/language.d.rhai").contains("fn len("));
    assert!(project.text("types/deploy.d.rhai").contains("fn with_machine(options: ?, work: ?);"));
}

/// The project's own scripts pass, modules and tests included.
#[test]
fn check_passes_what_is_right() {
    let project = project();
    let mut words = vec!["check".to_string()];
    for folder in ["scripts", "stdlib", "examples"] {
        let files = project.files(folder).into_iter().filter(|file| file.ends_with(".rhai"));
        words.extend(files.map(|file| format!("{folder}/{file}")));
    }
    assert!(words.len() > 20, "{words:?}");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = project.run(&words);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("nothing wrong was found"), "{}", outcome.stdout);
}

#[test]
fn check_tells_everything_at_once() {
    let project = Project::new();
    project.file("stdlib/lab.rhai", "//! Lab.\nfn try_it(x) {\n    detect_outlier(x)\n}\n");
    let script = "import \"lab\" as lab;
let flags = args(#{ threshold: 6.0, unused: 1 });
let criterion = #{ magnitude_treshold: flags.threshold };
let acts = lab::try_it(1, 2);
acts.detect_outliers(criterion);
load_model(\"x\", #{ dtype: \"f64\" }).no_such_method();
print(flags.treshold);
let found = acts.map(|x| x.detect_outliers(#{ scop: \"pooled\" }));
";
    project.file("s.rhai", script);
    let outcome = project.run(&["check", "s.rhai"]).ends(1);
    for (message, hint) in [
        ("flag `unused` is declared and not used", "use flags.unused"),
        ("detect_outliers: unknown option `magnitude_treshold`", "did you mean `magnitude_threshold`?"),
        ("`lab::try_it` does not take 2 arguments", "it takes 1"),
        ("load_model: `dtype` is \"f64\"", "known are `f32`, `bf16`"),
        ("no function `no_such_method`", "`outlier doc` lists"),
        ("flag `treshold` is not declared", "did you mean `threshold`?"),
        ("detect_outliers: unknown option `scop`", "did you mean `scope`?"),
        ("no function `detect_outlier`", "did you mean `detect_outliers`?"),
    ] {
        let told = outcome.stderr.split("\n\n").find(|part| part.contains(message));
        let told = told.unwrap_or_else(|| panic!("{message:?} in\n{}", outcome.stderr));
        assert!(told.contains(hint), "{hint:?} in\n{told}");
    }
    assert!(outcome.stderr.contains("  --> stdlib/lab.rhai:3:5"), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("8 problems"), "{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(project.files("results"), [""; 0], "nothing was run");
    project.run(&["check", "missing.rhai"]).ends(2);
}

#[test]
fn check_takes_folders() {
    let project = Project::new();
    project.file("mine/a.rhai", "print(1);").file("mine/deeper/b.rhai", "print(missing);").file("mine/c.txt", "x");
    let outcome = project.run(&["check", "mine"]).ends(1);
    assert!(outcome.stdout.contains("2 scripts: 1 problem"), "{}\n{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains("mine/deeper/b.rhai:1:7"), "{}", outcome.stderr);
    let none = project.file("bare/note.txt", "x").run(&["check", "bare"]).ends(1);
    assert!(none.stderr.contains("bare: no file *.rhai"), "{}", none.stderr);
}

#[test]
fn a_new_experiment_runs_as_it_stands() {
    let project = Project::new();
    let told = project.run(&["new", "mine"]).ok();
    assert!(told.starts_with("scripts/mine.rhai\n"), "{told}");
    project.run(&["check", "scripts/mine.rhai"]).ok();
    let text = project.run(&["run", "scripts/mine.rhai"]).ok();
    assert!(text.contains("results: results/mine"), "{text}");
    assert!(project.has(&format!("results/mine/{FINAL}")));
    let again = project.run(&["new", "mine"]).ends(1);
    assert!(again.stderr.contains("is there already"), "{}", again.stderr);
    project.run(&["new", "../x"]).ends(1);
}

#[test]
fn the_projects_own_tests_pass() {
    let project = project();
    for folder in ["stdlib", "scripts"] {
        let text = project.run(&["test", folder]);
        assert_eq!(text.code, 0, "{}{}", text.stdout, text.stderr);
        assert!(text.stdout.contains("passed, 0 failed") && !text.stdout.contains("FAILED"), "{}", text.stdout);
    }
    assert_eq!(project.files("results"), [""; 0], "tests leave nothing behind");
}

#[test]
fn a_test_that_fails_shows_the_difference() {
    let project = Project::new();
    project.file(
        "broken_test.rhai",
        "//! Broken.
fn test_records() {
    print(\"before\");
    assert_eq(#{ a: [1, 2], b: 3 }, #{ a: [1, 4], b: 3.0 });
}
fn test_numbers() { assert_close(1.0, 1.1, 0.01); }
fn test_nothing_is_thrown() { assert_throws(|| 5); }
fn test_something_else_is_thrown() { assert_throws(\"oom\", || load_model(\"nowhere\")); }
fn test_passes() { assert(true); }
fn no_test() { throw 1; }
",
    );
    let outcome = project.run(&["test", "."]).ends(1);
    for part in [
        "test_records",
        "before",
        "a[1]: is 2, expected 4",
        "broken_test.rhai:4:5",
        "is 1, expected 1.1",
        "nothing was thrown, the value is 5",
        "an error of kind not_found, expected oom",
        "1 passed, 4 failed",
    ] {
        assert!(outcome.stdout.contains(part), "{part:?} in\n{}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("b: is"), "6 and 6.0 are equal\n{}", outcome.stdout);
    assert!(project.run(&["test", "--only", "passes", "."]).ok().contains("1 passed, 0 failed"));
    let none = Project::new().run(&["test", "."]).ends(1);
    assert!(none.stderr.contains("no file *_test.rhai"), "{}", none.stderr);
}

/// All ten, on miniature models or the small trained one. The one for a cluster is planned.
#[test]
fn the_examples_run() {
    let project = project();
    let all: Vec<String> = project.files("examples").into_iter().filter(|file| file.ends_with(".rhai")).collect();
    assert!(all.len() >= 10, "{all:?}");
    for file in all {
        let (path, text) = (format!("examples/{file}"), project.text(&format!("examples/{file}")));
        let lines = text.lines().count();
        assert!((10..=30).contains(&lines), "{file} has {lines} lines");
        let word = if file.contains("slurm") { "plan" } else { "run" };
        let outcome = project.run(&[word, &path]);
        assert_eq!(outcome.code, 0, "{file}: {}", outcome.stderr);
        assert!(!outcome.stdout.trim().is_empty(), "{file} shows nothing");
    }
}

#[test]
pub fn links_that_lead_back_are_searched_once() {
    let project = Project::new();
    project.file("deep/er/a_test.rhai", "fn test_a() { assert(true); }");
    for (to, from) in [("..", "deep/er/up"), (".", "self"), ("deep", "again"), ("nowhere", "lost")] {
        std::os::unix::fs::symlink(to, project.path(from)).unwrap();
    }
    let text = project.run(&["test", "."]).ok();
    assert!(text.contains("1 passed, 0 failed"), "{text}");
    let outcome = project.run(&["test", "/"]);
    assert!(outcome.code == 1, "{} {}", outcome.code, outcome.stderr);
}
