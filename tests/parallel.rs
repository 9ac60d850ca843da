//! Tests of `parallel`: order, isolation of failures, true concurrency, and captured variables.

use crate::project::Project;

#[test]
fn results_are_in_the_order_of_the_list() {
    // Later items finish first: 0 waits for what 1 saves, 1 for what 2 saves.
    let script = r#"
        let acts = load_model("model").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }));
        let found = acts.detect_outliers();
        fn wait_for(name) {
            for i in 0..6000 {
                if has_results(name) { return; }
                sleep(0.05);
            }
            throw `nobody saved ${name}`;
        }
        let outcomes = [0, 1, 2].parallel(|i| {
            if i < 2 { wait_for(`item${i + 1}`); }
            save_results(`item${i}`, #{ activations: acts, found: found });
            i * 10
        });
        print(outcomes.map(|o| o.value));
    "#;
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    assert_eq!(project.script(script).ok(), "[0, 10, 20]\n");
}

#[test]
fn no_more_than_max_at_a_time() {
    // One at a time, an item that waits for the next one waits in vain.
    let script = r#"
        let acts = load_model("model").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }));
        let found = acts.detect_outliers();
        let outcomes = [0, 1].parallel(#{ max: 1 }, |i| {
            if i == 0 {
                for i in 0..10 { if has_results("item1") { return "met"; } sleep(0.05); }
                return "alone";
            }
            save_results("item1", #{ activations: acts, found: found });
            "saved"
        });
        print(outcomes.map(|o| o.value));
    "#;
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    assert_eq!(project.script(script).ok(), "[\"alone\", \"saved\"]\n");
}

#[test]
fn one_failure_leaves_the_others_running() {
    let script = r#"
        let outcomes = parallel([1, 2, 3, 4], #{ max: 2 }, |i| {
            if i == 2 { throw #{ kind: "own", message: "two is broken" }; }
            if i == 3 { load_model("nowhere"); }
            if i == 4 { return [1, 2][7]; }
            i
        });
        print(outcomes.map(|o| o.ok));
        print(outcomes[0].value);
        print(`${outcomes[1].error.kind}: ${outcomes[1].error.message}`);
        print(outcomes[2].error.kind);
        print(`${outcomes[3].error.kind}: ${outcomes[3].error.message}`);
    "#;
    let text = Project::new().script(script).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..4], ["[true, false, false, false]", "1", "own: two is broken", "not_found"]);
    assert!(lines[4].starts_with("script: ") && lines[4].contains('7'), "{text}");
}

#[test]
fn closures_see_captured_variables_and_call_methods() {
    let script = r#"
        let model = load_model("model");
        let thresholds = [3.0, 6.0];
        let options = #{ layer_unit: "block" };
        fn analyse(model, ids, threshold, options) {
            let acts = model.extract_layernorms(load_tokens(#{ ids: ids }), #{ logits: true });
            options.magnitude_threshold = threshold;
            acts.detect_outliers(options).num_features
        }
        let jobs = [[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]];
        let inside = parallel(jobs, |ids| thresholds.map(|t| analyse(model, ids, t, options)));
        let outside = jobs.map(|ids| thresholds.map(|t| analyse(model, ids, t, options)));
        print(inside.map(|o| o.value) == outside);
        print(options.keys());
        print(outside[0][0] > 0);
    "#;
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    assert_eq!(project.script(script).ok(), "true\n[\"layer_unit\"]\ntrue\n");
}

#[test]
fn nothing_and_nesting() {
    let script = r#"
        print(parallel([], |x| x));
        print([1, 2].parallel(|x| [10, 20].parallel(|y| x + y).map(|o| o.value)).map(|o| o.value));
    "#;
    assert_eq!(Project::new().script(script).ok(), "[]\n[[11, 21], [12, 22]]\n");
}

#[test]
pub fn deep_values_on_threads_are_an_error() {
    let script = "let r = parallel([1], |x| { let a = []; for i in 0..15000 { a = [a]; } 1 }); print(r[0].ok); print(r[0].error.message);";
    assert_eq!(Project::new().script(script).ok(), "false\na value is nested too deeply\n");
}

#[test]
fn more_items_than_there_can_be_threads() {
    let script = "let a = []; a.pad(20000, 1); print(parallel(a, |x| x + 1).len());";
    assert_eq!(Project::new().script(script).ok(), "20000\n");
    // Inside each other as well.
    let script = "let a = []; a.pad(30, 1); print(parallel(a, |x| parallel([1, 2, 3, 4, 5, 6, 7], |y| y).len()).map(|o| o.value).reduce(|s, v| s + v, 0));";
    assert_eq!(Project::new().script(script).ok(), "210\n");
}
