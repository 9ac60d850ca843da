//! Which tensor of transformers a tensor of llama.cpp is, and what was done to it on the way.
//!
//! Facts: `gguf-py/gguf/tensor_mapping.py` and `convert_hf_to_gguf.py` of llama.cpp.

use super::config::Family;

/// What llama.cpp's converter has done to a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Rows of queries or keys are in pairs that are turned together, and not in halves.
    Paired,
    /// One was added to each number of a norm.
    PlusOne,
    /// All experts are one below the other.
    Experts,
    /// One of two tensors whose rows alternate.
    Even,
    Odd,
}

use Change::{Even, Experts, None as AsIs, Odd, Paired, PlusOne};

/// Names in a layer: in GGUF, in transformers, and what was done.
type Row = (&'static str, &'static str, Change);

const LLAMA: &[Row] = &[
    ("attn_norm.weight", "input_layernorm.weight", AsIs),
    ("attn_q.weight", "self_attn.q_proj.weight", Paired),
    ("attn_q.bias", "self_attn.q_proj.bias", Paired),
    ("attn_k.weight", "self_attn.k_proj.weight", Paired),
    ("attn_k.bias", "self_attn.k_proj.bias", Paired),
    ("attn_v.weight", "self_attn.v_proj.weight", AsIs),
    ("attn_v.bias", "self_attn.v_proj.bias", AsIs),
    ("attn_output.weight", "self_attn.o_proj.weight", AsIs),
    ("attn_output.bias", "self_attn.o_proj.bias", AsIs),
    ("ffn_norm.weight", "post_attention_layernorm.weight", AsIs),
    ("ffn_gate.weight", "mlp.gate_proj.weight", AsIs),
    ("ffn_up.weight", "mlp.up_proj.weight", AsIs),
    ("ffn_down.weight", "mlp.down_proj.weight", AsIs),
];

const QWEN: &[Row] = &[
    ("attn_norm.weight", "input_layernorm.weight", AsIs),
    ("attn_q.weight", "self_attn.q_proj.weight", AsIs),
    ("attn_q.bias", "self_attn.q_proj.bias", AsIs),
    ("attn_q_norm.weight", "self_attn.q_norm.weight", AsIs),
    ("attn_k.weight", "self_attn.k_proj.weight", AsIs),
    ("attn_k.bias", "self_attn.k_proj.bias", AsIs),
    ("attn_k_norm.weight", "self_attn.k_norm.weight", AsIs),
    ("attn_v.weight", "self_attn.v_proj.weight", AsIs),
    ("attn_v.bias", "self_attn.v_proj.bias", AsIs),
    ("attn_output.weight", "self_attn.o_proj.weight", AsIs),
    ("ffn_norm.weight", "post_attention_layernorm.weight", AsIs),
    ("ffn_gate.weight", "mlp.gate_proj.weight", AsIs),
    ("ffn_up.weight", "mlp.up_proj.weight", AsIs),
    ("ffn_down.weight", "mlp.down_proj.weight", AsIs),
    ("ffn_gate_inp.weight", "mlp.gate.weight", AsIs),
    ("ffn_gate_exps.weight", "mlp.experts.{}.gate_proj.weight", Experts),
    ("ffn_up_exps.weight", "mlp.experts.{}.up_proj.weight", Experts),
    ("ffn_down_exps.weight", "mlp.experts.{}.down_proj.weight", Experts),
];

const GEMMA3: &[Row] = &[
    ("attn_norm.weight", "input_layernorm.weight", PlusOne),
    ("attn_q.weight", "self_attn.q_proj.weight", AsIs),
    ("attn_q_norm.weight", "self_attn.q_norm.weight", PlusOne),
    ("attn_k.weight", "self_attn.k_proj.weight", AsIs),
    ("attn_k_norm.weight", "self_attn.k_norm.weight", PlusOne),
    ("attn_v.weight", "self_attn.v_proj.weight", AsIs),
    ("attn_output.weight", "self_attn.o_proj.weight", AsIs),
    ("post_attention_norm.weight", "post_attention_layernorm.weight", PlusOne),
    ("ffn_norm.weight", "pre_feedforward_layernorm.weight", PlusOne),
    ("ffn_gate.weight", "mlp.gate_proj.weight", AsIs),
    ("ffn_up.weight", "mlp.up_proj.weight", AsIs),
    ("ffn_down.weight", "mlp.down_proj.weight", AsIs),
    ("post_ffw_norm.weight", "post_feedforward_layernorm.weight", PlusOne),
];

const GPT_OSS: &[Row] = &[
    ("attn_norm.weight", "input_layernorm.weight", AsIs),
    ("attn_q.weight", "self_attn.q_proj.weight", AsIs),
    ("attn_q.bias", "self_attn.q_proj.bias", AsIs),
    ("attn_k.weight", "self_attn.k_proj.weight", AsIs),
    ("attn_k.bias", "self_attn.k_proj.bias", AsIs),
    ("attn_v.weight", "self_attn.v_proj.weight", AsIs),
    ("attn_v.bias", "self_attn.v_proj.bias", AsIs),
    ("attn_output.weight", "self_attn.o_proj.weight", AsIs),
    ("attn_output.bias", "self_attn.o_proj.bias", AsIs),
    ("attn_sinks.weight", "self_attn.sinks", AsIs),
    ("post_attention_norm.weight", "post_attention_layernorm.weight", AsIs),
    ("ffn_gate_inp.weight", "mlp.router.weight", AsIs),
    ("ffn_gate_inp.bias", "mlp.router.bias", AsIs),
    ("ffn_gate_exps.weight", "mlp.experts.gate_up_proj", Even),
    ("ffn_gate_exps.bias", "mlp.experts.gate_up_proj_bias", Even),
    ("ffn_up_exps.weight", "mlp.experts.gate_up_proj", Odd),
    ("ffn_up_exps.bias", "mlp.experts.gate_up_proj_bias", Odd),
    ("ffn_down_exps.weight", "mlp.experts.down_proj", AsIs),
    ("ffn_down_exps.bias", "mlp.experts.down_proj_bias", AsIs),
];

/// The name in transformers, and what was done to the tensor; none where there is no such tensor in
/// models of this family.
pub(super) fn mapped(family: Family, name: &str) -> Option<(String, Change)> {
    let norms = if family == Family::Gemma3 { PlusOne } else { AsIs };
    match name {
        "token_embd.weight" => return Some(("model.embed_tokens.weight".to_string(), AsIs)),
        "output_norm.weight" => return Some(("model.norm.weight".to_string(), norms)),
        "output.weight" => return Some(("lm_head.weight".to_string(), AsIs)),
        _ => {}
    }
    let rows = match family {
        Family::Llama => LLAMA,
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => QWEN,
        Family::Gemma3 => GEMMA3,
        Family::GptOss => GPT_OSS,
    };
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let (_, called, change) = rows.iter().find(|(gguf, ..)| *gguf == rest)?;
    Some((format!("model.layers.{layer}.{called}"), *change))
}
