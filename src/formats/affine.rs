//! Integers that stand for weights: value = (code − zero) · scale, with one zero and one scale for each group of columns.
//!
//! Codes of at most eight bits less a zero have nine significant bits: the difference is exact in f32, and so is the product with a
//! scale in bf16 or f16. With a scale in f32 it is rounded once.

use half::{bf16, f16};
use safetensors::Dtype;

use super::format::{Along, Piece, Wrong};
use super::look::{Header, Look};
use crate::error::Result;

/// Bits of a word in which codes are packed.
pub const WORD_BITS: usize = 32;

/// Words of so many codes.
pub fn words(codes: usize, bits: usize) -> usize {
    (codes * bits).div_ceil(WORD_BITS)
}

/// Numbers of 32 bits from their bytes.
pub fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

/// Which group the columns of a matrix belong to.
#[derive(Clone, Copy)]
pub enum Groups<'a> {
    /// So many columns in a row share a group; the last may have fewer.
    Even(usize),
    /// The group of every column.
    Of(&'a [u32]),
}

impl Groups<'_> {
    pub fn of(&self, column: usize) -> usize {
        match self {
            Groups::Even(columns) => column / columns,
            Groups::Of(groups) => groups[column] as usize,
        }
    }
}

/// The groups of columns that piece `piece` names, which are fewer than `count`.
///
/// # Errors
/// Names the first that is not.
pub fn named(piece: usize, bytes: &[u8], count: usize) -> std::result::Result<Vec<u32>, Wrong> {
    let groups = numbers(bytes);
    match groups.iter().position(|group| *group as usize >= count) {
        None => Ok(groups),
        Some(column) => {
            let group = groups[column] as i32;
            Err(Wrong::new(
                piece,
                format!("puts column {column} into group {group}, of {count} groups that begin at 0"),
            ))
        }
    }
}

/// The codes of one little-endian stream of bits: code i has bits [i · bits, (i + 1) · bits) of it. No code crosses a word.
#[inline(always)]
pub fn unpack(words: &[u32], bits: usize, codes: &mut [f32]) {
    let mask = (1 << bits) - 1;
    for (codes, word) in codes.chunks_mut(WORD_BITS / bits).zip(words) {
        let mut word = *word;
        for code in codes {
            *code = (word & mask) as f32;
            word >>= bits;
        }
    }
}

/// Code `index` of a stream whose words lie `stride` apart.
pub fn code(words: &[u32], stride: usize, bits: usize, index: usize) -> f32 {
    let bit = index * bits;
    (words[bit / WORD_BITS * stride] >> (bit % WORD_BITS) & ((1 << bits) - 1)) as f32
}

/// Makes the codes of one row values, in place. `scales` and `zeros` are those of the row, one for each group.
#[inline(always)]
pub fn row(values: &mut [f32], groups: Groups, scales: &[f32], zeros: &[f32]) {
    match groups {
        Groups::Even(columns) => {
            for ((values, scale), zero) in values.chunks_mut(columns).zip(scales).zip(zeros) {
                values.iter_mut().for_each(|value| *value = (*value - zero) * scale);
            }
        }
        Groups::Of(groups) => {
            for (value, group) in values.iter_mut().zip(groups) {
                let group = *group as usize;
                *value = (*value - zeros[group]) * scales[group];
            }
        }
    }
}

/// How many columns share a group where there are `count` groups of `columns` columns: as the settings say, in as far as they say
/// it; those of other modules count as well, since lists of exceptions have many spellings.
///
/// # Errors
/// None of the settings makes so many groups: with how many there should be.
pub fn group_size(look: &Look, columns: usize, count: usize) -> std::result::Result<usize, usize> {
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

/// Scales of piece `piece`, widened.
///
/// # Errors
/// Names the first that is NaN or infinite.
pub fn scales(piece: usize, dtype: Dtype, bytes: &[u8]) -> std::result::Result<Vec<f32>, Wrong> {
    let values: Vec<f32> = match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()).collect(),
        _ => bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect(),
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Wrong::new(piece, format!("the number at index {index} is {}", values[index]))),
        None => Ok(values),
    }
}

/// Whether scales are numbers of this type.
pub fn is_float(dtype: Dtype) -> bool {
    SCALES.contains(&dtype)
}

/// A piece of one of some types, which belongs to all rows together.
///
/// # Errors
/// Where it is missing, or of another type or shape.
pub fn all_rows(look: &Look, name: &str, method: &str, types: &[Dtype], shape: &[usize]) -> Result<Piece> {
    let header = look.header(name).ok_or_else(|| look.missing(name, method))?;
    typed(look, name, header, types)?;
    look.piece(name, header, shape, look.sizes().1)
}

/// A small piece that says something of the whole weight.
///
/// # Errors
/// Where it is of another type or shape.
pub fn aside(look: &Look, name: &str, header: Header, types: &[Dtype], shape: &[usize]) -> Result<Piece> {
    typed(look, name, header, types)?;
    Ok(Piece { along: Along::WHOLE, ..look.piece(name, header, shape, 1)? })
}

/// Checks the type of a tensor.
///
/// # Errors
/// Where it is none of `types`.
pub fn typed(look: &Look, name: &str, header: Header, types: &[Dtype]) -> Result<()> {
    if types.contains(&header.dtype) {
        return Ok(());
    }
    let names: Vec<String> = types.iter().map(|dtype| format!("{dtype:?}")).collect();
    Err(look.mistyped(name, header.dtype, &names.join(" or ")))
}

/// The types of scales.
pub const SCALES: &[Dtype] = &[Dtype::F16, Dtype::BF16, Dtype::F32];
/// Those of words.
pub const WORDS: &[Dtype] = &[Dtype::I32, Dtype::U32];

/// "for each 32 columns", or "for each row" where all columns of a row share a group.
pub fn share(size: usize, columns: usize) -> String {
    if size >= columns { "for each row".to_string() } else { format!("for each {size} columns") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_a_word_lie_from_its_low_end() {
        let mut codes = [0.0; 9];
        unpack(&[0x7654_3210, 0xffff_fff8], 4, &mut codes);
        assert_eq!(codes, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        let mut codes = [0.0; 3];
        unpack(&[0x00ff_8001], 8, &mut codes);
        assert_eq!(codes, [1.0, 128.0, 255.0]);
        let mut codes = [0.0; 5];
        unpack(&[0x0000_0ee4], 2, &mut codes);
        assert_eq!(codes, [0.0, 1.0, 2.0, 3.0, 2.0]);
    }

    #[test]
    fn the_last_group_may_be_short() {
        let mut values = [1.0, 2.0, 3.0, 4.0, 5.0];
        row(&mut values, Groups::Even(2), &[1.0, 10.0, 100.0], &[0.0, 1.0, 2.0]);
        assert_eq!(values, [1.0, 2.0, 20.0, 30.0, 300.0]);
    }

    #[test]
    fn a_group_that_does_not_exist_is_told() {
        let bytes = |groups: &[i32]| groups.iter().flat_map(|group| group.to_le_bytes()).collect::<Vec<_>>();
        assert_eq!(named(3, &bytes(&[1, 0]), 2).unwrap(), [1, 0]);
        let wrong = named(3, &bytes(&[0, 1, 99]), 2).unwrap_err();
        assert_eq!(wrong, Wrong::new(3, "puts column 2 into group 99, of 2 groups that begin at 0"));
        assert!(named(3, &bytes(&[0, -1]), 2).unwrap_err().what.contains("group -1"));
    }
}
