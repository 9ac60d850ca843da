//! Tests of messages: plurals, signs for missing values, hints that lead somewhere, and the right
//! mistake first.

use std::process::Command;

use crate::fake_hub::{Hub, Model};
use crate::project::{Outcome, Project, repository};

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

const ACTS: &str =
    "let model = load_model(\"model\"); let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }));";

#[test]
fn a_plan_of_nothing_takes_no_time() {
    let project = project();
    project.file("nothing.rhai", "print(1)").file("one.rhai", ACTS);
    let text = project.run(&["plan", "nothing.rhai"]).ok();
    let nothing = "No pass through a model, and no machine.";
    assert!(text.contains(nothing) && !text.contains("Total"), "{text}");
    let text = project.run(&["plan", "one.rhai"]).ok();
    assert!(text.contains("Total: 1 pass, ") && !text.contains("-0"), "{text}");
}

#[test]
fn nothing_has_no_sign() {
    let script = "
        print(format_number(-0.0)); print(format_number(-0.00001)); print(format_number(-0.001, 2)); print(format_number(-0.4, 0));
        print(format_number(100)); print(format_number(120.0, 0)); print(format_number(-1.5, 1)); print(format_bytes(-0.0)); print(format_bytes(999999));
        table([#{ a: -0.0 }, #{ a: -0.00001 }]);
        print(bar_chart([\"a\"], [-0.0], 4));
        print(svg(#{ kind: \"points\", title: \"t\", series: [#{ points: [#{ x: -0.0, y: -0.001 }, #{ x: 1.0, y: 1.0 }] }] }));
    ";
    let text = Project::new().script(script).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..9], ["0", "0", "0.00", "0", "100", "120", "-1.5", "0 B", "1.00 MB"]);
    assert!(!text.contains("-0<") && !text.contains("-0 ") && !text.contains("\"-0\""), "{text}");
}

#[test]
fn one_is_not_several() {
    let project = project();
    let script = format!(
        "{ACTS} save_results(\"one\", #{{ activations: acts, found: acts.detect_outliers() }});
         print(format_count(1, \"feature\")); print(format_count(2, \"feature\")); print(format_count(0, \"analysis\"));"
    );
    assert_eq!(project.script(&script).ok(), "1 feature\n2 features\n0 analyses\n");
    // As many as there are, from none to many.
    let mut seen = Vec::new();
    for step in 0..60 {
        let threshold = (3.0 + 0.1 * f64::from(step)).to_string();
        let text = project.run(&["rethreshold", "one", "--magnitude", &threshold, "--resamples", "0"]).ok();
        let last = text.lines().last().unwrap().to_string();
        assert!(!last.contains(" 1 features"), "{last}");
        seen.push(last);
    }
    assert!(seen.iter().any(|line| line.contains(" 1 feature,")), "{seen:?}");
    for (text, told) in [
        ("has_results()", "`has_results` does not take 0 arguments"),
        ("has_results(\"a\", 1)", "`has_results` does not take 2 arguments"),
        ("print(1); report_failure(1)", "`report_failure` does not take 1 argument\n"),
    ] {
        let outcome = project.file("a.rhai", text).run(&["check", "a.rhai"]).ends(1);
        assert!(outcome.stderr.contains(told), "{told}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "1 script: 1 problem\n");
    }
}

/// No text of the program's own puts a number before a plural that may be one; found in its source.
#[test]
fn scripts_and_examples_count_with_words() {
    for folder in ["scripts", "stdlib", "examples"] {
        for entry in std::fs::read_dir(repository().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            for word in ["features", "models", "analyses", "figures", "layers", "sequences", "files", "passes"] {
                let counted = format!("}} {word}");
                assert!(!text.contains(&counted), "{}: {counted:?}", path.display());
            }
        }
    }
}

#[test]
fn hints_about_a_text_that_is_too_short_can_be_followed() {
    let project = project();
    project
        .file("empty.txt", "")
        .file("short.txt", "To be")
        .file("docs.jsonl", "{\"text\": \"To be\"}\n")
        .file("none.jsonl", "");
    let hint = |options: &str| {
        let script = format!("let model = load_model(\"model\"); load_tokens(#{{ model: model, {options} }})");
        let stderr = project.script(&script).ends(3).stderr;
        assert!(
            !stderr.contains("at most 0") && !stderr.contains("num_sequences: 0") && !stderr.contains(" 1 tokens"),
            "{stderr}"
        );
        stderr.lines().find_map(|line| line.strip_prefix("  hint: ")).unwrap().to_string()
    };
    let size = "num_sequences: 2, sequence_length: 64";
    assert_eq!(hint(&format!("text: \"empty.txt\", {size}")), "there is nothing in it: use more text, or another one");
    assert!(hint(&format!("text: \"short.txt\", {size}")).starts_with("use a sequence_length of at most "));
    assert_eq!(
        hint(&format!("text: \"docs.jsonl\", windows: \"documents\", {size}")),
        "use a smaller sequence_length or more text"
    );
    assert_eq!(
        hint(&format!("text: \"none.jsonl\", windows: \"documents\", {size}")),
        "there is nothing in it: use more text, or another one"
    );
    let few = "text: \"docs.jsonl\", windows: \"documents\", sequence_length: 1";
    assert_eq!(hint(&format!("{few}, num_sequences: 2")), "use num_sequences: 1 or more text");
    assert_eq!(
        hint(&format!("{few}, num_sequences: 2, skip_sequences: 1")),
        "use a smaller skip_sequences or more text"
    );
}

/// A word of the call that is wrong is told before anything is looked for, asked for or fetched.
#[test]
fn a_wrong_device_is_told_first() {
    let hub = Hub::start().with("lab/llama", Model::Folder(repository().join("tests/fixtures/llama")));
    let project = Project::new();
    for model in ["nowhere", "lab/llama", "no/such"] {
        for call in ["load_model", "estimate_vram"] {
            let outcome = hub.run(&project, &format!("{call}(\"{model}\", #{{ device: \"gpu\" }})"), None).ends(1);
            assert!(outcome.stderr.contains("device \"gpu\" is unknown"), "{}", outcome.stderr);
            project.file("script.rhai", format!("{call}(\"{model}\", #{{ device: \"cuda:x\" }})"));
            let outcome = project.run(&["plan", "script.rhai"]).ends(1);
            assert!(outcome.stderr.contains("device \"cuda:x\" is unknown"), "{}", outcome.stderr);
        }
    }
    // A GPU that is not there is no reason to download a model first.
    let script = "load_model(\"lab/llama\", #{ device: \"cuda:77\" })";
    let outcome = hub.run(&project, script, None);
    assert!(outcome.code != 0 && outcome.stderr.contains("device \"cuda:77\""), "{}", outcome.stderr);
    assert!(hub.asked().is_empty() && !project.has("hf"), "nothing was asked for");
    // What another machine has is not known here.
    let script = "let gpu = provision_gpu(#{ provider: \"ssh\", host: \"me@there\" });
                  let model = gpu.load_model(\"tests/model\", #{ device: \"cuda\" }); print(model.device);";
    project.copy("tests/fixtures/llama", "tests/model").file("script.rhai", script);
    project.run(&["plan", "script.rhai"]).ok();
}

#[test]
fn options_of_a_machine_are_read_before_the_model_is_looked_for() {
    let hub = Hub::start();
    let model = "provider: \"runpod\", model: \"lab/none\"";
    for (options, told) in [
        ("max_hours: -1", "`max_hours` is -1"),
        ("lease_minutes: 0", "`lease_minutes` is 0"),
        ("task: \"../up\"", "../up"),
        ("cpus: \"many\"", "`cpus` is \"many\""),
    ] {
        let outcome = hub.run(&Project::new(), &format!("provision_gpu(#{{ {model}, {options} }})"), None).ends(1);
        assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    }
    assert!(hub.asked().is_empty());
}

#[test]
fn a_saved_session_shows_what_the_session_showed() {
    let project = project();
    let input = "let found = #{ features: [1, 2], class: \"a\" };\nfound\n[#{ a: 1 }, #{ a: 2 }]\n1 + 1\n\"text\"\n:save mine\n";
    let mut command = project.command(&["repl"]);
    project.file("input", input);
    command.stdin(std::fs::File::open(project.path("input")).unwrap());
    let said = Outcome::of(command.output().unwrap()).ok();
    let (shown, saved) = said.rsplit_once("mine.rhai: ").unwrap();
    assert!(saved.starts_with("5 statements;"), "{said}");
    assert!(shown.contains('┆') && !shown.contains("#{"), "{shown}");
    assert_eq!(project.run(&["run", "mine.rhai"]).ok(), shown);
    project.run(&["check", "mine.rhai"]).ok();
}

#[test]
fn a_script_may_begin_with_the_name_of_its_interpreter() {
    let project = project();
    let first = "#!/usr/bin/env -S outlier run";
    project.file("own.rhai", format!("{first}\nprint(\"own\");\n")).file("only.rhai", first);
    project.file("lab.rhai", format!("{first}\nfn answer() {{ 42 }}\nfn broken() {{ nothing() }}\n"));
    project.file("main.rhai", format!("{first}\r\nimport \"lab\" as lab;\r\nprint(lab::answer());\r\n"));
    project.file(
        "own_test.rhai",
        format!("{first}\nfn test_a() {{ assert_eq(1, 1); }}\nfn test_b() {{ assert_eq(1, 1); }}\n"),
    );
    assert_eq!(project.run(&["run", "own.rhai"]).ok(), "own\n");
    assert_eq!(project.run(&["run", "only.rhai"]).ok(), "");
    assert_eq!(project.run(&["run", "main.rhai"]).ok(), "42\n");
    assert!(project.run(&["test", "own_test.rhai"]).ok().ends_with("2 passed, 0 failed\n"));
    project.run(&["check", "own.rhai", "only.rhai"]).ok();
    project.run(&["plan", "own.rhai"]).ok();
    // Lines are those of the file.
    project.file("wrong.rhai", format!("{first}\n\nlet x = 1;\nnothing(x);\n"));
    for command in ["run", "check"] {
        let stderr = project.run(&[command, "wrong.rhai"]).ends(1).stderr;
        assert!(stderr.contains("--> wrong.rhai:4:1") && stderr.contains(" 4 | nothing(x);"), "{stderr}");
    }
    project.file("far.rhai", format!("{first}\nimport \"lab\" as lab;\nlab::broken();\n"));
    let stderr = project.run(&["run", "far.rhai"]).ends(1).stderr;
    assert!(stderr.contains("--> lab.rhai:3:") && stderr.contains("called at far.rhai:3:"), "{stderr}");
    // Elsewhere than at the beginning it is what it always was.
    project.file("late.rhai", format!("print(1);\n{first}\n"));
    project.run(&["run", "late.rhai"]).ends(1);
}

#[test]
fn a_script_in_another_encoding_is_told_where() {
    let project = project();
    project.file("a.rhai", b"print(1);\nprint(\"caf\xe9\");\n").file("b.rhai", "import \"a\" as a;");
    let stderr = project.run(&["run", "a.rhai"]).ends(1).stderr;
    assert!(
        stderr.contains("reading a.rhai: line 2 is not UTF-8 text") && stderr.contains("hint: save it as UTF-8"),
        "{stderr}"
    );
    let stderr = project.run(&["run", "b.rhai"]).ends(1).stderr;
    assert!(stderr.contains("a.rhai: line 2 is not UTF-8 text"), "{stderr}");
}

/// A shell leaves `~` as it is in a script and behind `--flag=`.
#[test]
fn a_tilde_is_the_home_folder() {
    let project = project();
    let home = Project::new();
    home.copy("examples/shakespeare-olmoe", "models/mine")
        .file("corpus.txt", "To be, or not to be, that is the question. ".repeat(9));
    home.file("ids.json", "[[5, 6, 7, 8]]")
        .file("bin/mine.rhai", "print(\"mine\");")
        .file("bin/a_test.rhai", "fn test_a() {}");
    let run = |words: &[&str]| -> Outcome {
        let mut command: Command = project.command(words);
        command.env("HOME", home.path("")).env_remove("XDG_CACHE_HOME");
        Outcome::of(command.output().unwrap())
    };
    project.file(
        "script.rhai",
        "let flags = args(#{ text: \"\" });
         let model = load_model(\"~/models/mine\");
         let path = if flags.text == \"\" { \"~/corpus.txt\" } else { flags.text };
         let tokens = load_tokens(#{ text: path, model: model, num_sequences: 1, sequence_length: 16 });
         print(tokens.ids[0].len());",
    );
    // Named in a script, it is outside of the project all the same.
    let refused = run(&["run", "script.rhai"]).ends(1);
    assert!(refused.stderr.contains("\"~/corpus.txt\" is outside of the project"), "{}", refused.stderr);
    assert_eq!(run(&["run", "--allow-read=~/", "script.rhai"]).ok(), "16\n");
    assert_eq!(run(&["run", "script.rhai", "--text=~/corpus.txt"]).ok(), "16\n");
    run(&["plan", "script.rhai", "--text=~/corpus.txt"]).ok();
    project.file("ids.rhai", "print(load_tokens(#{ ids: \"~/ids.json\" }).ids);");
    assert_eq!(run(&["run", "--allow-read=~", "ids.rhai"]).ok(), "[[5, 6, 7, 8]]\n");
    assert_eq!(run(&["run", "~/bin/mine.rhai"]).ok(), "mine\n");
    run(&["check", "~/bin/mine.rhai"]).ok();
    run(&["test", "~/bin"]).ok();
    let script = "let acts = load_model(\"~/models/mine\").extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }), #{
                      keep: \"full\", out: \"~/big\", checkpoint: \"~/checkpoints/mine\", checkpoint_layers: 1,
                  });
                  save_results(\"one\", #{ activations: acts, found: acts.detect_outliers() });";
    project.file("out.rhai", script);
    run(&["run", "out.rhai"]).ends(1);
    run(&["run", "--allow-write=~/", "out.rhai"]).ok();
    assert!(home.has("big/activations.safetensors"));
    std::fs::rename(project.path("results/one"), home.path("kept")).unwrap();
    run(&["rethreshold", "~/kept"]).ok();
    project.file("stored.rhai", "print(load_results(\"~/kept\").found.num_norms);");
    run(&["run", "stored.rhai"]).ok();
    run(&["doc", "--definitions=~/definitions"]).ok();
    assert!(!home.files("definitions").is_empty() && !project.has("~"));
}
