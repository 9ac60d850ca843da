//! Integers that stand for weights: value = (code − zero) · scale, with one zero and one scale for each group of columns.
//!
//! Codes of at most eight bits less a zero have nine, scales 8, 11 or 24 significant bits: the difference is exact in f32, and the
//! product is rounded once at most, and not at all where scales are bf16 or f16.

use super::wrong::Wrong;

/// Bits of a word in which codes are packed.
pub const WORD_BITS: usize = 32;

/// Which group the columns of a matrix belong to.
#[derive(Clone, Copy)]
pub enum Groups<'a> {
    /// So many columns in a row share a group; the last may have fewer.
    Even(usize),
    /// The group of every column.
    Of(&'a [i32]),
}

impl Groups<'_> {
    pub fn of(&self, column: usize) -> usize {
        match self {
            Groups::Even(columns) => column / columns,
            Groups::Of(groups) => groups[column] as usize,
        }
    }

    /// Checks that all columns have one of `count` groups; `piece` says so.
    pub fn check(&self, columns: usize, count: usize, piece: &'static str) -> Result<(), Wrong> {
        let Groups::Of(groups) = self else { return Ok(()) };
        if groups.len() != columns {
            return Err(Wrong::new(piece, format!("has {} groups for {columns} columns", groups.len())));
        }
        match groups.iter().enumerate().find(|(_, group)| !(0..count as i64).contains(&i64::from(**group))) {
            None => Ok(()),
            Some((column, group)) => {
                Err(Wrong::new(piece, format!("puts column {column} into group {group}, and there are {count}")))
            }
        }
    }
}

/// Checks that scales are numbers; `piece` holds them.
pub fn finite(scales: &[f32], piece: &'static str) -> Result<(), Wrong> {
    match scales.iter().position(|scale| !scale.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Wrong::new(piece, format!("element {index} is {}", scales[index]))),
    }
}

/// The codes of one little-endian stream of bits: element i has bits [i · bits, (i + 1) · bits) of it. No code crosses a word.
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
#[inline(always)]
pub fn code(words: &[u32], stride: usize, bits: usize, index: usize) -> f32 {
    let bit = index * bits;
    (words[bit / WORD_BITS * stride] >> (bit % WORD_BITS) & ((1 << bits) - 1)) as f32
}

/// Makes the codes of one row values, in place. `scales` and `zeros` are those of the row, one for each group.
#[inline(always)]
pub fn row(values: &mut [f32], groups: Groups<'_>, scales: &[f32], zero: impl Fn(usize) -> f32) {
    match groups {
        Groups::Even(columns) => {
            for (group, values) in values.chunks_mut(columns).enumerate() {
                let (zero, scale) = (zero(group), scales[group]);
                values.iter_mut().for_each(|value| *value = (*value - zero) * scale);
            }
        }
        Groups::Of(groups) => {
            for (value, group) in values.iter_mut().zip(groups) {
                *value = (*value - zero(*group as usize)) * scales[*group as usize];
            }
        }
    }
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
    }

    #[test]
    fn the_last_group_may_be_short() {
        let mut values = [1.0, 2.0, 3.0, 4.0, 5.0];
        row(&mut values, Groups::Even(2), &[1.0, 10.0, 100.0], |group| group as f32);
        assert_eq!(values, [1.0, 2.0, 20.0, 30.0, 300.0]);
    }

    #[test]
    fn a_group_that_does_not_exist_is_told() {
        let wrong = Groups::Of(&[0, 1, 99]).check(3, 2, ".g_idx").unwrap_err();
        assert_eq!((wrong.piece, &wrong.problem[..]), (".g_idx", "puts column 2 into group 99, and there are 2"));
        assert!(Groups::Of(&[0, -1]).check(2, 2, ".g_idx").is_err());
        assert!(Groups::Of(&[0]).check(2, 2, ".g_idx").is_err());
    }
}
