//! Integers that stand for weights: value = (code − zero) · scale, with one zero and one scale for
//! each group of columns.
//!
//! Codes of at most eight bits less a zero have nine significant bits: the difference is exact in
//! f32, and so is the product with a scale in bf16 or f16. With a scale in f32 it is rounded once.

use safetensors::Dtype;

use super::float;
use super::format::{Kernel, Wrong};
use super::look::{Header, Look};
use super::piece::{Along, Piece};
use crate::error::Result;

/// Bits of a word in which codes are packed.
pub(super) const WORD_BITS: usize = 32;

/// Words of so many codes.
pub(super) fn words(codes: usize, bits: usize) -> usize {
    (codes * bits).div_ceil(WORD_BITS)
}

/// Checks that the groups of columns that piece `piece` names are `count` at most.
///
/// # Errors
/// Names the first that does not exist.
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

/// A matrix of integers as it stays in memory, whatever its file has: `CODES` row by row, from the
/// low end of bytes, `SCALES` and `ZEROS` for each row and group, and `NAMED`, the group of each
/// column where these are in no order. Codes are not negative.
#[derive(Debug)]
pub(super) struct Integers {
    /// [out, in].
    pub sizes: [usize; 2],
    /// Of a code: 2, 4 or 8.
    pub bits: usize,
    /// From one row of codes to the next.
    pub row_bytes: usize,
    /// Groups of a row.
    pub groups: usize,
    /// Columns that share a group, where groups are not named; the last group may have fewer.
    pub columns: usize,
    /// Of the scales.
    pub scale: Dtype,
}

pub(super) const CODES: usize = 0;
pub(super) const SCALES: usize = 1;
/// A byte each; where there are none, half of the codes are negative.
pub(super) const ZEROS: usize = 2;
/// 32 bits each; where there are none, groups lie side by side.
pub(super) const NAMED: usize = 3;

impl Integers {
    /// The values of row `row` from column `from` on, as many as `to` has room for.
    pub(super) fn decode(&self, kept: &[Vec<u8>], row: usize, mut from: usize, mut to: &mut [f32]) {
        let codes = &kept[CODES][row * self.row_bytes..][..self.row_bytes];
        self.codes(codes, from, to);
        let own = |group: usize| {
            let index = row * self.groups + group;
            let zero = kept[ZEROS].get(index).map_or((1 << (self.bits - 1)) as f32, |zero| f32::from(*zero));
            (zero, float::scale(self.scale, &kept[SCALES], index))
        };
        if !kept[NAMED].is_empty() {
            for (value, group) in to.iter_mut().zip(&kept[NAMED].as_chunks().0[from..]) {
                let (zero, scale) = own(u32::from_le_bytes(*group) as usize);
                *value = (*value - zero) * scale;
            }
            return;
        }
        while !to.is_empty() {
            let count = (self.columns - from % self.columns).min(to.len());
            let (now, rest) = to.split_at_mut(count);
            let (zero, scale) = own(from / self.columns);
            now.iter_mut().for_each(|value| *value = (*value - zero) * scale);
            (from, to) = (from + count, rest);
        }
    }

    /// The kernel that makes numbers of the same pieces, times `factor`, on a GPU.
    pub(super) fn kernel(&self, factor: f32) -> Kernel {
        let Integers { bits, row_bytes, groups, columns, scale: scales, .. } = *self;
        Kernel::Integers { bits, row_bytes, groups, columns, scales, factor }
    }

    /// The codes of a row from column `from` on.
    fn codes(&self, row: &[u8], from: usize, to: &mut [f32]) {
        match self.bits {
            8 => to.iter_mut().zip(&row[from..]).for_each(|(value, code)| *value = f32::from(*code)),
            4 if from.is_multiple_of(2) => {
                let (pairs, last) = to.as_chunks_mut::<2>();
                let bytes = &row[from / 2..];
                for (pair, byte) in pairs.iter_mut().zip(bytes) {
                    *pair = [f32::from(byte & 15), f32::from(byte >> 4)];
                }
                last.iter_mut().for_each(|value| *value = f32::from(bytes[pairs.len()] & 15));
            }
            bits => {
                for (column, value) in (from..).zip(to) {
                    let bit = column * bits;
                    *value = f32::from(row[bit / 8] >> (bit % 8) & ((1 << bits) - 1));
                }
            }
        }
    }
}

/// Element [row][column] of a matrix of words that is [rows, columns], as row `column` of another.
pub(super) fn transposed(bytes: &[u8], [rows, columns]: [usize; 2], width: usize) -> Vec<u8> {
    let mut to = vec![0; bytes.len()];
    for first in (0..columns).step_by(TILE) {
        for row in 0..rows {
            for column in first..(first + TILE).min(columns) {
                let (here, there) = ((row * columns + column) * width, (column * rows + row) * width);
                to[there..there + width].copy_from_slice(&bytes[here..here + width]);
            }
        }
    }
    to
}

/// Columns of a matrix that are turned together, so that what is written stays in a cache.
const TILE: usize = 64;

/// Codes of one little-endian stream of bits, a byte each: code i has bits [i · bits, (i + 1) ·
/// bits) of it.
pub(super) fn unpack(bytes: &[u8], bits: usize, count: usize) -> Vec<u8> {
    let code = |bit: usize| bytes[bit / 8] >> (bit % 8) & (((1u16 << bits) - 1) as u8);
    (0..count).map(|index| code(index * bits)).collect()
}

/// Refuses scales of piece `piece` that are no numbers, or too large for codes of eight bits.
pub(super) fn check_scales(piece: usize, dtype: Dtype, bytes: &[u8]) -> std::result::Result<(), Wrong> {
    float::check_scales(piece, dtype, bytes, MOST)
}

/// The largest code less the smallest zero.
const MOST: f32 = 255.0;

/// How many columns share a group where there are `count` groups of `columns` columns: as the
/// settings say, in as far as they say it; those of other modules count as well, since lists of
/// exceptions have many spellings.
///
/// # Errors
/// None of the settings makes so many groups: with how many there should be.
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
        // Nothing is said: all groups are of one size.
        (None, None) if count > 0 && columns.is_multiple_of(count) => Ok((columns / count).max(1)),
        (None, None) => Err(1),
    }
}

/// Whether scales are numbers of this type.
pub(super) fn is_float(dtype: Dtype) -> bool {
    FLOATS.contains(&dtype)
}

/// A piece of one of some types, which belongs to all rows together.
///
/// # Errors
/// Where it is missing, or of another type or shape.
pub(super) fn all_rows(look: &Look, name: &str, method: &str, types: &[Dtype], shape: &[usize]) -> Result<Piece> {
    let header = look.header(name).ok_or_else(|| look.missing(name, method))?;
    typed(look, name, header, types)?;
    look.piece(name, header, shape, look.sizes().1)
}

/// A small piece that says something of the whole weight.
///
/// # Errors
/// Where it is of another type or shape.
pub(super) fn aside(look: &Look, name: &str, header: Header, types: &[Dtype], shape: &[usize]) -> Result<Piece> {
    typed(look, name, header, types)?;
    Ok(Piece { along: EVERY_ROW, ..look.piece(name, header, shape, 1)? })
}

/// Checks the type of a tensor.
///
/// # Errors
/// Where it is none of `types`.
pub(super) fn typed(look: &Look, name: &str, header: Header, types: &[Dtype]) -> Result<()> {
    if types.contains(&header.dtype) {
        return Ok(());
    }
    let names: Vec<String> = types.iter().map(|dtype| format!("{dtype:?}")).collect();
    Err(look.mistyped(name, header.dtype, &names.join(" or ")))
}

/// How a tensor lies that belongs to every row.
pub(super) const EVERY_ROW: Along = Along { stacked: false, rows: Some(Along::EVERY) };

/// The types of scales in a file.
pub(super) const FLOATS: &[Dtype] = &[Dtype::F16, Dtype::BF16, Dtype::F32];
/// Those of words.
pub(super) const WORD: &[Dtype] = &[Dtype::I32, Dtype::U32];

/// "for each 32 columns", or "for each row" where all columns of a row share a group.
pub(super) fn share(size: usize, columns: usize) -> String {
    if size >= columns { "for each row".to_string() } else { format!("for each {size} columns") }
}

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
            };
            let codes: Vec<u8> = (0..3 * integers.row_bytes).map(|i| (i * 37 + 11) as u8).collect();
            let scales: Vec<u8> = (1..=12).flat_map(|scale| (scale as f32).to_le_bytes()).collect();
            let named: Vec<u8> = (0..11u32).flat_map(|column| (column * 7 % 4).to_le_bytes()).collect();
            for named in [Vec::new(), named] {
                let kept = [codes.clone(), scales.clone(), (0..12).collect(), named];
                let mut whole = [0.0; 11];
                integers.decode(&kept, 2, 0, &mut whole);
                assert!(whole.iter().any(|value| *value != 0.0));
                for from in 0..11 {
                    let mut some = vec![0.0; 11 - from];
                    integers.decode(&kept, 2, from, &mut some);
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
    }

    #[test]
    fn a_group_that_does_not_exist_is_told() {
        let bytes = |groups: &[i32]| groups.iter().flat_map(|group| group.to_le_bytes()).collect::<Vec<_>>();
        check_named(3, &bytes(&[1, 0]), 2).unwrap();
        let wrong = check_named(3, &bytes(&[0, 1, 99]), 2).unwrap_err();
        assert_eq!(wrong, Wrong::new(3, "puts column 2 into group 99, of 2 groups that begin at 0"));
        assert!(check_named(3, &bytes(&[0, -1]), 2).unwrap_err().what.contains("group -1"));
    }
}
