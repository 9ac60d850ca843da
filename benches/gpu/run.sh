#!/bin/sh
# Everything there is to show on a GPU, in one go: parity, the race against transformers and where the time goes, memory.
#
#   sh benches/gpu/run.sh [parity] [race] [memory]       all three without a word
#
# Needs one NVIDIA GPU, Python with torch, transformers, accelerate and
# safetensors (`make race-environment`, or PYTHON=…), the program (`cargo build --release`, or
# OUTLIER=…) and for parity its tests (TESTS=… is the test program; without it cargo builds it). Models are written to MODELS, in
# memory as a rule, one after the other: up to 65 GB. RUNS alternating runs each.
set -eu
cd "$(dirname "$0")/../.."
own=target/race-environment/bin/python
[ -x "$own" ] || own=python3
python=${PYTHON:-$own}
outlier=${OUTLIER:-target/release/outlier}
models=${MODELS:-/dev/shm/outlier-models}
runs=${RUNS:-3}
sequences=${SEQUENCES:-16}
length=${LENGTH:-2048}
export OUTLIER_TEST_DEVICE=cuda:0
trap 'rm -rf "$models"' EXIT
"$outlier" doctor

parity() {
    echo "## Parity: every fixture against transformers, f32 within 1e-4, the same outlier features in bf16"
    for test in oracle::every_architecture_agrees_with_transformers \
        precision::every_architecture_keeps_its_outlier_features_in_bf16; do
        if [ -n "${TESTS:-}" ]; then
            "$TESTS" --exact "$test" --nocapture --test-threads 1
        else
            cargo test --release --test outlier -- --exact "$test" --nocapture --test-threads 1
        fi
    done
}

race() {
    echo "## What the GPU and its bus can do"
    rates=${TMPDIR:-/tmp}/outlier-rates.json
    "$python" benches/gpu/rates.py | tee "$rates"
    for shape in ${SHAPES:-olmoe-1b-7b gpt-oss-20b qwen3-30b-a3b}; do
        echo "## Race: $shape"
        rm -rf "$models"
        "$python" benches/gpu/real_model.py "$shape" "$models/$shape"
        "$python" benches/race.py --outlier "$outlier" --device cuda:0 --model "$models/$shape" --dtype bf16 \
            --sequences "$sequences" --length "$length" --batch 2 --runs "$runs" --trunk-only
        echo "## Where the time goes: $shape"
        OUTLIER_TIMELINE="$models/timeline.json" "$outlier" run benches/gpu/memory.rhai --quiet --max-vram 1000GB \
            --model "$models/$shape" --sequences "$sequences" --length "$length"
        "$python" benches/gpu/timeline.py "$models/timeline.json" --rates "$rates"
    done
}

memory() {
    echo "## Memory: layers of GLM-4.5-Air in 24 GB"
    rm -rf "$models"
    "$python" benches/gpu/real_model.py glm-4.5-air "$models/glm-4.5-air" --layers "${GLM_LAYERS:-8}"
    "$outlier" run benches/gpu/memory.rhai --quiet --model "$models/glm-4.5-air" --sequences "$sequences" --length "$length"
}

for part in ${*:-parity race memory}; do
    "$part"
done
