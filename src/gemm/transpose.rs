//! The transpose of 16 x 16 words in AVX-512 registers.

use std::arch::x86_64::*;

const SIDE: usize = 16;

/// Transposes 16 rows of 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose_16x16(rows: &[__m512; SIDE]) -> [__m512; SIDE] {
    let zero = _mm512_setzero_ps();
    // From pairs of rows: columns 4 l and 4 l + 1 in lane l, and the two columns after them.
    let mut pairs = [zero; SIDE];
    for i in (0..SIDE).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // From four rows: column 4 l + c in lane l of register c.
    let mut quads = [zero; SIDE];
    for i in (0..SIDE).step_by(4) {
        for c in 0..2 {
            let (upper, lower) = (_mm512_castps_pd(pairs[i + c]), _mm512_castps_pd(pairs[i + 2 + c]));
            quads[i + 2 * c] = _mm512_castpd_ps(_mm512_unpacklo_pd(upper, lower));
            quads[i + 2 * c + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(upper, lower));
        }
    }
    let mut columns = [zero; SIDE];
    for c in 0..4 {
        // Lanes 0 and 2, and lanes 1 and 3, of two registers.
        let (upper, lower) = ((quads[c], quads[4 + c]), (quads[8 + c], quads[12 + c]));
        let even = (_mm512_shuffle_f32x4::<0x88>(upper.0, upper.1), _mm512_shuffle_f32x4::<0x88>(lower.0, lower.1));
        let odd = (_mm512_shuffle_f32x4::<0xdd>(upper.0, upper.1), _mm512_shuffle_f32x4::<0xdd>(lower.0, lower.1));
        columns[c] = _mm512_shuffle_f32x4::<0x88>(even.0, even.1);
        columns[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1);
        columns[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even.0, even.1);
        columns[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1);
    }
    columns
}
