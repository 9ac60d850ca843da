//! Packs operands in the order in which micro-kernels read them: rows of x side by side, and
//! outputs of a weight side by side.
//!
//! A bf16 weight is converted to f32 here, block by block, and nowhere else. The conversion is
//! exact.

use half::bf16;

use super::blocking::DEPTH;
use super::operands::{Lhs, Rhs, Values};
use super::simd::Simd;
use crate::vocabulary::Order;

/// The bits of x rounded to bf16, half to even. The function has no branches, so that loops of it
/// use wide registers.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    // Rounding up could make an infinity, or zero, of NaN.
    if x.is_nan() { bits >> 16 | 0x40 } else { nearest }
}

/// Two numbers as one word of bf16 pairs, the first in the low half.
#[inline(always)]
fn pair(low: f32, high: f32) -> f32 {
    f32::from_bits(rounded(low) | rounded(high) << 16)
}

/// Packs rows `first..first + height` of `x`, words `from..from + depth`, as [depth][height]. Rows
/// after the end are zeros.
///
/// # Safety
/// `L` is available.
#[inline(always)]
pub(super) unsafe fn rows<L: Simd, const HEIGHT: usize>(
    x: &Lhs,
    first: usize,
    from: usize,
    depth: usize,
    to: &mut [f32],
) {
    let to = &mut to[..depth * HEIGHT];
    let zeros = [0f32; DEPTH];
    let mut pairs = [[0f32; DEPTH]; HEIGHT];
    let sources: [&[f32]; HEIGHT] = if L::PAIRS {
        for (r, pairs) in pairs.iter_mut().enumerate() {
            if first + r < x.rows {
                pair_up(&x.row(first + r)[2 * from..], &mut pairs[..depth]);
            }
        }
        std::array::from_fn(|r| &pairs[r][..depth])
    } else {
        std::array::from_fn(
            |r| if first + r < x.rows { &x.row(first + r)[from..from + depth] } else { &zeros[..depth] },
        )
    };
    let mut whole = 0;
    #[cfg(target_arch = "x86_64")]
    if L::TRANSPOSES {
        whole = depth / 8 * 8;
        for k in (0..whole).step_by(8) {
            for r in (0..HEIGHT).step_by(8) {
                // SAFETY: only kinds with AVX2 transpose. Every source has `depth` words, and `k +
                // 8` is at most `depth`. `to` has as many rows of `HEIGHT`, and no more are
                // written.
                unsafe {
                    let mut eight = [std::arch::x86_64::_mm256_setzero_ps(); 8];
                    for (i, row) in eight.iter_mut().enumerate() {
                        *row = std::arch::x86_64::_mm256_loadu_ps(sources[(r + i).min(HEIGHT - 1)][k..].as_ptr());
                    }
                    for (i, column) in turned(eight).into_iter().enumerate() {
                        store(column, (HEIGHT - r).min(8), to.as_mut_ptr().add((k + i) * HEIGHT + r));
                    }
                }
            }
        }
    }
    for (r, source) in sources.iter().enumerate() {
        for (k, value) in source.iter().enumerate().skip(whole) {
            to[k * HEIGHT + r] = *value;
        }
    }
}

/// Rounds pairs of neighbours to words of bf16, half to even. A last number without a neighbour
/// gets a zero.
#[inline(always)]
fn pair_up(row: &[f32], words: &mut [f32]) {
    let whole = words.len().min(row.len() / 2);
    for (word, [low, high]) in words.iter_mut().zip(&row.as_chunks::<2>().0[..whole]) {
        *word = pair(*low, *high);
    }
    if whole < words.len() {
        words[whole] = pair(row[2 * whole], 0.0);
    }
}

/// Writes the first `lanes` numbers of a register. The callers have 4, 6 and 8.
///
/// # Safety
/// The CPU has AVX2, and `to` is valid for writes of `lanes` words.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store(vector: std::arch::x86_64::__m256, lanes: usize, to: *mut f32) {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises AVX2 and the memory, and no arm writes more than `lanes` words.
    unsafe {
        match lanes {
            8 => _mm256_storeu_ps(to, vector),
            6 => {
                _mm_storeu_ps(to, _mm256_castps256_ps128(vector));
                _mm_storel_pd(to.add(4).cast(), _mm_castps_pd(_mm256_extractf128_ps::<1>(vector)));
            }
            4 => _mm_storeu_ps(to, _mm256_castps256_ps128(vector)),
            _ => {
                let mut all = [0f32; 8];
                _mm256_storeu_ps(all.as_mut_ptr(), vector);
                to.copy_from_nonoverlapping(all.as_ptr(), lanes);
            }
        }
    }
}

/// Packs outputs `first..first + width` of `w`, words `from..from + depth`, as [depth][width].
/// Outputs after the end are zeros.
///
/// # Safety
/// `L` is available.
#[inline(always)]
pub(super) unsafe fn weight<L: Simd>(w: &Rhs, first: usize, from: usize, depth: usize, width: usize, to: &mut [f32]) {
    let to = &mut to[..depth * width];
    let columns = width.min(w.out - first);
    if columns < width {
        for row in to.chunks_exact_mut(width) {
            row[columns..].fill(0.0);
        }
    }
    // SAFETY: the caller promises that `L` is available, which is all that `out_in` asks for.
    unsafe {
        match (w.order, w.values, L::PAIRS) {
            (_, Values::Codes(_), _) => unreachable!("codes are decoded before they are packed"),
            (Order::OutIn, Values::F32(values), false) => {
                out_in::<L, _>(Plain(values), w, first, from, depth, width, to)
            }
            (Order::OutIn, Values::Bf16(values), false) => {
                out_in::<L, _>(Widened(values), w, first, from, depth, width, to)
            }
            (Order::OutIn, Values::Bf16(values), true) => {
                let whole = depth.min((w.input - 2 * from) / 2);
                out_in::<L, _>(Pairs(values), w, first, from, whole, width, to);
                if whole < depth {
                    // The last input of an odd number has no neighbour.
                    for n in 0..columns {
                        let value = values[(first + n) * w.stride + w.input - 1].to_bits() as u32;
                        to[whole * width + n] = f32::from_bits(value);
                    }
                }
            }
            (Order::InOut, Values::F32(values), false) => {
                for k in 0..depth {
                    let row = &values[(from + k) * w.stride + first..][..columns];
                    to[k * width..][..columns].copy_from_slice(row);
                }
            }
            (Order::InOut, Values::Bf16(values), false) => {
                for k in 0..depth {
                    let row = &values[(from + k) * w.stride + first..][..columns];
                    let to = &mut to[k * width..][..columns];
                    for (to, value) in to.iter_mut().zip(row) {
                        *to = f32::from_bits((value.to_bits() as u32) << 16);
                    }
                }
            }
            (Order::InOut, Values::Bf16(values), true) => {
                for k in 0..depth {
                    let low = &values[2 * (from + k) * w.stride + first..][..columns];
                    let odd = 2 * (from + k) + 1 < w.input;
                    let high = if odd { &values[(2 * (from + k) + 1) * w.stride + first..][..columns] } else { low };
                    let keep = if odd { u32::MAX } else { 0 };
                    let to = &mut to[k * width..][..columns];
                    for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
                        *to = f32::from_bits(low.to_bits() as u32 | ((high.to_bits() as u32) << 16) & keep);
                    }
                }
            }
            (Order::OutIn, Values::F32(values), true) => {
                let whole = depth.min((w.input - 2 * from) / 2);
                out_in::<L, _>(Rounded(values), w, first, from, whole, width, to);
                if whole < depth {
                    for n in 0..columns {
                        to[whole * width + n] = pair(values[(first + n) * w.stride + w.input - 1], 0.0);
                    }
                }
            }
            (Order::InOut, Values::F32(values), true) => {
                for k in 0..depth {
                    let low = &values[2 * (from + k) * w.stride + first..][..columns];
                    let odd = 2 * (from + k) + 1 < w.input;
                    let high = if odd { &values[(2 * (from + k) + 1) * w.stride + first..][..columns] } else { low };
                    let to = &mut to[k * width..][..columns];
                    for ((to, low), high) in to.iter_mut().zip(low).zip(high) {
                        *to = pair(*low, if odd { *high } else { 0.0 });
                    }
                }
            }
        }
    }
}

/// The conversion of a row of stored values to words.
trait Source: Copy {
    /// Number of stored values per word.
    const PER_WORD: usize;
    /// The word that begins at value `at`.
    fn word(self, at: usize) -> f32;
    /// Eight words that begin at value `at`.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn eight(self, at: usize) -> std::arch::x86_64::__m256;
}

#[derive(Clone, Copy)]
struct Plain<'a>(&'a [f32]);
#[derive(Clone, Copy)]
struct Widened<'a>(&'a [bf16]);
#[derive(Clone, Copy)]
struct Pairs<'a>(&'a [bf16]);
#[derive(Clone, Copy)]
struct Rounded<'a>(&'a [f32]);

impl Source for Plain<'_> {
    const PER_WORD: usize = 1;
    #[inline(always)]
    fn word(self, at: usize) -> f32 {
        self.0[at]
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(self, at: usize) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller promises AVX2, and the slice has eight f32.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(self.0[at..at + 8].as_ptr()) }
    }
}

impl Source for Widened<'_> {
    const PER_WORD: usize = 1;
    #[inline(always)]
    fn word(self, at: usize) -> f32 {
        f32::from_bits((self.0[at].to_bits() as u32) << 16)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(self, at: usize) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: the caller promises AVX2, and the slice has eight bf16, which are 16 bytes.
        unsafe {
            let values = _mm_loadu_si128(self.0[at..at + 8].as_ptr().cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(values)))
        }
    }
}

impl Source for Pairs<'_> {
    const PER_WORD: usize = 2;
    #[inline(always)]
    fn word(self, at: usize) -> f32 {
        f32::from_bits(self.0[at].to_bits() as u32 | (self.0[at + 1].to_bits() as u32) << 16)
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(self, at: usize) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller promises AVX2, and the slice has 16 bf16, which are 32 bytes.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(self.0[at..at + 16].as_ptr().cast()) }
    }
}

impl Source for Rounded<'_> {
    const PER_WORD: usize = 2;
    #[inline(always)]
    fn word(self, at: usize) -> f32 {
        pair(self.0[at], self.0[at + 1])
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn eight(self, at: usize) -> std::arch::x86_64::__m256 {
        let mut words = [0f32; 8];
        pair_up(&self.0[at..at + 16], &mut words);
        // SAFETY: the caller promises AVX2, and there are eight words.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(words.as_ptr()) }
    }
}

/// Packs a weight whose rows are outputs: a transposition, in squares of eight if the CPU has AVX2.
///
/// # Safety
/// `L` is available.
#[inline(always)]
unsafe fn out_in<L: Simd, S: Source>(
    values: S,
    w: &Rhs,
    first: usize,
    from: usize,
    depth: usize,
    width: usize,
    to: &mut [f32],
) {
    let to = &mut to[..depth * width];
    let columns = width.min(w.out - first);
    let start = |n: usize| (first + n) * w.stride + S::PER_WORD * from;
    let mut n = 0;
    #[cfg(target_arch = "x86_64")]
    if L::TRANSPOSES {
        let whole = depth / 8 * 8;
        while n + 8 <= columns {
            for k in (0..whole).step_by(8) {
                // SAFETY: only kinds with AVX2 transpose. `to` has `depth` rows of `width` words.
                // The eight words that are written to row `k + i` begin at `n`, and `n + 8` is at
                // most `width`.
                unsafe {
                    let mut rows = [std::arch::x86_64::_mm256_setzero_ps(); 8];
                    for (i, row) in rows.iter_mut().enumerate() {
                        *row = values.eight(start(n + i) + S::PER_WORD * k);
                    }
                    for (i, column) in turned(rows).into_iter().enumerate() {
                        std::arch::x86_64::_mm256_storeu_ps(to.as_mut_ptr().add((k + i) * width + n), column);
                    }
                }
            }
            for i in n..n + 8 {
                for k in whole..depth {
                    to[k * width + i] = values.word(start(i) + S::PER_WORD * k);
                }
            }
            n += 8;
        }
    }
    while n < columns {
        for k in 0..depth {
            to[k * width + n] = values.word(start(n) + S::PER_WORD * k);
        }
        n += 1;
    }
}

/// Transposes eight rows of eight words.
///
/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn turned(r: [std::arch::x86_64::__m256; 8]) -> [std::arch::x86_64::__m256; 8] {
    use std::arch::x86_64::*;
    // SAFETY: the caller promises AVX2; nothing here reads or writes memory by itself.
    unsafe {
        // There are no closures here: they would not have the processor's features, and would be
        // called.
        let (mut low, mut high) = ([_mm256_setzero_ps(); 4], [_mm256_setzero_ps(); 4]);
        for i in 0..4 {
            low[i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            high[i] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut columns = [_mm256_setzero_ps(); 8];
        for (i, pairs) in [low, high].iter().enumerate() {
            // Columns c and c + 4 of four rows each: [c of rows 0..4 | c + 4 of rows 0..4].
            let (top, bottom) = (
                [_mm256_shuffle_ps::<0x44>(pairs[0], pairs[1]), _mm256_shuffle_ps::<0xee>(pairs[0], pairs[1])],
                [_mm256_shuffle_ps::<0x44>(pairs[2], pairs[3]), _mm256_shuffle_ps::<0xee>(pairs[2], pairs[3])],
            );
            for c in 0..2 {
                columns[2 * i + c] = _mm256_permute2f128_ps::<0x20>(top[c], bottom[c]);
                columns[2 * i + c + 4] = _mm256_permute2f128_ps::<0x31>(top[c], bottom[c]);
            }
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_bf16() {
        let bits =
            (0..=u16::MAX).flat_map(|high| [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| (high as u32) << 16 | low));
        for x in bits.map(f32::from_bits) {
            assert_eq!(rounded(x), bf16::from_f32(x).to_bits() as u32, "{x:e}");
        }
    }
}
