//! The tokenizer.json that transformers would have for the tokenizer in a GGUF file.
//!
//! Facts: `src/llama-vocab.cpp` of llama.cpp for the expressions by which texts are cut, and the
//! tokenizer.json files of the models that have them; `convert_slow_tokenizer.py` of transformers
//! for SentencePiece.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::header::{damaged, unsupported};
use crate::error::{Error, Result};
use crate::outside::shown;

/// Kinds of tokens.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const BYTE: u64 = 6;

/// What SentencePiece writes for a blank.
const BLANK: &str = "▁";

/// How texts are cut before pairs are joined.
struct Cut {
    /// As `tokenizer.ggml.pre` has it.
    names: &'static [&'static str],
    expression: Option<&'static str>,
    /// Each digit is a word.
    digits: bool,
    /// Texts are composed first (NFC).
    composed: bool,
    /// A word that is a token is one, whatever the pairs say.
    whole_words: bool,
    /// Whether texts begin with a special token where the file does not say.
    begins: bool,
}

const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT_4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

const GPT_2: Cut =
    Cut { names: &["gpt-2"], expression: None, digits: false, composed: false, whole_words: false, begins: false };
const CUTS: &[Cut] = &[
    GPT_2,
    Cut { names: &["smollm"], digits: true, ..GPT_2 },
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3"],
        expression: Some(LLAMA_3),
        whole_words: true,
        begins: true,
        ..GPT_2
    },
    Cut { names: &["tekken"], expression: Some(TEKKEN), whole_words: true, begins: true, ..GPT_2 },
    Cut { names: &["qwen2", "deepseek-r1-qwen"], expression: Some(QWEN_2), composed: true, ..GPT_2 },
    Cut { names: &["gpt-4o"], expression: Some(GPT_4O), ..GPT_2 },
];

/// The tokenizer of a file with this metadata; none where the file has none.
///
/// # Errors
/// `corrupt` where its parts do not fit each other, `unsupported` where it is of a kind that is not
/// read.
pub(super) fn json(place: &str, metadata: &HashMap<String, Value>) -> Result<Option<Vec<u8>>> {
    let Some(model) = metadata.get("tokenizer.ggml.model") else { return Ok(None) };
    let file = File { place, metadata };
    let model = model.as_str().unwrap_or_default();
    let tokens = file.texts("tokens")?;
    let tokenizer = match model {
        "gpt2" => file.pairs(&tokens)?,
        "llama" => file.pieces(&tokens)?,
        _ => return Err(file.unread(&format!("its tokenizer is of the kind \"{}\"", shown(model)))),
    };
    Ok(Some(serde_json::to_vec(&tokenizer).expect("texts and numbers")))
}

struct File<'a> {
    place: &'a str,
    metadata: &'a HashMap<String, Value>,
}

impl<'a> File<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.metadata.get(&format!("tokenizer.ggml.{key}"))
    }

    fn unread(&self, what: &str) -> Error {
        unsupported(self.place, what)
            .hint("put the tokenizer.json of the model that the file was made from beside the file: it is used instead")
    }

    fn wrong(&self, key: &str, what: &str) -> Error {
        damaged(self.place, format!("`tokenizer.ggml.{key}` in its metadata {what}"))
    }

    fn list(&self, key: &str) -> Result<&'a [Value]> {
        self.get(key).and_then(Value::as_array).map(|list| &list[..]).ok_or_else(|| self.wrong(key, "is no list"))
    }

    fn texts(&self, key: &str) -> Result<Vec<&'a str>> {
        let texts = self.list(key)?.iter().map(|value| value.as_str().ok_or_else(|| self.wrong(key, "holds no texts")));
        texts.collect()
    }

    /// What kind of token each is; all are usual where the file does not say.
    fn kinds(&self, count: usize) -> Result<Vec<u64>> {
        if self.get("token_type").is_none() {
            return Ok(vec![1; count]);
        }
        let kinds: Vec<u64> = self.list("token_type")?.iter().filter_map(Value::as_u64).collect();
        if kinds.len() == count {
            Ok(kinds)
        } else {
            Err(self.wrong("token_type", "is no list of a kind for each token"))
        }
    }

    fn flag(&self, key: &str, otherwise: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(otherwise)
    }

    /// Ids by token; of tokens that are there twice the first, as in llama.cpp.
    fn vocabulary(tokens: &[&str]) -> Map<String, Value> {
        let mut all = Map::new();
        for (id, token) in tokens.iter().enumerate() {
            all.entry(*token).or_insert_with(|| id.into());
        }
        all
    }

    /// Tokens that texts are searched for before anything else is done.
    fn added(tokens: &[&str], kinds: &[u64]) -> Vec<Value> {
        let is_added = |kind: u64| [UNKNOWN, CONTROL, USER_DEFINED].contains(&kind);
        let all = tokens.iter().zip(kinds).enumerate().filter(|(_, (_, kind))| is_added(**kind));
        let token = |(id, (token, kind)): (usize, (&&str, &u64))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": *kind != USER_DEFINED,
            })
        };
        all.map(token).collect()
    }

    /// What puts special tokens around a text; null where there are none.
    fn frame(&self, tokens: &[&str], begins: bool) -> Result<Value> {
        let mut specials = Map::new();
        let mut special = |key: &str| {
            let id = self.get(key).and_then(Value::as_u64);
            let token = id.and_then(|id| tokens.get(id as usize).map(|token| (id, *token)));
            let (id, token) = token.ok_or_else(|| self.wrong(key, "is no id of a token"))?;
            specials.insert(token.to_string(), json!({ "id": token, "ids": [id], "tokens": [token] }));
            Ok::<Value, Error>(json!({ "SpecialToken": { "id": token, "type_id": 0 } }))
        };
        let mut single = vec![json!({ "Sequence": { "id": "A", "type_id": 0 } })];
        if self.flag("add_bos_token", begins) {
            single.insert(0, special("bos_token_id")?);
        }
        if self.flag("add_eos_token", false) {
            single.push(special("eos_token_id")?);
        }
        if single.len() == 1 {
            return Ok(Value::Null);
        }
        let pair = json!([{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }]);
        Ok(json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials }))
    }

    /// Pairs of bytes (BPE), in the order in which they are joined.
    fn pairs(&self, tokens: &[&str]) -> Result<Value> {
        let pre = self.get("pre").and_then(Value::as_str).unwrap_or("");
        let Some(cut) = CUTS.iter().find(|cut| cut.names.contains(&pre)) else {
            return Err(self.unread(&format!("its tokenizer cuts texts in a way \"{}\" that is not known", shown(pre))));
        };
        let bytes = |by_itself| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": by_itself });
        let mut cuts = Vec::new();
        if cut.digits {
            cuts.push(json!({ "type": "Digits", "individual_digits": true }));
        }
        if let Some(expression) = cut.expression {
            let pattern = json!({ "Regex": expression });
            cuts.push(json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false }));
        }
        cuts.push(bytes(cut.expression.is_none()));
        let merges = self.texts("merges")?;
        let vocabulary = Self::vocabulary(tokens);
        let fits = |pair: &&str| pair.split_once(' ').is_some_and(|(l, r)| vocabulary.contains_key(&format!("{l}{r}")));
        if !merges.iter().all(fits) {
            return Err(self.wrong("merges", "has a pair that is no token"));
        }
        let kinds = self.kinds(tokens.len())?;
        Ok(json!({
            "version": "1.0",
            "added_tokens": Self::added(tokens, &kinds),
            "normalizer": if cut.composed { json!({ "type": "NFC" }) } else { Value::Null },
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": cuts },
            "post_processor": self.frame(tokens, cut.begins)?,
            "decoder": bytes(true),
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "ignore_merges": cut.whole_words, "vocab": vocabulary, "merges": merges,
            },
        }))
    }

    /// SentencePiece with a score for each token: what is joined is the pair whose token has the
    /// highest.
    fn pieces(&self, tokens: &[&str]) -> Result<Value> {
        let kinds = self.kinds(tokens.len())?;
        let scores: Vec<f64> = self.list("scores")?.iter().filter_map(Value::as_f64).collect();
        if scores.len() != tokens.len() {
            return Err(self.wrong("scores", "is no list of a number for each token"));
        }
        let vocabulary = Self::vocabulary(tokens);
        let joined = |id: usize| ![UNKNOWN, CONTROL, USER_DEFINED, BYTE].contains(&kinds[id]);
        let id = |token: &str| {
            let id = vocabulary.get(token)?.as_u64()? as usize;
            joined(id).then_some(id)
        };
        let mut merges: Vec<(f64, usize, usize)> = Vec::new();
        // Of a token that is there twice the first counts.
        for (whole, token) in tokens.iter().enumerate().filter(|(whole, token)| id(token) == Some(*whole)) {
            if token.len() > LONGEST || merges.len() > MAX_MERGES {
                return Err(self.wrong("tokens", "has longer tokens, or more pairs that make one, than any model"));
            }
            let mut pairs: Vec<(f64, usize, usize)> = token
                .char_indices()
                .skip(1)
                .filter_map(|(at, _)| Some((scores[whole], id(&token[..at])?, id(&token[at..])?)))
                .collect();
            pairs.sort_by_key(|(_, left, right)| (*left, *right));
            merges.extend(pairs);
        }
        merges.sort_by(|one, other| other.0.total_cmp(&one.0));
        let merges: Vec<[&str; 2]> = merges.iter().map(|(_, left, right)| [tokens[*left], tokens[*right]]).collect();
        let unknown = kinds.iter().position(|kind| *kind == UNKNOWN).map(|id| tokens[id]);
        let prefixed = self.flag("add_space_prefix", true);
        let mut steps = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": BLANK })];
        let mut back = vec![
            json!({ "type": "Replace", "pattern": { "String": BLANK }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefixed {
            steps.insert(0, json!({ "type": "Prepend", "prepend": BLANK }));
            back.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        Ok(json!({
            "version": "1.0",
            "added_tokens": Self::added(tokens, &kinds),
            "normalizer": { "type": "Sequence", "normalizers": steps },
            "pre_tokenizer": null,
            "post_processor": self.frame(tokens, true)?,
            "decoder": { "type": "Sequence", "decoders": back },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": kinds.contains(&BYTE),
                "ignore_merges": false, "vocab": vocabulary, "merges": merges,
            },
        }))
    }
}

/// Bytes of a token, of which every cut is looked at, and pairs that make a token.
const LONGEST: usize = 256;
const MAX_MERGES: usize = 1 << 21;
