//! Models in a GGUF file that is damaged: what it says of itself, of its tensors, and of its tokenizer.

use std::path::Path;

use serde_json::json;

use crate::chance::Chance;
use crate::gguf_file::{Gguf, tokenizer};
use crate::model_files::script;
use crate::mutate;
use crate::process::Start;
use crate::workshop::{Workshop, write};

/// Types of ggml, with columns and bytes of a block.
const TYPES: &[(u32, usize, usize)] = &[(0, 1, 4), (1, 1, 2), (2, 32, 18), (8, 32, 34), (39, 32, 17)];
const WEIRD: &[u64] = &[0, 1, 7, 255, 1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 62, u64::MAX - 31, u64::MAX];

const HIDDEN: usize = 32;
const INNER: usize = 64;

/// A good file of one layer.
fn good(chance: &mut Chance) -> Gguf {
    let mut file = Gguf::of("llama");
    for (key, value) in [
        ("block_count", 1),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", INNER),
        ("context_length", 64),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
    ] {
        file.set(&format!("llama.{key}"), json!(value));
    }
    file.set("llama.attention.layer_norm_rms_epsilon", json!(1e-5)).set("llama.rope.freq_base", json!(1e4));
    let words = tokenizer(&mut file).len();
    let mut tensor = |name: &str, shape: &[usize]| {
        let (kind, columns, bytes) = if shape.len() == 1 { TYPES[0] } else { *chance.pick(TYPES) };
        let count = shape.iter().product::<usize>() / columns * bytes;
        // Small numbers, whatever the type.
        file.tensor(name, shape, kind, vec![0x11; count]);
    };
    tensor("token_embd.weight", &[words, HIDDEN]);
    tensor("output_norm.weight", &[HIDDEN]);
    for (name, shape) in [
        ("attn_norm", &[HIDDEN][..]),
        ("attn_q", &[HIDDEN, HIDDEN]),
        ("attn_k", &[HIDDEN / 2, HIDDEN]),
        ("attn_v", &[HIDDEN / 2, HIDDEN]),
        ("attn_output", &[HIDDEN, HIDDEN]),
        ("ffn_norm", &[HIDDEN]),
        ("ffn_gate", &[INNER, HIDDEN]),
        ("ffn_up", &[INNER, HIDDEN]),
        ("ffn_down", &[HIDDEN, INNER]),
    ] {
        tensor(&format!("blk.0.{name}.weight"), shape);
    }
    file
}

pub fn gguf(_: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let mut file = good(chance);
    let kind = chance.below(8);
    match kind {
        0 => {
            let at = chance.below(file.metadata.len());
            let other = file.metadata[chance.below(file.metadata.len())].1.clone();
            file.metadata[at].1 =
                chance.pick(&[json!(0), json!(1), json!(4_000_000_000u32), json!("x"), other]).clone();
        }
        1 => {
            let at = chance.below(file.tensors.len());
            let dimension = chance.below(file.tensors[at].1.len());
            file.tensors[at].1[dimension] = *chance.pick(WEIRD) as usize;
        }
        2 => {
            let at = chance.below(file.tensors.len());
            file.tensors[at].2 = *chance.pick(&[0, 1, 2, 3, 8, 12, 14, 16, 30, 39, u32::MAX]);
        }
        // Numbers: those of whole tensors, mostly scales that are none.
        6 => {
            let at = chance.below(file.tensors.len());
            let data = &mut file.tensors[at].3;
            let value = *chance.pick(&[0x00, 0x7c, 0x7f, 0x80, 0xff]);
            let first = chance.below(data.len());
            let count = *chance.pick(&[1, 2, 34, data.len()]);
            data.iter_mut().skip(first).take(count).for_each(|byte| *byte = value);
        }
        7 => {
            let at = chance.below(file.tensors.len());
            let count = file.tensors[at].3.len();
            file.tensors[at].3 = chance.bytes(count);
        }
        _ => (),
    }
    let bytes = file.bytes();
    let size = bytes.len();
    let bytes = match kind {
        3 => {
            let at = *chance.pick(&[8, 16, 24]);
            let weird = chance.pick(WEIRD).to_le_bytes();
            [&bytes[..at], &weird, &bytes[at + 8..]].concat()
        }
        4 => mutate::bytes(bytes, 0..size, chance),
        5 => mutate::bytes(bytes, 0..1_000, chance),
        _ => bytes,
    };
    std::fs::create_dir_all(folder.join("m")).unwrap();
    write(folder.join("m/model.gguf"), bytes);
    let start = Start { may_write: vec!["results"], ..script(folder, chance) };
    if chance.one_in(3) {
        let text = "print(load_tokens(#{ text: \"s.rhai\", model: load_model(\"m\"), num_sequences: 1, sequence_length: 4 }).ids);\n";
        write(folder.join("s.rhai"), text);
    }
    start
}
