//! Tests of the files of a project that scripts may replace, and of the places where they write
//! with the user's permission.

use std::os::unix::fs::symlink;

use crate::project::{FULL, Outcome, Project, stripped};

const ACTS: &str = "let model = load_model(\"model\");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8]] });
let acts = model.extract_layernorms(tokens);
let all = #{ activations: acts, found: acts.detect_outliers() };\n";
const FIGURE: &str = "#{ kind: \"bars\", title: \"t\", categories: [\"a\"], groups: [#{ values: [1.0] }] }";

/// A project with a model, and the home folder of its user.
struct User {
    project: Project,
    home: Project,
}

impl User {
    fn new() -> Self {
        let user = Self { project: Project::new(), home: Project::new() };
        user.project.copy("examples/shakespeare-olmoe", "model");
        user
    }

    /// Runs a script with these flags of `outlier run`.
    fn run(&self, flags: &[&str], script: &str) -> Outcome {
        self.project.file("script.rhai", script);
        let mut command = self.project.command(&[&["run"], flags, &["script.rhai"]].concat());
        command.env("HOME", self.home.path("")).env("OUTLIER_WORKER", stripped());
        Outcome::of(command.output().unwrap())
    }
}

#[test]
pub fn where_the_user_allows_it_every_primitive_writes() {
    for (place, flag) in [("~/out", "~/out"), ("~/out", "~"), ("~/out/deep", "~/out")] {
        let user = User::new();
        let (project, home) = (&user.project, &user.home);
        let script = format!(
            "{ACTS}
            print(write_text(\"{place}/a.txt\", \"x\"));
            write_json(\"{place}/a.json\", 1);
            write_table(\"{place}/a.csv\", [#{{ a: 1 }}]);
            save_figure(\"{place}/a.svg\", {FIGURE});
            print(save_results(\"{place}/mine\", all));
            print(export_tables(load_results(\"{place}/mine\"), \"csv\").len() > 0);
            model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"{place}\" }});
            "
        );
        let told = user.run(&[], &script).ends(1).stderr;
        assert!(told.contains("--allow-write DIR"), "{told}");
        assert!(!home.has("out"));
        let said = user.run(&["--allow-write", flag], &script).ok();
        let folder = place.trim_start_matches("~/");
        let at = |file: &str| home.path(&format!("{folder}/{file}")).display().to_string();
        assert_eq!(said, format!("{}\n{}\ntrue\n", at("a.txt"), at("mine")));
        for file in
            ["a.txt", "a.json", "a.csv", "a.svg", "mine/final_analysis_results.json", "mine/tables/norms.csv", FULL]
        {
            assert!(home.has(&format!("{folder}/{file}")), "{place}/{file}");
        }
        assert!(!project.has("results/mine"));
    }
}

/// A file or folder that is named itself.
#[test]
fn the_place_that_is_allowed_may_be_the_file_itself() {
    let user = User::new();
    let home = &user.home;
    user.run(&["--allow-write", "~/note.txt"], "write_text(\"~/note.txt\", \"x\");").ok();
    assert_eq!(home.text("note.txt"), "x");
    user.run(&["--allow-write", "~/note.txt"], "write_text(\"~/note2.txt\", \"x\");").ends(1);
    let script = format!("{ACTS} model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"~/full\" }});");
    user.run(&["--allow-write", "~/full"], &script).ok();
    assert!(home.has(&format!("full/{FULL}")));
}

#[test]
pub fn the_users_word_covers_no_hidden_files_and_no_secrets() {
    let user = User::new();
    let home = &user.home;
    home.file(".ssh/config", "theirs").file(".bashrc", "theirs");
    symlink(home.path(".ssh"), home.path("visible")).unwrap();
    let calls = [
        "write_text(\"~/.bashrc\", \"x\")".to_string(),
        "write_text(\"~/.ssh/config\", \"x\")".to_string(),
        "write_text(\"~/a/.b/c\", \"x\")".to_string(),
        "write_text(\"~/visible/config\", \"x\")".to_string(),
        "write_text(\"~/id_rsa\", \"x\")".to_string(),
        "write_text(\"~/gpus.sqlite\", \"x\")".to_string(),
        "write_json(\"~/.config.json\", 1)".to_string(),
        "write_table(\"~/.a/b.csv\", [#{ a: 1 }])".to_string(),
        format!("save_figure(\"~/.a/b.svg\", {FIGURE})"),
        "save_results(\"~/.ssh/a\", all)".to_string(),
        "save_results(\"~/visible/a\", all)".to_string(),
        "save_results(\"~/.a\", all)".to_string(),
        "model.extract_layernorms(tokens, #{ keep: \"full\", out: \"~/.ssh\" })".to_string(),
        "model.extract_layernorms(tokens, #{ keep: \"full\", out: \"~/visible\" })".to_string(),
        "model.extract_layernorms(tokens, #{ checkpoint: \"~/.ssh/c\", checkpoint_layers: 1 })".to_string(),
        "model.extract_layernorms(tokens, #{ checkpoint: \"~/visible/c\", checkpoint_layers: 1 })".to_string(),
    ];
    let tries: String = calls
        .iter()
        .map(|call| format!("try {{ {call}; print({:?}); }} catch (e) {{ print(e.kind); }}\n", format!("DONE {call}")))
        .collect();
    let said = user.run(&["--allow-write", "~"], &format!("{ACTS}{tries}")).ok();
    assert_eq!(said, "bad_argument\n".repeat(calls.len()));
    assert_eq!(home.files(".ssh"), ["config"]);
    assert_eq!((home.text(".bashrc"), home.text(".ssh/config")), ("theirs".into(), "theirs".into()));
    // The hidden folder itself is a place like any other.
    user.run(&["--allow-write", "~/.mine"], "write_text(\"~/.mine/a.txt\", \"x\");").ok();
    assert_eq!(home.text(".mine/a.txt"), "x");
}

const LOCALHOST: &str = "let gpu = provision_gpu(#{ provider: \"ssh\", host: \"localhost\" });\n";

#[test]
pub fn what_comes_from_a_machine_replaces_no_file_of_the_project() {
    let user = User::new();
    let project = &user.project;
    project.file("LICENSE", "mine").file("texts/a.txt", "newer").file("texts/same.txt", "same");
    project.file("results/x/a.json", "old").file("theirs/a", "theirs").file("theirs/same", "same");
    let tokenizer = project.bytes("model/tokenizer.json");
    // On the machine the same names, and other content.
    let send =
        "for name in [\"LICENSE\", \"model/tokenizer.json\", \"texts/a.txt\", \"texts/b.txt\", \"out/x/a.json\"] {
            gpu.upload(\"theirs/a\", name); }
        gpu.upload(\"theirs/same\", \"texts/same.txt\");\n";
    let calls = [
        "gpu.download(\"model/tokenizer.json\", \"model/tokenizer.json\")",
        "gpu.download(\"LICENSE\", \"LICENSE\")",
        "gpu.download(\"LICENSE\", \"./LICENSE\")",
        "gpu.sync(#{ down: \"texts\" })",
        "gpu.sync(#{ down: [\"LICENSE\", \"texts/b.txt\"] })",
    ];
    let tries: String = calls
        .iter()
        .map(|call| {
            format!("try {{ {call}; print({:?}); }} catch (e) {{ print(e.message); }}\n", format!("DONE {call}"))
        })
        .collect();
    let said = user.run(&[], &format!("{LOCALHOST}{send}{tries}")).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), calls.len(), "{said}");
    assert!(lines.iter().all(|line| line.contains("is here already, and differs from")), "{said}");
    assert_eq!((project.text("LICENSE"), project.text("texts/a.txt")), ("mine".into(), "newer".into()));
    assert!(project.bytes("model/tokenizer.json") == tokenizer);
    assert!(!project.has("texts/b.txt"), "all is looked at before any of it is fetched");
    // What is new, what is the same, and what runs have made.
    let good = "print(gpu.sync(#{ down: [\"texts/b.txt\", \"texts/same.txt\"] }).files_received);
        gpu.download(\"texts/same.txt\", \"texts/same.txt\");
        gpu.download(\"out/x/a.json\", \"results/x/a.json\");
        gpu.download(\"out/x/a.json\", \"results/x/a.json\");";
    assert_eq!(user.run(&[], &format!("{LOCALHOST}{good}")).ok(), "1\n");
    assert_eq!((project.text("texts/b.txt"), project.text("results/x/a.json")), ("theirs".into(), "theirs".into()));
    // With the user's word.
    let script = format!("{LOCALHOST} gpu.sync(#{{ down: \"texts\" }}); gpu.download(\"LICENSE\", \"LICENSE\");");
    user.run(&["--allow-write", "texts"], &script).ends(1);
    assert_eq!((project.text("LICENSE"), project.text("texts/a.txt")), ("mine".into(), "theirs".into()));
    user.run(&["--allow-write", "."], &script).ok();
    assert_eq!(project.text("LICENSE"), "theirs");
}

#[test]
pub fn activations_that_a_project_has_are_not_replaced_without_a_word() {
    let user = User::new();
    let project = &user.project;
    project.file(&format!("mymodel/{FULL}"), "mine").file(&format!("results/x/{FULL}"), "of another run");
    let call = |out: &str| format!("{ACTS} model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"{out}\" }});");
    for command in ["run", "plan"] {
        project.file("script.rhai", call("mymodel"));
        let told = project.run(&[command, "script.rhai"]).ends(1).stderr;
        assert!(told.contains(&format!("mymodel/{FULL} is there already")) && told.contains("--allow-write"), "{told}");
        assert_eq!(project.text(&format!("mymodel/{FULL}")), "mine");
    }
    let told = user.run(&[], &call("results/x")).ends(0).stderr;
    assert!(told.contains(&format!("note: results/x/{FULL} is there already: it is replaced")), "{told}");
    assert!(project.bytes(&format!("results/x/{FULL}")).len() > 1000);
    user.run(&["--allow-write", "mymodel"], &call("mymodel")).ok();
    assert!(project.bytes(&format!("mymodel/{FULL}")).len() > 1000);
    // Where there is none, nothing is said.
    let told = user.run(&[], &call("new")).ends(0).stderr;
    assert!(project.has(&format!("new/{FULL}")) && !told.contains("is there already"), "{told}");
}

/// What loads by a path is saved by it as well.
#[test]
fn a_name_with_the_folder_of_results_before_it_is_the_same_name() {
    let user = User::new();
    let project = &user.project;
    let script = format!(
        "{ACTS} print(save_results(\"results/mine\", all)); print(load_results(\"results/mine\").found.num_features >= 0);
        print(load_results(\"mine\").found.num_features >= 0); print(has_results(\"results/mine\"));
        with_log(\"logs/work\", || log(\"hello\")); print(last_logged(\"work\").text == last_logged(\"logs/work\").text);"
    );
    assert_eq!(project.script(&script).ok(), "results/mine\ntrue\ntrue\ntrue\ntrue\n");
    assert!(!project.has("results/results") && project.has("logs/work.log") && !project.has("logs/logs"));
    let absolute = project.path("results/abs").display().to_string();
    project
        .script(&format!("{ACTS} save_results({absolute:?}, all); print(load_results(\"abs\").found.num_features);"))
        .ok();
    let elsewhere = project.path("elsewhere/mine").display().to_string();
    let told = project.script(&format!("{ACTS} save_results({elsewhere:?}, all);")).ends(1).stderr;
    assert!(told.contains("is not a name for results, nor a place") && told.contains("--allow-write"), "{told}");
    assert!(!project.has("elsewhere") && !project.has("results/elsewhere"));
}
