# Two commands do everything on a machine with a Rust toolchain and a C compiler: `make demo` and `make test`.

.PHONY: demo test pods drill packages test-packages lint

# Builds the program, runs the sweep on miniature models and a first threshold experiment, says where the results are.
demo: packages
	cargo build --release
	./target/release/outlier run scripts/sweep.rhai --miniature
	./target/release/outlier run scripts/quickstart.rhai

# All tests. They need no network, no GPU and no Python.
test: test-packages
	cargo test

# The miniature sweep on seven rented machines: pods of a RunPod on this machine, each a real sshd.
pods: test-packages
	cargo test --test outlier seven_models_on_seven_pods -- --nocapture

# Kills clients at random instants while the service misbehaves, and looks what is left: make drill SEED=7 RUNS=200
drill: test-packages
	SEED=$(SEED) RUNS=$(RUNS) cargo test --quiet --test drill

# What the build and the tests need from the system: installs it where that is possible, says which where it is not.
packages:
	@sh .ci/packages

test-packages:
	@sh .ci/packages tests

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
