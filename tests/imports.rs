//! Tests of modules: the file that an import takes, and the messages about it.

use crate::project::Project;

/// A script that is no module: it computes when it is run, and so when it is imported.
const ACTS: &str = "let made = miniature_model(\"olmoe\");\nprint(\"here\");\nfn rungs(acts) { [] }\n";

#[test]
fn a_new_script_does_not_take_the_name_of_a_module() {
    let project = Project::new();
    project.file("stdlib/own.rhai", "fn one() { 1 }");
    for name in ["thresholds", "dettmers", "own", "own.rhai"] {
        let outcome = project.run(&["new", name]).ends(1);
        let name = name.trim_end_matches(".rhai");
        assert!(outcome.stderr.contains(&format!("\"{name}\" is the name of a module")), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains(&format!("hint: choose another name, such as my_{name}")),
            "{}",
            outcome.stderr
        );
        assert!(!project.has(&format!("scripts/{name}.rhai")));
    }
    project.run(&["new", "my_thresholds"]).ok();
}

#[test]
fn a_file_that_acts_when_it_is_imported_is_told() {
    let project = Project::new();
    project.file("scripts/thresholds.rhai", ACTS);
    project.file("scripts/mine.rhai", "import \"thresholds\" as thresholds;\nprint(\"mine\");");
    let outcome = project.run(&["run", "scripts/mine.rhai"]).ends(0);
    let told = "note: importing scripts/thresholds.rhai runs what stands outside of its functions, miniature_model first: put \
                that into `if is_main() { … }`";
    assert_eq!(outcome.stderr.matches(told).count(), 1, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, "here\nmine\n");
    // A plan says it, too.
    let plan = project.run(&["plan", "scripts/mine.rhai"]).ok();
    assert!(plan.contains("Note: importing scripts/thresholds.rhai runs"), "{plan}");
    // Whoever runs it himself, and whoever guards it, is told nothing.
    let alone = project.run(&["run", "scripts/thresholds.rhai"]).ends(0);
    assert!(!alone.stderr.contains("importing"), "{}", alone.stderr);
    let guarded = "if is_main() { print(\"here\"); }\nfn rungs(acts) { [] }\nconst ONE = 1;\n";
    let quiet = project.file("scripts/thresholds.rhai", guarded).run(&["run", "scripts/mine.rhai"]).ends(0);
    assert!(!quiet.stderr.contains("importing") && quiet.stdout == "mine\n", "{}", quiet.stderr);
}

#[test]
fn every_effect_of_an_import_is_told() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model").file("script.rhai", "import \"acts\" as acts;");
    for (deed, text) in [
        ("print", "print(1);"),
        ("print", "show(1);"),
        ("print", "table([#{ a: 1 }]);"),
        ("log", "log(\"x\");"),
        ("load_model", "load_model(\"model\");"),
        ("load_tokens", "load_tokens(#{ ids: [[1, 2]] });"),
        ("estimate_vram", "estimate_vram(\"model\");"),
        ("write_text", "write_text(\"results/a.txt\", \"x\");"),
        ("args", "args(#{ a: 1 });"),
        ("provision_gpu", "provision_gpu(#{ provider: \"local\" });"),
    ] {
        let outcome = project.file("acts.rhai", text).run(&["run", "script.rhai"]).ends(0);
        let told = format!("note: importing acts.rhai runs what stands outside of its functions, {deed} first");
        assert!(outcome.stderr.contains(&told), "{text}: {}", outcome.stderr);
    }
}

#[test]
fn an_error_inside_of_an_imported_file_names_the_file() {
    let project = Project::new();
    project.file("scripts/mine.rhai", "import \"thresholds\" as thresholds;");
    project.file("scripts/thresholds.rhai", "let flags = args(#{ a: 1 });\nlet x = nothing();");
    let outcome = project.run(&["run", "scripts/mine.rhai"]).ends(1);
    for part in [
        "  --> scripts/thresholds.rhai:2:9",
        "in module \"thresholds\" (scripts/thresholds.rhai), imported at scripts/mine.rhai:1:8",
    ] {
        assert!(outcome.stderr.contains(part), "{part:?} in\n{}", outcome.stderr);
    }
    // Flags that are meant for the script and not for what it imports.
    let flags = project.run(&["run", "scripts/mine.rhai", "--b"]).ends(2);
    assert!(flags.stderr.contains("(scripts/thresholds.rhai)"), "{}", flags.stderr);
}

#[test]
fn a_function_that_another_file_of_the_name_does_not_have() {
    let project = Project::new();
    project.file("scripts/thresholds.rhai", "fn other() { 1 }");
    project.file("scripts/mine.rhai", "import \"thresholds\" as thresholds;\nthresholds::rows([]);");
    let outcome = project.run(&["run", "scripts/mine.rhai"]).ends(1);
    let hint = "hint: the import took scripts/thresholds.rhai; rename it, and the module \"thresholds\" of the program has `rows`";
    assert!(outcome.stderr.contains(hint), "{}", outcome.stderr);
    project.file("scripts/mine.rhai", "import \"thresholds\" as thresholds;\nthresholds::othr();");
    let outcome = project.run(&["run", "scripts/mine.rhai"]).ends(1);
    let hint = "did you mean `thresholds::other`? the module is scripts/thresholds.rhai";
    assert!(outcome.stderr.contains(hint), "{}", outcome.stderr);
}
