//! Numbers as formats store them: small floats, and scales of several types.

use half::{bf16, f16};
use safetensors::Dtype;

use super::format::Wrong;

/// E4M3 without infinities (OCP 8-bit floating point, `float8_e4m3fn`) by code; 0x7f and 0xff are
/// NaN.
pub(super) static E4M3: [f32; 256] = e4m3();

/// E2M1 (OCP Microscaling Formats) by code: sign in bit 3.
pub(super) static E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Whether the values of a type are floats of eight bits, which are codes if scales belong to them.
pub fn is_of_eight_bits(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2 | Dtype::F8_E4M3FNUZ | Dtype::F8_E5M2FNUZ)
}

/// The values of plain floats of eight bits by code. FNUZ types have no infinities, no negative
/// zero, whose code is NaN, and an exponent bias that is one more.
pub fn eight_bits(dtype: Dtype) -> [f32; 256] {
    let (mantissa_bits, fnuz) = match dtype {
        Dtype::F8_E4M3 => return E4M3,
        Dtype::F8_E4M3FNUZ => (3, true),
        Dtype::F8_E5M2 => (2, false),
        _ => (2, true),
    };
    std::array::from_fn(|code| {
        if !fnuz {
            // The upper half of an f16.
            return f16::from_bits((code as u16) << 8).to_f32();
        }
        if code == 0x80 {
            return f32::NAN;
        }
        let (exponent, mantissa) = ((code & 0x7f) >> mantissa_bits, code & ((1 << mantissa_bits) - 1));
        let bias = 1 << (6 - mantissa_bits);
        let fraction = mantissa as f32 / (1 << mantissa_bits) as f32;
        let (whole, power) = if exponent == 0 { (0.0, 1 - bias) } else { (1.0, exponent as i32 - bias) };
        let magnitude = (whole + fraction) * 2f32.powi(power);
        if code & 0x80 == 0 { magnitude } else { -magnitude }
    })
}

const fn e4m3() -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        let (sign, exponent, mantissa) = (code as u32 >> 7, (code as u32 >> 3) & 15, code as u32 & 7);
        let magnitude = if exponent == 0 {
            mantissa as f32 / 512.0
        } else if exponent == 15 && mantissa == 7 {
            f32::NAN
        } else {
            // The exponent bias is 7, and that of f32 is 127.
            f32::from_bits((exponent + 120) << 23 | mantissa << 20)
        };
        table[code] = if sign == 1 { -magnitude } else { magnitude };
        code += 1;
    }
    table
}

/// 2^(code - 127) (E8M0); 255 is NaN.
pub(super) fn e8m0(code: u8) -> f32 {
    match code {
        255 => f32::NAN,
        // 2^-127 is below the smallest normal number.
        0 => f32::from_bits(1 << 22),
        code => f32::from_bits((code as u32) << 23),
    }
}

/// Whether numbers may be of this type.
pub(super) fn is_number(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
}

/// Whether scales may be of this type.
pub(super) fn is_scale(dtype: Dtype) -> bool {
    is_number(dtype) || is_exponent(dtype)
}

/// Whether scales of this type are powers of two, one byte each.
pub(super) fn is_exponent(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E8M0 | Dtype::U8)
}

/// The names of the types of scales, for messages.
pub(super) const SCALES: &str = "F32, BF16, F16, F8_E8M0 or U8";

/// Refuses scales of piece `piece` that are NaN or infinite, or whose product with the largest
/// code, `most`, is infinite.
pub(super) fn check_scales(piece: usize, dtype: Dtype, bytes: &[u8], most: f32) -> Result<(), Wrong> {
    let count = bytes.len() * 8 / dtype.bitsize();
    let all = (0..count).map(|index| (index, scale(dtype, bytes, index)));
    match all.into_iter().find(|(_, scale)| !(scale * most).is_finite()) {
        Some((index, scale)) if scale.is_finite() => {
            let what = format!("the scale at index {index} is {scale:e}: what it multiplies is too large for f32");
            Err(Wrong::new(piece, what))
        }
        Some((index, scale)) => Err(Wrong::new(piece, format!("the scale at index {index} is {scale}"))),
        None => Ok(()),
    }
}

/// The largest values of codes.
pub(super) const MOST_E4M3: f32 = 448.0;
pub(super) const MOST_E2M1: f32 = 6.0;

/// The scale at an index, converted to f32. A byte is an exponent.
#[inline]
pub(super) fn scale(dtype: Dtype, bytes: &[u8], index: usize) -> f32 {
    let two = |index: usize| [bytes[2 * index], bytes[2 * index + 1]];
    match dtype {
        Dtype::F32 => f32::from_le_bytes(bytes.as_chunks::<4>().0[index]),
        Dtype::BF16 => bf16::from_le_bytes(two(index)).to_f32(),
        Dtype::F16 => f16::from_le_bytes(two(index)).to_f32(),
        Dtype::F8_E4M3 => E4M3[bytes[index] as usize],
        _ => e8m0(bytes[index]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_by_its_definition() {
        for code in 0..=255u8 {
            let (exponent, mantissa) = (code >> 3 & 15, code & 7);
            let magnitude = match (exponent, mantissa) {
                (15, 7) => f64::NAN,
                (0, m) => m as f64 * 2f64.powi(-9),
                (e, m) => (1.0 + m as f64 / 8.0) * 2f64.powi(e as i32 - 7),
            };
            let expected = (if code & 128 == 0 { magnitude } else { -magnitude }) as f32;
            let found = E4M3[code as usize];
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{code}: {found}");
        }
        assert_eq!((E4M3[0x7e], E4M3[0xfe], E4M3[1]), (448.0, -448.0, 1.0 / 512.0));
    }

    /// Values of the types in torch.
    #[test]
    fn floats_of_eight_bits_by_their_definitions() {
        let of = |dtype, code: usize| eight_bits(dtype)[code];
        assert_eq!((of(Dtype::F8_E4M3, 0x7e), of(Dtype::F8_E4M3, 0x81)), (448.0, -1.0 / 512.0));
        assert_eq!((of(Dtype::F8_E5M2, 0x7b), of(Dtype::F8_E5M2, 0x81)), (57344.0, -(2f32.powi(-16))));
        assert_eq!((of(Dtype::F8_E5M2, 0x3c), of(Dtype::F8_E5M2, 0x7c)), (1.0, f32::INFINITY));
        assert_eq!((of(Dtype::F8_E4M3FNUZ, 0x7f), of(Dtype::F8_E4M3FNUZ, 0x81)), (240.0, -(2f32.powi(-10))));
        assert_eq!((of(Dtype::F8_E4M3FNUZ, 0x40), of(Dtype::F8_E4M3FNUZ, 0x00)), (1.0, 0.0));
        assert_eq!((of(Dtype::F8_E5M2FNUZ, 0x7f), of(Dtype::F8_E5M2FNUZ, 0x81)), (57344.0, -(2f32.powi(-17))));
        assert_eq!(of(Dtype::F8_E5M2FNUZ, 0x40), 1.0);
        for dtype in [Dtype::F8_E4M3FNUZ, Dtype::F8_E5M2FNUZ] {
            assert!(of(dtype, 0x80).is_nan());
        }
        // All of them are exact in bf16.
        for dtype in [Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::F8_E4M3FNUZ, Dtype::F8_E5M2FNUZ] {
            let exact = |value: &f32| value.is_nan() || bf16::from_f32(*value).to_f32() == *value;
            assert!(eight_bits(dtype).iter().all(exact), "{dtype:?}");
        }
    }

    #[test]
    fn e8m0_by_its_definition() {
        for code in 0..255u8 {
            assert_eq!(e8m0(code) as f64, 2f64.powi(code as i32 - 127), "{code}");
        }
        assert!(e8m0(255).is_nan());
    }
}
