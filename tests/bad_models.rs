//! Tests of models that cannot be analysed: missing, damaged, of another shape, of an unknown kind,
//! or with numbers that are not finite. Each is refused with a reason and advice, and leaves no
//! result that looks complete.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::checkpoint::{self, Array};
use crate::oracle::SWEEP;
use crate::project::{FINAL, FULL, Outcome, Project, program, repository};

const SHARD: &str = "model/model-00001-of-00002.safetensors";

/// An analysis that reads every weight and writes every kind of file.
const ANALYSIS: &str = r#"
let model = load_model("model");
let tokens = load_tokens(#{ ids: [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]] });
let acts = model.extract_layernorms(tokens, #{ keep: "full", out: "results/full", logits: true });
save_results("analysis", #{ activations: acts, found: acts.detect_outliers() });
"#;

/// The exit code of a failed model.
const FAILED: i32 = 3;

fn llama() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    project
}

/// The llama fixture with its config changed.
fn with_config(change: impl FnOnce(&mut Value)) -> Project {
    let project = llama();
    let mut config = project.json("model/config.json");
    change(&mut config);
    project.file("model/config.json", config.to_string());
    project
}

/// The llama fixture with one tensor of its first shard replaced.
fn with_tensor(name: &str, change: impl FnOnce(&mut Array)) -> Project {
    let project = llama();
    checkpoint::change(&project.path(SHARD), |arrays| change(arrays.get_mut(name).unwrap()));
    project
}

/// Sets one bf16 value.
fn with_value(name: &str, index: usize, bits: u16) -> Project {
    with_tensor(name, |array| array.data[2 * index..2 * index + 2].copy_from_slice(&bits.to_le_bytes()))
}

#[test]
fn the_undamaged_model_gives_all_files() {
    let project = llama();
    project.script(ANALYSIS).ok();
    assert!(project.has(&format!("results/analysis/{FINAL}")) && project.has(&format!("results/full/{FULL}")));
}

#[test]
fn missing_folder() {
    let hint = "give a folder with config.json and safetensors files, or a hub id";
    let project = Project::new();
    for id in ["nowhere", "models/of/mine", "/nowhere/at/all", "owner/a model", "../model", ""] {
        let script = ANALYSIS.replace("\"model\"", &format!("{id:?}"));
        // A name without an owner may be one of the hub's, which does not answer here.
        let what = if id == "nowhere" { "the hub cannot be asked for it" } else { "not a hub id" };
        project.refuses(&script, FAILED, &format!("model {id:?}: no such folder, and {what}"), hint);
    }
    project.file("a_file", "");
    let (message, hint) = ("model \"a_file\": a file, not the folder of a model", "give the folder it is in");
    project.refuses(&ANALYSIS.replace("\"model\"", "\"a_file\""), FAILED, message, hint);
}

#[test]
fn folder_without_weights() {
    let project = Project::new();
    project.file("model/README.md", "nothing here");
    let hint = "a model folder holds config.json and safetensors weights";
    project.refuses(ANALYSIS, FAILED, "reading model/config.json: No such file", hint);
    project.copy("tests/fixtures/llama/config.json", "model/config.json");
    project.refuses(ANALYSIS, FAILED, "model: neither model.safetensors nor model.safetensors.index.json", hint);
}

#[test]
fn missing_shard() {
    let project = llama();
    std::fs::remove_file(project.path(SHARD)).unwrap();
    project.refuses(ANALYSIS, FAILED, &format!("reading {SHARD}: No such file"), "download the missing file");
}

#[test]
fn what_is_no_file_of_weights_is_not_called_missing() {
    let single = |prepare: &dyn Fn(&std::path::Path)| {
        let project = Project::new();
        project.copy("tests/fixtures/llama/config.json", "model/config.json");
        prepare(&project.path("model/model.safetensors"));
        project
    };
    let folder = single(&|path| std::fs::create_dir(path).unwrap());
    folder.refuses(
        ANALYSIS,
        FAILED,
        "reading model/model.safetensors: Is a directory",
        "a folder has the name of the file",
    );
    let pipe = single(&|path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()));
    pipe.refuses(ANALYSIS, FAILED, "model/model.safetensors: a pipe, socket or device", "must be a regular file");
    let circle = single(&|path| std::os::unix::fs::symlink("model.safetensors", path).unwrap());
    circle.refuses(ANALYSIS, FAILED, "model/model.safetensors: Too many levels", "links lead back to themselves");
    let dangling = single(&|path| std::os::unix::fs::symlink("../blobs/1f", path).unwrap());
    dangling.refuses(
        ANALYSIS,
        FAILED,
        "model/model.safetensors: No such file",
        "a link to ../blobs/1f, where nothing is",
    );
    let config = llama();
    std::fs::remove_file(config.path("model/config.json")).unwrap();
    std::fs::create_dir(config.path("model/config.json")).unwrap();
    config.refuses(ANALYSIS, FAILED, "reading model/config.json: Is a directory", "a folder has the name of the file");
    let text = "load_tokens(#{ text: \"model\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 2 });";
    llama().refuses(text, FAILED, "reading model: Is a directory", "a folder has the name of the file");
}

#[test]
fn an_answer_of_a_server_saved_as_weights_is_called_so() {
    let denied = "Access to model lab/model is restricted. You must have access to it and be authenticated.";
    for (text, what) in [
        (denied, "a text that begins with `Access to model lab/model is restricted."),
        ("Not Found", "a text that begins with `Not Found`"),
        ("404", "a text that begins with `404`"),
        ("{\"error\": \"Repository not found\"}", "JSON that begins with `{\"error\": \"Repository not found\"}`"),
        ("<!doctype html><html><body>Sign in</body></html>", "a web page (HTML)"),
    ] {
        for (file, format) in [("model.safetensors", "a safetensors file"), ("pytorch_model.bin", "a PyTorch file")] {
            let project = Project::new();
            project.copy("tests/fixtures/llama/config.json", "model/config.json").file(&format!("model/{file}"), text);
            let outcome = project.script(ANALYSIS).ends(FAILED);
            let message = format!("reading model/{file}: {what}");
            assert!(
                outcome.stderr.contains(&message) && outcome.stderr.contains(&format!(", not {format}")),
                "{}",
                outcome.stderr
            );
            assert!(outcome.stderr.contains("hint: was the answer of a server saved"), "{}", outcome.stderr);
        }
    }
}

#[test]
fn models_in_folders_below_are_told() {
    let project = Project::new();
    project.file("model/README.md", "a run of a trainer");
    for checkpoint in ["checkpoint-500", "checkpoint-1000"] {
        project.copy("tests/fixtures/llama", &format!("model/{checkpoint}"));
    }
    let message = "model: no model, but there is one in 2 of its folders, checkpoint-500 to checkpoint-1000";
    project.refuses(ANALYSIS, FAILED, message, "name that folder: \"model/checkpoint-1000\"");
    project.copy("tests/fixtures/llama/config.json", "model/config.json");
    project.refuses(ANALYSIS, FAILED, message, "name that folder: \"model/checkpoint-1000\"");
    let cache = Project::new();
    cache.copy("tests/fixtures/llama", "model/snapshots/1f2e");
    let message = "model: no model, but there is one in its folder snapshots/1f2e";
    cache.refuses(ANALYSIS, FAILED, message, "name that folder: \"model/snapshots/1f2e\"");
}

#[test]
fn damaged_index() {
    let index = "model/model.safetensors.index.json";
    for (text, message, hint) in [
        (
            "{\"weight_map\": {\"a\"",
            "not valid JSON: line 1, column 19: the text ends inside an object",
            "correct the file there",
        ),
        ("{\"weights\": {}}", "`weight_map` is missing", "fetch it again"),
        (
            r#"{"weight_map": {"a": "../secret.safetensors"}}"#,
            "`../secret.safetensors` is not a file of this model",
            "correct `weight_map`",
        ),
    ] {
        let project = llama();
        project.file(index, text).refuses(ANALYSIS, FAILED, message, hint);
    }
}

#[test]
fn truncated_weights() {
    let project = llama();
    let whole = project.bytes(SHARD);
    for (length, message) in [
        (whole.len() - 1, format!("the header describes {} bytes, the file has {}", whole.len(), whole.len() - 1)),
        (whole.len() / 2, format!("the header describes {} bytes", whole.len())),
        (100, "does not fit a file of 100 bytes".to_string()),
        (3, "3 bytes are too few for safetensors".to_string()),
        (0, "0 bytes are too few for safetensors".to_string()),
    ] {
        project.file(SHARD, &whole[..length]);
        project.refuses(ANALYSIS, FAILED, &format!("reading {SHARD}: "), "download it again");
        project.refuses(ANALYSIS, FAILED, &message, "the file is damaged or incomplete");
    }
}

#[test]
fn garbage_header() {
    let project = llama();
    let mut data = project.bytes(SHARD);
    data[8..40].fill(b'?');
    project.file(SHARD, &data).refuses(ANALYSIS, FAILED, "bad header", "download it again");
    data[..8].fill(0xff);
    project.file(SHARD, &data).refuses(ANALYSIS, FAILED, "a header of 18446744073709551615 bytes", "download it again");
    let page = "a web page (HTML), not a safetensors file";
    project.file(SHARD, "<html>404</html>".repeat(9)).refuses(ANALYSIS, FAILED, page, "");
}

#[test]
fn wrong_shape() {
    let name = "model.layers.1.mlp.gate_proj.weight";
    let project = with_tensor(name, |array| array.shape = vec![32, 48]);
    let message =
        format!("tensor `{name}` in model-00001-of-00002.safetensors has shape [32, 48], config.json says [48, 32]");
    project.refuses(ANALYSIS, FAILED, &message, "config.json and weights belong to different models");
}

#[test]
fn missing_tensor() {
    let project = llama();
    checkpoint::change(&project.path(SHARD), |arrays| {
        arrays.remove("model.layers.0.self_attn.q_proj.weight").unwrap();
    });
    let message = "tensor `model.layers.0.self_attn.q_proj.weight` is missing";
    project.refuses(ANALYSIS, FAILED, message, "the checkpoint is incomplete");
}

#[test]
fn more_layers_in_the_config_than_in_the_weights() {
    let project = with_config(|config| config["num_hidden_layers"] = 5.into());
    let message = "tensor `model.layers.4.input_layernorm.weight` is missing";
    project.refuses(ANALYSIS, FAILED, message, "its config.json describes another model");
}

#[test]
fn integer_weights() {
    let name = "model.layers.0.input_layernorm.weight";
    let project = with_tensor(name, |array| {
        *array = Array::new(Dtype::I32, &[32], vec![0; 4 * 32]);
    });
    let message = format!("{SHARD}: tensor `{name}` is I32, expected F32, BF16 or F16");
    project.refuses(ANALYSIS, FAILED, &message, "look for a copy of this model in one of these formats");
}

#[test]
fn nan_and_infinite_weights() {
    let hint = "the weights are damaged: every result computed from them would be meaningless";
    for (name, index, bits, message) in [
        ("model.layers.0.mlp.down_proj.weight", 77, 0x7fc0, "element 77 is NaN"),
        ("model.layers.1.input_layernorm.weight", 3, 0x7f80, "element 3 is inf"),
        ("model.layers.1.self_attn.v_proj.weight", 0, 0xff80, "element 0 is -inf"),
    ] {
        let message = format!("{SHARD}: tensor `{name}`: {message}");
        with_value(name, index, bits).refuses(ANALYSIS, FAILED, &message, hint);
    }
    // Rows of the embedding that no token uses are not read: token 5 is used, token 100 is not.
    let name = "model.embed_tokens.weight";
    with_value(name, 5 * 32, 0x7fc0).refuses(ANALYSIS, FAILED, &format!("tensor `{name}`: element"), hint);
    with_value(name, 100 * 32, 0x7fc0).script(ANALYSIS).ok();
}

#[test]
fn nan_in_an_expert() {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    let name = "model.layers.0.block_sparse_moe.experts.0.w2.weight";
    checkpoint::change(&project.path(SHARD), |arrays| arrays.get_mut(name).unwrap().data.fill(0xff));
    // Every token once: each expert is chosen by some.
    let ids: Vec<u32> = (0..128).collect();
    let script = ANALYSIS.replace("[[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]", &format!("[{ids:?}]"));
    project.refuses(&script, FAILED, &format!("tensor `{name}`: element"), "the weights are damaged");
}

/// Weights are finite, but their products are not. These are counted and named, and the statistics
/// are computed without them.
#[test]
fn activations_that_overflow_are_reported() {
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    let name = "model.layers.0.block_sparse_moe.experts.0.w2.weight";
    checkpoint::change(&project.path(SHARD), |arrays| {
        let values = arrays.get_mut(name).unwrap();
        *values = Array::bf16(&values.shape, vec![0x7f00; values.data.len() / 2]);
    });
    let ids: Vec<u32> = (0..128).collect();
    let script = ANALYSIS.replace("[[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]", &format!("[{ids:?}]"));
    let stderr = project.script(&script).ends(0).stderr;
    assert!(stderr.contains("warning: layers.1.input_layernorm, sequence 0: "), "{stderr}");
    assert!(stderr.contains("infinite values, left out of the statistics"), "{stderr}");
    let whole = project.json(&format!("results/analysis/{FINAL}"));
    let first = &whole["non_finite"][0];
    assert_eq!(first["norm"], json!({ "layer": 1, "site": "input_layernorm" }));
    assert!(first["nan"].as_u64().unwrap() + first["infinite"].as_u64().unwrap() > 0);
    assert!(whole["pooled"]["num_non_finite"].as_u64().unwrap() > 0);
}

#[test]
fn unknown_model_type() {
    let project = with_config(|config| config["model_type"] = "lama".into());
    project.refuses(ANALYSIS, FAILED, "model/config.json: unknown model_type \"lama\"", "did you mean `llama`?");
    let project = with_config(|config| drop(config.as_object_mut().unwrap().remove("model_type")));
    project.refuses(ANALYSIS, FAILED, "`model_type` is missing", "is this a Hugging Face config.json?");
}

#[test]
fn settings_that_are_not_understood() {
    let project = with_config(|config| config["attention_sinkhorn"] = 3.into());
    let hint = "a setting that is ignored can give wrong numbers";
    project.refuses(ANALYSIS, FAILED, "setting not understood: `attention_sinkhorn`: 3", hint);
}

#[test]
fn settings_that_make_no_sense() {
    for (key, value, message) in [
        ("hidden_size", json!("32"), "`hidden_size` is \"32\", expected a whole number"),
        ("hidden_size", Value::Null, "`hidden_size` is missing"),
        ("num_hidden_layers", json!(0), "`num_hidden_layers` is 0"),
        ("vocab_size", json!(-1), "`vocab_size` is -1, expected a whole number"),
        ("num_key_value_heads", json!(3), "`num_key_value_heads` is 3, which does not divide 4 heads"),
        ("rms_norm_eps", json!(true), "`rms_norm_eps` is true, expected a number"),
    ] {
        let project = with_config(|config| config[key] = value);
        project.refuses(ANALYSIS, FAILED, &format!("model/config.json: {message}"), "config.json");
    }
}

/// The advice was to look whether the config belongs to the weights.
#[test]
fn values_that_are_not_computed_are_not_called_a_mistake() {
    for (key, value, message) in [
        ("hidden_act", json!("snake"), "`hidden_act` is \"snake\"; supported are silu"),
        ("hidden_act", json!("prelu"), "`hidden_act` is \"prelu\"; supported are silu"),
        (
            "rope_scaling",
            json!({ "rope_type": "ntk", "factor": 2 }),
            "`rope_scaling.rope_type` is \"ntk\"; supported are",
        ),
    ] {
        let project = with_config(|config| config[key] = value);
        let hint = "a model may have this value, but what it asks for is not computed";
        project.refuses(ANALYSIS, FAILED, &format!("model/config.json: {message}"), hint);
    }
    let project = Project::new();
    project.copy("tests/fixtures/bloom", "model");
    let mut config = project.json("model/config.json");
    config["apply_residual_connection_post_layernorm"] = true.into();
    project.file("model/config.json", config.to_string());
    let message = "`apply_residual_connection_post_layernorm` is true; only false is supported";
    project.refuses("load_model(\"model\");", FAILED, message, "what it asks for is not computed");
}

/// transformers 5.23 ends with `KeyError: None` and "Could not find an `attention_chunk_size`".
#[test]
fn models_that_transformers_cannot_make_are_not_made() {
    let project = with_config(|config| config["rope_scaling"] = json!({ "type": null }));
    project.refuses(ANALYSIS, FAILED, "`rope_scaling.type` is null, which is no kind of rope", "take it out");
    let project = Project::new();
    project.copy("tests/fixtures/llama4_text", "model");
    let mut config = project.json("model/config.json");
    config["attention_chunk_size"] = Value::Null;
    project.file("model/config.json", config.to_string());
    project.refuses("load_model(\"model\");", FAILED, "`attention_chunk_size` is null", "which means 8192");
}

#[test]
fn config_that_is_not_json() {
    let project = llama();
    let hint = "correct the file there";
    project.file("model/config.json", "{\"hidden_size\": 32,");
    project.refuses(ANALYSIS, FAILED, "reading model/config.json: not valid JSON", hint);
    project.file("model/config.json", "[]");
    project.refuses(ANALYSIS, FAILED, "reading model/config.json: not a JSON object", hint);
}

#[test]
fn a_slip_in_an_edited_config_is_called_by_its_place_and_name() {
    for (text, what) in [
        ("{\n \"model_type\": \"llama\",\n}\n", "line 3, column 1: a comma before `}`"),
        (
            "{\n \"model_type\": \"llama\"\n \"vocab_size\": 5\n}\n",
            "line 3, column 2: `\"` where a comma or `}` must stand",
        ),
        ("{\n \"tie_word_embeddings\": True\n}\n", "`True`, for which JSON has true"),
        ("{\n \"vocab_size\": 5 // tokens\n}\n", "line 2, column 18: a comment"),
        ("", "there is nothing in it"),
    ] {
        let project = llama();
        project.file("model/config.json", text);
        let message = format!("reading model/config.json: not valid JSON: {what}");
        let message = if what.starts_with('`') {
            what.to_string()
        } else {
            message.replace(": there is", ": line 1, column 0: there is")
        };
        project.refuses(ANALYSIS, FAILED, &message, "correct the file there");
        let outcome = project.script(ANALYSIS);
        assert!(!outcome.stderr.contains("download"), "{}", outcome.stderr);
    }
}

#[test]
fn a_misspelt_key_that_must_be_there_is_named() {
    for (key, misspelt) in [
        ("num_hidden_layers", "num_hidden_layer"),
        ("hidden_size", "hiden_size"),
        ("model_type", "model_typ"),
        ("intermediate_size", "intermediate_sizes"),
    ] {
        let project = with_config(|config| {
            let map = config.as_object_mut().unwrap();
            let value = map.remove(key).unwrap();
            map.insert(misspelt.to_string(), value);
        });
        let message = format!("model/config.json: `{key}` is missing; there is `{misspelt}`");
        project.refuses(ANALYSIS, FAILED, &message, &format!("is `{misspelt}` a misspelling of it?"));
    }
}

#[test]
fn weights_without_a_config_lack_the_config() {
    for fixture in ["llama", "qwen3"] {
        let project = Project::new();
        project.copy(&format!("tests/fixtures/{fixture}"), "model");
        std::fs::remove_file(project.path("model/config.json")).unwrap();
        project.refuses(ANALYSIS, FAILED, "config.json is missing beside model", "fetch it from where they came from");
    }
}

#[test]
fn architectures_that_exist_and_are_not_computed_are_not_taken_for_misspellings() {
    for model_type in ["jamba", "mamba2", "gpt_bigcode", "granitemoeshared", "deepseek_v4", "minicpm3", "bert"] {
        let project = with_config(|config| config["model_type"] = model_type.into());
        let message = format!("model/config.json: `{model_type}` is a real architecture that is not supported yet");
        project.refuses(ANALYSIS, FAILED, &message, "supported are ");
        let outcome = project.script(ANALYSIS);
        assert!(!outcome.stderr.contains("did you mean"), "{}", outcome.stderr);
    }
    for (misspelt, meant) in
        [("lama", "llama"), ("Qwen3", "qwen3"), ("qwen3-moe", "qwen3_moe"), ("mixtrall", "mixtral")]
    {
        let project = with_config(|config| config["model_type"] = misspelt.into());
        project.refuses(ANALYSIS, FAILED, "unknown model_type", &format!("did you mean `{meant}`?"));
    }
    // A misspelling of one that is not computed, and a word that is far from all.
    for (word, hint) in [("falcon_mmba", "`falcon_mamba` is not supported yet"), ("my_own_model", "supported are ")] {
        let project = with_config(|config| config["model_type"] = word.into());
        project.refuses(ANALYSIS, FAILED, "unknown model_type", hint);
        assert!(!project.script(ANALYSIS).stderr.contains("did you mean"), "{word}");
    }
}

/// Each number of these fixtures, and each pair of neighbours, is replaced by numbers that no model
/// has.
#[test]
fn sizes_that_no_model_has() {
    const NUMBERS: [u64; 8] = [0, 3, 1 << 20, 1 << 24, 1 << 31, 1 << 40, 1 << 63, u64::MAX];
    for fixture in SWEEP.iter().map(|name| repository().join("tests/fixtures").join(name)) {
        let Ok(config) = std::fs::read_to_string(fixture.join("config.json")) else { continue };
        let config: Value = serde_json::from_str(&config).unwrap();
        let is_number = |(key, value): (&String, &Value)| value.is_u64().then(|| key.clone());
        let keys: Vec<String> = config.as_object().unwrap().iter().filter_map(is_number).collect();
        let project = Project::new();
        let mut count = 0;
        for (i, key) in keys.iter().enumerate() {
            for number in NUMBERS {
                let mut changed = config.clone();
                changed[key] = number.into();
                if number % 3 == 1 {
                    changed[&keys[(i + 1) % keys.len()]] = number.into();
                }
                project.file(&format!("m{count}/config.json"), changed.to_string());
                for file in std::fs::read_dir(&fixture).unwrap() {
                    let file = file.unwrap();
                    if file.file_name() != "config.json" {
                        let link = project.path(&format!("m{count}")).join(file.file_name());
                        std::os::unix::fs::symlink(file.path(), link).unwrap();
                    }
                }
                count += 1;
            }
        }
        let script = format!(
            "for i in 0..{count} {{
                 let args = #{{ num_sequences: 2, sequence_length: 8 }};
                 try {{ estimate_vram(`m${{i}}`, args); }} catch {{ }}
                 try {{
                     let model = load_model(`m${{i}}`);
                     model.extract_layernorms(load_tokens(#{{ ids: [[1, 2, 3], [4, 5, 6]] }}));
                 }} catch {{ }}
             }}
             print(\"done\");"
        );
        project.file("script.rhai", script);
        // A gigabyte is far more than any of them needs.
        let mut command = std::process::Command::new("sh");
        let limited = "ulimit -v 6000000; exec \"$0\" run script.rhai";
        command.args(["-c", limited]).arg(program()).current_dir(project.path("")).env("RUST_BACKTRACE", "0");
        let outcome = Outcome::of(command.output().unwrap());
        assert_eq!(outcome.code, 0, "{}: {}", fixture.display(), outcome.stderr);
        assert!(outcome.stdout.ends_with("done\n"), "{}: {}", fixture.display(), outcome.stderr);
    }
}

#[test]
pub fn a_size_that_no_model_has_is_named() {
    for (key, value, message) in [
        ("num_hidden_layers", json!(1u64 << 63), "`num_hidden_layers` is 9223372036854775808, more than any model has"),
        ("num_hidden_layers", json!(16_777_216), "`num_hidden_layers` is 16777216, more layers than any model has"),
        ("vocab_size", json!(4_294_967_296u64), "`vocab_size` is 4294967296, more than any model has"),
    ] {
        let project = with_config(|config| config[key] = value);
        project.refuses(ANALYSIS, FAILED, &format!("model/config.json: {message}"), "config.json");
    }
    let project = Project::new();
    project.copy("tests/fixtures/mixtral", "model");
    let mut config = project.json("model/config.json");
    config["num_local_experts"] = 2_147_483_648u64.into();
    project.file("model/config.json", config.to_string());
    project.refuses(ANALYSIS, FAILED, "`num_local_experts` is 2147483648, more than any model has", "config.json");
    config["num_local_experts"] = 65_536.into();
    project.file("model/config.json", config.to_string());
    project.refuses(ANALYSIS, FAILED, "more experts than any model has", "config.json");
}

/// The header of a file claims more than fits a computer.
#[test]
fn headers_that_overflow() {
    let huge = u64::MAX / 2;
    for header in [
        json!({ "a": { "dtype": "U8", "shape": [huge], "data_offsets": [0, huge] },
                "b": { "dtype": "U8", "shape": [huge], "data_offsets": [huge, 2 * huge] } }),
        json!({ "a": { "dtype": "F64", "shape": [1u64 << 32, 1u64 << 32], "data_offsets": [0, 0] } }),
        json!({ "a": { "dtype": "U8", "shape": vec![1; 100_000], "data_offsets": [0, 1] } }),
        json!({ "a": { "dtype": "U8", "shape": [0], "data_offsets": [u64::MAX, u64::MAX] } }),
    ] {
        let project = llama();
        let header = header.to_string();
        project.file(SHARD, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0]].concat());
        let hint = if header.contains("[1,1,1") { "the checkpoint is incomplete" } else { "download it again" };
        project.refuses(ANALYSIS, FAILED, "model", hint);
    }
}
