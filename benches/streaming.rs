//! Measures how near a streamed run comes to the larger of its two floors, reading and computing,
//! and the cost of the fold.
//!
//!   cargo bench --bench streaming -- --model DIR [--dtype bf16] [--sequences 4] [--length 512] [--runs 5]
//!
//! It alternates in one process between plain reads of the same bytes (8 MiB each, four in flight),
//! the forward pass with all weights in memory, the same without the fold, and the streamed run. It
//! does this once with the files in the page cache, and once with them dropped from it before every
//! read and run. It prints medians.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use outlier::engine::probe::{Probe, extract_with};
use outlier::hub::{self, Access};
use outlier::memory::Allocator;
use outlier::progress::Silent;
use outlier::record::{ComputeDtype, ExtractArgs, LoadArgs, TokenSource, Tokens};
use outlier::text::load_tokens;
use outlier::weights::{OpenModel, open};

// SAFETY: this is the only place that makes the allocator, and it is the global one, as in the
// program.
#[global_allocator]
static ALLOCATOR: Allocator = unsafe { Allocator::new() };

/// Number of bytes per plain read.
const READ: usize = 8 << 20;
const IN_FLIGHT: usize = 4;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    model: PathBuf,
    #[arg(long, default_value = "bf16")]
    dtype: String,
    #[arg(long, default_value_t = 4)]
    sequences: usize,
    #[arg(long, default_value_t = 512)]
    length: usize,
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// cargo gives this flag.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    outlier::memory::return_freed_memory();
    let args = Args::parse();
    let dtype = if args.dtype == "f32" { ComputeDtype::F32 } else { ComputeDtype::Bf16 };
    let load = LoadArgs {
        id: args.model.display().to_string(),
        revision: None,
        dtype,
        device: "cpu".into(),
        chunk_layers: 2,
        stream: false,
        max_vram: None,
    };
    let files = hub::open(&load.id, None, Access::Download, &Silent).expect("a folder");
    let model = open(files, &load).expect("a model");
    let vocabulary = model.info.vocab_size;
    let ids =
        (0..args.sequences).map(|s| (0..args.length).map(|t| ((s * 7919 + t * 104_729) % vocabulary) as u32).collect());
    let tokens = load_tokens(&TokenSource::Ids { ids: ids.collect() }, &Silent).expect("tokens");
    println!("{}, {}, {} x {} tokens", args.model.display(), args.dtype, args.sequences, args.length);
    println!(
        "| page cache | plain reads | in memory | without fold | streamed | streamed / floor | fold | waited for weights |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for cold in [false, true] {
        let mut times: [Vec<f64>; 5] = Default::default();
        let files = shards(&args.model);
        for i in 0..args.runs {
            let before = |drop: bool| {
                if drop {
                    files.iter().for_each(forget);
                }
            };
            let bytes = run(&model, &tokens, Probe::default()).2 as usize;
            before(cold);
            times[0].push(plain_reads(&files, bytes));
            // The order alternates, because a run affects the next.
            for fold in [i % 2 == 0, i % 2 == 1] {
                let wall = run(&model, &tokens, Probe { preload: true, fold }).0;
                times[if fold { 1 } else { 2 }].push(wall);
            }
            before(cold);
            let (wall, waited, _) = run(&model, &tokens, Probe::default());
            times[3].push(wall);
            times[4].push(waited / wall);
        }
        let [read, memory, unfolded, streamed, waited] = times.map(median);
        println!(
            "| {} | {read:.2} s | {memory:.2} s | {unfolded:.2} s | {streamed:.2} s | {:.2} | {:.1} % | {:.0} % |",
            if cold { "cold" } else { "warm" },
            streamed / read.max(memory),
            100.0 * (memory / unfolded - 1.0),
            100.0 * waited,
        );
    }
}

/// Runs once and returns the wall seconds, the seconds of waiting for weights, and the bytes read.
fn run(model: &OpenModel, tokens: &Tokens, probe: Probe) -> (f64, f64, u64) {
    let acts = extract_with(model, tokens, &ExtractArgs::default(), &Silent, probe).expect("a run");
    let m = acts.measurements;
    (m.wall_seconds, m.waited_for_weights_seconds, m.bytes_read)
}

fn shards(folder: &Path) -> Vec<File> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("model")));
    paths.sort();
    paths.iter().map(|path| File::open(path).expect("a file")).collect()
}

/// Drops a file from the page cache.
fn forget(file: &File) {
    use std::os::fd::AsRawFd;
    // SAFETY: this is advice about an open file, whose content does not change.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED);
    }
}

/// Reads `bytes` of the files and returns the seconds.
fn plain_reads(files: &[File], bytes: usize) -> f64 {
    let mut pieces = Vec::new();
    let mut left = bytes;
    for file in files {
        let length = (file.metadata().expect("a file").len() as usize).min(left);
        left -= length;
        pieces.extend((0..length).step_by(READ).map(|at| (file, at, READ.min(length - at))));
    }
    let (next, start) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..IN_FLIGHT {
            scope.spawn(|| {
                let mut buffer = vec![0u8; READ];
                while let Some((file, at, length)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                    file.read_exact_at(&mut buffer[..*length], *at as u64).expect("bytes");
                }
            });
        }
    });
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
