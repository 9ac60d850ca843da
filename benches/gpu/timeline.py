#!/usr/bin/env python3
"""Where the time goes on a GPU, from what `OUTLIER_TIMELINE=FILE outlier run ...` wrote.

    timeline.py FILE [--rates RATES.json] [--layer N]

Per kind of work: how often, how long, which share of the time, and what rate where bytes or operations were counted. With the
rates that `rates.py` measured: which share of them. Then one layer, drawn: what ran on each stream, left to right."""
import argparse
import collections
import json
import re

WIDTH = 100

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("--rates", help="what rates.py printed")
parser.add_argument("--layer", type=int, help="the one that is drawn; one in the middle without it")
parser.add_argument("--gpu", type=int, default=0)
args = parser.parse_args()

with open(args.file) as file:
    spans = [span for span in json.load(file)["traceEvents"] if span["pid"] == args.gpu]
rates = {}
if args.rates:
    with open(args.rates) as file:
        measured = json.load(file)
    rates = {"to the GPU": measured["copy_bytes_per_second"]}
    rates |= {f"product in {name}": measured["flops"][dtype] for name, dtype in (("bf16", "bfloat16"), ("f32", "float32"))}


def is_mark(span):
    return re.fullmatch(r"layer \d+", span["name"])


def seconds(spans):
    return sum(span["dur"] for span in spans) / 1e6


marks = {int(span["name"].split()[1]): span["ts"] for span in spans if is_mark(span)}
work = [span for span in spans if not is_mark(span)]
begin, end = min(span["ts"] for span in work), max(span["ts"] + span["dur"] for span in work)
wall = (end - begin) / 1e6
print(f"GPU {args.gpu}: {wall:.3f} s from the first to the last of {len(work)} pieces of work")
streams = collections.defaultdict(list)
for span in work:
    streams[span["tid"]].append(span)
for stream, of_stream in sorted(streams.items()):
    busy = seconds(of_stream)
    print(f"\n{stream}: busy {busy:.3f} s, {100 * busy / wall:.1f} % of the time")
    print(f"  {'what':<20}{'times':>8}{'ms':>11}{'% of busy':>11}{'rate':>15}{'of measured':>13}")
    kinds = collections.defaultdict(list)
    for span in of_stream:
        kinds[span["name"]].append(span)
    for name, of_kind in sorted(kinds.items(), key=lambda kind: -seconds(kind[1])):
        took = seconds(of_kind)
        rate = share = ""
        for unit, (scale, shown) in {"bytes": (1e9, "GB/s"), "operations": (1e12, "TFLOP/s")}.items():
            amount = sum(span["args"].get(unit, 0) for span in of_kind)
            if amount and took:
                rate = f"{amount / took / scale:.1f} {shown}"
                share = f"{100 * amount / took / rates[name]:.0f} %" if name in rates else ""
        print(f"  {name:<20}{len(of_kind):>8}{1e3 * took:>11.2f}{100 * took / busy:>10.1f} {rate:>15}{share:>13}")

tap = seconds(span for span in work if span["name"] == "tap")
print(f"\nthe tap: {100 * tap / max(seconds(streams['compute']), 1e-9):.2f} % of what the computing stream did")

layers = sorted(marks)
if layers:
    layer = args.layer if args.layer is not None else layers[len(layers) // 2]
    first, last = marks[layer], marks.get(layer + 1, end)
    print(f"\nlayer {layer}, {(last - first) / 1e3:.2f} ms:")
    names = {}
    for stream in sorted(streams):
        # What had most of the time of each column.
        columns = [collections.Counter() for _ in range(WIDTH)]
        for span in (span for span in streams[stream] if span["ts"] < last and span["ts"] + span["dur"] > first):
            for column in range(WIDTH):
                left = first + (last - first) * column / WIDTH
                right = first + (last - first) * (column + 1) / WIDTH
                overlap = min(right, span["ts"] + span["dur"]) - max(left, span["ts"])
                if overlap > 0:
                    columns[column][span["name"]] += overlap
        width = (last - first) / WIDTH
        drawn = ""
        for column in columns:
            idle = width - sum(column.values())
            name, most = max(column.items(), key=lambda item: item[1], default=("", 0))
            if most <= idle:
                drawn += "."
                continue
            free = [letter for letter in name + name.upper() + "abcdefghijklmnopqrstuvwxyz" if letter.isalpha()]
            if name not in names:
                names[name] = next(letter for letter in free if letter not in names.values())
            drawn += names[name]
        print(f"  {stream:<8}{drawn}")
    print("  " + ", ".join(f"{letter} {name}" for name, letter in names.items()) + ", . idle")
