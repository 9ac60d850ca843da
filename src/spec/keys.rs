//! Keys of `config.json` that have no effect on a forward pass, with the values for which this
//! holds and its source.
//!
//! The table lets a key go unread: `config.rs` refuses every key that neither the architecture
//! reads nor a row here covers, and a key of a row that has another value. Sources are the classes
//! and files of transformers 5.23. That a key is "not read" means that nothing accesses it while a
//! model of this architecture is made and run, and that logits with and without it are equal to the
//! bit. `docs/config_keys.md` shows the same table.

use serde_json::Value;

/// The values of a key that have no effect.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// Any value.
    Any,
    /// Any value. If it is more than false, 0 or empty, the user is told that it has no effect.
    Told,
    /// The values false and 0, and empty texts, lists and objects.
    Off,
    True,
    Number(f64),
    /// One of these texts.
    Text(&'static [&'static str]),
    /// A list that names full attention for every layer.
    AllFull,
    /// The settings of bitsandbytes in which nothing is stored in 4 or 8 bits, as merged adapters
    /// keep them.
    NothingQuantised,
    /// No value: the key belongs to another kind of model.
    Never,
}

impl At {
    pub(super) fn accepts(self, value: &Value) -> bool {
        match self {
            At::Any | At::Told => true,
            At::Off => off(value),
            At::True => *value == Value::Bool(true),
            At::Number(number) => value.as_f64() == Some(number),
            At::Text(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
            At::AllFull => {
                value.as_array().is_some_and(|list| list.iter().all(|item| item.as_str() == Some("full_attention")))
            }
            At::NothingQuantised => {
                let packed = |bits: &str| value.get(bits).is_some_and(|loaded| !off(loaded));
                value.get("quant_method").and_then(Value::as_str) == Some("bitsandbytes")
                    && !["load_in_4bit", "load_in_8bit", "_load_in_4bit", "_load_in_8bit"].into_iter().any(packed)
            }
            At::Never => false,
        }
    }

    /// Whether the user should be told that `value` has no effect.
    pub(super) fn tells(self, value: &Value) -> bool {
        matches!(self, At::Told | At::NothingQuantised) && !off(value)
    }

    /// The values in words.
    pub(super) fn words(self) -> String {
        match self {
            At::Any | At::Told => "any".to_string(),
            At::Off => "false, 0, null or empty".to_string(),
            At::True => "true".to_string(),
            At::Number(number) => number.to_string(),
            At::Text(texts) => texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(" or "),
            At::AllFull => "\"full_attention\" for every layer".to_string(),
            At::NothingQuantised => "bitsandbytes with load_in_4bit and load_in_8bit false".to_string(),
            At::Never => "none".to_string(),
        }
    }
}

fn off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Keys that describe quantised weights: in transformers, in early releases of compressed-tensors,
/// and in MLX.
pub(super) const QUANTISED: [&str; 3] = ["quantization_config", "compression_config", "quantization"];

/// Keys that share their values and their reason.
#[derive(Debug)]
pub(super) struct Row {
    pub keys: &'static [&'static str],
    /// The values of `model_type` for which the row holds. If empty, it holds for all.
    pub of: &'static [&'static str],
    pub at: At,
    /// The reason why these values have no effect, or for `At::Never` what the key is.
    pub because: &'static str,
    /// What another value asks for. It is empty if every value is accepted.
    pub otherwise: &'static str,
}

#[rustfmt::skip]
const DECODERS: &[&str] = &[
    "apertus", "cohere", "cohere2", "exaone4", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm4", "glm4_moe",
    "gpt_oss", "granite", "granitemoe", "hunyuan_v1_dense", "hunyuan_v1_moe", "llama", "minimax_m2", "ministral3",
    "mistral", "mixtral", "olmo2", "olmo3", "olmoe", "phi3", "qwen3", "qwen3_moe", "qwen3_next", "seed_oss",
    "smollm3",
];
#[rustfmt::skip]
const WITHOUT_SHARED: &[&str] = &[
    "apertus", "bloom", "cohere", "cohere2", "exaone4", "falcon", "gemma", "gemma2", "gemma3_text", "gemma4_text",
    "glm4", "gpt2", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "hunyuan_v1_dense", "llama",
    "minimax_m2", "ministral3", "mistral", "mixtral", "mpt", "nemotron", "olmo2", "olmo3", "olmoe", "opt", "phi",
    "phi3", "phimoe", "qwen2", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2",
];
#[rustfmt::skip]
const WITHOUT_QK_NORM: &[&str] = &[
    "bloom", "falcon", "gemma", "gemma2", "glm4", "gpt2", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite",
    "granitemoe", "llama", "ministral3", "mistral", "mixtral", "mpt", "nemotron", "opt", "phi3", "phimoe", "qwen2",
    "qwen2_moe", "seed_oss", "smollm3", "starcoder2",
];
#[rustfmt::skip]
const WITH_QK_NORM: &[&str] = &[
    "afmoe", "dots1", "exaone4", "gemma3_text", "gemma4_text", "lfm2", "olmo2", "olmo3", "olmoe", "qwen3",
    "qwen3_5_moe_text", "qwen3_5_text", "qwen3_moe", "qwen3_next",
];
#[rustfmt::skip]
const WITHOUT_LAYER_TYPES: &[&str] = &[
    "apertus", "bloom", "cohere", "deepseek_v2", "deepseek_v3", "deepseek_v32", "ernie4_5_moe", "falcon", "gemma",
    "glm4", "glm4_moe", "glm4_moe_lite", "gpt2", "gpt_neo", "gpt_neox", "gptj", "granite", "granitemoe",
    "hunyuan_v1_dense", "hunyuan_v1_moe", "kimi_k2", "llama", "ministral3", "mistral", "mixtral", "mpt", "nemotron",
    "olmo2", "olmoe", "opt", "phi", "phi3", "phimoe", "qwen3_moe", "seed_oss", "stablelm", "starcoder2",
];
/// The architectures whose modeling file has no sliding window.
#[rustfmt::skip]
const WITHOUT_WINDOW: &[&str] = &[
    "apertus", "bloom", "cohere", "deepseek_v2", "deepseek_v3", "deepseek_v32", "ernie4_5_moe", "falcon", "gemma",
    "glm4", "glm4_moe", "glm4_moe_lite", "gpt2", "gpt_neox", "gptj", "granite", "granitemoe", "hunyuan_v1_dense",
    "hunyuan_v1_moe", "kimi_k2", "llama", "mpt", "nemotron", "olmo2", "opt", "phi", "qwen3_next", "seed_oss",
    "stablelm",
];

const fn any(keys: &'static [&'static str], because: &'static str) -> Row {
    Row { keys, of: &[], at: At::Any, because, otherwise: "" }
}

const fn only(keys: &'static [&'static str], at: At, because: &'static str, otherwise: &'static str) -> Row {
    Row { keys, of: &[], at, because, otherwise }
}

impl Row {
    const fn of(self, of: &'static [&'static str]) -> Self {
        Self { of, ..self }
    }
}

/// All rows. The first row that matches a key and an architecture counts.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Any architecture, any value.
    any(&["architectures", "transformers_version", "name_or_path", "unsloth_version", "unsloth_fixed", "internal_version",
          "is_llama_config", "transformers.js_config", "paddlenlp_version", "author", "created_date", "license", "custom_pipelines",
          "mergekit_version", "unsloth_training"],
        "what the file is and who wrote it; the class is chosen by `model_type` alone (AutoConfig)"),
    only(&["auto_map"], At::Told,
        "code of the repository's own, which transformers runs only with trust_remote_code; computed is the class of this `model_type`", ""),
    any(&["bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id",
          "decoder_start_token_id", "tokenizer_class", "tokenizer_file", "use_fast", "prefix"],
        "tokens, not layers; as `padding_idx` of nn.Embedding, `pad_token_id` concerns gradients only"),
    any(&["torch_dtype", "dtype", "use_bfloat16", "torchscript"],
        "in which format transformers keeps weights; here the files say it, and `dtype` of load_model what is computed in"),
    any(&["max_length", "min_length", "max_new_tokens", "min_new_tokens", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
          "diversity_penalty", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty",
          "encoder_repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
          "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id",
          "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "penalty_alpha",
          "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind",
          "target_lookbehind", "cache_implementation"],
        "how to generate; GenerationConfig takes them out of the config before a model is made"),
    any(&["use_cache", "return_dict", "use_return_dict", "output_attentions", "output_hidden_states", "output_router_logits", "output_past",
          "tie_last_hidden_states", "keys_to_ignore_at_inference", "xla_device"],
        "what a forward pass returns beside the logits"),
    any(&["attn_implementation", "experts_implementation", "use_flash_attn", "use_flash_attention", "use_flash_attention_2",
          "use_flashattn", "use_grouped_mm", "chunk_size_feed_forward", "pretraining_tp", "reorder_and_upcast_attn", "gradient_checkpointing",
          "prefill_chunk_size", "context_window_size", "tensor_parallel_shards", "max_batch_size", "world_size", "use_fused_rope",
          "use_fused_rms_norm", "flash_attn", "flash_rotary", "fused_dense"],
        "how the same sums are computed: kernels, pieces, devices; only rounding can differ"),
    any(&["initializer_range", "init_std", "initializer_factor", "attention_dropout", "hidden_dropout", "activation_dropout", "mlp_dropout",
          "attn_pdrop", "embd_pdrop", "resid_pdrop", "dropout", "layerdrop", "classifier_dropout", "router_aux_loss_coef",
          "router_z_loss_coef", "router_jitter_noise", "expert_dropout", "aux_loss_alpha", "seq_aux", "neftune_noise_alpha", "sequence_parallel_enabled",
          "selective_checkpoint_enabled", "move_model_to_device", "tf_legacy_loss", "use_recompute", "virtual_pp_degree"],
        "of training: first values, dropout, losses, noise, sharding; modules in evaluation mode do not use them (torch.nn.Module.training)"),
    any(&["attention_probs_dropout_prob", "hidden_dropout_prob", "type_vocab_size"],
        "keys of BERT, which transformers' own test models have; no class of these architectures reads them"),
    any(&["max_sequence_length", "max_seq_length", "max_seq_len", "model_max_length", "seq_length"],
        "a length for tokenizers and trainers; no class of these architectures reads it"),
    any(&["id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "summary_activation",
          "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "summary_hidden_size", "classifier_from_token",
          "is_original_qwen3_reranker", "sentence_transformers"],
        "of classification heads and tasks, which a causal language model does not have"),
    any(&["badwordsids", "nobreakmodel", "sampler_order", "temp", "tfs", "typical", "top_a", "rep_pen", "rep_pen_slope", "rep_pen_range",
          "adventure", "chatmode", "dynamicscan", "formatoptns", "welcome", "newlinemode", "antemplate"],
        "settings of KoboldAI for its users (aiserver.py of KoboldAI-Client)"),
    any(&["is_decoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size", "tie_encoder_decoder"],
        "of pairs of encoder and decoder; without states of an encoder, attention to them is passed over"),
    // Any architecture, one value.
    only(&["is_causal"], At::True, "masking_utils.create_causal_mask: what it does without the key",
        "it asks for attention in both directions, which is not computed"),
    only(&["use_bidirectional_attention", "bidirectional"], At::Off, "attention to what came before, as without it",
        "it asks for attention in both directions, which is not computed"),
    only(&["pruned_heads"], At::Off, "no head is removed; transformers 5 reads it no more", "it asks for attention heads to be removed"),
    only(&["per_layer_config"], At::Off, "PreTrainedConfig: no layer differs", "it gives single layers settings of their own"),
    only(&["fusion_config"], At::Off, "PreTrainedModel.from_pretrained: no module is replaced", "it has transformers replace modules of the model"),
    only(&["transformers_weights"], At::Off, "PreTrainedModel.from_pretrained: the usual names are looked for",
        "it names other files with the weights, which are not looked for"),
    only(&["kv_sharing_modes"], At::Off, "cache_utils: no layer shares keys and values", "it has layers share keys and values"),
    only(&["attention_chunk_size"], At::Off, "masking_utils: no chunks", "it asks for attention within chunks"),
    only(&["rope_interleaved"], At::Off, "rotate_half: dimension j turns with j + dim/2",
        "it asks for rotary dimensions in neighbouring pairs, where transformers turns the halves of a head"),
    only(&["use_mrope"], At::Off, "one position per token", "it asks for positions in several dimensions"),
    only(&["rotary_pct", "rotary_percent"], At::Number(1.0), "whole heads turn, as without it", "it asks for rotary embeddings on a part of each head"),
    only(&["logits_scaling", "embedding_multiplier", "residual_multiplier", "logit_scale", "lm_head_multiplier",
           "rope_scaling_factor"], At::Number(1.0),
        "a factor of 1, as without it", "it asks for a factor that no class of this architecture applies"),
    only(&["final_logit_softcapping", "attn_logit_softcapping"], At::Off, "no cap, as without it",
        "it asks for capped logits, which no class of this architecture computes"),
    only(&["alibi", "parallel_attn", "use_parallel_residual", "use_mqa", "multi_query"], At::Off, "not asked for, as without it",
        "it asks for a kind of layer that no class of this architecture computes"),
    only(&["quantization_config"], At::NothingQuantised, "quantizers.auto: a method of that name does not exist, so nothing is unpacked",
        "the weights are stored quantised, in a way that is not read"),
    only(&["quantization", "compression_config"], At::Never, "the weights are stored quantised",
        "the weights are stored quantised, in a way that is not read"),
    only(&["draft_vocab_size", "eagle_config", "dflash_config", "target_model_type", "num_target_layers"], At::Never,
        "a draft for speculative decoding, which has no embedding or first layer of its own",
        "it is a draft for speculative decoding, which runs on the hidden states of another model"),
    only(&["fuse_attention_qkv", "fuse_attention_ffn"], At::Off, "projections are stored one by one",
        "it asks for projections that are stored as one"),
    // Some architectures.
    any(&["max_position_embeddings"], "rotary positions have no table; where a scaling of the frequencies needs the number, it is read"),
    any(&["n_ctx", "n_special", "predict_special_tokens"], "GPT2Config of 2019 wrote them; the modeling files do not read them").of(&["gpt2", "gptj"]),
    only(&["hidden_act", "intermediate_size"], At::Told, "modeling_gpt2 reads `activation_function` and `n_inner`", "").of(&["gpt2"]),
    only(&["output_projection", "learned_embeddings"], At::True, "OPTForCausalLM has both", "it asks for a model without them").of(&["opt"]),
    any(&["embed_dim"], "transformers' own test models have it; OPTDecoder reads `word_embed_proj_dim`").of(&["opt"]),
    only(&["scale_embeddings"], At::Off, "OPTDecoder does not scale its embeddings", "it asks for scaled embeddings").of(&["opt"]),
    any(&["initial_context_length"], "a name of OpenAI's own code for `original_max_position_embeddings`; not read").of(&["gpt_oss"]),
    only(&["hidden_act"], At::Text(&["silu", "swish"]), "modeling_gpt_oss has its activation built in",
        "it asks for another activation than the one that gpt-oss has built in").of(&["gpt_oss"]),
    only(&["activation"], At::Text(&["swiglu"]), "a gated SiLU is what LlamaMLP computes", "it asks for another activation").of(&["llama"]),
    any(&["num_nextn_predict_layers", "num_mtp_layers"], "layers for multi-token prediction are no part of a forward pass").of(&["glm4_moe"]),
    any(&["num_nextn_predict_layers", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"],
        "layers for multi-token prediction are no part of a forward pass").of(&["qwen3_next"]),
    only(&["mamba_ssm_dtype"], At::Text(&["float32"]), "the delta rule is computed in f32", "it asks for another format of the delta rule's state").of(&["qwen3_next"]),
    any(&["num_steps"], "how long it was trained; GPTNeoXConfig does not know it").of(&["gpt_neox"]),
    only(&["num_heads", "norm_eps", "rope_pct", "rotary_emb_base"], At::Told,
        "names of Stability AI's own code; StableLmConfig reads `num_attention_heads`, `layer_norm_eps`, `partial_rotary_factor`, `rope_theta`", "")
        .of(&["stablelm"]),
    only(&["rotary_scaling_factor"], At::Number(1.0), "a factor of 1, as without it", "it asks for scaled positions, which transformers spells `rope_scaling`")
        .of(&["stablelm"]),
    only(&["rope_percent"], At::Told, "NemotronConfig reads `partial_rotary_factor`", "").of(&["nemotron"]),
    only(&["activation_function"], At::Told, "Starcoder2Config reads `hidden_act`", "").of(&["starcoder2"]),
    only(&["dual_chunk_attention_config"], At::Told,
        "how vLLM computes contexts longer than those of training; transformers does not read it, and every query sees all that came before", "")
        .of(&["qwen2", "qwen3", "qwen3_moe"]),
    any(&["max_window_layers"], "only modeling files of Qwen and dots know it")
        .of(&["apertus", "bloom", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "ernie4_5_moe", "exaone4", "falcon",
              "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm4", "glm4_moe", "glm4_moe_lite", "gpt_neox", "gpt_oss", "gptj",
              "granite", "granitemoe", "hunyuan_v1_dense", "hunyuan_v1_moe", "kimi_k2", "llama", "minimax_m2", "ministral3", "mistral",
              "mixtral", "mpt", "nemotron", "olmo2", "olmo3", "olmoe", "phi", "phi3", "phimoe", "qwen3_moe", "qwen3_next", "seed_oss",
              "smollm3", "stablelm"]),
    any(&["use_sliding_window"], "modeling_qwen3_next has no windows").of(&["qwen3_next"]),
    only(&["use_sliding_window"], At::Off, "it switches nothing on; those of them that have windows read `sliding_window` alone",
        "it asks for a sliding window by a switch that this architecture does not have")
        .of(&["afmoe", "apertus", "bloom", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "ernie4_5_moe", "exaone4",
              "falcon", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm4", "glm4_moe", "glm4_moe_lite", "gpt2", "gpt_neo",
              "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "hunyuan_v1_dense", "hunyuan_v1_moe", "kimi_k2", "llama",
              "ministral3", "mistral", "mixtral", "mpt", "nemotron", "olmo2", "olmo3", "olmoe", "opt", "phi", "phi3", "phimoe",
              "seed_oss", "stablelm", "starcoder2"]),
    only(&["sliding_window"], At::Told, "the modeling file does not read it: every layer sees all that came before", "")
        .of(WITHOUT_WINDOW),
    only(&["sliding_window"], At::Off, "modeling_olmoe hands it to flash attention only, which then has no window",
        "transformers computes it with flash attention and leaves it out with the other kinds").of(&["olmoe"]),
    only(&["layer_types"], At::AllFull, "the modeling file does not read it; full attention is what all layers have",
        "it asks for kinds of layers that this architecture does not have").of(WITHOUT_LAYER_TYPES),
    only(&["use_qk_norm", "qk_norm", "qk_layernorm", "qk_layernorms", "qk_layer_norms"], At::Off, "no norm on queries and keys, as without it",
        "it asks for norms on queries and keys, which no class of this architecture has").of(WITHOUT_QK_NORM),
    only(&["use_qk_norm", "qk_norm", "qk_layernorm", "qk_layernorms", "qk_layer_norms"], At::True, "queries and keys always pass norms",
        "it asks for queries and keys without norms, which every class of this architecture has").of(WITH_QK_NORM),
    only(&["qkv_bias", "use_bias", "use_qkv_bias", "bias", "lm_head_bias", "head_bias"], At::Off, "no such bias, as without it; `attention_bias` is another key",
        "it asks for biases by a key that no class of this architecture reads").of(DECODERS),
    only(&["attention_bias"], At::Off, "attention of these has no biases", "it asks for biases, which attention of this architecture does not have")
        .of(&["exaone4", "minimax_m2", "ministral3", "mistral", "mixtral"]),
    only(&["mlp_bias"], At::Off, "MLPs and experts without biases", "it asks for biases in the MLPs, which this architecture does not have")
        .of(&["cohere", "cohere2", "exaone4", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm4", "glm4_moe", "granitemoe",
              "hunyuan_v1_dense", "minimax_m2", "ministral3", "mistral", "mixtral", "olmo2", "olmo3", "olmoe", "phi3", "qwen2",
              "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "seed_oss", "smollm3"]),
    only(&["shared_expert_intermediate_size", "n_shared_experts", "num_shared_experts"], At::Off, "no shared expert, as without it",
        "it asks for a shared expert, which this architecture does not have").of(WITHOUT_SHARED),
    only(&["first_k_dense_replace"], At::Off, "no dense layers before the mixtures", "it asks for dense layers, which `mlp_only_layers` names here")
        .of(&["mixtral", "olmoe", "qwen3_moe", "qwen3_next"]),
    only(&["decoder_sparse_step"], At::Number(1.0), "every layer is of the same kind, as without it",
        "it asks for dense layers and mixtures in turn, by a key that this architecture does not read")
        .of(&["glm4_moe", "gpt_oss", "llama", "mixtral", "olmoe", "qwen3"]),
    only(&["moe_layer_freq", "moe_frequency", "interleave_moe_layer_step"], At::Number(1.0),
        "every layer is of the same kind, as without it", "it asks for dense layers and mixtures in turn, by a key that this architecture does not read")
        .of(DECODERS),
    only(&["norm_topk_prob"], At::True, "the weights of the chosen experts always sum to 1", "it asks for weights that do not sum to 1")
        .of(&["mixtral", "gpt_oss"]),
    only(&["routed_scaling_factor"], At::Number(1.0), "a factor of 1, as without it", "it asks for a factor on the experts' sum, which is not applied")
        .of(&["mixtral", "olmoe", "qwen3_moe", "qwen3_next", "gpt_oss"]),
    only(&["n_group", "topk_group"], At::Number(1.0), "one group of experts, as without it", "it asks for experts in groups, which this router does not know")
        .of(&["mixtral", "olmoe", "qwen3_moe", "qwen3_next", "gpt_oss"]),
    only(&["scoring_func"], At::Text(&["softmax"]), "the router's own scores", "it asks for another score of experts")
        .of(&["mixtral", "olmoe", "qwen3_moe", "qwen3_next", "gpt_oss"]),
    only(&["scoring_func"], At::Text(&["sigmoid"]), "the router's own scores", "it asks for another score of experts").of(&["glm4_moe"]),
    only(&["topk_method"], At::Text(&["noaux_tc"]), "Glm4MoeTopkRouter: best groups by biased scores", "it asks for another choice of experts").of(&["glm4_moe"]),
];

/// The row of `key` for this architecture.
pub(super) fn row(key: &str, model_type: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.keys.contains(&key) && (row.of.is_empty() || row.of.contains(&model_type)))
}

/// All keys of the table.
pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
    ROWS.iter().flat_map(|row| row.keys.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config_keys.md");
    /// The marks around the table in the page.
    const MARKS: (&str, &str) = ("<!-- table -->\n", "<!-- end of table -->\n");

    fn markdown() -> String {
        let mut table = "| keys | of | no effect at | why | another value |\n|---|---|---|---|---|\n".to_string();
        for row in ROWS {
            let code = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let of = if row.of.is_empty() { "all".to_string() } else { code(row.of) };
            let told = if matches!(row.at, At::Told | At::NothingQuantised) { "; a note says so" } else { "" };
            let (keys, at) = (code(row.keys), row.at.words());
            writeln!(table, "| {keys} | {of} | {at}{told} | {} | {} |", row.because, row.otherwise).unwrap();
        }
        table
    }

    /// `REWRITE=1 cargo test --lib the_page` writes the table.
    #[test]
    fn the_page_holds_the_table() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (before, rest) = page.split_once(MARKS.0).unwrap();
        let (table, after) = rest.split_once(MARKS.1).unwrap();
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(PAGE, format!("{before}{}{}{}{after}", MARKS.0, markdown(), MARKS.1)).unwrap();
            return;
        }
        assert!(table == markdown(), "REWRITE=1 cargo test --lib the_page");
    }

    #[test]
    fn bitsandbytes_is_a_leftover_only_where_nothing_is_packed() {
        let config = |text: &str| At::NothingQuantised.accepts(&serde_json::from_str(text).unwrap());
        assert!(config(r#"{"quant_method": "bitsandbytes", "load_in_4bit": false, "load_in_8bit": false}"#));
        assert!(!config(r#"{"quant_method": "bitsandbytes", "load_in_4bit": true}"#));
        assert!(!config(r#"{"quant_method": "bitsandbytes", "_load_in_8bit": true}"#));
        assert!(!config(r#"{"quant_method": "fp8"}"#) && !config("{}") && !config("true"));
    }
}
