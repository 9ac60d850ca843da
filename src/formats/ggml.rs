//! The block types of ggml, in which GGUF files hold weights: each row is cut into blocks of so
//! many columns, and a block has its scales and its codes in so many bytes.
//!
//! Facts: `ggml-common.h` and `ggml-quants.c` of llama.cpp. In products of a scale and a code
//! nothing is rounded before the last step, and the order of operations is that of
//! `dequantize_row_*` there.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::Dtype;

use super::float::{E2M1, e8m0};
use super::format::{Coding, Format, Kept, Kernel, Wrong};
use super::look::Look;
#[cfg(test)]
use super::piece::Along;
use super::piece::Piece;
use crate::error::Result;

/// One tensor of bytes, `P.weight.ggml_{type}` [.., out, bytes of a row], under the name that the
/// reader of GGUF files gives it.
pub static GGML: Format = Format { name: "GGUF", detect, announced: |_| None };

/// A type of ggml.
#[derive(Debug)]
pub struct Type {
    /// As llama.cpp spells it.
    pub name: &'static str,
    /// In a file.
    pub number: u32,
    /// Columns of a block, and its bytes.
    pub columns: usize,
    pub bytes: usize,
    /// Where in a block numbers in f16 stand that everything in it is multiplied with.
    scales: &'static [usize],
    decode: fn(&[u8], &mut [f32]),
}

/// Columns of a block with scales of its own, and of one whose parts share them.
const SMALL: usize = 32;
const LARGE: usize = 256;

/// All that are read. The first three hold plain numbers.
#[rustfmt::skip]
pub static TYPES: &[Type] = &[
    Type { name: "F32", number: 0, columns: 1, bytes: 4, scales: &[], decode: plain_f32 },
    Type { name: "F16", number: 1, columns: 1, bytes: 2, scales: &[], decode: plain_f16 },
    Type { name: "BF16", number: 30, columns: 1, bytes: 2, scales: &[], decode: plain_bf16 },
    Type { name: "Q4_0", number: 2, columns: SMALL, bytes: 18, scales: &[0], decode: q4_0 },
    Type { name: "Q4_1", number: 3, columns: SMALL, bytes: 20, scales: &[0, 2], decode: q4_1 },
    Type { name: "Q5_0", number: 6, columns: SMALL, bytes: 22, scales: &[0], decode: q5_0 },
    Type { name: "Q5_1", number: 7, columns: SMALL, bytes: 24, scales: &[0, 2], decode: q5_1 },
    Type { name: "Q8_0", number: 8, columns: SMALL, bytes: 34, scales: &[0], decode: q8_0 },
    Type { name: "Q8_1", number: 9, columns: SMALL, bytes: 36, scales: &[0, 2], decode: q8_1 },
    Type { name: "Q2_K", number: 10, columns: LARGE, bytes: 84, scales: &[80, 82], decode: q2_k },
    Type { name: "Q3_K", number: 11, columns: LARGE, bytes: 110, scales: &[108], decode: q3_k },
    Type { name: "Q4_K", number: 12, columns: LARGE, bytes: 144, scales: &[0, 2], decode: q4_k },
    Type { name: "Q5_K", number: 13, columns: LARGE, bytes: 176, scales: &[0, 2], decode: q5_k },
    Type { name: "Q6_K", number: 14, columns: LARGE, bytes: 210, scales: &[208], decode: q6_k },
    Type { name: "Q8_K", number: 15, columns: LARGE, bytes: 292, scales: &[], decode: q8_k },
    Type { name: "MXFP4", number: 39, columns: SMALL, bytes: 17, scales: &[], decode: mxfp4 },
];

impl Type {
    /// The type of this number; none where it is not read.
    pub fn of(number: u32) -> Option<&'static Type> {
        TYPES.iter().find(|kind| kind.number == number)
    }

    /// What tensors of plain numbers of this type are elsewhere.
    pub fn plain(&self) -> Option<Dtype> {
        match self.name {
            "F32" => Some(Dtype::F32),
            "F16" => Some(Dtype::F16),
            "BF16" => Some(Dtype::BF16),
            _ => None,
        }
    }

    /// The name under which the bytes of this weight are read.
    pub fn name_of(&self, weight: &str) -> String {
        format!("{weight}.ggml_{}", self.name.to_ascii_lowercase())
    }
}

/// The names that the bytes of this weight can have.
pub fn names(weight: &str) -> impl Iterator<Item = String> {
    TYPES.iter().map(move |kind| kind.name_of(weight))
}

#[derive(Debug)]
struct Ggml {
    kind: &'static Type,
    pieces: [Piece; 1],
    input: usize,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let found = TYPES.iter().find_map(|kind| {
        let name = kind.name_of(look.name);
        look.header(&name).map(|header| (kind, name, header))
    });
    let Some((kind, name, header)) = found else { return Ok(None) };
    if header.dtype != Dtype::U8 {
        return Err(look.mistyped(&name, header.dtype, "U8"));
    }
    let (_, out, input) = look.sizes();
    if !input.is_multiple_of(kind.columns) {
        let problem =
            format!("has {input} columns, not a multiple of the {} of a block of {}", kind.columns, kind.name);
        return Err(look.unread(&problem));
    }
    let piece = look.piece(&name, header, &[out, input / kind.columns * kind.bytes], 1)?;
    Ok(Some(Arc::new(Ggml { kind, pieces: [piece], input })))
}

impl Ggml {
    fn row_bytes(&self) -> usize {
        self.input / self.kind.columns * self.kind.bytes
    }
}

impl Coding for Ggml {
    fn words(&self) -> String {
        format!("GGUF {}", self.kind.name)
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn exact_in_bf16(&self) -> bool {
        ["BF16", "MXFP4"].contains(&self.kind.name)
    }

    fn columns(&self) -> usize {
        self.input
    }

    fn keep(&self, pieces: Vec<Vec<u8>>, _rows: usize, own: Range<usize>) -> std::result::Result<Kept, Wrong> {
        let Type { name, columns, bytes, scales, .. } = self.kind;
        let mut values = [0.0; 1];
        for (index, block) in pieces[0].chunks_exact(*bytes).enumerate() {
            let finite = match *columns {
                1 => {
                    (self.kind.decode)(block, &mut values);
                    values[0].is_finite()
                }
                _ if *name == "Q8_K" => (single(block) * f32::from(i8::MIN)).is_finite(),
                _ if *name == "MXFP4" => (E2M1[7] * e8m0(block[0])).is_finite(),
                _ => scales.iter().all(|at| number(block, *at).is_finite()),
            };
            if !finite {
                let column = index * columns % self.input.max(1);
                let row = index * columns / self.input.max(1);
                return Err(Wrong::new(0, format!("row {row}, column {column}: not a finite number ({name})")));
            }
        }
        Ok(Kept { parts: pieces, above: own.start })
    }

    fn for_gpu(&self, _: Vec<Vec<u8>>) -> Option<(Kernel, Vec<Vec<u8>>)> {
        None
    }

    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        let Type { columns, bytes, decode, .. } = self.kind;
        let blocks = &kept[0][row * self.row_bytes()..];
        let (mut from, mut to) = (from, to);
        let mut block = [0.0; LARGE];
        while !to.is_empty() {
            let inside = from % columns;
            let count = (columns - inside).min(to.len());
            let bytes = &blocks[from / columns * bytes..][..*bytes];
            let (now, later) = to.split_at_mut(count);
            if count == *columns {
                decode(bytes, now);
            } else {
                decode(bytes, &mut block[..*columns]);
                now.copy_from_slice(&block[inside..inside + count]);
            }
            (from, to) = (from + count, later);
        }
    }
}

/// The f16 at byte `at`.
#[inline(always)]
fn number(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The f32 at the beginning.
#[inline(always)]
fn single(block: &[u8]) -> f32 {
    f32::from_le_bytes([block[0], block[1], block[2], block[3]])
}

fn plain_f32(block: &[u8], to: &mut [f32]) {
    to[0] = single(block);
}

fn plain_f16(block: &[u8], to: &mut [f32]) {
    to[0] = number(block, 0);
}

fn plain_bf16(block: &[u8], to: &mut [f32]) {
    to[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32();
}

/// The codes of 16 bytes: the low nibbles are those of the first 16 columns.
#[inline(always)]
fn halves(codes: &[u8], to: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let (low, high) = to.split_at_mut(SMALL / 2);
    for (j, code) in codes[..SMALL / 2].iter().enumerate() {
        low[j] = value(j, code & 15);
        high[j] = value(j + SMALL / 2, code >> 4);
    }
}

fn q4_0(block: &[u8], to: &mut [f32]) {
    let d = number(block, 0);
    halves(&block[2..], to, |_, code| (i32::from(code) - 8) as f32 * d);
}

fn q4_1(block: &[u8], to: &mut [f32]) {
    let (d, m) = (number(block, 0), number(block, 2));
    halves(&block[4..], to, |_, code| f32::from(code) * d + m);
}

/// The fifth bit of each code.
#[inline(always)]
fn fifth(bits: &[u8]) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    move |j| ((bits >> j & 1) << 4) as u8
}

fn q5_0(block: &[u8], to: &mut [f32]) {
    let (d, fifth) = (number(block, 0), fifth(&block[2..]));
    halves(&block[6..], to, |j, code| (i32::from(code | fifth(j)) - 16) as f32 * d);
}

fn q5_1(block: &[u8], to: &mut [f32]) {
    let (d, m, fifth) = (number(block, 0), number(block, 2), fifth(&block[4..]));
    halves(&block[8..], to, |j, code| f32::from(code | fifth(j)) * d + m);
}

fn q8_0(block: &[u8], to: &mut [f32]) {
    let d = number(block, 0);
    to.iter_mut().zip(&block[2..]).for_each(|(value, code)| *value = f32::from(*code as i8) * d);
}

/// As `q8_0`, with the sum of the codes, which nothing here needs.
fn q8_1(block: &[u8], to: &mut [f32]) {
    let d = number(block, 0);
    to.iter_mut().zip(&block[4..]).for_each(|(value, code)| *value = f32::from(*code as i8) * d);
}

/// A scale in f32, codes, and sums of codes, which nothing here needs.
fn q8_k(block: &[u8], to: &mut [f32]) {
    let d = single(block);
    to.iter_mut().zip(&block[4..]).for_each(|(value, code)| *value = f32::from(*code as i8) * d);
}

fn mxfp4(block: &[u8], to: &mut [f32]) {
    let scale = e8m0(block[0]);
    halves(&block[1..], to, |_, code| E2M1[code as usize] * scale);
}

/// 16 scales of 16 columns each, a nibble for the scale and one for the minimum; then codes of two
/// bits.
fn q2_k(block: &[u8], to: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, min) = (number(block, 80), number(block, 82));
    for (part, to) in to.chunks_exact_mut(16).enumerate() {
        let (scale, least) = (d * f32::from(scales[part] & 15), min * f32::from(scales[part] >> 4));
        // Each half of the block has 32 bytes, which have its four rounds of 32 columns in their
        // pairs of bits.
        let (half, shift) = (part / 8, part % 8 / 2 * 2);
        let codes = &codes[32 * half + 16 * (part % 2)..];
        to.iter_mut().zip(codes).for_each(|(value, code)| *value = scale * f32::from(code >> shift & 3) - least);
    }
}

/// Codes of two bits with a third one elsewhere, and 16 scales of six bits.
fn q3_k(block: &[u8], to: &mut [f32]) {
    let (thirds, codes, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = number(block, 108);
    let scale = |part: usize| {
        let low = if part < 8 { packed[part] & 15 } else { packed[part - 8] >> 4 };
        let high = packed[8 + part % 4] >> (part / 4 * 2) & 3;
        i32::from(low | high << 4) - 32
    };
    for (part, to) in to.chunks_exact_mut(16).enumerate() {
        let by = d * scale(part) as f32;
        let (half, round, begin) = (part / 8, part % 8 / 2, 16 * (part % 2));
        for (j, value) in to.iter_mut().enumerate() {
            let low = i32::from(codes[32 * half + begin + j] >> (2 * round) & 3);
            let third = thirds[begin + j] >> (4 * half + round) & 1;
            *value = by * (low - if third == 0 { 4 } else { 0 }) as f32;
        }
    }
}

/// Scale and minimum, of six bits each, of a part of 32 columns.
#[inline(always)]
fn six_bits(packed: &[u8], part: usize) -> (f32, f32) {
    let (scale, min) = match part {
        0..4 => (packed[part] & 63, packed[part + 4] & 63),
        _ => (packed[part + 4] & 15 | packed[part - 4] >> 6 << 4, packed[part + 4] >> 4 | packed[part] >> 6 << 4),
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(block: &[u8], to: &mut [f32]) {
    fours(block, &block[16..], to, |_, _| 0);
}

fn q5_k(block: &[u8], to: &mut [f32]) {
    let fifths = &block[16..48];
    fours(block, &block[48..], to, |part, j| (fifths[j] >> part & 1) << 4);
}

/// Two scales, the packed scales of eight parts, and codes whose low nibbles are a part and whose
/// high nibbles are the next.
#[inline(always)]
fn fours(block: &[u8], codes: &[u8], to: &mut [f32], above: impl Fn(usize, usize) -> u8) {
    let (d, min) = (number(block, 0), number(block, 2));
    for (part, to) in to.chunks_exact_mut(SMALL).enumerate() {
        let (scale, least) = six_bits(&block[4..16], part);
        let (scale, least) = (d * scale, min * least);
        let (codes, shift) = (&codes[part / 2 * SMALL..], part % 2 * 4);
        for (j, value) in to.iter_mut().enumerate() {
            *value = scale * f32::from(codes[j] >> shift & 15 | above(part, j)) - least;
        }
    }
}

/// Four low bits and two high ones apart from each other, and 16 scales of a signed byte.
fn q6_k(block: &[u8], to: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = number(block, 208);
    for (part, to) in to.chunks_exact_mut(16).enumerate() {
        let by = d * f32::from(scales[part] as i8);
        let (half, round, begin) = (part / 8, part % 8 / 2, 16 * (part % 2));
        for (j, value) in to.iter_mut().enumerate() {
            let nibble = low[64 * half + 32 * (round % 2) + begin + j] >> (round / 2 * 4) & 15;
            let pair = high[32 * half + begin + j] >> (2 * round) & 3;
            *value = by * (i32::from(nibble | pair << 4) - 32) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    /// `tests/fixtures_ggml`, whose numbers were found from the layouts alone.
    const BLOCKS: &[u8] = include_bytes!("../../tests/fixtures_ggml/blocks.safetensors");

    #[test]
    fn every_type_is_decoded_to_the_bit_at_any_columns() {
        let file = SafeTensors::deserialize(BLOCKS).unwrap();
        for kind in TYPES {
            let blocks = file.tensor(&format!("{}.blocks", kind.name)).unwrap();
            let values = file.tensor(&format!("{}.values", kind.name)).unwrap();
            let input = values.shape()[1];
            let expected: Vec<u32> =
                values.data().as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
            let piece = Piece {
                name: kind.name.to_string(),
                dtype: Dtype::U8,
                shape: blocks.shape().to_vec(),
                along: Along::rows(false, 1),
            };
            let coding = Ggml { kind, pieces: [piece], input };
            let rows = values.shape()[0];
            let kept = coding.keep(vec![blocks.data().to_vec()], rows, 0..rows).unwrap();
            for (row, expected) in expected.chunks_exact(input).enumerate() {
                for (from, count) in [(0, input), (0, 1), (31, 2), (33, 300), (255, 257), (input - 1, 1)] {
                    let mut found = vec![0.0; count];
                    coding.numbers(&kept.parts, row, from, &mut found);
                    let found: Vec<u32> = found.into_iter().map(f32::to_bits).collect();
                    assert_eq!(found, expected[from..from + count], "{}, row {row}, column {from}", kind.name);
                }
            }
        }
    }

    #[test]
    fn scales_that_are_no_numbers_are_refused() {
        for kind in TYPES {
            // Nothing but ones: a scale of f16 or f32 is NaN, and one of E8M0, too.
            let piece = Piece {
                name: kind.name.to_string(),
                dtype: Dtype::U8,
                shape: vec![2, kind.bytes],
                along: Along::WHOLE,
            };
            let coding = Ggml { kind, pieces: [piece], input: kind.columns };
            let bytes = [vec![0; kind.bytes], vec![0xff; kind.bytes]].concat();
            let wrong = coding.keep(vec![bytes], 2, 0..2).unwrap_err();
            assert!(wrong.what.starts_with("row 1, column 0"), "{}: {}", kind.name, wrong.what);
        }
    }
}
