"""Writes blocks.safetensors: blocks of every type of ggml with random codes and scales, and the numbers that they stand for, one by one
by the layouts that ggml-common.h of llama.cpp describes. Needs numpy; `python make.py` in this folder makes the same file again.

Every number is found for itself from the place of its bits, with f32 arithmetic: scale times code, then the minimum.
"""
import json
import struct

import numpy as np

f32 = np.float32
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def half(b, at):
    return f32(np.frombuffer(bytes(b[at:at + 2]), "<f2")[0])


def i8(byte):
    return byte - 256 if byte > 127 else byte


def nibble(b, at, i):
    """Code i of 32 whose low nibbles are the first 16."""
    return b[at + i % 16] >> 4 * (i // 16) & 15


def bit(b, at, i):
    return b[at + i // 8] >> i % 8 & 1


def q2_k(b, i):
    scales = b[i // 16]
    code = b[16 + i // 128 * 32 + i % 32] >> i % 128 // 32 * 2 & 3
    return half(b, 80) * f32(scales & 15) * f32(code) - half(b, 82) * f32(scales >> 4)


def q3_k(b, i):
    k = i // 16
    low = b[96 + k % 8] >> k // 8 * 4 & 15
    high = b[104 + k % 4] >> k // 4 * 2 & 3
    code = b[32 + i // 128 * 32 + i % 32] >> i % 128 // 32 * 2 & 3
    third = b[i % 32] >> i // 32 & 1
    return half(b, 108) * f32((low | high << 4) - 32) * f32((code | third << 2) - 4)


def six(b, k):
    """Scale and minimum of part k of eight, of six bits each in twelve bytes at 4."""
    if k < 4:
        return b[4 + k] & 63, b[8 + k] & 63
    return b[8 + k] & 15 | (b[k] >> 6) << 4, b[8 + k] >> 4 | (b[4 + k] >> 6) << 4


def fours(b, i, codes, more):
    scale, least = six(b, i // 32)
    code = b[codes + i // 64 * 32 + i % 32] >> i // 32 % 2 * 4 & 15
    return half(b, 0) * f32(scale) * f32(code | more << 4) - half(b, 2) * f32(least)


def q6_k(b, i):
    at, inside = i // 128, i % 128
    low = b[at * 64 + inside % 64] >> inside // 64 * 4 & 15
    high = b[128 + at * 32 + inside % 32] >> inside // 32 * 2 & 3
    return half(b, 208) * f32(i8(b[192 + i // 16])) * f32((low | high << 4) - 32)


# Columns and bytes of a block, where scales in f16 are, and number i of a block.
TYPES = {
    "Q4_0": (32, 18, [0], lambda b, i: half(b, 0) * f32(nibble(b, 2, i) - 8)),
    "Q4_1": (32, 20, [0, 2], lambda b, i: half(b, 0) * f32(nibble(b, 4, i)) + half(b, 2)),
    "Q5_0": (32, 22, [0], lambda b, i: half(b, 0) * f32((nibble(b, 6, i) | bit(b, 2, i) << 4) - 16)),
    "Q5_1": (32, 24, [0, 2], lambda b, i: half(b, 0) * f32(nibble(b, 8, i) | bit(b, 4, i) << 4) + half(b, 2)),
    "Q8_0": (32, 34, [0], lambda b, i: half(b, 0) * f32(i8(b[2 + i]))),
    "Q8_1": (32, 36, [0, 2], lambda b, i: half(b, 0) * f32(i8(b[4 + i]))),
    "Q2_K": (256, 84, [80, 82], q2_k),
    "Q3_K": (256, 110, [108], q3_k),
    "Q4_K": (256, 144, [0, 2], lambda b, i: fours(b, i, 16, 0)),
    "Q5_K": (256, 176, [0, 2], lambda b, i: fours(b, i, 48, b[16 + i % 32] >> i // 32 & 1)),
    "Q6_K": (256, 210, [208], q6_k),
    "Q8_K": (256, 292, [], lambda b, i: f32(np.frombuffer(bytes(b[:4]), "<f4")[0]) * f32(i8(b[4 + i]))),
    "MXFP4": (32, 17, [], lambda b, i: f32(2.0) ** f32(b[0] - 127) * f32(E2M1[nibble(b, 1, i)])),
    "F32": (1, 4, [], lambda b, i: f32(np.frombuffer(bytes(b), "<f4")[0])),
    "F16": (1, 2, [0], lambda b, i: half(b, 0)),
    "BF16": (1, 2, [], lambda b, i: f32(np.frombuffer(bytes([0, 0, *b]), "<f4")[0])),
}
ROWS, COLUMNS = 2, 512
SCALES = [0.0123, -0.37, 6e-8, 1000.0, 0.0, -0.0, 65504.0, 3.1e-5]

rng = np.random.default_rng(5)
tensors = {}
for name, (columns, size, scales, number) in TYPES.items():
    count = ROWS * COLUMNS // columns
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for k in range(count):
        for at in scales:
            value = rng.normal() * 0.1 if columns == 1 or rng.random() < 0.5 else SCALES[rng.integers(len(SCALES))]
            blocks[k, at:at + 2] = np.frombuffer(np.float16(value).tobytes(), np.uint8)
        if name in ("Q8_K", "F32"):
            blocks[k, :4] = np.frombuffer(f32(rng.normal() * 0.1).tobytes(), np.uint8)
        if name == "MXFP4":
            blocks[k, 0] = [0, 1, 120, 127, 130, 200][k % 6]
        if name == "BF16":
            blocks[k] = np.frombuffer(f32(rng.normal()).tobytes(), np.uint8)[2:]
    values = [number([int(byte) for byte in block], i) for block in blocks for i in range(columns)]
    tensors[name + ".blocks"] = ("U8", [ROWS, COLUMNS // columns * size], blocks.tobytes())
    tensors[name + ".values"] = ("F32", [ROWS, COLUMNS], np.array(values, f32).tobytes())

header, data = {}, b""
for name, (dtype, shape, stored) in sorted(tensors.items()):
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(stored)]}
    data += stored
head = json.dumps(header).encode()
head += b" " * (-len(head) % 8)
with open("blocks.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(head)) + head + data)
