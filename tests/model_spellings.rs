//! Tests of valid models with unusual spellings or names: they are read as transformers reads them,
//! or the message says what is different.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint;
use crate::fake_hub::{FAILED, Hub, Model};
use crate::project::Project;

const INDEX: &str = "model/model.safetensors.index.json";
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const ANALYSIS: &str = "print(load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[1, 2, 3, 4, 5, 6]] }))\
                        .detect_outliers(#{ magnitude_threshold: 3.0 }).to_json());";

fn llama() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    project
}

/// Names of the two files in an index that calls them so.
fn indexed(project: &Project, name: impl Fn(&str) -> String) {
    let mut index = project.json(INDEX);
    for file in index["weight_map"].as_object_mut().unwrap().values_mut() {
        *file = Value::String(name(file.as_str().unwrap()));
    }
    project.file(INDEX, index.to_string());
}

fn moved(project: &Project, folder: &str) {
    for shard in SHARDS {
        let to = project.path(&format!("model/{folder}/{shard}"));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::rename(project.path(&format!("model/{shard}")), to).unwrap();
    }
}

#[test]
fn an_index_may_name_files_of_its_folder_by_any_path_within() {
    let expected = llama().script(ANALYSIS).ok();
    for (folder, prefix) in [(".", "./"), ("weights", "weights/"), ("weights/bf16", "./weights//bf16/")] {
        let project = llama();
        moved(&project, folder);
        indexed(&project, |file| format!("{prefix}{file}"));
        assert_eq!(project.script(ANALYSIS).ok(), expected, "{prefix}");
        let hub = Hub::start().with("lab/model", Model::Folder(project.path("model")));
        let (elsewhere, script) = (Project::new(), ANALYSIS.replace("\"model\"", "\"lab/model\""));
        assert_eq!(hub.run(&elsewhere, &script, None).ok(), expected, "{prefix} downloaded");
        // From the cache, too.
        assert_eq!(elsewhere.script(&script).ok(), expected, "{prefix} cached");
        let streamed = script.replace("\"lab/model\"", "\"lab/model\", #{ stream: true }");
        assert_eq!(hub.run(&Project::new(), &streamed, None).ok(), expected, "{prefix} streamed");
    }
}

#[test]
pub fn an_index_that_leads_out_of_its_folder_is_told_so() {
    for (prefix, what) in [
        ("../", "leads out of the folder of the index"),
        ("weights/../", "leads out of the folder of the index"),
        ("/tmp/", "is not below the folder of the index"),
        ("weights\\", "is no name of a file in the folder of the index"),
    ] {
        let project = llama();
        indexed(&project, |file| format!("{prefix}{file}"));
        let message = format!("`{prefix}{}` is not a file of this model: it {what}", SHARDS[0]);
        project.refuses(ANALYSIS, FAILED, &message, "correct `weight_map`");
    }
}

#[test]
fn a_file_in_place_of_a_folder_is_no_question_to_the_hub() {
    let project = llama();
    let hub = Hub::start();
    project.file("notes", "about models").copy("tests/fixtures/llama/config.json", "config.json");
    for (path, folder) in
        [("model/config.json", "model"), ("config.json", "."), (INDEX, "model"), ("./notes", "."), ("notes", ".")]
    {
        for question in ["load_model", "estimate_vram"] {
            let outcome = hub.run(&project, &format!("{question}(\"{path}\");"), None).ends(FAILED);
            let message = format!("model \"{path}\": a file, not the folder of a model");
            assert!(outcome.stderr.contains(&message), "{}", outcome.stderr);
            let hint = format!("hint: give the folder it is in, with config.json: load_model(\"{folder}\")");
            assert!(outcome.stderr.contains(&hint), "{}", outcome.stderr);
        }
    }
    assert!(hub.asked().is_empty());
}

fn with_setting(before: &str, after: &str) -> Project {
    let project = llama();
    let config = project.text("model/config.json");
    assert!(config.contains(before), "{before}");
    project.file("model/config.json", config.replace(before, after));
    project
}

#[test]
fn floats_that_are_no_numbers_are_named_where_they_have_an_effect() {
    let expected = llama().script(ANALYSIS).ok();
    for after in
        ["\"attention_dropout\": -Infinity", "\"attention_dropout\": NaN", "\"initializer_range\": [Infinity, NaN]"]
    {
        assert_eq!(with_setting("\"attention_dropout\": 0.0", after).script(ANALYSIS).ok(), expected, "{after}");
    }
    for (before, after, message) in [
        ("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": NaN", "`rms_norm_eps` is NaN, which is no number that JSON has"),
        ("\"rope_theta\": 500000.0", "\"rope_theta\": Infinity", "`rope_theta` is Infinity, which is no number"),
        ("\"factor\": 8.0", "\"factor\": -Infinity", "`rope_scaling.factor` is -Infinity, which is no number"),
        ("\"mlp_bias\": false", "\"mlp_bias\": NaN", "`mlp_bias` is NaN, which is no number"),
        ("\"mlp_bias\": false", "\"mlp_biaz\": NaN", "`mlp_biaz`: NaN, which is no number"),
    ] {
        with_setting(before, after).refuses(ANALYSIS, FAILED, message, "");
    }
    // What stands in a text, and what is no JSON at all, stays what it is.
    with_setting("\"model_type\": \"llama\"", "\"model_type\": \"NaN\"").refuses(
        ANALYSIS,
        FAILED,
        "model_type \"NaN\"",
        "",
    );
    with_setting("\"rope_theta\": 500000.0", "\"rope_theta\": nan").refuses(ANALYSIS, FAILED, "not valid JSON", "");
}

/// Writes the tensors of a file under other names.
fn renamed(path: &Path, name: impl Fn(&str) -> String) {
    let arrays = checkpoint::read(path).into_iter().map(|(old, array)| (name(&old), array)).collect();
    checkpoint::write(path, &arrays);
}

#[test]
fn tensors_that_a_wrapper_has_renamed_are_told_with_what_it_has_added() {
    for prefix in ["module.", "_orig_mod.", "_orig_mod.module.", "base_model.model."] {
        let project = llama();
        for shard in SHARDS {
            renamed(&project.path(&format!("model/{shard}")), |name| format!("{prefix}{name}"));
        }
        let message =
            format!("tensor `model.embed_tokens.weight` is missing: all names in the files begin with `{prefix}`");
        project.refuses(ANALYSIS, FAILED, &message, &format!("k.removeprefix(\"{prefix}\")"));
        project.refuses("estimate_vram(\"model\");", FAILED, &message, "save_file(");
    }
    // A prefix that is doubled is taken off, as in transformers.
    let project = llama();
    for shard in SHARDS {
        renamed(&project.path(&format!("model/{shard}")), |name| format!("model.{name}"));
    }
    assert_eq!(project.script(ANALYSIS).ok(), llama().script(ANALYSIS).ok());
    let project = llama();
    for shard in SHARDS {
        renamed(&project.path(&format!("model/{shard}")), |name| name.replacen("mlp.", "_orig_mod.mlp.", 1));
    }
    project.refuses(
        ANALYSIS,
        FAILED,
        "names in the files have `_orig_mod.` in them",
        "k.replace(\"_orig_mod.\", \"\")",
    );
    let project = llama();
    for shard in SHARDS {
        renamed(&project.path(&format!("model/{shard}")), |name| {
            format!("base_model.model.{}", name.replace("q_proj.weight", "q_proj.base_layer.weight"))
        });
    }
    project.refuses(ANALYSIS, FAILED, "begin with `base_model.model.`", "merge_and_unload()");
    // One that is simply missing is simply missing.
    let project = llama();
    checkpoint::change(&project.path(&format!("model/{}", SHARDS[0])), |arrays| {
        arrays.remove("model.embed_tokens.weight").expect("it is in the first file");
    });
    project.refuses(ANALYSIS, FAILED, "tensor `model.embed_tokens.weight` is missing", "the checkpoint is incomplete");
}

#[test]
fn capitals_in_the_names_of_files_are_told() {
    let single = || {
        let project = Project::new();
        project.copy("tests/fixtures/qwen3", "model");
        project
    };
    for (right, wrong) in [("model.safetensors", "MODEL.safetensors"), ("config.json", "Config.json")] {
        let project = single();
        std::fs::rename(project.path(&format!("model/{right}")), project.path(&format!("model/{wrong}"))).unwrap();
        let hint = format!("capitals matter in names of files: call it {right}");
        project.refuses("load_model(\"model\");", FAILED, &format!("model: {wrong}, but n"), &hint);
    }
}
