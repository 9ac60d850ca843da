//! Tests of valid files that hold something other than safetensors weights in floats: Git LFS
//! pointers, adapters, other formats, quantised weights. Each is named, never called damaged, and
//! reported before anything is read, downloaded or rented.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::checkpoint::{self, Array};
use crate::fake_hub::{Hub, Model};
use crate::fake_runpod::FakeRunPod;
use crate::project::{Outcome, Project};
use crate::runpod;

const FAILED: i32 = 3;
const ID: &str = "lab/model";
const SHARD: &str = "model/model-00001-of-00002.safetensors";

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\n\
    oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 2147483648\n";

/// All requests about a model, none of which reads weights.
const QUESTIONS: [&str; 3] = [
    "load_model(\"model\");",
    "estimate_vram(\"model\", #{ logits: true });",
    "load_model(\"model\", #{ stream: true });",
];

fn llama() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    project
}

/// Checks that every request about `model/` and its plan gives this error, here and on the hub, and
/// that no message calls a file damaged.
#[track_caller]
fn told(project: &Project, message: &str, hint: &str) {
    told_here(project, message, hint);
    let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
    for question in QUESTIONS {
        let outcome = hub.run(&Project::new(), &question.replace("\"model\"", &format!("\"{ID}\"")), None).ends(FAILED);
        is_told(&outcome, message, hint);
    }
    let mut plan = project.file("plan.rhai", format!("load_model(\"{ID}\");")).command(&["plan", "plan.rhai"]);
    is_told(&Outcome::of(plan.env("HF_ENDPOINT", &hub.address).output().unwrap()).ends(FAILED), message, hint);
    assert!(hub.cdn.sent().values().flatten().all(|(_, bytes)| *bytes < 1 << 20), "headers at most");
}

#[track_caller]
fn told_here(project: &Project, message: &str, hint: &str) {
    for question in QUESTIONS {
        is_told(&project.script(question).ends(FAILED), message, hint);
        is_told(&project.file("plan.rhai", question).run(&["plan", "plan.rhai"]).ends(FAILED), message, hint);
    }
}

#[track_caller]
fn is_told(outcome: &Outcome, message: &str, hint: &str) {
    let told = &outcome.stderr;
    assert!(told.contains(message), "{message:?} in\n{told}");
    let hints: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("  hint: ")).collect();
    assert!(hints.iter().any(|told| told.contains(hint)), "the hint {hint:?} in\n{told}");
    for word in ["damaged", "incomplete", "download it again", "download the file again", "remove it from"] {
        assert!(!told.contains(word), "{word:?} in\n{told}");
    }
}

#[test]
fn a_git_lfs_pointer_in_place_of_a_file() {
    for name in ["model-00002-of-00002.safetensors", "model.safetensors.index.json", "config.json"] {
        let project = llama();
        project.file(&format!("model/{name}"), POINTER);
        told(
            &project,
            "a Git LFS pointer to the file of 2147483648 bytes, which has not been fetched",
            "`git lfs pull`",
        );
    }
    // In place of the single file, with line ends of Windows, and as older clients wrote it.
    for pointer in [POINTER.replace('\n', "\r\n"), POINTER.replace("git-lfs.github", "hawser.github")] {
        let project = Project::new();
        project.copy("tests/fixtures/llama/config.json", "model/config.json").file("model/model.safetensors", pointer);
        told(&project, "a Git LFS pointer to the file of", "`hf download`");
    }
}

#[test]
fn a_git_lfs_pointer_in_place_of_the_tokenizer() {
    let project = llama();
    project.file("model/tokenizer.json", POINTER).file("text.txt", "To be, or not to be");
    let script =
        "load_tokens(#{ text: \"text.txt\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 2 });";
    is_told(&project.script(script).ends(FAILED), "tokenizer.json: a Git LFS pointer", "`git lfs pull`");
}

/// A file that begins like a pointer and is not one is refused as what it is.
#[test]
fn a_file_that_only_begins_like_a_pointer() {
    let project = llama();
    project.file(SHARD, "version 2 of my weights");
    let message = "a text that begins with `version 2 of my weights`, not a safetensors file";
    project.refuses(QUESTIONS[0], FAILED, message, "saved in place of the file");
}

const LORA: &str = r#"{ "peft_type": "LORA", "base_model_name_or_path": "meta-llama/Llama-3.1-8B", "r": 16 }"#;

#[test]
fn an_adapter_in_place_of_a_model() {
    let message =
        "an adapter (LORA, adapter_config.json) for the model \"meta-llama/Llama-3.1-8B\", not a model by itself";
    let hint = "merge_and_unload().save_pretrained(FOLDER)";
    let project = Project::new();
    project.file("model/adapter_config.json", LORA).file("model/adapter_model.safetensors", "…");
    told(&project, message, hint);
    // Some trainers leave the config of the base model beside it.
    project.copy("tests/fixtures/llama/config.json", "model/config.json");
    told(&project, message, hint);
    project.file("model/adapter_config.json", "?");
    told(&project, "an adapter (adapter_config.json) for the model, not a model by itself", hint);
}

#[test]
fn an_adapter_beside_a_model_is_not_applied_and_said_so() {
    let project = llama();
    project.file("model/adapter_config.json", LORA).file("model/adapter_model.safetensors", "…");
    let stderr = project.script("load_model(\"model\"); load_model(\"model\");").ends(0).stderr;
    assert_eq!(
        stderr.matches("note: model: the adapter beside the model (adapter_config.json) is not applied").count(),
        1
    );
}

#[test]
fn an_index_without_any_of_the_files_that_it_names() {
    let project = llama();
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        std::fs::remove_file(project.path(&format!("model/{shard}"))).unwrap();
    }
    let message = "model.safetensors.index.json names 2 files of weights, and none of them is there";
    told(&project, message, "fetch the files that it names");
    // That of the base model, beside an adapter.
    project.file("model/adapter_config.json", LORA).file("model/adapter_model.safetensors", "…");
    told(
        &project,
        "an adapter (LORA, adapter_config.json) for the model \"meta-llama/Llama-3.1-8B\", not a model by itself",
        "merge_and_unload().save_pretrained(FOLDER)",
    );
}

#[test]
fn weights_in_other_formats() {
    for (files, format, hint) in [
        (&["model.pt"][..], "model.pt, a PyTorch file", "called pytorch_model.bin"),
        (&["a.ckpt", "b.ckpt", "optimizer.pt"], "a.ckpt and 1 more, each a PyTorch file", "save_pretrained(FOLDER)"),
        (&["consolidated.00.pth", "params.json"], "consolidated.00.pth, a PyTorch file", "save_pretrained"),
        (&["llama-7b.ggml"], "llama-7b.ggml, a GGUF file of llama.cpp", "the model it was made from"),
        (
            &["flax_model.msgpack"],
            "flax_model.msgpack, a MessagePack file, as Flax writes weights",
            "in the layout of Hugging Face transformers",
        ),
        (&["tf_model.h5"], "tf_model.h5, an HDF5 file", "in the layout of Hugging Face transformers"),
        (
            &["model.onnx", "training_args.bin"],
            "model.onnx, an ONNX model",
            "in the layout of Hugging Face transformers",
        ),
    ] {
        for with_config in [true, false] {
            let project = Project::new();
            if with_config {
                project.copy("tests/fixtures/llama/config.json", "model/config.json");
            }
            for file in files {
                project.file(&format!("model/{file}"), "…");
            }
            told(&project, &format!("no safetensors weights, but {format}"), hint);
        }
    }
}

#[test]
fn shards_without_their_index() {
    let project = llama();
    std::fs::remove_file(project.path("model/model.safetensors.index.json")).unwrap();
    let message =
        "model-00001-of-00002.safetensors and 1 more, but neither model.safetensors nor model.safetensors.index.json";
    told(&project, message, "fetch model.safetensors.index.json");
    for (shards, message) in [
        (
            &["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"][..],
            "pytorch_model-00001-of-00002.bin and 1 more, but neither pytorch_model.bin nor pytorch_model.bin.index.json",
        ),
        (&["model.bin"], "model.bin, but neither pytorch_model.bin nor pytorch_model.bin.index.json"),
    ] {
        let project = Project::new();
        project.copy("tests/fixtures/llama/config.json", "model/config.json");
        for shard in shards {
            project.file(&format!("model/{shard}"), "…");
        }
        told(&project, message, "a single file of weights must be called pytorch_model.bin");
        if let [one] = shards {
            std::fs::remove_file(project.path("model/config.json")).unwrap();
            let message = format!("config.json is missing beside {one}");
            is_told(&project.script(QUESTIONS[0]).ends(FAILED), &message, "save_pretrained");
        }
    }
}

/// The hint asked for an index, with which the names inside would have been missing.
#[test]
fn files_in_the_layout_of_mistral_are_told() {
    let project = Project::new();
    project.copy("tests/fixtures/llama/config.json", "model/config.json").file("model/consolidated.safetensors", "…");
    let told = project.script("load_model(\"model\");").ends(3).stderr;
    assert!(told.contains("consolidated.safetensors, but neither model.safetensors nor"), "{told}");
    assert!(told.contains("hint: its authors' own code reads it"), "{told}");
}

/// The files that a trainer leaves beside a config are not a model in another format.
#[test]
fn a_folder_with_a_config_and_what_trainers_leave() {
    let project = Project::new();
    project.copy("tests/fixtures/llama/config.json", "model/config.json").file("model/optimizer.pt", "…");
    project.file("model/training_args.bin", "…");
    project.refuses(QUESTIONS[0], FAILED, "model: neither model.safetensors nor", "a model folder holds config.json");
    // A plan and an estimate need no more than the config.
    project.script("estimate_vram(\"model\");").ends(0);
}

#[test]
fn another_format_under_the_name_of_safetensors() {
    for (data, what) in [
        (&b"GGUF\x03\0\0\0\x10\0\0\0"[..], "a GGUF file of llama.cpp"),
        (b"PK\x03\x04\0\0\0\0\0\0\0\0", "a zip archive"),
        (b"\x80\x02}q\0(X\0\0\0\0", "a pickle file"),
    ] {
        let project = Project::new();
        project.copy("tests/fixtures/llama/config.json", "model/config.json").file("model/model.safetensors", data);
        told_here(&project, what, "use the model's release in safetensors");
    }
}

/// A header has 35,615 bytes, and the bytes of that number are those with which a gzip file begins.
#[test]
fn a_header_whose_length_looks_like_another_format() {
    const LENGTH: usize = 0x8b1f;
    let project = llama();
    let data = project.bytes(SHARD);
    let end = 8 + u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
    let padding = vec![b' '; LENGTH + 8 - end];
    let padded = [&(LENGTH as u64).to_le_bytes()[..], &data[8..end], &padding, &data[end..]].concat();
    project.file(SHARD, padded).script("load_model(\"model\");").ends(0);
}

#[test]
fn a_file_given_for_a_folder() {
    let project = llama();
    project.file("m.gguf", "GGUF");
    project.refuses(
        "load_model(\"m.gguf\");",
        FAILED,
        "reading m.gguf: it ends within its header",
        "the file is damaged or incomplete",
    );
    project.file("n.gguf", "no weights");
    project.refuses(
        "load_model(\"n.gguf\");",
        FAILED,
        "reading n.gguf: it does not begin as a GGUF file",
        "the file is damaged or incomplete",
    );
    project.file("pytorch_model.bin", "PK\x03\x04");
    project.refuses(
        "load_model(\"pytorch_model.bin\");",
        FAILED,
        "a PyTorch file, not the folder of a model",
        "give the folder it is in",
    );
    let script = format!("load_model(\"{SHARD}\");");
    project.refuses(&script, FAILED, "a safetensors file, not the folder of a model", "give the folder it is in");
}

fn with_config(change: impl FnOnce(&mut Value)) -> Project {
    let project = llama();
    let mut config = project.json("model/config.json");
    change(&mut config);
    project.file("model/config.json", config.to_string());
    project
}

#[test]
fn quantised_models_by_their_config() {
    for (key, settings, told_as) in [
        ("quantization_config", json!({ "quant_method": "aqlm" }), "`quant_method` \"aqlm\""),
        ("quantization_config", json!({ "quant_method": "hqq", "bits": 4 }), "`quant_method` \"hqq\""),
        ("quantization_config", json!({ "quant_method": "fp8", "fmt": "e5m2" }), "`fmt` \"e5m2\""),
        (
            "compression_config",
            json!({ "quant_method": "compressed-tensors", "format": "marlin-24" }),
            "`format` \"marlin-24\"",
        ),
        ("quantization_config", json!({ "group_size": 64, "bits": 4 }), "name no `quant_method`"),
        ("quantization", json!({ "group_size": 64, "bits": 8 }), "(MLX, 8 bits)"),
    ] {
        let project = with_config(|config| config[key] = settings);
        let place = format!("config.json: `{key}`: the weights are quantised");
        told(&project, &place, "the files are good, but of quantised weights only those that docs/quantised.md lists");
        told_here(&project, told_as, "the files are good");
    }
}

/// The config announces quantised weights that the files do not have. Weights are plain if their
/// tensors are.
#[test]
fn settings_of_quantised_weights_around_plain_ones_change_nothing() {
    for settings in
        [json!({ "quant_method": "fp8", "weight_block_size": [128, 128] }), json!({ "quant_method": "mxfp4" })]
    {
        let project = with_config(|config| config["quantization_config"] = settings);
        project.script("print(load_model(\"model\").num_layers)").ends(0);
    }
}

/// The config says nothing, and neighbouring tensors show how a weight is quantised.
#[test]
fn quantised_models_by_their_tensors() {
    let stem = "model.layers.1.mlp.up_proj";
    let weight = format!("{stem}.weight");
    for (dtype, beside, method) in
        [(Some(Dtype::U32), &["scales", "biases"][..], "MLX"), (None, &["W_q", "meta"], "HQQ")]
    {
        let project = llama();
        checkpoint::change(&project.path(SHARD), |arrays| {
            let array = arrays.remove(&weight).unwrap();
            if let Some(dtype) = dtype {
                let (shape, bytes) = (&array.shape, array.shape.iter().product::<usize>() * dtype.bitsize() / 8);
                arrays.insert(weight.clone(), Array::new(dtype, shape, vec![0; bytes]));
            }
            for name in beside {
                arrays.insert(format!("{stem}.{name}"), Array::new(Dtype::U8, &[4], vec![0; 4]));
            }
        });
        told(&project, &format!("quantised ({method})"), "the files are good");
    }
}

/// A weight has a type that is not read or another shape, or is missing. The headers show it,
/// whichever layer has it.
#[test]
fn a_weight_that_cannot_be_read_is_found_before_anything_is_read() {
    let weight = "model.layers.1.mlp.up_proj.weight";
    type Damage<'a> = &'a dyn Fn(&mut checkpoint::Arrays);
    let cases: [(Damage, &str); 3] = [
        (
            &|arrays| {
                let array = arrays.get_mut(weight).unwrap();
                *array = Array::new(Dtype::I16, &array.shape.clone(), vec![0; array.data.len()]);
            },
            "the weight `model.layers.1.mlp.up_proj.weight` is I16",
        ),
        (&|arrays| drop(arrays.remove(weight).unwrap()), "`model.layers.1.mlp.up_proj.weight` is missing"),
        (
            &|arrays| arrays.get_mut(weight).unwrap().shape = vec![32, 48],
            "has shape [32, 48], config.json says [48, 32]",
        ),
    ];
    for (change, message) in cases {
        let project = llama();
        checkpoint::change(&project.path(SHARD), change);
        let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
        for question in QUESTIONS {
            for outcome in [
                project.script(question),
                project.file("plan.rhai", question).run(&["plan", "plan.rhai"]),
                hub.run(&Project::new(), &question.replace("\"model\"", &format!("\"{ID}\"")), None),
            ] {
                let stderr = outcome.ends(FAILED).stderr;
                assert!(stderr.contains(message), "{question}: {message:?} in\n{stderr}");
            }
        }
    }
}

/// Nothing is paid for a model that cannot be read.
#[test]
fn no_machine_is_rented_for_a_model_that_cannot_be_read() {
    let (fake, project) = (FakeRunPod::start(), llama());
    checkpoint::change(&project.path(SHARD), |arrays| {
        let array = arrays.get_mut("model.layers.1.mlp.up_proj.weight").unwrap();
        *array = Array::new(Dtype::I16, &array.shape.clone(), vec![0; array.data.len()]);
    });
    project.file("script.rhai", "provision_gpu(#{ provider: \"runpod\", gpu: \"A40\", model: #{ id: \"model\" } });");
    let outcome = Outcome::of(runpod::command(&project, &fake, &["run", "script.rhai"]).output().unwrap()).ends(FAILED);
    assert!(outcome.stderr.contains("up_proj.weight` is I16"), "{}", outcome.stderr);
    assert_eq!(fake.created(), 0);
}

/// The headers of a large model on the hub are read first, so that it is refused before it is
/// downloaded.
#[test]
fn a_large_model_that_cannot_be_read_is_not_downloaded() {
    let project = Project::new();
    crate::streaming::Shape { hidden: 1024, inner: 8192, experts: 0, layers: 2 }.write(&project);
    let file = project.path("model/model-layer-00.safetensors");
    checkpoint::change(&file, |arrays| {
        let array = arrays.values_mut().find(|array| array.shape.len() == 2).unwrap();
        *array = Array::new(Dtype::I16, &array.shape.clone(), vec![0; array.data.len()]);
    });
    let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
    let user = Project::new();
    let outcome = hub.run(&user, &format!("load_model(\"{ID}\");"), None).ends(FAILED);
    assert!(outcome.stderr.contains("` is I16 of shape"), "{}", outcome.stderr);
    let sent: u64 = hub.cdn.sent().values().flatten().map(|(_, bytes)| bytes).sum();
    assert!(sent < 100_000, "{sent} bytes were fetched");
}
