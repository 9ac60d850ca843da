//! Products that are looked at piece by piece while they are in the cache, and never stored.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

use super::blocking::{MAX_PANELS, TILES_PER_PACK};
use super::kind::Kind;
use super::operands::{Lhs, Rhs, Values};
use super::scratch::Scratch;
use super::shared::Shared;
use super::tile::Chunk;
use super::{PACKED, PANELS};
use crate::vocabulary::Order;

/// The most bytes of packed weights of a piece, if it is more than one panel wide.
const PIECE_BYTES: usize = 1 << 20;
/// Rows of a piece, or a tile.
const PIECE_ROWS: usize = 32;

thread_local! {
    /// Two pieces, taken out while they are in use.
    static ROOM: Cell<Scratch> = Cell::default();
}

/// A piece of a product: rows of one of several left operands, times some outputs.
pub struct Seen<'a> {
    /// The index of the left operand.
    pub operand: usize,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    /// [rows, columns]
    pub values: &'a mut [f32],
    /// The same piece of the first operand as it was left, or nothing if this is the first operand.
    pub first: &'a [f32],
}

/// Number of outputs of a piece, except for the last ones of a weight. It depends on nothing but
/// the kind and the number of inputs.
pub fn seen_columns(kind: Kind, input: usize) -> usize {
    let bytes_per_panel = kind.words(input).max(1) * kind.columns() * 4;
    (PIECE_BYTES / bytes_per_panel).clamp(1, MAX_PANELS) * kind.columns()
}

/// Bytes of the weights and of the outputs of the pieces of one thread, for this number of inputs.
pub fn seen_bytes(input: usize) -> usize {
    let of = |kind: Kind| seen_columns(kind, input) * (kind.words(input) + 3 * PIECE_ROWS.max(kind.rows())) * 4;
    of(Kind::best(false)).max(of(Kind::best(true)))
}

/// Computes x · Wᵀ for each `x`, all of which have the same number of rows. `see` receives it piece
/// by piece: for each part of the outputs rows after rows, and of these every operand in turn.
/// Pieces of the same outputs come one after the other with one state, which `begin` makes; the
/// states are returned in the order of the outputs. W is packed once for all operands.
pub fn products_seen<S: Send>(
    kind: Kind,
    xs: &[Lhs],
    w: &Rhs,
    begin: impl Fn() -> S + Sync,
    see: impl Fn(&mut S, Seen) + Sync,
) -> Vec<S> {
    let Some(rows) = xs.first().map(|x| x.rows) else { return Vec::new() };
    assert!(kind.available(), "a kind of tile that this CPU has");
    assert!(xs.iter().all(|x| (x.rows, x.columns) == (rows, w.input)), "operands that fit each other");
    assert!(w.order == Order::OutIn || !matches!(w.values, Values::Codes(_)), "codes that lie in rows of outputs");
    let (words, tiles) = (kind.words(w.input), rows.div_ceil(kind.rows()));
    let of_operand = tiles * kind.rows() * words;
    let mut buffer = PACKED.take();
    let from = Shared::of(buffer.reserve(xs.len() * of_operand));
    let packs: Vec<(usize, usize)> =
        (0..xs.len()).flat_map(|x| (0..tiles).step_by(TILES_PER_PACK).map(move |tile| (x, tile))).collect();
    packs.into_par_iter().for_each(|(x, tile)| {
        let (to, end) = (from.begin().wrapping_add(x * of_operand), (tile + TILES_PER_PACK).min(tiles));
        // SAFETY: this CPU can run the kind. The buffer has space for all tiles of all operands, at
        // distinct positions.
        unsafe { kind.pack(&xs[x], 0, rows, tile..end, words, to) }
    });
    let width = seen_columns(kind, w.input);
    let pieces = (0..w.out).step_by(width).map(|first| first..(first + width).min(w.out)).collect::<Vec<_>>();
    let of_piece = |columns: Range<usize>| {
        let (mut state, mut scratch, mut room) = (begin(), PANELS.take(), ROOM.take());
        // SAFETY: this CPU can run the kind.
        let panels = unsafe { kind.pack_panels(w, columns.clone(), 0..words, &mut scratch) };
        let (step, width) = ((PIECE_ROWS / kind.rows()).max(1), columns.len());
        let (first, others) = room.reserve(2 * step * kind.rows() * width).split_at_mut(step * kind.rows() * width);
        for tile in (0..tiles).step_by(step) {
            let group = tile..(tile + step).min(tiles);
            let rows = group.start * kind.rows()..(group.end * kind.rows()).min(rows);
            for operand in 0..xs.len() {
                let packed = from.begin().wrapping_add(operand * of_operand).cast_const();
                let chunk = Chunk {
                    packed,
                    first: 0,
                    rows: rows.end,
                    all_tiles: tiles,
                    tiles: group.clone(),
                    words,
                    w,
                    columns: columns.clone(),
                    bias: None,
                };
                let (values, first): (&mut [f32], &[f32]) = match operand {
                    0 => (&mut *first, &[]),
                    _ => (&mut *others, &*first),
                };
                let values = &mut values[..rows.len() * width];
                let y = values.as_mut_ptr().wrapping_sub(rows.start * width + columns.start);
                // SAFETY: this CPU can run the kind, which packed all tiles and these panels. From
                // `y` on, the outputs of the group's rows are those of `values`.
                unsafe { kind.multiply(&chunk, group.clone(), panels, y, width) };
                let first = &first[..if operand == 0 { 0 } else { rows.len() * width }];
                see(&mut state, Seen { operand, rows: rows.clone(), columns: columns.clone(), values, first });
            }
        }
        PANELS.set(scratch);
        ROOM.set(room);
        state
    };
    let states = pieces.into_par_iter().with_max_len(1).map(of_piece).collect();
    PACKED.set(buffer);
    states
}
