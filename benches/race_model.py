#!/usr/bin/env python3
"""Writes a model to race on: real structure, random weights, outlier features planted at known dimensions.

  python race_model.py SHAPE FOLDER        SHAPE: olmoe (539 M parameters, 32 small experts of which 8)
                                                  mixtral (487 M parameters, 8 large experts of which 2, sliding window)

Weights are bf16 in two shards, 1.0 to 1.1 GB. The same seed gives the same bytes with the same torch.
"""
import json
import os
import sys

import torch
from safetensors.torch import save_file

SEED = 20
STD = 0.02
# Dimension, factor of the norm's weight, share of the layers that have it. All pass |x| >= 6 in 25 % of layers, 6 % of positions.
PLANTED = [(100, 20.0, 1.0), (511, 12.0, 0.5), (700, 25.0, 0.25), (900, 14.0, 0.75)]

COMMON = dict(
    attention_dropout=0.0, hidden_act="silu", hidden_size=1024, initializer_range=STD, max_position_embeddings=4096,
    num_attention_heads=16, num_hidden_layers=8, output_router_logits=False, rms_norm_eps=1e-5,
    router_aux_loss_coef=0.01, tie_word_embeddings=False, use_cache=True, torch_dtype="bfloat16",
)
SHAPES = {
    "olmoe": dict(
        COMMON, architectures=["OlmoeForCausalLM"], model_type="olmoe", attention_bias=False, clip_qkv=None,
        intermediate_size=512, norm_topk_prob=False, num_experts=32, num_experts_per_tok=8, num_key_value_heads=16,
        rope_scaling=None, rope_theta=10000.0, vocab_size=50304, eos_token_id=0, pad_token_id=1,
    ),
    "mixtral": dict(
        COMMON, architectures=["MixtralForCausalLM"], model_type="mixtral", intermediate_size=2048, num_local_experts=8,
        num_experts_per_tok=2, num_key_value_heads=4, head_dim=64, rope_theta=1000000.0, sliding_window=256,
        vocab_size=32000, bos_token_id=1, eos_token_id=2,
    ),
}


def layer(config, i, tensors, matrix, norm):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    p = f"model.layers.{i}."
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[f"{p}{name}.weight"] = norm(i)
    for name, out in (("q", hidden), ("k", kv), ("v", kv), ("o", hidden)):
        tensors[f"{p}self_attn.{name}_proj.weight"] = matrix(out, hidden)
    if config["model_type"] == "olmoe":
        tensors[f"{p}self_attn.q_norm.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
        tensors[f"{p}self_attn.k_norm.weight"] = torch.ones(kv, dtype=torch.bfloat16)
        moe, names, count = f"{p}mlp.", ("gate_proj", "up_proj", "down_proj"), config["num_experts"]
    else:
        moe, names, count = f"{p}block_sparse_moe.", ("w1", "w3", "w2"), config["num_local_experts"]
    tensors[f"{moe}gate.weight"] = matrix(count, hidden)
    for e in range(count):
        gate, up, down = names
        tensors[f"{moe}experts.{e}.{gate}.weight"] = matrix(inner, hidden)
        tensors[f"{moe}experts.{e}.{up}.weight"] = matrix(inner, hidden)
        tensors[f"{moe}experts.{e}.{down}.weight"] = matrix(hidden, inner)


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit(__doc__)
    config, folder = SHAPES[sys.argv[1]], sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    generator = torch.Generator().manual_seed(SEED)
    layers = config["num_hidden_layers"]

    def matrix(*shape):
        return (torch.randn(*shape, generator=generator) * STD).to(torch.bfloat16)

    def norm(i):
        weight = torch.ones(config["hidden_size"], dtype=torch.bfloat16)
        for dim, factor, share in PLANTED:
            if i < share * layers:
                weight[dim] = factor
        return weight

    embedding = (config["vocab_size"], config["hidden_size"])
    shards = [{"model.embed_tokens.weight": matrix(*embedding)}, {}]
    for i in range(layers):
        layer(config, i, shards[2 * i // layers], matrix, norm)
    shards[1]["model.norm.weight"] = torch.ones(config["hidden_size"], dtype=torch.bfloat16)
    shards[1]["lm_head.weight"] = matrix(*embedding)
    weight_map, size = {}, 0
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(tensors, os.path.join(folder, name), metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, name))
        size += sum(tensor.numel() for tensor in tensors.values())
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": 2 * size}, "weight_map": weight_map}, file)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file, indent=2)
    print(f"{folder}: {size / 1e6:.0f} M parameters, planted dimensions {[dim for dim, _, _ in PLANTED]}")


if __name__ == "__main__":
    main()
