#!/usr/bin/env python3
"""What lanes cost: a model as it is, and with lanes beside it, in turns on the same tokens.

  python lanes.py MODEL [--lanes 8] [--sequences 4] [--length 512] [--runs 3] [--only early,late] [--program outlier]

Each run is a fresh process. Printed are medians, and medians of the ratios to the run without lanes of the same round: on a machine
that others use too, ratios of processor seconds still mean something. "early" are lanes that begin at layer 0, "late" lanes that begin
in the last quarter of the layers, "rounded" ones that round activations to int8, and "apart" is the sum of as many runs with one lane
each. Estimates have their distance from the measured peak. The head is computed in every run, because lanes need it.

With --cold, files are dropped from the page cache before each run. With --link N, the model is streamed from a hub on this machine that
sends at most N MB/s. Needs Python only.
"""
import argparse
import http.server
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SCRIPT = """
let flags = args(#{ model: #{ default: "" }, dtype: #{ default: "bf16" }, lanes: #{ default: "[]" }, stream: #{ default: false },
    sequences: #{ default: 4 }, length: #{ default: 512 } });
let model = load_model(flags.model, #{ dtype: flags.dtype, stream: flags.stream });
let lanes = parse_json(flags.lanes);
let acts = model.extract(load_tokens(#{ ids: "ids.json" }), #{ lanes: lanes, logits: true });
let estimate = estimate_vram(flags.model, #{ dtype: flags.dtype, stream: flags.stream, num_sequences: flags.sequences,
    sequence_length: flags.length, logits: true, lanes: lanes.len() });
print(#{ measured: acts.measurements, estimated: estimate.total_bytes }.to_json());
"""
BLOCK = 1 << 18


def variants(layers, count):
    zero = lambda dim, layer=None: {"name": f"zero {dim}", "changes": [
        {"what": "zero", "sites": ["attn_in", "ffn_in"], "dims": [dim], **({} if layer is None else {"layers": [layer]})}]}
    early = [zero(dim) for dim in range(count)]
    last = layers - max(layers // 4, 1)
    yield "none", [[]]
    yield "early", [early]
    yield "late", [[zero(dim, last) for dim in range(count)]]
    yield "rounded", [[{"name": f"int8 and {dim}", "changes": [*zero(dim)["changes"], {"what": "round_activations", "format": "int8"}]}
                       for dim in range(count)]]
    yield "apart", [[lane] for lane in early]


class Hub(http.server.BaseHTTPRequestHandler):
    """One model, at one commit, over a link that all connections share."""
    protocol_version = "HTTP/1.1"
    lock, free = threading.Lock(), 0.0
    folder, bytes_per_second = "", 0.0
    COMMIT = "0" * 40

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        path = self.path.split("?")[0]
        if path.startswith("/api/"):
            files = [{"rfilename": name} for name in sorted(os.listdir(self.folder))]
            body = json.dumps({"id": "race/model", "sha": self.COMMIT, "siblings": files}).encode()
            self.head(200, len(body), [])
            if with_body:
                self.wfile.write(body)
            return
        file = os.path.join(self.folder, os.path.basename(path))
        if not os.path.isfile(file):
            return self.head(404, 0, [("X-Error-Code", "EntryNotFound"), ("X-Error-Message", "no such file")])
        size = os.path.getsize(file)
        first, end, status, headers = 0, size, 200, [("ETag", f'"{size}"'), ("X-Repo-Commit", self.COMMIT)]
        if self.headers.get("Range"):
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            first, end, status = int(first), min(int(last or size - 1) + 1, size), 206
            headers.append(("Content-Range", f"bytes {first}-{end - 1}/{size}"))
        self.head(status, end - first, headers)
        if with_body:
            self.wfile.flush()
            with open(file, "rb") as data:
                while first < end:
                    wanted = min(BLOCK, end - first)
                    self.wait(wanted)
                    first += os.sendfile(self.connection.fileno(), data.fileno(), first, wanted)

    def head(self, status, length, headers):
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(length)), ("Accept-Ranges", "bytes")]:
            self.send_header(name, value)
        self.end_headers()

    @classmethod
    def wait(cls, count):
        with cls.lock:
            now = time.monotonic()
            Hub.free = max(cls.free, now) + count / cls.bytes_per_second
            left = cls.free - now
        if left > 0.002:
            time.sleep(left)


def drop(folder):
    for name in os.listdir(folder):
        file = os.open(os.path.join(folder, name), os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def run(options, folder, lanes, environment):
    if options.cold:
        drop(options.model)
    model = "race/model" if options.link else os.path.abspath(options.model)
    words = ["--model", model, "--dtype", options.dtype, "--lanes", json.dumps(lanes),
             "--sequences", str(options.sequences), "--length", str(options.length), *(["--stream"] if options.link else [])]
    start = time.perf_counter()
    command = [os.path.abspath(options.program), "run", "run.rhai", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status != 0:
        sys.exit(f"failed: {lanes}\n{output}")
    result = json.loads(output.strip().splitlines()[-1])
    peak, estimated = result["measured"]["peak_memory_bytes"] / 1e6, result["estimated"] / 1e6
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": peak, "estimated": estimated}


def total(parts):
    """Several runs as one: seconds add up, memory does not."""
    joined = {key: sum(part[key] for part in parts) for key in ("wall", "cpu")}
    return joined | {key: max(part[key] for part in parts) for key in ("peak", "estimated")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--only", default="")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--link", type=float, default=0.0)
    parser.add_argument("--program", default="target/release/outlier")
    options = parser.parse_args()
    with open(os.path.join(options.model, "config.json")) as file:
        config = json.load(file)
    only = {"none", *filter(None, options.only.split(","))}
    all_variants = variants(config["num_hidden_layers"], options.lanes)
    chosen = [(name, runs) for name, runs in all_variants if len(only) == 1 or name in only]
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ)
        if options.link:
            Hub.folder, Hub.bytes_per_second = os.path.abspath(options.model), options.link * 1e6
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": os.path.join(folder, "hub")}
        with open(os.path.join(folder, "run.rhai"), "w") as file:
            file.write(SCRIPT)
        draw = random.Random(1)
        with open(os.path.join(folder, "ids.json"), "w") as file:
            ids = [[draw.randrange(4, config["vocab_size"]) for _ in range(options.length)] for _ in range(options.sequences)]
            json.dump(ids, file)
        for _ in range(options.runs):
            rounds.append({name: total([run(options, folder, lanes, environment) for lanes in runs]) for name, runs in chosen})
    print("| lanes | wall | processor | peak | estimated |")
    print("|---|---|---|---|---|")
    for name, _ in chosen:
        median = lambda key: statistics.median(round[name][key] for round in rounds)
        ratio = lambda key: statistics.median(round[name][key] / round["none"][key] for round in rounds)
        print(f"| {name} | {median('wall'):.2f} s ({ratio('wall'):.2f}) | {median('cpu'):.2f} s ({ratio('cpu'):.2f}) "
              f"| {median('peak'):.0f} MB | {median('estimated'):.0f} MB ({median('estimated') / median('peak') - 1:+.0%}) |")


main()
