//! Tests of what a script cannot circumvent: the limits of steps, memory and size, Ctrl-C, and the
//! places of modules and files.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use crate::interrupt::{ending, interrupt, start};
use crate::project::{Outcome, Project};

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

const ACTS: &str =
    "let acts = load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }), #{ logits: true });\n";

/// Runs a script that may hang.
fn run(project: &Project, before: &[&str], script: &str) -> Outcome {
    project.file("script.rhai", script);
    ending(start(project, &[&["run"], before, &["script.rhai"]].concat()))
}

#[track_caller]
fn told(outcome: &Outcome, message: &str) {
    assert!(
        outcome.code != 0 && outcome.stderr.contains(message),
        "{message:?} in {} {}",
        outcome.code,
        outcome.stderr
    );
}

fn pipe(project: &Project, path: &str) {
    assert!(Command::new("mkfifo").arg(project.path(path)).status().unwrap().success());
}

#[test]
fn more_largest_values_than_a_record_has_are_not_asked_of_the_memory() {
    let project = project();
    let script = |top: u64| {
        format!(
            "let acts = load_model(\"model\").extract(load_tokens(#{{ ids: [[5, 6, 7, 8]] }}),
                #{{ sites: [\"attn_in\"], observe: [\"top\"], top: {top} }});
             print(acts.top_values(#{{ n: 1000000 }}).len());"
        )
    };
    for top in [100_000, 1 << 31] {
        told(&run(&project, &[], &script(top)), "has at most 87381 values of each");
    }
    // As many as it may have, and more than there are: all of four positions of 96 dimensions in six layers.
    assert_eq!(run(&project, &[], &script(87_381)).ok().trim(), (4 * 96 * 6).to_string());
}

#[test]
pub fn a_module_that_is_a_link_gives_no_file_away() {
    let project = Project::new();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("a.rhai"), "swordfish").unwrap();
    project
        .file(".env", "swordfish")
        .file("stdlib/x", "")
        .file("notes.txt", "swordfish")
        .file(".git/a.rhai", "swordfish");
    symlink(".env", project.path("lib.rhai")).unwrap();
    symlink("../.env", project.path("stdlib/deep.rhai")).unwrap();
    symlink("notes.txt", project.path("notes.rhai")).unwrap();
    symlink(".git/a.rhai", project.path("git.rhai")).unwrap();
    symlink("/etc/passwd", project.path("pw.rhai")).unwrap();
    symlink(elsewhere.path().join("a.rhai"), project.path("out.rhai")).unwrap();
    symlink(elsewhere.path(), project.path("folder")).unwrap();
    for name in ["lib", "deep", "notes", "git", "pw", "out", "folder/a"] {
        let outcome = run(&project, &[], &format!("import {name:?} as m; m::x();"));
        told(&outcome, "it leads ");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!said.contains("swordfish") && !said.contains("root:"), "{name}: {said}");
        let caught = run(&project, &[], &format!("try {{ import {name:?} as m; }} catch (e) {{ print(e); }}")).ok();
        assert!(!caught.contains("swordfish") && !caught.contains("root:"), "{name}: {caught}");
    }
    // A link within the project is one more name for a module.
    project.file("lab/own.rhai", "fn who() { \"own\" }");
    symlink("lab/own.rhai", project.path("short.rhai")).unwrap();
    assert_eq!(run(&project, &[], "import \"short\" as m; print(m::who());").ok(), "own\n");
}

#[test]
pub fn a_module_that_is_a_pipe_is_not_waited_for() {
    let project = Project::new();
    pipe(&project, "ff.rhai");
    told(&run(&project, &[], "import \"ff\" as m;"), "not a regular file");
    assert_ne!(ending(start(&project, &["check", "script.rhai"])).code, 0);
    ending(start(&project, &["plan", "script.rhai"]));
    pipe(&project, "a_test.rhai");
    ending(start(&project, &["test", "."]));
}

#[test]
pub fn a_text_of_the_run_is_no_module() {
    let project = Project::new();
    project.file("logs/x", "");
    for folder in ["results", "logs"] {
        let script = format!("write_text(\"{folder}/m.rhai\", \"print(41 + 1);\"); import \"{folder}/m\" as m;");
        let outcome = run(&project, &[], &script);
        told(&outcome, "scripts write there");
        assert_eq!(outcome.stdout, "");
    }
    symlink("results", project.path("lib")).unwrap();
    told(&run(&project, &[], "import \"lib/m\" as m;"), "scripts write there");
}

#[test]
pub fn the_list_of_machines_keeps_its_place() {
    let project = project();
    let save = |name: &str| format!("save_results({name:?}, #{{ activations: acts, found: acts.detect_outliers() }})");
    let extract = |options: &str| {
        format!("load_model(\"model\").extract_layernorms(load_tokens(#{{ ids: [[5]] }}), #{{ {options} }})")
    };
    for call in [
        save("gpus.sqlite"),
        save("gpus.sqlite/x"),
        save("GPUS.sqlite-wal"),
        extract("keep: \"full\", out: \"results/gpus.sqlite\""),
        extract("checkpoint: \"results/gpus.sqlite\", checkpoint_layers: 1"),
        extract("checkpoint: \"results/gpus.sqlite-journal\", checkpoint_layers: 1"),
        "write_text(\"results/gpus.sqlite_of_mine\", \"x\")".to_string(),
        "write_text(\"results/Gpus.Sqlite\", \"x\")".to_string(),
    ] {
        let outcome = project.script(&format!("{ACTS}{call};"));
        assert!(outcome.code == 1 && outcome.stderr.contains("list of rented machines"), "{call}: {}", outcome.stderr);
    }
    let left = |name: &String| name.to_lowercase().contains("gpus.sqlite");
    assert!(!project.files("results").iter().any(left), "{:?}", project.files("results"));
    // A link in its place is not followed, wherever it leads.
    let elsewhere = Project::new();
    project.file("results/x", "");
    symlink(elsewhere.path("made.sqlite"), project.path("results/gpus.sqlite")).unwrap();
    told(&project.run(&["gpus"]), "is a link");
    assert_eq!(elsewhere.files(""), [""; 0]);
}

#[test]
pub fn the_programs_own_folders_are_no_way_out() {
    let (project, elsewhere) = (project(), Project::new());
    project.file("results/miniature_models/x", "");
    symlink(elsewhere.path(""), project.path("results/miniature_models/olmoe")).unwrap();
    symlink(elsewhere.path(""), project.path("results/.plans")).unwrap();
    told(&run(&project, &[], "miniature_model(\"olmoe\");"), "leads out of");
    project.file("script.rhai", ACTS);
    told(&ending(start(&project, &["plan", "script.rhai"])), "leads out of");
    assert_eq!(elsewhere.files(""), [""; 0]);
    told(&run(&project, &[], "miniature_model(\"../x\");"), "no miniature model");
}

#[test]
pub fn a_file_that_is_called_as_an_unfinished_checkpoint_stays() {
    let project = project();
    project.file("data/c.partial", "years of work").file("data/x", "");
    let script = |name: &str| {
        format!(
            "load_model(\"model\").extract_layernorms(load_tokens(#{{ ids: [[5, 6]] }}), #{{ checkpoint: \"data/{name}\", checkpoint_layers: 1 }});"
        )
    };
    run(&project, &[], &script("c"));
    assert_eq!(project.text("data/c.partial"), "years of work");
    pipe(&project, "data/f.partial");
    run(&project, &[], &script("f"));
    assert!(project.path("data/f.partial").symlink_metadata().is_ok());
}

#[test]
pub fn a_stored_plan_that_is_no_file_is_not_read() {
    let project = project();
    project.file("script.rhai", ACTS);
    project.run(&["plan", "script.rhai"]).ok();
    let plan = project.files("results/.plans").remove(0);
    for link in [false, true] {
        std::fs::remove_file(project.path("results/.plans").join(&plan)).unwrap();
        match link {
            true => symlink("/dev/zero", project.path("results/.plans").join(&plan)).unwrap(),
            false => pipe(&project, &format!("results/.plans/{plan}")),
        }
        ending(start(&project, &["run", "script.rhai"])).ends(0);
    }
}

#[test]
pub fn a_sweep_over_millions_of_criteria_is_refused() {
    let script = format!(
        "{ACTS} let m = []; for i in 0..300 {{ m.push(i / 300.0); }}
         acts.sweep_criteria(#{{ min_layer_percentage: m, min_seq_percentage: m, systematic_layers: m, n_resamples: 1 }});"
    );
    told(&run(&project(), &["--max-memory", "8GiB"], &script), "sweep_criteria: 27000000 combinations");
}

#[test]
fn a_long_sweep_hears_an_interrupt() {
    let script =
        "let acts = load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] }));
         let m = []; for i in 0..300 { m.push(i / 300.0); }
         print(\"begins\");
         acts.sweep_criteria(#{ min_layer_percentage: m, min_seq_percentage: m, n_resamples: 20000 }); print(\"ended\");";
    let project = project();
    project.file("script.rhai", script);
    let child = start(&project, &["run", "script.rhai"]);
    std::thread::sleep(Duration::from_secs(3));
    interrupt(&child);
    let outcome = ending(child).ends(130);
    assert!(!outcome.stdout.contains("ended"), "{}", outcome.stdout);
}

#[test]
pub fn one_call_cannot_ask_for_more_than_there_is() {
    let project = Project::new();
    let long = "let s = \"a\"; for i in 0..20 { s += s; }";
    for script in [
        format!("{long} s.replace(\"a\", s);"),
        format!("{long} s.replace('a', s);"),
        format!("{long} s.replace(\"\", s);"),
        format!("{long} for i in 0..5 {{ s += s; }} s.split(\"\");"),
        format!("{long} for i in 0..5 {{ s += s; }} s.split('a', 100000000);"),
        format!("{long} for i in 0..5 {{ s += s; }} s.split_rev(\"a\");"),
        format!("{long} for i in 0..5 {{ s += s; }} s.to_chars();"),
        "let s = \"x\"; s.pad(60000000, '\u{10ffff}');".to_string(),
        "let a = []; a.pad(4611686018427387904, [1, 2, 3]);".to_string(),
        "let a = []; a.pad(3000000, 1); let f = Fn(\"x\").curry(a); let b = []; b.pad(3000000, f);".to_string(),
        format!("{long} let m = #{{}}; m[s] = 1; let b = []; b.pad(900000, m);"),
        format!(
            "{long} let n = []; n.pad(100000, 1); let t = []; t.pad(100000, s.sub_string(0, 500)); bar_chart(t, n, 500);"
        ),
        "let r = []; r.pad(2000000, #{ a: 1 }); let c = []; c.pad(1000000, \"a\"); html_table(c, [r[0], r[0]]);"
            .to_string(),
        "let r = []; for i in 0..2000 { r.push(#{ a: 1 }); } let c = []; c.pad(2000, \"a\"); markdown_table(c, r);"
            .to_string(),
        format!("{long} let r = [#{{ a: s }}]; for i in 0..200 {{ r.push(#{{ a: 1 }}); }} table(r);"),
    ] {
        let outcome = run(&project, &[], &script);
        assert!(
            outcome.code == 1 && outcome.stderr.contains("too large"),
            "{script}: {} {}",
            outcome.code,
            outcome.stderr
        );
    }
    let wide =
        "let r = []; for i in 0..5000 { let m = #{}; m[`k${i}`] = 1; r.push(m); } write_table(\"results/t.csv\", r);";
    told(&run(&project, &[], wide), "5000 columns and 5000 rows");
    let figure = format!(
        "{long} let v = []; v.pad(5000, 1.0); svg(#{{ kind: \"bars\", title: s, categories: v.map(|x| \"a\"), groups: [#{{ name: s, values: v }}] }});"
    );
    told(&run(&project, &[], &figure), "a figure of");
}

#[test]
pub fn padding_with_nothing_ends() {
    assert_eq!(run(&Project::new(), &[], "let s = \"a\"; s.pad(10, \"\"); print(s);").ok(), "a\n");
}

#[test]
fn functions_with_bounds_do_what_they_did() {
    let script = r#"
        let s = "abcabc"; s.replace("b", "--"); print(s);
        let s = "abcabc"; s.replace('b', "xy"); s.replace("c", 'd'); s.replace('d', 'e'); print(s);
        print("a b  c".split()); print("a,b,c".split(",")); print("a,b,c".split(',')); print("a,b,c".split(",", 2));
        print("a,b,c".split(',', 2)); print("a,b,c".split_rev(",")); print("a,b,c".split_rev(',', 2));
        print("a,b,c".split(",", 0)); print("abc".split(1)); print("ab".to_chars()); print("".split()); print("".split("")); print("".to_chars()); const C = "x y"; print(C.split(" "));
        let s = "ab"; s.pad(5, '-'); print(s); let s = "ab"; s.pad(7, "xyz"); print(s); s.pad(2, "q"); s.pad(-1, 'q'); print(s);
        let a = [1]; a.pad(3, "x"); print(a); a.pad(1, 0); a.pad(-5, 0); print(a);
        let big = []; big.pad(200000, 7); print(big.len()); print(big[199999]);
    "#;
    let expected = r#"a--ca--c
axyeaxye
["a", "b", "c"]
["a", "b", "c"]
["a", "b", "c"]
["a", "b,c"]
["a", "b,c"]
["c", "b", "a"]
["c", "a,b"]
["a,b,c"]
["a", "bc"]
['a', 'b']
[""]
[""]
[]
["x", "y"]
ab---
abxyzxy
abxyzxy
[1, "x", "x"]
[1, "x", "x"]
200000
7
"#;
    assert_eq!(run(&Project::new(), &[], script).ok(), expected);
}

#[test]
pub fn threads_together_stay_below_the_bound_of_memory() {
    // Each holds on to what it has made until all have.
    let script = "let a = []; for i in 0..128 { a.push(i); }
        parallel(a, |x| { let b = []; b.pad(3900000, x); sleep(3); b.len() });";
    told(&run(&Project::new(), &["--max-memory", "256MiB"], script), "more memory than they may");
    // What a closure has captured is copied for each thread.
    let script = "let big = []; big.pad(3000000, 1); let a = []; a.pad(128, 0); parallel(a, |x| big.len());";
    told(&run(&Project::new(), &["--max-memory", "512MiB"], script), "more memory than they may");
}

#[test]
pub fn a_text_whose_parsing_takes_quadratic_time_is_refused() {
    let variables: String = (0..100_000).map(|i| format!("let v{i} = {i};\n")).collect();
    let functions: String = (0..50_000).map(|i| format!("fn f{i}(x) {{ x }}\n")).collect();
    let keys: String = (0..100_000).map(|i| format!("k{i}: 1, ")).collect();
    let closures: String = (0..50_000).map(|i| format!("|x| x + {i}, ")).collect();
    let undeclared: String = (0..100_000).map(|i| format!("v{i};\n")).collect();
    let project = Project::new();
    for text in [variables, functions, format!("let m = #{{ {keys} }};"), format!("[{closures}];"), undeclared] {
        let outcome = run(&project, &[], &text).ends(1);
        assert!(outcome.stderr.contains("too many names") && outcome.stderr.contains("modules of at most"));
        // Some of these texts are one line.
        assert!(outcome.stderr.len() < 2000, "{} bytes", outcome.stderr.len());
    }
    // The last one, as a module and as a script that is only checked.
    std::fs::rename(project.path("script.rhai"), project.path("large.rhai")).unwrap();
    let outcome = run(&project, &[], "import \"large\" as large;").ends(1);
    assert!(outcome.stderr.contains("too many names") && outcome.stderr.contains("--> large.rhai:"));
    let outcome = ending(start(&project, &["check", "large.rhai"])).ends(1);
    assert!(outcome.stderr.contains("too many names"));
}

#[test]
fn a_text_of_some_thousand_names_is_read() {
    let functions: String = (0..2000).map(|i| format!("fn f{i}(x) {{ let y = x + {i}; let z = y; z }}\n")).collect();
    let keys: String = (0..5000).map(|i| format!("k{i}: {i}, ")).collect();
    let variables: String = (0..3000).map(|i| format!("let v{i} = m.k{i};\n")).collect();
    let script = format!("{functions} let m = #{{ {keys} }}; {variables} print(f7(v10));");
    assert_eq!(run(&Project::new(), &[], &script).ok(), "17\n");
}

#[test]
pub fn values_grow_by_small_steps() {
    let script = "
        let a = []; for i in 0..20000 { a.push(i); } print(a.len());
        let a = []; for i in 0..20000 { a += i; } print(a.len());
        let a = []; let i = 0; while a.len() < 20000 { a.insert(-1, i); i += 1; } print(a.len());
        let a = []; for i in 0..10000 { a.append([i, i]); } print(a.len());
        let a = [[]]; for i in 0..20000 { a[0].push(i); } print(a[0].len());
        let m = #{}; for i in 0..20000 { m[`k${i}`] = i; if !m.contains(`k${i}`) { throw i; } } print(m.len());
        let m = #{ list: [] }; for i in 0..20000 { m.list.push(i); } print(m.list.len());
        let b = blob(); for i in 0..20000 { b.push(i); } print(b.len());
        let c = []; let add = |x| c.push(x); for i in 0..20000 { add.call(i); } print(c.len());
        fn add(x) { this.push(x); } let d = []; for i in 0..20000 { d.add(i); } print(d.len());";
    assert_eq!(run(&Project::new(), &[], script).ok(), "20000\n".repeat(10));
}

#[test]
pub fn values_that_grow_by_small_steps_have_an_end() {
    let project = Project::new();
    let many = "let many = []; many.pad(1000, 0);";
    let map = "let map = #{}; for i in 0..1000 { map[`${i}`] = (); }";
    for script in [
        &format!("{many} let a = []; loop {{ a.push(many); }}"),
        &format!("{many} let a = []; loop {{ a += many; }}"),
        &format!("{many} let a = []; loop {{ a.append(many); }}"),
        &format!("{many} let m = #{{ list: [] }}; loop {{ m.list.append(many); }}"),
        &format!("{many} let c = []; let add = || c.append(many); loop {{ add.call(); let d = c.len(); }}"),
        &format!("{map} let m = #{{}}; let i = 0; loop {{ m[`${{i}}`] = map; i += 1; }}"),
        "let a = []; let s = \"x\"; s.pad(1000, \"y\"); loop { a.push(s); }",
        "let s = \"x\"; s.pad(1000, \"y\"); let t = \"\"; loop { t += s; }",
        "let b = blob(1000); let c = blob(); loop { c.append(b); }",
        "let b = blob(); b.pad(4000001, 0);",
        "blob(4000001);",
        "blob(4000001, 7);",
    ] {
        told(&run(&project, &[], script), "a value is too large");
    }
    assert_eq!(
        run(&project, &[], "let b = blob(2); b.pad(3, 513); print(blob(1, 258)); print(b);").ok(),
        "[02]\n[000001]\n"
    );
}

#[test]
pub fn calls_of_parallel_inside_each_other_have_an_end() {
    let script =
        "fn f(n) { let made = parallel([1, 2], |i| f(n + 1)); if !made[0].ok { print(made[0].error.message); } }
        f(0);";
    let expected = "parallel: 8 calls of it are inside each other already\n".repeat(128);
    assert_eq!(run(&Project::new(), &[], script).ok(), expected);
    // Little address space: 64 threads of `parallel` would take more than there is.
    let project = Project::new();
    for (script, expected) in [
        (script, expected.as_str()),
        ("let a = []; a.pad(20, 1); print(parallel(a, |x| { sleep(0.2); x }).filter(|x| x.ok).len());", "20\n"),
    ] {
        project.file("script.rhai", script);
        for kib in [400_000, 450_000, 500_000, 550_000, 600_000, 700_000, 1_000_000, 4_000_000] {
            let words = format!("ulimit -v {kib}; exec {} run script.rhai", crate::project::program().display());
            let mut shell = Command::new("sh");
            shell.args(["-c", &words]).current_dir(project.path(""));
            assert_eq!(Outcome::of(shell.output().unwrap()).ok(), expected, "{kib}");
        }
    }
}

#[test]
pub fn values_that_fill_the_address_space_are_an_error() {
    let project = Project::new();
    // What closures have captured has no other limit.
    project.file("script.rhai", "let a = []; loop { let b = []; b.pad(1000000, 1); let f = || b; a.push(f); }");
    let words = format!("ulimit -v 1200000; exec {} run script.rhai", crate::project::program().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &words]).current_dir(project.path(""));
    told(&Outcome::of(shell.output().unwrap()).ends(1), "more memory than they may");
}

#[test]
pub fn bounds_that_are_caught_stay_reached() {
    let project = Project::new();
    for script in [
        "loop { parallel([1], |x| { loop {} }); }",
        "loop { try { parallel([1, 2], |x| { loop {} }); } catch (e) {} }",
        "loop { try { assert_throws(|| { loop {} }); } catch (e) {} }",
        "fn f() { loop {} } loop { try { f(); } catch (e) {} }",
        "loop { with_log(\"a\", || { try { assert_throws(|| { loop {} }); } catch (e) {} }); }",
        // Many threads that take few steps each.
        "loop { parallel([1, 2, 3], |x| x + 1); }",
    ] {
        told(&run(&project, &["--max-steps", "100000"], script), "more steps than it may");
        told(&run(&project, &["--max-minutes", "0.02"], script), "longer than it may");
    }
    let script = "loop { try { parallel([1], |x| { let a = []; a.pad(3900000, x); let b = a; let c = b; for i in 0..1000 { x += 1; } }); } catch (e) {} }";
    told(&run(&project, &["--max-memory", "64MiB"], script), "more memory than they may");
}

#[test]
pub fn a_log_on_a_full_disk_is_told() {
    let project = Project::new();
    project.file("script.rhai", "with_log(\"a\", || { log(\"one\"); log(\"two\"); });");
    // A file that may not grow stands for a disk that is full: no byte of a log fits.
    let words = format!("ulimit -f 0; exec {} run script.rhai", crate::project::program().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &words]).current_dir(project.path(""));
    let outcome = Outcome::of(shell.output().unwrap()).ends(3);
    assert_eq!(outcome.stderr.matches("error: writing to logs/a.log").count(), 1, "{}", outcome.stderr);
}

#[test]
fn names_that_look_like_others_are_refused() {
    let project = Project::new();
    for name in ["results/a\\nb", "results/\\u202ea", "results/ ", "results/a ", "results/a\\tb", "results/a\\\\b"] {
        told(&project.script(&format!("write_text(\"{name}\", \"x\");")), "is not below results/ or logs/");
    }
    project.script("write_text(\"results/a b.txt\", \"x\"); write_text(\"results/ü/-x.txt\", \"x\");").ends(0);
}

#[test]
fn links_do_not_list_an_analysis_twice() {
    let project = project();
    project
        .script(&format!("{ACTS} save_results(\"r\", #{{ activations: acts, found: acts.detect_outliers() }});"))
        .ok();
    symlink("..", project.path("results/r/up")).unwrap();
    symlink("r", project.path("results/latest")).unwrap();
    assert_eq!(project.script("print(list_results()); print(has_results(\"latest\"));").ok(), "[\"r\"]\ntrue\n");
}

#[test]
fn a_figure_with_control_characters_is_well_formed() {
    let script = "print(svg(#{ kind: \"bars\", title: \"a\\x00\\x1bb\", categories: [\"c\\x08\", \"d\"], groups: [#{ values: [1.0, 2.0] }] }));";
    let svg = Project::new().script(script).ok();
    assert!(!svg.chars().any(|c| c < ' ' && c != '\n'), "{svg:?}");
    assert!(svg.contains("a\u{fffd}\u{fffd}b"), "{svg}");
}

#[test]
fn thousands_of_mistakes_are_told_in_part() {
    let project = Project::new();
    let calls: String = (0..5000).map(|i| format!("unknown_{i}();\n")).collect();
    project.file("script.rhai", calls);
    let outcome = project.run(&["check", "script.rhai"]);
    told(&outcome, "there are 1000 mistakes");
    assert_eq!(outcome.stderr.matches("no function").count(), 1000);
    // A name of a million letters is no misspelling.
    let name = "a".repeat(1 << 20);
    project.file("script.rhai", format!("{name}();"));
    told(&project.run(&["run", "script.rhai"]), "no function");
}

#[test]
fn a_bound_of_nothing_meant_none_or_the_end_at_once() {
    let project = Project::new();
    project.file("script.rhai", "print(1);");
    for bound in [["--max-steps", "0"], ["--max-minutes", "0"]] {
        project.run(&[&["run"], &bound[..], &["script.rhai"]].concat()).ends(2);
    }
}
