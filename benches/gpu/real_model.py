#!/usr/bin/env python3
"""Writes a model with the structure and sizes of a released one, random weights, and outlier features planted at known dimensions.

  python real_model.py SHAPE FOLDER [--layers N]     SHAPE: olmoe-1b-7b, gpt-oss-20b, qwen3-30b-a3b, glm-4.5-air

A file per layer, in bf16, experts of gpt-oss in MXFP4. Weights are made on a GPU where there is one. FOLDER is best in memory
(/dev/shm): a race should not be one of disks. The same seed gives the same bytes with the same torch on the same device.
"""
import argparse
import json
import os
import sys

import torch
from safetensors.torch import save_file

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from race_model import PLANTED, SEED, STD

COMMON = dict(attention_dropout=0.0, initializer_range=STD, tie_word_embeddings=False, torch_dtype="bfloat16", use_cache=True)
SHAPES = {
    "olmoe-1b-7b": dict(
        COMMON, architectures=["OlmoeForCausalLM"], model_type="olmoe", attention_bias=False, clip_qkv=None, hidden_act="silu",
        hidden_size=2048, intermediate_size=1024, max_position_embeddings=4096, norm_topk_prob=False, num_attention_heads=16,
        num_key_value_heads=16, num_experts=64, num_experts_per_tok=8, num_hidden_layers=16, rms_norm_eps=1e-5,
        rope_scaling=None, rope_theta=10000.0, vocab_size=50304, eos_token_id=0, pad_token_id=1,
    ),
    "gpt-oss-20b": dict(
        COMMON, architectures=["GptOssForCausalLM"], model_type="gpt_oss", attention_bias=True, head_dim=64, hidden_act="silu",
        hidden_size=2880, initial_context_length=4096, intermediate_size=2880, max_position_embeddings=131072,
        num_attention_heads=64, num_key_value_heads=8, num_experts_per_tok=4, num_local_experts=32, num_hidden_layers=24,
        rms_norm_eps=1e-5, rope_theta=150000, sliding_window=128, swiglu_limit=7.0, vocab_size=201088,
        rope_scaling=dict(rope_type="yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                          original_max_position_embeddings=4096),
        quantization_config=dict(quant_method="mxfp4", modules_to_not_convert=[
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]),
    ),
    "qwen3-30b-a3b": dict(
        COMMON, architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", attention_bias=False, decoder_sparse_step=1,
        head_dim=128, hidden_act="silu", hidden_size=2048, intermediate_size=6144, max_position_embeddings=40960,
        mlp_only_layers=[], moe_intermediate_size=768, norm_topk_prob=True, num_attention_heads=32, num_key_value_heads=4,
        num_experts=128, num_experts_per_tok=8, num_hidden_layers=48, rms_norm_eps=1e-6, rope_scaling=None,
        rope_theta=1000000.0, sliding_window=None, use_sliding_window=False, vocab_size=151936,
    ),
    "glm-4.5-air": dict(
        COMMON, architectures=["Glm4MoeForCausalLM"], model_type="glm4_moe", attention_bias=True, first_k_dense_replace=1,
        head_dim=128, hidden_act="silu", hidden_size=4096, intermediate_size=10944, max_position_embeddings=131072,
        moe_intermediate_size=1408, n_group=1, n_routed_experts=128, n_shared_experts=1, norm_topk_prob=True,
        num_attention_heads=96, num_key_value_heads=8, num_experts_per_tok=8, num_hidden_layers=46, partial_rotary_factor=0.5,
        rms_norm_eps=1e-5, rope_scaling=None, rope_theta=1000000, routed_scaling_factor=1.0, topk_group=1, use_qk_norm=False,
        vocab_size=151552, num_nextn_predict_layers=0,
    ),
}


class Writer:
    def __init__(self, config, folder):
        self.config, self.folder = config, folder
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.generator = torch.Generator(self.device).manual_seed(SEED)
        self.weight_map, self.size = {}, 0

    def matrix(self, *shape):
        return torch.randn(*shape, generator=self.generator, device=self.device, dtype=torch.bfloat16).mul_(STD)

    def bytes(self, *shape, low=0, high=256):
        return torch.randint(low, high, shape, generator=self.generator, device=self.device, dtype=torch.uint8)

    def ones(self, size):
        return torch.ones(size, dtype=torch.bfloat16)

    def norm(self, i):
        weight = self.ones(self.config["hidden_size"])
        for dim, factor, share in PLANTED:
            if i < share * self.config["num_hidden_layers"]:
                weight[dim] = factor
        return weight

    def save(self, name, tensors):
        tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
        save_file(tensors, os.path.join(self.folder, name), metadata={"format": "pt"})
        self.weight_map.update(dict.fromkeys(tensors, name))
        self.size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    def mlp(self, tensors, prefix, inner):
        hidden = self.config["hidden_size"]
        for name, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
            tensors[f"{prefix}{name}_proj.weight"] = self.matrix(*shape)

    def attention(self, tensors, prefix):
        c = self.config
        hidden, heads, kv_heads = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        head_dim = c.get("head_dim", hidden // heads)
        shapes = {"q": (heads * head_dim, hidden), "k": (kv_heads * head_dim, hidden), "v": (kv_heads * head_dim, hidden),
                  "o": (hidden, heads * head_dim)}
        for name, shape in shapes.items():
            tensors[f"{prefix}{name}_proj.weight"] = self.matrix(*shape)
            if c["attention_bias"] and (name != "o" or c["model_type"] == "gpt_oss"):
                tensors[f"{prefix}{name}_proj.bias"] = self.matrix(shape[0])
        if c["model_type"] == "olmoe":
            tensors[f"{prefix}q_norm.weight"], tensors[f"{prefix}k_norm.weight"] = self.ones(hidden), self.ones(shapes["k"][0])
        if c["model_type"] == "qwen3_moe":
            tensors[f"{prefix}q_norm.weight"], tensors[f"{prefix}k_norm.weight"] = self.ones(head_dim), self.ones(head_dim)
        if c["model_type"] == "gpt_oss":
            tensors[f"{prefix}sinks"] = self.matrix(heads)

    def experts(self, tensors, prefix):
        c = self.config
        hidden, kind = c["hidden_size"], c["model_type"]
        if kind == "gpt_oss":
            count, inner = c["num_local_experts"], c["intermediate_size"]
            tensors[f"{prefix}router.weight"], tensors[f"{prefix}router.bias"] = self.matrix(count, hidden), self.matrix(count)
            for name, out, width in (("gate_up", 2 * inner, hidden), ("down", hidden, inner)):
                tensors[f"{prefix}experts.{name}_proj_blocks"] = self.bytes(count, out, width // 32, 16)
                # Scales of 2^-8 and 2^-7: numbers of some hundredths.
                tensors[f"{prefix}experts.{name}_proj_scales"] = self.bytes(count, out, width // 32, low=119, high=121)
                tensors[f"{prefix}experts.{name}_proj_bias"] = self.matrix(count, out)
            return
        count = c.get("num_experts", c.get("n_routed_experts"))
        inner = c.get("moe_intermediate_size", c["intermediate_size"])
        tensors[f"{prefix}gate.weight"] = self.matrix(count, hidden)
        for e in range(count):
            self.mlp(tensors, f"{prefix}experts.{e}.", inner)
        if kind == "glm4_moe":
            tensors[f"{prefix}gate.e_score_correction_bias"] = torch.zeros(count)
            self.mlp(tensors, f"{prefix}shared_experts.", inner * c["n_shared_experts"])

    def layer(self, i):
        prefix, tensors = f"model.layers.{i}.", {}
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}{name}.weight"] = self.norm(i)
        self.attention(tensors, f"{prefix}self_attn.")
        if i < self.config.get("first_k_dense_replace", 0):
            self.mlp(tensors, f"{prefix}mlp.", self.config["intermediate_size"])
        else:
            self.experts(tensors, f"{prefix}mlp.")
        return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder")
    parser.add_argument("--layers", type=int, help="only so many")
    a = parser.parse_args()
    config = dict(SHAPES[a.shape])
    config["num_hidden_layers"] = a.layers or config["num_hidden_layers"]
    if config["model_type"] == "gpt_oss":
        config["layer_types"] = ["full_attention" if i % 2 else "sliding_attention" for i in range(config["num_hidden_layers"])]
    os.makedirs(a.folder, exist_ok=True)
    writer = Writer(config, a.folder)
    embedding = (config["vocab_size"], config["hidden_size"])
    writer.save("model-first.safetensors", {"model.embed_tokens.weight": writer.matrix(*embedding)})
    for i in range(config["num_hidden_layers"]):
        writer.save(f"model-layer-{i:03}.safetensors", writer.layer(i))
    last = {"model.norm.weight": writer.ones(config["hidden_size"]), "lm_head.weight": writer.matrix(*embedding)}
    writer.save("model-last.safetensors", last)
    with open(os.path.join(a.folder, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": writer.size}, "weight_map": writer.weight_map}, file)
    with open(os.path.join(a.folder, "config.json"), "w") as file:
        json.dump(config, file, indent=2)
    print(f"{a.folder}: {a.shape}, {config['num_hidden_layers']} layers, {writer.size / 1e9:.1f} GB")


main()
