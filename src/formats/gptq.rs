//! GPTQ: integers of 2, 4 or 8 bits, transposed and packed along the inputs of the matrix.
//!
//! `qweight` [⌈in · bits / 32⌉, out] holds the codes, `scales` [groups, out], `qzeros` [groups,
//! ⌈out · bits / 32⌉] the zeros, packed along the outputs, and `g_idx` [in] the group of each
//! input. Groups are not contiguous if inputs were quantised by their activations (`desc_act`). The
//! first version of the format stores each zero minus one, the second stores the zero itself.
//! AutoRound writes the same tensors, mostly without `g_idx`. A projection without a bias may have
//! a stored bias of zeros. Sources: gptqmodel `utils/model_dequant.py`, auto-gptq
//! `nn_modules/qlinear`.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use super::affine::{self, FLOATS, GROUPS, HoldsIntegers, Integers, Parts, Stored, WORD, WORD_BITS};
use super::float;
use super::format::{Coding, Format, Wrong};
use super::look::{Header, Look};
use super::piece::{Announced, Piece};
use super::settings::BITS;
use crate::error::Result;

pub(super) static GPTQ: Format = Format { name: "GPTQ", detect, announced };

/// Indices of the first pieces. `g_idx` and a bias, if there are any, follow.
const CODES_AT: usize = 0;
const ZEROS_AT: usize = 1;
const SCALES_AT: usize = 2;

#[derive(Debug)]
struct Gptq {
    stored: Stored,
    /// Index of a stored bias that the model does not have.
    bias: Option<usize>,
    /// The number that is added to a stored zero.
    offset: u8,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (_, out, input) = look.sizes();
    let [qweight, qzeros, scales, g_idx] = ["qweight", "qzeros", "scales", "g_idx"].map(|name| look.beside(name));
    let Some(codes) = look.header(&qweight) else { return Ok(None) };
    let named = look.header(&g_idx);
    if named.is_none() && !is_packed_along_inputs(look, codes) {
        return Ok(None);
    }
    affine::typed(look, &qweight, codes, WORD)?;
    let bits = bits(look, &qweight, codes)?;
    let found = look.header(&scales).ok_or_else(|| look.missing(&scales, "GPTQ"))?;
    let count = look.of_matrix(found.shape).first().copied().unwrap_or_default();
    let columns = affine::group_size(look, input, count)
        .map_err(|due| look.misshapen(&scales, found.shape, &look.stacked(&[due, out])))?;
    let mut pieces = vec![
        look.piece(&qweight, codes, &[affine::words(input, bits), out], out)?,
        affine::all_rows(look, &qzeros, "GPTQ", WORD, &[count, affine::words(out, bits)])?,
        affine::all_rows(look, &scales, "GPTQ", FLOATS, &[count, out])?,
    ];
    let mut add = |piece: Piece| {
        pieces.push(piece);
        pieces.len() - 1
    };
    let named = named.map(|found| affine::aside(look, &g_idx, found, GROUPS, &[input])).transpose()?.map(&mut add);
    let name = look.beside("bias");
    let bias = look.header(&name).filter(|_| !look.in_model(&name));
    let bias = bias.map(|found| affine::aside(look, &name, found, FLOATS, &[out])).transpose()?.map(&mut add);
    let second = look.settings.checkpoint_format().is_some_and(|format| format.eq_ignore_ascii_case("gptq_v2"));
    let offset = if second { 0 } else { 1 };
    let row_bytes = affine::words(input, bits) * (WORD_BITS / 8);
    let scale = pieces[SCALES_AT].dtype;
    let integers = Integers { sizes: [out, input], bits, row_bytes, groups: count, columns, scale, factor: 1.0 };
    let stored = Stored { pieces, scales_at: SCALES_AT, named_at: named, integers };
    Ok(Some(Arc::new(Gptq { stored, bias, offset })))
}

/// Whether the codes are packed along the inputs. AWQ has other words under the same names.
fn is_packed_along_inputs(look: &Look, codes: Header) -> bool {
    let (_, out, input) = look.sizes();
    let fits = |bits: usize| look.of_matrix(codes.shape) == [affine::words(input, bits), out];
    (2..=8).any(fits)
}

/// The number of bits of a code, from the number of words.
///
/// # Errors
/// An error if this width is not read, or the settings have another.
fn bits(look: &Look, name: &str, codes: Header) -> Result<usize> {
    let (_, out, input) = look.sizes();
    let fits = |bits: &usize| look.of_matrix(codes.shape) == [affine::words(input, *bits), out];
    let said: Vec<usize> =
        look.settings.every("bits").into_iter().filter_map(|bits| usize::try_from(bits).ok()).collect();
    let candidates = if said.is_empty() { &BITS[..] } else { &said };
    if let Some(bits) = candidates.iter().copied().find(fits) {
        return if BITS.contains(&bits) { Ok(bits) } else { Err(look.unread(&format!("is packed in {bits} bits"))) };
    }
    let due = look.stacked(&[affine::words(input, candidates[0]), out]);
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
    /// The zeros of the outputs `own`, [own, groups]. Those of the other outputs are checked.
    fn zeros(&self, bytes: &[u8], own: Range<usize>) -> std::result::Result<Vec<u8>, Wrong> {
        let Integers { sizes: [out, _], bits, groups, .. } = self.stored.integers;
        let last = ((1u16 << bits) - 1) as u8;
        let of_group = bytes.chunks(affine::words(out, bits).max(1) * (WORD_BITS / 8));
        let mut zeros: Vec<u8> = of_group.flat_map(|words| affine::unpack(words, bits, out)).collect();
        if self.offset > 0
            && let Some(index) = zeros.iter().position(|zero| *zero == last)
        {
            return Err(Wrong::new(
                ZEROS_AT,
                format!(
                    "has {last} for output {} in group {}: a zero of 0, which this version of the format cannot store, and which has damaged \
                     its neighbours when it was packed",
                    index % out,
                    index / out
                ),
            ));
        }
        zeros.iter_mut().for_each(|zero| *zero += self.offset);
        Ok(affine::turned(&zeros, [groups, out], 1, own))
    }

    fn check_bias(&self, piece: usize, bytes: &[u8]) -> std::result::Result<(), Wrong> {
        let dtype = self.stored.pieces[piece].dtype;
        match (0..self.stored.integers.sizes[0]).find(|index| float::scale(dtype, bytes, *index) != 0.0) {
            None => Ok(()),
            Some(index) => {
                let what = format!("has a value other than 0 at index {index}, and the model has no such bias");
                Err(Wrong::new(piece, what))
            }
        }
    }
}

impl HoldsIntegers for Gptq {
    fn words(&self) -> String {
        let integers = &self.stored.integers;
        format!("GPTQ INT{}, one scale and zero {}", integers.bits, integers.share())
    }

    fn stored(&self) -> &Stored {
        &self.stored
    }

    fn parts(&self, pieces: Vec<Vec<u8>>, _rows: usize, own: Range<usize>) -> std::result::Result<Parts, Wrong> {
        let Integers { sizes: [out, _], groups, scale, row_bytes, .. } = self.stored.integers;
        self.bias.map_or(Ok(()), |piece| self.check_bias(piece, &pieces[piece]))?;
        // The words of an output, one below the other, are one stream of codes.
        let word = WORD_BITS / 8;
        Ok(Parts {
            codes: affine::turned(&pieces[CODES_AT], [row_bytes / word, out], word, own.clone()),
            scales: affine::turned(&pieces[SCALES_AT], [groups, out], scale.bitsize() / 8, own.clone()),
            zeros: self.zeros(&pieces[ZEROS_AT], own.clone())?,
            rows: own,
        })
    }
}
