//! NVFP4: E2M1 codes, an E4M3 scale for each 16 columns, and one number for the tensor.
//!
//! ModelOpt multiplies by that number (`weight_scale_2`), and compressed-tensors divides by it
//! (`weight_global_scale`); only the name tells which. The scale is rounded to f32 before the
//! product, as in both libraries.

use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use super::float;
use super::format::{Coding, Format, Kept, Kernel, Wrong};
use super::look::{Header, Look};
use super::piece::{Along, Announced, Piece};
use super::widen::{self, First, Floats};
use crate::error::Result;

pub(super) static NVFP4: Format = Format { name: "NVFP4", detect, announced };

/// Number of columns that share a scale.
const GROUP: usize = 16;

/// The effect of the tensor's number on the scales.
#[derive(Clone, Copy, Debug)]
enum Global {
    Multiplies,
    Divides,
}

impl Global {
    fn on(self, scale: f32, number: f32) -> f32 {
        match self {
            Global::Multiplies => scale * number,
            Global::Divides => scale / number,
        }
    }
}

/// The codes [out, in / 2], with the low nibble first, the scales [out, in / 16] and the number.
#[derive(Debug)]
struct Nvfp4 {
    pieces: Vec<Piece>,
    input: usize,
    global: Global,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let packed = look.with("_packed");
    let scale = look.with("_scale");
    let Some(scales) = look.header(&scale).filter(|scales| scales.dtype == Dtype::F8_E4M3) else { return Ok(None) };
    let bytes = |header: &Header| header.dtype == Dtype::U8;
    let (name, codes, global, number) = match (look.own().filter(bytes), look.header(&packed).filter(bytes)) {
        (_, Some(codes)) => (packed, codes, Global::Divides, look.with("_global_scale")),
        (Some(codes), None) => (look.name.to_string(), codes, Global::Multiplies, look.with("_scale_2")),
        (None, None) => return Ok(None),
    };
    let Some(one) = look.header(&number) else { return Err(look.missing(&number, "NVFP4")) };
    let (experts, out, input) = look.sizes();
    if !input.is_multiple_of(GROUP) {
        return Err(
            look.unread(&format!("has {input} columns, not a multiple of the {GROUP} values of an NVFP4 group"))
        );
    }
    let codes = look.piece(&name, codes, &[out, input / 2], 1)?;
    let scales = look.piece(&scale, scales, &[out, input / GROUP], 1)?;
    if !float::is_number(one.dtype) {
        return Err(look.mistyped(&number, one.dtype, "F32, BF16 or F16"));
    }
    let along = match (experts, one.shape.iter().product::<usize>()) {
        (_, 1) => Along::rows(false, Along::EVERY),
        (Some(experts), count) if count == experts && one.shape[0] == experts => Along::rows(true, Along::EVERY),
        _ => return Err(look.misshapen(&number, one.shape, &[1])),
    };
    let one = Piece { along, ..look.whole(&number, one) };
    Ok(Some(Arc::new(Nvfp4 { pieces: vec![codes, scales, one], input, global })))
}

fn announced(look: &Look) -> Option<Vec<Announced>> {
    let (settings, module) = (look.settings, look.module());
    let (_, out, input) = look.sizes();
    let (name, number) = match settings.method()? {
        "modelopt" if settings.algorithm(module).is_some_and(|name| name.contains("NVFP4")) => {
            (look.name.to_string(), look.with("_scale_2"))
        }
        "compressed-tensors" if settings.format(module) == Some("nvfp4-pack-quantized") => {
            (look.with("_packed"), look.with("_global_scale"))
        }
        _ => return None,
    };
    Some(vec![
        (name, Dtype::U8, look.stacked(&[out, input / 2])),
        (look.with("_scale"), Dtype::F8_E4M3, look.stacked(&[out, input / GROUP])),
        (number, Dtype::F32, vec![1]),
    ])
}

impl Coding for Nvfp4 {
    fn words(&self) -> String {
        "NVFP4, one scale for each 16 columns and one for each tensor".to_string()
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn columns(&self) -> usize {
        self.input
    }

    fn keep(&self, pieces: Vec<Vec<u8>>, _rows: usize, own: Range<usize>) -> std::result::Result<Kept, Wrong> {
        float::check_scales(1, Dtype::F8_E4M3, &pieces[1], float::MOST_E2M1)?;
        float::check_scales(2, self.pieces[2].dtype, &pieces[2], 1.0)?;
        let number = float::scale(self.pieces[2].dtype, &pieces[2], 0);
        if matches!(self.global, Global::Divides) && number == 0.0 {
            return Err(Wrong::new(2, "it is 0, and scales are divided by it"));
        }
        if !(self.global.on(float::MOST_E4M3, number) * float::MOST_E2M1).is_finite() {
            return Err(Wrong::new(2, format!("it is {number:e}, which makes numbers too large for f32")));
        }
        Ok(Kept { parts: pieces, above: own.start })
    }

    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        let number = float::scale(self.pieces[2].dtype, &kept[2], 0);
        let scales = &kept[1][row * self.input / GROUP..];
        let scale = |group: usize| self.global.on(float::scale(Dtype::F8_E4M3, scales, group), number);
        let codes = &kept[0][row * self.input / 2..];
        widen::nibbles(codes, First::Low, GROUP, |group| Floats(scale(group)), from, to);
    }

    fn for_gpu(&self, kept: Vec<Vec<u8>>) -> Option<(Kernel, Vec<Vec<u8>>)> {
        let number = float::scale(self.pieces[2].dtype, &kept[2], 0);
        let kernel = Kernel::Nvfp4 { number, divides: matches!(self.global, Global::Divides) };
        Some((kernel, kept.into_iter().take(2).collect()))
    }
}
