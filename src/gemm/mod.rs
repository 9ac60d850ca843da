//! Products of rows of activations with weights on the CPU: y = x · Wᵀ, in f32.
//!
//! The tensor library's own kernel is two to three times slower on the few rows that an expert gets, and widens a bf16 weight
//! whole at every use. Here both operands are packed block by block (Goto and van de Geijn 2008, "Anatomy of
//! High-Performance Matrix Multiplication"), a bf16 weight is widened in passing, and the tile is made of the widest
//! registers that the CPU at hand has. Every sum runs in the same order however rows, outputs and threads are divided, so
//! results do not depend on that.

#[cfg(target_arch = "x86_64")]
mod amx;
mod kind;
mod lanes;
mod pack;
#[cfg(test)]
mod tests;
mod tile;

use std::cell::Cell;

use half::bf16;
use rayon::prelude::*;

use crate::memory;
use crate::vocabulary::Order;
pub use kind::Kind;

/// Words of the inner dimension per block: a panel of a weight then fits the first-level cache.
const DEPTH: usize = 256;
/// Bytes of packed rows of x at once.
const PACKED_BYTES: usize = 16 << 20;
/// Panels of a weight per task at most: together they stay in the second-level cache.
const MAX_PANELS: usize = 16;
/// Tiles of x that stay in the second-level cache while the panels pass.
const GROUP_ROWS: usize = 96;
/// Tiles that a task packs at most.
const TILES_PER_PACK: usize = 16;
/// Tasks per thread, to even out what else runs on the machine.
const TASKS_PER_THREAD: usize = 4;

/// Bytes that products of `rows` rows of `input` values keep: x packed, and panels of weights for each thread.
pub fn kept_bytes(rows: usize, input: usize, threads: usize) -> usize {
    (rows * input * 4).min(PACKED_BYTES) + threads * MAX_PANELS * Kind::best(false).columns() * DEPTH * 4
}

/// Rows of activations: `rows` of them, or those that `chosen` names.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub values: &'a [f32],
    /// Values from one row to the next.
    pub stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub chosen: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    /// All of a contiguous [rows, columns].
    pub fn all(values: &'a [f32], columns: usize) -> Self {
        Self { values, stride: columns, rows: values.len() / columns.max(1), columns, chosen: None }
    }

    fn row(&self, i: usize) -> &'a [f32] {
        let i = self.chosen.map_or(i, |chosen| chosen[i] as usize);
        &self.values[i * self.stride..][..self.columns]
    }
}

#[derive(Clone, Copy)]
pub enum Values<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// The other operand: [out, input] or [input, out], rows `stride` values apart.
#[derive(Clone, Copy)]
pub struct Weight<'a> {
    pub values: Values<'a>,
    pub stride: usize,
    pub order: Order,
    pub input: usize,
    pub out: usize,
}

/// Where a product goes: rows of `stride` values.
pub struct Out<'a> {
    pub values: &'a mut [f32],
    pub stride: usize,
}

/// One of several products of the same rows: weight, bias [out] and where y goes.
pub struct Factor<'a> {
    pub w: Weight<'a>,
    pub bias: Option<&'a [f32]>,
    pub y: Out<'a>,
}

/// Panics unless the operands of a product fit each other: the tiles read and write through pointers, and tasks write side
/// by side, so that nothing below looks at lengths again.
fn check(x: &Rows, w: &Weight, bias: Option<&[f32]>, y: &Out) {
    assert_eq!(x.columns, w.input, "inner dimensions of a product");
    assert!(bias.is_none_or(|bias| bias.len() >= w.out), "a bias for every output of a product");
    assert!(x.rows <= 1 || y.stride >= w.out, "rows of a product that do not overlap");
    let room = x.rows.checked_sub(1).map_or(Some(0), |above| above.checked_mul(y.stride)?.checked_add(w.out));
    assert!(room.is_some_and(|room| y.values.len() >= room), "room for a product");
}

/// y = x · Wᵀ + bias for each factor, on all threads; x is packed once.
pub fn multiply(kind: Kind, x: &Rows, factors: &mut [Factor]) {
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
        let packed = buffer.room(tiles * kind.rows() * words);
        let from = Pointer(packed.as_mut_ptr());
        let tiles_per_pack = (tiles / (TASKS_PER_THREAD * threads)).clamp(1, TILES_PER_PACK);
        let pack = |i: usize| {
            let tiles = i * tiles_per_pack..(i * tiles_per_pack + tiles_per_pack).min(tiles);
            // SAFETY: every tile has its own places in the buffer, which has room for all.
            unsafe { kind.pack(x, first, rows, tiles, words, from.get()) }
        };
        (0..tiles.div_ceil(tiles_per_pack)).into_par_iter().for_each(pack);
        let cuts: Vec<(Cut, Pointer, &Factor)> = factors
            .iter_mut()
            .map(|f| (Cut::new(kind, tiles, f.w.out, threads), Pointer(f.y.values.as_mut_ptr()), &*f))
            .collect();
        let tasks = cuts.iter().flat_map(|of| (0..of.0.tasks()).map(move |task| (of, task))).collect::<Vec<_>>();
        tasks.into_par_iter().with_max_len(1).for_each(|((cut, to, factor), task)| {
            let (tiles, columns) = cut.task(task);
            let Factor { w, bias, y } = factor;
            let all_tiles = cut.tiles;
            let chunk =
                tile::Chunk { packed: from.get(), first, rows, all_tiles, tiles, words, w, columns, bias: *bias };
            let mut scratch = PANELS.take();
            // SAFETY: the tasks' outputs are disjoint, and all lie within `y`.
            unsafe { kind.chunk(&chunk, to.get(), y.stride, &mut scratch) };
            PANELS.set(scratch);
        });
    }
    PACKED.set(buffer);
}

/// y = x · Wᵀ on this thread alone, for products that are themselves pieces of parallel work.
pub fn multiply_here(kind: Kind, x: &Rows, w: &Weight, y: Out) {
    check(x, w, None, &y);
    let words = kind.words(w.input);
    let tiles = x.rows.div_ceil(kind.rows());
    let (mut buffer, mut scratch) = (PACKED_HERE.take(), PANELS.take());
    let packed = buffer.room(tiles * kind.rows() * words).as_mut_ptr();
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
    // SAFETY: the buffer has room for all tiles, `y` for all outputs.
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

/// A pointer that tasks share; each writes its own part.
#[derive(Clone, Copy)]
struct Pointer(*mut f32);
// SAFETY: see the places where it is used.
unsafe impl Send for Pointer {}
unsafe impl Sync for Pointer {}
impl Pointer {
    fn get(self) -> *mut f32 {
        self.0
    }
}

/// A cache line of words.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);
// SAFETY: an array of f32, without padding.
unsafe impl bytemuck::Zeroable for Line {}
unsafe impl bytemuck::Pod for Line {}

/// Memory that a thread keeps for its next product, aligned to cache lines.
#[derive(Default)]
pub struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// Room for `words`, of any content.
    pub fn room(&mut self, words: usize) -> &mut [f32] {
        let lines = words.div_ceil(16);
        if self.lines.len() < lines {
            // The old block first, so that both are never there at once.
            self.lines = Vec::new();
            self.lines = memory::unset(lines);
        }
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..words]
    }
}

thread_local! {
    /// Taken while in use: a thread that waits for others may be given other work of this kind meanwhile.
    static PACKED: Cell<Buffer> = Cell::default();
    static PACKED_HERE: Cell<Buffer> = Cell::default();
    static PANELS: Cell<Buffer> = Cell::default();
}

/// The vector instructions that products in f32 and in bf16 use here.
pub fn vector_instructions() -> (&'static str, &'static str) {
    (Kind::best(false).name(), Kind::best(true).name())
}
