//! Tests of integers in checkpoints that contradict themselves, or that are packed in an
//! unsupported way: each is refused by the name of the tensor or setting. `quantised.rs` tests the
//! reading of valid ones.

use outlier::record::{ComputeDtype, ExtractArgs};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::checkpoint::Array;
use crate::oracle::{load_args, relative_error, run_with};
use crate::quantised::{as_it_is, at, damaged, decoded, opened, refused, unchanged, without};

const Q: &str = "model.layers.0.self_attn.q_proj";
const DOWN: &str = "model.layers.0.mlp.down_proj";
const GPTQ: &str = "gptq_desc_act_llama";
const PACKED: &str = "int4_ct_asym_llama";

/// Settings of the fixture, with one of them changed.
fn set(path: &'static [&'static str], value: Value) -> impl Fn(&mut Value) {
    move |config: &mut Value| {
        let settings = &mut config["quantization_config"];
        *path.iter().fold(settings, |settings, key| &mut settings[key]) = value.clone();
    }
}

/// Of the weights that compressed-tensors' only group has.
fn weights(key: &'static str, value: Value) -> impl Fn(&mut Value) {
    move |config: &mut Value| {
        config["quantization_config"]["config_groups"]["group_0"]["weights"][key] = value.clone();
    }
}

#[test]
fn integers_without_scales_or_zeros_are_refused_by_name() {
    for (fixture, tensor) in [
        (PACKED, format!("{Q}.weight_scale")),
        (PACKED, format!("{Q}.weight_zero_point")),
        ("int8_ct_llama", format!("{Q}.weight")),
        (GPTQ, format!("{DOWN}.scales")),
        (GPTQ, format!("{DOWN}.qzeros")),
        ("awq_qwen3_moe", format!("{Q}.scales")),
        ("awq_qwen3_moe", format!("{Q}.qzeros")),
        ("bnb_nf4_llama", format!("{Q}.weight.quant_map")),
        ("bnb_nf4_llama", format!("{Q}.weight.nested_quant_map")),
        ("bnb_nf4_llama", format!("{Q}.weight.quant_state.bitsandbytes__nf4")),
        ("bnb_nf4_llama", format!("{Q}.weight")),
    ] {
        refused(&damaged(fixture, without(&tensor), as_it_is), &[&tensor]);
    }
    // Codes of eight bits with nothing beside them say what they lack by their own name.
    refused(
        &damaged("int8_ct_llama", without(&format!("{Q}.weight_scale")), as_it_is),
        &[&format!("{Q}.weight"), "I8"],
    );
    refused(&damaged("bnb_int8_llama", without(&format!("{Q}.SCB")), as_it_is), &[&format!("{Q}.weight"), "I8"]);
}

#[test]
fn integers_of_another_shape_than_the_weight_are_refused() {
    let shaped = |dtype: Dtype, shape: &'static [usize]| {
        move |array: &mut Array| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            *array = Array::new(dtype, shape, vec![0; bytes]);
        }
    };
    // Rows of 96 have 12 words of eight codes, and 3 scales.
    for (tensor, dtype, shape) in [
        ("weight_packed", Dtype::I32, &[96, 11][..]),
        ("weight_scale", Dtype::F16, &[96, 2]),
        ("weight_scale", Dtype::F16, &[1, 3]),
        ("weight_zero_point", Dtype::I32, &[96, 3]),
        ("weight_shape", Dtype::I64, &[3]),
    ] {
        let tensor = format!("{Q}.{tensor}");
        refused(&damaged(PACKED, at(&tensor, shaped(dtype, shape)), as_it_is), &[&tensor, "shape"]);
    }
    for (tensor, dtype, shape) in [
        ("qweight", Dtype::I32, &[7, 64][..]),
        ("qzeros", Dtype::I32, &[2, 7]),
        ("scales", Dtype::F16, &[3, 64]),
        ("scales", Dtype::F16, &[2, 63]),
        ("g_idx", Dtype::I32, &[63]),
    ] {
        let tensor = format!("{Q}.{tensor}");
        refused(&damaged(GPTQ, at(&tensor, shaped(dtype, shape)), as_it_is), &[&tensor, "shape"]);
    }
    for (tensor, dtype, shape) in
        [("qweight", Dtype::I32, &[64, 7][..]), ("qzeros", Dtype::I32, &[1, 8]), ("scales", Dtype::F16, &[1, 64])]
    {
        let tensor = format!("{Q}.{tensor}");
        refused(&damaged("awq_qwen3_moe", at(&tensor, shaped(dtype, shape)), as_it_is), &[&tensor, "shape"]);
    }
    for (fixture, tensor, dtype, shape) in [
        ("bnb_int8_llama", "SCB", Dtype::F32, &[63][..]),
        ("bnb_nf4_llama", "weight", Dtype::U8, &[2047, 1]),
        ("bnb_nf4_llama", "weight.quant_map", Dtype::F32, &[15]),
    ] {
        let tensor = format!("{Q}.{tensor}");
        refused(&damaged(fixture, at(&tensor, shaped(dtype, shape)), as_it_is), &[&tensor, "shape"]);
    }
    let absmax = format!("{Q}.weight.absmax");
    refused(&damaged("bnb_nf4_llama", at(&absmax, shaped(Dtype::U8, &[63])), as_it_is), &[&absmax, "63 scales"]);
}

/// What `weight_shape` says is the width that the codes have, padding left out.
#[test]
fn a_shape_that_is_not_the_weight_s_is_refused() {
    let tensor = format!("{Q}.weight_shape");
    let wider = |array: &mut Array| array.data = [96i64, 104].iter().flat_map(|size| size.to_le_bytes()).collect();
    refused(&damaged(PACKED, at(&tensor, wider), as_it_is), &[&tensor, "[96, 104]"]);
}

#[test]
fn groups_that_do_not_exist_are_refused() {
    let far = |array: &mut Array| array.data[..4].copy_from_slice(&99i32.to_le_bytes());
    let below = |array: &mut Array| array.data[8..12].copy_from_slice(&(-1i32).to_le_bytes());
    for (fixture, tensor) in [(GPTQ, format!("{Q}.g_idx")), ("int4_ct_gidx_llama", format!("{Q}.weight_g_idx"))] {
        refused(&damaged(fixture, at(&tensor, far), as_it_is), &[&tensor, "column 0", "group 99"]);
        refused(&damaged(fixture, at(&tensor, below), as_it_is), &[&tensor, "column 2", "group -1"]);
    }
}

/// A zero of 15 in the first version of GPTQ comes from one of 0, and no reading of it is right; in the second it is 15.
#[test]
fn a_zero_that_gptq_cannot_store_is_refused() {
    let tensor = format!("{Q}.qzeros");
    let overflown = |array: &mut Array| array.data[0] |= 0x0f;
    refused(&damaged(GPTQ, at(&tensor, overflown), as_it_is), &[&tensor, "15"]);
    for spelt in ["gptq_v2", "GPTQ_V2"] {
        let second = damaged("gptq_v2_qwen3_moe", at(&tensor, overflown), set(&["checkpoint_format"], json!(spelt)));
        decoded(&opened(&second.path("model")).unwrap());
    }
}

#[test]
fn a_bias_that_the_model_has_not_is_refused_unless_it_is_zero() {
    let tensor = format!("{Q}.bias");
    let value = |array: &mut Array| array.data[2..4].copy_from_slice(&0x3c00u16.to_le_bytes());
    refused(&damaged(GPTQ, at(&tensor, value), as_it_is), &[&tensor, "index 1"]);
    assert!(opened(&damaged(GPTQ, unchanged, as_it_is).path("model")).unwrap().notes.is_empty());
}

#[test]
fn numbers_that_are_none_are_refused_by_name() {
    let nan = |array: &mut Array| array.data[..2].copy_from_slice(&[0x00, 0x7e]);
    let nan_f32 = |array: &mut Array| array.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    for (fixture, tensor) in [(PACKED, "weight_scale"), (GPTQ, "scales"), ("awq_qwen3_moe", "scales")] {
        let tensor = format!("{Q}.{tensor}");
        refused(&damaged(fixture, at(&tensor, nan), as_it_is), &[&tensor, "NaN"]);
    }
    for (fixture, tensor) in [
        ("bnb_int8_llama", "SCB"),
        ("bnb_nf4_llama", "weight.nested_absmax"),
        ("bnb_nf4_llama", "weight.nested_quant_map"),
        ("bnb_nf4_llama", "weight.quant_map"),
    ] {
        let tensor = format!("{Q}.{tensor}");
        refused(&damaged(fixture, at(&tensor, nan_f32), as_it_is), &[&tensor, "NaN"]);
    }
    let tiled = |array: &mut Array| array.data[0] = 2;
    let tensor = format!("{Q}.weight_format");
    refused(&damaged("bnb_int8_llama", at(&tensor, tiled), as_it_is), &[&tensor]);
    let tensor = format!("{Q}.weight.quant_state.bitsandbytes__nf4");
    let garbled = |array: &mut Array| array.data[0] = b'?';
    refused(&damaged("bnb_nf4_llama", at(&tensor, garbled), as_it_is), &[&tensor, "JSON"]);
}

/// Widths whose codes cross words, and layouts that other kernels have under the same names.
#[test]
fn settings_of_integers_that_are_not_read_are_refused_by_name() {
    for bits in [3, 5, 6, 7] {
        let told = bits.to_string();
        refused(&damaged(GPTQ, unchanged, set(&["bits"], json!(bits))), &["`bits`", &told]);
        refused(&damaged(PACKED, unchanged, weights("num_bits", json!(bits))), &["`num_bits`", &told]);
    }
    for format in ["gptq_p", "marlin", "bitblas"] {
        refused(&damaged(GPTQ, unchanged, set(&["checkpoint_format"], json!(format))), &["checkpoint_format", format]);
    }
    for version in ["gemv", "gemv_fast", "GEMV"] {
        let project = damaged("awq_qwen3_moe", unchanged, set(&["version"], json!(version)));
        refused(&project, &["version", version]);
    }
    refused(&damaged("awq_qwen3_moe", unchanged, set(&["bits"], json!(8))), &["`bits`", "8"]);
    for format in ["marlin-24", "sparse-bitmask", "sparse-24-bitmask"] {
        refused(&damaged(PACKED, unchanged, set(&["format"], json!(format))), &["`format`", format]);
    }
    let auto_round = |config: &mut Value| {
        let settings = &mut config["quantization_config"];
        (settings["quant_method"], settings["packing_format"]) = (json!("auto-round"), json!("auto_round:gptqmodel"));
    };
    refused(&damaged(GPTQ, unchanged, auto_round), &["packing_format", "auto_round:gptqmodel"]);
    // Eight bits are announced, and the words are those of four.
    refused(&damaged(GPTQ, unchanged, set(&["bits"], json!(8))), &["`bits` 8", "qweight"]);
    refused(&damaged(PACKED, unchanged, weights("num_bits", json!(8))), &["8 bits", "weight_packed"]);
    // And groups of another size than the scales have.
    refused(&damaged(GPTQ, unchanged, set(&["group_size"], json!(16))), &["scales", "[4, 64]"]);
    refused(&damaged(PACKED, unchanged, weights("group_size", json!(96))), &["weight_scale", "[96, 1]"]);
}

/// AutoRound writes GPTQ's layout, under a name of its own and without `g_idx`.
#[test]
fn autoround_in_gptq_packing_is_read() {
    let order: Vec<u8> = (0..64u32).flat_map(|input| (input / 32).to_le_bytes()).collect();
    let given = damaged(GPTQ, at(&format!("{Q}.g_idx"), |array| array.data = order.clone()), as_it_is);
    let changed = |config: &mut Value| {
        let settings = &mut config["quantization_config"];
        (settings["quant_method"], settings["packing_format"]) = (json!("auto-round"), json!("auto_round:auto_gptq"));
    };
    let without = damaged(GPTQ, without(&format!("{Q}.g_idx")), changed);
    let [given, without] = [given, without].map(|project| decoded(&opened(&project.path("model")).unwrap()));
    let name = format!("{Q}.weight");
    assert_eq!(given[&name], without[&name]);
}

/// Codes that were moved as floats are the same bytes.
#[test]
fn bitsandbytes_in_another_storage_is_read() {
    let name = format!("{Q}.weight");
    let moved = |array: &mut Array| {
        let count = array.data.len();
        *array = Array::new(Dtype::BF16, &[count / 2, 1], array.data.clone());
    };
    let given = damaged("bnb_nf4_llama", unchanged, as_it_is);
    let moved = damaged("bnb_nf4_llama", at(&name, moved), set(&["bnb_4bit_quant_storage"], json!("bfloat16")));
    let [given, moved] = [given, moved].map(|project| decoded(&opened(&project.path("model")).unwrap()));
    assert_eq!(given[&name], moved[&name]);
}

/// What the settings say of a weight that its tensors do not bear out is no matter where these leave nothing open.
#[test]
fn symmetric_integers_may_have_zero_points() {
    let project = damaged(PACKED, unchanged, weights("symmetric", json!(true)));
    let given = decoded(&opened(&damaged(PACKED, unchanged, as_it_is).path("model")).unwrap());
    assert_eq!(given, decoded(&opened(&project.path("model")).unwrap()));
}

/// A head in codes has no tensor of its own name.
#[test]
fn logits_of_a_quantised_head() {
    let coded = damaged(
        PACKED,
        |arrays| {
            let own = |name: &str| name.strip_prefix(&format!("{Q}.")).map(|rest| format!("lm_head.{rest}"));
            let copies: Vec<_> =
                arrays.iter().filter_map(|(name, array)| own(name).map(|name| (name, array.clone()))).collect();
            arrays.extend(copies);
            arrays.remove("lm_head.weight");
        },
        as_it_is,
    );
    let values = decoded(&opened(&coded.path("model")).unwrap()).remove("lm_head.weight").unwrap().1;
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let plain = damaged(
        PACKED,
        at("lm_head.weight", |array| *array = Array::new(Dtype::F32, &[96, 96], bytes.clone())),
        as_it_is,
    );
    let [coded, plain] = [coded, plain].map(|project| {
        let folder = project.path("model");
        run_with(&folder, &load_args(&folder, ComputeDtype::F32), ExtractArgs::default()).unwrap().1
    });
    let logits = "final_logits_last";
    assert!(relative_error(&coded[logits], &plain[logits]) < 1e-6);
}
