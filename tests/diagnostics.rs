//! Tests of the form of errors: file, line, caret and hint, in the file where the error occurred,
//! with the calls that led there.

use crate::project::Project;

#[track_caller]
fn shows(project: &Project, code: i32, expected: &str) {
    assert_eq!(project.run(&["run", "script.rhai"]).ends(code).stderr.trim_end(), expected.trim_matches('\n'));
}

#[test]
fn an_error_in_the_script() {
    let project = Project::new();
    project.file("script.rhai", "let x = 1;\nlet m = load_model(\"no/where/here\");\n");
    shows(
        &project,
        3,
        r#"
error: model "no/where/here": no such folder, and not a hub id
  --> script.rhai:2:9
   |
 2 | let m = load_model("no/where/here");
   |         ^
  hint: give a folder with config.json and safetensors files, or a hub id such as "allenai/OLMoE-1B-7B-0125"
"#,
    );
}

#[test]
fn an_error_of_syntax() {
    let project = Project::new();
    project.file("script.rhai", "let x = 1;\nlet y = (x + ;\n");
    let stderr = project.run(&["run", "script.rhai"]).ends(1).stderr;
    assert!(stderr.contains("  --> script.rhai:2:14\n   |\n 2 | let y = (x + ;\n   |              ^"), "{stderr}");
}

#[test]
fn an_error_in_a_function_of_a_module() {
    let project = Project::new();
    project.file("stdlib/lab.rhai", "//! Lab.\n\nfn outer(x) {\n    inner(x)\n}\n\nfn inner(x) {\n\tx.no_such(1)\n}\n");
    project.file("script.rhai", "import \"lab\" as lab;\n\nlab::outer(5);\n");
    shows(
        &project,
        1,
        "
error: no function `no_such (int, int)`
  --> stdlib/lab.rhai:8:4
   |
 8 | \tx.no_such(1)
   | \t  ^
  in inner, called at stdlib/lab.rhai:4:5
  in outer, called at script.rhai:3:6
  hint: `outlier doc` lists what there is
",
    );
}

#[test]
fn an_error_while_a_module_is_imported() {
    let project = Project::new();
    project.file("stdlib/lab.rhai", "//! Lab.\nconst A = 1;\nlet b = A / 0;\n");
    project.file("script.rhai", "\nimport \"lab\" as lab;\n");
    let stderr = project.run(&["run", "script.rhai"]).ends(1).stderr;
    assert!(stderr.contains("  --> stdlib/lab.rhai:3:11\n   |\n 3 | let b = A / 0;\n   |           ^"), "{stderr}");
    assert!(stderr.contains("in module \"lab\" (stdlib/lab.rhai), imported at script.rhai:2:8"), "{stderr}");
    project.file("stdlib/lab.rhai", "//! Lab.\nfn f( { 1 }\n");
    let stderr = project.run(&["run", "script.rhai"]).ends(1).stderr;
    assert!(stderr.contains("  --> stdlib/lab.rhai:2:7\n   |\n 2 | fn f( { 1 }\n   |       ^"), "{stderr}");
}

#[test]
fn an_error_in_an_embedded_module() {
    let project = Project::new();
    project.copy("scripts/01_olmoe_1b_7b.rhai", "scripts/01_olmoe_1b_7b.rhai");
    let stderr = project.run(&["run", "scripts/01_olmoe_1b_7b.rhai"]).ends(1).stderr;
    assert!(
        stderr.starts_with("error: olmoe_1b_7b: no text to read\n  --> <embedded>/stdlib/dettmers.rhai:"),
        "{stderr}"
    );
    assert!(stderr.contains("throw #{\n"), "{stderr}");
    assert!(stderr.contains("called at scripts/01_olmoe_1b_7b.rhai:16:"), "{stderr}");
    assert!(stderr.ends_with("hint: give --text FILE, --dataset OWNER/NAME, or --miniature\n"), "{stderr}");
}

#[test]
fn an_error_thrown_again_keeps_its_words() {
    let project = Project::new();
    project.file("script.rhai", "try { load_model(\"nowhere\") } catch (e) { throw e; }");
    let stderr = project.run(&["run", "script.rhai"]).ends(3).stderr;
    assert!(stderr.starts_with("error: model \"nowhere\": no such folder"), "{stderr}");
    assert!(stderr.contains("hint: give a folder"), "{stderr}");
}

#[test]
fn a_caught_error_had_no_hint_behind_another_variable() {
    let script = "let a = 1; let b = 2;
                  try { detect_outliers(3); } catch (e) { print(`${e.kind}: ${e.hint.contains(\"it is called as\")}`); }";
    assert_eq!(Project::new().script(script).ok(), "script: true\n");
}

#[test]
fn a_value_thrown_by_a_script() {
    let project = Project::new();
    project.file("script.rhai", "throw \"enough\";");
    shows(&project, 1, "\nerror: enough\n  --> script.rhai:1:1\n   |\n 1 | throw \"enough\";\n   | ^\n");
}

#[test]
fn runaway_recursion_is_an_error() {
    let outcome = Project::new().script("fn f(x) { f(x + 1) } f(0)").ends(1);
    assert!(outcome.stderr.contains("error: "), "{}", outcome.stderr);
    assert!(outcome.stderr.lines().count() < 40, "one screen:\n{}", outcome.stderr);
}
