//! AWQ as `gemm`: integers of 4 bits, transposed and packed along the outputs of the matrix, eight
//! a word in an order of their own.
//!
//! `qweight` is [in, out / 8], `qzeros` [groups, out / 8] and `scales` [groups, out]. Facts:
//! autoawq `utils/packing_utils.py` and `modules/linear/gemm.py`.

use std::sync::Arc;

use safetensors::Dtype;

use super::affine::{self, FLOATS, Integers, WORD};
use super::format::{Coding, Decoded, Format, Kernel, Rows, Wrong, decode_rows};
use super::look::Look;
use super::piece::{Announced, Piece};
use crate::error::Result;

pub(super) static AWQ: Format = Format { name: "AWQ", detect, announced };

/// Bits of a code.
const BITS: usize = 4;
/// Codes of a word.
const PER_WORD: usize = 8;
/// Which of the eight outputs of a word its codes belong to, from the low end.
const OUTPUTS: [usize; PER_WORD] = [0, 2, 4, 6, 1, 3, 5, 7];
/// Bytes of a word.
const WORD_BYTES: usize = 4;

#[derive(Debug)]
struct Awq {
    /// Codes, zeros, scales.
    pieces: Vec<Piece>,
    integers: Integers,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (stack, out, input) = look.sizes();
    let [qweight, qzeros, scales] = ["qweight", "qzeros", "scales"].map(|name| look.beside(name));
    let Some(codes) = look.header(&qweight) else { return Ok(None) };
    if stack.is_some() {
        return Err(look.unread("is a stack of packed integers"));
    }
    affine::typed(look, &qweight, codes, WORD)?;
    if !out.is_multiple_of(PER_WORD) {
        return Err(look.unread(&format!("has {out} rows, not a multiple of the {PER_WORD} that AWQ packs in a word")));
    }
    let codes = look.piece(&qweight, codes, &[input, out / PER_WORD], out)?;
    let found = look.header(&scales).ok_or_else(|| look.missing(&scales, "AWQ"))?;
    let count = found.shape.first().copied().unwrap_or_default();
    let columns =
        affine::group_size(look, input, count).map_err(|due| look.misshapen(&scales, found.shape, &[due, out]))?;
    let zeros = affine::all_rows(look, &qzeros, "AWQ", WORD, &[count, out / PER_WORD])?;
    let scales = affine::all_rows(look, &scales, "AWQ", FLOATS, &[count, out])?;
    let scale = scales.dtype;
    let integers =
        Integers { sizes: [out, input], bits: BITS, row_bytes: input.div_ceil(2), groups: count, columns, scale };
    Ok(Some(Arc::new(Awq { pieces: vec![codes, zeros, scales], integers })))
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

impl Coding for Awq {
    fn words(&self) -> String {
        format!("AWQ INT4, one scale and zero {}", affine::share(self.integers.columns, self.integers.sizes[1]))
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn rows(&self) -> Option<&dyn Rows> {
        Some(self)
    }

    fn decode(&self, pieces: &[Vec<u8>], rows: usize) -> std::result::Result<Decoded, Wrong> {
        decode_rows(self, pieces, rows, self.integers.sizes[1])
    }
}

impl Rows for Awq {
    fn kept(&self, pieces: Vec<Vec<u8>>, _rows: usize) -> std::result::Result<Vec<Vec<u8>>, Wrong> {
        let Integers { sizes: [out, input], groups, scale, row_bytes, .. } = self.integers;
        affine::check_scales(2, scale, &pieces[2])?;
        let words = out / PER_WORD * WORD_BYTES;
        let mut codes = vec![0; out * row_bytes];
        for (column, words) in pieces[0].chunks(words.max(1)).enumerate().take(input) {
            let half = BITS * (column % 2);
            for (output, code) in ordered(words) {
                codes[output * row_bytes + column / 2] |= code << half;
            }
        }
        let mut zeros = vec![0; out * groups];
        for (group, words) in pieces[1].chunks(words.max(1)).enumerate().take(groups) {
            for (output, code) in ordered(words) {
                zeros[output * groups + group] = code;
            }
        }
        let scales = affine::transposed(&pieces[2], [groups, out], scale.bitsize() / 8);
        Ok(vec![codes, scales, zeros, Vec::new()])
    }

    fn decode(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        self.integers.decode(kept, row, from, to);
    }

    fn for_gpu(&self, kept: Vec<Vec<u8>>) -> (Kernel, Vec<Vec<u8>>) {
        (self.integers.kernel(1.0), kept)
    }
}

/// The codes of words that lie side by side, with the output that each belongs to.
fn ordered(words: &[u8]) -> impl Iterator<Item = (usize, u8)> {
    words.chunks(WORD_BYTES).enumerate().flat_map(|(word, bytes)| {
        let both = bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]);
        OUTPUTS.into_iter().zip(both).map(move |(output, code)| (word * PER_WORD + output, code))
    })
}
