#!/usr/bin/env python3
"""A model in bf16 and quantised forms of it, in turns on the same tokens: time, memory, bytes read, and what was estimated.

  python quantised.py MODEL FORM... [--sequences 8] [--length 1024] [--runs 3] [--dtype bf16] [--cold] [--program outlier]

The forms are made by quantise_model.py. Each run is a fresh process. Printed are medians, and medians of the ratios to the bf16 run
of the same round: on a machine that others use too, ratios of processor seconds still mean something. With --cold the files are
dropped from the page cache before every run (Linux). Needs Python only.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = """
let flags = args(#{
    model: #{ default: "" }, ids: #{ default: "" }, dtype: #{ default: "bf16" }, sequences: #{ default: 1 }, length: #{ default: 1 },
});
let model = load_model(flags.model, #{ dtype: flags.dtype });
let acts = model.extract_layernorms(load_tokens(#{ ids: flags.ids }));
let estimate = estimate_vram(flags.model, #{ dtype: flags.dtype, num_sequences: flags.sequences, sequence_length: flags.length });
let found = acts.detect_outliers(#{ magnitude_threshold: 6.0 }).features.map(|f| f.feature_dim);
print(#{ measured: acts.measurements, estimate: estimate, found: found }.to_json());
"""


def dropped(folder):
    """Drops the files of a model from the page cache."""
    os.sync()
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(options, folder, script, ids):
    if options.cold:
        dropped(folder)
    words = ["--model", folder, "--ids", ids, "--dtype", options.dtype]
    words += ["--sequences", str(options.sequences), "--length", str(options.length)]
    start = time.perf_counter()
    process = subprocess.Popen([options.program, "run", script, *words], stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"failed: {folder}\n{output}")
    result = json.loads(output.strip().splitlines()[-1])
    measured, estimate = result["measured"], result["estimate"]
    return {
        "wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "forward": measured["wall_seconds"],
        "peak": measured["peak_memory_bytes"] / 1e6, "estimated": estimate["total_bytes"] / 1e6,
        "layer": estimate["layer_bytes"] / 1e6, "read": measured["bytes_read"] / 1e6, "needed": measured["bytes_needed"] / 1e6,
        "found": sorted(result["found"]),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--program", default=os.path.join(HERE, "../target/release/outlier"))
    options = parser.parse_args()
    with open(os.path.join(options.models[0], "config.json")) as file:
        vocabulary = json.load(file)["vocab_size"]
    chosen = random.Random(20)
    rows = [[chosen.randrange(4, vocabulary) for _ in range(options.length)] for _ in range(options.sequences)]
    with tempfile.TemporaryDirectory() as folder:
        script, ids = os.path.join(folder, "run.rhai"), os.path.join(folder, "ids.json")
        for path, text in ((script, SCRIPT), (ids, json.dumps(rows))):
            with open(path, "w") as file:
                file.write(text)
        runs = [[run(options, model, script, ids) for model in options.models] for _ in range(options.runs)]
    print("| model | wall | processor | peak | estimated | a layer | read | of those needed |")
    print("|---|---|---|---|---|---|---|---|")
    for i, model in enumerate(options.models):
        median = lambda key: statistics.median(round[i][key] for round in runs)
        ratio = lambda key: statistics.median(round[i][key] / round[0][key] for round in runs)
        print(
            f"| {os.path.basename(model.rstrip('/'))} | {median('wall'):.2f} s ({ratio('wall'):.2f}) | {median('cpu'):.2f} s ({ratio('cpu'):.2f}) "
            f"| {median('peak'):.0f} MB | {median('estimated'):.0f} MB ({median('estimated') / median('peak') - 1:+.0%}) "
            f"| {median('layer'):.1f} MB ({ratio('layer'):.2f}) | {median('read'):.0f} MB | {median('read') / median('needed'):.2%} |"
        )
    found = [runs[0][i]["found"] for i in range(len(options.models))]
    print("Outlier dimensions:", "the same in all" if all(one == found[0] for one in found) else found)


main()
