# Two commands do everything on a machine with a Rust toolchain and a C compiler: `make demo` and `make test`.

.PHONY: demo test pods drill fuzz browser-test export-test packages test-packages lint race race-environment race-model bench-hub ptx cuda-compiler

# Builds the program, runs the sweep on miniature models, and ends with what a small trained model has: a sentence and its table.
demo: packages
	@test -e target/release/outlier || echo "The first build takes 4 to 9 minutes on two cores. Cargo tells how far it is."
	cargo build --release
	./target/release/outlier run scripts/sweep.rhai --miniature
	./target/release/outlier run scripts/quickstart.rhai

# All tests. They need no network, no GPU and no Python. Many of them wait for other processes, so several share a processor.
test: export RUST_TEST_THREADS ?= $(shell echo $$((4 * $$(getconf _NPROCESSORS_ONLN))))
test: test-packages
	cargo test

# The miniature sweep on seven rented machines: pods of a RunPod on this machine, each a real sshd, with and without an (emulated) GPU.
pods: test-packages
	cargo test --test outlier seven_models_on_seven_pods -- --nocapture --include-ignored

# Kills clients at random instants while the service misbehaves, and looks what is left: make drill SEED=7 RUNS=200
drill: test-packages
	SEED=$(SEED) RUNS=$(RUNS) cargo test --quiet --test drill

# Damaged files, senseless options, broken scripts, hostile machines and hubs: docs/fuzzing.md.
#   make fuzz MINUTES=5 [SEED=1] [ONLY=config,tokenizer]; one case again: make fuzz SEED=1 CASE=config:17
MINUTES ?= 5

fuzz:
	cargo build --release
	OUTLIER_TEST_PROGRAM=target/release/outlier SEED=$(SEED) MINUTES=$(MINUTES) ONLY=$(ONLY) CASE=$(CASE) cargo test --quiet --test fuzz

# Opens the report in headless Chromium, sorts a table, reads a heat map, and takes a picture (results/report.png).
browser-test: demo
	./target/release/outlier run scripts/report.rhai
	sh tests/browser/run.sh results/report.html results/report.png

# Reads exported tables back with pandas and pyarrow, in an environment of its own.
export-test: demo
	./target/release/outlier run scripts/analyze.rhai --tables csv
	./target/release/outlier run scripts/analyze.rhai --tables parquet
	python3 -m venv target/consumers
	target/consumers/bin/pip install --quiet pandas pyarrow
	target/consumers/bin/python tests/consumers/read_exports.py results/quickstart

# What the build and the tests need from the system: installs it where that is possible, says which where it is not.
packages:
	@sh .ci/packages

test-packages:
	@sh .ci/packages tests

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

# Races this program against Hugging Face transformers with forward hooks: benches/README.md.
#   make race-model SHAPE=olmoe MODEL=target/race/olmoe
#   make race MODEL=target/race/olmoe DTYPE=bf16 [SEQUENCES=4] [LENGTH=512] [RUNS=5] [TRUNK=1]
DTYPE ?= bf16
SEQUENCES ?= 4
LENGTH ?= 512
RUNS ?= 5
SHAPE ?= olmoe
RACE_PYTHON = target/race-environment/bin/python

race: race-environment
	@test -n "$(MODEL)" || { echo "give a model folder: make race MODEL=DIR (make race-model makes one)" >&2; exit 2; }
	cargo build --release
	$(RACE_PYTHON) benches/race.py --model "$(MODEL)" --dtype $(DTYPE) --sequences $(SEQUENCES) --length $(LENGTH) --runs $(RUNS) $(if $(TRUNK),--trunk-only)

race-model: race-environment
	@test -n "$(MODEL)" || { echo "say where: make race-model SHAPE=olmoe MODEL=target/race/olmoe" >&2; exit 2; }
	$(RACE_PYTHON) benches/race_model.py $(SHAPE) "$(MODEL)"

race-environment: target/race-environment/done

target/race-environment/done: benches/requirements.txt
	python3 -m venv target/race-environment
	$(RACE_PYTHON) -m pip install -q -r benches/requirements.txt
	touch $@

# Streams a model of 1.2 GB from a hub on this machine, over a link limited to 200 MB/s.
bench-hub:
	cargo bench --bench hub

# The PTX that the program carries, made anew of src/cuda/kernels (docs/gpu.md): wherever a kernel has changed.
ptx: cuda-compiler
	sh .ci/ptx make

# NVIDIA's compiler, of the version that the PTX is made with: fetched where it is not here (271 MB). Neither the build nor the tests need it.
cuda-compiler:
	@sh .ci/packages cuda
	@sh .ci/ptx find > /dev/null || sh .ci/cuda-compiler target/cuda-compiler
