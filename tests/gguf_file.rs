//! GGUF files for tests and fuzzers, written by the specification among the documents of ggml, and by nothing of the program.

use serde_json::{Value, json};

/// A GGUF file as it is put together here.
#[derive(Clone, Default)]
pub struct Gguf {
    pub metadata: Vec<(String, Value)>,
    /// Name, shape with the rows' length last, type and data.
    pub tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

impl Gguf {
    pub fn of(arch: &str) -> Self {
        Self { metadata: vec![("general.architecture".to_string(), json!(arch))], tensors: Vec::new() }
    }

    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        self.metadata.retain(|(known, _)| known != key);
        self.metadata.push((key.to_string(), value));
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(known, _)| known != key);
        self
    }

    pub fn tensor(&mut self, name: &str, shape: &[usize], kind: u32, data: Vec<u8>) -> &mut Self {
        self.tensors.push((name.to_string(), shape.to_vec(), kind, data));
        self
    }

    /// Whole numbers are written as u32, others as f32.
    fn value(out: &mut Vec<u8>, value: &Value, typed: bool) {
        let kind = |kind: u32| if typed { kind.to_le_bytes().to_vec() } else { Vec::new() };
        match value {
            Value::Bool(flag) => out.extend([kind(7), vec![u8::from(*flag)]].concat()),
            Value::String(text) => out.extend([kind(8), text_bytes(text)].concat()),
            Value::Array(list) => {
                let of: u32 = match list.first() {
                    Some(Value::String(_)) => 8,
                    Some(Value::Number(number)) if number.is_f64() => 6,
                    _ => 4,
                };
                out.extend([kind(9), of.to_le_bytes().to_vec(), (list.len() as u64).to_le_bytes().to_vec()].concat());
                list.iter().for_each(|value| Self::value(out, value, false));
            }
            number => match number.as_u64() {
                Some(whole) => out.extend([kind(4), (whole as u32).to_le_bytes().to_vec()].concat()),
                None => {
                    let number = number.as_f64().unwrap() as f32;
                    out.extend([kind(6), number.to_le_bytes().to_vec()].concat());
                }
            },
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            out.extend(text_bytes(key));
            Self::value(&mut out, value, true);
        }
        let mut data = Vec::new();
        for (name, shape, kind, bytes) in &self.tensors {
            out.extend(text_bytes(name));
            out.extend((shape.len() as u32).to_le_bytes());
            shape.iter().rev().for_each(|size| out.extend((*size as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(bytes);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        [out, data].concat()
    }
}

pub fn text_bytes(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Bytes as GPT-2 writes them, one token each, and a few that are joined.
pub fn tokenizer(file: &mut Gguf) -> Vec<String> {
    let visible = |byte: u8| (33..=126).contains(&byte) || (161..=172).contains(&byte) || byte >= 174;
    let mut other = 256;
    let mut tokens: Vec<String> = Vec::new();
    for byte in 0..=255u8 {
        let letter = if visible(byte) { u32::from(byte) } else { other };
        other += u32::from(!visible(byte));
        tokens.push(char::from_u32(letter).unwrap().to_string());
    }
    tokens.extend(["ab", "Ġab", "12", "<s>"].map(str::to_string));
    let kinds: Vec<u32> = (0..tokens.len()).map(|id| if id == tokens.len() - 1 { 3 } else { 1 }).collect();
    file.set("tokenizer.ggml.model", json!("gpt2")).set("tokenizer.ggml.pre", json!("smollm"));
    file.set("tokenizer.ggml.tokens", json!(tokens)).set("tokenizer.ggml.token_type", json!(kinds));
    file.set("tokenizer.ggml.merges", json!(["a b", "Ġ ab", "1 2"]));
    file.set("tokenizer.ggml.bos_token_id", json!(tokens.len() - 1));
    tokens
}
