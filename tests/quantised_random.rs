//! Tests of weights in random codes, shapes, blocks and spellings, against the definitions of the
//! formats in f64: as a whole, and row by row, as they are read if several weights are in one
//! tensor.

use std::collections::HashSet;

use half::{bf16, f16};
use outlier::formats::{self, Announced, Coding, Decoded, Look, Settings};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use serde_json::{Value, json};

/// A weight as a release might have it.
struct Variant {
    what: String,
    name: String,
    /// [out, in], or [experts, out, in].
    shape: Vec<usize>,
    settings: Value,
    tensors: Vec<(Announced, Vec<u8>)>,
    expected: Vec<f32>,
}

/// OCP 8-bit floating point, E4M3.
fn e4m3(code: u8) -> f64 {
    let (sign, exponent, mantissa) = (code >> 7, (code >> 3 & 15) as i32, (code & 7) as f64);
    let magnitude =
        if exponent == 0 { mantissa / 8.0 * 2f64.powi(-6) } else { (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7) };
    if sign == 1 { -magnitude } else { magnitude }
}

/// OCP Microscaling, E2M1.
fn e2m1(code: u8) -> f64 {
    let (exponent, mantissa) = ((code >> 1 & 3) as i32, (code & 1) as f64);
    let magnitude = if exponent == 0 { mantissa / 2.0 } else { (1.0 + mantissa / 2.0) * 2f64.powi(exponent - 1) };
    if code & 8 != 0 { -magnitude } else { magnitude }
}

fn codes(rng: &mut ChaCha8Rng, count: usize) -> Vec<u8> {
    (0..count).map(|_| rng.random::<u8>()).map(|code| if code & 0x7f == 0x7f { code ^ 1 } else { code }).collect()
}

fn bytes(rng: &mut ChaCha8Rng, count: usize) -> Vec<u8> {
    (0..count).map(|_| rng.random()).collect()
}

/// Scales in a type, as bytes and as numbers.
fn scales(rng: &mut ChaCha8Rng, dtype: Dtype, count: usize) -> (Vec<u8>, Vec<f64>) {
    let (mut stored, mut values) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let scale = rng.random_range(0.5f32..2.0) * 2f32.powi(rng.random_range(-9..3));
        let value = match dtype {
            Dtype::F32 => {
                stored.extend(scale.to_le_bytes());
                scale as f64
            }
            Dtype::BF16 => {
                stored.extend(bf16::from_f32(scale).to_le_bytes());
                bf16::from_f32(scale).to_f64()
            }
            Dtype::F16 => {
                stored.extend(f16::from_f32(scale).to_le_bytes());
                f16::from_f32(scale).to_f64()
            }
            Dtype::F8_E4M3 => {
                let code = rng.random_range(1..0x7f);
                stored.push(code);
                e4m3(code)
            }
            _ => {
                let code = rng.random_range(100..140u8);
                stored.push(code);
                2f64.powi(code as i32 - 127)
            }
        };
        values.push(value);
    }
    (stored, values)
}

fn pick<T: Clone>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())].clone()
}

fn product(a: f64, b: f64) -> f32 {
    (a as f32 as f64 * b) as f32
}

/// FP8 with scales of `grid` for blocks of `high` × `wide`, in each of `count` matrices.
#[allow(clippy::too_many_arguments)]
fn fp8(
    rng: &mut ChaCha8Rng,
    what: &str,
    stack: Option<usize>,
    [out, input]: [usize; 2],
    [high, wide]: [usize; 2],
    (scale_name, dtype, scale_shape): (&str, Dtype, Vec<usize>),
    settings: Value,
) -> Variant {
    let (count, name) =
        (stack.unwrap_or(1), if stack.is_some() { "m.experts.gate_up_proj" } else { "m.q_proj.weight" });
    let across = input.div_ceil(wide);
    let per = out.div_ceil(high) * across;
    let stored = codes(rng, count * out * input);
    let (scale_bytes, values) = scales(rng, dtype, scale_shape.iter().product());
    let expected = stored.iter().enumerate().map(|(i, code)| {
        let (matrix, row, column) = (i / input / out, i / input % out, i % input);
        let scale = values[(matrix * per + row / high * across + column / wide) % values.len()];
        product(e4m3(*code), scale)
    });
    let shape: Vec<usize> = stack.iter().copied().chain([out, input]).collect();
    Variant {
        what: format!("{what}: {shape:?} in {high} × {wide}, {scale_name} {dtype:?} {scale_shape:?}"),
        name: name.to_string(),
        expected: expected.collect(),
        tensors: vec![
            ((name.to_string(), Dtype::F8_E4M3, shape.clone()), stored),
            ((scale_name.to_string(), dtype, scale_shape), scale_bytes),
        ],
        shape,
        settings,
    }
}

fn in_blocks(rng: &mut ChaCha8Rng) -> Variant {
    let size @ [out, input] = [rng.random_range(1..90usize), rng.random_range(1..90usize)];
    let block @ [high, wide] = [rng.random_range(1..40usize), rng.random_range(1..40usize)];
    let dtype = pick(rng, &[Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F8_E8M0, Dtype::U8]);
    let grid = vec![out.div_ceil(high), input.div_ceil(wide)];
    let group = |structure: Value| {
        json!({ "quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": { "group_0": {
            "targets": ["Linear"], "weights": { "type": "float", "num_bits": 8, "strategy": "block", "block_structure": structure } } } })
    };
    let (name, settings) = match rng.random_range(0..3) {
        0 => ("m.q_proj.weight_scale_inv", json!({ "quant_method": "fp8", "weight_block_size": block })),
        1 => ("m.q_proj.weight_scale", group(json!(block))),
        _ => ("m.q_proj.weight_scale", group(json!(format!("{high}x{wide}")))),
    };
    fp8(rng, "blocks", None, size, block, (name, dtype, grid), settings)
}

fn in_stacked_blocks(rng: &mut ChaCha8Rng) -> Variant {
    let (experts, size @ [out, input]) =
        (rng.random_range(2..5usize), [2 * rng.random_range(1..40usize), rng.random_range(2..70usize)]);
    let block @ [high, wide] = [rng.random_range(1..30usize), rng.random_range(1..30usize)];
    let grid = vec![experts, out.div_ceil(high), input.div_ceil(wide)];
    let settings = json!({ "quant_method": "fp8", "weight_block_size": block });
    fp8(rng, "stack", Some(experts), size, block, ("m.experts.gate_up_proj_scale_inv", Dtype::F32, grid), settings)
}

/// The scale belongs to a tensor, a row, an expert, or half of an expert. Only the shape tells
/// which.
fn without_blocks(rng: &mut ChaCha8Rng) -> Variant {
    let size @ [out, input] = [2 * rng.random_range(1..60usize), rng.random_range(2..60usize)];
    let dtype = pick(rng, &[Dtype::F32, Dtype::BF16, Dtype::F16]);
    let spelling = ["m.q_proj.weight_scale_inv", "m.q_proj.weight_scale", "m.q_proj.scale", "m.q_proj.qscale_weight"];
    let name = pick(rng, &spelling);
    let stacked = "m.experts.gate_up_proj_scale_inv";
    let none = json!({ "quant_method": "fp8", "weight_block_size": null });
    let channel = json!({ "quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0 });
    match rng.random_range(0..6) {
        0 => {
            let shape = pick(rng, &[vec![], vec![1], vec![1, 1]]);
            fp8(rng, "tensor", None, size, size, (name, dtype, shape), none)
        }
        1 => {
            let shape = pick(rng, &[vec![out], vec![out, 1]]);
            fp8(rng, "rows", None, size, [1, input], ("m.q_proj.weight_scale", dtype, shape), channel)
        }
        2 => {
            let experts = rng.random_range(3..6usize);
            let shape = pick(rng, &[vec![experts], vec![experts, 1, 1]]);
            fp8(rng, "experts", Some(experts), size, size, (stacked, dtype, shape), none)
        }
        3 => {
            let experts = rng.random_range(3..6usize);
            fp8(rng, "halves", Some(experts), size, [out / 2, input], (stacked, dtype, vec![experts, 2, 1]), none)
        }
        4 => {
            let input: usize = 32 * rng.random_range(2..4) + rng.random_range(0..32);
            let dtype = pick(rng, &[Dtype::U8, Dtype::F8_E8M0]);
            let grid = vec![out, input.div_ceil(32)];
            let settings = json!({ "quant_method": "modelopt", "quant_algo": "MXFP8" });
            fp8(rng, "MX", None, [out, input], [1, 32], ("m.q_proj.weight_scale", dtype, grid), settings)
        }
        _ => {
            // No settings at all: blocks are 128 × 128 then.
            let size @ [out, input] = [rng.random_range(129..300usize), rng.random_range(129..300usize)];
            let grid = vec![out.div_ceil(128), input.div_ceil(128)];
            fp8(rng, "usual", None, size, [128, 128], ("m.q_proj.weight_scale_inv", dtype, grid), json!({}))
        }
    }
}

/// Four-bit floats in groups of `group` columns. `numbers` are the factors of the groups.
fn nibbles(codes: &[u8], input: usize, group: usize, numbers: &[f64]) -> Vec<f32> {
    let per_row = input / group;
    let value = |i: usize| {
        let (row, column) = (i / input, i % input);
        let code = codes[i / 2] >> (4 * (i % 2)) & 15;
        product(e2m1(code), numbers[row * per_row + column / group])
    };
    (0..2 * codes.len()).map(value).collect()
}

fn nvfp4(rng: &mut ChaCha8Rng) -> Variant {
    let [out, input] = [rng.random_range(1..40usize), 16 * rng.random_range(1..7usize)];
    let stored = bytes(rng, out * input / 2);
    let (scale_bytes, groups) = scales(rng, Dtype::F8_E4M3, out * input / 16);
    let number = rng.random_range(1e-4f32..1e3);
    let divides = rng.random();
    let shape = pick(rng, &[vec![], vec![1]]);
    let name = "m.q_proj.weight";
    let (codes, global, settings) = if divides {
        let groups = json!({ "group_0": { "targets": ["Linear"], "weights": { "num_bits": 4, "type": "float", "group_size": 16 } } });
        let settings =
            json!({ "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": groups });
        (format!("{name}_packed"), format!("{name}_global_scale"), settings)
    } else {
        (name.to_string(), format!("{name}_scale_2"), json!({ "quant_method": "modelopt", "quant_algo": "NVFP4" }))
    };
    let one = |scale: &f64| {
        let scale = *scale as f32;
        (if divides { scale / number } else { scale * number }) as f64
    };
    let numbers: Vec<f64> = groups.iter().map(one).collect();
    Variant {
        what: format!("NVFP4, divides {divides}: {out} × {input}"),
        name: name.to_string(),
        shape: vec![out, input],
        settings,
        expected: nibbles(&stored, input, 16, &numbers),
        tensors: vec![
            ((codes, Dtype::U8, vec![out, input / 2]), stored),
            ((format!("{name}_scale"), Dtype::F8_E4M3, vec![out, input / 16]), scale_bytes),
            ((global, Dtype::F32, shape), number.to_le_bytes().to_vec()),
        ],
    }
}

fn mxfp4(rng: &mut ChaCha8Rng) -> Variant {
    let [out, input] = [rng.random_range(1..40usize), 32 * rng.random_range(1..5usize)];
    let kind = rng.random_range(0..4);
    let experts = if kind == 3 { rng.random_range(2..4usize) } else { 1 };
    let stored = bytes(rng, experts * out * input / 2);
    let (scale_bytes, numbers) = scales(rng, Dtype::U8, experts * out * input / 32);
    let plain = "m.q_proj.weight";
    let (name, codes, scale, dtypes) = match kind {
        0 => (plain, "m.q_proj.weight_packed", "m.q_proj.weight_scale", [Dtype::U8, Dtype::U8]),
        1 => (plain, plain, "m.q_proj.scale", [Dtype::I8, Dtype::F8_E8M0]),
        2 => (plain, plain, "m.q_proj.weight_scale", [Dtype::U8, Dtype::U8]),
        _ => ("m.experts.up_proj", "m.experts.up_proj_blocks", "m.experts.up_proj_scales", [Dtype::U8, Dtype::U8]),
    };
    let stack = |shape: &[usize]| if kind == 3 { [&[experts], shape].concat() } else { shape.to_vec() };
    let blocks = if kind == 3 { stack(&[out, input / 32, 16]) } else { vec![out, input / 2] };
    Variant {
        what: format!("MXFP4, kind {kind}: {experts} × {out} × {input}"),
        name: name.to_string(),
        shape: stack(&[out, input]),
        settings: json!({ "quant_method": "fp8", "weight_block_size": [128, 128] }),
        expected: nibbles(&stored, input, 32, &numbers),
        tensors: vec![
            ((codes.to_string(), dtypes[0], blocks), stored),
            ((scale.to_string(), dtypes[1], stack(&[out, input / 32])), scale_bytes),
        ],
    }
}

fn settings(of: &Value) -> Settings {
    match of.as_object().unwrap() {
        values if values.is_empty() => Settings::default(),
        values => Settings::parse(values, "config.json".into(), None).unwrap(),
    }
}

/// Reads rows of a matrix as a loader does: the bytes of each piece that belong to the window
/// around them.
fn rows(variant: &Variant, coding: &dyn Coding, slice: usize, own: std::ops::Range<usize>) -> Vec<f32> {
    let [.., out, input] = variant.shape[..] else { panic!("a matrix") };
    let experts = if variant.shape.len() == 3 { variant.shape[0] } else { 1 };
    let window = formats::window(coding.pieces(), &own, out);
    let pieces = coding.pieces().iter().map(|piece| {
        let (_, bytes) = variant.tensors.iter().find(|((name, ..), _)| *name == piece.name).unwrap();
        let range = piece.along.own_bytes(bytes.len() as u64, (slice, experts), &window, out);
        bytes[range.start as usize..range.end as usize].to_vec()
    });
    let pieces: Vec<Vec<u8>> = pieces.collect();
    let values = match coding.decode(pieces.clone(), window.len()).unwrap() {
        Decoded::F32(values) => values,
        Decoded::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
    };
    assert_eq!(values.len(), window.len() * input, "{}", variant.what);
    // What stays in codes gives the same numbers, from any column on.
    let values = &values[(own.start - window.start) * input..(own.end - window.start) * input];
    let kept = coding.keep(pieces, window.len(), own.start - window.start..own.end - window.start).unwrap();
    for (row, expected) in values.chunks_exact(input).enumerate() {
        let from = (row * 7 + slice) % input;
        let count = (row * 5 + 3) % (input - from) + 1;
        let mut numbers = vec![f32::NAN; count];
        coding.numbers(&kept.parts, kept.above + row, from, &mut numbers);
        assert_eq!(numbers, expected[from..from + count], "{}: row {row} from {from}", variant.what);
    }
    values.to_vec()
}

/// Fails if a weight is not found among `headers`, or decoded to other numbers than it was made of.
fn decodes_exactly(variant: &Variant, headers: &dyn formats::Headers, settings: &Settings, rng: &mut ChaCha8Rng) {
    let look = Look {
        name: &variant.name,
        shape: &variant.shape,
        headers,
        settings,
        model: &HashSet::new(),
        scaled: true,
        place: "model",
    };
    let coding = formats::find(&look).unwrap_or_else(|e| panic!("{}: {e}", variant.what));
    let coding = coding.unwrap_or_else(|| panic!("{}: found plain", variant.what));
    let [.., out, input] = variant.shape[..] else { panic!("a matrix") };
    let matrices = variant.expected.len() / out / input;
    for slice in 0..matrices {
        let expected = &variant.expected[slice * out * input..][..out * input];
        let whole = rows(variant, &*coding, slice, 0..out);
        let same =
            |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || *a == 0.0 && *b == 0.0);
        let wrong = whole.iter().zip(expected).position(|(a, b)| !same(&[*a], &[*b]));
        if let Some(at) = wrong {
            panic!("{}: matrix {slice}, element {at}: {} is {}", variant.what, whole[at], expected[at]);
        }
        let first = rng.random_range(0..out);
        let own = first..rng.random_range(first..out) + 1;
        let part = rows(variant, &*coding, slice, own.clone());
        assert!(same(&part, &expected[own.start * input..own.end * input]), "{}: rows {own:?}", variant.what);
    }
}

fn headers(variant: &Variant) -> Vec<Announced> {
    variant.tensors.iter().map(|(header, _)| header.clone()).collect()
}

#[test]
fn random_variants_of_every_format_are_decoded_exactly_whole_and_by_rows() {
    let rng = &mut ChaCha8Rng::seed_from_u64(20);
    let makers: [fn(&mut ChaCha8Rng) -> Variant; 5] = [in_blocks, in_stacked_blocks, without_blocks, nvfp4, mxfp4];
    for i in 0..400 {
        let variant = makers[i % makers.len()](rng);
        decodes_exactly(&variant, &headers(&variant), &settings(&variant.settings), rng);
    }
}

/// A release may store experts in four bits and the rest in eight: each weight is of the group that
/// names it, and of that for all linear layers only where none does, in whatever order they stand.
#[test]
fn two_schemes_of_one_checkpoint_are_told_apart_by_their_targets() {
    let rng = &mut ChaCha8Rng::seed_from_u64(21);
    let of = |rng: &mut ChaCha8Rng, make: fn(&mut ChaCha8Rng) -> Variant| loop {
        let variant = make(rng);
        if let Some(group) = variant.settings.pointer("/config_groups/group_0").cloned() {
            let format = variant.settings["format"].clone();
            break (variant, group, format);
        }
    };
    for i in 0..60 {
        let (mut named, mut of_named, named_format) = of(rng, if i % 2 == 0 { nvfp4 } else { in_blocks });
        let (mut other, mut of_other, other_format) = of(rng, if i % 2 == 0 { in_blocks } else { nvfp4 });
        for (variant, module) in [(&mut named, "m.experts.3.up_proj"), (&mut other, "m.self_attn.q_proj")] {
            let place = |name: &str| name.replace("m.q_proj", module);
            variant.name = place(&variant.name);
            variant.tensors.iter_mut().for_each(|((name, ..), _)| *name = place(name));
        }
        of_named["targets"] = pick(rng, &[json!(["re:.*experts.*"]), json!(["m.experts.3.up_proj"])]);
        (of_named["format"], of_other["format"]) = (named_format, other_format);
        let groups = match i % 3 {
            0 => json!({ "group_0": of_other, "group_1": of_named }),
            _ => json!({ "group_0": of_named, "group_1": of_other }),
        };
        let both =
            json!({ "quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups });
        let all = [headers(&named), headers(&other)].concat();
        for variant in [&named, &other] {
            decodes_exactly(variant, &all, &settings(&both), rng);
        }
    }
}
