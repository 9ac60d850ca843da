//! Matrix products of activations and weights on the CPU: y = x · Wᵀ, in f32.
//!
//! The tensor library's kernel is two to three times slower on the few rows of an expert, and
//! converts a whole bf16 weight at every use. Here both operands are packed block by block (Goto
//! and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication"), a bf16 weight is
//! converted while it is packed, and the micro-kernel uses the widest registers of the CPU. Every
//! sum has the same order for every partition of rows, outputs and threads, so that results do not
//! depend on the partition.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx;
mod blocking;
mod kind;
mod operands;
mod pack;
mod scratch;
mod seen;
mod shared;
mod simd;
#[cfg(test)]
mod tests;
mod tile;
#[cfg(target_arch = "x86_64")]
mod transpose;

use std::cell::Cell;

use rayon::prelude::*;

use blocking::{DEPTH, MAX_PANELS, PACKED_BYTES, TASKS_PER_THREAD, TILES_PER_PACK};
pub use kind::Kind;
use operands::check;
pub use operands::{Codes, Dst, Gemm, Lhs, Rhs, Values};
pub use scratch::Scratch;
pub use seen::{Seen, products_seen, seen_bytes, seen_columns};
pub use shared::Shared;

/// Bytes of scratch memory for products of `rows` rows of `input` numbers: packed x, and for each
/// thread panels of weights and the decoded numbers of one panel.
pub fn scratch_bytes(rows: usize, input: usize, threads: usize) -> usize {
    let most = |kind: Kind| (MAX_PANELS * kind.span() + 2) * kind.columns();
    let panels = most(Kind::best(false)).max(most(Kind::best(true)));
    (rows * input * 4).min(PACKED_BYTES) + threads * panels * DEPTH * 4
}

/// y = x · Wᵀ + bias for each product, on all threads. x is packed once.
pub fn gemm_all(kind: Kind, x: &Lhs, gemms: &mut [Gemm]) {
    assert!(kind.available(), "a kind of tile that this CPU has");
    for Gemm { w, bias, y } in gemms.iter() {
        check(x, w, *bias, y);
    }
    let words = kind.words(x.columns);
    let block = (PACKED_BYTES / 4 / words.max(1)).max(kind.rows()) / kind.rows() * kind.rows();
    let threads = rayon::current_num_threads();
    let mut buffer = PACKED.take();
    for first in (0..x.rows).step_by(block) {
        let rows = block.min(x.rows - first);
        let tiles = rows.div_ceil(kind.rows());
        let packed = buffer.reserve(tiles * kind.rows() * words);
        let from = Shared::of(packed);
        let tiles_per_pack = (tiles / (TASKS_PER_THREAD * threads)).clamp(1, TILES_PER_PACK);
        let pack = |i: usize| {
            let tiles = i * tiles_per_pack..(i * tiles_per_pack + tiles_per_pack).min(tiles);
            // SAFETY: this CPU can run the kind. The buffer has space for all tiles, at distinct
            // positions.
            unsafe { kind.pack(x, first, rows, tiles, words, from.begin()) }
        };
        (0..tiles.div_ceil(tiles_per_pack)).into_par_iter().for_each(pack);
        let shared: Vec<SharedGemm> = gemms
            .iter_mut()
            .map(|Gemm { w, bias, y }| SharedGemm {
                partition: Partition::new(kind, tiles, w.out, threads),
                to: Shared::of(y.values),
                stride: y.stride,
                w,
                bias: *bias,
            })
            .collect();
        let tasks =
            shared.iter().flat_map(|of| (0..of.partition.tasks()).map(move |task| (of, task))).collect::<Vec<_>>();
        tasks.into_par_iter().with_max_len(1).for_each(|(SharedGemm { partition, to, stride, w, bias }, task)| {
            let (tiles, columns) = partition.task(task);
            let all_tiles = partition.tiles;
            let chunk =
                tile::Chunk { packed: from.begin(), first, rows, all_tiles, tiles, words, w, columns, bias: *bias };
            let mut scratch = PANELS.take();
            // SAFETY: this CPU can run the kind, and all tiles were packed above. The outputs of
            // the tasks are disjoint and lie within `y`, as `check` has verified.
            unsafe { kind.chunk(&chunk, to.begin(), *stride, &mut scratch) };
            PANELS.set(scratch);
        });
    }
    PACKED.set(buffer);
}

/// y = x · Wᵀ on this thread alone, for products inside parallel tasks.
pub fn gemm_on_this_thread(kind: Kind, x: &Lhs, w: &Rhs, y: Dst) {
    assert!(kind.available(), "a kind of tile that this CPU has");
    check(x, w, None, &y);
    let words = kind.words(w.input);
    let tiles = x.rows.div_ceil(kind.rows());
    let (mut buffer, mut scratch) = (PACKED_HERE.take(), PANELS.take());
    let packed = buffer.reserve(tiles * kind.rows() * words).as_mut_ptr();
    let chunk = |columns| tile::Chunk {
        packed,
        first: 0,
        rows: x.rows,
        all_tiles: tiles,
        tiles: 0..tiles,
        words,
        w,
        columns,
        bias: None,
    };
    // SAFETY: this CPU can run the kind. The buffer has space for all tiles, and `y` for all
    // outputs, as `check` has verified.
    unsafe {
        kind.pack(x, 0, x.rows, 0..tiles, words, packed);
        let step = MAX_PANELS * kind.columns();
        for first in (0..w.out).step_by(step) {
            kind.chunk(&chunk(first..(first + step).min(w.out)), y.values.as_mut_ptr(), y.stride, &mut scratch);
        }
    }
    PACKED_HERE.set(buffer);
    PANELS.set(scratch);
}

/// A product whose tasks run in parallel.
struct SharedGemm<'a> {
    partition: Partition,
    to: Shared<'a>,
    /// Distance between rows of `to` in numbers.
    stride: usize,
    w: &'a Rhs<'a>,
    bias: Option<&'a [f32]>,
}

/// The partition of a product into tasks.
struct Partition {
    tiles: usize,
    tiles_per_task: usize,
    out: usize,
    columns_per_task: usize,
}

impl Partition {
    fn new(kind: Kind, tiles: usize, out: usize, threads: usize) -> Self {
        let tasks = if threads == 1 { 1 } else { TASKS_PER_THREAD * threads };
        let panels = out.div_ceil(kind.columns());
        let panels_per_task = (panels / tasks).clamp(1, MAX_PANELS);
        let across = panels.div_ceil(panels_per_task);
        // Rows are divided only if the outputs do not occupy all threads, because each division
        // packs the weight once more.
        let down = if across >= threads { 1 } else { tasks.div_ceil(across) };
        let tiles_per_task = tiles.div_ceil(down).max(1);
        Self { tiles, tiles_per_task, out, columns_per_task: panels_per_task * kind.columns() }
    }

    fn across(&self) -> usize {
        self.out.div_ceil(self.columns_per_task)
    }

    fn tasks(&self) -> usize {
        self.across() * self.tiles.div_ceil(self.tiles_per_task)
    }

    /// The tiles and outputs of task `i`.
    fn task(&self, i: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let (down, across) = (i / self.across() * self.tiles_per_task, i % self.across() * self.columns_per_task);
        (down..(down + self.tiles_per_task).min(self.tiles), across..(across + self.columns_per_task).min(self.out))
    }
}

thread_local! {
    /// Scratch memory is taken out while it is in use: a thread that waits may run another task of
    /// this kind meanwhile.
    static PACKED: Cell<Scratch> = Cell::default();
    static PACKED_HERE: Cell<Scratch> = Cell::default();
    static PANELS: Cell<Scratch> = Cell::default();
}

/// Names of the vector instructions of products in f32 and in bf16.
pub fn vector_instructions() -> (&'static str, &'static str) {
    (Kind::best(false).name(), Kind::best(true).name())
}
