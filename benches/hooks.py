#!/usr/bin/env python3
"""The other runner of the race: Hugging Face transformers with forward hooks on both norms of every layer.

Activations are copied to f32 on the CPU and kept, then searched for outlier features. Prints one JSON line; started by race.py.
"""
import time

START = time.perf_counter()
import argparse
import importlib.util
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", required=True)
parser.add_argument("--ids", required=True)
parser.add_argument("--dtype", choices=["bf16", "f32"], required=True)
parser.add_argument("--batch", type=int, required=True, help="sequences per forward")
parser.add_argument("--threads", type=int, required=True)
parser.add_argument("--device", default="cpu")
parser.add_argument("--trunk-only", action="store_true", help="without the language-model head")
args = parser.parse_args()

import torch
import transformers
from safetensors.torch import load_file

transformers.utils.logging.disable_progress_bar()
transformers.logging.set_verbosity_error()
torch.set_num_threads(args.threads)
imported = time.perf_counter()
dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[args.dtype]
with open(os.path.join(args.model, "config.json")) as file:
    config = json.load(file)
# The sinks of gpt-oss are not in sdpa.
attention = "eager" if config["model_type"] == "gpt_oss" else "sdpa"
# With accelerate the weights go there directly.
direct = args.device != "cpu" and importlib.util.find_spec("accelerate")
on_gpu = {"device_map": args.device} if direct else {}
# A CPU multiplies no codes: transformers widens quantised weights when it loads them.
quantised = (config.get("quantization_config") or {}).get("quant_method")
if quantised == "fp8":
    widened = {"quantization_config": transformers.FineGrainedFP8Config(dequantize=True)}
elif quantised == "compressed-tensors":
    widened = {"quantization_config": transformers.CompressedTensorsConfig(run_compressed=False)}
else:
    widened = {}
loading = {"dtype": dtype, "attn_implementation": attention, **widened, **on_gpu}
model = transformers.AutoModelForCausalLM.from_pretrained(args.model, **loading).to(args.device).eval()
ids = load_file(args.ids)["input_ids"]
loaded = time.perf_counter()

captured = []
for layer in model.model.layers:
    for norm in (layer.input_layernorm, layer.post_attention_layernorm):
        outputs = []
        captured.append(outputs)

        def hook(_module, _inputs, output, outputs=outputs):
            outputs.append(output.detach().to("cpu", torch.float32, copy=True))

        norm.register_forward_hook(hook)
runner = model.model if args.trunk_only else model
with torch.no_grad():
    for first in range(0, ids.shape[0], args.batch):
        runner(input_ids=ids[first : first + args.batch].to(args.device), use_cache=False)
computed = time.perf_counter()

# Shares over norms and over positions, all sequences together.
hidden = model.config.hidden_size
norms_hit = torch.zeros(hidden)
position_hit = torch.zeros(ids.numel(), hidden, dtype=torch.bool)
for outputs in captured:
    hit = torch.cat(outputs).reshape(-1, hidden).abs() >= 6.0
    norms_hit += hit.any(0)
    position_hit |= hit
passing = (norms_hit / len(captured) >= 0.25) & (position_hit.float().mean(0) >= 0.06)
done = time.perf_counter()
print(json.dumps({
    "import": imported - START, "load": loaded - imported, "forward": computed - loaded, "detect": done - computed,
    "dims": torch.nonzero(passing).flatten().tolist(),
    "vram": 0 if args.device == "cpu" else torch.cuda.max_memory_allocated(),
    "versions": f"transformers {transformers.__version__}, torch {torch.__version__}",
}))
