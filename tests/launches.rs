//! Tests that kernels and copies whose arguments do not fit are not launched. They run on the
//! emulated GPU, which ends the process when memory outside of arrays is accessed.

use outlier::cuda::table::{Add, Gather, SigmoidGate, WidenBf16};
use outlier::cuda::{Array, Context, Element, HeadSizes, Heads, Indices, Operands};
use outlier::error::{Kind, Result};

use crate::gpu::pass;

/// The message of a fault.
#[track_caller]
fn fault<T>(outcome: Result<T>) -> String {
    let error = outcome.err().expect("an error");
    assert_eq!(error.kind, Kind::Internal, "{error}");
    error.to_string()
}

#[test]
fn what_does_not_fit_is_not_started() {
    if std::env::var_os("OUTLIER_TEST_DEVICE").is_none() {
        return pass("cuda:0", &["launches::what_does_not_fit_is_not_started"]);
    }
    let (gpu, other) = (Context::open(0).unwrap(), Context::open(1).unwrap());
    let four = |context| Array::uploaded(context, &[0; 16], &[4], Element::F32).unwrap();
    let values = |numbers: &[f32]| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        Array::uploaded(&gpu, &bytes, &[numbers.len()], Element::F32).unwrap()
    };
    let (to, x) = (values(&[1.0, 2.0, 3.0, 4.0]), values(&[10.0, 20.0, 30.0, 40.0]));
    Add { to: &to, x: &x, count: 4 }.launch().unwrap();
    let mut sums = [0; 16];
    to.download(&mut sums).unwrap();
    assert_eq!(sums, *[11f32, 22.0, 33.0, 44.0].map(f32::to_ne_bytes).as_flattened());

    let short = fault(Add { to: &to, x: &values(&[1.0; 3]), count: 4 }.launch());
    assert!(short.contains("kernel add: x is F32 [3] on a GPU, and 4 numbers are needed"), "{short}");
    let wide = fault(WidenBf16 { out: &to, x: &x, count: 4 }.launch());
    assert!(wide.contains("kernel widen_bf16: x is F32 [4] on a GPU, of another type"), "{wide}");
    let elsewhere = fault(Add { to: &to, x: &four(&other), count: 4 }.launch());
    assert!(elsewhere.contains("kernel add: x is on another GPU"), "{elsewhere}");
    let arriving = Array::broadcast(&[&gpu], &[4], Element::F32, 0, |_, _| Ok(())).unwrap().remove(0);
    let early = fault(Add { to: &to, x: &arriving, count: 4 }.launch());
    assert!(early.contains("or another stream"), "{early}");
    Add { to: &to, x: &arriving.hand_to_compute_stream().unwrap(), count: 4 }.launch().unwrap();
    let none = fault(SigmoidGate { x: &to, gates: &x, count: 4, per_gate: 0 }.launch());
    assert!(none.contains("kernel sigmoid_gate: its sizes do not fit: (per_gate > 0)"), "{none}");

    // Rows that an index leads past.
    let rows = |rows: &[u32]| Indices::uploaded(&gpu, rows, 1).unwrap();
    let gather = |rows: &Indices| Gather { out: &to, x: &x, rows, count: 4, hidden: 2 }.launch();
    gather(&rows(&[1, 0])).unwrap();
    let past = fault(gather(&rows(&[0, 2])));
    assert!(past.contains("kernel gather: x is F32 [4] on a GPU, and 6 numbers are needed"), "{past}");

    // Nothing to do is no fault.
    Add { to: &to, x: &x, count: 0 }.launch().unwrap();

    // Rows that are not there, and copies of them.
    assert!(fault(x.rows(3, 2)).contains("rows 3..5 of [4]"));
    assert!(fault(x.rows(usize::MAX, 2)).contains("of [4]"));
    assert!(fault(x.reshaped(&[5])).contains("[4] cannot become [5]"));
    assert!(fault(to.set_rows(&x, 1)).contains("bytes 4..20 of 16"));
    assert!(fault(to.set_rows(&four(&other), 0)).contains("from memory of another"));
    assert!(fault(to.set_rows(&to.rows(0, 3).unwrap(), 1)).contains("to where they are"));
    let shared = Array::broadcast(&[&gpu], &[4], Element::F32, 0, |_, _| Ok(())).unwrap().remove(0);
    let clone = shared.clone();
    assert!(fault(shared.hand_to_compute_stream()).contains("is shared before it is complete"));
    drop(clone);

    // Attention of two queries to two keys, of two heads that share one of keys.
    let sizes = HeadSizes { heads: 2, group: 2, head_dim: 2, value_dim: 3 };
    let matrix = |rows: usize, width: usize| Array::zeros(&gpu, &[rows, width], Element::F32).unwrap();
    let operands = |keys: usize, room: usize| Operands {
        q: matrix(2, 4),
        out: matrix(2, 6),
        k: matrix(keys, 2),
        v: matrix(2, 3),
        scores: matrix(1, room),
    };
    let mut heads = Heads::new(&gpu, sizes).unwrap();
    heads.bind(operands(2, 8)).unwrap().scores(outlier::cuda::Precision::F32).unwrap();
    for (keys, room) in [(2, 7), (1, 8), (3, 12)] {
        assert!(fault(heads.bind(operands(keys, room)).map(drop)).contains("attention of F32 [2, 4]"));
    }
    assert!(fault(Heads::new(&gpu, HeadSizes { group: 3, ..sizes })).contains("2 heads in groups of 3"));
    let product =
        outlier::cuda::gemm(&matrix(2, 3), &matrix(2, 4), &matrix(3, 3), false, outlier::cuda::Precision::F32);
    assert!(fault(product).contains("a product of F32 [2, 4]"));
}
