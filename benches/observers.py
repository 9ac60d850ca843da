#!/usr/bin/env python3
"""What measurements cost: a model with its norms alone, and with each measurement beside that, in turns on the same tokens.

  python observers.py MODEL [--sequences 8] [--length 1024] [--runs 3] [--dtype bf16] [--only top,moments] [--program outlier]

Each run is a fresh process. Printed are medians, and medians of the ratios to the run without measurements of the same round: on a
machine that others use too, ratios of processor seconds still mean something. "norms" is everything that can be measured at the two
norms of each layer, "everything" all that the model has at all of its sites. Needs Python only.
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

SCRIPT = """
let flags = args(#{ model: #{ default: "" }, dtype: #{ default: "bf16" }, options: #{ default: "{}" } });
let model = load_model(flags.model, #{ dtype: flags.dtype });
let acts = model.extract(load_tokens(#{ ids: "ids.json" }), parse_json(flags.options));
print(acts.measurements.to_json());
"""
NORMS = ["moments", "top", "quantisation_error", "quantiles", "hits"]
OTHERS = ["massive", "attention_sinks", "super_weights", "attribution", "weights", "experts"]


def variants(model):
    with open(os.path.join(model, "config.json")) as file:
        mixture = any("expert" in key for key in json.load(file))
    yield "none", {}
    for measure in NORMS + OTHERS:
        if mixture or measure != "experts":
            yield measure, {"observe": ["outliers", measure]}
    yield "norms", {"observe": ["outliers", *NORMS]}
    yield "everything", {"sites": "all", "observe": "all"}


def run(options, folder, settings):
    words = ["--model", os.path.abspath(options.model), "--dtype", options.dtype, "--options", json.dumps(settings)]
    start = time.perf_counter()
    process = subprocess.Popen([os.path.abspath(options.program), "run", "run.rhai", *words], stdout=subprocess.PIPE, text=True, cwd=folder)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"failed: {settings}\n{output}")
    measured = json.loads(output.strip().splitlines()[-1])
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": measured["peak_memory_bytes"] / 1e6}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--only", default="")
    parser.add_argument("--program", default="target/release/outlier")
    options = parser.parse_args()
    with open(os.path.join(options.model, "config.json")) as file:
        vocabulary = json.load(file)["vocab_size"]
    only = {"none", *filter(None, options.only.split(","))}
    chosen = [(name, settings) for name, settings in variants(options.model) if len(only) == 1 or name in only]
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "run.rhai"), "w") as file:
            file.write(SCRIPT)
        draw = random.Random(1)
        with open(os.path.join(folder, "ids.json"), "w") as file:
            json.dump([[draw.randrange(4, vocabulary) for _ in range(options.length)] for _ in range(options.sequences)], file)
        for _ in range(options.runs):
            rounds.append({name: run(options, folder, settings) for name, settings in chosen})
    print("| measured beside the norms | wall | processor | peak |")
    print("|---|---|---|---|")
    for name, _ in chosen:
        median = lambda key: statistics.median(round[name][key] for round in rounds)
        ratio = lambda key: statistics.median(round[name][key] / round["none"][key] for round in rounds)
        print(f"| {name} | {median('wall'):.2f} s ({ratio('wall'):.2f}) | {median('cpu'):.2f} s ({ratio('cpu'):.3f}) "
              f"| {median('peak'):.0f} MB |")


main()
