//! FP8: E4M3 codes with a scale for each block, row or tensor. A value is code times scale, also
//! where the scale's name says that it is an inverse.
//!
//! Names of the scales: DeepSeek-V3 and many later models have `weight_scale_inv` for blocks of 128
//! × 128, the last of which are smaller; compressed-tensors, fbgemm, AutoFP8 and ModelOpt have
//! `weight_scale`; Mistral has `weight_scale_inv` or `qscale_weight` for a tensor and for stacks of
//! experts; DeepSeek-V4 has `scale`. MXFP8 has a power of two for each 32 columns. The block size
//! comes from the settings, because the ratio of the shapes is wrong if blocks do not divide the
//! weight.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use super::float::{self, SCALES, is_exponent, is_of_eight_bits, is_scale};
use super::format::{Coding, Format, Kept, Kernel, Wrong};
use super::look::{Header, Headers, Look};
use super::piece::{Along, Announced, Piece};
use super::widen;
use crate::error::{Error, Result};
use crate::vector::vectorised;

pub(super) static FP8: Format = Format { name: "FP8", detect, announced };

/// Rows and columns of a block if the settings have none.
const USUAL: [usize; 2] = [128, 128];
/// Number of codes that are checked at once.
const CHECKED: usize = 1 << 12;
/// Rows and columns of a block of MXFP8.
const MX: [usize; 2] = [1, 32];

/// Codes [out, in] and scales, one for each block of rows and columns.
#[derive(Debug)]
struct Fp8 {
    pieces: Vec<Piece>,
    input: usize,
    /// Rows and columns that share a scale.
    block: [usize; 2],
    words: String,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let Some(codes) = look.own() else { return Ok(None) };
    match codes.dtype {
        Dtype::F8_E4M3 => (),
        Dtype::F8_E5M2 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ => {
            return Err(look.mistyped(
                look.name,
                codes.dtype,
                "F8_E4M3, the only FP8 type that weights are released in",
            ));
        }
        _ => return Ok(None),
    }
    let names = names_of_scales(look.name);
    let Some((name, scale)) = look.first(&names) else {
        return Err(look.missing(&names[0], "FP8 (F8_E4M3)"));
    };
    if !is_scale(scale.dtype) {
        return Err(look.mistyped(&name, scale.dtype, SCALES));
    }
    let (_, out, input) = look.sizes();
    let codes = look.piece(look.name, codes, &[out, input], 1)?;
    let (block, along) = block(look, &name, scale)?;
    let scales = Piece { name, dtype: scale.dtype, shape: scale.shape.to_vec(), along };
    let words = match block {
        [rows, columns] if rows >= out && columns >= input => "FP8 E4M3, one scale for each tensor".to_string(),
        [1, columns] if columns >= input => "FP8 E4M3, one scale for each row".to_string(),
        [rows, columns] => format!("FP8 E4M3, one scale for each {rows} × {columns}"),
    };
    Ok(Some(Arc::new(Fp8 { pieces: vec![codes, scales], input, block, words })))
}

/// The names that the scales of a weight may have.
fn names_of_scales(weight: &str) -> [String; 4] {
    let module = weight.strip_suffix(".weight").unwrap_or(weight);
    let with = |ending: &str| format!("{weight}{ending}");
    let beside = |name: &str| format!("{module}.{name}");
    [with("_scale_inv"), with("_scale"), beside("scale"), beside("qscale_weight")]
}

/// Whether one of these weights, floats of eight bits, has scales.
pub fn has_scales<'w>(headers: &dyn Headers, mut weights: impl Iterator<Item = &'w String>) -> bool {
    weights.any(|weight| {
        headers.header(weight).is_some_and(|header| is_of_eight_bits(header.dtype))
            && names_of_scales(weight).iter().any(|name| headers.header(name).is_some())
    })
}

/// The numbers of rows and columns that share a scale, and how the scales are divided along the
/// weight.
///
/// # Errors
/// An error if the number of scales does not fit the weight.
fn block(look: &Look, name: &str, scale: Header) -> Result<([usize; 2], Along)> {
    let (experts, out, input) = look.sizes();
    let said = setting(look)?;
    let grid = |[rows, columns]: [usize; 2]| [out.div_ceil(rows), input.div_ceil(columns)];
    let stacked = experts.is_some();
    // One value for all, or one for each matrix of a stack, in any number of dimensions.
    let own = match (experts, scale.shape) {
        (Some(experts), [first, rest @ ..]) if *first == experts => Some(rest),
        (Some(_), _) => None,
        (None, shape) => Some(shape),
    };
    let one = |shape: &[usize]| shape.iter().product::<usize>() == 1;
    let whole = [out.max(1), input.max(1)];
    if one(scale.shape) && !stacked && said.is_none_or(|said| grid(said) == [1, 1]) {
        return Ok((whole, Along::rows(false, Along::EVERY)));
    }
    let due = said.unwrap_or(USUAL);
    let Some(own) = own else {
        if one(scale.shape) && said.is_none() {
            return Ok((whole, Along::rows(false, Along::EVERY)));
        }
        return Err(look.misshapen(name, scale.shape, &look.stacked(&grid(due))));
    };
    // Blocks as high as the matrix have one row of scales for all of its rows.
    let step = |high: usize| if high >= out { Along::EVERY } else { high };
    let rows = |block: [usize; 2]| (block, Along::rows(stacked, step(block[0])));
    if own == grid(due) && !(said.is_none() && grid(MX) == own && is_exponent(scale.dtype)) {
        return Ok(rows(due));
    }
    // DeepSeek-V4 and others mix kinds of scales. For powers of two the shape tells the kind.
    if is_exponent(scale.dtype) && own == grid(MX) {
        return Ok(rows(MX));
    }
    if said.is_none() {
        match own {
            own if one(own) => return Ok((whole, Along::rows(stacked, Along::EVERY))),
            [channels] | [channels, 1] if *channels == out => return Ok(rows([1, input.max(1)])),
            // The scales belong to gate and up, which are stored one below the other.
            [2, 1] if stacked && out.is_multiple_of(2) => return Ok(rows([out / 2, input.max(1)])),
            _ => (),
        }
    }
    let error = look.misshapen(name, scale.shape, &look.stacked(&grid(due)));
    Err(error.context(format!("scales for blocks of {} × {}", due[0], due[1])))
}

/// The block size in the settings of a weight, or None if they have none.
fn setting(look: &Look) -> Result<Option<[usize; 2]>> {
    let settings = look.settings;
    let two = |key: &str, numbers: Option<Vec<usize>>| match numbers.as_deref() {
        Some([rows, columns]) if *rows > 0 && *columns > 0 => Ok(Some([*rows, *columns])),
        _ => Err(Error::unsupported(format!("{}: `{key}` is no block of rows and columns", settings.place()))
            .hint("is this the config.json that belongs to the weights, unchanged?")),
    };
    if settings.get("weight_block_size").is_some() {
        return two("weight_block_size", settings.numbers("weight_block_size"));
    }
    if let Some(group) = settings.group(look.module()) {
        return match group.text("strategy") {
            Some("block") => two("block_structure", group.numbers("block_structure")),
            Some("group") => Ok(group.number("group_size").filter(|size| *size > 0).map(|size| [1, size])),
            _ => Ok(None),
        };
    }
    Ok(match settings.algorithm(look.module()) {
        Some("MXFP8") => Some(MX),
        Some("FP8_PB_WO" | "FP8_PB_REAL") => Some(USUAL),
        _ => None,
    })
}

fn announced(look: &Look) -> Option<Vec<Announced>> {
    let settings = look.settings;
    let (_, out, input) = look.sizes();
    let float8 =
        |group: &super::settings::Group| group.text("type") == Some("float") && group.number("num_bits") == Some(8);
    let (ending, dtype) = match settings.method()? {
        "fp8" => ("_scale_inv", Dtype::F32),
        "fbgemm_fp8" => ("_scale", Dtype::F32),
        "compressed-tensors" if settings.group(look.module()).is_some_and(float8) => ("_scale", Dtype::BF16),
        "modelopt"
            if settings.algorithm(look.module()).is_some_and(|name| name.starts_with("FP8") || name == "MXFP8") =>
        {
            ("_scale", Dtype::F32)
        }
        _ => return None,
    };
    let channel = settings.is("fbgemm_fp8")
        || settings.group(look.module()).and_then(|group| group.text("strategy")) == Some("channel");
    let (dtype, scales) = match setting(look).ok()? {
        Some(block) => {
            let dtype = if block == MX { Dtype::U8 } else { dtype };
            (dtype, vec![out.div_ceil(block[0]), input.div_ceil(block[1])])
        }
        None if channel => (dtype, vec![out, 1]),
        None => (dtype, vec![1, 1]),
    };
    let codes = (look.name.to_string(), Dtype::F8_E4M3, look.shape.to_vec());
    Some(vec![codes, (look.with(ending), dtype, look.stacked(&scales))])
}

impl Coding for Fp8 {
    fn words(&self) -> String {
        self.words.clone()
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn columns(&self) -> usize {
        self.input
    }

    /// A power of two keeps the four significant bits of a code.
    fn exact_in_bf16(&self) -> bool {
        is_exponent(self.pieces[1].dtype)
    }

    fn keep(&self, pieces: Vec<Vec<u8>>, _rows: usize, own: Range<usize>) -> std::result::Result<Kept, Wrong> {
        // All codes of a part are looked at, so that the loop has no exits.
        let nan = |codes: &[u8]| vectorised!(|| codes.iter().fold(false, |any, code| any | (code & 0x7f == 0x7f)));
        if pieces[0].chunks(CHECKED).any(nan) {
            let index = pieces[0].iter().position(|code| code & 0x7f == 0x7f).unwrap_or_default();
            return Err(Wrong::new(0, format!("element {index} is NaN")));
        }
        float::check_scales(1, self.pieces[1].dtype, &pieces[1], float::MOST_E4M3)?;
        Ok(Kept { parts: pieces, above: own.start })
    }

    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        let (dtype, [high, wide]) = (self.pieces[1].dtype, self.block);
        let scales = row / high * self.input.div_ceil(wide);
        let scale = |block: usize| float::scale(dtype, &kept[1], scales + block);
        widen::e4m3(&kept[0][row * self.input + from..], wide, scale, from, to);
    }

    fn for_gpu(&self, kept: Vec<Vec<u8>>) -> Option<(Kernel, Vec<Vec<u8>>)> {
        Some((Kernel::Fp8 { scales: self.pieces[1].dtype, block: self.block }, kept))
    }
}
