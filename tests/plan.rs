//! Tests of `outlier plan`: it tells what would be done without doing it, and afterwards compares
//! the plan with the run.

use std::time::Instant;

use crate::fake_hub::{Hub, Model};
use crate::fake_runpod::FakeRunPod;
use crate::project::{Outcome, Project, repository};
use crate::runpod::command;

const SWEEP: &[&str] = &["scripts/sweep.rhai", "--miniature", "--num-sequences", "2", "--sequence-length", "64"];

fn project() -> Project {
    let project = Project::new();
    project.copy("scripts", "scripts");
    project
}

#[test]
fn nothing_is_done() {
    let project = project();
    let text = project.run(&[&["plan"], SWEEP].concat()).ok();
    for part in
        ["Plan of scripts/sweep.rhai --miniature", "nothing was done", "miniature gpt_oss_large", "Total: 7 passes"]
    {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(text.contains("Would write results/miniature_olmoe_1b_7b/ (6 files)"), "{text}");
    assert!(text.contains("Would write logs/ (7 files)"), "{text}");
    let left = project.files("results");
    assert!(left.iter().all(|file| file.starts_with(".plans/sweep-")) && left.len() == 1, "{left:?}");
    assert_eq!(project.files("logs"), [""; 0]);
}

#[test]
fn a_plan_that_cannot_be_kept_is_printed_all_the_same() {
    let project = Project::new();
    let script = project.file("script.rhai", "print(\"planned\");").path("script.rhai").display().to_string();
    // Nobody writes there, whoever it is.
    let outcome = Outcome::of(project.command(&["plan", &script]).current_dir("/proc").output().unwrap()).ends(0);
    assert!(outcome.stdout.contains("nothing was done"), "{}", outcome.stdout);
    let told: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("the plan is not kept")).collect();
    assert!(told.len() == 1 && !outcome.stderr.contains("error:"), "{}", outcome.stderr);
}

#[test]
fn the_same_plan_twice() {
    let (one, other) = (project(), project());
    let words = [&["plan"], SWEEP].concat();
    let first = one.run(&words).ok();
    assert_eq!(first, one.run(&words).ok());
    assert_eq!(first, other.run(&words).ok());
}

#[test]
fn machines_have_prices() {
    let fake = FakeRunPod::start();
    let project = project();
    let words = [&["plan"], SWEEP, &["--provider", "runpod", "--gpu", "A40", "--max-cost", "20"]].concat();
    let text = Outcome::of(command(&project, &fake, &words).output().unwrap()).ok();
    assert_eq!(text.matches("NVIDIA A40").count(), 14, "a pass and a machine each\n{text}");
    assert!(text.contains("0.49") && text.contains("Would spend at most $20.00"), "{text}");
    let total = text.lines().find(|line| line.starts_with("Total: ")).unwrap();
    // Seven starts of 3 minutes at $0.49 an hour, and a little work.
    let dollars: f64 = total.rsplit_once('$').unwrap().1.parse().unwrap();
    assert!((0.17..0.19).contains(&dollars), "{total}");
    assert_eq!(fake.created(), 0, "nothing was asked for");
    assert!(total.contains(" min when machines work at the same time)"), "{total}");
    // Without an account the price is not known, and the plan says so.
    let text = project.run(&words).ok();
    assert!(text.contains("$ not known") && text.contains("Note: runpod: prices are not known"), "{text}");
}

#[test]
fn without_machines_a_plan_has_no_price() {
    let text = project().run(&[&["plan"], SWEEP, &["--models", "01", "02"]].concat()).ok();
    let total = text.lines().find(|line| line.starts_with("Total: ")).unwrap();
    assert!(total.starts_with("Total: 2 passes, ") && total.ends_with(", less than 0.1 min"), "{total}");
}

#[test]
fn planned_and_actual_side_by_side() {
    let project = project();
    let words = [SWEEP, &["--models", "01", "02"]].concat();
    let plan = |project: &Project| project.run(&[&["plan"], &words[..]].concat()).ok();
    let before = plan(&project);
    assert!(before.contains("assumed rates") && !before.contains("Last time"), "{before}");
    let outcome = project.run(&[&["run"], &words[..]].concat()).ends(0);
    assert!(
        outcome.stderr.contains("planned → actual") && outcome.stderr.contains("miniature olmoe"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains('$'), "nothing was paid for: {}", outcome.stderr);
    let mut forced = words.clone();
    forced.push("--force");
    let after = project.run(&[&["plan"], &forced[..]].concat()).ok();
    assert!(after.contains(" measured "), "what was measured is used\n{after}");
    // What is stored is not made again.
    let done = plan(&project);
    let stored = "Nothing needs to be computed: what it asks for is stored in ";
    assert!(done.contains(stored) && done.contains("results/miniature_olmoe") && !done.contains("Total"), "{done}");
    let json = project.files("results/.plans");
    assert_eq!(json.len(), 2, "{json:?}");
}

#[test]
fn a_dry_run_of_any_script_is_a_plan() {
    let project = project();
    project.copy("examples", "examples");
    for words in [["run", "--dry-run", "examples/01_hello.rhai"], ["run", "examples/01_hello.rhai", "--dry-run"]] {
        let text = project.run(&words).ok();
        assert!(text.contains("nothing was done") && text.contains("miniature olmoe"), "{text}");
    }
    assert!(!project.has("results/miniature_models"));
    let broken =
        project.file("broken.rhai", "let made = miniature_model(\"olmo\");").run(&["plan", "broken.rhai"]).ends(3);
    assert!(broken.stderr.contains("did you mean `olmoe`?"), "{}", broken.stderr);
}

#[test]
fn effects_are_told_and_not_done() {
    let project = Project::new();
    let script = r#"
        let gpu = provision_gpu(#{ provider: "ssh", host: "user@nowhere.invalid", task: "t" });
        gpu.sync(#{ up: "script.rhai", down: "out" });
        gpu.run_command("make everything");
        gpu.terminate();
        sleep(100000);
        print("not shown");
    "#;
    project.file("script.rhai", script);
    let text = project.run(&["plan", "script.rhai"]).ok();
    for part in
        ["Would sync with ssh-1: script.rhai up, out down", "Would on ssh-1: make everything", "Would write out"]
    {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains("not shown"), "{text}");
}

/// Name and config.json of the models of the sweep, as the engine's own test has them.
fn released() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(repository().join("src/spec/arch/released.rs")).unwrap();
    let entry = |part: &str| {
        let (name, rest) = part.split_once('"')?;
        let config = rest.split_once("r#\"")?.1.split_once("\"#")?.0;
        Some((name.to_string(), config.to_string()))
    };
    text.split("name: \"").skip(1).filter_map(entry).collect()
}

/// The sweep as a user would plan it: models on the hub and machines of RunPod, both simulated on
/// this machine. No weights are requested.
#[test]
fn the_sweep_on_rented_machines() {
    let (fake, project) = (FakeRunPod::start(), project());
    let hub = Hub::start();
    for (name, config) in released() {
        project.file(&format!("released/{name}/config.json"), config);
        let scripts: Vec<String> = ["01_olmoe_1b_7b", "02_gpt_oss_20b", "03_qwen3_30b", "04_mixtral_8x7b"]
            .into_iter()
            .chain(["05_qwen3_next_80b", "06_glm_45_air", "07_gpt_oss_120b"])
            .map(|script| std::fs::read_to_string(repository().join(format!("scripts/{script}.rhai"))).unwrap())
            .collect();
        let ids = scripts.iter().filter_map(|text| text.split_once("model: \"")?.1.split_once('"')).map(|(id, _)| id);
        let id = ids.into_iter().find(|id| id.split('/').nth(1).is_some_and(|last| last.starts_with(&name))).unwrap();
        hub.set(id, Model::Folder(project.path(&format!("released/{name}"))));
    }
    let words = [
        "plan",
        "scripts/sweep.rhai",
        "--text",
        "corpus.txt",
        "--provider",
        "runpod",
        "--gpu",
        "A40",
        "--max-cost",
        "25",
    ];
    let start = Instant::now();
    let mut planned = command(&project, &fake, &words);
    let text = Outcome::of(planned.env("HF_ENDPOINT", &hub.address).output().unwrap()).ok();
    println!("{text}{:.1} s", start.elapsed().as_secs_f64());
    assert!(text.contains("Total: 7 passes") && !text.contains("not known"), "{text}");
    assert_eq!(text.matches("NVIDIA A40").count(), 14, "a pass and a machine each\n{text}");
    assert_eq!(fake.created(), 0, "nothing was asked for");
    let asked = hub.asked();
    assert!(asked.iter().all(|(method, file)| method == "HEAD" || !file.ends_with(".safetensors")), "{asked:?}");
}

/// The whole sweep is planned from the configs alone, without weights.
#[test]
fn the_seven_models_from_their_configs() {
    let (project, hub) = (Project::new(), Hub::start());
    let mut list = String::new();
    for (name, config) in released() {
        project.file(&format!("released/{name}/config.json"), config);
        hub.set(&format!("owner/{name}"), Model::Folder(project.path(&format!("released/{name}"))));
        list += &format!("\"owner/{name}\", ");
    }
    let script = format!(
        "for id in [{list}] {{
            let model = load_model(id, #{{ dtype: \"bf16\" }});
            let tokens = load_tokens(#{{ text: \"corpus.txt\", model: model, num_sequences: 16, sequence_length: 2048 }});
            let acts = model.extract_layernorms(tokens);
            save_results(id.split(\"/\")[1], #{{ activations: acts, found: acts.detect_outliers(), intervals: acts.bootstrap_ci() }});
        }}"
    );
    project.file("seven.rhai", script);
    let mut planned = project.command(&["plan", "seven.rhai"]);
    let outcome = Outcome::of(planned.env("HF_ENDPOINT", &hub.address).output().unwrap()).ends(0);
    let text = &outcome.stdout;
    assert!(
        text.contains("Total: 7 passes") && text.contains("Note: corpus.txt: there is no such text here"),
        "{text}"
    );
    // As in docs/models.md.
    assert!(text.contains("12.18 GB") && text.contains("208.00 GB"), "{text}");
    assert!(outcome.stderr.contains("no weights are there; sizes are those of a usual release"), "{}", outcome.stderr);
}

#[test]
fn thresholds_that_no_pass_accepts_are_refused_by_a_plan() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    let script = "let model = load_model(\"model\");
                  model.extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }), #{ thresholds: [-1.0] });";
    project.file("script.rhai", script);
    for words in [["plan", "script.rhai"], ["run", "script.rhai"]] {
        let outcome = project.run(&words).ends(1);
        assert!(outcome.stderr.contains("thresholds: -1 is not a positive number"), "{}", outcome.stderr);
    }
}

#[test]
fn a_plan_of_nothing_has_no_total() {
    let project = Project::new();
    project.file("empty.rhai", "print(\"x\");").file("wrong.rhai", "load_model(\"no/where/at_all\");");
    let empty = project.run(&["plan", "empty.rhai"]).ok();
    assert_eq!(empty, "Plan of empty.rhai: nothing was done.\nNo pass through a model, and no machine.\n");
    let wrong = project.run(&["plan", "wrong.rhai"]).ends(3);
    assert_eq!(wrong.stdout, "Plan of wrong.rhai: nothing was done.\n");
    assert_eq!(wrong.stderr.matches("no such folder").count(), 1, "{}", wrong.stderr);
}

#[test]
fn models_that_cannot_be_loaded_are_in_the_plan() {
    let project = project();
    let words = ["plan", "scripts/sweep.rhai", "--models", "1", "2", "--text", "corpus.txt"];
    let outcome = project.run(&words).ends(3);
    for name in ["olmoe_1b_7b", "gpt_oss_20b"] {
        let told =
            |line: &&str| line.starts_with("Would fail: ") && line.contains(name) && line.contains("from the hub");
        assert!(outcome.stdout.lines().any(|line| told(&line)), "{name} in\n{}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("Total"), "{}", outcome.stdout);
    // The hub does not answer: one cause, told once.
    assert_eq!(outcome.stdout.matches("from the hub").count(), 1, "{}", outcome.stdout);
    // Whoever catches the error says nothing: the plan does, and what would run is planned.
    project.copy("examples/shakespeare-olmoe", "model").file(
        "caught.rhai",
        "for id in [\"no/where/at_all\", \"model\"] {
            try { load_model(id).extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] })); } catch (error) { }
        }",
    );
    let text = project.run(&["plan", "caught.rhai"]).ok();
    assert!(
        text.contains("Would fail: model \"no/where/at_all\": no such folder") && text.contains("Total: 1 pass,"),
        "{text}"
    );
    // What failed before an error ended the script has no place of its own there.
    project
        .file("both.rhai", "try { load_model(\"no/where/at_all\"); } catch (error) { }\nload_model(\"none/at/all\");");
    let outcome = project.run(&["plan", "both.rhai"]).ends(3);
    assert_eq!(outcome.stdout.matches("Would fail").count(), 1, "{}", outcome.stdout);
}

/// A folder of configs may be for a machine that has the weights, but a repository without weights
/// has none for anybody.
#[test]
fn a_repository_without_weights_is_in_the_plan_as_what_would_fail() {
    let (project, hub) = (Project::new(), Hub::start());
    project.copy("tests/fixtures/llama/config.json", "bare/config.json");
    hub.set("lab/bare", Model::Folder(project.path("bare")));
    project.file("bare.rhai", "load_model(\"lab/bare\").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }));");
    let outcome =
        |words: &[&str]| Outcome::of(project.command(words).env("HF_ENDPOINT", &hub.address).output().unwrap());
    let said = outcome(&["run", "bare.rhai"]).ends(3).stderr;
    assert!(said.contains("lab/bare") && said.contains("model.safetensors"), "{said}");
    let text = outcome(&["plan", "bare.rhai"]).ok();
    let told = text.lines().filter(|line| line.starts_with("Would fail: loading model \"lab/bare\"")).count();
    assert_eq!(told, 1, "{text}");
    assert!(text.contains("neither model.safetensors nor model.safetensors.index.json"), "{text}");
}

#[test]
fn checkpoints_that_would_not_load_are_not_planned() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "whole").copy("examples/shakespeare-olmoe", "cut");
    let weights = project.bytes("cut/model.safetensors");
    project.file("cut/model.safetensors", &weights[..weights.len() / 2]);
    for file in ["config.json", "tokenizer.json"] {
        project.copy(&format!("examples/shakespeare-olmoe/{file}"), &format!("empty/{file}"));
        project.copy(&format!("examples/shakespeare-olmoe/{file}"), &format!("half/{file}"));
        project.copy(&format!("examples/shakespeare-olmoe/{file}"), &format!("index/{file}"));
    }
    let index = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors"}}"#;
    project.file("half/model.safetensors.index.json", index).file("index/model.safetensors.index.json", index);
    project.copy("examples/shakespeare-olmoe/model.safetensors", "half/model-00001-of-00002.safetensors");
    for (folder, said) in [
        ("cut", "the header describes"),
        ("empty", "neither model.safetensors nor model.safetensors.index.json"),
        ("half", "model-00002-of-00002.safetensors: No such file or directory"),
        ("index", "names 2 files of weights, and none of them is there"),
    ] {
        let script = format!("load_model(\"{folder}\").extract_layernorms(load_tokens(#{{ ids: [[1, 2, 3]] }}));");
        project.file("script.rhai", script);
        let messages = ["plan", "run"].map(|command| {
            let outcome = project.run(&[command, "script.rhai"]).ends(3);
            assert!(!outcome.stdout.contains("Total"), "{folder}: {}", outcome.stdout);
            let error = outcome.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default().to_string();
            assert!(error.contains(said), "{folder}, {command}: {}", outcome.stderr);
            error
        });
        assert!(messages[0].contains(said) && messages[1].contains(said), "{messages:?}");
    }
    project.file("script.rhai", "load_model(\"whole\").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }));");
    assert!(project.run(&["plan", "script.rhai"]).ok().contains("Total: 1 pass"));
}

/// A tokenizer with as many entries as those of released models.
fn large_tokenizer() -> String {
    let text = std::fs::read_to_string(repository().join("examples/shakespeare-olmoe/tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    let known = tokenizer["model"]["vocab"].as_object().unwrap().len();
    let letters: Vec<String> = ('A'..='Z').chain('a'..='z').map(String::from).collect();
    let (mut pieces, mut merges) = (letters.clone(), Vec::new());
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    // Each is Z and one that is there already: no text has them.
    for i in 0.. {
        if vocab.len() >= 60_000 {
            break;
        }
        let (begin, end) = (pieces[i / letters.len()].clone(), letters[i % letters.len()].clone());
        let begin = if i < letters.len() { "Z".to_string() } else { begin };
        let piece = format!("{begin}{end}");
        if begin.starts_with('Z') && !vocab.contains_key(&piece) {
            merges.push(serde_json::json!([begin, end]));
            vocab.insert(piece.clone(), (known + merges.len()).into());
            pieces.push(piece);
        }
    }
    tokenizer["model"]["merges"].as_array_mut().unwrap().extend(merges);
    tokenizer.to_string()
}

/// The planned and the measured bytes of each pass.
fn memory(project: &Project, words: &[&str]) -> Vec<(f64, f64)> {
    let plan = || -> serde_json::Value {
        let files = project.files("results/.plans");
        assert_eq!(files.len(), 1, "{files:?}");
        project.json(&format!("results/.plans/{}", files[0]))
    };
    project.run(&[&["plan"], words].concat()).ok();
    project.run(&[&["run"], words].concat()).ok();
    let plan = plan();
    let passes = plan["passes"].as_array().unwrap().iter();
    let bytes =
        |pass: &serde_json::Value| Some((pass["memory_bytes"].as_f64()?, pass["actual"]["memory_bytes"].as_f64()?));
    passes.map(|pass| bytes(pass).expect("it was measured")).collect()
}

#[test]
fn no_pass_takes_more_memory_than_planned() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let sweep = project();
    let mut all =
        memory(&sweep, &["scripts/sweep.rhai", "--miniature", "--num-sequences", "8", "--sequence-length", "128"]);
    assert_eq!(all.len(), 7);
    let trained = Project::new();
    trained.copy("examples/shakespeare-olmoe", "examples/shakespeare-olmoe").copy("scripts", "scripts");
    all.extend(memory(&trained, &["scripts/quickstart.rhai"]));
    // What a tokenizer leaves behind is no part of a pass.
    let large = Project::new();
    large.copy("examples/shakespeare-olmoe", "model").file("model/tokenizer.json", large_tokenizer());
    large.file("text.txt", "to be or not to be, that is the question\n".repeat(200));
    let script = "let model = load_model(\"model\");
        let tokens = load_tokens(#{ text: \"text.txt\", model: model, num_sequences: 4, sequence_length: 64 });
        let acts = model.extract_layernorms(tokens);";
    all.extend(memory(large.file("script.rhai", script), &["script.rhai"]));
    println!("{all:?}");
    for (planned, measured) in &all {
        assert!(measured <= planned, "planned {planned}, measured {measured}: {all:?}");
        // And it is a plan: nobody takes a machine of twice the size for it. What the program itself takes is planned for the
        // largest build, and another may do with half of it.
        assert!(*planned < 2.0 * measured + 10e6, "planned {planned}, measured {measured}: {all:?}");
    }
}

/// A dry run took two norms per layer for granted. Layers of GPT-J and Falcon have one norm for both sublayers, those of
/// Nemotron-H have one sublayer each, and a script that reads `norms` went another way in the plan than in the run.
#[test]
fn a_planned_record_has_the_norms_of_the_model() {
    // The first three have one norm in each layer.
    for (name, norms) in [("gptj", 3), ("falcon", 4), ("nemotron_h", 7), ("llama", 8)] {
        let project = Project::new();
        let fixture = repository().join("tests/fixtures").join(name);
        let extract = format!(
            "let tokens = load_tokens(#{{ ids: [[1, 2, 3]] }});
             let norms = load_model(\"{}\").extract_layernorms(tokens).norms;",
            fixture.display()
        );
        let measured =
            project.file("run.rhai", format!("{extract} print(norms.len());")).run(&["run", "run.rhai"]).ok();
        let measured: usize = measured.trim().parse().unwrap();
        assert_eq!(measured, norms, "{name}");
        let check = format!("{extract} if norms.len() != {measured} {{ throw `${{norms.len()}} norms are planned`; }}");
        project.file("plan.rhai", check).run(&["plan", "plan.rhai"]).ok();
    }
}

/// A plan uses measured values if they are larger.
#[test]
fn measured_memory_is_planned_with() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project.file("script.rhai", "load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3]] }));");
    project.run(&["plan", "script.rhai"]).ok();
    project.run(&["run", "script.rhai"]).ok();
    let file = format!("results/.plans/{}", project.files("results/.plans")[0]);
    let mut plan = project.json(&file);
    plan["passes"][0]["actual"]["memory_bytes"] = 7_000_000_000u64.into();
    project.file(&file, plan.to_string());
    let text = project.run(&["plan", "script.rhai"]).ok();
    assert!(text.contains("about 7.00 GB of memory"), "{text}");
}

/// The needs of the models of the sweep in docs/models.md are those that scripts/models.rhai
/// computes from their configs.
#[test]
fn the_table_of_models_is_what_its_script_computes() {
    let page = std::fs::read_to_string(repository().join("docs/models.md")).unwrap();
    let (_, table) = page.split_once("## What the models of the sweep need").unwrap();
    let (table, _) = table.split_once("\n`outlier run scripts/models.rhai`").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").map(|cell| cell.trim_end_matches('`')).collect())
        .collect();
    let project = Project::new();
    project.copy("scripts/models.rhai", "scripts/models.rhai");
    let called = |id: &str| id.split('/').nth(1).unwrap().to_string();
    let configs = released();
    for row in &rows {
        let name = called(row[0]);
        let (_, config) = configs.iter().find(|(released, _)| name.starts_with(released.as_str())).unwrap();
        project.file(&format!("configs/{name}/config.json"), config);
    }
    let text = project.run(&["run", "scripts/models.rhai", "--configs", "configs"]).ok();
    for row in &rows {
        let printed = text.lines().find(|line| line.contains(&called(row[0]))).unwrap();
        let cells: Vec<&str> = printed.trim_matches('│').split('┆').map(str::trim).collect();
        let [_, parameters, download, read, memory, layers, hidden, experts, _, weights] = cells[..] else {
            panic!("{printed}")
        };
        let experts = experts.trim_end_matches(" per token");
        let [of_model @ .., expected] = &row[1..] else { panic!("{row:?}") };
        assert_eq!(of_model, [layers, hidden, experts, parameters, download, read, weights], "{printed}");
        // How operands are laid out depends on the processor.
        let gigabytes = |cell: &str| cell.trim_end_matches(" GB").parse::<f64>().unwrap();
        assert!((gigabytes(memory) / gigabytes(expected) - 1.0).abs() < 0.01, "{expected}: {printed}");
    }
    assert_eq!(rows.len(), 7);
}
