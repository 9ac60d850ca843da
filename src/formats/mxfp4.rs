//! MXFP4: blocks of 32 four-bit floats that share a power-of-two scale, as gpt-oss is released in.
//!
//! OCP Microscaling Formats v1.0: element format E2M1, scale format E8M0. Every value is exact in bf16.

use half::bf16;

use super::format::{Format, Kernel, Piece};
use crate::vector::vectorised;

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// Bytes of a block: two values each, the low nibble first.
pub const BLOCK_BYTES: usize = BLOCK / 2;

/// Blocks [.., out, in / 32, 16] and scales [.., out, in / 32], both bytes, under the names that gpt-oss has for them.
pub static MXFP4: Format = Format { name: "mxfp4", pieces, decode, kernel: Kernel::Mxfp4 };

fn pieces(shape: &[usize]) -> Vec<Piece> {
    let (input, rows) = shape.split_last().expect("a matrix");
    let grid = [rows, &[input / BLOCK]].concat();
    let blocks = [&grid[..], &[BLOCK_BYTES]].concat();
    vec![
        Piece { ending: "_blocks", shape: blocks, weights_per_element: 2 },
        Piece { ending: "_scales", shape: grid, weights_per_element: 0 },
    ]
}

fn decode(pieces: &[Vec<u8>]) -> Vec<bf16> {
    dequantise(&pieces[0], &pieces[1])
}

/// Exponent bias of the scale byte.
const SCALE_BIAS: i32 = 127;

/// E2M1 by code: sign in bit 3.
const VALUES: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Scales at which every value but 0 is a normal bf16.
const PLAIN_SCALES: std::ops::RangeInclusive<u8> = 2..=252;

/// `codes` holds `scales.len()` blocks of 16 bytes; gives 32 values per block.
fn dequantise(codes: &[u8], scales: &[u8]) -> Vec<bf16> {
    let mut values = vec![bf16::ZERO; scales.len() * BLOCK];
    let (blocks, codes) = (values.as_chunks_mut::<BLOCK>().0, codes.as_chunks::<BLOCK_BYTES>().0);
    vectorised(|| {
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
        // f64 holds 6 * 2^128; the products are then exact or overflow to infinity as in the reference.
        let scale = 2f64.powi(scale as i32 - SCALE_BIAS);
        let value = |code: u8| bf16::from_f32((VALUES[code as usize] as f64 * scale) as f32);
        for (pair, code) in pairs.iter_mut().zip(codes) {
            *pair = [value(code & 15), value(code >> 4)];
        }
        return;
    }
    // One half has the exponent of the scale less one; from code 2 on, exponent and mantissa are those of the code.
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
                let expected = (VALUES[i % 16] as f64 * 2f64.powi(scale as i32 - 127)) as f32;
                assert_eq!(value.to_f32().to_bits(), expected.to_bits(), "code {i} scale {scale}");
            }
        }
    }
}
