//! Integers of eight bits, one byte each: `int-quantized` and `naive-quantized` of compressed-tensors, and bitsandbytes.
//!
//! compressed-tensors: `weight` [out, in] holds the integers, `weight_scale` has one scale for each row, group or tensor, and
//! `weight_zero_point` of the same shape is there where weights are not symmetric. bitsandbytes: `SCB` [out] holds the largest magnitude
//! of each row, which 127 stands for; its values are the products with SCB and with 1 / 127 in f32, in this order. Facts:
//! compressed-tensors `compressors/`, bitsandbytes `_ops.py`.

use std::sync::Arc;

use safetensors::Dtype;

use super::affine::{self, Groups, SCALES, WORDS};
use super::format::{Along, Announced, Coding, Decoded, Format, Piece, Wrong};
use super::look::Look;
use super::packed_int;
use crate::error::Result;
use crate::vector::vectorised;

pub static INT8: Format = Format { name: "INT8", detect, announced };

const SCALE: &str = "_scale";
const ZERO_POINT: &str = "_zero_point";
const G_IDX: &str = "_g_idx";
/// Names of the magnitudes of bitsandbytes, and of the way in which integers lie.
const SCB: &str = "SCB";
const LAYOUT: &str = "_format";
/// 1 / 127, by which the library multiplies.
const SCALE_OF_SCB: f32 = 7.874_015_718_698_502e-3;

#[derive(Debug)]
struct Int8 {
    /// Integers and scales, and then those that follow.
    pieces: Vec<Piece>,
    zero_points: Option<usize>,
    groups: Option<usize>,
    input: usize,
    /// Columns that share a scale, where there are no groups by name.
    columns: usize,
}

#[derive(Debug)]
struct Int8OfRows {
    /// Integers, magnitudes, and the layout, if it is named.
    pieces: Vec<Piece>,
    input: usize,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (stack, out, input) = look.sizes();
    let Some(codes) = look.own().filter(|own| own.dtype == Dtype::I8) else { return Ok(None) };
    let scb = look.first(&[look.beside(SCB), look.with(&format!(".{SCB}"))]);
    let scale = look.with(SCALE);
    let found = look.header(&scale).filter(|header| affine::is_float(header.dtype));
    if scb.is_none() && found.is_none() {
        return Ok(None);
    }
    if stack.is_some() {
        return Err(look.unread("is a stack of integers"));
    }
    let codes = look.piece(look.name, codes, &[out, input], 1)?;
    if let Some((name, scb)) = scb {
        affine::typed(look, &name, scb, SCALES)?;
        let mut pieces = vec![codes, look.piece(&name, scb, &[out], 1)?];
        let layout = look.with(LAYOUT);
        if let Some(found) = look.header(&layout) {
            pieces.push(affine::aside(look, &layout, found, &[Dtype::U8], found.shape)?);
        }
        return Ok(Some(Arc::new(Int8OfRows { pieces, input })));
    }
    let Some(found) = found else { return Ok(None) };
    let (scales, groups) = packed_int::scales(look, &scale, found.shape)?;
    let along = scales.along;
    let mut this = Int8 {
        pieces: vec![codes, Piece { dtype: found.dtype, ..scales }],
        zero_points: None,
        groups: None,
        input,
        columns: input.max(1),
    };
    let name = look.with(ZERO_POINT);
    if let Some(zeros) = look.header(&name) {
        affine::typed(look, &name, zeros, &[Dtype::I8])?;
        let piece = look.piece(&name, zeros, found.shape, 1)?;
        this.zero_points = Some(this.pieces.len());
        this.pieces.push(Piece { along, ..piece });
    } else if look.settings.group(look.module()).and_then(|group| group.flag("symmetric")) == Some(false) {
        return Err(look.missing(&name, "integers that are not symmetric"));
    }
    let name = look.with(G_IDX);
    if let Some(named) = look.header(&name) {
        this.groups = Some(this.pieces.len());
        this.pieces.push(affine::aside(look, &name, named, WORDS, &[input])?);
    } else {
        this.columns =
            affine::group_size(look, input, groups).map_err(|due| look.misshapen(&scale, found.shape, &[out, due]))?;
    }
    Ok(Some(Arc::new(this)))
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

impl Coding for Int8 {
    fn words(&self) -> String {
        let zeros = if self.zero_points.is_some() { " and zero point" } else { "" };
        let share = match self.pieces[1].along == Along::WHOLE {
            true => "for each tensor".to_string(),
            false => affine::share(self.columns, self.input),
        };
        format!("INT8, one scale{zeros} {share}")
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn decode(&self, pieces: &[Vec<u8>], rows: usize) -> std::result::Result<Decoded, Wrong> {
        let mut scales = affine::scales(1, self.pieces[1].dtype, &pieces[1])?;
        let mut zeros = match self.zero_points {
            Some(piece) => pieces[piece].iter().map(|zero| f32::from(*zero as i8)).collect(),
            None => vec![0.0; scales.len()],
        };
        if self.pieces[1].along == Along::WHOLE {
            (scales, zeros) = (vec![scales[0]; rows], vec![zeros[0]; rows]);
        }
        let groups = scales.len() / rows.max(1);
        let named = self.groups.map(|piece| affine::named(piece, &pieces[piece], groups)).transpose()?;
        let of_column = named.as_deref().map_or(Groups::Even(self.columns), Groups::Of);
        let mut values = integers(&pieces[0]);
        vectorised(|| {
            for (row, values) in values.chunks_mut(self.input.max(1)).enumerate() {
                let own = row * groups..(row + 1) * groups;
                affine::row(values, of_column, &scales[own.clone()], &zeros[own]);
            }
        });
        Ok(Decoded::F32(values))
    }
}

impl Coding for Int8OfRows {
    fn words(&self) -> String {
        "INT8 (bitsandbytes), one scale for each row".to_string()
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn decode(&self, pieces: &[Vec<u8>], _rows: usize) -> std::result::Result<Decoded, Wrong> {
        if let Some(layout) = pieces.get(2).filter(|layout| layout.iter().any(|byte| *byte != 0)) {
            return Err(Wrong::new(2, format!("is {layout:?}: integers that do not lie row by row are not read")));
        }
        let magnitudes = affine::scales(1, self.pieces[1].dtype, &pieces[1])?;
        let mut values = integers(&pieces[0]);
        vectorised(|| {
            for (values, magnitude) in values.chunks_mut(self.input.max(1)).zip(&magnitudes) {
                values.iter_mut().for_each(|value| *value = *value * magnitude * SCALE_OF_SCB);
            }
        });
        Ok(Decoded::F32(values))
    }
}

/// Integers of eight bits, widened.
fn integers(bytes: &[u8]) -> Vec<f32> {
    vectorised(|| bytes.iter().map(|byte| f32::from(*byte as i8)).collect())
}
