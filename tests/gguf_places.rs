//! Where GGUF files are: one in a folder, several, a model in parts, and repositories on the hub that have nothing else.

use serde_json::json;

use crate::fake_hub::{COMMIT, FAILED, Hub, Model};
use crate::gguf::{converted, fixture, project, small};
use crate::gguf_file::{Gguf, tokenizer};
use crate::oracle;
use crate::project::{FULL, Outcome, Project};

/// A model in so many files: the first has the metadata, and each of the tensors is in the next file after that of the one before it.
fn split(whole: &Gguf, count: usize) -> Vec<Gguf> {
    let mut parts = vec![Gguf { metadata: whole.metadata.clone(), tensors: Vec::new() }];
    parts.resize(count, Gguf::default());
    for (index, tensor) in whole.tensors.iter().enumerate() {
        parts[index % count].tensors.push(tensor.clone());
    }
    for (number, part) in parts.iter_mut().enumerate() {
        part.set("split.no", json!(number)).set("split.count", json!(count));
        part.set("split.tensors.count", json!(whole.tensors.len()));
    }
    parts
}

fn part_name(number: usize, count: usize) -> String {
    format!("model-{number:05}-of-{count:05}.gguf")
}

/// Rows in pairs, and gates and ups that alternate, lie in any of the parts.
#[test]
fn a_model_in_parts_gives_what_transformers_gives() {
    for (arch, name, count) in [("llama", "llama", 3), ("gpt-oss", "gpt_oss", 2)] {
        let (config, arrays) = fixture(name);
        let project = project(name);
        for (number, part) in split(&converted(arch, &config, &arrays, false), count).iter().enumerate() {
            project.file(&format!("model/{}", part_name(number + 1, count)), part.bytes());
        }
        oracle::check(&project.path("model"));
        // Whichever part is named, the model is meant.
        let last = part_name(count, count);
        let script = format!("let m = load_model(\"model/{last}\"); print(m.files.map(|file| file.name).to_json());");
        let names: Vec<String> = (1..=count).map(|number| part_name(number, count)).collect();
        assert_eq!(project.script(&script).json(), json!(names));
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let refuses = |change: &dyn Fn(&Project, Vec<Gguf>), message: &str| {
        let project = Project::new();
        let parts = split(&small(), 2);
        for (number, part) in parts.iter().enumerate() {
            project.file(&part_name(number + 1, 2), part.bytes());
        }
        change(&project, parts);
        project.refuses(&format!("load_model(\"{}\");", part_name(1, 2)), FAILED, message, "");
    };
    let second = part_name(2, 2);
    refuses(&|project, _| std::fs::remove_file(project.path(&second)).unwrap(), &second);
    refuses(
        &|project, parts| {
            project.file(&second, parts[0].bytes());
        },
        "by what it says it is part 1 of a model, and by its name part 2",
    );
    refuses(
        &|project, mut parts| {
            project.file(&second, parts[1].set("split.count", json!(3)).bytes());
        },
        "it is one of 3 parts of a model, and by its name one of 2",
    );
    refuses(
        &|project, mut parts| {
            parts[1].tensors.pop();
            project.file(&second, parts[1].bytes());
        },
        "tensors, and its parts have",
    );
    refuses(
        &|project, mut parts| {
            let twice = parts[0].tensors[0].clone();
            parts[1].tensors[0] = twice;
            project.file(&second, parts[1].bytes());
        },
        "is in the model twice",
    );
}

#[test]
fn of_several_models_in_a_folder_one_is_to_be_named() {
    let project = Project::new();
    for name in ["m/small-Q8_0.gguf", "m/small-BF16.gguf", "m/mmproj-F16.gguf"] {
        project.file(name, small().bytes());
    }
    project.refuses(
        "load_model(\"m\");",
        FAILED,
        "m: it has 2 models in GGUF files",
        "there are small-BF16.gguf, small-Q8_0.gguf: load_model(\"m/small-BF16.gguf\")",
    );
    assert_eq!(project.script("print(load_model(\"m/small-Q8_0.gguf\").num_layers);").ok(), "4\n");
}

#[test]
fn the_only_model_of_a_folder_is_read_and_told() {
    let project = Project::new();
    project.file("m/small.gguf", small().bytes()).file("m/mmproj-F16.gguf", b"GGUF\x03\0\0\0");
    let outcome = project.script("print(load_model(\"m\").num_layers);");
    assert!(outcome.stderr.contains("m: small.gguf is read, the only model in it"), "{}", outcome.stderr);
    assert_eq!(outcome.ok(), "4\n");
    let named = project.script("print(load_model(\"m/small.gguf\").num_layers);");
    assert!(!named.stderr.contains("the only model"), "{}", named.stderr);
}

/// With a config.json beside it and without, in one file and in parts.
#[test]
fn the_only_gguf_file_of_a_repository_is_read_and_told() {
    let origin = Project::new();
    let mut file = small();
    tokenizer(&mut file);
    origin.file("plain/README.md", "# GGUF").file("plain/small-Q8_0.gguf", file.bytes());
    origin.file("plain/mmproj-F16.gguf", b"GGUF\x03\0\0\0");
    origin.file("beside/config.json", "{\"model_type\": \"llama\"}");
    for (number, part) in split(&file, 2).iter().enumerate() {
        origin.file(&format!("beside/small-0000{}-of-00002.gguf", number + 1), part.bytes());
    }
    origin.file("adapter/adapter_config.json", "{}").file("adapter/adapter.gguf", file.bytes());
    let mut hub = Hub::start();
    for name in ["plain", "beside", "adapter"] {
        hub = hub.with(&format!("lab/{name}"), Model::Folder(origin.path(name)));
    }
    let project = Project::new();
    for options in [", #{ stream: true }", ""] {
        for (id, read) in [("lab/plain", "small-Q8_0.gguf"), ("lab/beside", "small-00001-of-00002.gguf")] {
            let outcome = hub.run(&project, &format!("print(load_model(\"{id}\"{options}).num_layers);"), None);
            let note = format!("model \"{id}\": {read} is read, the only model in it");
            assert!(outcome.stderr.contains(&note), "{}", outcome.stderr);
            assert_eq!(outcome.ok(), "4\n");
        }
        let adapter = format!("load_model(\"lab/adapter\"{options});");
        hub.refuses(&adapter, None, "an adapter (adapter_config.json)", "");
    }
    // What was downloaded needs no hub.
    for id in ["lab/plain", "lab/beside"] {
        let mut command = hub.command(&project, &format!("print(load_model(\"{id}\").num_layers);"));
        assert_eq!(Outcome::of(command.env("HF_HUB_OFFLINE", "1").output().unwrap()).ok(), "4\n");
    }
}

#[test]
fn a_pointer_in_place_of_a_gguf_file_is_told() {
    let project = Project::new();
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 98362432\n", "0".repeat(64));
    project.file("m/small.gguf", pointer);
    for place in ["m", "m/small.gguf"] {
        let script = format!("load_model(\"{place}\");");
        project.refuses(
            &script,
            FAILED,
            "m/small.gguf: a Git LFS pointer to the file of 98362432 bytes",
            "git lfs pull",
        );
    }
}

/// A hub that has a model in two types, one of them in parts.
fn hub() -> (Project, Hub) {
    let origin = Project::new();
    let mut file = small();
    tokenizer(&mut file);
    origin.file("gguf/README.md", "# GGUF").file("gguf/small-BF16.gguf", file.bytes());
    origin.file("gguf/mmproj-F16.gguf", b"GGUF\x03\0\0\0");
    for (number, part) in split(&file, 2).iter().enumerate() {
        origin.file(&format!("gguf/Q8_0/small-Q8_0-0000{}-of-00002.gguf", number + 1), part.bytes());
    }
    let hub = Hub::start().with("lab/gguf", Model::Folder(origin.path("gguf")));
    (origin, hub)
}

#[test]
fn a_repository_of_gguf_files_says_what_to_name() {
    let (_origin, hub) = hub();
    for options in ["", ", #{ stream: true }"] {
        hub.refuses(
            &format!("load_model(\"lab/gguf\"{options});"),
            None,
            "each a GGUF file of llama.cpp",
            "load_model(\"lab/gguf:Q8_0\")",
        );
        hub.refuses(
            &format!("load_model(\"lab/gguf:Q5_0\"{options});"),
            None,
            "model \"lab/gguf\": it has no GGUF file \"Q5_0\"",
            "there are Q8_0/small-Q8_0-00001-of-00002.gguf, small-BF16.gguf",
        );
    }
}

/// By type or by name, downloaded or by ranges, a model of the hub gives what its file gives here, and its tokenizer comes with it.
#[test]
fn a_gguf_file_of_the_hub_gives_what_it_gives_here() {
    let (origin, hub) = hub();
    let analysis = |id: &str, options: &str, out: &str| {
        format!(
            "let m = load_model(\"{id}\"{options});
             let tokens = load_tokens(#{{ text: \"text.txt\", model: m, num_sequences: 2, sequence_length: 6 }});
             m.extract_layernorms(tokens, #{{ keep: \"full\", out: \"{out}\" }});
             print(m.files.map(|file| file.name).to_json());"
        )
    };
    let project = Project::new();
    project.file("text.txt", "the cat sat on the mat").file("here.gguf", origin.bytes("gguf/small-BF16.gguf"));
    hub.run(&project, &analysis("here.gguf", "", "results/here"), None).ok();
    let here = project.bytes(&format!("results/here/{FULL}"));
    let parts: Vec<String> = (1..=2).map(|number| format!("Q8_0/small-Q8_0-0000{number}-of-00002.gguf")).collect();
    for (index, (id, options, files)) in [
        ("lab/gguf:BF16", ", #{ stream: true }", json!(["small-BF16.gguf"])),
        ("lab/gguf:bf16", "", json!(["small-BF16.gguf"])),
        ("lab/gguf/small-BF16.gguf", "", json!(["small-BF16.gguf"])),
        ("lab/gguf:Q8_0", ", #{ stream: true }", json!(parts)),
        ("lab/gguf:Q8_0", ", #{ revision: \"main\" }", json!(parts)),
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("results/{index}");
        assert_eq!(hub.run(&project, &analysis(id, options, &out), None).json(), files, "{id}{options}");
        assert!(project.bytes(&format!("{out}/{FULL}")) == here, "{id}{options} differs");
    }
    // What was downloaded needs no hub.
    hub.asked();
    let offline = |id: &str| {
        let mut command = hub.command(&project, &format!("print(load_model(\"{id}\").revision);"));
        Outcome::of(command.env("HF_HUB_OFFLINE", "1").output().unwrap())
    };
    for id in ["lab/gguf:BF16", "lab/gguf:Q8_0"] {
        assert_eq!(offline(id).ok(), format!("{COMMIT}\n"));
    }
    let missing = offline("lab/gguf:Q4_0").ends(FAILED);
    assert!(missing.stderr.contains("HF_HUB_OFFLINE is set"), "{}", missing.stderr);
    assert!(hub.asked().is_empty());
}

#[test]
fn a_misspelt_path_of_a_gguf_file_is_told_as_such() {
    let (_origin, hub) = hub();
    let project = Project::new();
    project.file("models/m/small.gguf", small().bytes());
    let outcome = hub.run(&project, "load_model(\"models/m/smal.gguf\");", None).ends(FAILED);
    assert!(outcome.stderr.contains("no such folder"), "{}", outcome.stderr);
    let other = hub.run(&project, "load_model(\"small.gguf\");", None);
    assert!(other.ends(FAILED).stderr.contains("no such folder, and not a hub id"));
}
