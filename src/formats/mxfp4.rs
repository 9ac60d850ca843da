//! MXFP4: blocks of 32 four-bit floats that share a power-of-two scale, as gpt-oss, Kimi-K3
//! (compressed-tensors) and the experts of DeepSeek-V4 are released.
//!
//! OCP Microscaling Formats v1.0: element format E2M1, scale format E8M0. Every value is exact in
//! bf16.

use std::ops::Range;
use std::sync::Arc;

use half::bf16;
use safetensors::Dtype;

use super::float::{self, E2M1, e8m0, is_exponent};
use super::format::{Coding, Decoded, Format, Kept, Kernel, Wrong};
use super::look::Look;
use super::piece::{Announced, Piece};
use super::widen::{self, First, Floats};
use crate::error::Result;
use crate::vector::vectorised;

/// Number of values that share a scale.
pub const BLOCK: usize = 32;
/// Number of bytes of a block. A byte has two values, the low nibble's first.
pub const BLOCK_BYTES: usize = BLOCK / 2;

/// Blocks `X_blocks` [.., out, in / 32, 16] and scales `X_scales` [.., out, in / 32], both of
/// bytes.
pub static GPT_OSS: Format = Format { name: "MXFP4", detect, announced };
/// Codes [out, in / 2] and scales [out, in / 32]: `weight_packed` and `weight_scale` in
/// compressed-tensors, `weight` and `scale` in DeepSeek-V4, `weight` and `weight_scale` in
/// ModelOpt. The bytes have the order of gpt-oss.
pub static MXFP4: Format = Format { name: "MXFP4", detect: detect_rows, announced: announced_rows };

#[derive(Debug)]
struct Mxfp4 {
    pieces: Vec<Piece>,
    input: usize,
}

fn detect(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let names = [look.with("_blocks"), look.with("_scales")];
    let [Some(blocks), scales] = [0, 1].map(|i| look.header(&names[i])) else { return Ok(None) };
    let Some(scales) = scales else { return Err(look.missing(&names[1], "MXFP4")) };
    let (_, out, input) = look.sizes();
    for (name, found) in names.iter().zip([blocks, scales]) {
        if found.dtype != Dtype::U8 {
            return Err(look.mistyped(name, found.dtype, "U8"));
        }
    }
    let groups = input.div_ceil(BLOCK);
    let blocks = look.piece(&names[0], blocks, &[out, groups, BLOCK_BYTES], 1)?;
    let scales = look.piece(&names[1], scales, &[out, groups], 1)?;
    if !input.is_multiple_of(BLOCK) {
        return Err(
            look.unread(&format!("has {input} columns, not a multiple of the {BLOCK} values of an MXFP4 block"))
        );
    }
    Ok(Some(Arc::new(Mxfp4 { pieces: vec![blocks, scales], input })))
}

fn detect_rows(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let (packed, scale) = (look.with("_packed"), look.with("_scale"));
    let bytes = |name: &str| look.header(name).filter(|header| header.dtype == Dtype::U8);
    let exponents = |name: &str| look.header(name).filter(|header| is_exponent(header.dtype));
    let own = |dtype| look.own().filter(|own| own.dtype == dtype);
    let (v4, inverse) = (look.beside("scale"), look.with("_scale_inv"));
    let e8m0 = |name: &str| look.header(name).filter(|header| header.dtype == Dtype::F8_E8M0);
    let found = if let (Some(codes), Some(scales)) = (bytes(&packed), exponents(&scale)) {
        (&packed[..], codes, &scale, scales)
    } else if let (Some(codes), Some(scales)) = (own(Dtype::U8), exponents(&scale)) {
        (look.name, codes, &scale, scales)
    } else if let (Some(codes), Some(scales)) = (own(Dtype::I8), e8m0(&v4)) {
        (look.name, codes, &v4, scales)
    } else if let (Some(codes), Some(scales)) = (own(Dtype::I8), e8m0(&inverse)) {
        (look.name, codes, &inverse, scales)
    } else {
        return Ok(None);
    };
    let (name, codes, scale, scales) = found;
    let (_, out, input) = look.sizes();
    if !input.is_multiple_of(BLOCK) {
        return Err(
            look.unread(&format!("has {input} columns, not a multiple of the {BLOCK} values of an MXFP4 block"))
        );
    }
    let codes = look.piece(name, codes, &[out, input / 2], 1)?;
    let scales = look.piece(scale, scales, &[out, input / BLOCK], 1)?;
    Ok(Some(Arc::new(Mxfp4 { pieces: vec![codes, scales], input })))
}

fn announced_rows(look: &Look) -> Option<Vec<Announced>> {
    let (settings, module) = (look.settings, look.module());
    let (_, out, input) = look.sizes();
    let packed = settings.is("compressed-tensors") && settings.format(module) == Some("mxfp4-pack-quantized");
    let modelopt = settings.is("modelopt") && settings.algorithm(module).is_some_and(|name| name.contains("MXFP4"));
    // DeepSeek-V4 has its experts in this format, and the rest in FP8.
    let experts = settings.text("expert_dtype") == Some("fp4") && module.contains(".experts.");
    let (name, dtype, scale) = match (packed, modelopt, experts) {
        (true, ..) => (look.with("_packed"), Dtype::U8, look.with("_scale")),
        (_, true, _) => (look.name.to_string(), Dtype::U8, look.with("_scale")),
        (.., true) => (look.name.to_string(), Dtype::I8, look.beside("scale")),
        _ => return None,
    };
    let exponent = if dtype == Dtype::I8 { Dtype::F8_E8M0 } else { Dtype::U8 };
    let codes = (name, dtype, look.stacked(&[out, input / 2]));
    Some(vec![codes, (scale, exponent, look.stacked(&[out, input / BLOCK]))])
}

fn announced(look: &Look) -> Option<Vec<Announced>> {
    let (_, out, input) = look.sizes();
    // gpt-oss has only its stacks in this format, whose names have no `.weight`. Its attention is
    // plain.
    if !look.settings.is("mxfp4") || look.sizes().0.is_none() {
        return None;
    }
    let groups = input / BLOCK;
    Some(vec![
        (look.with("_blocks"), Dtype::U8, look.stacked(&[out, groups, BLOCK_BYTES])),
        (look.with("_scales"), Dtype::U8, look.stacked(&[out, groups])),
    ])
}

impl Coding for Mxfp4 {
    fn words(&self) -> String {
        "MXFP4, one power of two for each 32 columns".to_string()
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn columns(&self) -> usize {
        self.input
    }

    fn exact_in_bf16(&self) -> bool {
        true
    }

    fn kernel(&self) -> Option<Kernel> {
        Some(Kernel::Mxfp4)
    }

    fn decode(&self, pieces: Vec<Vec<u8>>, _rows: usize) -> std::result::Result<Decoded, Wrong> {
        float::check_scales(1, Dtype::U8, &pieces[1], float::MOST_E2M1)?;
        Ok(Decoded::Bf16(dequantise(&pieces[0], &pieces[1])))
    }

    fn keep(&self, pieces: Vec<Vec<u8>>, _rows: usize, own: Range<usize>) -> std::result::Result<Kept, Wrong> {
        float::check_scales(1, Dtype::U8, &pieces[1], float::MOST_E2M1)?;
        Ok(Kept { parts: pieces, above: own.start })
    }

    fn numbers(&self, kept: &[Vec<u8>], row: usize, from: usize, to: &mut [f32]) {
        let scales = &kept[1][row * self.input / BLOCK..];
        let codes = &kept[0][row * self.input / 2..];
        widen::nibbles(codes, First::Low, BLOCK, |group| Floats(e8m0(scales[group])), from, to);
    }

    fn for_gpu(&self, kept: Vec<Vec<u8>>) -> Option<(Kernel, Vec<Vec<u8>>)> {
        Some((Kernel::Mxfp4, kept))
    }
}

/// Scales for which every value except 0 is a normal bf16.
const PLAIN_SCALES: std::ops::RangeInclusive<u8> = 2..=252;

/// Decodes `scales.len()` blocks of 16 bytes to 32 values each.
pub fn dequantise(codes: &[u8], scales: &[u8]) -> Vec<bf16> {
    let mut values = vec![bf16::ZERO; scales.len() * BLOCK];
    let (blocks, codes) = (values.as_chunks_mut::<BLOCK>().0, codes.as_chunks::<BLOCK_BYTES>().0);
    vectorised!(|| {
        for ((values, codes), scale) in blocks.iter_mut().zip(codes).zip(scales) {
            block(values, codes, *scale);
        }
    });
    values
}

#[inline(always)]
fn block(values: &mut [bf16; BLOCK], codes: &[u8; BLOCK_BYTES], scale: u8) {
    let pairs = values.as_chunks_mut::<2>().0;
    if !PLAIN_SCALES.contains(&scale) {
        // f64 holds 6 * 2^127; the products are then exact or overflow to infinity as in the
        // reference.
        let scale = e8m0(scale) as f64;
        let value = |code: u8| bf16::from_f32((E2M1[code as usize] as f64 * scale) as f32);
        for (pair, code) in pairs.iter_mut().zip(codes) {
            *pair = [value(code & 15), value(code >> 4)];
        }
        return;
    }
    // The value one half has the exponent of the scale minus one. From code 2 on, exponent and
    // mantissa are those of the code.
    let half = ((scale - 1) as u16) << 7;
    let value = |code: u16| {
        let magnitude = code & 7;
        let above = if magnitude == 1 { 0 } else { magnitude << 6 };
        let bits = if magnitude == 0 { 0 } else { half + above };
        bf16::from_bits(bits | (code & 8) << 12)
    };
    for (pair, code) in pairs.iter_mut().zip(codes) {
        *pair = [value((code & 15) as u16), value((code >> 4) as u16)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_scale() {
        for scale in 0..=254u8 {
            let codes: Vec<u8> = (0..16).map(|b| (2 * b % 16) | ((2 * b + 1) % 16) << 4).collect();
            let values = dequantise(&codes, &[scale]);
            for (i, value) in values.iter().enumerate() {
                let expected = (E2M1[i % 16] as f64 * 2f64.powi(scale as i32 - 127)) as f32;
                assert_eq!(value.to_f32().to_bits(), expected.to_bits(), "code {i} scale {scale}");
            }
        }
    }
}
