# Two commands do everything on a machine with a Rust toolchain and a C compiler: `make demo` and `make test`.

.PHONY: demo test packages test-packages lint

# Builds the program, runs the sweep on miniature models and a first threshold experiment, says where the results are.
demo: packages
	cargo build --release
	./target/release/outlier run scripts/sweep.rhai --miniature
	./target/release/outlier run scripts/quickstart.rhai

# All tests. They need no network, no GPU and no Python.
test: test-packages
	cargo test

# What the build and the tests need from the system: installs it where that is possible, says which where it is not.
packages:
	@sh .ci/packages

test-packages:
	@sh .ci/packages tests

lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
