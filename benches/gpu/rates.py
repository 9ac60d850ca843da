#!/usr/bin/env python3
"""What this GPU and its bus can do: copies from pinned memory, products in bf16 and in f32 without TF32. One line of JSON."""
import json

import torch


def seconds(work, repeats):
    work()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


host = torch.empty(1 << 28, dtype=torch.uint8, pin_memory=True)
there = torch.empty_like(host, device="cuda")
copy = len(host) / seconds(lambda: there.copy_(host, non_blocking=True), 10)
rates = {}
for dtype, size in ((torch.bfloat16, 8192), (torch.float32, 4096)):
    x, y = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    rates[str(dtype).removeprefix("torch.")] = 2 * size**3 / seconds(lambda: x @ y, 10)
print(json.dumps({"gpu": torch.cuda.get_device_name(), "copy_bytes_per_second": copy, "flops": rates}))
