//! Masks next to token ids: tokenizers save them with padded ids.

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

/// In masks with this name 0 means padding, even if all values are equal.
const OF_ATTENTION: &str = "attention_mask";
/// The names of mask tensors, the longest first.
const MASKS: &[&str] = &[OF_ATTENTION, "padding_mask", "pad_mask", "mask"];

/// The masks for the tensor of ids called `tensor`, which has `shape`, sorted by name. A file may
/// contain masks of other ids as well. Only masks whose names have the most letters in common with
/// the name of the ids are used, as `decoder_attention_mask` has with `decoder_input_ids`.
pub(super) fn of<'a>(metadata: &'a Metadata, tensor: &str, shape: &[usize]) -> Vec<(String, &'a TensorInfo)> {
    let sizes = |shape: &[usize]| shape.iter().copied().filter(|size| *size != 1).collect::<Vec<_>>();
    let is_mask = |name: &str, info: &TensorInfo| {
        name != tensor && sizes(&info.shape) == sizes(shape) && info.dtype.bitsize().is_multiple_of(8)
    };
    let named = metadata.tensors().into_iter().filter(|(name, info)| is_mask(name, info));
    let masks: Vec<_> = named.filter_map(|(name, info)| Some((in_common(&name, tensor)?, name, info))).collect();
    let most = masks.iter().map(|(in_common, ..)| *in_common).max();
    let mut masks: Vec<_> =
        masks.into_iter().filter(|mask| Some(mask.0) == most).map(|mask| (mask.1, mask.2)).collect();
    masks.sort_by(|a, b| a.0.cmp(&b.0));
    masks
}

/// Number of letters that a mask's name has in common with the name of its tensor. None if it is
/// not a mask, or belongs to another tensor.
fn in_common(name: &str, tensor: &str) -> Option<usize> {
    MASKS.iter().find_map(|word| {
        let (before, after) = name.split_once(word)?;
        (tensor.starts_with(before) && tensor.ends_with(after)).then_some(before.len() + after.len())
    })
}

/// The first sequence of `positions` tokens in which a mask with the values `data` marks padding.
/// Masks differ in their values (1 or 0 for tokens, minus infinity for padding), but all values are
/// equal if there is no padding.
pub(super) fn padded(name: &str, dtype: Dtype, data: &[u8], positions: usize) -> Option<usize> {
    let width = dtype.bitsize() / 8;
    let is_zero = |value: &[u8]| value.iter().all(|byte| *byte == 0);
    let whole = !matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64);
    let zero_is_padding = whole && name.contains(OF_ATTENTION);
    let first = data.get(..width)?;
    // Non-zero integers number the documents in one sequence, and none of them means padding.
    let left_out = |value: &[u8]| if zero_is_padding { is_zero(value) } else { is_zero(value) != is_zero(first) };
    data.chunks_exact(width).position(left_out).map(|at| at / positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_told_by_their_names() {
        for (name, tensor, letters) in [
            ("attention_mask", "input_ids", Some(0)),
            ("attention_mask", "x", Some(0)),
            ("train.attention_mask", "train.input_ids", Some(6)),
            ("attention_mask_1", "input_ids_1", Some(2)),
            ("chosen_attention_mask", "rejected_input_ids", None),
            ("key_padding_mask", "key_ids", Some(4)),
            ("mask", "ids", Some(0)),
            ("loss_mask", "input_ids", None),
            ("special_tokens_mask", "input_ids", None),
            ("labels", "input_ids", None),
        ] {
            assert_eq!(in_common(name, tensor), letters, "{name} {tensor}");
        }
    }

    #[test]
    fn a_mask_that_leaves_something_out_is_found() {
        let longs = |values: &[i64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        for (name, dtype, data, expected) in [
            ("attention_mask", Dtype::I64, longs(&[1, 1, 1, 1]), None),
            ("attention_mask", Dtype::I64, longs(&[1, 1, 2, 2]), None),
            ("attention_mask", Dtype::I64, longs(&[1, 1, 1, 0]), Some(1)),
            ("attention_mask", Dtype::I64, longs(&[0, 0, 0, 0]), Some(0)),
            ("attention_mask", Dtype::BOOL, vec![1, 1, 0, 1], Some(1)),
            ("attention_mask", Dtype::F32, floats(&[1.0, 1.0, 1.0, 0.0]), Some(1)),
            ("attention_mask", Dtype::F32, floats(&[0.0, f32::NEG_INFINITY, 0.0, 0.0]), Some(0)),
            ("attention_mask", Dtype::F32, floats(&[0.0, 0.0, 0.0, 0.0]), None),
            ("padding_mask", Dtype::BOOL, vec![0, 0, 0, 0], None),
            ("padding_mask", Dtype::BOOL, vec![0, 0, 0, 1], Some(1)),
        ] {
            assert_eq!(padded(name, dtype, &data, 2), expected, "{name} {dtype:?} {data:?}");
        }
    }
}
