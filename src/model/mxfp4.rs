//! MXFP4: blocks of 32 four-bit floats that share a power-of-two scale, as gpt-oss is released in.
//!
//! OCP Microscaling Formats v1.0: element format E2M1, scale format E8M0. Every value is exact in bf16.

use half::bf16;
use rayon::prelude::*;

/// Values that share a scale.
pub const BLOCK: usize = 32;
/// Bytes of a block: two values each, the low nibble first.
pub const BLOCK_BYTES: usize = BLOCK / 2;
/// Exponent bias of the scale byte.
const SCALE_BIAS: i32 = 127;

/// E2M1 by code: sign in bit 3.
const VALUES: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

pub trait Float: Copy + Send + Sync + Default {
    fn from_f32(value: f32) -> Self;
}

impl Float for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Float for bf16 {
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
}

/// `codes` holds `scales.len()` blocks of 16 bytes; gives 32 values per block.
pub fn dequantise<F: Float>(codes: &[u8], scales: &[u8]) -> Vec<F> {
    let mut values = vec![F::default(); scales.len() * BLOCK];
    values.par_chunks_mut(BLOCK).zip(codes.par_chunks(BLOCK_BYTES)).zip(scales).with_min_len(256).for_each(
        |((values, codes), scale)| {
            // f64 holds 6 * 2^128; the products are then exact or overflow to infinity as in the reference.
            let scale = 2f64.powi(*scale as i32 - SCALE_BIAS);
            let table = VALUES.map(|value| F::from_f32((value as f64 * scale) as f32));
            for (pair, code) in values.chunks_exact_mut(2).zip(codes) {
                pair[0] = table[(code & 15) as usize];
                pair[1] = table[(code >> 4) as usize];
            }
        },
    );
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_and_scale() {
        for scale in [0u8, 1, 100, 127, 128, 200, 252] {
            let codes: Vec<u8> = (0..16).map(|b| (2 * b % 16) | ((2 * b + 1) % 16) << 4).collect();
            let values: Vec<f32> = dequantise(&codes, &[scale]);
            for (i, value) in values.iter().enumerate() {
                let expected = VALUES[i % 16] * 2f32.powi(scale as i32 - 127);
                assert_eq!(value.to_bits(), expected.to_bits(), "code {i} scale {scale}");
            }
            let halves: Vec<bf16> = dequantise(&codes, &[scale]);
            assert!(halves.iter().zip(&values).all(|(h, v)| h.to_f32() == *v || v.abs() < f32::MIN_POSITIVE));
        }
    }
}
