//! GPTQ: integers of 2, 4 or 8 bits, transposed and packed along the inputs of the matrix.
//!
//! `qweight` [⌈in · bits / 32⌉, out] holds the codes, `scales` [groups, out], `qzeros` [groups, ⌈out · bits / 32⌉] the zeros, packed
//! along the outputs, and `g_idx` [in] the group of each input, in no order where inputs were quantised by their activations
//! (`desc_act`). What is stored as a zero is one less than it in the first version of the format, and itself in the second. AutoRound
//! writes the same, mostly without `g_idx`. A bias of zeros may stand beside a projection that has none. Facts: gptqmodel
//! `utils/model_dequant.py`, auto-gptq `nn_modules/qlinear`.

use std::sync::Arc;

use safetensors::Dtype;

use super::affine::{self, Groups, SCALES, WORD_BITS, WORDS};
use super::format::{Announced, Coding, Decoded, Format, Piece, Wrong};
use super::look::{Header, Look};
use super::settings::BITS;
use crate::error::Result;
use crate::vector::vectorised;

pub static GPTQ: Format = Format { name: "GPTQ", detect, announced };

/// Outputs that are written side by side, so that their rows stay in a cache.
const OUTPUTS: usize = 16;
/// The first pieces, in their order; `g_idx` and a bias, if there are any, come behind them.
const CODES_AT: usize = 0;
const ZEROS_AT: usize = 1;
const SCALES_AT: usize = 2;

#[derive(Debug)]
struct Gptq {
    pieces: Vec<Piece>,
    groups: Option<usize>,
    /// A bias that the model has not.
    bias: Option<usize>,
    /// [out, in].
    sizes: [usize; 2],
    bits: usize,
    /// Inputs that share a scale, where there are no groups by name.
    columns: usize,
    /// What is added to a stored zero.
    offset: f32,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (stack, out, input) = look.sizes();
    let [qweight, qzeros, scales, g_idx] = ["qweight", "qzeros", "scales", "g_idx"].map(|name| look.beside(name));
    let Some(codes) = look.header(&qweight) else { return Ok(None) };
    let named = look.header(&g_idx);
    if stack.is_some() || named.is_none() && !is_packed_along_inputs(codes, out, input) {
        return Ok(None);
    }
    affine::typed(look, &qweight, codes, WORDS)?;
    let bits = bits(look, &qweight, codes)?;
    let found = look.header(&scales).ok_or_else(|| look.missing(&scales, "GPTQ"))?;
    let count = found.shape.first().copied().unwrap_or_default();
    let columns =
        affine::group_size(look, input, count).map_err(|due| look.misshapen(&scales, found.shape, &[due, out]))?;
    let mut pieces = vec![
        look.piece(&qweight, codes, &[affine::words(input, bits), out], out)?,
        affine::all_rows(look, &qzeros, "GPTQ", WORDS, &[count, affine::words(out, bits)])?,
        affine::all_rows(look, &scales, "GPTQ", SCALES, &[count, out])?,
    ];
    let mut add = |piece: Piece| {
        pieces.push(piece);
        pieces.len() - 1
    };
    let groups = named.map(|found| affine::aside(look, &g_idx, found, WORDS, &[input])).transpose()?.map(&mut add);
    let name = look.beside("bias");
    let bias = look.header(&name).filter(|_| !look.in_model(&name));
    let bias = bias.map(|found| affine::aside(look, &name, found, SCALES, &[out])).transpose()?.map(&mut add);
    let offset = if look.settings.checkpoint_format() == Some("gptq_v2") { 0.0 } else { 1.0 };
    Ok(Some(Arc::new(Gptq { pieces, groups, bias, sizes: [out, input], bits, columns, offset })))
}

/// AWQ has other words under the same names.
fn is_packed_along_inputs(codes: Header, out: usize, input: usize) -> bool {
    let fits = |bits: usize| codes.shape == [affine::words(input, bits), out];
    (2..=8).any(fits)
}

/// The bits of a code, which fill so many words.
///
/// # Errors
/// Where they are not read, or the settings have others.
fn bits(look: &Look, name: &str, codes: Header) -> Result<usize> {
    let (_, out, input) = look.sizes();
    let fits = |bits: &usize| codes.shape == [affine::words(input, *bits), out];
    let said: Vec<usize> =
        look.settings.every("bits").into_iter().filter_map(|bits| usize::try_from(bits).ok()).collect();
    let candidates = if said.is_empty() { &BITS[..] } else { &said };
    if let Some(bits) = candidates.iter().copied().find(fits) {
        return if BITS.contains(&bits) { Ok(bits) } else { Err(look.unread(&format!("is packed in {bits} bits"))) };
    }
    let due = [affine::words(input, candidates[0]), out];
    Err(look.misshapen(name, codes.shape, &due).context(format!("`bits` {}", candidates[0])))
}

fn announced(look: &Look) -> Option<Vec<Announced>> {
    let (stack, out, input) = look.sizes();
    if stack.is_some() || !look.settings.is_packed_as("gptq") {
        return None;
    }
    let bits = look.settings.number("bits").filter(|bits| BITS.contains(bits))?;
    let groups = look.settings.number("group_size").filter(|size| *size > 0).map_or(1, |size| input.div_ceil(size));
    Some(vec![
        (look.beside("qweight"), Dtype::I32, vec![affine::words(input, bits), out]),
        (look.beside("qzeros"), Dtype::I32, vec![groups, affine::words(out, bits)]),
        (look.beside("scales"), Dtype::F16, vec![groups, out]),
        (look.beside("g_idx"), Dtype::I32, vec![input]),
    ])
}

impl Gptq {
    /// Zeros [groups, out].
    fn zeros(&self, bytes: &[u8], count: usize) -> std::result::Result<Vec<f32>, Wrong> {
        let out = self.sizes[0];
        let stored = affine::numbers(bytes);
        let last = ((1u32 << self.bits) - 1) as f32;
        let words = affine::words(out, self.bits).max(1);
        let mut zeros = vec![0.0; count * out];
        for (group, (zeros, words)) in zeros.chunks_mut(out.max(1)).zip(stored.chunks(words)).enumerate() {
            affine::unpack(words, self.bits, zeros);
            if self.offset > 0.0
                && let Some(output) = zeros.iter().position(|zero| *zero == last)
            {
                return Err(Wrong::new(
                    ZEROS_AT,
                    format!(
                        "has {last} for output {output} in group {group}: a zero of 0, which this version of the format cannot store, and \
                         which has damaged its neighbours when it was packed"
                    ),
                ));
            }
            zeros.iter_mut().for_each(|zero| *zero += self.offset);
        }
        Ok(zeros)
    }
}

impl Coding for Gptq {
    fn words(&self) -> String {
        let columns = affine::share(self.columns, self.sizes[1]);
        format!("GPTQ INT{}, one scale and zero {columns}", self.bits)
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn decode(&self, pieces: &[Vec<u8>], _rows: usize) -> std::result::Result<Decoded, Wrong> {
        let [out, input] = self.sizes;
        let scales = affine::scales(SCALES_AT, self.pieces[SCALES_AT].dtype, &pieces[SCALES_AT])?;
        let count = scales.len() / out.max(1);
        if let Some(piece) = self.bias
            && let Some(index) =
                affine::scales(piece, self.pieces[piece].dtype, &pieces[piece])?.iter().position(|x| *x != 0.0)
        {
            return Err(Wrong::new(
                piece,
                format!("has a value other than 0 at index {index}, and the model has no such bias"),
            ));
        }
        let named = self.groups.map(|piece| affine::named(piece, &pieces[piece], count)).transpose()?;
        let of_input = named.as_deref().map_or(Groups::Even(self.columns), Groups::Of);
        let zeros = self.zeros(&pieces[ZEROS_AT], count)?;
        let codes = affine::numbers(&pieces[CODES_AT]);
        // Where scale and zero of an input's group begin.
        let begins: Vec<usize> = (0..input).map(|column| of_input.of(column) * out).collect();
        let (per_word, mask) = (WORD_BITS / self.bits, (1 << self.bits) - 1);
        let mut values = vec![0.0; out * input];
        vectorised(|| {
            for first in (0..out).step_by(OUTPUTS) {
                for (word, begins) in begins.chunks(per_word).enumerate() {
                    for output in first..(first + OUTPUTS).min(out) {
                        let mut code = codes[word * out + output];
                        let values = &mut values[output * input + word * per_word..][..begins.len()];
                        for (value, begin) in values.iter_mut().zip(begins) {
                            let of = begin + output;
                            *value = ((code & mask) as f32 - zeros[of]) * scales[of];
                            code >>= self.bits;
                        }
                    }
                }
            }
        });
        Ok(Decoded::F32(values))
    }
}
