//! Tests of weights in a model's files that its architecture does not use: the user is told once,
//! when the model is loaded or planned, except for weights that have no effect.

use safetensors::Dtype;
use serde_json::Value;

use crate::checkpoint::{self, Array};
use crate::project::{Project, repository};

const LOAD: &str = "let model = load_model(\"model\");";
const FILE: &str = "model/model.safetensors";

/// A project with the fixture as `model/`, its config changed and tensors of these names added.
fn project(fixture: &str, change: impl FnOnce(&mut Value), added: &[&str]) -> Project {
    let project = Project::new();
    project.copy(&format!("tests/fixtures/{fixture}"), "model");
    let mut config = project.json("model/config.json");
    change(&mut config);
    project.file("model/config.json", config.to_string());
    checkpoint::change(&project.path(FILE), |arrays| {
        for name in added {
            arrays.insert(name.to_string(), Array::new(Dtype::F32, &[2], vec![0; 8]));
        }
    });
    project
}

fn notes(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.contains("not used")).collect()
}

/// The one note about weights that are not used.
#[track_caller]
fn note(project: &Project, words: &[&str]) -> String {
    let outcome = project.file("script.rhai", LOAD).run(words).ends(0);
    let notes = notes(&outcome.stderr);
    assert_eq!(notes.len(), 1, "{}", outcome.stderr);
    assert!(notes[0].starts_with("note: model: "), "{}", notes[0]);
    notes[0].to_string()
}

const RUN: &[&str] = &["run", "script.rhai"];

#[test]
fn biases_without_a_place_in_the_model_type_are_told_once() {
    let biases: Vec<String> = (0..3)
        .flat_map(|layer| ["q", "k", "v"].map(|part| format!("model.layers.{layer}.self_attn.{part}_proj.bias")))
        .collect();
    let added: Vec<&str> = biases.iter().map(String::as_str).collect();
    let project = project("qwen3", |_| (), &added);
    let said = note(&project, RUN);
    for words in [
        "9 tensors in the files are not used",
        "`model.layers.0.self_attn.k_proj.bias`",
        " and 6 more",
        "all numbers are those of a model without them",
        "a qwen3 model",
    ] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert_eq!(note(&project, &["plan", "script.rhai"]), said);
    // Several loads, one on another machine that is this one.
    let again = format!(
        "{LOAD} let gpu = provision_gpu(); gpu.load_model(\"model\"); load_model(\"model\", #{{ dtype: \"bf16\" }});"
    );
    assert_eq!(notes(&project.script(&again).ends(0).stderr).len(), 1);
}

#[test]
fn norms_of_another_model_type_are_told() {
    let added = ["model.layers.1.self_attn.q_norm.weight", "model.layers.1.post_feedforward_layernorm.weight"];
    for fixture in ["olmoe", "qwen3_moe"] {
        let project = project(fixture, |_| (), &["model.layers.1.post_feedforward_layernorm.weight"]);
        assert!(note(&project, RUN).contains("1 tensor in the files is not used"));
    }
    let said = note(&project("llama_square", |_| (), &added), RUN);
    assert!(said.contains("2 tensors") && said.contains("q_norm.weight"), "{said}");
    // Under the names of a base model that was saved by itself.
    let said = note(&project("gpt2", |_| (), &["h.1.attn.q_norm.weight", "h.0.attn.masked_bias"]), RUN);
    assert!(said.contains("1 tensor in the files is not used: `h.1.attn.q_norm.weight`;"), "{said}");
    assert!(said.contains("a model without them"), "{said}");
}

#[test]
fn layers_beyond_those_of_the_config_are_told() {
    for (fixture, key, layers) in
        [("qwen3", "num_hidden_layers", 3), ("opt", "num_hidden_layers", 3), ("gpt2", "n_layer", 2)]
    {
        let project = project(
            fixture,
            |config| {
                assert_eq!(config[key], layers, "{fixture}");
                config[key] = (layers - 1).into();
                if let Some(types) = config.get_mut("layer_types").and_then(Value::as_array_mut) {
                    types.pop();
                }
            },
            &[],
        );
        let said = note(&project, RUN);
        let one = if layers == 2 { "1 layer" } else { "2 layers" };
        assert!(said.contains(&format!("config.json says {one}, and the files have {layers}")), "{fixture}: {said}");
        assert!(said.contains("a model without the others"), "{fixture}: {said}");
    }
}

#[test]
fn what_stands_beside_the_decoder_is_told_without_alarm() {
    let said = note(&project("qwen3", |_| (), &["visual.patch_embed.proj.weight"]), RUN);
    assert!(said.contains("stand beside the decoder, and nothing that is measured depends on them"), "{said}");
}

#[test]
fn what_is_known_to_change_nothing_is_not_told() {
    let harmless = [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "score.weight",
        "v_head.summary.weight",
        "lm_head.weight",
    ];
    for name in harmless {
        let project = project("qwen3", |_| (), &[]);
        checkpoint::change(&project.path(FILE), |arrays| {
            let embedding = arrays["model.embed_tokens.weight"].clone();
            arrays.insert(name.to_string(), embedding);
        });
        let outcome = project.script(LOAD).ends(0);
        assert_eq!(notes(&outcome.stderr), [""; 0], "{name}");
    }
    let fixtures = std::fs::read_dir(repository().join("tests/fixtures")).unwrap();
    let mut seen = 0;
    for entry in fixtures.map(|entry| entry.unwrap()).filter(|entry| entry.path().join("config.json").exists()) {
        let project = Project::new();
        project.copy(&format!("tests/fixtures/{}", entry.file_name().display()), "model");
        let outcome = project.script(LOAD).ends(0);
        // A larger model around a language model has a tower beside it, which is told.
        let mut told = notes(&outcome.stderr);
        let nested = project.text("model/config.json").contains("\"text_config\"");
        told.retain(|note| !(nested && note.contains("they stand beside the decoder")));
        assert_eq!(told, [""; 0], "{}", entry.path().display());
        seen += 1;
    }
    assert!(seen >= 10);
    // Layers that predict further tokens are left out of GLM-4.5 by transformers; other layers behind the last one are not.
    let glm = project("glm4_moe", |_| (), &["model.layers.4.mlp.down_proj.weight"]);
    assert!(note(&glm, RUN).contains("`model.layers.4.mlp.down_proj.weight`"));
}
