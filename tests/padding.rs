//! Tests of token ids in safetensors: integers of every type are read, and padding is never
//! measured as text.

use safetensors::Dtype;

use crate::checkpoint::{self, Array, Arrays};
use crate::project::Project;

/// Exit code of a file that does not hold what is needed.
const FAILED: i32 = 3;

fn longs(values: &[i64]) -> Array {
    Array::new(Dtype::I64, &[2, 3], values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn project(arrays: impl IntoIterator<Item = (&'static str, Array)>) -> Project {
    let project = Project::new();
    let arrays: Arrays = arrays.into_iter().map(|(name, array)| (name.to_string(), array)).collect();
    checkpoint::write(&project.path("ids.safetensors"), &arrays);
    project
}

fn load(tensor: &str) -> String {
    format!("print(load_tokens(#{{ ids: \"ids.safetensors\", tensor: \"{tensor}\" }}).ids.to_json());")
}

#[test]
fn padded_ids_are_not_measured_as_text() {
    let ids = || longs(&[1, 2, 3, 4, 5, 0]);
    let hint = "sequences must be complete";
    let masks = [
        ("attention_mask", longs(&[1, 1, 1, 1, 1, 0])),
        ("attention_mask", longs(&[1, 1, 1, 0, 1, 1])),
        ("attention_mask", longs(&[1, 1, 1, 0, 0, 0])),
        ("attention_mask", Array::new(Dtype::BOOL, &[2, 3], vec![1, 1, 1, 1, 1, 0])),
        ("attention_mask", Array::new(Dtype::U8, &[2, 1, 3], vec![1, 1, 1, 1, 1, 0])),
        ("attention_mask", Array::bf16(&[2, 3], [0x3f80, 0x3f80, 0x3f80, 0x3f80, 0x3f80, 0])),
        ("key_padding_mask", Array::new(Dtype::BOOL, &[2, 3], vec![0, 0, 0, 0, 0, 1])),
        ("mask", longs(&[1, 1, 1, 1, 1, 0])),
    ];
    for (name, mask) in masks {
        let tensor = if name.starts_with("key") { "key_ids" } else { "input_ids" };
        let message = format!("reading ids.safetensors: `{name}` marks padding in sequence 1 of `{tensor}`");
        project([(tensor, ids()), (name, mask)]).refuses(&load(tensor), FAILED, &message, hint);
    }
    // Without `tensor` as with it, and beside any name.
    let mask = || longs(&[0, 0, 0, 0, 0, 0]);
    let message = "`attention_mask` marks padding in sequence 0 of `input_ids`";
    let script = "load_tokens(#{ ids: \"ids.safetensors\" });";
    project([("input_ids", ids()), ("attention_mask", mask())]).refuses(script, FAILED, message, hint);
    project([("x", ids()), ("attention_mask", mask())]).refuses(&load("x"), FAILED, "of `x`", hint);
    let chosen = [("chosen_input_ids", ids()), ("chosen_attention_mask", mask())];
    project(chosen).refuses(&load("chosen_input_ids"), FAILED, "`chosen_attention_mask` marks padding", hint);
}

#[test]
fn masks_without_padding_and_of_other_ids_change_nothing() {
    let ids = || longs(&[1, 2, 3, 4, 5, 6]);
    for (name, mask) in [
        ("attention_mask", longs(&[1, 1, 1, 1, 1, 1])),
        // Documents in one sequence.
        ("attention_mask", longs(&[1, 1, 2, 2, 2, 3])),
        ("attention_mask", Array::bf16(&[2, 3], [0; 6])),
        ("attention_mask", Array::new(Dtype::I64, &[1, 2], vec![0; 16])),
        ("rejected_attention_mask", longs(&[0; 6])),
        ("special_tokens_mask", longs(&[1, 0, 0, 1, 0, 0])),
        ("loss_mask", longs(&[0, 0, 1, 0, 0, 1])),
        ("labels", longs(&[0, 0, 1, 0, 0, 1])),
    ] {
        let project = project([("input_ids", ids()), (name, mask)]);
        assert_eq!(project.script(&load("input_ids")).ok(), "[[1,2,3],[4,5,6]]\n", "{name}");
    }
    let project = project([
        ("decoder_input_ids", ids()),
        ("input_ids", ids()),
        ("attention_mask", longs(&[0; 6])),
        ("decoder_attention_mask", longs(&[1; 6])),
    ]);
    assert_eq!(project.script(&load("decoder_input_ids")).ok(), "[[1,2,3],[4,5,6]]\n");
}

#[test]
fn ids_of_any_type_of_integers_are_read() {
    let of = |dtype: Dtype, data: Vec<u8>| project([("input_ids", Array::new(dtype, &[1, 2], data))]);
    let large = u32::MAX.to_le_bytes();
    for (dtype, data, expected) in [
        (Dtype::U8, vec![1, 255], "[[1,255]]\n"),
        (Dtype::I8, vec![1, 127], "[[1,127]]\n"),
        (Dtype::U16, [1u16, 65535].into_iter().flat_map(u16::to_le_bytes).collect(), "[[1,65535]]\n"),
        (Dtype::I16, [1i16, 32767].into_iter().flat_map(i16::to_le_bytes).collect(), "[[1,32767]]\n"),
        (Dtype::U32, [[1, 0, 0, 0], large].concat(), "[[1,4294967295]]\n"),
        (Dtype::I32, [1i32, 65536].into_iter().flat_map(i32::to_le_bytes).collect(), "[[1,65536]]\n"),
        (Dtype::U64, [1u64, 70000].into_iter().flat_map(u64::to_le_bytes).collect(), "[[1,70000]]\n"),
    ] {
        assert_eq!(of(dtype, data).script(&load("input_ids")).ok(), expected, "{dtype:?}");
    }
    for (dtype, data) in [
        (Dtype::I8, vec![1, 0x9c]),
        (Dtype::I16, (-100i16).to_le_bytes().repeat(2)),
        (Dtype::I32, (-100i32).to_le_bytes().repeat(2)),
        (Dtype::U64, u64::MAX.to_le_bytes().repeat(2)),
        (Dtype::U64, (1u64 << 32).to_le_bytes().repeat(2)),
    ] {
        let message = "`input_ids` holds a negative or too large id";
        of(dtype, data).refuses(&load("input_ids"), FAILED, message, "sequences must be complete");
    }
    let halves = of(Dtype::F16, vec![0; 4]);
    halves.refuses(&load("input_ids"), FAILED, "`input_ids` is F16, expected integers", "I32 or I64");
}
