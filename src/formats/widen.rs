//! Codes to numbers, many at a time: products do it where they pack their operands, as quickly as
//! the CPU can.
//!
//! With AVX2, sixteen at once; the portable loops beside it give the same numbers, bit by bit.

use super::float::{E2M1, E4M3};

/// What codes of four bits stand for.
pub(super) trait Values: Copy {
    fn one(self, code: u8) -> f32;

    /// Eight of them.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eight(self, codes: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m256;
}

/// (code − zero) · scale.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    pub zero: f32,
    pub scale: f32,
}

/// E2M1 times a scale.
#[derive(Clone, Copy)]
pub(super) struct Floats(pub f32);

/// An entry of a table times a scale.
#[derive(Clone, Copy)]
pub(super) struct Entries<'a>(pub &'a [f32; 16], pub f32);

/// Which half of a byte holds the first of its two codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Low,
    High,
}

/// Calls `f` for each group of columns that `to` has a part of, with the number of the group, the
/// first of these columns and their room in `to`, which begins with column `from`.
#[inline(always)]
pub(super) fn by_group(group: usize, mut from: usize, mut to: &mut [f32], mut f: impl FnMut(usize, usize, &mut [f32])) {
    let (mut number, mut count) = (from / group, group - from % group);
    while !to.is_empty() {
        let (now, rest) = to.split_at_mut(count.min(to.len()));
        f(number, from, now);
        (number, from, to, count) = (number + 1, from + count, rest, group);
    }
}

/// The numbers of codes of four bits, two in a byte, from code `from` on; each `group` of codes has
/// values of its own.
pub(super) fn nibbles<V: Values>(
    codes: &[u8],
    first: First,
    group: usize,
    values: impl Fn(usize) -> V,
    from: usize,
    to: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2<V: Values>(
            codes: &[u8],
            first: First,
            group: usize,
            values: impl Fn(usize) -> V,
            from: usize,
            to: &mut [f32],
        ) {
            by_group(group, from, to, |group, from, to| {
                let values = values(group);
                // Whole bytes, sixteen codes at a time.
                let skipped = from % 2;
                let (before, rest) = to.split_at_mut(skipped.min(to.len()));
                one_by_one(codes, first, values, from, before);
                let bytes = &codes[(from + skipped) / 2..];
                let (now, last) = rest.as_chunks_mut::<16>();
                for (to, bytes) in now.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    sixteen_nibbles(bytes, first, values, to);
                }
                one_by_one(codes, first, values, from + skipped + 16 * now.len(), last);
            });
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU was just checked for these instructions.
            return unsafe { with_avx2(codes, first, group, values, from, to) };
        }
    }
    by_group(group, from, to, |group, from, to| one_by_one(codes, first, values(group), from, to));
}

#[inline(always)]
fn one_by_one(codes: &[u8], first: First, values: impl Values, from: usize, to: &mut [f32]) {
    let high = usize::from(first == First::High);
    for (i, value) in (from..).zip(to) {
        *value = values.one(codes[i / 2] >> (4 * ((i % 2) ^ high)) & 15);
    }
}

/// The numbers of codes E4M3, from the first on, which is in column `from`; each `group` of columns
/// has a scale, for which 448 times the scale is finite.
pub(super) fn e4m3(codes: &[u8], group: usize, scale: impl Fn(usize) -> f32, from: usize, to: &mut [f32]) {
    let codes = &codes[..to.len()];
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,f16c")]
        fn with_avx2(codes: &[u8], group: usize, scale: impl Fn(usize) -> f32, from: usize, to: &mut [f32]) {
            by_group(group, from, to, |group, at, to| {
                let (scale, codes) = (scale(group), &codes[at - from..]);
                let (now, last) = to.as_chunks_mut::<16>();
                for (to, codes) in now.iter_mut().zip(codes.as_chunks::<16>().0) {
                    sixteen_e4m3(codes, scale, to);
                }
                let codes = &codes[16 * now.len()..];
                last.iter_mut().zip(codes).for_each(|(value, code)| *value = E4M3[usize::from(*code)] * scale);
            });
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c") {
            // SAFETY: the CPU was just checked for these instructions.
            return unsafe { with_avx2(codes, group, scale, from, to) };
        }
    }
    by_group(group, from, to, |group, at, to| {
        let scale = scale(group);
        to.iter_mut().zip(&codes[at - from..]).for_each(|(value, code)| *value = E4M3[usize::from(*code)] * scale);
    });
}

impl Values for Integers {
    #[inline(always)]
    fn one(self, code: u8) -> f32 {
        (f32::from(code) - self.zero) * self.scale
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(self, codes: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises AVX2.
        unsafe {
            let less = _mm256_sub_ps(_mm256_cvtepi32_ps(codes), _mm256_set1_ps(self.zero));
            _mm256_mul_ps(less, _mm256_set1_ps(self.scale))
        }
    }
}

impl Values for Floats {
    #[inline(always)]
    fn one(self, code: u8) -> f32 {
        E2M1[usize::from(code)] * self.0
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(self, codes: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises AVX2, and there are eight magnitudes.
        unsafe {
            // Bit 3 is the sign; the lookup takes the three below.
            let magnitudes = _mm256_permutevar8x32_ps(_mm256_loadu_ps(E2M1.as_ptr()), codes);
            let signs = _mm256_slli_epi32::<28>(_mm256_and_si256(codes, _mm256_set1_epi32(8)));
            _mm256_mul_ps(_mm256_or_ps(magnitudes, _mm256_castsi256_ps(signs)), _mm256_set1_ps(self.0))
        }
    }
}

impl Values for Entries<'_> {
    #[inline(always)]
    fn one(self, code: u8) -> f32 {
        self.0[usize::from(code)] * self.1
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(self, codes: std::arch::x86_64::__m256i) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises AVX2, and the table has two times eight numbers.
        unsafe {
            let low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(self.0.as_ptr()), codes);
            let high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(self.0.as_ptr().add(8)), codes);
            // Bit 3 says which half, in the place of a sign.
            let entries = _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes)));
            _mm256_mul_ps(entries, _mm256_set1_ps(self.1))
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn sixteen_nibbles(bytes: &[u8; 8], first: First, values: impl Values, to: &mut [f32; 16]) {
    use std::arch::x86_64::*;
    let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(*bytes));
    let low = _mm_and_si128(bytes, _mm_set1_epi8(15));
    let high = _mm_and_si128(_mm_srli_epi16::<4>(bytes), _mm_set1_epi8(15));
    let codes = match first {
        First::Low => _mm_unpacklo_epi8(low, high),
        First::High => _mm_unpacklo_epi8(high, low),
    };
    // SAFETY: this is compiled for AVX2, and there is room for two times eight numbers.
    unsafe {
        _mm256_storeu_ps(to.as_mut_ptr(), values.eight(_mm256_cvtepu8_epi32(codes)));
        let behind = _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(codes));
        _mm256_storeu_ps(to.as_mut_ptr().add(8), values.eight(behind));
    }
}

/// A code less its sign, moved by seven bits, is an f16 of 2^-8 times its value, small ones
/// included.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn sixteen_e4m3(codes: &[u8; 16], scale: f32, to: &mut [f32; 16]) {
    use std::arch::x86_64::*;
    // SAFETY: there are 16 bytes.
    let codes = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) });
    let magnitudes = _mm256_and_si256(_mm256_slli_epi16::<7>(codes), _mm256_set1_epi16(0x3f80));
    let signs = _mm256_and_si256(_mm256_slli_epi16::<8>(codes), _mm256_set1_epi16(i16::MIN));
    let halves = _mm256_or_si256(magnitudes, signs);
    // Exact, and finite as 448 times the scale is.
    let scale = _mm256_set1_ps(scale * 256.0);
    let low = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), scale);
    let high = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves)), scale);
    // SAFETY: there is room for two times eight numbers.
    unsafe {
        _mm256_storeu_ps(to.as_mut_ptr(), low);
        _mm256_storeu_ps(to.as_mut_ptr().add(8), high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes and their neighbours in every order that occurs.
    fn bytes() -> Vec<u8> {
        (0..=255u8).chain((0..=255).map(|i: u8| i.wrapping_mul(37).wrapping_add(11))).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// `value` is what a code of a group stands for.
    fn check<V: Values>(what: &str, values: impl Fn(usize) -> V + Copy, value: impl Fn(usize, u8) -> f32) {
        let bytes = bytes();
        let orders = [First::Low, First::High];
        for (first, group) in orders.into_iter().flat_map(|first| [1, 7, 16, 32, 1024].map(|group| (first, group))) {
            for (from, count) in [(0, 1024), (0, 15), (1, 1000), (3, 0), (5, 1), (16, 64), (31, 33), (1023, 1)] {
                let mut found = vec![f32::NAN; count];
                nibbles(&bytes, first, group, values, from, &mut found);
                let expected = (from..from + count).map(|i| {
                    let high = (i % 2 == 1) == (first == First::Low);
                    value(i / group, if high { bytes[i / 2] >> 4 } else { bytes[i / 2] & 15 })
                });
                assert_eq!(bits(&found), bits(&expected.collect::<Vec<_>>()), "{what}: {count} from {from} by {group}");
            }
        }
    }

    #[test]
    fn codes_of_four_bits_from_any_column_on() {
        let scale = |group: usize| group as f32 * 0.37 - 1.1;
        let integers = |group: usize| Integers { zero: (group % 16) as f32, scale: scale(group) };
        check("integers", integers, |group, code| (f32::from(code) - (group % 16) as f32) * scale(group));
        check("floats", |group| Floats(scale(group)), |group, code| E2M1[usize::from(code)] * scale(group));
        let table: [f32; 16] = std::array::from_fn(|code| (code as f32 - 7.3) * 0.11);
        check("entries", |group| Entries(&table, scale(group)), |group, code| table[usize::from(code)] * scale(group));
    }

    #[test]
    fn codes_e4m3_with_scales_large_and_small() {
        let codes: Vec<u8> = bytes().into_iter().filter(|code| code & 0x7f != 0x7f).collect();
        // The first makes numbers below the smallest normal one, the last is just below what makes
        // 448 infinite.
        for base in [f32::from_bits(3), 1e-37, 0.017, 1.0, 3e35, f32::MAX / 448.0] {
            let scale = |group: usize| base * (1.0 - group as f32 / 64.0);
            for (group, from, count) in [(128, 0, codes.len()), (32, 7, 300), (1, 0, 17), (1024, 5, 15), (16, 3, 0)] {
                let mut found = vec![f32::NAN; count];
                e4m3(&codes, group, scale, from, &mut found);
                let expected = (0..count).map(|i| E4M3[usize::from(codes[i])] * scale((from + i) / group));
                assert_eq!(
                    bits(&found),
                    bits(&expected.collect::<Vec<_>>()),
                    "{base:e}, groups of {group} from {from}"
                );
            }
        }
    }
}
