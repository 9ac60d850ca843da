//! Tests that weights are streamed: memory does not grow with the number of layers, and only the
//! needed bytes are read, which are counted here from the shapes of the tensors.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::checkpoint::{self, Array, Arrays};
use crate::project::Project;

/// Peak memory of a model with four times the layers may be this much of the smaller one's.
const PEAK_GROWTH: f64 = 1.10;

/// bf16.
const BYTES: usize = 2;
pub const VOCAB: usize = 256;

/// Sequences of ids below `VOCAB`.
const IDS: &str = "[[1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 9, 200, 9, 1, 1, 255]]";
/// Different ids among them.
const USED_ROWS: usize = 11;

/// Numbers between -1/16 and 1/16, as bf16 bits: small enough for any depth, different enough for any router.
pub fn noise(name: &str, shape: &[usize]) -> Array {
    let mut state = name.bytes().fold(0x9e37_79b9_u32, |state, byte| (state ^ byte as u32).wrapping_mul(0x0100_0193));
    let bits = (0..shape.iter().product()).map(|_: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Sign and mantissa at random, exponents -8 to -5.
        let exponent = 119 + (state >> 30) as u16;
        (state >> 16) as u16 & 0x807f | exponent << 7
    });
    Array::bf16(shape, bits)
}

pub fn ones(shape: &[usize]) -> Array {
    Array::bf16(shape, std::iter::repeat_n(0x3f80, shape.iter().product()))
}

/// A model of the Llama family: widths of hidden and feed-forward layers, experts (0: dense) and layers.
pub struct Shape {
    pub hidden: usize,
    pub inner: usize,
    pub experts: usize,
    pub layers: usize,
}

/// Eight megabytes per layer: 4 * 512² in the attention and 3 * 512 * 2048 in the feed-forward network.
const DENSE: Shape = Shape { hidden: 512, inner: 2048, experts: 0, layers: 4 };
/// Many experts, of which few tokens choose few.
const SPARSE: Shape = Shape { hidden: 32, inner: 64, experts: 64, layers: 3 };

impl Shape {
    fn config(&self) -> Value {
        let mut config = json!({
            "model_type": "llama", "vocab_size": VOCAB, "hidden_size": self.hidden, "intermediate_size": self.inner,
            "num_hidden_layers": self.layers, "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false,
        });
        if self.experts > 0 {
            config["model_type"] = "mixtral".into();
            config["num_local_experts"] = self.experts.into();
            config["num_experts_per_tok"] = 2.into();
        }
        config
    }

    fn layer(&self, layer: usize) -> Arrays {
        let (hidden, inner) = (self.hidden, self.inner);
        let mut arrays = Arrays::new();
        let prefix = format!("model.layers.{layer}.");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            arrays.insert(format!("{prefix}{norm}.weight"), ones(&[hidden]));
        }
        let mut add =
            |name: String, shape: [usize; 2]| arrays.insert(format!("{prefix}{name}.weight"), noise(&name, &shape));
        for part in ["q", "k", "v", "o"] {
            add(format!("self_attn.{part}_proj"), [hidden, hidden]);
        }
        if self.experts == 0 {
            add("mlp.gate_proj".into(), [inner, hidden]);
            add("mlp.up_proj".into(), [inner, hidden]);
            add("mlp.down_proj".into(), [hidden, inner]);
        } else {
            add("block_sparse_moe.gate".into(), [self.experts, hidden]);
            for e in 0..self.experts {
                add(format!("block_sparse_moe.experts.{e}.w1"), [inner, hidden]);
                add(format!("block_sparse_moe.experts.{e}.w2"), [hidden, inner]);
                add(format!("block_sparse_moe.experts.{e}.w3"), [inner, hidden]);
            }
        }
        arrays
    }

    /// The checkpoint as `model/`, one file per layer, as large models have them.
    pub fn write(&self, project: &Project) {
        project.file("model/config.json", self.config().to_string());
        let mut rest = Arrays::new();
        rest.insert("model.embed_tokens.weight".into(), noise("embed_tokens", &[VOCAB, self.hidden]));
        rest.insert("model.norm.weight".into(), ones(&[self.hidden]));
        rest.insert("lm_head.weight".into(), noise("lm_head", &[VOCAB, self.hidden]));
        let mut map = serde_json::Map::new();
        let mut file = |name: String, arrays: &Arrays| {
            checkpoint::write(&project.path("model").join(&name), arrays);
            map.extend(arrays.keys().map(|tensor| (tensor.clone(), name.clone().into())));
        };
        file("model-rest.safetensors".into(), &rest);
        for layer in 0..self.layers {
            file(layer_file(layer), &self.layer(layer));
        }
        project.file("model/model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    }

    fn attention_bytes(&self) -> usize {
        (2 * self.hidden + 4 * self.hidden * self.hidden) * BYTES
    }

    fn mlp_bytes(&self) -> usize {
        3 * self.hidden * self.inner * BYTES
    }

    fn embedding_bytes(&self) -> usize {
        USED_ROWS * self.hidden * BYTES
    }

    fn head_bytes(&self) -> usize {
        (VOCAB + 1) * self.hidden * BYTES
    }
}

fn layer_file(layer: usize) -> String {
    format!("model-layer-{layer:02}.safetensors")
}

/// Measurements and expert coverage of one run in a process of its own.
fn run(project: &Project, load: &str, extract: &str) -> (Value, Value) {
    let script = format!(
        "let model = load_model(\"model\", {load});
         let acts = model.extract_layernorms(load_tokens(#{{ ids: {IDS} }}), {extract});
         print(#{{ m: acts.measurements, c: acts.expert_coverage }}.to_json());"
    );
    let mut json = project.script(&script).json();
    (json["m"].take(), json["c"].take())
}

#[track_caller]
fn reads(measurements: &Value, bytes: usize) {
    assert_eq!((&measurements["bytes_read"], &measurements["bytes_needed"]), (&json!(bytes), &json!(bytes)));
}

#[test]
fn four_times_the_layers_in_the_same_memory() {
    let peak = |layers: usize| {
        let shape = Shape { layers, ..DENSE };
        let project = Project::new();
        shape.write(&project);
        let needed = shape.embedding_bytes() + layers * shape.attention_bytes() + (layers - 1) * shape.mlp_bytes();
        assert!(needed > layers * 6_000_000, "the layers are large: {needed} bytes");
        // Whether the reader is as far ahead as it may be is a matter of timing: the largest of a few runs tells.
        let once = |_| {
            let (measurements, _) = run(&project, "#{}", "#{ memory_budget: \"8MiB\" }");
            reads(&measurements, needed);
            measurements["peak_memory_bytes"].as_f64().unwrap()
        };
        (0..4).map(once).fold(0.0, f64::max)
    };
    let (four, sixteen) = (peak(4), peak(16));
    println!("peak memory: {four} bytes with 4 layers, {sixteen} with 16");
    // Where the system does not count memory, both are 0.
    assert!(sixteen <= PEAK_GROWTH * four, "{four} bytes with 4 layers, {sixteen} with 16");
    assert!(cfg!(not(target_os = "linux")) || four > 2.0 * DENSE.mlp_bytes() as f64);
}

#[test]
fn bytes_read_are_bytes_needed() {
    let project = Project::new();
    let shape = Shape { hidden: 64, inner: 96, ..DENSE };
    shape.write(&project);
    let layers = shape.embedding_bytes() + 4 * shape.attention_bytes() + 3 * shape.mlp_bytes();
    // However many layers may be in memory at once.
    for chunk in ["#{}", "#{ chunk_layers: 1 }", "#{ chunk_layers: 9 }", "#{ dtype: \"bf16\" }"] {
        reads(&run(&project, chunk, "#{}").0, layers);
        reads(&run(&project, chunk, "#{ logits: true }").0, layers + shape.mlp_bytes() + shape.head_bytes());
    }
    // However the sequences are batched.
    reads(&run(&project, "#{}", "#{ memory_budget: 40000 }").0, layers);
}

/// Experts that got a token, per layer.
fn chosen(coverage: &Value) -> Vec<BTreeSet<usize>> {
    let of_layer = |layer: &Value| {
        let tokens = layer["tokens_per_expert"].as_array().unwrap();
        assert_eq!(tokens.len(), SPARSE.experts);
        assert_eq!(
            tokens.iter().map(|n| n.as_u64().unwrap()).sum::<u64>(),
            2 * 16,
            "two experts for each of 16 tokens"
        );
        tokens.iter().enumerate().filter(|(_, n)| n.as_u64() > Some(0)).map(|(e, _)| e).collect()
    };
    coverage.as_array().unwrap().iter().map(of_layer).collect()
}

#[test]
fn experts_that_no_token_chose_are_not_read() {
    let project = Project::new();
    SPARSE.write(&project);
    let expert = SPARSE.mlp_bytes();
    let router = SPARSE.experts * SPARSE.hidden * BYTES;
    let all = chosen(&run(&project, "#{}", "#{ logits: true }").1);
    assert_eq!(all.len(), SPARSE.layers);
    for (options, computed) in [("#{}", SPARSE.layers - 1), ("#{ logits: true }", SPARSE.layers)] {
        let (measurements, coverage) = run(&project, "#{}", options);
        let chosen = &all[..computed];
        // Without the last layer there is none.
        assert_eq!(coverage.as_array().unwrap().len(), if computed == SPARSE.layers { computed } else { 0 });
        let experts: usize = chosen.iter().map(BTreeSet::len).sum();
        assert!(experts >= 2 * computed && experts < computed * SPARSE.experts, "{chosen:?}");
        let head = if computed == SPARSE.layers { SPARSE.head_bytes() } else { 0 };
        let layers = SPARSE.layers * SPARSE.attention_bytes() + computed * router;
        reads(&measurements, SPARSE.embedding_bytes() + layers + experts * expert + head);
    }

    // Broken numbers in an expert that no token chose do no harm; in a chosen one they are found.
    let before = run(&project, "#{}", "#{}").0;
    let chosen = all;
    let spoil = |arrays: &mut Arrays, e: usize| {
        let name = format!("model.layers.0.block_sparse_moe.experts.{e}.w2.weight");
        arrays.get_mut(&name).unwrap().data.fill(0xff);
    };
    let file = project.path("model").join(layer_file(0));
    let unchosen = (0..SPARSE.experts).filter(|e| !chosen[0].contains(e));
    checkpoint::change(&file, |arrays| unchosen.for_each(|e| spoil(arrays, e)));
    assert_eq!(run(&project, "#{}", "#{}").0["bytes_read"], before["bytes_read"]);
    checkpoint::change(&file, |arrays| spoil(arrays, *chosen[0].first().unwrap()));
    let script = format!("load_model(\"model\").extract_layernorms(load_tokens(#{{ ids: {IDS} }}))");
    project.refuses(&script, 3, "is NaN", "the weights are damaged");
}
