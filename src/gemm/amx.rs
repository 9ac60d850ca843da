//! Micro-kernel for AMX, the matrix unit of Intel's processors since 2023. One instruction
//! multiplies 16 outputs by 16 rows of x, 32 numbers deep (Intel 64 and IA-32 Architectures
//! Software Developer's Manual, volume 1, chapter 18).
//!
//! The weight is the left operand, so that its rows are copied as they are stored. x, which is
//! smaller where products are slow, is transposed. The sums are therefore transposed too, and are
//! transposed back when they are added to y.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::sync::LazyLock;

use half::bf16;

use super::avx::Avx512Bf16;
use super::operands::{Lhs, Rhs, Values};
use super::simd::Simd;
use super::tile::{Accumulate, MicroKernel, TileDst};
use super::transpose::transpose_16x16;
use crate::vocabulary::Order;

/// Rows of a hardware tile, and 32-bit words in each row.
const SIDE: usize = 16;
/// Words in a hardware tile.
const AREA: usize = SIDE * SIDE;
/// Rows of x and outputs of our tile: two hardware tiles each, so that every loaded tile is used
/// twice.
const WIDTH: usize = 2 * SIDE;

/// A tile of 32 rows and 32 outputs. Without `AMX` portable code replaces its instructions, to test
/// the packing of operands.
pub(super) struct AmxKernel<const AMX: bool>;

impl<const AMX: bool> MicroKernel for AmxKernel<AMX> {
    const ROWS: usize = WIDTH;
    const COLUMNS: usize = WIDTH;
    const PAIRS: bool = true;
    const STEP: usize = SIDE;
    /// CPUs with AMX have 2 MB of L2 cache, half of which these panels take.
    const SPAN: usize = 2;

    fn available() -> bool {
        Avx512Bf16::available() && (!AMX || *PERMITTED)
    }

    #[inline(always)]
    unsafe fn begin() {
        if AMX {
            // SAFETY: `available` checked the system's permission for tiles, and a `Config` has 64
            // bytes.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly)) };
        }
    }

    #[inline(always)]
    unsafe fn end() {
        if AMX {
            // SAFETY: `begin` configured the tiles, and `compute` stored their contents.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    #[inline(always)]
    unsafe fn pack_rows(x: &Lhs, first: usize, from: usize, depth: usize, to: &mut [f32]) {
        // SAFETY: `available` checked that the CPU has AVX-512 with bf16.
        unsafe { pack_rows(x, first, from, depth, to) }
    }

    #[inline(always)]
    unsafe fn pack_panel(w: &Rhs, first: usize, from: usize, depth: usize, to: &mut [f32]) {
        // SAFETY: `available` checked that the CPU has AVX-512 with bf16.
        unsafe { pack_panel(w, first, from, depth, to) }
    }

    #[inline(always)]
    unsafe fn compute(depth: usize, x: *const f32, w: *const f32, dst: TileDst) {
        // To fill this with zeros would take a twentieth of the time.
        let mut sums = Sums([const { MaybeUninit::uninit() }; 4 * AREA]);
        let halves = dst.rows.div_ceil(SIDE);
        let to = sums.0.as_mut_ptr().cast::<f32>();
        // SAFETY: the caller promises operands of this depth, a multiple of `SIDE`, between `begin`
        // and `end`. `sums` has room for four hardware tiles, of which those of the first `halves`
        // rows are stored and read. `add` gets rows and columns within the destination.
        unsafe {
            match (AMX, halves) {
                (true, 1) => one(depth, x, w, to),
                (true, _) => two(depth, x, w, to),
                (false, _) => {
                    to.write_bytes(0, 4 * AREA);
                    plain(depth, x, w, std::slice::from_raw_parts_mut(to, 4 * AREA));
                }
            }
            for at in 0..4 {
                let (row, column) = (at % 2 * SIDE, at / 2 * SIDE);
                if row < dst.rows && column < dst.columns {
                    add(&*to.add(at * AREA).cast(), row, column, &dst);
                }
            }
        }
    }
}

/// True if the system permits this process to use tiles. The permission must be requested.
static PERMITTED: LazyLock<bool> = LazyLock::new(|| {
    let leaf = __cpuid_count(7, 0);
    let (amx_bf16, amx_tile) = (leaf.edx >> 22 & 1 == 1, leaf.edx >> 24 & 1 == 1);
    amx_bf16 && amx_tile && permit()
});

/// Linux reserves the 8 KB of a thread's tiles only on request (arch_prctl(2),
/// `ARCH_REQ_XCOMP_PERM`).
#[cfg(target_os = "linux")]
fn permit() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers, and only changes the size of signal frames.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permit() -> bool {
    false
}

/// The operand of `ldtilecfg`: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

const TILES: usize = 8;

static CONFIG: Config = {
    let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let mut tile = 0;
    while tile < TILES {
        config.row_bytes[tile] = 4 * SIDE as u16;
        config.rows[tile] = SIDE as u8;
        tile += 1;
    }
    config
};

/// Room for four hardware tiles of sums: [outputs / SIDE][rows / SIDE][SIDE outputs][SIDE rows].
#[repr(align(64))]
struct Sums([MaybeUninit<f32>; 4 * AREA]);

/// Computes all four tiles of sums.
///
/// The same panel of the weight meets several tiles of x in turn, and one of each is more than the
/// L1 cache holds. The hint T1 says that the numbers of x are not used again soon, so that the
/// panel stays there.
///
/// # Safety
/// Tiles are configured. `x` and `w` point to `depth` rows of `WIDTH` words, where `depth` is a
/// multiple of `SIDE`, and `sums` to four tiles.
#[inline(always)]
unsafe fn two(depth: usize, x: *const f32, w: *const f32, sums: *mut f32) {
    // SAFETY: each iteration reads `SIDE` rows of both operands, and `sums` holds four tiles.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloaddt1 tmm6, [{x} + {rows_of_x}]",
            "tileloadd tmm4, [{w} + {line}]",
            "tileloaddt1 tmm7, [{x} + {rows_of_x} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{w} + {line} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {x}, 2048",
            "add {w}, 2048",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            x = inout(reg) x => _,
            w = inout(reg) w => _,
            steps = inout(reg) depth / SIDE => _,
            sums = in(reg) sums,
            rows_of_x = in(reg) 4 * WIDTH,
            line = in(reg) 4 * SIDE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Computes the tiles of the first 16 rows alone.
///
/// # Safety
/// As for `two`.
#[inline(always)]
unsafe fn one(depth: usize, x: *const f32, w: *const f32, sums: *mut f32) {
    // SAFETY: as in `two`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm2",
            "2:",
            "tileloaddt1 tmm6, [{x} + {rows_of_x}]",
            "tileloadd tmm4, [{w} + {line}]",
            "tileloadd tmm5, [{w} + {line} + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "add {x}, 2048",
            "add {w}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 2048], tmm2",
            x = inout(reg) x => _,
            w = inout(reg) w => _,
            steps = inout(reg) depth / SIDE => _,
            sums = in(reg) sums,
            rows_of_x = in(reg) 4 * WIDTH,
            line = in(reg) 4 * SIDE,
            out("tmm0") _, out("tmm2") _, out("tmm4") _, out("tmm5") _, out("tmm6") _,
            options(nostack),
        );
    }
}

/// `two` in portable code.
///
/// # Safety
/// `x` points to `depth` rows of `WIDTH` words, and `w` to a panel of the same size.
unsafe fn plain(depth: usize, x: *const f32, w: *const f32, sums: &mut [f32]) {
    // SAFETY: the caller promises this number of words.
    let (x, w) =
        unsafe { (std::slice::from_raw_parts(x, depth * WIDTH), std::slice::from_raw_parts(w, depth * WIDTH)) };
    let halves = |word: f32| [word.to_bits() << 16, word.to_bits() & 0xffff_0000].map(f32::from_bits);
    for (at, sum) in sums.iter_mut().enumerate() {
        let (row, output) = (at / AREA % 2 * SIDE + at % SIDE, at / AREA / 2 * SIDE + at % AREA / SIDE);
        for k in 0..depth {
            let x = halves(x[k * WIDTH + row]);
            let w = halves(w[k / SIDE * WIDTH * SIDE + output * SIDE + k % SIDE]);
            *sum += x[0] * w[0] + x[1] * w[1];
        }
    }
}

/// Adds 16 outputs of 16 rows to the destination, from its `row` and `column` on.
///
/// # Safety
/// `dst` points to its rows and columns, and to a bias for each column; `row` and `column` are
/// within them.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add(sums: &[f32; AREA], row: usize, column: usize, dst: &TileDst) {
    let mut rows = [_mm512_setzero_ps(); SIDE];
    for (row, sums) in rows.iter_mut().zip(sums.as_chunks::<SIDE>().0) {
        *row = load(sums);
    }
    let rows = transpose_16x16(&rows);
    let mask = first(dst.columns - column);
    let bias = match dst.accumulate {
        // SAFETY: the caller promises a bias for each column, and masked lanes are not read.
        Accumulate::Bias(bias) => unsafe { _mm512_maskz_loadu_ps(mask, bias.add(column)) },
        _ => _mm512_setzero_ps(),
    };
    // The constant number of iterations keeps the rows in registers.
    for (r, sums) in rows.iter().enumerate() {
        if row + r >= dst.rows {
            break;
        }
        // SAFETY: row and columns are within the destination, and masked lanes are not accessed.
        unsafe {
            let to = dst.y.add((row + r) * dst.stride + column);
            let accumulate =
                if dst.accumulate == Accumulate::Existing { _mm512_maskz_loadu_ps(mask, to) } else { bias };
            _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(accumulate, *sums));
        }
    }
}

/// Loads a register of 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[f32; SIDE]) -> __m512 {
    // SAFETY: the array has as many words as a register.
    unsafe { _mm512_loadu_ps(words.as_ptr()) }
}

/// Stores a register to the first 16 words of `to`.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [f32], words: __m512) {
    // SAFETY: the slice has as many words as a register.
    unsafe { _mm512_storeu_ps(to[..SIDE].as_mut_ptr(), words) }
}

/// Packs rows of x as [depth][WIDTH].
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack_rows(x: &Lhs, first: usize, from: usize, depth: usize, to: &mut [f32]) {
    for half in (0..WIDTH).step_by(SIDE) {
        let mut rows: [&[f32]; SIDE] = [&[]; SIDE];
        for (i, row) in rows.iter_mut().enumerate().take(x.rows.saturating_sub(first + half)) {
            *row = &x.row(first + half + i)[2 * from..];
        }
        for step in (0..depth).step_by(SIDE) {
            let mut words = [_mm512_setzero_ps(); SIDE];
            for (words, row) in words.iter_mut().zip(rows) {
                *words = pack_bf16x2(row.get(2 * step..).unwrap_or(&[]));
            }
            for (k, words) in transpose_16x16(&words).iter().enumerate() {
                store(&mut to[(step + k) * WIDTH + half..], *words);
            }
        }
    }
}

/// Packs a panel as [depth / SIDE][WIDTH][SIDE]: the rows of a hardware tile are consecutive.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack_panel(w: &Rhs, first: usize, from: usize, depth: usize, to: &mut [f32]) {
    let columns = WIDTH.min(w.out - first);
    for step in (0..depth).step_by(SIDE) {
        let input = 2 * (from + step);
        let inputs = (2 * SIDE).min(w.input - input);
        let to = &mut to[step * WIDTH..][..SIDE * WIDTH];
        match w.order {
            Order::OutIn => {
                for n in 0..columns {
                    let at = (first + n) * w.stride + input;
                    let words = match w.values {
                        Values::Bf16(values) => load_bf16x2(&values[at..at + inputs]),
                        Values::F32(values) => pack_bf16x2(&values[at..at + inputs]),
                        Values::Codes(_) => unreachable!("codes are decoded before they are packed"),
                    };
                    store(&mut to[n * SIDE..], words);
                }
            }
            Order::InOut => {
                for n in (0..columns).step_by(SIDE) {
                    let count = SIDE.min(columns - n);
                    let mut numbers = [_mm512_setzero_si512(); 2 * SIDE];
                    for (k, numbers) in numbers.iter_mut().enumerate().take(inputs) {
                        let at = (input + k) * w.stride + first + n;
                        *numbers = match w.values {
                            Values::Bf16(values) => load_bf16_words(&values[at..at + count]),
                            Values::F32(values) => to_bf16_words(&values[at..at + count]),
                            Values::Codes(_) => unreachable!("codes are decoded before they are packed"),
                        };
                    }
                    let mut words = [_mm512_setzero_ps(); SIDE];
                    for (words, [low, high]) in words.iter_mut().zip(numbers.as_chunks::<2>().0) {
                        *words = _mm512_castsi512_ps(_mm512_or_si512(*low, _mm512_slli_epi32::<16>(*high)));
                    }
                    for (i, output) in transpose_16x16(&words).iter().enumerate() {
                        store(&mut to[(n + i) * SIDE..], *output);
                    }
                }
            }
        }
        if columns < WIDTH {
            to[columns * SIDE..].fill(0.0);
        }
    }
}

/// Rounds up to 32 numbers to bf16 and packs them into 16 words, padded with zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack_bf16x2(row: &[f32]) -> __m512 {
    let (low, high) = match row.first_chunk::<{ 2 * SIDE }>() {
        Some(whole) => {
            let [low, high] = whole.as_chunks::<SIDE>().0 else { unreachable!("two registers") };
            (load(low), load(high))
        }
        None => (load_up_to_16(row), load_up_to_16(row.get(SIDE..).unwrap_or(&[]))),
    };
    // SAFETY: both types are 512 bits wide, and every bit pattern is valid.
    unsafe { std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Rounds up to 16 numbers to bf16, in the low halves of 16 words, padded with zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn to_bf16_words(row: &[f32]) -> __m512i {
    // SAFETY: both types are 256 bits wide, and every bit pattern is valid.
    _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(load_up_to_16(row))) })
}

/// A mask of the first `count` of 16 lanes.
fn first(count: usize) -> __mmask16 {
    if count < SIDE { (1 << count) - 1 } else { __mmask16::MAX }
}

/// Loads up to 16 numbers, padded with zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_up_to_16(row: &[f32]) -> __m512 {
    // SAFETY: masked lanes are not read.
    unsafe { _mm512_maskz_loadu_ps(first(row.len()), row.as_ptr()) }
}

/// Loads up to 32 bf16 numbers as 16 words, padded with zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_bf16x2(row: &[bf16]) -> __m512 {
    let mut all = [bf16::ZERO; 2 * SIDE];
    let from = match row.first_chunk::<{ 2 * SIDE }>() {
        Some(whole) => whole,
        None => {
            all[..row.len()].copy_from_slice(row);
            &all
        }
    };
    // SAFETY: 32 bf16 numbers have 64 bytes, the size of a register.
    unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
}

/// Loads up to 16 bf16 numbers into the low halves of 16 words, padded with zeros.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_bf16_words(row: &[bf16]) -> __m512i {
    let mut all = [bf16::ZERO; SIDE];
    let from = match row.first_chunk::<SIDE>() {
        Some(whole) => whole,
        None => {
            all[..row.len()].copy_from_slice(row);
            &all
        }
    };
    // SAFETY: 16 bf16 numbers have 32 bytes, the size of the load.
    _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
}
