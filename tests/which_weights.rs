//! Tests of the choice of a model's tensors in a folder or repository: it is that of Hugging Face
//! transformers 5.23, for every architecture, with a note if there were two possible answers. The
//! models are rewritten fixtures. The result must be the fixture's reference, or what transformers
//! gave for the rewritten model.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::checkpoint::{self, Array, Arrays};
use crate::fake_hub::{Hub, Model};
use crate::oracle::{self, Tensors};
use crate::project::{FULL, Outcome, Project, repository};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
const HEAD: &str = "lm_head.weight";
const ID: &str = "lab/model";
/// The largest ‖a − b‖ / ‖b‖ of two tensors, and difference of two losses, that count as equal.
const TOLERANCE: f64 = 1e-4;
/// One fixture of each architecture.
const ALL: [&str; 10] =
    ["glm4_moe", "gpt2", "gpt_oss_bf16", "llama", "mixtral", "olmoe", "opt", "qwen3", "qwen3_moe", "qwen3_next"];

/// The tensors of a fixture, which tests change and write.
struct Fixture {
    name: &'static str,
    project: Project,
    arrays: Arrays,
    config: Value,
}

/// The base model's prefix inside the whole model.
fn base(name: &str) -> &'static str {
    if name == "gpt2" { "transformer." } else { "model." }
}

impl Fixture {
    fn new(name: &'static str) -> Self {
        let folder = repository().join("tests/fixtures").join(name);
        let mut arrays = Arrays::new();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            if file.starts_with("model") && file.ends_with(".safetensors") {
                arrays.extend(checkpoint::read(&path));
            }
        }
        let project = Project::new();
        project.copy(&format!("tests/fixtures/{name}/reference.safetensors"), "model/reference.safetensors");
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        // JSON has no infinity, which Python writes.
        let config = serde_json::from_str(&config.replace("Infinity", "1e30")).unwrap();
        let fixture = Self { name, project, arrays, config };
        fixture.write_config();
        fixture
    }

    fn write_config(&self) {
        self.project.file("model/config.json", self.config.to_string());
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config[key] = value.into();
        self.write_config();
    }

    /// Stores the experts of every layer in two tensors, and Mixtral's mixture under the general
    /// name, as transformers 5 has them in memory.
    fn fuse(&mut self) {
        self.renamed(|stored| {
            let stored = stored.replace("block_sparse_moe.", "mlp.");
            ["w1", "w3", "w2"]
                .iter()
                .zip(["gate_proj", "up_proj", "down_proj"])
                .fold(stored, |name, (old, new)| name.replace(&format!(".{old}."), &format!(".{new}.")))
        });
        let own = |name: &str| name.contains(".layers.") && name.contains(".experts.");
        let (experts, mut others): (Arrays, Arrays) =
            std::mem::take(&mut self.arrays).into_iter().partition(|(name, _)| own(name));
        let layers: std::collections::BTreeSet<&str> =
            experts.keys().map(|name| name.split(".experts.").next().unwrap()).collect();
        for layer in layers {
            let gated = experts.contains_key(&format!("{layer}.experts.0.gate_proj.weight"));
            let above: &[&str] = if gated { &["gate_proj", "up_proj"] } else { &["up_proj"] };
            let stored = experts.keys().filter(|name| name.starts_with(&format!("{layer}.experts."))).count();
            let count = stored / (above.len() + 1);
            let of = |e: usize, part: &str| &experts[&format!("{layer}.experts.{e}.{part}.weight")];
            let [rows, columns] = of(0, "up_proj").shape[..] else { panic!("a matrix") };
            let dtype = of(0, "up_proj").dtype;
            let up = (0..count).flat_map(|e| above.iter().flat_map(move |part| of(e, part).data.clone()));
            let up = Array::new(dtype, &[count, above.len() * rows, columns], up.collect());
            let down = (0..count).flat_map(|e| of(e, "down_proj").data.clone()).collect();
            others.insert(format!("{layer}.experts.{}", if gated { "gate_up_proj" } else { "up_proj" }), up);
            others.insert(format!("{layer}.experts.down_proj"), Array::new(dtype, &[count, columns, rows], down));
        }
        self.arrays = others;
    }

    /// The name of the token embedding as it is stored.
    fn embedding(&self) -> String {
        let is = |name: &&String| name.ends_with("embed_tokens.weight") || name.ends_with("wte.weight");
        self.arrays.keys().find(is).unwrap().clone()
    }

    /// The fixture with a head of its own. A fixture without one gets a copy of the embedding.
    fn with_head(name: &'static str) -> Self {
        let mut fixture = Self::new(name);
        if !fixture.arrays.contains_key(HEAD) {
            let embedding = fixture.arrays[&fixture.embedding()].clone();
            fixture.arrays.insert(HEAD.to_string(), embedding);
        }
        fixture
    }

    fn write(&self, file: &str) {
        self.write_some(file, &self.arrays);
    }

    fn write_some(&self, file: &str, arrays: &Arrays) {
        checkpoint::write(&self.project.path(&format!("model/{file}")), arrays);
    }

    fn index(&self, files: &[&str]) {
        let map: Value = files.iter().enumerate().map(|(i, file)| (format!("t{i}"), json!(file))).collect();
        self.project.file(&format!("model/{INDEX}"), json!({ "metadata": {}, "weight_map": map }).to_string());
    }

    /// Applies `rename` to all names.
    fn renamed(&mut self, rename: impl Fn(&str) -> String) {
        self.arrays = std::mem::take(&mut self.arrays).into_iter().map(|(name, a)| (rename(&name), a)).collect();
    }

    fn script(&self, id: &str, options: &str, logits: bool) -> String {
        format!(
            "let model = load_model(\"{id}\", {options});
             let tokens = load_tokens(#{{ ids: \"model/reference.safetensors\", tensor: \"input_ids\" }});
             model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"full\", logits: {logits} }});"
        )
    }

    fn full(&self) -> Tensors {
        oracle::tensors(&self.project.path(&format!("full/{FULL}")))
    }

    /// Checks that every norm output, the logits and the loss are those of the reference, and
    /// returns stderr.
    #[track_caller]
    fn agrees(&self) -> String {
        self.agrees_as("model", "#{}", |script| self.project.script(script))
    }

    #[track_caller]
    fn agrees_as(&self, id: &str, options: &str, run: impl Fn(&str) -> Outcome) -> String {
        let stderr = run(&self.script(id, options, true)).ends(0).stderr;
        let (worst, at) = oracle::compare(&self.project.path("model"), &self.full());
        assert!(worst < TOLERANCE, "{}: relative error {worst:.2e} at {at}", self.name);
        stderr
    }

    /// Checks the mean losses.
    #[track_caller]
    fn gives(&self, expected: [f32; 3]) {
        self.project.script(&self.script("model", "#{}", true)).ends(0);
        let got = &self.full()["mean_nll"];
        let close = got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < TOLERANCE as f32);
        assert!(close && got.len() == 3, "{}: {got:?} instead of {expected:?}", self.name);
    }
}

/// Halves the values of a float tensor: a tensor of the same shape that gives other numbers.
fn halved(array: &Array) -> Array {
    let mut array = array.clone();
    match array.dtype {
        // One less in the exponent; what is too small for it becomes 0.
        Dtype::BF16 => array.data.chunks_exact_mut(2).for_each(|bytes| {
            let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
            let half = if bits & 0x7f80 > 0x80 { bits - 0x80 } else { 0 };
            bytes.copy_from_slice(&half.to_le_bytes());
        }),
        Dtype::F32 => array.data.chunks_exact_mut(4).for_each(|bytes| {
            let half = f32::from_le_bytes(bytes.try_into().unwrap()) / 2.0;
            bytes.copy_from_slice(&half.to_le_bytes());
        }),
        Dtype::F16 => array.data.chunks_exact_mut(2).for_each(|bytes| {
            let bits = u16::from_le_bytes([bytes[0], bytes[1]]);
            let half = if bits & 0x7c00 > 0x400 { bits - 0x400 } else { 0 };
            bytes.copy_from_slice(&half.to_le_bytes());
        }),
        other => panic!("{other:?}"),
    }
    array
}

#[track_caller]
fn says_once(stderr: &str, note: &str) {
    let notes: Vec<_> = stderr.lines().filter(|line| line.starts_with("note: ") && line.contains(note)).collect();
    assert_eq!(notes.len(), 1, "{note:?} in\n{stderr}");
}

#[track_caller]
fn says_nothing(stderr: &str) {
    // Which device computes is told wherever none was asked for, and that a second run replaces what the first has left.
    let of_the_run = |line: &str| line.starts_with("note: device") || line.contains("is there already");
    let of_the_model = |line: &str| line.starts_with("note: ") && !of_the_run(line);
    assert!(!stderr.lines().any(of_the_model), "{stderr}");
}

#[test]
fn a_tied_config_does_not_hide_a_head_of_its_own() {
    for name in ALL {
        let mut fixture = Fixture::new(name);
        if !fixture.arrays.contains_key(HEAD) {
            continue;
        }
        fixture.set("tie_word_embeddings", true);
        fixture.write(SINGLE);
        says_once(
            &fixture.agrees(),
            "ties the head to the embedding, but the files have a `lm_head.weight` of their own",
        );
    }
}

/// For architectures that tie by default or whose fixture has no head, the head here is the
/// embedding with its rows moved by one, and so are the logits.
#[test]
fn a_head_beside_an_embedding_that_is_tied_by_default() {
    for name in ["gpt2", "opt", "qwen3"] {
        let mut fixture = Fixture::with_head(name);
        let head = fixture.arrays.get_mut(HEAD).unwrap();
        let row = head.data.len() / head.shape[0];
        head.data.rotate_left(row);
        fixture.write(SINGLE);
        let stderr = fixture.project.script(&fixture.script("model", "#{}", true)).ends(0).stderr;
        says_once(&stderr, "ties the head to the embedding");
        let (got, mut expected) =
            (fixture.full(), oracle::tensors(&fixture.project.path("model/reference.safetensors")));
        let expected = expected.get_mut("last_logits").unwrap();
        let vocab = fixture.config["vocab_size"].as_u64().unwrap() as usize;
        expected.chunks_exact_mut(vocab).for_each(|logits| logits.rotate_left(1));
        let error = oracle::relative_error(&got["final_logits_last"], expected);
        assert!(error < TOLERANCE, "{name}: {error}");
    }
}

#[test]
fn a_head_that_is_the_embedding_needs_no_word() {
    for name in ["gpt2", "opt", "qwen3"] {
        let fixture = Fixture::with_head(name);
        fixture.write(SINGLE);
        says_nothing(&fixture.agrees());
    }
}

#[test]
fn a_head_serves_as_the_embedding_it_is_tied_to() {
    for name in ["gpt2", "opt", "qwen3"] {
        let mut fixture = Fixture::with_head(name);
        fixture.arrays.remove(&fixture.embedding()).unwrap();
        fixture.write(SINGLE);
        fixture.agrees();
    }
    // Losses by transformers, of the fixtures with their heads and without their embeddings.
    for (name, losses) in [
        ("llama", [5.01327, 5.59741, 5.46088]),
        ("mixtral", [5.17107, 5.40001, 5.23978]),
        ("olmoe", [5.51443, 5.15027, 5.01393]),
        ("gpt_oss_bf16", [5.16376, 5.16183, 5.33963]),
        ("qwen3_moe", [5.33155, 5.64604, 5.24183]),
        ("qwen3_next", [5.25526, 5.4729, 5.03835]),
        ("glm4_moe", [5.07515, 5.4485, 5.19619]),
    ] {
        let mut fixture = Fixture::new(name);
        fixture.set("tie_word_embeddings", true);
        fixture.arrays.remove(&fixture.embedding()).unwrap();
        fixture.write(SINGLE);
        fixture.gives(losses);
    }
}

/// The prefix of the base model is on all names, on none, or on some; also on the head's.
#[test]
fn names_with_and_without_the_prefix_of_the_base_model() {
    for name in ALL {
        let base = base(name);
        let bare = |stored: &str| stored.strip_prefix(base).unwrap_or(stored).to_string();
        let with = |stored: &str| format!("{base}{}", bare(stored));
        let head = |stored: &str| stored == HEAD;
        let others = |stored: &str| stored.len().is_multiple_of(2);
        let spellings: [&dyn Fn(&str) -> String; 4] = [
            &|stored| if head(stored) { stored.into() } else { bare(stored) },
            &|stored| if head(stored) { stored.into() } else { with(stored) },
            &|stored| with(stored),
            &|stored| if others(stored) && !head(stored) { with(stored) } else { bare(stored) },
        ];
        for spelling in spellings {
            let mut fixture = Fixture::new(name);
            fixture.renamed(spelling);
            fixture.write(SINGLE);
            says_nothing(&fixture.agrees());
        }
    }
}

/// LlamaForQuestionAnswering calls the base model `transformer`; no other class of transformers finds such tensors.
#[test]
fn names_of_a_model_for_question_answering_are_told() {
    let mut fixture = Fixture::new("llama");
    fixture.renamed(|stored| stored.replacen("model.", "transformer.", 1));
    fixture.write(SINGLE);
    says_once(&fixture.agrees(), "AutoModelForQuestionAnswering alone finds them");
}

/// The names are those of `save_pretrained(…, save_original_format=False)` in transformers 5.
#[test]
fn experts_that_are_stored_fused_are_read_one_by_one() {
    for name in ["glm4_moe", "mixtral", "olmoe", "qwen3_moe", "qwen3_next"] {
        let mut fixture = Fixture::new(name);
        fixture.fuse();
        assert!(fixture.arrays.keys().any(|name| name.ends_with("mlp.experts.gate_up_proj")), "{name}");
        fixture.write(SINGLE);
        says_nothing(&fixture.agrees());
        // Without the base model's prefix, too.
        fixture.renamed(|stored| stored.strip_prefix("model.").unwrap_or(stored).to_string());
        fixture.write(SINGLE);
        says_nothing(&fixture.agrees());
    }
}

/// The same of architectures with names of their own for other tensors of a mixture, which were
/// missing then.
#[test]
fn all_names_of_mixtures_in_the_memory_of_transformers_are_read() {
    let renamings: [(&str, &[(&str, &str)]); 9] = [
        ("afmoe", &[]),
        ("hunyuan_v1_moe", &[]),
        ("minimax_m2", &[]),
        ("ernie4_5_moe", &[("mlp.moe_statics.", "mlp.gate.moe_statics.")]),
        (
            "hy_v3",
            &[
                ("router.gate.", "gate."),
                ("expert_bias", "e_score_correction_bias"),
                ("shared_mlp.", "shared_experts."),
            ],
        ),
        (
            "granitemoe",
            &[
                ("router.layer.", "router."),
                ("input_linear.weight", "experts.gate_up_proj"),
                ("output_linear.weight", "experts.down_proj"),
            ],
        ),
        ("phimoe", &[("mlp.gate.", "mlp.router.")]),
        ("gpt_neox", &[("embed_out.", "lm_head.")]),
        ("nemotron_h", &[("backbone.", "model.")]),
    ];
    for (name, renamings) in renamings {
        let mut fixture = Fixture::new(name);
        if name != "granitemoe" {
            fixture.fuse();
        }
        fixture
            .renamed(|stored| renamings.iter().fold(stored.to_string(), |name, (own, kept)| name.replace(own, kept)));
        fixture.write(SINGLE);
        fixture.agrees();
    }
}

/// As transformers 5 saves the base model of Gemma 4, and the language model of Qwen3.5 alone.
#[test]
fn names_of_language_models_inside_larger_ones_are_known() {
    let mut gemma = Fixture::new("gemma4");
    gemma.renamed(|stored| stored.replacen("model.language_model.", "language_model.", 1));
    assert!(gemma.arrays.keys().any(|name| name.starts_with("language_model.layers.")));
    gemma.write(SINGLE);
    gemma.agrees();
    for name in ["qwen3_5", "qwen3_5_moe"] {
        let mut text = Fixture::new(name);
        text.config = text.config["text_config"].clone();
        text.write_config();
        assert!(text.arrays.keys().any(|name| name.starts_with("model.language_model.layers.")), "{name}");
        text.write(SINGLE);
        text.agrees();
    }
}

#[test]
fn fused_experts_of_another_shape_are_told() {
    let mut fixture = Fixture::new("qwen3_moe");
    fixture.fuse();
    let fused = "model.layers.0.mlp.experts.gate_up_proj";
    fixture.arrays.get_mut(fused).unwrap().shape.swap(1, 2);
    fixture.write(SINGLE);
    let outcome = fixture.project.script(&fixture.script("model", "#{}", false)).ends(3);
    assert!(outcome.stderr.contains(fused) && outcome.stderr.contains("has shape"), "{}", outcome.stderr);
}

/// If one tensor has two names, the first in alphabetical order is used: `embed_tokens` and
/// `layers` before `model`, but `model.norm` before `norm`.
#[test]
fn one_tensor_under_two_names() {
    for name in ALL {
        let (base, mut fixture) = (base(name), Fixture::new(name));
        let mut both = Arrays::new();
        for (stored, array) in &fixture.arrays {
            let bare = stored.strip_prefix(base).unwrap_or(stored);
            let is_beside = stored == HEAD || bare.contains("experts") || stored.starts_with("mtp");
            if is_beside || !matches!(array.dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32) {
                both.insert(stored.clone(), array.clone());
                continue;
            }
            let mut names = [bare.to_string(), format!("{base}{bare}")];
            names.sort();
            let [first, last] = names;
            both.extend([(first, array.clone()), (last, halved(array))]);
        }
        fixture.arrays = both;
        fixture.write(SINGLE);
        says_once(&fixture.agrees(), "tensors are there under two names");
    }
}

#[test]
fn of_tensors_in_several_files_the_last_counts() {
    for name in ["llama", "gpt2", "mixtral"] {
        let fixture = Fixture::new(name);
        let halves: Arrays = fixture.arrays.iter().map(|(name, array)| (name.clone(), halved(array))).collect();
        fixture.write_some("model-00001-of-00002.safetensors", &halves);
        fixture.write("model-00002-of-00002.safetensors");
        // The map of the index may say otherwise: it names the files and no more.
        fixture.index(&["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"]);
        says_once(&fixture.agrees(), "others are in several files: what the last one by name has is read");
    }
}

/// A fixture as a single file is used beside an index that names files with other weights, and
/// beside indices that name missing files or none.
fn beside_a_single_file(case: usize) -> Fixture {
    let fixture = Fixture::new("llama");
    fixture.write(SINGLE);
    match case {
        0 => {
            let halves: Arrays = fixture.arrays.iter().map(|(name, array)| (name.clone(), halved(array))).collect();
            fixture.write_some("model-00001-of-00001.safetensors", &halves);
            fixture.index(&["model-00001-of-00001.safetensors"]);
        }
        1 => fixture.index(&["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]),
        2 => fixture.index(&[SINGLE, "gone.safetensors"]),
        _ => drop(fixture.project.file(&format!("model/{INDEX}"), "{\"weight_map\": ")),
    }
    fixture
}

#[test]
fn a_single_file_counts_and_not_an_index_beside_it() {
    for case in 0..4 {
        let fixture = beside_a_single_file(case);
        says_once(&fixture.agrees(), "model.safetensors is read and model.safetensors.index.json");
        let whole = fixture.project.script("print(load_model(\"model\").files.to_json());").ok();
        assert!(!whole.contains("index"), "{whole}");
    }
    let fixture = Fixture::new("llama");
    fixture.write(SINGLE);
    fixture.index(&[SINGLE]);
    says_nothing(&fixture.agrees());
}

/// The same holds on the hub: downloaded, from the cache, without a network, and streamed. Nothing
/// of the other files is fetched.
#[test]
fn a_single_file_on_the_hub_counts_and_not_an_index_beside_it() {
    for case in [0, 1] {
        let fixture = beside_a_single_file(case);
        let hub = Hub::start().with(ID, Model::Folder(fixture.project.path("model")));
        let run = |script: &str| hub.run(&fixture.project, script, None);
        let note = "model.safetensors is read and model.safetensors.index.json";
        says_once(&fixture.agrees_as(ID, "#{ stream: true }", run), note);
        says_once(&fixture.agrees_as(ID, "#{}", run), note);
        let fetched = |path: &std::path::PathBuf| path.file_name().unwrap() == SINGLE;
        assert!(hub.cdn.sent().keys().all(fetched));
        fixture.agrees_as(ID, "#{}", run);
        fixture.agrees_as(ID, "#{}", |script| {
            let mut command = hub.command(&fixture.project, script);
            Outcome::of(command.env("HF_HUB_OFFLINE", "1").output().unwrap())
        });
        let estimate = |id: &str| format!("print(estimate_vram(\"{id}\", #{{ logits: true }}).read_bytes);");
        assert_eq!(run(&estimate(ID)).ok(), fixture.project.script(&estimate("model")).ok());
    }
}

/// The cache has shards from before the repository had a single file. The commit decides which are
/// used.
#[test]
fn shards_in_the_cache_do_not_hide_a_single_file() {
    let fixture = Fixture::new("llama");
    let halves: Arrays = fixture.arrays.iter().map(|(name, array)| (name.clone(), halved(array))).collect();
    fixture.write_some("a.safetensors", &halves);
    fixture.index(&["a.safetensors"]);
    let hub = Hub::start().with(ID, Model::Folder(fixture.project.path("model")));
    hub.run(&fixture.project, &fixture.script(ID, "#{}", true), None).ok();
    fixture.write(SINGLE);
    // The note that there is none is of the same commit, which cannot change but for this test.
    std::fs::remove_dir_all(fixture.project.path("hf/hub/models--lab--model/.no_exist")).unwrap();
    fixture.agrees_as(ID, "#{}", |script| hub.run(&fixture.project, script, None));
}

/// A base model as AutoModel saves it has no head, and names without the prefix.
fn base_model(name: &'static str) -> Fixture {
    let mut fixture = Fixture::new(name);
    fixture.set("tie_word_embeddings", false);
    fixture.arrays.remove(HEAD);
    let base = base(name);
    fixture.renamed(|stored| stored.strip_prefix(base).unwrap_or(stored).to_string());
    fixture.write(SINGLE);
    fixture
}

#[test]
fn a_base_model_gives_norms_and_no_logits() {
    for name in ALL {
        let fixture = base_model(name);
        let project = &fixture.project;
        project.script(&fixture.script("model", "#{}", false)).ends(0);
        let mut got = fixture.full();
        let reference = oracle::tensors(&project.path("model/reference.safetensors"));
        got.extend([
            ("final_logits_last".to_string(), reference["last_logits"].clone()),
            ("mean_nll".to_string(), reference["mean_nll"].clone()),
        ]);
        let (worst, at) = oracle::compare(&project.path("model"), &got);
        assert!(worst < TOLERANCE, "{name}: relative error {worst:.2e} at {at}");
        std::fs::remove_dir_all(project.path("full")).unwrap();
        let message = "there is no `lm_head.weight`, and config.json does not tie it to the embedding";
        let hint = "norm outputs need no logits";
        project.refuses(&fixture.script("model", "#{}", true), 3, message, hint);
        project.refuses("estimate_vram(\"model\", #{ logits: true });", 3, message, hint);
        project.script("estimate_vram(\"model\");").ends(0);
        let plan = |logits: bool| {
            project.file("plan.rhai", fixture.script("model", "#{}", logits)).run(&["plan", "plan.rhai"])
        };
        assert!(plan(false).ok().contains("Total: 1 pass"));
        let refused = plan(true).ends(3).stderr;
        assert!(refused.contains(message), "{refused}");
    }
}

#[test]
fn a_base_model_on_the_hub() {
    let fixture = base_model("llama");
    let hub = Hub::start().with(ID, Model::Folder(fixture.project.path("model")));
    for options in ["#{}", "#{ stream: true }"] {
        hub.run(&fixture.project, &fixture.script(ID, options, false), None).ends(0);
        let outcome = hub.run(&fixture.project, &fixture.script(ID, options, true), None).ends(3);
        assert!(outcome.stderr.contains("there is no `lm_head.weight`"), "{}", outcome.stderr);
    }
}

/// Sizes are those of the stored weights.
#[test]
fn a_base_model_has_no_parameters_of_a_head() {
    let (whole, base) = (Fixture::new("llama"), base_model("llama"));
    whole.write(SINGLE);
    let count = |fixture: &Fixture, what: &str| -> i64 {
        fixture.project.script(&format!("print({what});")).ok().trim().parse().unwrap()
    };
    let head = 128 * 32;
    for (what, bytes) in [
        ("load_model(\"model\").parameters", 1),
        ("load_model(\"model\").weight_bytes", 2),
        ("estimate_vram(\"model\").parameters", 1),
        ("estimate_vram(\"model\").download_bytes", 2),
    ] {
        assert_eq!(count(&whole, what) - count(&base, what), head * bytes, "{what}");
    }
}

/// Only requested weights are needed: without logits neither the FFN of the last layer nor the last
/// norm.
#[test]
fn weights_that_only_logits_need() {
    for missing in ["model.norm.weight", "model.layers.3.mlp.down_proj.weight", HEAD] {
        let mut fixture = Fixture::new("llama");
        fixture.arrays.remove(missing).unwrap();
        fixture.write(SINGLE);
        fixture.project.script(&fixture.script("model", "#{}", false)).ends(0);
        std::fs::remove_dir_all(fixture.project.path("full")).unwrap();
        let script = fixture.script("model", "#{}", true);
        let outcome = fixture.project.script(&script).ends(3);
        assert!(outcome.stderr.contains(&format!("`{missing}`")), "{}", outcome.stderr);
    }
}

/// −∞ is valid if only its exponential enters, or if the largest are chosen. The losses are those
/// of transformers.
#[test]
fn minus_infinity_where_it_means_nothing_at_all() {
    for (name, tensor, index, losses) in [
        ("qwen3_next", "model.layers.0.linear_attn.A_log", 1, [5.33799, 5.225, 5.02901]),
        ("qwen3_next", "model.layers.0.linear_attn.dt_bias", 1, [5.33799, 5.225, 5.02901]),
        ("gpt_oss_bf16", "model.layers.0.self_attn.sinks", 2, [5.55372, 5.3704, 5.28652]),
        ("gpt_oss_bf16", "model.layers.1.self_attn.sinks", 0, [5.59, 5.32043, 5.23104]),
        ("glm4_moe", "model.layers.1.mlp.gate.e_score_correction_bias", 3, [5.3282, 4.92253, 5.13061]),
    ] {
        let mut fixture = Fixture::new(name);
        let change = |fixture: &mut Fixture, value: f32| {
            let array = fixture.arrays.get_mut(tensor).unwrap();
            let width = array.data.len() / array.shape[0];
            // bf16 is the upper half of f32.
            array.data[width * index..][..width].copy_from_slice(&value.to_le_bytes()[4 - width..]);
            fixture.write(SINGLE);
        };
        change(&mut fixture, f32::NEG_INFINITY);
        fixture.gives(losses);
        std::fs::remove_dir_all(fixture.project.path("full")).unwrap();
        for value in [f32::INFINITY, f32::NAN] {
            change(&mut fixture, value);
            let message = format!("tensor `{tensor}`: element {index} is {value}");
            fixture.project.refuses(&fixture.script("model", "#{}", false), 3, &message, "the weights are damaged");
        }
    }
}

/// The other weights of these tests really differ.
#[test]
fn halves_are_halves() {
    let values = [1.0f32, -3.5, 0.0, 1e-30];
    let f32s = Array::new(Dtype::F32, &[4], values.iter().flat_map(|v| v.to_le_bytes()).collect());
    let bf16s = Array::bf16(&[4], values.map(|v| (v.to_bits() >> 16) as u16));
    let read = |array: &Array| -> Vec<f32> {
        let width = array.data.len() / 4;
        let widened = |bytes: &[u8]| f32::from_le_bytes([&[0; 4][width..], bytes].concat().try_into().unwrap());
        array.data.chunks_exact(width).map(widened).collect()
    };
    for array in [f32s, bf16s] {
        let (before, after) = (read(&array), read(&halved(&array)));
        assert!(before.iter().zip(&after).all(|(before, after)| before / 2.0 == *after), "{before:?} {after:?}");
    }
}
