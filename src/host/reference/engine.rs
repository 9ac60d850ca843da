//! Primitives of the engine, as scripts see them.

use super::primitive::{Area, Opt, Primitive, opt};

const DTYPE: Opt = opt(
    "dtype",
    "\"f32\" | \"bf16\"",
    "\"f32\"",
    "how products are computed: in f32, or with inputs that are rounded to bf16 where that is faster; weights are read as they are \
     stored and activations are f32 in both",
);
const DEVICE: Opt = opt(
    "device",
    "string",
    "\"auto\"",
    "where to compute: \"auto\", \"cpu\", \"cuda\" (all GPUs), \"cuda:0\" or \"cuda:0,2\": docs/gpu.md",
);
const MAX_VRAM: Opt =
    opt("max_vram", "bytes", "what is free", "memory of a GPU that may be used; a number or \"24GB\"");
const REVISION: Opt = opt("revision", "string", "", "branch, tag or commit on the hub");
const CHUNK_LAYERS: Opt = opt("chunk_layers", "int", "2", "layers of weights in memory at once, at most");
const STREAM: Opt =
    opt("stream", "bool", "false", "a model of the hub is read by ranges when it is needed; nothing is put on disk");
const MEMORY_BUDGET: Opt =
    opt("memory_budget", "bytes", "\"1GiB\"", "workspace beside weights and hidden states; a number or \"512MiB\"");
const LOGITS: Opt =
    opt("logits", "bool", "false", "also compute the loss per sequence, which reads the head's weights");

pub(super) const AREA: Area = Area {
    title: "Models, tokens, activations",
    about: "Opening a model, reading a text, and the one pass through the model. With a machine in front they run there.",
    primitives: &[
        Primitive {
            name: "load_model",
            signatures: &[
                "load_model(id: string, options?: map) -> model",
                "load_model(gpu: gpu, id: string, options?: map) -> model",
            ],
            summary: "Opens a model: a folder with config.json and safetensors or PyTorch files, a GGUF file, or a hub id. Only headers \
                      are read; weights are read when they are needed.",
            options: &[DTYPE, DEVICE, REVISION, CHUNK_LAYERS, STREAM, MAX_VRAM],
            example: r#"let model = load_model("examples/shakespeare-olmoe", #{ dtype: "f32" });
print(`${format_count(model.num_layers, "layer")}, ${format_count(model.num_experts, "expert")}`);"#,
        },
        Primitive {
            name: "check_text",
            signatures: &["check_text(path: string) -> int"],
            summary: "Checks that a text of this machine is there and may be read, before anything is downloaded or paid for; gives its \
                      length in bytes. The error is the one that load_tokens would give.",
            options: &[],
            example: r#"print(check_text("examples/README.md") > 0);"#,
        },
        Primitive {
            name: "load_tokens",
            signatures: &["load_tokens(options: map) -> tokens"],
            summary: "Reads token ids, or cuts a text into windows of tokens with the model's own tokenizer.",
            options: &[
                opt("ids", "string | array", "", "a JSON file, a safetensors file, or an array of arrays of ids"),
                opt("tensor", "string", "\"input_ids\"", "name of the tensor in a safetensors file"),
                opt(
                    "text",
                    "string",
                    "",
                    "a file of text, JSON, CSV or Parquet (docs/text.md) in the project, or where --allow-read says; needs model, num_sequences, sequence_length",
                ),
                opt(
                    "dataset",
                    "string",
                    "",
                    "a dataset on the hub, in place of text, such as \"HuggingFaceFW/fineweb-edu\"",
                ),
                opt("config", "string", "", "configuration of the dataset, such as \"sample-10BT\""),
                opt("split", "string", "\"train\"", "split of the dataset"),
                opt(
                    "revision",
                    "string",
                    "\"main\"",
                    "branch, tag or commit of the dataset; the result holds the commit",
                ),
                opt("file", "string", "", "file of the dataset, in place of config and split"),
                opt(
                    "format",
                    "\"text\" | \"json\" | \"csv\" | \"tsv\" | \"unquoted\" | \"parquet\"",
                    "",
                    "what the file is, where its name and its first bytes do not tell",
                ),
                opt(
                    "column",
                    "string",
                    "\"text\"",
                    "key of JSON objects (\"meta.text\" of objects in them) or column of a table",
                ),
                opt("model", "model", "", "whose tokenizer.json cuts the text"),
                opt("num_sequences", "int", "", "number of windows"),
                opt("sequence_length", "int", "", "tokens per window"),
                opt("skip_sequences", "int", "0", "windows left out at the beginning"),
                opt("shuffle", "bool", "false", "documents in random order"),
                opt("seed", "int", "0", "seed of that order"),
                opt(
                    "windows",
                    "string",
                    "\"tokens\", or \"documents\" with separator",
                    "\"tokens\" over all documents, \"documents\" one window each, or \"text\" cut before tokenising",
                ),
                opt("overlap", "float", "0.0", "share of a window that the next one repeats, 0 to below 1"),
                opt("separator", "string", "", "splits the text into documents; each gives its first tokens"),
                opt("straight_quotes", "bool", "false", "typographic quotes become ASCII ones first"),
                opt("add_special_tokens", "bool", "true", "the special tokens that tokenizer.json adds, such as <s>"),
            ],
            example: r#"let tokens = load_tokens(#{ ids: [[1, 2, 3], [4, 5, 6]] });
print(`${format_count(tokens.num_sequences, "sequence")} of ${tokens.sequence_length}`);"#,
        },
        Primitive {
            name: "extract_layernorms",
            signatures: &["extract_layernorms(model: model, tokens: tokens, options?: map) -> activations"],
            summary: "Runs the model over the tokens, reading every weight once, and keeps what every later criterion needs of each \
                      norm output: extremes, and counts on a ladder of thresholds.",
            options: &[
                opt("thresholds", "float | array", "[]", "rungs beside 3, 3.5, … 7, 8, 10, 12, 16, … 1024"),
                opt(
                    "keep",
                    "\"stats\" | \"full\"",
                    "\"stats\"",
                    "\"full\" also writes activations.safetensors to `out`",
                ),
                opt("out", "string", "", "folder for keep: \"full\""),
                LOGITS,
                MEMORY_BUDGET,
                opt(
                    "checkpoint",
                    "string",
                    "",
                    "a file of the project from which a run that was cut off goes on, and one that failed behind the pass takes it up",
                ),
                opt("checkpoint_layers", "int", "by time", "layers between two states that are left there"),
            ],
            example: r#"let model = load_model("examples/shakespeare-olmoe");
let acts = model.extract_layernorms(load_tokens(#{ ids: [[5, 6, 7, 8]] }), #{ thresholds: [2.5] });
print(acts.norms.len());"#,
        },
        Primitive {
            name: "estimate_vram",
            signatures: &[
                "estimate_vram(id: string, options?: map) -> map",
                "estimate_vram(gpu: gpu, id: string, options: map) -> map",
            ],
            summary: "What an analysis will need in bytes and operations, from config.json and, where they are at hand, the headers of \
                      the weights.",
            options: &[
                DTYPE,
                DEVICE,
                REVISION,
                CHUNK_LAYERS,
                STREAM,
                MAX_VRAM,
                opt("num_sequences", "int", "16", "sequences of the analysis"),
                opt("sequence_length", "int", "2048", "tokens per sequence"),
                MEMORY_BUDGET,
                LOGITS,
                opt("gpus", "int", "1", "GPUs that share the sequences; vram_bytes is what each needs"),
            ],
            example: r#"let e = estimate_vram("examples/shakespeare-olmoe", #{ num_sequences: 4, sequence_length: 128 });
print(`reads ${format_bytes(e.read_bytes)}, needs ${format_bytes(e.total_bytes)} of memory`);"#,
        },
        Primitive {
            name: "miniature_model",
            signatures: &["miniature_model(name: string) -> map", "miniature_model(gpu: gpu, name: string) -> map"],
            summary: "Makes a small synthetic model with planted outlier features and gives its path, a text it can read, and the right \
                      answer. Names: olmoe, gpt_oss, qwen3_moe, mixtral, qwen3_next, glm4_moe, gpt_oss_large; and for other kinds of layers \
                      deepseek_v3 (latent attention), gemma2 (norms around sublayers, capped scores), gemma4 (embeddings per layer, \
                      shared keys), phi (attention beside the feed-forward network), bloom (linear biases), nemotron_h (Mamba-2), \
                      lfm2 (short convolutions).",
            options: &[],
            example: r#"let made = miniature_model("olmoe");
print(`${made.path}: ${made.expected_classification} at ${made.expected_dims}`);"#,
        },
    ],
};
