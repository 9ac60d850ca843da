#!/usr/bin/env python3
"""How wall time and memory grow with layers, tokens, experts and threads, each doubled three times. Needs only Python.

  python3 benches/growth.py [--outlier target/release/outlier] [--runs 3]

Models are synthetic mixtures of experts (Mixtral layout, hidden 512, bf16), written to a temporary folder. Medians.
"""
import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HIDDEN, INNER, VOCABULARY = 512, 1024, 1024
BASE = {"layers": 4, "sequences": 4, "experts": 8, "threads": 1}
LENGTH = 256
STEPS = 4


def noise():
    """A mebibyte of small bf16 numbers: sign and mantissa at random, exponents -8 to -5."""
    generator = random.Random(20)
    return b"".join(
        struct.pack("<H", generator.getrandbits(1) << 15 | (119 + generator.getrandbits(2)) << 7 | generator.getrandbits(7))
        for _ in range(1 << 19)
    )


NOISE = noise()
ONES = struct.pack("<H", 0x3F80) * HIDDEN


def write_file(path, tensors):
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, shape in enumerate(tensors.values()):
            if len(shape) == 1:
                file.write(ONES)
                continue
            size, start = 2 * shape[0] * shape[1], number * 7919 * 2 % len(NOISE)
            while size > 0:
                piece = NOISE[start : start + size]
                file.write(piece)
                size, start = size - len(piece), 0


def write_model(folder, layers, experts):
    os.makedirs(folder)
    config = {
        "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": layers, "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": VOCABULARY,
        "num_local_experts": experts, "num_experts_per_tok": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": 4096, "tie_word_embeddings": False, "sliding_window": None,
    }
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    weight_map = {}

    def shard(name, tensors):
        write_file(os.path.join(folder, name), tensors)
        weight_map.update(dict.fromkeys(tensors, name))

    square, wide, narrow = [HIDDEN, HIDDEN], [INNER, HIDDEN], [HIDDEN, INNER]
    shard("model-rest.safetensors", {
        "model.embed_tokens.weight": [VOCABULARY, HIDDEN], "model.norm.weight": [HIDDEN], "lm_head.weight": [VOCABULARY, HIDDEN],
    })
    for i in range(layers):
        p = f"model.layers.{i}."
        tensors = {f"{p}input_layernorm.weight": [HIDDEN], f"{p}post_attention_layernorm.weight": [HIDDEN]}
        tensors.update({f"{p}self_attn.{x}_proj.weight": square for x in "qkvo"})
        tensors[f"{p}block_sparse_moe.gate.weight"] = [experts, HIDDEN]
        for e in range(experts):
            q = f"{p}block_sparse_moe.experts.{e}."
            tensors.update({f"{q}w1.weight": wide, f"{q}w2.weight": narrow, f"{q}w3.weight": wide})
        shard(f"model-layer-{i:03}.safetensors", tensors)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
        json.dump({"weight_map": weight_map}, file)


def run(outlier, folder, setting):
    generator = random.Random(setting["sequences"])
    ids = [[generator.randrange(VOCABULARY) for _ in range(LENGTH)] for _ in range(setting["sequences"])]
    path = os.path.join(folder, "ids.json")
    with open(path, "w") as file:
        json.dump(ids, file)
    script = os.path.join(folder, "run.rhai")
    with open(script, "w") as file:
        file.write(
            f'let acts = load_model("{folder}", #{{ dtype: "bf16" }}).extract_layernorms(load_tokens(#{{ ids: "{path}" }}));\n'
            "print(acts.measurements.to_json());\n"
        )
    environment = dict(os.environ, RAYON_NUM_THREADS=str(setting["threads"]))
    start = time.perf_counter()
    process = subprocess.Popen([outlier, "run", script, "--quiet"], stdout=subprocess.PIPE, env=environment)
    measurements = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6, measurements["bytes_read"] / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outlier", default=os.path.join(HERE, "../target/release/outlier"))
    parser.add_argument("--runs", type=int, default=3)
    a = parser.parse_args()
    print(f"{os.cpu_count()} cores; otherwise {BASE['layers']} layers, {BASE['sequences']} x {LENGTH} tokens, "
          f"{BASE['experts']} experts of which 2, {os.cpu_count()} threads; medians of {a.runs}\n")
    print("| doubled | value | read | wall | peak memory |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for what, first in BASE.items():
            for step in range(STEPS):
                setting = dict(BASE, threads=os.cpu_count())
                setting[what] = first << step
                folder = os.path.join(temporary, f"{setting['layers']}x{setting['experts']}")
                if not os.path.exists(folder):
                    write_model(folder, setting["layers"], setting["experts"])
                runs = [run(a.outlier, folder, setting) for _ in range(a.runs)]
                wall, memory, read = (statistics.median(values) for values in zip(*runs))
                print(f"| {what} | {setting[what]} | {read:.0f} MB | {wall:.2f} s | {memory:.0f} MB |", flush=True)


main()
