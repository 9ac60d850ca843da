//! bitsandbytes in four bits (NF4, FP4): each code is an index into a table of values, and each
//! block of codes has a scale.
//!
//! The codes of a matrix are contiguous, with the high half of a byte first, and blocks of them
//! continue across the ends of rows. `weight.quant_map` is the table. `weight.absmax` has the
//! scales. If these are quantised again, it has codes of eight bits that are indices into
//! `weight.nested_quant_map`, in blocks with a scale each in `weight.nested_absmax`, around a mean.
//! `weight.quant_state.bitsandbytes__nf4` (or `__fp4`) has the sizes as JSON. Sources: bitsandbytes
//! `functional.py`, `backends/default/ops.py`.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;
use serde::Deserialize;

use super::affine;
use super::float;
use super::format::{Coding, Format, Kept, Kernel, Wrong};
use super::look::Look;
use super::piece::{Along, Announced, Piece};
use super::widen::{self, Entries, First};
use crate::error::Result;

pub(super) static FOUR_BITS: Format = Format { name: "bitsandbytes", detect, announced };

/// The names of the two tables, and the name of the tensor with the sizes for each.
const KINDS: [(&str, &str); 2] = [("NF4", ".quant_state.bitsandbytes__nf4"), ("FP4", ".quant_state.bitsandbytes__fp4")];
const TABLE: &str = ".quant_map";
const SCALES: &str = ".absmax";
const NESTED_TABLE: &str = ".nested_quant_map";
const NESTED_SCALES: &str = ".nested_absmax";
/// Number of values of the table, and of the table for scales.
const CODES: usize = 16;
const SCALE_CODES: usize = 256;
/// Sizes of blocks in releases, for plans.
const BLOCK: usize = 64;
const NESTED_BLOCK: usize = 256;
/// Number of bytes of the sizes as JSON, for plans.
pub(super) const STATE_BYTES: usize = 168;
/// Indices of the pieces. The last two exist if the scales are quantised.
const CODES_AT: usize = 0;
const TABLE_AT: usize = 1;
const SCALES_AT: usize = 2;
const STATE_AT: usize = 3;
const NESTED_TABLE_AT: usize = 4;
const NESTED_SCALES_AT: usize = 5;

#[derive(Debug)]
struct FourBits {
    kind: &'static str,
    pieces: Vec<Piece>,
    /// [out, in].
    sizes: [usize; 2],
}

/// The sizes that a file states.
#[derive(Deserialize)]
struct State {
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f32>,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (stack, out, input) = look.sizes();
    let own = |ending: &str| look.with(ending);
    let Some(scales) = look.header(&own(SCALES)) else { return Ok(None) };
    let codes = look.own().ok_or_else(|| look.missing(look.name, "quantised by bitsandbytes"))?;
    if stack.is_some() {
        return Err(look.unread("is a stack quantised by bitsandbytes"));
    }
    let state = KINDS.iter().find_map(|(kind, ending)| Some((*kind, own(ending), look.header(&own(ending))?)));
    let Some((kind, state, header)) = state else {
        return Err(look.missing(&own(KINDS[0].1), "quantised by bitsandbytes in four bits"));
    };
    let bytes = (out * input).div_ceil(2);
    let found = codes.shape.iter().product::<usize>() * codes.dtype.bitsize() / 8;
    if found != bytes {
        return Err(look.misshapen(look.name, codes.shape, &[bytes, 1]));
    }
    let nested = look.header(&own(NESTED_SCALES));
    let floats = &[Dtype::F32][..];
    let all = |name: String, types: &[Dtype], shape: &[usize]| affine::all_rows(look, &name, kind, types, shape);
    let scale_types = if nested.is_some() { &[Dtype::U8][..] } else { floats };
    let uncut = |name: &str, header| -> Result<Piece> {
        let piece = look.whole(name, header);
        Ok(Piece { along: Along::rows(false, out), ..piece })
    };
    let mut pieces = vec![
        uncut(look.name, codes)?,
        all(own(TABLE), floats, &[CODES])?,
        all(own(SCALES), scale_types, scales.shape)?,
        affine::aside(look, &state, header, &[Dtype::U8], header.shape)?,
    ];
    if let Some(nested) = nested {
        pieces.push(all(own(NESTED_TABLE), floats, &[SCALE_CODES])?);
        pieces.push(all(own(NESTED_SCALES), floats, nested.shape)?);
    }
    Ok(Some(Arc::new(FourBits { kind, pieces, sizes: [out, input] })))
}

fn announced(look: &Look) -> Option<Vec<Announced>> {
    let (stack, out, input) = look.sizes();
    let settings = look.settings;
    if stack.is_some() || !settings.is("bitsandbytes") || settings.flag("load_in_4bit") != Some(true) {
        return None;
    }
    let kind = usize::from(settings.text("bnb_4bit_quant_type") != Some("nf4"));
    let blocks = (out * input).div_ceil(BLOCK);
    let nested = settings.flag("bnb_4bit_use_double_quant") == Some(true);
    let scales = if nested { Dtype::U8 } else { Dtype::F32 };
    let mut pieces = vec![
        (look.name.to_string(), Dtype::U8, vec![(out * input).div_ceil(2), 1]),
        (look.with(TABLE), Dtype::F32, vec![CODES]),
        (look.with(SCALES), scales, vec![blocks]),
        (look.with(KINDS[kind].1), Dtype::U8, vec![STATE_BYTES]),
    ];
    if nested {
        pieces.push((look.with(NESTED_TABLE), Dtype::F32, vec![SCALE_CODES]));
        pieces.push((look.with(NESTED_SCALES), Dtype::F32, vec![blocks.div_ceil(NESTED_BLOCK)]));
    }
    Some(pieces)
}

impl FourBits {
    /// Reads the sizes and checks them against the weight and its pieces.
    fn state(&self, pieces: &[Vec<u8>]) -> std::result::Result<State, Wrong> {
        let wrong = |what: String| Wrong::new(STATE_AT, what);
        let state: State = serde_json::from_slice(&pieces[STATE_AT])
            .map_err(|_| wrong("does not hold the sizes of blocks as JSON".to_string()))?;
        if state.shape != self.sizes {
            return Err(wrong(format!("has `shape` {:?}, and the weight has {:?}", state.shape, self.sizes)));
        }
        let blocks = |values: usize, size: usize| (size > 0).then(|| values.div_ceil(size));
        let scales = self.pieces[SCALES_AT].shape.iter().product::<usize>();
        if blocks(self.sizes.iter().product(), state.blocksize) != Some(scales) {
            return Err(Wrong::new(
                SCALES_AT,
                format!("has {scales} scales, not one for each {} weights", state.blocksize),
            ));
        }
        if let Some(nested) = self.pieces.get(NESTED_SCALES_AT) {
            let size = state.nested_blocksize.unwrap_or_default();
            let count = nested.shape.iter().product::<usize>();
            if blocks(scales, size) != Some(count) {
                return Err(Wrong::new(
                    NESTED_SCALES_AT,
                    format!("has {count} scales, not one for each {size} of {scales}"),
                ));
            }
        }
        Ok(state)
    }

    /// The scale of block `block`.
    fn scale(&self, kept: &[Vec<u8>], sizes: &Sizes, block: usize) -> f32 {
        let f32_at = |piece: usize, index: usize| float::scale(Dtype::F32, &kept[piece], index);
        if self.pieces.len() <= NESTED_SCALES_AT {
            return f32_at(SCALES_AT, block);
        }
        let code = usize::from(kept[SCALES_AT][block]);
        f32_at(NESTED_TABLE_AT, code) * f32_at(NESTED_SCALES_AT, block / sizes.nested) + sizes.mean
    }
}

/// The numbers of a `State` that are kept in memory.
struct Sizes {
    block: usize,
    nested: usize,
    mean: f32,
}

impl Sizes {
    fn kept(&self) -> Vec<u8> {
        let sizes = [self.block, self.nested].map(|size| (size as u64).to_le_bytes());
        [&sizes[0][..], &sizes[1], &self.mean.to_le_bytes()].concat()
    }

    fn of(kept: &[u8]) -> Self {
        let (sizes, mean) = kept.as_chunks::<8>();
        let size = |at: usize| u64::from_le_bytes(sizes[at]) as usize;
        Self { block: size(0), nested: size(1), mean: float::scale(Dtype::F32, mean, 0) }
    }
}

impl Coding for FourBits {
    fn words(&self) -> String {
        format!("{} (bitsandbytes), one scale for each block of weights", self.kind)
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn columns(&self) -> usize {
        self.sizes[1]
    }

    fn keep(&self, mut pieces: Vec<Vec<u8>>, _rows: usize, own: Range<usize>) -> std::result::Result<Kept, Wrong> {
        let state = self.state(&pieces)?;
        let mut numbers = vec![TABLE_AT];
        match self.pieces.len() <= NESTED_SCALES_AT {
            true => numbers.push(SCALES_AT),
            false if state.nested_offset.is_none() => return Err(Wrong::new(STATE_AT, "has no `nested_offset`")),
            false => numbers.extend([NESTED_TABLE_AT, NESTED_SCALES_AT]),
        }
        numbers.iter().try_for_each(|piece| affine::check_scales(*piece, Dtype::F32, &pieces[*piece]))?;
        let (nested, mean) = (state.nested_blocksize.unwrap_or(1), state.nested_offset.unwrap_or_default());
        pieces[STATE_AT] = Sizes { block: state.blocksize, nested, mean }.kept();
        Ok(Kept { parts: pieces, above: own.start })
    }

    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        let sizes = Sizes::of(&kept[STATE_AT]);
        let table: [f32; CODES] = std::array::from_fn(|code| float::scale(Dtype::F32, &kept[TABLE_AT], code));
        let values = |block: usize| Entries(&table, self.scale(kept, &sizes, block));
        widen::nibbles(&kept[CODES_AT], First::High, sizes.block, values, row * self.sizes[1] + from, to);
    }

    fn for_gpu(&self, mut kept: Vec<Vec<u8>>) -> Option<(Kernel, Vec<Vec<u8>>)> {
        let sizes = Sizes::of(&kept[STATE_AT]);
        let blocks = (self.sizes[0] * self.sizes[1]).div_ceil(sizes.block);
        // Scales that are quantised themselves are small beside the codes.
        let scales = (0..blocks).flat_map(|block| self.scale(&kept, &sizes, block).to_le_bytes()).collect();
        let mut piece = |at: usize| std::mem::take(&mut kept[at]);
        Some((Kernel::FourBits { block: sizes.block }, vec![piece(CODES_AT), scales, piece(TABLE_AT)]))
    }
}
