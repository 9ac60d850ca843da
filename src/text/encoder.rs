//! Conversion between text and token ids by a model's own tokenizer.json, piece by piece: a text of
//! any length needs the memory of one piece, and it is read only as far as the requested ids need.
//!
//! A tokenizer works on a whole text, so that cutting it may change ids. Pieces therefore overlap,
//! and a text is cut at a position in the overlap where both sides, tokenised separately, have the
//! ids that they have together. The ids are then those of the whole text, unless a tokenizer
//! depends on more text than the overlap. If there is no such position, the piece grows.
//!
//! This is the only file that calls the library `tokenizers`, which panics on damaged files.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use crate::error::{Error, Result};
use crate::hub;
use crate::outside::{complaint, guarded, json, syntax};
use crate::progress::Progress;
use crate::words::counted;

/// Bytes of text that are tokenised at a time.
pub(super) const PIECE: usize = 64 << 10;
/// Bytes that two consecutive pieces share: far more than any word.
const OVERLAP: usize = 4 << 10;
/// Number of cut positions that are tried in an overlap before the piece grows.
const TRIES: usize = 6;
/// The largest tokenizer.json in bytes, several times the size of the largest vocabularies.
const MAX_TOKENIZER: usize = 128 << 20;

/// The largest factor by which a tokenizer may lengthen a text. Real ones replace single characters
/// by single characters.
const MAX_GROWTH: f64 = 1000.0;

/// A tokenizer, and the special tokens that it adds before and after a sequence.
pub(super) struct Encoder {
    tokenizer: Tokenizer,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Encoder {
    /// Opens the tokenizer of the model in `folder`. Without `special`, it adds no special tokens.
    ///
    /// # Errors
    /// `not_found` if there is no tokenizer, `corrupt` if it is damaged.
    pub(super) fn open(folder: &str, special: bool) -> Result<Self> {
        let path = format!("{folder}/tokenizer.json");
        let data = hub::at(folder)?.small("tokenizer.json")?.ok_or_else(|| {
            Error::not_found(format!("{path}: no such file"))
                .hint("text needs the model's tokenizer.json; without it give token ids: load_tokens(#{ ids: \"file.json\" })")
        })?;
        let corrupt = |said: String| {
            Error::corrupt(format!("reading {path}: {said}"))
                .hint("correct the file there, or fetch it again from where the model came from")
        };
        if data.len() > MAX_TOKENIZER {
            return Err(corrupt(format!("{} bytes are too many for a tokenizer", data.len())));
        }
        json::check(&data, json::LARGE).map_err(corrupt)?;
        let open = || {
            let mut tokenizer = Tokenizer::from_bytes(&data)?;
            tokenizer.with_truncation(None)?;
            tokenizer.with_padding(None);
            let parts =
                [serde_json::to_value(tokenizer.get_normalizer())?, serde_json::to_value(tokenizer.get_decoder())?];
            if parts.iter().map(growth).any(|growth| growth > MAX_GROWTH) {
                return Err("it replaces characters by texts that grow without end".into());
            }
            let sample = special.then(|| tokenizer.encode("a", true)).transpose()?;
            Ok((tokenizer, sample))
        };
        // For a text that is not JSON, the message says where and why.
        let syntax = || syntax::wrong(&data, &serde_json::from_slice::<IgnoredAny>(&data).err()?);
        let (tokenizer, sample) = guarded_call(open)
            .map_err(|said| corrupt(syntax().map_or(said, |what| format!("not valid JSON: {what}"))))?;
        if let Some(dropout) = dropout(&data) {
            let message = format!(
                "reading {path}: `dropout` of its model is {dropout}: merges are left out at random, and a text has other ids each time"
            );
            return Err(Error::unsupported(message).hint(
                "this is for training: set `dropout` to null there, which gives the ids of inference; or give token ids",
            ));
        }
        let (before, after) = sample.as_ref().map(special_tokens).unwrap_or_default();
        Ok(Self { tokenizer, before, after })
    }

    /// The ids of a text, without special tokens.
    ///
    /// # Errors
    /// `interrupted` between two pieces, and `bad_argument` if the tokenizer fails on the text.
    pub(super) fn ids(&self, text: &str, progress: &dyn Progress) -> Result<Vec<u32>> {
        self.first(text, usize::MAX, progress)
    }

    /// The first ids of a text: at least `count`, or all.
    ///
    /// # Errors
    /// As `ids`.
    pub(super) fn first(&self, text: &str, count: usize, progress: &dyn Progress) -> Result<Vec<u32>> {
        let mut stream = Stream::new(self, progress);
        let mut rest = text;
        while stream.ids.len() < count && !(rest.is_empty() && stream.text.is_empty()) {
            // Whole characters are moved, and at least as many bytes as are missing.
            let missing = stream.bytes_needed().saturating_sub(stream.text.len());
            let (now, later) = rest.split_at(floor_char_boundary(rest, if missing > 0 { missing + 3 } else { 0 }));
            stream.text.push_str(now);
            rest = later;
            stream.advance(rest.is_empty())?;
        }
        Ok(stream.ids)
    }

    /// The ids of a text that is tokenised in one piece.
    fn whole(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded_call(|| self.tokenizer.encode_fast(text, false));
        encoding.map(|e| e.get_ids().to_vec()).map_err(refused)
    }

    /// Number of text tokens in a sequence of `length` tokens.
    ///
    /// # Errors
    /// `bad_argument` if the special tokens leave no space.
    pub(super) fn text_tokens(&self, length: usize) -> Result<usize> {
        let special = self.before.len() + self.after.len();
        length.checked_sub(special).filter(|text_tokens| *text_tokens > 0).ok_or_else(|| {
            Error::bad_argument(format!("sequence_length is {length}, of which special tokens take {special}"))
                .hint("use longer sequences, or add_special_tokens: false")
        })
    }

    /// Decodes ids to text, without special tokens.
    pub(super) fn text(&self, ids: &[u32]) -> Result<String> {
        self.decode(ids, true)
    }

    /// Decodes ids of any origin to text, without special tokens if `skip_special`.
    ///
    /// # Errors
    /// `bad_argument` for an id that is no token. The library leaves such ids out.
    pub(super) fn decoded(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let unknown = ids.iter().position(|id| self.tokenizer.id_to_token(*id).is_none());
        if let Some(at) = unknown {
            let size = self.tokenizer.get_vocab_size(true);
            return Err(Error::bad_argument(format!("id {} at position {at} is no token of this tokenizer", ids[at]))
                .hint(format!(
                    "it has {}; is it the tokenizer of the model that the ids are of?",
                    counted(size, "token")
                )));
        }
        self.decode(ids, skip_special)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let text = guarded_call(|| self.tokenizer.decode(ids, skip_special));
        text.map_err(|said| Error::bad_argument(format!("turning tokens back into text: {said}")))
    }

    pub(super) fn with_special_tokens(&self, ids: &[u32]) -> Vec<u32> {
        [&self.before, ids, &self.after].concat()
    }
}

/// The last character boundary at or before byte `at`.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|byte| text.is_char_boundary(*byte)).unwrap_or(0)
}

fn refused(said: String) -> Error {
    Error::bad_argument(format!("tokenising: {said}"))
}

/// Calls the library. Its error is shortened. A panic of it speaks of its own lists, and comes of
/// parts of the file that do not belong together.
fn guarded_call<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    let unfitting = "parts of tokenizer.json do not fit each other, such as merges and vocabulary".to_string();
    guarded(call).map_err(|_| unfitting)?.map_err(complaint)
}

/// The share of merges that a BPE model leaves out at random; None where it leaves out none.
fn dropout(data: &[u8]) -> Option<f64> {
    #[derive(Deserialize)]
    struct Part {
        model: Bpe,
    }
    #[derive(Deserialize)]
    struct Bpe {
        dropout: Option<f64>,
    }
    let part: Part = serde_json::from_slice(data).ok()?;
    part.model.dropout.filter(|dropout| *dropout > 0.0)
}

/// The largest factor by which the replacements of a normalizer or decoder, applied in turn, can
/// lengthen a text.
fn growth(part: &Value) -> f64 {
    let own = |key: &str| part[key].as_str().map_or(1.0, |text| text.chars().count().max(1) as f64);
    let inner: f64 = match part {
        Value::Object(map) => map.values().map(growth).product(),
        Value::Array(list) => list.iter().map(growth).product(),
        _ => 1.0,
    };
    own("content") * own("prepend") * inner
}

/// The special tokens before and after the text of a sample.
fn special_tokens(sample: &Encoding) -> (Vec<u32>, Vec<u32>) {
    let (ids, mask) = (sample.get_ids(), sample.get_special_tokens_mask());
    let leading = mask.iter().take_while(|m| **m == 1).count();
    let trailing = mask.iter().skip(leading).filter(|m| **m == 1).count();
    (ids[..leading].to_vec(), ids[ids.len() - trailing..].to_vec())
}

/// Tokenises a text that arrives in parts.
pub(super) struct Stream<'a> {
    encoder: &'a Encoder,
    progress: &'a dyn Progress,
    /// Text that is not tokenised yet.
    pub text: String,
    /// The ids so far. They do not depend on the following text.
    pub ids: Vec<u32>,
    /// Number of bytes to tokenise at a time.
    piece: usize,
    /// True if a piece begins after the space at which the text was cut, because some tokenizers
    /// prepend a space to every text.
    drop_blank: bool,
}

/// A position at which the text can be cut.
#[derive(Clone, Copy)]
struct Cut {
    /// Number of ids before it.
    ids: usize,
    /// The byte at which the left side ends.
    byte: usize,
}

impl<'a> Stream<'a> {
    pub(super) fn new(encoder: &'a Encoder, progress: &'a dyn Progress) -> Self {
        Self { encoder, progress, text: String::new(), ids: Vec::new(), piece: PIECE, drop_blank: false }
    }

    /// Number of bytes that `text` should have before `advance` is called.
    pub(super) fn bytes_needed(&self) -> usize {
        self.piece + OVERLAP
    }

    /// Tokenises one piece of the text, or all of the text if it is the `last` part and short
    /// enough.
    ///
    /// # Errors
    /// `interrupted`, and `bad_argument` if the tokenizer fails on the text.
    pub(super) fn advance(&mut self, last: bool) -> Result<()> {
        if self.progress.interrupted() {
            return Err(Error::interrupted());
        }
        if self.text.len() <= self.bytes_needed() {
            if last {
                let ids = self.encoder.whole(&self.text)?;
                self.ids.extend(ids);
                self.text.clear();
                return Ok(());
            }
            if self.text.len() < self.bytes_needed() {
                return Ok(());
            }
        }
        let end = floor_char_boundary(&self.text, self.bytes_needed());
        let encoding = guarded_call(|| self.encoder.tokenizer.encode(&self.text[..end], false)).map_err(refused)?;
        match self.cut(&encoding, end)? {
            Some(cut) => {
                self.ids.extend(&encoding.get_ids()[..cut.ids]);
                self.text.drain(..self.after(cut.byte));
                self.piece = PIECE;
            }
            None => self.piece = self.piece.saturating_mul(2),
        }
        Ok(())
    }

    /// The byte at which the text after a cut begins.
    fn after(&self, byte: usize) -> usize {
        byte + usize::from(self.drop_blank && self.text.as_bytes()[byte] == b' ')
    }

    /// Finds a position in the overlap at which the text up to `end` can be cut.
    fn cut(&mut self, encoding: &Encoding, end: usize) -> Result<Option<Cut>> {
        let begin = end - OVERLAP;
        let early = self.places(encoding, begin..begin + OVERLAP / 4);
        let late = self.places(encoding, begin + OVERLAP / 4..begin + OVERLAP / 2);
        for (left, right) in early.into_iter().zip(late) {
            for _ in 0..2 {
                if self.independent(encoding.get_ids(), left, right, end)? {
                    return Ok(Some(right));
                }
                self.drop_blank = !self.drop_blank;
            }
        }
        Ok(None)
    }

    /// True if the text between `left` and `right`, and the text between `right` and `end`, have
    /// the same ids separately as in the whole.
    fn independent(&self, ids: &[u32], left: Cut, right: Cut, end: usize) -> Result<bool> {
        let same = |from: usize, to: usize, ids: &[u32]| Ok(self.encoder.whole(&self.text[from..to])? == ids);
        let (first, second) = (self.after(left.byte), self.after(right.byte));
        Ok(same(second, end, &ids[right.ids..])?
            && same(first, right.byte, &ids[left.ids..right.ids])?
            && same(first, end, &ids[left.ids..])?)
    }

    /// Positions between tokens, the best first: between words, then next to other whitespace, then
    /// anywhere.
    fn places(&self, encoding: &Encoding, range: std::ops::Range<usize>) -> Vec<Cut> {
        let (bytes, offsets) = (self.text.as_bytes(), encoding.get_offsets());
        let rank = |byte: usize| {
            let (before, at, after) = (bytes[byte - 1], bytes[byte], bytes.get(byte + 1).copied().unwrap_or(b' '));
            let blank = at == b' ' || at == b'\n';
            match () {
                _ if at == b' ' && before.is_ascii_alphabetic() && after.is_ascii_alphabetic() => 0,
                _ if blank && !before.is_ascii_whitespace() && !after.is_ascii_whitespace() => 1,
                _ if !bytes[byte].is_ascii_alphanumeric() => 2,
                _ => 3,
            }
        };
        let cut = |byte: usize| {
            // Offsets may leave out the space before a word.
            let ids = offsets.partition_point(|(_, end)| *end <= byte);
            let fits = offsets.get(ids).is_some_and(|(start, _)| *start >= byte);
            (self.text.is_char_boundary(byte) && fits && ids > 0).then_some((rank(byte), Cut { ids, byte }))
        };
        let mut cuts: Vec<_> = range.rev().filter_map(cut).collect();
        cuts.sort_by_key(|(rank, _)| *rank);
        cuts.truncate(TRIES);
        cuts.into_iter().map(|(_, cut)| cut).collect()
    }
}
