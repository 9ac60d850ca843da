//! Tiles of AMX (Intel 64 and IA-32 Architectures Software Developer's Manual 1, chapter 18): 16 outputs by 16 rows of x, 32 numbers deep, at once.
//!
//! The weight is the left operand: its rows are copied as stored. x, small where products are slow, is transposed, and so are the sums, back into y.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::LazyLock;

use half::bf16;

use super::avx::Avx512Bf16;
use super::lanes::Lanes;
use super::operands::{Rows, Values, Weight};
use super::tile::{Before, Place, Tile};
use crate::vocabulary::Order;

/// Rows, and words of a row, of one hardware tile.
const SIDE: usize = 16;
/// Words of one hardware tile.
const AREA: usize = SIDE * SIDE;
/// Rows of x and outputs of our tile: two hardware tiles each, so that every one that is loaded is used twice.
const WIDTH: usize = 2 * SIDE;

/// A tile of 32 rows and 32 outputs. Without `AMX` plain code stands for its instructions, for tests of how operands lie.
pub struct Tiles<const AMX: bool>;

impl<const AMX: bool> Tile for Tiles<AMX> {
    const ROWS: usize = WIDTH;
    const COLUMNS: usize = WIDTH;
    const PAIRS: bool = true;
    const STEP: usize = SIDE;

    fn available() -> bool {
        Avx512Bf16::available() && (!AMX || *PERMITTED)
    }

    #[inline(always)]
    unsafe fn begin() {
        if AMX {
            // SAFETY: the system has permitted tiles, as `available` says, and reads a `Config` of 64 bytes.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(nostack, readonly)) };
        }
    }

    #[inline(always)]
    unsafe fn end() {
        if AMX {
            // SAFETY: `begin` has configured the tiles, and `compute` has stored all that they held.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    #[inline(always)]
    unsafe fn pack_rows(x: &Rows, first: usize, from: usize, depth: usize, to: &mut [f32]) {
        // SAFETY: `available` says that the CPU has AVX-512 with bf16.
        unsafe { pack_rows(x, first, from, depth, to) }
    }

    #[inline(always)]
    unsafe fn pack_panel(w: &Weight, first: usize, from: usize, depth: usize, to: &mut [f32]) {
        // SAFETY: `available` says that the CPU has AVX-512 with bf16.
        unsafe { pack_panel(w, first, from, depth, to) }
    }

    #[inline(always)]
    unsafe fn compute(depth: usize, x: *const f32, w: *const f32, place: Place) {
        let mut sums = Sums([0.0; 4 * AREA]);
        let halves = place.rows.div_ceil(SIDE);
        // SAFETY: the caller promises operands of this depth, which is a multiple of `SIDE`, between `begin` and `end`; `sums`
        // has room for four hardware tiles, and `add` is called for rows and columns that the place has.
        unsafe {
            match (AMX, halves) {
                (true, 1) => one(depth, x, w, sums.0.as_mut_ptr()),
                (true, _) => two(depth, x, w, sums.0.as_mut_ptr()),
                (false, _) => plain(depth, x, w, &mut sums.0),
            }
            for (at, sums) in sums.0.as_chunks::<AREA>().0.iter().enumerate() {
                let (row, column) = (at % 2 * SIDE, at / 2 * SIDE);
                if row < place.rows && column < place.columns {
                    add(sums, row, column, &place);
                }
            }
        }
    }
}

/// Whether the system lets this process use tiles; asking for it is what permits it.
static PERMITTED: LazyLock<bool> = LazyLock::new(|| {
    let leaf = __cpuid_count(7, 0);
    let (amx_bf16, amx_tile) = (leaf.edx >> 22 & 1 == 1, leaf.edx >> 24 & 1 == 1);
    amx_bf16 && amx_tile && permit()
});

/// Linux keeps no room for the 8 KB of tiles of a thread unless asked (arch_prctl(2), `ARCH_REQ_XCOMP_PERM`).
#[cfg(target_os = "linux")]
fn permit() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers, and changes nothing but how much a signal's frame holds.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permit() -> bool {
    false
}

/// What `ldtilecfg` reads: eight tiles of 16 rows of 64 bytes.
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

/// Four hardware tiles of sums: [outputs / SIDE][rows / SIDE][SIDE outputs][SIDE rows].
#[repr(align(64))]
struct Sums([f32; 4 * AREA]);

/// All four tiles of sums.
///
/// # Safety
/// Tiles are configured; `x` and `w` lead to `depth` rows of `WIDTH` words, a multiple of `SIDE`, and `sums` to four tiles.
#[inline(always)]
unsafe fn two(depth: usize, x: *const f32, w: *const f32, sums: *mut f32) {
    // SAFETY: each turn reads `SIDE` rows of both operands, as many turns as there are, and what is stored has room.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{x} + {rows_of_x}]",
            "tileloadd tmm4, [{w} + {line}]",
            "tileloadd tmm7, [{x} + {rows_of_x} + 64]",
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

/// The tiles of the first rows alone.
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
            "tileloadd tmm6, [{x} + {rows_of_x}]",
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

/// `two` in plain code.
///
/// # Safety
/// `x` leads to `depth` rows of `WIDTH` words, and `w` to a panel of as many.
unsafe fn plain(depth: usize, x: *const f32, w: *const f32, sums: &mut [f32]) {
    // SAFETY: the caller promises as many words.
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

/// Adds 16 outputs of 16 rows, from `row` and `column` of the place on, to what was before.
///
/// # Safety
/// `place` leads to room for its rows and columns, and to as many values of a bias; `row` and `column` are among them.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add(sums: &[f32; AREA], row: usize, column: usize, place: &Place) {
    let mut rows = [_mm512_setzero_ps(); SIDE];
    for (row, sums) in rows.iter_mut().zip(sums.as_chunks::<SIDE>().0) {
        *row = load(sums);
    }
    let rows = turned(&rows);
    let mask = first(place.columns - column);
    let bias = match place.before {
        // SAFETY: the caller promises a value for each column of the place; lanes past the last are not read.
        Before::Bias(bias) => unsafe { _mm512_maskz_loadu_ps(mask, bias.add(column)) },
        _ => _mm512_setzero_ps(),
    };
    // A constant number of turns, so that the rows stay in registers.
    for (r, sums) in rows.iter().enumerate() {
        if row + r >= place.rows {
            break;
        }
        // SAFETY: the row and the columns are those of the place; lanes past the last are neither read nor written.
        unsafe {
            let to = place.y.add((row + r) * place.stride + column);
            let before = if place.before == Before::Sums { _mm512_maskz_loadu_ps(mask, to) } else { bias };
            _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(before, *sums));
        }
    }
}

/// A register of 16 words.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[f32; SIDE]) -> __m512 {
    // SAFETY: there are as many words as a register has.
    unsafe { _mm512_loadu_ps(words.as_ptr()) }
}

/// Writes a register to the first 16 words of `to`.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(to: &mut [f32], words: __m512) {
    // SAFETY: there is room for as many words as a register has.
    unsafe { _mm512_storeu_ps(to[..SIDE].as_mut_ptr(), words) }
}

/// Packs rows of x as [depth][WIDTH].
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack_rows(x: &Rows, first: usize, from: usize, depth: usize, to: &mut [f32]) {
    for half in (0..WIDTH).step_by(SIDE) {
        let mut rows: [&[f32]; SIDE] = [&[]; SIDE];
        for (i, row) in rows.iter_mut().enumerate().take(x.rows.saturating_sub(first + half)) {
            *row = &x.row(first + half + i)[2 * from..];
        }
        for step in (0..depth).step_by(SIDE) {
            let mut words = [_mm512_setzero_ps(); SIDE];
            for (words, row) in words.iter_mut().zip(rows) {
                *words = rounded(row.get(2 * step..).unwrap_or(&[]));
            }
            for (k, words) in turned(&words).iter().enumerate() {
                store(&mut to[(step + k) * WIDTH + half..], *words);
            }
        }
    }
}

/// Packs a panel as [depth / SIDE][WIDTH][SIDE]: the rows of a hardware tile lie behind each other.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn pack_panel(w: &Weight, first: usize, from: usize, depth: usize, to: &mut [f32]) {
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
                        Values::Bf16(values) => padded(&values[at..at + inputs]),
                        Values::F32(values) => rounded(&values[at..at + inputs]),
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
                            Values::Bf16(values) => widened(&values[at..at + count]),
                            Values::F32(values) => rounded_apart(&values[at..at + count]),
                            Values::Codes(_) => unreachable!("codes are decoded before they are packed"),
                        };
                    }
                    let mut words = [_mm512_setzero_ps(); SIDE];
                    for (words, [low, high]) in words.iter_mut().zip(numbers.as_chunks::<2>().0) {
                        *words = _mm512_castsi512_ps(_mm512_or_si512(*low, _mm512_slli_epi32::<16>(*high)));
                    }
                    for (i, output) in turned(&words).iter().enumerate() {
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

/// 16 words of the first 32 numbers, or of as many as there are, rounded to bf16; zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded(row: &[f32]) -> __m512 {
    let (low, high) = match row.first_chunk::<{ 2 * SIDE }>() {
        Some(whole) => {
            let [low, high] = whole.as_chunks::<SIDE>().0 else { unreachable!("two registers") };
            (load(low), load(high))
        }
        None => (up_to_16(row), up_to_16(row.get(SIDE..).unwrap_or(&[]))),
    };
    // SAFETY: both are registers of 512 bits, any of which are numbers.
    unsafe { std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Up to 16 numbers rounded to bf16, one per word, in its low half; zeros after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn rounded_apart(row: &[f32]) -> __m512i {
    // SAFETY: both are registers of 256 bits, any of which are numbers.
    _mm512_cvtepu16_epi32(unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(up_to_16(row))) })
}

/// Lanes of the first `count` of 16.
fn first(count: usize) -> __mmask16 {
    if count < SIDE { (1 << count) - 1 } else { __mmask16::MAX }
}

/// The first 16 numbers, zeros where there are fewer.
#[inline]
#[target_feature(enable = "avx512f")]
fn up_to_16(row: &[f32]) -> __m512 {
    // SAFETY: lanes past the end are not read.
    unsafe { _mm512_maskz_loadu_ps(first(row.len()), row.as_ptr()) }
}

/// Up to 32 numbers as words, zeros after them.
#[inline]
#[target_feature(enable = "avx512f")]
fn padded(row: &[bf16]) -> __m512 {
    let mut all = [bf16::ZERO; 2 * SIDE];
    let from = match row.first_chunk::<{ 2 * SIDE }>() {
        Some(whole) => whole,
        None => {
            all[..row.len()].copy_from_slice(row);
            &all
        }
    };
    // SAFETY: 32 bf16 are 64 bytes, as many as a register has.
    unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
}

/// Up to 16 numbers, one per word, in its low half; zeros after them.
#[inline]
#[target_feature(enable = "avx512f")]
fn widened(row: &[bf16]) -> __m512i {
    let mut all = [bf16::ZERO; SIDE];
    let from = match row.first_chunk::<SIDE>() {
        Some(whole) => whole,
        None => {
            all[..row.len()].copy_from_slice(row);
            &all
        }
    };
    // SAFETY: 16 bf16 are 32 bytes, as many as are read.
    _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
}

/// The columns of 16 rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn turned(rows: &[__m512; SIDE]) -> [__m512; SIDE] {
    let zero = _mm512_setzero_ps();
    // Of two rows each: columns 4 l and 4 l + 1 in lane l, and the two after them.
    let mut pairs = [zero; SIDE];
    for i in (0..SIDE).step_by(2) {
        pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    }
    // Of four rows each: column 4 l + c in lane l of the c-th.
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
