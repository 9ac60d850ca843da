//! AWQ as `gemm`: integers of 4 bits, transposed and packed along the outputs of the matrix, eight a word in an order of their own.
//!
//! `qweight` is [in, out / 8], `qzeros` [groups, out / 8] and `scales` [groups, out]. Facts: autoawq `utils/packing_utils.py` and
//! `modules/linear/gemm.py`.

use std::sync::Arc;

use safetensors::Dtype;

use super::affine::{self, SCALES, WORDS};
use super::format::{Announced, Coding, Decoded, Format, Piece, Wrong};
use super::look::Look;
use crate::error::Result;
use crate::vector::vectorised;

pub static AWQ: Format = Format { name: "AWQ", detect, announced };

/// Bits of a code.
pub const BITS: usize = 4;
/// Codes of a word.
const PER_WORD: usize = 8;
/// Which of the eight outputs of a word its codes belong to, from the low end.
const OUTPUTS: [usize; PER_WORD] = [0, 2, 4, 6, 1, 3, 5, 7];
/// Inputs that are written side by side.
const INPUTS: usize = 16;

#[derive(Debug)]
struct Awq {
    /// Codes, zeros, scales.
    pieces: Vec<Piece>,
    /// [out, in].
    sizes: [usize; 2],
    /// Inputs that share a scale.
    columns: usize,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (stack, out, input) = look.sizes();
    let [qweight, qzeros, scales] = ["qweight", "qzeros", "scales"].map(|name| look.beside(name));
    let Some(codes) = look.header(&qweight) else { return Ok(None) };
    if stack.is_some() {
        return Err(look.unread("is a stack of packed integers"));
    }
    affine::typed(look, &qweight, codes, WORDS)?;
    if !out.is_multiple_of(PER_WORD) {
        return Err(look.unread(&format!("has {out} rows, not a multiple of the {PER_WORD} that AWQ packs in a word")));
    }
    let codes = look.piece(&qweight, codes, &[input, out / PER_WORD], out)?;
    let found = look.header(&scales).ok_or_else(|| look.missing(&scales, "AWQ"))?;
    let count = found.shape.first().copied().unwrap_or_default();
    let columns =
        affine::group_size(look, input, count).map_err(|due| look.misshapen(&scales, found.shape, &[due, out]))?;
    let zeros = affine::all_rows(look, &qzeros, "AWQ", WORDS, &[count, out / PER_WORD])?;
    let scales = affine::all_rows(look, &scales, "AWQ", SCALES, &[count, out])?;
    Ok(Some(Arc::new(Awq { pieces: vec![codes, zeros, scales], sizes: [out, input], columns })))
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
        format!("AWQ INT4, one scale and zero {}", affine::share(self.columns, self.sizes[1]))
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn decode(&self, pieces: &[Vec<u8>], _rows: usize) -> std::result::Result<Decoded, Wrong> {
        let [out, input] = self.sizes;
        let scales = affine::scales(2, self.pieces[2].dtype, &pieces[2])?;
        let [codes, stored] = [0, 1].map(|piece| affine::numbers(&pieces[piece]));
        let mut zeros = vec![0.0; scales.len()];
        for (zeros, word) in zeros.chunks_mut(PER_WORD).zip(stored) {
            for (i, output) in OUTPUTS.into_iter().enumerate() {
                zeros[output] = code(word, i);
            }
        }
        let words = out / PER_WORD;
        let mut values = vec![0.0; out * input];
        vectorised(|| {
            for first in (0..input).step_by(INPUTS) {
                for word in 0..words {
                    for (i, output) in OUTPUTS.into_iter().enumerate() {
                        let output = word * PER_WORD + output;
                        for column in first..(first + INPUTS).min(input) {
                            let of = column / self.columns * out + output;
                            let code = code(codes[column * words + word], i);
                            values[output * input + column] = (code - zeros[of]) * scales[of];
                        }
                    }
                }
            }
        });
        Ok(Decoded::F32(values))
    }
}

/// Code `index` of a word, from its low end.
#[inline(always)]
fn code(word: u32, index: usize) -> f32 {
    (word >> (BITS * index) & ((1 << BITS) - 1)) as f32
}
