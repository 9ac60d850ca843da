//! Measures the time of single operations: `cargo bench --bench operations [NAME]`. Sizes are those
//! of the models that the sweep reads.

use std::path::PathBuf;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use outlier::engine::probe;
use outlier::host::{self, Context, Watch};
use outlier::memory::Allocator;
use outlier::progress::{Progress, Silent};

// SAFETY: this is the only place that makes the allocator, and it is the global one, as in the
// program.
#[global_allocator]
static ALLOCATOR: Allocator = unsafe { Allocator::new() };

fn main() {
    divan::main();
}

/// The rows of one of OLMoE's experts, 2048 to 1024. Items are floating-point operations.
#[divan::bench(args = [16, 64, 256, 1024])]
fn expert(bencher: Bencher, rows: usize) {
    time_expert(bencher, rows, false);
}

/// The same rows in the compute dtype bf16.
#[divan::bench(args = [16, 64, 256, 1024])]
fn expert_in_bf16(bencher: Bencher, rows: usize) {
    time_expert(bencher, rows, true);
}

fn time_expert(bencher: Bencher, rows: usize, rounded: bool) {
    let (hidden, inner) = (2048, 1024);
    let mut work = probe::expert(rows, hidden, inner, rounded).unwrap();
    bencher.counter(ItemsCount::new(2 * 3 * rows * hidden * inner)).bench_local(&mut work);
}

/// Attention over the positions of one sequence in Qwen3-30B, 32 heads of 128 over 4 key heads.
/// Items are floating-point operations.
#[divan::bench(args = [512, 2048])]
fn attention(bencher: Bencher, positions: usize) {
    time_attention(bencher, positions, false);
}

/// The same attention in the compute dtype bf16.
#[divan::bench(args = [512, 2048])]
fn attention_in_bf16(bencher: Bencher, positions: usize) {
    time_attention(bencher, positions, true);
}

fn time_attention(bencher: Bencher, positions: usize, rounded: bool) {
    let mut work = probe::attention(positions, 32, 4, 128, None, rounded).unwrap();
    bencher.counter(ItemsCount::new(2 * positions * positions * 32 * 128)).bench_local(&mut work);
}

/// Attention in gpt-oss, with a window of 128 and 64 heads of 64.
#[divan::bench(args = [2048])]
fn attention_in_a_window(bencher: Bencher, positions: usize) {
    let mut work = probe::attention(positions, 64, 8, 64, Some(128), false).unwrap();
    bencher.bench_local(&mut work);
}

/// Gated DeltaNet over the positions of one sequence in Qwen3-Next, 32 heads of 128. Items are
/// positions.
#[divan::bench(args = [512, 2048])]
fn delta_net(bencher: Bencher, positions: usize) {
    let mut work = probe::delta_rule(positions, 32, 128).unwrap();
    bencher.counter(ItemsCount::new(positions)).bench_local(&mut work);
}

/// Dequantisation of gate and up of one gpt-oss expert, 5760 x 2880, on one thread. Bytes are those
/// of bf16.
#[divan::bench]
fn mxfp4(bencher: Bencher) {
    let values = 5760 * 2880;
    let mut work = probe::mxfp4(values / 32);
    bencher.counter(BytesCount::new(2 * values)).bench_local(&mut work);
}

/// The fold of one norm output of 4 sequences of 2048 positions and 2048 features. Bytes are those
/// of f32.
#[divan::bench]
fn fold(bencher: Bencher) {
    let mut work = probe::fold(4, 2048, 2048).unwrap();
    bencher.counter(BytesCount::new(4usize * 2048 * 2048 * 4)).bench_local(&mut work);
}

struct Nobody;

impl Watch for Nobody {
    fn progress(&self) -> Arc<dyn Progress> {
        Arc::new(Silent)
    }

    fn line(&self, _: &str) {}
}

/// A thousand calls of a primitive from a script.
#[divan::bench]
fn rhai_calls(bencher: Bencher) {
    let context = Arc::new(Context::new(PathBuf::new(), PathBuf::from("bench.rhai"), Vec::new(), Arc::new(Nobody)));
    let engine = host::engine(&context);
    let script = engine.compile("for i in 0..1000 { format_bytes(i); }").unwrap();
    bencher.counter(ItemsCount::new(1000usize)).bench_local(|| engine.run_ast(&script).unwrap());
}
