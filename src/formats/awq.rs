//! AWQ's `gemm` layout: integers of 4 bits, transposed and packed along the outputs of the matrix,
//! eight per word in an order of its own.
//!
//! `qweight` is [in, out / 8], `qzeros` [groups, out / 8] and `scales` [groups, out]. Sources:
//! autoawq `utils/packing_utils.py` and `modules/linear/gemm.py`.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use super::affine::{self, FLOATS, HoldsIntegers, Integers, Parts, Stored, WORD};
use super::format::{Coding, Format, Wrong};
use super::look::Look;
use super::piece::Announced;
use crate::error::Result;

pub(super) static AWQ: Format = Format { name: "AWQ", detect, announced };

/// Indices of the pieces.
const CODES_AT: usize = 0;
const ZEROS_AT: usize = 1;
const SCALES_AT: usize = 2;
/// Number of bits of a code.
const BITS: usize = 4;
/// Number of codes in a word.
const PER_WORD: usize = 8;
/// The output, of the eight of a word, that each code belongs to, from the low end.
const OUTPUTS: [usize; PER_WORD] = [0, 2, 4, 6, 1, 3, 5, 7];
/// Number of bytes of a word.
const WORD_BYTES: usize = 4;
/// Words and bytes that are turned together.
const TILE: usize = 16;

#[derive(Debug)]
struct Awq {
    stored: Stored,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (_, out, input) = look.sizes();
    let [qweight, qzeros, scales] = ["qweight", "qzeros", "scales"].map(|name| look.beside(name));
    let Some(codes) = look.header(&qweight) else { return Ok(None) };
    affine::typed(look, &qweight, codes, WORD)?;
    if !out.is_multiple_of(PER_WORD) {
        return Err(look.unread(&format!("has {out} rows, not a multiple of the {PER_WORD} that AWQ packs in a word")));
    }
    let codes = look.piece(&qweight, codes, &[input, out / PER_WORD], out)?;
    let found = look.header(&scales).ok_or_else(|| look.missing(&scales, "AWQ"))?;
    let count = look.of_matrix(found.shape).first().copied().unwrap_or_default();
    let columns = affine::group_size(look, input, count)
        .map_err(|due| look.misshapen(&scales, found.shape, &look.stacked(&[due, out])))?;
    let zeros = affine::all_rows(look, &qzeros, "AWQ", WORD, &[count, out / PER_WORD])?;
    let scales = affine::all_rows(look, &scales, "AWQ", FLOATS, &[count, out])?;
    let scale = scales.dtype;
    let row_bytes = input.div_ceil(2);
    let integers = Integers { sizes: [out, input], bits: BITS, row_bytes, groups: count, columns, scale, factor: 1.0 };
    let pieces = vec![codes, zeros, scales];
    Ok(Some(Arc::new(Awq { stored: Stored { pieces, scales_at: SCALES_AT, named_at: None, integers } })))
}

fn announced(look: &Look) -> Option<Vec<Announced>> {
    let (stack, out, input) = look.sizes();
    if stack.is_some() || !look.settings.is_packed_as("awq") {
        return None;
    }
    let groups = look.settings.number("group_size").filter(|size| *size > 0).map_or(1, |size| input.div_ceil(size));
    Some(vec![
        (look.beside("qweight"), Dtype::I32, vec![input, out / PER_WORD]),
        (look.beside("qzeros"), Dtype::I32, vec![groups, out / PER_WORD]),
        (look.beside("scales"), Dtype::F16, vec![groups, out]),
    ])
}

impl HoldsIntegers for Awq {
    fn words(&self) -> String {
        format!("AWQ INT4, one scale and zero {}", self.stored.integers.share())
    }

    fn stored(&self) -> &Stored {
        &self.stored
    }

    fn parts(&self, pieces: Vec<Vec<u8>>, _rows: usize, own: Range<usize>) -> std::result::Result<Parts, Wrong> {
        let Integers { sizes: [out, input], groups, scale, row_bytes, .. } = self.stored.integers;
        let words = out / PER_WORD;
        // The words that the outputs share with others.
        let shared = own.start / PER_WORD..own.end.div_ceil(PER_WORD);
        let rows = shared.start * PER_WORD..shared.end * PER_WORD;
        let mut zeros = vec![0; rows.len() * groups];
        for (group, all) in pieces[ZEROS_AT].chunks((words * WORD_BYTES).max(1)).enumerate().take(groups) {
            for (output, code) in ordered(&all[shared.start * WORD_BYTES..shared.end * WORD_BYTES]) {
                zeros[output * groups + group] = code;
            }
        }
        Ok(Parts {
            codes: by_output(&pieces[CODES_AT], [input, words], shared, row_bytes),
            scales: affine::turned(&pieces[SCALES_AT], [groups, out], scale.bitsize() / 8, rows.clone()),
            zeros,
            rows,
        })
    }
}

/// Codes of the words `own` of each row of [in, out / 8] as rows of `row_bytes` bytes, one for each
/// output.
fn by_output(bytes: &[u8], [input, stride]: [usize; 2], own: Range<usize>, row_bytes: usize) -> Vec<u8> {
    const LOW: u32 = 0x0f0f_0f0f;
    let stored = bytes.as_chunks::<WORD_BYTES>().0;
    let word = |column: usize, at: usize| {
        if column < input { u32::from_le_bytes(stored[column * stride + own.start + at]) } else { 0 }
    };
    let words = own.len();
    let mut codes = vec![0; words * PER_WORD * row_bytes];
    // In squares, so that what is read and written stays in a cache.
    for (first, begin) in
        (0..words).step_by(TILE).flat_map(|first| (0..row_bytes).step_by(TILE).map(move |b| (first, b)))
    {
        for at in first..(first + TILE).min(words) {
            for byte in begin..(begin + TILE).min(row_bytes) {
                // Two columns share a byte of each output.
                let (even, odd) = (word(2 * byte, at), word(2 * byte + 1, at));
                let halves = [even & LOW | (odd & LOW) << BITS, even >> BITS & LOW | odd & !LOW];
                for (place, output) in OUTPUTS.into_iter().enumerate() {
                    let code = halves[place % 2].to_le_bytes()[place / 2];
                    codes[(at * PER_WORD + output) * row_bytes + byte] = code;
                }
            }
        }
    }
    codes
}

/// The codes of contiguous words, each with the output that it belongs to.
fn ordered(words: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    words.chunks(WORD_BYTES).enumerate().flat_map(|(word, bytes)| {
        let both = bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        OUTPUTS.into_iter().zip(both).map(move |(output, code)| (word * PER_WORD + output, code))
    })
}
