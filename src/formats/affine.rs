//! Integer codes: value = (code − zero) · scale, with one zero and one scale for each group of
//! columns.
//!
//! A code of at most eight bits minus a zero has nine significant bits. The difference is exact in
//! f32, and so is its product with a scale in bf16 or f16. With a scale in f32 the product is
//! rounded once.

use std::fmt::Debug;
use std::ops::Range;

use safetensors::Dtype;

use super::float;
use super::format::{Coding, Kept, Kernel, Wrong};
use super::look::{Header, Look};
use super::piece::{Along, Piece};
use super::widen::{self, First};
use crate::error::Result;
use crate::vector::vectorised;

/// Number of bits of a word of packed codes.
pub(super) const WORD_BITS: usize = 32;

/// Number of words that `codes` codes fill.
pub(super) fn words(codes: usize, bits: usize) -> usize {
    (codes * bits).div_ceil(WORD_BITS)
}

/// Numbers of groups in 32 bits, of 64. Those that are too large for any group become the largest.
fn in_32_bits(bytes: &[u8]) -> Vec<u8> {
    let groups = bytes.as_chunks().0.iter().map(|group| u32::try_from(i64::from_le_bytes(*group)).unwrap_or(u32::MAX));
    groups.flat_map(u32::to_le_bytes).collect()
}

/// Checks that the groups of columns that piece `piece` names are below `count`.
///
/// # Errors
/// Names the first group that does not exist.
pub(super) fn check_named(piece: usize, bytes: &[u8], count: usize) -> std::result::Result<(), Wrong> {
    let groups = bytes.as_chunks().0;
    match groups.iter().position(|group| u32::from_le_bytes(*group) as usize >= count) {
        None => Ok(()),
        Some(column) => {
            let group = i32::from_le_bytes(groups[column]);
            Err(Wrong::new(
                piece,
                format!("puts column {column} into group {group}, of {count} groups that begin at 0"),
            ))
        }
    }
}

/// A matrix of integers in memory, in one layout for all formats: `CODES` row by row, from the low
/// end of bytes, `SCALES` and `ZEROS` for each row and group, and `NAMED`, the group of each column
/// if groups are not contiguous. Codes are not negative.
#[derive(Debug)]
pub(super) struct Integers {
    /// [out, in].
    pub sizes: [usize; 2],
    /// Number of bits of a code: 2, 4 or 8.
    pub bits: usize,
    /// Number of bytes from one row of codes to the next.
    pub row_bytes: usize,
    /// Number of groups of a row.
    pub groups: usize,
    /// Number of columns that share a group, if groups are not named. The last group may have
    /// fewer.
    pub columns: usize,
    /// The type of the scales.
    pub scale: Dtype,
    /// What codes and scales stand for is multiplied by it.
    pub factor: f32,
}

/// Some rows of a matrix of integers, in the layout of `Integers`.
pub(super) struct Parts {
    pub codes: Vec<u8>,
    pub scales: Vec<u8>,
    /// Empty if half of the codes are negative.
    pub zeros: Vec<u8>,
    /// The rows, of those that were read.
    pub rows: Range<usize>,
}

/// A matrix of integers as a file stores it.
#[derive(Debug)]
pub(super) struct Stored {
    /// The codes, and then the others in the order of the format.
    pub pieces: Vec<Piece>,
    /// Index of the piece of the scales.
    pub scales_at: usize,
    /// Index of the piece that names the group of each column, if there is one.
    pub named_at: Option<usize>,
    /// What becomes of it in memory.
    pub integers: Integers,
}

/// A format whose codes stay in memory as `Integers`. It only lays out what was read.
pub(super) trait HoldsIntegers: Debug + Send + Sync {
    /// As `Coding::words`.
    fn words(&self) -> String;

    fn stored(&self) -> &Stored;

    /// Lays out at least the rows `own` of the `rows` rows in `pieces`. Scales and groups have been
    /// checked, and the groups have been taken out.
    ///
    /// # Errors
    /// As `Coding::keep`.
    fn parts(&self, pieces: Vec<Vec<u8>>, rows: usize, own: Range<usize>) -> std::result::Result<Parts, Wrong>;
}

impl<T: HoldsIntegers> Coding for T {
    fn words(&self) -> String {
        HoldsIntegers::words(self)
    }

    fn pieces(&self) -> &[Piece] {
        &self.stored().pieces
    }

    fn columns(&self) -> usize {
        self.stored().integers.sizes[1]
    }

    fn keep(&self, mut pieces: Vec<Vec<u8>>, rows: usize, own: Range<usize>) -> std::result::Result<Kept, Wrong> {
        let Stored { pieces: announced, scales_at, named_at, integers } = self.stored();
        check_scales(*scales_at, integers.scale, &pieces[*scales_at])?;
        let mut named = Vec::new();
        if let Some(piece) = *named_at {
            named = std::mem::take(&mut pieces[piece]);
            if announced[piece].dtype == Dtype::I64 {
                named = in_32_bits(&named);
            }
            check_named(piece, &named, integers.groups)?;
        }
        Ok(integers.keep(self.parts(pieces, rows, own.clone())?, named, own))
    }

    fn keeps_own_rows(&self) -> bool {
        true
    }

    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        self.stored().integers.numbers(kept, row, from, to);
    }

    fn for_gpu(&self, kept: Vec<Vec<u8>>) -> Option<(Kernel, Vec<Vec<u8>>)> {
        Some((self.stored().integers.kernel(), kept))
    }
}

const CODES: usize = 0;
const SCALES: usize = 1;
/// Index of the zeros, one byte each. Without them, half of the codes are negative.
const ZEROS: usize = 2;
/// Index of the groups of columns, 32 bits each. Without them, groups are contiguous.
const NAMED: usize = 3;

impl Stored {
    /// Appends a piece, and returns its index.
    pub(super) fn add(&mut self, piece: Piece) -> usize {
        self.pieces.push(piece);
        self.pieces.len() - 1
    }
}

impl Integers {
    /// "for each 32 columns", or "for each row" where all columns of a row share a group.
    pub(super) fn share(&self) -> String {
        match self.columns >= self.sizes[1] {
            true => "for each row".to_string(),
            false => format!("for each {} columns", self.columns),
        }
    }

    /// Keeps the rows `own` of parts, whose columns are in the groups `named`. The indices of
    /// groups are dropped if groups lie side by side.
    fn keep(&self, parts: Parts, mut named: Vec<u8>, own: Range<usize>) -> Kept {
        let own = own.start - parts.rows.start..own.end - parts.rows.start;
        let cut = |part: Vec<u8>, bytes: usize| {
            let own = own.start * bytes..own.end * bytes;
            if part.is_empty() || own == (0..part.len()) { part } else { part[own].to_vec() }
        };
        let codes = cut(parts.codes, self.row_bytes);
        let scales = cut(parts.scales, self.groups * self.scale.bitsize() / 8);
        let zeros = cut(parts.zeros, self.groups);
        let groups = named.as_chunks().0.iter().map(|group| u32::from_le_bytes(*group) as usize);
        if groups.enumerate().all(|(column, group)| group == column / self.columns) {
            named = Vec::new();
        }
        Kept { parts: vec![codes, scales, zeros, named], above: 0 }
    }

    /// Decodes row `row` from column `from` on until `to` is full.
    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        self.without_factor(kept, row, from, to);
        if self.factor != 1.0 {
            to.iter_mut().for_each(|value| *value *= self.factor);
        }
    }

    fn without_factor(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        let codes = &kept[CODES][row * self.row_bytes..][..self.row_bytes];
        let own = |group: usize| {
            let index = row * self.groups + group;
            let zero = kept[ZEROS].get(index).map_or((1 << (self.bits - 1)) as f32, |zero| f32::from(*zero));
            (zero, float::scale(self.scale, &kept[SCALES], index))
        };
        if kept[NAMED].is_empty() {
            return self.widened(codes, self.columns, own, from, to);
        }
        self.widened(codes, self.sizes[1].max(1), |_| (0.0, 1.0), from, to);
        for (value, group) in to.iter_mut().zip(&kept[NAMED].as_chunks().0[from..]) {
            let (zero, scale) = own(u32::from_le_bytes(*group) as usize);
            *value = (*value - zero) * scale;
        }
    }

    /// The kernel that decodes the same parts on a GPU.
    fn kernel(&self) -> Kernel {
        let Integers { bits, row_bytes, groups, columns, scale: scales, factor, .. } = *self;
        Kernel::Integers { bits, row_bytes, groups, columns, scales, factor }
    }

    /// Decodes codes of a row from column `from` on: less the zero, times the scale of their group.
    fn widened(&self, row: &[u8], columns: usize, own: impl Fn(usize) -> (f32, f32), from: usize, to: &mut [f32]) {
        match self.bits {
            8 => vectorised!(|| {
                widen::by_group(columns, from, to, |group, at, to| {
                    let (zero, scale) = own(group);
                    to.iter_mut().zip(&row[at..]).for_each(|(value, code)| *value = (f32::from(*code) - zero) * scale);
                });
            }),
            4 => {
                let values = |group: usize| {
                    let (zero, scale) = own(group);
                    widen::Integers { zero, scale }
                };
                widen::nibbles(row, First::Low, columns, values, from, to);
            }
            bits => widen::by_group(columns, from, to, |group, at, to| {
                let (zero, scale) = own(group);
                for (column, value) in (at..).zip(to) {
                    let bit = column * bits;
                    *value = (f32::from(row[bit / 8] >> (bit % 8) & ((1 << bits) - 1)) - zero) * scale;
                }
            }),
        }
    }
}

/// Transposes a matrix [rows, columns] of words of `width` bytes.
pub(super) fn transposed(bytes: &[u8], sizes: [usize; 2], width: usize) -> Vec<u8> {
    turned(bytes, sizes, width, 0..sizes[1])
}

/// The columns `own` of a matrix [rows, columns] of words of `width` bytes, as [own, rows].
pub(super) fn turned(bytes: &[u8], sizes: [usize; 2], width: usize, own: Range<usize>) -> Vec<u8> {
    match width {
        1 => turned_words::<1>(bytes, sizes, own),
        2 => turned_words::<2>(bytes, sizes, own),
        _ => turned_words::<4>(bytes, sizes, own),
    }
}

fn turned_words<const WIDTH: usize>(bytes: &[u8], [rows, columns]: [usize; 2], own: Range<usize>) -> Vec<u8> {
    let mut to = vec![0; own.len() * rows * WIDTH];
    let (stored, turned) = (bytes.as_chunks::<WIDTH>().0, to.as_chunks_mut::<WIDTH>().0);
    for first in own.clone().step_by(TILE) {
        for row in 0..rows {
            for column in first..(first + TILE).min(own.end) {
                turned[(column - own.start) * rows + row] = stored[row * columns + column];
            }
        }
    }
    to
}

/// Number of columns that are transposed together, so that the written rows stay in a cache.
const TILE: usize = 16;

/// Unpacks a little-endian stream of bits to one byte per code: code i has bits [i · bits, (i + 1)
/// · bits).
pub(super) fn unpack(bytes: &[u8], bits: usize, count: usize) -> Vec<u8> {
    let code = |bit: usize| bytes[bit / 8] >> (bit % 8) & (((1u16 << bits) - 1) as u8);
    (0..count).map(|index| code(index * bits)).collect()
}

/// Refuses scales of piece `piece` that are not numbers, or too large for codes of eight bits.
pub(super) fn check_scales(piece: usize, dtype: Dtype, bytes: &[u8]) -> std::result::Result<(), Wrong> {
    float::check_scales(piece, dtype, bytes, MOST)
}

/// The largest difference of a code and a zero.
const MOST: f32 = 255.0;

/// The number of columns that share a group, if `columns` columns have `count` groups. The settings
/// decide as far as they have a size. Sizes for other modules count too, because lists of
/// exceptions have many spellings.
///
/// # Errors
/// The number of groups that there should be, if no setting gives `count`.
pub(super) fn group_size(look: &Look, columns: usize, count: usize) -> std::result::Result<usize, usize> {
    let all = columns.max(1);
    let size = |size: i64| usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(all);
    let own = look.settings.group(look.module()).map(|group| match group.text("strategy") {
        Some("channel" | "tensor") => -1,
        _ => group.number("group_size").map_or(-1, |size| size as i64),
    });
    let said: Vec<usize> = own.into_iter().chain(look.settings.every("group_size")).map(size).collect();
    match (said.iter().find(|size| columns.div_ceil(**size) == count), said.first()) {
        (Some(size), _) => Ok(*size),
        (None, Some(size)) => Err(columns.div_ceil(*size)),
        // Without a setting, all groups are of one size.
        (None, None) if count > 0 && columns.is_multiple_of(count) => Ok((columns / count).max(1)),
        (None, None) => Err(1),
    }
}

/// Whether scales are numbers of this type.
pub(super) fn is_float(dtype: Dtype) -> bool {
    FLOATS.contains(&dtype)
}

/// A piece of one of some types, all of which belongs to every row.
///
/// # Errors
/// An error if it is missing, or has another type or shape.
pub(super) fn all_rows(look: &Look, name: &str, method: &str, types: &[Dtype], shape: &[usize]) -> Result<Piece> {
    let header = look.header(name).ok_or_else(|| look.missing(name, method))?;
    typed(look, name, header, types)?;
    look.piece(name, header, shape, look.sizes().1)
}

/// A small piece that describes a whole matrix; for a stack, each of its matrices or all.
///
/// # Errors
/// An error if it has another type or shape.
pub(super) fn aside(look: &Look, name: &str, header: Header, types: &[Dtype], shape: &[usize]) -> Result<Piece> {
    typed(look, name, header, types)?;
    if header.shape == shape {
        return Ok(Piece { along: EVERY_ROW, ..look.whole(name, header) });
    }
    look.piece(name, header, shape, Along::EVERY)
}

/// Checks the type of a tensor.
///
/// # Errors
/// An error if the type is none of `types`.
pub(super) fn typed(look: &Look, name: &str, header: Header, types: &[Dtype]) -> Result<()> {
    if types.contains(&header.dtype) {
        return Ok(());
    }
    let names: Vec<String> = types.iter().map(|dtype| format!("{dtype:?}")).collect();
    Err(look.mistyped(name, header.dtype, &names.join(" or ")))
}

/// The division of a tensor that belongs to every row.
pub(super) const EVERY_ROW: Along = Along { stacked: false, rows: Some(Along::EVERY) };

/// The types of scales in a file.
pub(super) const FLOATS: &[Dtype] = &[Dtype::F16, Dtype::BF16, Dtype::F32];
/// The types of words in a file.
pub(super) const WORD: &[Dtype] = &[Dtype::I32, Dtype::U32];
/// The types of the groups of columns in a file.
pub(super) const GROUPS: &[Dtype] = &[Dtype::I32, Dtype::U32, Dtype::I64];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_lie_from_the_low_end_of_bytes() {
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(unpack(&bytes(&[0x7654_3210, 0xffff_fff8]), 4, 9), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(unpack(&bytes(&[0x00ff_8001]), 8, 3), [1, 128, 255]);
        assert_eq!(unpack(&bytes(&[0x0000_02e4]), 2, 5), [0, 1, 2, 3, 2]);
    }

    #[test]
    fn rows_from_any_column_on_are_those_of_the_whole() {
        for bits in [2, 4, 8] {
            let integers = Integers {
                sizes: [3, 11],
                bits,
                row_bytes: (11 * bits).div_ceil(8),
                groups: 4,
                columns: 3,
                scale: Dtype::F32,
                factor: 1.0,
            };
            let codes: Vec<u8> = (0..3 * integers.row_bytes).map(|i| (i * 37 + 11) as u8).collect();
            let scales: Vec<u8> = (1..=12).flat_map(|scale| (scale as f32).to_le_bytes()).collect();
            let named: Vec<u8> = (0..11u32).flat_map(|column| (column * 7 % 4).to_le_bytes()).collect();
            for named in [Vec::new(), named] {
                let kept = [codes.clone(), scales.clone(), (0..12).collect(), named];
                let mut whole = [0.0; 11];
                integers.numbers(&kept, 2, 0, &mut whole);
                assert!(whole.iter().any(|value| *value != 0.0));
                for from in 0..11 {
                    let mut some = vec![0.0; 11 - from];
                    integers.numbers(&kept, 2, from, &mut some);
                    assert_eq!(some, whole[from..], "{bits} bits from {from}");
                }
            }
        }
    }

    #[test]
    fn a_matrix_is_turned() {
        let bytes: Vec<u8> = (0..2 * 70 * 2).map(|i| i as u8).collect();
        let turned = transposed(&bytes, [2, 70], 2);
        assert_eq!(turned[..4], [0, 1, 140, 141]);
        assert_eq!(transposed(&turned, [70, 2], 2), bytes);
        assert_eq!(super::turned(&bytes, [2, 70], 2, 20..69), turned[20 * 4..69 * 4]);
    }

    #[test]
    fn a_group_that_does_not_exist_is_told() {
        let bytes = |groups: &[i32]| groups.iter().flat_map(|group| group.to_le_bytes()).collect::<Vec<_>>();
        check_named(3, &bytes(&[1, 0]), 2).unwrap();
        let wrong = check_named(3, &bytes(&[0, 1, 99]), 2).unwrap_err();
        assert_eq!(wrong, Wrong::new(3, "puts column 2 into group 99, of 2 groups that begin at 0"));
        assert!(check_named(3, &bytes(&[0, -1]), 2).unwrap_err().what.contains("group -1"));
        let wide = |groups: &[i64]| groups.iter().flat_map(|group| group.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(in_32_bits(&wide(&[0, 3, 1])), bytes(&[0, 3, 1]));
        assert!(check_named(3, &in_32_bits(&wide(&[0, 1 << 32])), 2).is_err());
    }
}
