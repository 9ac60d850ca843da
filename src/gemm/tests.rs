//! Tests of products against sums in f64, for every kind of micro-kernel that this CPU can run.

use half::bf16;
use rand::{Rng, SeedableRng};

use super::*;
use crate::vocabulary::Order;

/// Sizes that end within a tile, a panel and a block of depth, and odd inputs.
const SIZES: [(usize, usize, usize); 6] =
    [(1, 1, 1), (7, 33, 17), (13, 257, 40), (100, 515, 65), (3, 1024, 300), (70, 64, 7)];

struct Case {
    x: Vec<f32>,
    w: Vec<bf16>,
    bias: Vec<f32>,
    sizes: (usize, usize, usize),
}

impl Case {
    fn new((rows, input, out): (usize, usize, usize)) -> Self {
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64((rows + input + out) as u64);
        let mut random = |count| (0..count).map(|_| rng.random_range(-1.0..1.0f32)).collect::<Vec<_>>();
        let w = random(input * out).into_iter().map(bf16::from_f32).collect();
        Self { x: random(rows * input), w, bias: random(out), sizes: (rows, input, out) }
    }

    fn weight_in_f32(&self) -> Vec<f32> {
        self.w.iter().map(|w| w.to_f32()).collect()
    }

    /// `values` are the stored weight, in either order.
    fn product(&self, kind: Kind, values: Values, order: Order) -> Vec<f32> {
        let (rows, input, out) = self.sizes;
        let stride = if order == Order::OutIn { input } else { out };
        let mut y = vec![f32::NAN; rows * out];
        let w = Rhs { values, stride, order, input, out };
        let product = Gemm { w, bias: Some(&self.bias), y: Dst { values: &mut y, stride: out } };
        gemm_all(kind, &Lhs::all(&self.x, input), &mut [product]);
        y
    }

    /// The largest difference from sums in f64, with x rounded as the kind rounds it.
    fn error(&self, kind: Kind, y: &[f32]) -> f64 {
        let (rows, input, out) = self.sizes;
        let seen = |x: f32| if kind.pairs() { bf16::from_f32(x).to_f32() } else { x } as f64;
        let w = self.weight_in_f32();
        let mut worst = 0f64;
        for (m, n) in (0..rows).flat_map(|m| (0..out).map(move |n| (m, n))) {
            let sum: f64 = (0..input).map(|k| seen(self.x[m * input + k]) * w[n * input + k] as f64).sum();
            let difference = (sum + self.bias[n] as f64 - y[m * out + n] as f64).abs();
            worst = if difference <= worst { worst } else { difference };
        }
        worst
    }
}

/// Codes for twice what they stand for.
struct Halves<'a> {
    values: &'a [f32],
    input: usize,
}

impl Codes for Halves<'_> {
    fn decode(&self, row: usize, from: usize, to: &mut [f32]) {
        let values = &self.values[row * self.input + from..][..to.len()];
        to.iter_mut().zip(values).for_each(|(to, value)| *to = value * 2.0 / 2.0);
    }
}

fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns).copied()).collect()
}

#[test]
fn every_kind_of_tile_gives_the_sums() {
    for (kind, sizes) in Kind::all_available().into_iter().flat_map(|kind| SIZES.map(|sizes| (kind, sizes))) {
        let case = Case::new(sizes);
        let (narrow, input) = (case.w.clone(), sizes.1);
        let turned = transposed(&narrow, input);
        let first = case.product(kind, Values::Bf16(&narrow), Order::OutIn);
        let error = case.error(kind, &first);
        assert!(error < 2e-5, "{kind:?} {sizes:?}: {error:e}");
        assert_eq!(first, case.product(kind, Values::Bf16(&turned), Order::InOut), "{kind:?} {sizes:?}, [in, out]");
        // Values that round to the same bf16.
        let nudge = if kind.pairs() { 1.0 + 2f32.powi(-12) } else { 1.0 };
        let wide: Vec<f32> = case.weight_in_f32().into_iter().map(|w| w * nudge).collect();
        let turned = transposed(&wide, input);
        assert_eq!(first, case.product(kind, Values::F32(&wide), Order::OutIn), "{kind:?} {sizes:?}, f32");
        assert_eq!(first, case.product(kind, Values::F32(&turned), Order::InOut), "{kind:?} {sizes:?}, f32 [in, out]");
        let codes = Halves { values: &wide, input };
        assert_eq!(first, case.product(kind, Values::Codes(&codes), Order::OutIn), "{kind:?} {sizes:?}, codes");
    }
}

#[test]
fn rows_outputs_and_threads_may_be_divided_anyhow() {
    for kind in Kind::all_available() {
        let case = Case::new((100, 515, 65));
        let (rows, input, out) = case.sizes;
        let all = case.product(kind, Values::Bf16(&case.w), Order::OutIn);
        for threads in [1, 3, 16] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(
                all,
                pool.install(|| case.product(kind, Values::Bf16(&case.w), Order::OutIn)),
                "{threads} threads"
            );
        }
        // Some of the rows, on one thread, into a wider matrix.
        let indices = [3u32, 50, 99];
        let x = Lhs { values: &case.x, stride: input, rows: indices.len(), columns: input, indices: Some(&indices) };
        let w = Rhs { values: Values::Bf16(&case.w), stride: input, order: Order::OutIn, input, out };
        let mut y = vec![0f32; indices.len() * (out + 5)];
        gemm_on_this_thread(kind, &x, &w, Dst { values: &mut y, stride: out + 5 });
        let without_bias = Case { bias: vec![0.0; out], ..Case::new((rows, input, out)) };
        let all = without_bias.product(kind, Values::Bf16(&case.w), Order::OutIn);
        for (y, row) in y.chunks(out + 5).zip(indices) {
            assert_eq!(&y[..out], &all[row as usize * out..][..out], "{kind:?} row {row}");
        }
    }
}

#[test]
fn pieces_that_are_seen_are_those_of_the_product() {
    // The last has more than one piece of every kind.
    for (rows, input, out) in [(1, 1, 1), (70, 515, 65), (40, 96, 1100)] {
        let (case, other) = (Case::new((rows, input, out)), Case::new((rows, input, out + 1)));
        let without_bias = |x: &[f32], kind| {
            let case = Case { x: x.to_vec(), bias: vec![0.0; out], w: case.w.clone(), sizes: case.sizes };
            case.product(kind, Values::Bf16(&case.w), Order::OutIn)
        };
        for kind in Kind::all_available() {
            let xs = [&case.x, &other.x, &case.x];
            let w = Rhs { values: Values::Bf16(&case.w), stride: input, order: Order::OutIn, input, out };
            let operands = xs.map(|x| Lhs::all(x, input));
            let pieces = products_seen(kind, &operands, &w, Vec::new, |seen: &mut Vec<_>, piece: Seen| {
                assert_eq!(piece.operand, seen.len() % xs.len());
                assert_eq!(piece.first.is_empty(), piece.operand == 0);
                let first: &[f32] = if piece.operand == 0 { piece.values } else { piece.first };
                seen.push((piece.operand, piece.rows, piece.columns, first.to_vec(), piece.values.to_vec()));
            });
            assert_eq!(pieces.len(), out.div_ceil(seen_columns(kind, input)), "{kind:?}");
            let (mut all, expected) = (xs.map(|_| vec![f32::NAN; rows * out]), xs.map(|x| without_bias(x, kind)));
            for (operand, rows, columns, first, values) in pieces.into_iter().flatten() {
                for (i, row) in rows.enumerate() {
                    let place = row * out + columns.start..row * out + columns.end;
                    let of_row = i * columns.len()..(i + 1) * columns.len();
                    assert_eq!(first[of_row.clone()], expected[0][place.clone()], "{kind:?} row {row}");
                    all[operand][place].copy_from_slice(&values[of_row]);
                }
            }
            assert_eq!(all, expected, "{kind:?} {rows} x {input} x {out}");
        }
    }
}

#[test]
fn wide_registers_agree_bit_for_bit() {
    let kinds: Vec<Kind> =
        Kind::all_available().into_iter().filter(|kind| !kind.pairs() && *kind != Kind::Portable).collect();
    let case = Case::new((70, 300, 50));
    let results: Vec<_> = kinds.iter().map(|kind| case.product(*kind, Values::Bf16(&case.w), Order::OutIn)).collect();
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{kinds:?}");
}

#[test]
fn operands_that_do_not_fit_are_refused_before_anything_is_written() {
    let case = Case::new((3, 8, 4));
    let w = Rhs { values: Values::Bf16(&case.w), stride: 8, order: Order::OutIn, input: 8, out: 4 };
    let x = Lhs::all(&case.x, 8);
    let refused = |bias: Option<&[f32]>, stride: usize, room: usize| {
        let mut y = vec![0.5; room];
        let product = || gemm_all(Kind::best(false), &x, &mut [Gemm { w, bias, y: Dst { values: &mut y, stride } }]);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(product)).is_err();
        panicked && y.iter().all(|y| *y == 0.5)
    };
    assert!(refused(Some(&case.bias[..3]), 4, 12), "a bias that is too short");
    assert!(refused(None, 3, 12), "rows that overlap");
    assert!(refused(None, 4, 11), "too little room");
    assert!(refused(None, usize::MAX, 12), "a stride that overflows");
    assert!(!refused(Some(&case.bias), 4, 12));
}
