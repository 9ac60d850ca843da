//! Products of rows of activations with weights on the CPU: y = x · Wᵀ, in f32.
//!
//! The tensor library's own kernel is two to three times slower on the few rows that an expert gets, and widens a bf16 weight
//! whole at every use. Here both operands are packed block by block (Goto and van de Geijn 2008, "Anatomy of
//! High-Performance Matrix Multiplication"), a bf16 weight is widened in passing, and the tile is made of the widest
//! registers that the CPU at hand has. Every sum runs in the same order however rows, outputs and threads are divided, so
//! results do not depend on that.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx;
mod blocking;
mod kind;
mod lanes;
mod operands;
mod pack;
mod scratch;
mod shared;
#[cfg(test)]
mod tests;
mod tile;

use std::cell::Cell;

use rayon::prelude::*;

use blocking::{DEPTH, MAX_PANELS, PACKED_BYTES, TASKS_PER_THREAD, TILES_PER_PACK};
pub use kind::Kind;
use operands::check;
pub use operands::{Codes, Factor, Out, Rows, Values, Weight};
pub use scratch::Scratch;
pub use shared::Shared;

/// Bytes that products of `rows` rows of `input` values keep: x packed, and panels of weights for each thread, with what is
/// decoded for one.
pub fn kept_bytes(rows: usize, input: usize, threads: usize) -> usize {
    (rows * input * 4).min(PACKED_BYTES) + threads * (MAX_PANELS + 2) * Kind::best(false).columns() * DEPTH * 4
}

/// y = x · Wᵀ + bias for each factor, on all threads; x is packed once.
pub fn multiply(kind: Kind, x: &Rows, factors: &mut [Factor]) {
    assert!(kind.available(), "a kind of tile that this CPU has");
    for Factor { w, bias, y } in factors.iter() {
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
            // SAFETY: this CPU has the kind. Every tile has its own places in the buffer, which has room for all.
            unsafe { kind.pack(x, first, rows, tiles, words, from.begin()) }
        };
        (0..tiles.div_ceil(tiles_per_pack)).into_par_iter().for_each(pack);
        let cuts: Vec<Divided> = factors
            .iter_mut()
            .map(|Factor { w, bias, y }| Divided {
                cut: Cut::new(kind, tiles, w.out, threads),
                to: Shared::of(y.values),
                stride: y.stride,
                w,
                bias: *bias,
            })
            .collect();
        let tasks = cuts.iter().flat_map(|of| (0..of.cut.tasks()).map(move |task| (of, task))).collect::<Vec<_>>();
        tasks.into_par_iter().with_max_len(1).for_each(|(Divided { cut, to, stride, w, bias }, task)| {
            let (tiles, columns) = cut.task(task);
            let all_tiles = cut.tiles;
            let chunk =
                tile::Chunk { packed: from.begin(), first, rows, all_tiles, tiles, words, w, columns, bias: *bias };
            let mut scratch = PANELS.take();
            // SAFETY: this CPU has the kind, and all tiles were packed above. The tasks' outputs are disjoint, and all lie within
            // `y`, as `check` has seen.
            unsafe { kind.chunk(&chunk, to.begin(), *stride, &mut scratch) };
            PANELS.set(scratch);
        });
    }
    PACKED.set(buffer);
}

/// y = x · Wᵀ on this thread alone, for products that are themselves pieces of parallel work.
pub fn multiply_here(kind: Kind, x: &Rows, w: &Weight, y: Out) {
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
    // SAFETY: this CPU has the kind. The buffer has room for all tiles, and `y` for all outputs, as `check` has seen.
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

/// A factor as tasks share it.
struct Divided<'a> {
    cut: Cut,
    to: Shared<'a>,
    /// Values from one row of `to` to the next.
    stride: usize,
    w: &'a Weight<'a>,
    bias: Option<&'a [f32]>,
}

/// How a product is divided among threads.
struct Cut {
    tiles: usize,
    tiles_per_task: usize,
    out: usize,
    columns_per_task: usize,
}

impl Cut {
    fn new(kind: Kind, tiles: usize, out: usize, threads: usize) -> Self {
        let tasks = if threads == 1 { 1 } else { TASKS_PER_THREAD * threads };
        let panels = out.div_ceil(kind.columns());
        let panels_per_task = (panels / tasks).clamp(1, MAX_PANELS);
        let across = panels.div_ceil(panels_per_task);
        // Rows are divided only where outputs do not occupy all threads: each division packs the weight once more.
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

    /// Tiles and outputs of a task.
    fn task(&self, i: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let (down, across) = (i / self.across() * self.tiles_per_task, i % self.across() * self.columns_per_task);
        (down..(down + self.tiles_per_task).min(self.tiles), across..(across + self.columns_per_task).min(self.out))
    }
}

thread_local! {
    /// Taken while in use: a thread that waits for others may be given other work of this kind meanwhile.
    static PACKED: Cell<Scratch> = Cell::default();
    static PACKED_HERE: Cell<Scratch> = Cell::default();
    static PANELS: Cell<Scratch> = Cell::default();
}

/// The vector instructions that products in f32 and in bf16 use here.
pub fn vector_instructions() -> (&'static str, &'static str) {
    (Kind::best(false).name(), Kind::best(true).name())
}
