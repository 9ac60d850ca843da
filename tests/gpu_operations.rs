//! Every operation on the emulated GPU against the same operation on the CPU, with operands that models have and with those that none
//! has had so far.

use outlier::cuda::Context;
use outlier::error::Result;
use outlier::ops::{self, Attend, CausalConv, Scan};
use outlier::tensor::{Device, Tensor};
use outlier::vocabulary::{Activation, NormKind, Pairs, Span};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gpu::pass;
use crate::oracle::relative_error;

/// Random operands, and both devices.
struct Both {
    rng: ChaCha8Rng,
    devices: [Device; 2],
}

impl Both {
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.rng.random_range(-2.0..2.0)).collect()
    }

    /// Random operands of these shapes.
    fn operands(&mut self, shapes: &[&[usize]]) -> Vec<(Vec<f32>, Vec<usize>)> {
        shapes.iter().map(|shape| (self.numbers(shape.iter().product()), shape.to_vec())).collect()
    }

    /// Computes `f` of the operands on both devices, and compares shapes and numbers. What `f` changes in place it gives back.
    #[track_caller]
    fn agree(&mut self, what: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let operands = self.operands(shapes);
        let [cpu, gpu] = self.devices.each_ref().map(|device| {
            let on = |(values, shape): &(Vec<f32>, Vec<usize>)| Tensor::from_vec(values.clone(), shape.clone(), device);
            let tensors: Vec<Tensor> = operands.iter().map(|operand| on(operand).unwrap()).collect();
            let out = f(&tensors).unwrap_or_else(|error| panic!("{what}: {error}"));
            (out.dims().to_vec(), out.values().unwrap())
        });
        assert_eq!(gpu.0, cpu.0, "{what}");
        let error = relative_error(&gpu.1, &cpu.1);
        assert!(error < 1e-5, "{what}: {error:e} apart");
    }
}

/// `f` and then the tensor that it changed.
fn changed(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<()>) -> Result<Tensor> {
    f(x)?;
    Ok(x.clone())
}

/// Both devices where there is an emulated GPU; elsewhere the test runs itself in a process that has one.
fn both(test: &str) -> Option<Both> {
    if std::env::var_os("OUTLIER_TEST_DEVICE").is_none() {
        pass("cuda:0", &[test]);
        return None;
    }
    let devices = [Device::Cpu, Device::Cuda(Context::open(0).unwrap())];
    Some(Both { rng: ChaCha8Rng::seed_from_u64(5), devices })
}

#[test]
fn norms_of_every_kind_with_weights_for_one_row_or_several() {
    let Some(mut both) = both("gpu_operations::norms_of_every_kind_with_weights_for_one_row_or_several") else {
        return;
    };
    let kinds = [
        NormKind::Rms,
        NormKind::RmsRoundedOnce,
        NormKind::RmsZeroCentred,
        NormKind::Layer,
        NormKind::LayerZeroCentred,
    ];
    for (kind, weights) in kinds.into_iter().flat_map(|kind| [(kind, 1), (kind, 3)]) {
        let what = format!("{kind:?} with {weights} rows of weights");
        let shapes: [&[usize]; 3] = [&[12, 37], &[weights * 37], &[weights * 37]];
        both.agree(&what, &shapes, |x| ops::norm(kind, 1e-5, &x[0], &x[1], None));
        both.agree(&what, &shapes, |x| ops::norm(kind, 1e-5, &x[0], &x[1], Some(&x[2])));
    }
}

#[test]
fn attention_of_every_shape() {
    let Some(mut both) = both("gpu_operations::attention_of_every_shape") else { return };
    let (positions, heads, head_dim) = (37, 4, 6);
    let slopes = [0.5, 0.177, 0.125, 0.0625];
    let alibis = [None, Some((&slopes[..], None)), Some((&slopes[..], Some(0.5)))];
    let mut count = 0;
    for span in [Span::All, Span::Window(5), Span::Window(50), Span::Chunk(8), Span::Chunk(64)] {
        for (kv_heads, value_dim, softcap) in [(4, 6, None), (2, 3, Some(1.5)), (1, 9, None), (2, 6, Some(50.0))] {
            for alibi in alibis {
                let op = Attend {
                    positions,
                    heads,
                    kv_heads,
                    head_dim,
                    value_dim,
                    span,
                    scale: 0.4,
                    softcap,
                    alibi,
                    rounded: false,
                };
                let what = format!("{span:?}, {kv_heads} of {value_dim}, cap {softcap:?}, {alibi:?}");
                let rows = 2 * positions;
                let shapes: [&[usize]; 4] =
                    [&[rows, heads * head_dim], &[rows, kv_heads * head_dim], &[rows, kv_heads * value_dim], &[heads]];
                count += 1;
                both.agree(&what, &shapes, |x| ops::attend(&x[0], &x[1], &x[2], (count % 2 == 0).then_some(&x[3]), op));
            }
        }
    }
}

#[test]
fn rotations_of_both_kinds_of_pairs() {
    let Some(mut both) = both("gpu_operations::rotations_of_both_kinds_of_pairs") else { return };
    for (pairs, half) in [(Pairs::Halves, 4), (Pairs::Halves, 5), (Pairs::Adjacent, 4), (Pairs::Adjacent, 5)] {
        let what = format!("{pairs:?}, {half} of 10 channels");
        both.agree(&what, &[&[2, 7, 3, 10], &[7, half], &[7, half]], |x| {
            changed(&x[0], |of| ops::rotate(of, &x[1], &x[2], pairs))
        });
    }
}

#[test]
fn convolutions_and_scans() {
    let Some(mut both) = both("gpu_operations::convolutions_and_scans") else { return };
    for (silu, kernel) in [(true, 4), (false, 3), (false, 1)] {
        let conv = CausalConv { positions: 9, silu };
        let what = format!("{kernel} taps, SiLU {silu}");
        let shapes: [&[usize]; 3] = [&[18, 11], &[11, 1, kernel], &[11]];
        both.agree(&what, &shapes, |x| ops::causal_conv(&x[0], &x[1], None, conv));
        both.agree(&what, &shapes, |x| ops::causal_conv(&x[0], &x[1], Some(&x[2]), conv));
    }
    for (state, groups, head_dim) in [(64, 2, 5), (128, 1, 33), (16, 4, 8), (256, 1, 3), (7, 2, 1)] {
        let op = Scan { positions: 9, heads: 4, head_dim, groups, state, min_step: 0.1 };
        let what = format!("states of {state}, {groups} groups, {head_dim} channels");
        let columns = 4 * head_dim + 2 * groups * state;
        both.agree(&what, &[&[18, columns], &[18, 4], &[4], &[4], &[4]], |x| {
            ops::selective_scan(&x[0], &x[1], (&x[2], &x[3], &x[4]), op)
        });
    }
    let op = Scan { positions: 3, heads: 1, head_dim: 1, groups: 1, state: 257, min_step: 0.0 };
    let gpu = &both.devices[1];
    let on = |shape: &[usize]| Tensor::zeros(shape.to_vec(), gpu).unwrap();
    let one = on(&[1]);
    let error = ops::selective_scan(&on(&[3, 515]), &on(&[3, 1]), (&one, &one, &one), op).unwrap_err();
    assert!(error.message.contains("states of 257") && error.hint.is_some(), "{error}");
}

#[test]
fn what_is_done_element_by_element() {
    let Some(mut both) = both("gpu_operations::what_is_done_element_by_element") else { return };
    let same: [&[usize]; 2] = [&[6, 7], &[6, 7]];
    let xielu = Activation::XIelu { alpha_p: 0.8, alpha_n: 1.3, beta: 0.5, eps: -1e-6 };
    let [silu, relu, gelu] = [Activation::Silu, Activation::Relu, Activation::GeluTanh];
    let others = [
        Activation::GeluErf,
        Activation::GeluClipped,
        Activation::Relu6,
        Activation::LeakyRelu,
        Activation::Mish,
        Activation::Laplace,
        Activation::HardSwish,
        Activation::SqrtSoftplus,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Linear,
    ];
    for activation in
        [silu, relu, Activation::ReluSquared, gelu, Activation::GeluQuick, xielu].into_iter().chain(others)
    {
        let what = format!("{activation:?}");
        both.agree(&what, &same, |x| changed(&x[0], |of| ops::activate(activation, of)));
        both.agree(&what, &same, |x| changed(&x[0], |of| ops::gate(activation, &x[1], of)));
    }
    both.agree("products", &same, |x| changed(&x[0], |of| ops::multiply(of, &x[1])));
    both.agree("a factor", &same, |x| changed(&x[0], |of| ops::scale(of, -0.3)));
    both.agree("factors of rows", &same, |x| changed(&x[0], |of| ops::scale_rows(of, &[0.5, 2.0, -3.0])));
    both.agree("columns side by side", &[&[2, 3, 5], &[2, 3, 4]], |x| x[0].concat_columns(&x[1]));
    both.agree("rows for each head", &[&[6, 5]], |x| x[0].repeat_for_heads(4));
}
