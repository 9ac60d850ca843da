#!/usr/bin/env python3
"""Races this program against Hugging Face transformers with forward hooks: same weights, tokens, dtype, cores, one go.

  make race MODEL=DIR DTYPE=bf16 [SEQUENCES=4] [LENGTH=512] [RUNS=5] [TRUNK=1]

Runs alternate, each in a fresh process; printed are medians. Wall, CPU seconds and peak memory are of the whole process, as the
kernel counts them for its parent, so that both are measured by the same clock. Both must find the same dimensions.
"""
import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS = [("load", "s"), ("forward", "s"), ("wall", "s"), ("cpu", "s"), ("memory", "MB")]


def measured(command):
    """Runs a command; its last line is JSON, to which wall, CPU and memory are added."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"failed: {' '.join(command)}\n{output}")
    result = json.loads(output.strip().splitlines()[-1])
    # ru_maxrss is in kilobytes on Linux.
    result["vram"] = result.get("vram", 0) / 1e6
    result.update(wall=wall, cpu=usage.ru_utime + usage.ru_stime, memory=usage.ru_maxrss * 1024 / 1e6)
    return result


def ids_file(model, sequences, length):
    """Random token ids, the same for both."""
    import torch
    from safetensors.torch import save_file

    with open(os.path.join(model, "config.json")) as file:
        vocabulary = json.load(file)["vocab_size"]
    path = os.path.join(model, f"ids_{sequences}x{length}.safetensors")
    ids = torch.randint(4, vocabulary, (sequences, length), generator=torch.Generator().manual_seed(20))
    save_file({"input_ids": ids}, path)
    return path


def cpu_name():
    if not os.path.exists("/proc/cpuinfo"):
        return platform.processor()
    with open("/proc/cpuinfo") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    lines = {key.strip(): value.strip() for key, value in lines.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in lines.get("flags", "").split()]
    return f"{lines.get('model name')}, {os.cpu_count()} cores, {' '.join(flags)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4, help="sequences per forward of transformers")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--trunk-only", action="store_true", help="transformers without the language-model head")
    parser.add_argument("--logits", action="store_true", help="this program with the head")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N, for both")
    parser.add_argument("--outlier", default=os.path.join(HERE, "../target/release/outlier"))
    a = parser.parse_args()
    # In a process of its own: what this one holds would count as the peak of those it starts.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        ids = pool.apply(ids_file, (a.model, a.sequences, a.length))
    model = os.path.abspath(a.model)
    peer = [sys.executable, os.path.join(HERE, "hooks.py"), "--model", model, "--ids", ids, "--dtype", a.dtype,
            "--batch", str(a.batch), "--threads", str(a.threads), "--device", a.device] + ["--trunk-only"] * a.trunk_only
    ours = [a.outlier, "run", os.path.join(HERE, "race.rhai"), "--quiet", "--model", model, "--ids",
            os.path.abspath(ids), "--dtype", a.dtype, "--device", a.device] + ["--logits"] * a.logits
    print(f"{a.model}, {a.dtype}, {a.sequences} x {a.length} tokens, {a.threads} threads, {a.runs} alternating runs, "
          f"page cache warm\n{cpu_name()}")
    os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(a.threads)
    rows = ROWS + [("vram", "MB")] * (a.device != "cpu")
    runs = {"transformers": [], "outlier": []}
    for _ in range(a.runs):
        for name, command in (("transformers", peer), ("outlier", ours)):
            result = measured(command)
            runs[name].append(result)
            print("  ".join([f"  {name:12}"] + [f"{row} {result[row]:.2f} {unit}" for row, unit in rows]), flush=True)
    dims = {name: results[-1]["dims"] for name, results in runs.items()}
    if dims["transformers"] != dims["outlier"]:
        sys.exit(f"the two disagree on the outlier dimensions: {dims}")
    print(f"{runs['transformers'][0]['versions']}; both found dimensions {dims['outlier']}\n")
    median = {name: {row: statistics.median(r[row] for r in results) for row, _ in rows} for name, results in runs.items()}
    print(f"| median of {a.runs} | transformers + hooks | outlier | ratio |\n|---|---|---|---|")
    for row, unit in rows:
        theirs, mine = median["transformers"][row], median["outlier"][row]
        print(f"| {row} | {theirs:.2f} {unit} | {mine:.2f} {unit} | {theirs / max(mine, 1e-9):.2f} |")


if __name__ == "__main__":
    main()
