//! Integers of eight bits, one byte each: `int-quantized` and `naive-quantized` of
//! compressed-tensors, and bitsandbytes.
//!
//! compressed-tensors: `weight` [out, in] holds the integers, `weight_scale` has one scale for each
//! row, group or tensor, and `weight_zero_point` of the same shape exists if weights are not
//! symmetric. bitsandbytes: `SCB` [out] holds the largest magnitude of each row, which the code 127
//! stands for; a value is code · SCB · (1 / 127) in f32, multiplied in this order. Sources:
//! compressed-tensors `compressors/`, bitsandbytes `_ops.py`.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use super::affine::{self, FLOATS, HoldsIntegers, Integers, Parts, Stored, WORD};
use super::format::{Coding, Format, Wrong};
use super::look::Look;
use super::packed_int;
use super::piece::{Along, Announced, Piece};
use crate::error::Result;
use crate::vector::vectorised;

pub(super) static INT8: Format = Format { name: "INT8", detect, announced };

const SCALE: &str = "_scale";
const ZERO_POINT: &str = "_zero_point";
const G_IDX: &str = "_g_idx";
/// The name of the magnitudes of bitsandbytes, and the name of the layout of the integers.
const SCB: &str = "SCB";
const LAYOUT: &str = "_format";
/// Indices of the first pieces, and of the layout.
const CODES_AT: usize = 0;
const SCALES_AT: usize = 1;
const LAYOUT_AT: usize = 2;
/// The factor 1 / 127 as the library has it.
const SCALE_OF_SCB: f32 = 7.874_016e-3;

#[derive(Debug)]
struct Int8 {
    stored: Stored,
    /// Index of an optional piece.
    zero_points: Option<usize>,
}

#[derive(Debug)]
struct Int8OfRows {
    /// The integers, the magnitudes, and the layout, if it is named.
    stored: Stored,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (_, out, input) = look.sizes();
    let Some(codes) = look.own().filter(|own| own.dtype == Dtype::I8) else { return Ok(None) };
    let scb = look.first(&[look.beside(SCB), look.with(&format!(".{SCB}"))]);
    let scale = look.with(SCALE);
    let found = look.header(&scale).filter(|header| affine::is_float(header.dtype));
    if scb.is_none() && found.is_none() {
        return Ok(None);
    }
    let codes = look.piece(look.name, codes, &[out, input], 1)?;
    if let Some((name, scb)) = scb {
        affine::typed(look, &name, scb, FLOATS)?;
        let mut pieces = vec![codes, look.piece(&name, scb, &[out], 1)?];
        let layout = look.with(LAYOUT);
        if let Some(found) = look.header(&layout) {
            pieces.push(affine::aside(look, &layout, found, &[Dtype::U8], found.shape)?);
        }
        let integers = Integers { factor: SCALE_OF_SCB, ..integers(look, 1, scb.dtype) };
        let stored = Stored { pieces, scales_at: SCALES_AT, named_at: None, integers };
        return Ok(Some(Arc::new(Int8OfRows { stored })));
    }
    let Some(found) = found else { return Ok(None) };
    let (scales, groups) = packed_int::scales(look, &scale, found.shape)?;
    let along = scales.along;
    let mut stored = Stored {
        pieces: vec![codes, Piece { dtype: found.dtype, ..scales }],
        scales_at: SCALES_AT,
        named_at: None,
        integers: integers(look, groups, found.dtype),
    };
    let mut zero_points = None;
    let name = look.with(ZERO_POINT);
    if let Some(zeros) = look.header(&name) {
        affine::typed(look, &name, zeros, &[Dtype::I8])?;
        if zeros.shape != found.shape {
            return Err(look.misshapen(&name, zeros.shape, found.shape));
        }
        zero_points = Some(stored.add(Piece { along, ..look.whole(&name, zeros) }));
    } else if look.settings.group(look.module()).and_then(|group| group.flag("symmetric")) == Some(false) {
        return Err(look.missing(&name, "integers that are not symmetric"));
    }
    let name = look.with(G_IDX);
    if let Some(named) = look.header(&name) {
        stored.named_at = Some(stored.add(affine::aside(look, &name, named, WORD, &[input])?));
    }
    match affine::group_size(look, input, groups) {
        Ok(columns) => stored.integers.columns = columns,
        Err(_) if stored.named_at.is_some() => (),
        Err(due) => return Err(look.misshapen(&scale, found.shape, &look.stacked(&[out, due]))),
    }
    Ok(Some(Arc::new(Int8 { stored, zero_points })))
}

/// A matrix with one byte per code and contiguous rows.
fn integers(look: &Look, groups: usize, scale: Dtype) -> Integers {
    let (_, out, input) = look.sizes();
    Integers { sizes: [out, input], bits: 8, row_bytes: input, groups, columns: input.max(1), scale, factor: 1.0 }
}

fn announced(look: &Look) -> Option<Vec<Announced>> {
    let (stack, out, _) = look.sizes();
    if stack.is_some() {
        return None;
    }
    let codes = (look.name.to_string(), Dtype::I8, look.shape.to_vec());
    if look.settings.is("bitsandbytes") {
        let eight = look.settings.flag("load_in_8bit") == Some(true);
        return eight
            .then(|| vec![codes, (look.beside(SCB), Dtype::F32, vec![out]), (look.with(LAYOUT), Dtype::U8, vec![])]);
    }
    let group = look.settings.group(look.module())?;
    let integers = group.text("type") == Some("int") && group.number("num_bits") == Some(8);
    if !integers || look.settings.format(look.module()) == Some("pack-quantized") {
        return None;
    }
    let scales = |ending: &str, dtype| (look.with(ending), dtype, vec![out, 1]);
    let asymmetric = group.flag("symmetric") == Some(false);
    let zeros = asymmetric.then(|| scales(ZERO_POINT, Dtype::I8));
    Some([codes, scales(SCALE, Dtype::BF16)].into_iter().chain(zeros).collect())
}

impl HoldsIntegers for Int8 {
    fn words(&self) -> String {
        let zeros = if self.zero_points.is_some() { " and zero point" } else { "" };
        let share = match self.stored.pieces[SCALES_AT].along.rows == Some(Along::EVERY) {
            true => "for each tensor".to_string(),
            false => self.stored.integers.share(),
        };
        format!("INT8, one scale{zeros} {share}")
    }

    fn stored(&self) -> &Stored {
        &self.stored
    }

    fn parts(&self, mut pieces: Vec<Vec<u8>>, rows: usize, _own: Range<usize>) -> std::result::Result<Parts, Wrong> {
        let mut piece = |at: Option<usize>| at.map(|at| std::mem::take(&mut pieces[at])).unwrap_or_default();
        let (codes, mut scales) = (from_the_lowest(piece(Some(CODES_AT))), piece(Some(SCALES_AT)));
        let mut zeros = from_the_lowest(piece(self.zero_points));
        if self.stored.pieces[SCALES_AT].along.rows == Some(Along::EVERY) {
            (scales, zeros) = (scales.repeat(rows), zeros.repeat(rows));
        }
        Ok(Parts { codes, scales, zeros, rows: 0..rows })
    }
}

impl HoldsIntegers for Int8OfRows {
    fn words(&self) -> String {
        "INT8 (bitsandbytes), one scale for each row".to_string()
    }

    fn stored(&self) -> &Stored {
        &self.stored
    }

    fn parts(&self, mut pieces: Vec<Vec<u8>>, rows: usize, _own: Range<usize>) -> std::result::Result<Parts, Wrong> {
        if let Some(layout) = pieces.get(LAYOUT_AT).filter(|layout| layout.iter().any(|byte| *byte != 0)) {
            return Err(Wrong::new(
                LAYOUT_AT,
                format!("is {layout:?}: integers that do not lie row by row are not read"),
            ));
        }
        let [codes, scales] = [CODES_AT, SCALES_AT].map(|piece| std::mem::take(&mut pieces[piece]));
        Ok(Parts { codes: from_the_lowest(codes), scales, zeros: Vec::new(), rows: 0..rows })
    }
}

/// Shifts integers of eight bits to codes, so that the lowest integer becomes 0.
fn from_the_lowest(mut integers: Vec<u8>) -> Vec<u8> {
    vectorised!(|| integers.iter_mut().for_each(|integer| *integer ^= 0x80));
    integers
}
