//! Tests of the language of scripts: primitives as functions and methods, records as readable
//! values, modules, names, errors as values, and tables.

use serde_json::{Value, json};

use crate::project::Project;

/// A small model on its own reference tokens, analysed.
const BEFORE: &str = r#"
let model = load_model("model");
let tokens = load_tokens(#{ ids: "model/reference.safetensors" });
let acts = extract_layernorms(model, tokens, #{ logits: true });
let found = detect_outliers(acts, #{ layer_unit: "block" });
"#;

fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    project
}

/// What a script prints behind `BEFORE`.
#[track_caller]
fn prints(script: &str) -> String {
    project().script(&format!("{BEFORE}{script}")).ok()
}

#[test]
fn functions_are_methods() {
    let script = r#"
        let method = model.extract_layernorms(tokens, #{ logits: true });
        print(method.detect_outliers(#{ layer_unit: "block" }) == found);
        print(method.detect_outliers() == detect_outliers(acts));
        print(acts.bootstrap_ci(#{ n_resamples: 100, seed: 7 }) == bootstrap_ci(method, #{ n_resamples: 100, seed: 7 }));
        print(acts.bootstrap_ci(#{ n_resamples: 100, seed: 7 }) == bootstrap_ci(acts, #{ n_resamples: 100, seed: 8 }));
        print("model".load_model().num_layers == model.num_layers);
        print("model".estimate_vram(#{ num_sequences: 4 }) == estimate_vram("model", #{ num_sequences: 4 }));
        print("x".save_results(#{ activations: acts, found: found }) == save_results("x", #{ activations: acts, found: found }));
        print("x".load_results().found == load_results("results/x").found);
        print([3, 4].parallel(|x| x * x) == parallel([3, 4], |x| x * x));
    "#;
    assert_eq!(prints(script), "true\ntrue\ntrue\nfalse\ntrue\ntrue\ntrue\ntrue\ntrue\n");
}

#[test]
fn records_have_readable_fields() {
    let script = r#"
        let f = found.features[0];
        print([
            f.feature_dim, f.layer_percentage, f.layer_percentage_blocks, f.seq_percentage, f.seq_positions, f.norms_hit,
            f.blocks_hit, f.max_magnitude, f.max_value, f.min_value, f.sidedness, f.total_occurrences, f.quartiles,
            f.layers_affected, f.classification,
        ].to_json());
    "#;
    let fields: Vec<Value> = serde_json::from_str(&prints(script)).unwrap();
    // The expectations are numpy's, over the activations of transformers.
    let expected =
        json!(Project::new().copy("tests/fixtures/mixtral/expected.json", "expected.json").json("expected.json"));
    let dim = fields[0].as_u64().unwrap();
    let row = expected["features"].as_array().unwrap().iter().find(|row| row["dim"] == dim).unwrap();
    assert_eq!(fields[2], row["layer_percentage"]);
    assert_eq!((&fields[4], &fields[6]), (&row["position_count"], &row["layer_count"]));
    let norms = 2.0 * expected["num_layers"].as_f64().unwrap();
    assert_eq!(fields[1].as_f64().unwrap(), fields[5].as_f64().unwrap() / norms);
    assert_eq!(fields[3].as_f64().unwrap(), fields[4].as_f64().unwrap() / expected["num_positions"].as_f64().unwrap());
    let (largest, max, min) = (fields[7].as_f64().unwrap(), fields[8].as_f64().unwrap(), fields[9].as_f64().unwrap());
    assert!(largest >= 6.0 && largest == max.max(-min), "{fields:?}");
    assert!(["positive", "negative", "two_sided"].contains(&fields[10].as_str().unwrap()));
    assert!(fields[11].as_u64().unwrap() >= fields[4].as_u64().unwrap());
    assert_eq!(fields[12].as_array().unwrap().len(), 3);
    assert_eq!(fields[13].as_array().unwrap().len() as u64, fields[5].as_u64().unwrap());
    assert_eq!(fields[14], if fields[2].as_f64() >= Some(0.9) { "SYSTEMATIC" } else { "PROBABILISTIC" });
}

#[test]
fn handles_have_readable_fields() {
    let script = r#"
        print([
            model.id, model.path, model.model_type, model.num_layers, model.hidden_size, model.vocab_size, model.num_experts,
            model.num_experts_per_tok, model.dtype, model.revision, model.synthetic, model.files.len(),
        ].to_json());
        print([tokens.num_sequences, tokens.sequence_length, tokens.source, tokens.ids.len(), tokens.sha256.len()].to_json());
        print([
            acts.num_sequences, acts.sequence_length, acts.hidden_size, acts.norms.len(), acts.norms[1], acts.ladder[0],
            acts.mean_nll.len(), acts.expert_coverage.len(), acts.non_finite, acts.measurements.bytes_read > 0,
        ].to_json());
    "#;
    let lines: Vec<Value> = prints(script).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = Project::new().copy("tests/fixtures/mixtral/expected.json", "expected.json").json("expected.json");
    let (layers, sequences) = (&expected["num_layers"], &expected["num_sequences"]);
    let length = &expected["sequence_length"];
    assert_eq!(lines[0], json!(["model", "model", "mixtral", layers, 32, 128, 8, 2, "f32", null, false, 4]));
    assert_eq!(lines[1], json!([sequences, length, "model/reference.safetensors", sequences, 64]));
    let norm = "layers.0.post_attention_layernorm";
    assert_eq!(lines[2], json!([sequences, length, 32, 6, norm, 3.0, sequences, layers, [], true]));
}

#[test]
fn every_record_is_json() {
    let script = r#"
        let intervals = acts.bootstrap_ci(#{ n_resamples: 50, layer_unit: "block" });
        let path = save_results("x", #{ activations: acts, found: found, intervals: intervals });
        for record in [
            model, tokens, acts, found, found.features, found.features[0], found.criterion, found.layer_stats,
            acts.bootstrap_ci(#{ n_resamples: 50 }), estimate_vram("model"), load_results(path), acts.measurements,
        ] {
            print(record.to_json());
        }
    "#;
    let lines: Vec<Value> = prints(script).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    for (line, key) in [
        (0, "vocab_size"),
        (1, "ids"),
        (2, "ladder"),
        (3, "features"),
        (5, "quartiles"),
        (6, "scope"),
        (8, "num_features"),
        (9, "total_bytes"),
        (10, "found"),
        (11, "bytes_read"),
    ] {
        assert!(lines[line].get(key).is_some(), "{key} in {}", lines[line]);
    }
    // Numbers read as they were written.
    assert_eq!(lines[6]["magnitude_threshold"].to_string(), "6.0");
    assert_eq!(lines[10]["found"], lines[3]);
}

#[test]
fn handles_print_as_themselves() {
    let text = prints("print(model); print(tokens); print(acts); print(`${model}`);");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("model(id: \"model\", model_type: \"mixtral\", num_layers: 3,"), "{text}");
    assert!(lines[1].starts_with("tokens(source: \"model/reference.safetensors\", num_sequences: "), "{text}");
    let acts = "activations of model: 3 × 24 tokens of model/reference.safetensors, 6 norms × 32 dimensions, ";
    assert!(lines[2].starts_with(acts), "{text}");
    assert_eq!(lines[0], lines[3]);
}

#[test]
fn tables() {
    let script = r#"
        table([#{ name: "a", share: 0.25, count: 3, none: () }, #{ name: "long one", share: 12.0 }]);
        table(["count", "name"], [#{ name: "a", count: 3 }, #{ name: "b", count: 12 }]);
        table([]);
    "#;
    let text = Project::new().script(script).ok();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split(['│', '┆']).map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert!(rows.contains(&vec!["name", "count", "none", "share"]), "{text}");
    assert!(rows.contains(&vec!["a", "3", "–", "0.25"]) && rows.contains(&vec!["long one", "12"]), "{text}");
    assert!(rows.contains(&vec!["count", "name"]) && rows.contains(&vec!["12", "b"]), "{text}");
    // Numbers stand at the right edge of their column.
    assert!(text.contains("│     3 ┆ a    │"), "{text}");
    Project::new().refuses("table([1, 2])", 1, "table: every row must be a map", "#{");
}

#[test]
fn errors_are_values() {
    let script = r#"
        fn kind(f) {
            try { f.call(); } catch (e) { return e.kind; }
            "none"
        }
        print(kind(|| load_model("no such model")));
        print(kind(|| load_model("model", #{ dtipe: 1 })));
        print(kind(|| load_model("broken")));
        print(kind(|| load_model("odd")));
        print(kind(|| load_model("model").extract_layernorms(load_tokens(#{ ids: [[1, 2]] }), #{ memory_budget: 10 })));
        print(kind(|| load_results("nothing")));
        print(kind(|| load_model("model")));
        try { load_model("model", #{ dtipe: 1 }) } catch (e) { print(e.message); print(e.hint); }
    "#;
    let project = project();
    project.copy("tests/fixtures/olmoe", "broken").file("broken/model.safetensors", [0; 5]);
    project.copy("tests/fixtures/olmoe", "odd").file("odd/config.json", "{\"model_type\": \"odd\"}");
    let message = "load_model: unknown option `dtipe`\ndid you mean `dtype`?";
    let kinds = "not_found\nbad_argument\ncorrupt\nunsupported\noom\nnot_found\nnone";
    assert_eq!(project.script(script).ok(), format!("{kinds}\n{message}\n"));
}

/// Rhai reserves both words; here they are names like others.
#[test]
fn sync_and_default_are_names() {
    assert_eq!(Project::new().script("let sync = 4; let m = #{ default: 5 }; print(sync + m.default);").ok(), "9\n");
    for call in ["sync(1, 2)", "1.sync(2)"] {
        // It parses, and is a function that nobody has written yet.
        let stderr = Project::new().script(call).ends(1).stderr;
        assert!(stderr.starts_with("error: no function `sync (int, int)`"), "{stderr}");
    }
}

#[test]
fn modules_are_found_beside_the_script_then_in_stdlib_then_in_the_program() {
    let project = Project::new();
    let script = "import \"dettmers\" as d; print(d::flags().keys());";
    let embedded = project.script(script).ok();
    assert!(embedded.contains("\"miniature\""), "{embedded}");
    project.file("stdlib/dettmers.rhai", "fn flags() { #{ on_disk: 1 } }");
    assert_eq!(project.script(script).ok(), "[\"on_disk\"]\n");
    project.file("dettmers.rhai", "fn flags() { #{ beside: 1 } }");
    assert_eq!(project.script(script).ok(), "[\"beside\"]\n");
    project.file("lab/here.rhai", "fn who() { \"lab\" }").file("lab/s.rhai", "import \"here\" as h; print(h::who());");
    assert_eq!(project.run(&["run", "lab/s.rhai"]).ok(), "lab\n");
}

#[test]
fn modules_stay_in_the_project() {
    let project = Project::new();
    let outcome = project.script("import \"../secret\" as s;").ends(1);
    assert!(outcome.stderr.contains("import \"../secret\" leads out of the project"), "{}", outcome.stderr);
    let outcome = project.script("import \"detmers\" as d;").ends(1);
    assert!(
        outcome.stderr.contains("detmers") && outcome.stderr.contains("did you mean `dettmers`?"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn one_module_is_the_main_script_only_when_started_itself() {
    let project = Project::new();
    project.file("part.rhai", "if is_main() { print(\"main\"); } else { print(\"imported\"); }");
    assert_eq!(project.run(&["run", "part.rhai"]).ok(), "main\n");
    assert_eq!(project.script("import \"part\" as p;").ok(), "imported\n");
}

#[test]
pub fn modules_that_import_each_other_are_an_error() {
    let circle = "modules import each other in a circle";
    let project = Project::new();
    project.file("lab/own.rhai", "import \"own\" as x;").file("lab/s.rhai", "import \"own\" as x;");
    assert!(project.run(&["run", "lab/s.rhai"]).ends(1).stderr.contains(circle));
    // The script itself is no module until it is imported.
    project.file("imp.rhai", "import \"imp\" as x;");
    let stderr = project.run(&["run", "imp.rhai"]).ends(1).stderr;
    assert!(stderr.contains("imp.rhai imports imp.rhai") && stderr.contains("hint: put what both need"), "{stderr}");
    project.file("a.rhai", "import \"b\" as b;").file("b.rhai", "import \"./c\" as c;");
    project.file("c.rhai", "fn later() { import \"././a\" as a; 1 }\nlater();");
    let stderr = project.script("import \"a\" as a;").ends(1).stderr;
    assert!(stderr.contains("a.rhai imports b.rhai imports c.rhai imports a.rhai"), "{stderr}");
    for words in [["check", "script.rhai"], ["plan", "script.rhai"]] {
        project.run(&words);
    }
    // A long way is none that ends the stack.
    for i in 0..200 {
        project.file(&format!("m{i}.rhai"), format!("import \"m{}\" as next;", i + 1));
    }
    project.file("m200.rhai", "");
    assert!(project.script("import \"m0\" as m;").ends(1).stderr.contains("import each other in a row"));
    // Two that need the same third are fine.
    project.file("left.rhai", "import \"m200\" as x;").file("right.rhai", "import \"m200\" as x;");
    project.script("import \"left\" as l; import \"right\" as r;").ends(0);
}

#[test]
pub fn values_nested_thousands_deep_are_an_error() {
    let project = Project::new();
    for script in [
        "let a = []; for i in 0..12000 { a = [a]; } print(a.to_json().len());",
        "let a = []; for i in 0..12000 { a = [a]; } print(a.to_string().len());",
        "let a = []; for i in 0..12000 { a = [a]; } print(a == a);",
        "let m = #{}; for i in 0..20000 { m = #{ a: m }; } write_json(\"x.json\", m);",
        "let m = #{}; for i in 0..20000 { let n = #{}; n.a = m; m = n; }",
        "let a = []; for i in 0..20000 { let b = []; b.push(a); a = b; } save_results(\"x\", #{ settings: a });",
        "fn wrap(x) { [x] } let a = []; for i in 0..20000 { a = wrap(a); }",
        "let f = 0; for i in 0..1000000 { let g = f; f = || g; }",
        "let a = []; let f = |x| [x]; for i in 0..20000 { a = f.call(a); } ",
        "let a = []; a.pad(20000, 1); a = a.reduce(|sum, x| [sum], []); print(a);",
        "fn grow() { let i = 0; while i < 20000 { this = [this]; i += 1; } } let a = []; a.grow();",
    ] {
        project.refuses(script, 1, "nested too deeply", "512");
    }
    // What people write is far from that.
    let script = "let a = []; for i in 0..100 { a = [a, #{ x: a.len() }]; } print(a.to_json().len() > 1000);";
    assert_eq!(project.script(script).ok(), "true\n");
    // A closure that knows itself is no depth at all.
    let script =
        "let f = (); f = |n| if n < 2 { 1 } else { n }; let g = || f; for i in 0..5000 { f.call(i); } print(1);";
    assert_eq!(project.script(script).ok(), "1\n");
}

#[test]
pub fn calls_in_deep_expressions_leave_the_stack_whole() {
    let deep = format!("fn f(n) {{ {}f(n + 1){} }} f(0)", "(1 + ".repeat(100), ")".repeat(100));
    let outcome = Project::new().script(&deep).ends(1);
    assert!(outcome.stderr.contains("error: "), "{}", outcome.stderr);
}

#[test]
pub fn all_values_together_have_a_bound() {
    let project = Project::new();
    let lists = (1..60).map(|i| format!("let a{i} = s.sub_string(1) + {i};\n")).collect::<String>();
    project.file("script.rhai", format!("let s = \"x\"; for i in 0..25 {{ s += s; }}\n{lists}print(\"all\");"));
    let outcome = project.run(&["run", "--max-memory", "256MiB", "script.rhai"]).ends(1);
    assert!(outcome.stderr.contains("take more memory than they may"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--max-memory"), "{}", outcome.stderr);
    // Closures that hold each other twice.
    project.file("script.rhai", "let f = |x| x; for i in 0..60 { f = f.curry(f); } print(1);");
    let outcome = project.run(&["run", "--max-memory", "256MiB", "script.rhai"]).ends(1);
    assert!(outcome.stderr.contains("take more memory than they may"), "{}", outcome.stderr);
    assert_eq!(project.run(&["run", "--max-memory", "much", "script.rhai"]).ends(2).stdout, "");
}

#[test]
fn a_switch_of_many_cases_runs() {
    let cases = (0..100_000).map(|i| format!("{i} => {i},\n")).collect::<String>();
    let script = format!("let x = 77; print(switch x {{ {cases} _ => 0 }});");
    assert_eq!(Project::new().script(&script).ok(), "77\n");
}

#[test]
pub fn a_script_of_endless_length_is_refused() {
    let project = Project::new();
    for words in [["run", "/dev/zero"], ["check", "/dev/zero"], ["plan", "/dev/zero"]] {
        assert!(project.run(&words).stderr.contains("4 MiB"), "{words:?}");
    }
    project.file("long.rhai", "// a long comment\n".repeat(300_000));
    assert!(project.run(&["run", "long.rhai"]).ends(2).stderr.contains("4 MiB"));
    assert!(project.script("import \"long\" as l;").ends(1).stderr.contains("4 MiB"));
}
