//! `pack-quantized` of compressed-tensors: integers of 2, 4 or 8 bits, packed along the rows of the
//! matrix.
//!
//! A row of `weight_packed` [out, ⌈in · bits / 32⌉] is one stream of codes. Each code is its
//! integer plus 2^(bits − 1). `weight_scale` is [out, groups]. `weight_zero_point` [⌈out · bits /
//! 32⌉, groups], if it exists, is packed along the outputs with the same offset; in early files it
//! is not packed. `weight_g_idx` [in], if it exists, is the group of each column. `weight_shape`
//! repeats [out, in]. Source: compressed-tensors `compressors/pack_quantized/`.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use super::affine::{self, FLOATS, GROUPS, HoldsIntegers, Integers, Parts, Stored, WORD, WORD_BITS};
use super::format::{Coding, Format, Wrong};
use super::look::Look;
use super::piece::{Along, Announced, Piece};
use super::settings::BITS;
use crate::error::Result;

pub(super) static PACKED_INT: Format = Format { name: "pack-quantized", detect, announced };

const PACKED: &str = "_packed";
const SCALE: &str = "_scale";
const ZERO_POINT: &str = "_zero_point";
const G_IDX: &str = "_g_idx";
const SHAPE: &str = "_shape";
/// Indices of the first pieces.
const CODES_AT: usize = 0;
const SCALES_AT: usize = 1;

#[derive(Debug)]
struct PackedInt {
    stored: Stored,
    /// Indices of optional pieces.
    shape: Option<usize>,
    zero_points: Option<usize>,
    /// Of the weight.
    sizes: Vec<usize>,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (_, out, input) = look.sizes();
    let (packed, scale) = (look.with(PACKED), look.with(SCALE));
    let Some(codes) = look.header(&packed).filter(|header| WORD.contains(&header.dtype)) else { return Ok(None) };
    let bits = bits(look, codes.shape, input)?;
    let codes = look.piece(&packed, codes, &[out, affine::words(input, bits)], 1)?;
    let found = look.header(&scale).ok_or_else(|| look.missing(&scale, "packed integers"))?;
    affine::typed(look, &scale, found, FLOATS)?;
    let (scales, groups) = scales(look, &scale, found.shape)?;
    let mut stored = Stored {
        pieces: vec![codes, Piece { dtype: found.dtype, ..scales }],
        scales_at: SCALES_AT,
        named_at: None,
        integers: Integers {
            sizes: [out, input],
            bits,
            row_bytes: affine::words(input, bits) * (WORD_BITS / 8),
            groups,
            columns: input.max(1),
            scale: found.dtype,
            factor: 1.0,
        },
    };
    let mut shape = None;
    let name = look.with(SHAPE);
    if let Some(found) = look.header(&name) {
        let sizes = if found.shape == [look.shape.len()] { found.shape } else { &[2] };
        shape = Some(stored.add(affine::aside(look, &name, found, &[Dtype::I64, Dtype::I32], sizes)?));
    }
    let name = look.with(G_IDX);
    if let Some(found) = look.header(&name) {
        stored.named_at = Some(stored.add(affine::aside(look, &name, found, GROUPS, &[input])?));
    }
    match affine::group_size(look, input, groups) {
        Ok(columns) => stored.integers.columns = columns,
        Err(_) if stored.named_at.is_some() => (),
        Err(due) => return Err(look.misshapen(&scale, found.shape, &look.stacked(&[out, due]))),
    }
    let mut zero_points = None;
    let name = look.with(ZERO_POINT);
    if let Some(found) = look.header(&name) {
        affine::typed(look, &name, found, &[Dtype::I32, Dtype::U32, Dtype::I8])?;
        let (rows, step) =
            if found.dtype == Dtype::I8 { (out, 1) } else { (affine::words(out, bits), WORD_BITS / bits) };
        zero_points = Some(stored.add(look.piece(&name, found, &[rows, groups], step)?));
    } else if look.settings.group(look.module()).and_then(|group| group.flag("symmetric")) == Some(false) {
        return Err(look.missing(&name, "packed integers that are not symmetric"));
    }
    Ok(Some(Arc::new(PackedInt { stored, shape, zero_points, sizes: look.shape.to_vec() })))
}

/// The number of bits of a code: the one in the settings that fits the number of words, or any that
/// fits if the settings have none.
fn bits(look: &Look, packed: &[usize], input: usize) -> Result<usize> {
    let own = look.settings.group(look.module()).and_then(|group| group.number("num_bits"));
    let every = look.settings.every("num_bits").into_iter().filter_map(|bits| usize::try_from(bits).ok());
    let said: Vec<usize> = own.into_iter().chain(every).filter(|bits| BITS.contains(bits)).collect();
    let candidates = if said.is_empty() { &BITS[..] } else { &said };
    let fits = |bits: &&usize| packed.last() == Some(&affine::words(input, **bits));
    match candidates.iter().find(fits) {
        Some(bits) => Ok(*bits),
        None => {
            let due = look.stacked(&[look.sizes().1, affine::words(input, candidates[0])]);
            Err(look.misshapen(&look.with(PACKED), packed, &due).context(format!("{} bits a weight", candidates[0])))
        }
    }
}

/// The scales for each row and group, for each row, or one for all, and the number of groups of a
/// row.
pub(super) fn scales(look: &Look, name: &str, found: &[usize]) -> Result<(Piece, usize)> {
    let (stack, out, input) = look.sizes();
    let of_each = stack.is_some() && found.len() > 1 && found.first() == stack.as_ref();
    let (along, groups) = match if of_each { &found[1..] } else { found } {
        [] => (affine::EVERY_ROW, 1),
        [1] | [1, 1] if out != 1 => (Along::rows(of_each, Along::EVERY), 1),
        [rows] if *rows == out && of_each == stack.is_some() => (Along::rows(of_each, 1), 1),
        [rows, groups] if *rows == out && *groups > 0 && of_each == stack.is_some() => {
            (Along::rows(of_each, 1), *groups)
        }
        _ => {
            let due = affine::group_size(look, input, 0).unwrap_or_else(|groups| groups);
            return Err(look.misshapen(name, found, &look.stacked(&[out, due])));
        }
    };
    Ok((Piece { name: name.to_string(), dtype: Dtype::F32, shape: found.to_vec(), along }, groups))
}

fn announced(look: &Look) -> Option<Vec<Announced>> {
    let (stack, out, input) = look.sizes();
    let group = look.settings.group(look.module()).filter(|group| group.text("type") == Some("int"))?;
    if stack.is_some() || look.settings.format(look.module()) != Some("pack-quantized") {
        return None;
    }
    let bits = group.number("num_bits").filter(|bits| BITS.contains(bits))?;
    let groups = group.number("group_size").filter(|size| *size > 0).map_or(1, |size| input.div_ceil(size));
    let mut pieces = vec![
        (look.with(PACKED), Dtype::I32, vec![out, affine::words(input, bits)]),
        (look.with(SCALE), Dtype::BF16, vec![out, groups]),
        (look.with(SHAPE), Dtype::I64, vec![2]),
    ];
    if group.flag("symmetric") == Some(false) {
        pieces.push((look.with(ZERO_POINT), Dtype::I32, vec![affine::words(out, bits), groups]));
    }
    Some(pieces)
}

impl PackedInt {
    /// Checks that the file states the shape of this matrix.
    fn check_shape(&self, piece: usize, bytes: &[u8]) -> std::result::Result<(), Wrong> {
        let said: Vec<i64> = match self.stored.pieces[piece].dtype {
            Dtype::I64 => bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            _ => bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect(),
        };
        let sizes = &self.sizes[self.sizes.len() - said.len().min(self.sizes.len())..];
        match said.iter().map(|size| usize::try_from(*size).ok()).eq(sizes.iter().map(|size| Some(*size))) {
            true => Ok(()),
            false => Err(Wrong::new(piece, format!("says {said:?}, and the weight has {sizes:?}"))),
        }
    }

    /// The number that is subtracted from the codes of each row and group. It is empty if that is
    /// half of the codes.
    fn zeros(&self, pieces: &[Vec<u8>], rows: usize) -> Vec<u8> {
        let Integers { bits, groups, .. } = self.stored.integers;
        let Some(piece) = self.zero_points else { return Vec::new() };
        if self.stored.pieces[piece].dtype == Dtype::I8 {
            return pieces[piece].iter().map(|zero| zero.wrapping_add(1 << (bits - 1))).collect();
        }
        // Words of neighbouring rows are one below the other.
        let words = affine::words(rows, bits);
        let by_group = affine::transposed(&pieces[piece], [words, groups], WORD_BITS / 8);
        let of_group = by_group.chunks(words * WORD_BITS / 8).flat_map(|bytes| affine::unpack(bytes, bits, rows));
        affine::transposed(&of_group.collect::<Vec<_>>(), [groups, rows], 1)
    }
}

impl HoldsIntegers for PackedInt {
    fn words(&self) -> String {
        let zeros = if self.zero_points.is_some() { " and zero point" } else { "" };
        let Stored { integers, named_at, .. } = &self.stored;
        let share = if named_at.is_some() { "for each group of columns" } else { &integers.share() };
        format!("INT{}, one scale{zeros} {share}", integers.bits)
    }

    fn stored(&self) -> &Stored {
        &self.stored
    }

    fn parts(&self, mut pieces: Vec<Vec<u8>>, rows: usize, _own: Range<usize>) -> std::result::Result<Parts, Wrong> {
        self.shape.map_or(Ok(()), |piece| self.check_shape(piece, &pieces[piece]))?;
        let zeros = self.zeros(&pieces, rows);
        let [codes, mut scales] = [CODES_AT, SCALES_AT].map(|piece| std::mem::take(&mut pieces[piece]));
        if self.stored.pieces[SCALES_AT].along.rows == Some(Along::EVERY) {
            scales = scales.repeat(rows);
        }
        Ok(Parts { codes, scales, zeros, rows: 0..rows })
    }
}
