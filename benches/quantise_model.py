#!/usr/bin/env python3
"""Writes the quantised form of a model in bf16: its projections in codes and scales, everything else as it is.

  python quantise_model.py FORMAT SOURCE FOLDER

FORMAT is one of: fp8 (E4M3, a scale for each 128 x 128, as DeepSeek-V3 is released), int4 (pack-quantized of compressed-tensors,
groups of 128 columns, as Kimi-K2 is), mxfp4 and nvfp4 (compressed-tensors), gptq and awq (4 bits, groups of 128 columns). Weights
are rounded to the nearest code, without calibration: this is for measuring time and memory. Needs numpy.
"""
import json
import os
import struct
import sys

import numpy as np

GROUP = 128
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=np.float32)
AWQ_SLOTS = [0, 4, 1, 5, 2, 6, 3, 7]
# What projections are called in the models of race_model.py.
PROJECTIONS = ("_proj.weight", ".w1.weight", ".w2.weight", ".w3.weight")


def e4m3(values):
    """Codes of the nearest E4M3, half to even; magnitudes are at most 448."""
    bits = np.abs(values).astype(np.float32).view(np.uint32)
    normal = ((bits + 0x7FFFF + (bits >> 20 & 1)) >> 20) - (120 << 3)
    small = np.rint(np.abs(values) * 512).astype(np.uint32)
    magnitude = np.where(np.abs(values) < 2.0**-6, small, normal).astype(np.uint8)
    return magnitude | np.signbit(values).astype(np.uint8) << 7


def from_e4m3(codes):
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float32)
    return np.where(exponent == 0, mantissa / 512, np.ldexp(1 + mantissa / 8, exponent - 7)).astype(np.float32)


def e2m1(values):
    """Codes of the nearest E2M1, in bytes of two, the low half first."""
    magnitude = np.searchsorted((E2M1[1:] + E2M1[:-1]) / 2, np.abs(values)).astype(np.uint8)
    codes = magnitude | np.signbit(values).astype(np.uint8) << 3
    return codes[:, 0::2] | codes[:, 1::2] << 4


def groups(weight, size):
    return np.abs(weight).reshape(len(weight), -1, size).max(2)


def spread(scales, size):
    return np.repeat(scales, size, 1)


def bf16(values):
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(halves):
    return (halves.astype(np.uint32) << 16).view(np.float32)


def words(codes):
    """Rows of codes of four bits, eight in a word, the first in its low end."""
    nibbles = codes.astype(np.uint8).reshape(len(codes), -1, 2)
    return np.ascontiguousarray(nibbles[..., 0] | nibbles[..., 1] << 4).view(np.int32)


def fp8(name, w):
    out, width = w.shape
    tall, wide = -(-out // 128), -(-width // 128)
    padded = np.zeros((tall * 128, wide * 128), np.float32)
    padded[:out, :width] = np.abs(w)
    scales = np.maximum(padded.reshape(tall, 128, wide, 128).max((1, 3)) / 448, 1e-12).astype(np.float32)
    scale = np.repeat(np.repeat(scales, 128, 0), 128, 1)[:out, :width]
    return {name: ("F8_E4M3", e4m3(np.clip(w / scale, -448, 448))), f"{name}_scale_inv": ("F32", scales)}


def integers(w):
    """Codes 0 to 15 around 8, and their scales as the file has them."""
    scales = groups(w, GROUP) / 7
    return np.clip(np.rint(w / spread(np.maximum(scales, 1e-12), GROUP)), -8, 7) + 8, scales


def int4(name, w):
    codes, scales = integers(w)
    shape = np.array(w.shape, np.int64)
    return {
        f"{name}_packed": ("I32", words(codes)), f"{name}_scale": ("BF16", bf16(scales)), f"{name}_shape": ("I64", shape),
    }


def gptq(name, w):
    codes, scales = integers(w)
    stem, (out, width) = name.removesuffix(".weight"), w.shape
    zeros = np.full((width // GROUP, out), 7)
    named = (np.arange(width) // GROUP).astype(np.int32)
    return {
        f"{stem}.qweight": ("I32", words(codes).T), f"{stem}.qzeros": ("I32", words(zeros)),
        f"{stem}.scales": ("F16", scales.T.astype(np.float16)), f"{stem}.g_idx": ("I32", named),
    }


def awq(name, w):
    codes, scales = integers(w)
    stem, (out, width) = name.removesuffix(".weight"), w.shape
    ordered = np.empty((width, out // 8, 8), np.uint8)
    ordered[..., AWQ_SLOTS] = codes.T.reshape(width, out // 8, 8)
    zeros = np.full((width // GROUP, out), 8)
    return {
        f"{stem}.qweight": ("I32", words(ordered.reshape(width, out))), f"{stem}.qzeros": ("I32", words(zeros)),
        f"{stem}.scales": ("F16", scales.T.astype(np.float16)),
    }


def mxfp4(name, w):
    largest = np.maximum(groups(w, 32), 2.0**-100)
    exponents = np.floor(np.log2(largest)).astype(np.int32) - 2
    codes = e2m1(w / spread(np.ldexp(np.float32(1), exponents), 32))
    return {f"{name}_packed": ("U8", codes), f"{name}_scale": ("U8", (exponents + 127).astype(np.uint8))}


def nvfp4(name, w):
    number = np.float32(448 * 6 / max(np.abs(w).max(), 1e-12))
    scales = e4m3(np.minimum(groups(w, 16) / 6 * number, 448))
    codes = e2m1(w / np.maximum(spread(from_e4m3(scales), 16) / number, 1e-30))
    return {
        f"{name}_packed": ("U8", codes), f"{name}_scale": ("F8_E4M3", scales),
        f"{name}_global_scale": ("F32", np.array([number], np.float32)),
    }


def compressed(format, **weights):
    group = {"weights": weights, "targets": ["Linear"], "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors", "format": format, "quantization_status": "compressed", "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


FORMATS = {
    "fp8": (fp8, {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
        "modules_to_not_convert": ["lm_head"],
    }),
    "int4": (int4, compressed("pack-quantized", type="int", num_bits=4, strategy="group", group_size=GROUP, symmetric=True)),
    "mxfp4": (mxfp4, compressed("mxfp4-pack-quantized", type="float", num_bits=4, strategy="group", group_size=32)),
    "nvfp4": (nvfp4, compressed("nvfp4-pack-quantized", type="float", num_bits=4, strategy="tensor_group", group_size=16)),
    "gptq": (gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}),
    "awq": (awq, {"quant_method": "awq", "version": "gemm", "bits": 4, "group_size": GROUP, "zero_point": True}),
}


def read(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.tell()
    header.pop("__metadata__", None)
    stored = np.memmap(path, np.uint8, "r", data)
    for name, of in header.items():
        begin, end = of["data_offsets"]
        yield name, of["dtype"], of["shape"], stored[begin:end]


def write(path, tensors):
    header, at = {}, 0
    for name, (dtype, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + values.nbytes]}
        at += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            file.write(np.ascontiguousarray(values).tobytes())


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in FORMATS:
        sys.exit(__doc__)
    (coded, settings), source, folder = FORMATS[sys.argv[1]], sys.argv[2], sys.argv[3]
    os.makedirs(folder, exist_ok=True)
    index, total = {}, 0
    for file in sorted(file for file in os.listdir(source) if file.startswith("model") and file.endswith(".safetensors")):
        tensors = {}
        for name, dtype, shape, stored in read(os.path.join(source, file)):
            projection = len(shape) == 2 and name.endswith(PROJECTIONS)
            if projection and dtype == "BF16":
                tensors |= coded(name, widened(stored.view(np.uint16).reshape(shape)))
            else:
                kinds = {"BF16": np.uint16, "F32": np.float32, "F16": np.float16}
                tensors[name] = (dtype, stored.view(kinds[dtype]).reshape(shape))
        write(os.path.join(folder, file), tensors)
        index |= {name: file for name in tensors}
        total += sum(values.nbytes for _, values in tensors.values())
    with open(os.path.join(source, "config.json")) as file:
        config = json.load(file) | {"quantization_config": settings}
    for name, value in (("config.json", config), ("model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": index})):
        with open(os.path.join(folder, name), "w") as file:
            json.dump(value, file, indent=1)


main()
