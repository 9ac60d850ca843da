//! Text to token ids and back, by a model's own tokenizer.json, piece by piece: a text of any length costs the memory of a
//! piece, and no more of it is read than gives the ids that are needed.
//!
//! A tokenizer sees a text as a whole, so a cut may change ids. A piece overlaps the next one, and it is cut in the overlap at
//! a place where both sides, each without the other, give the ids that they give together. The ids are then those of the
//! whole text, unless a tokenizer looks farther than the overlap; where no such place is found, the piece grows.
//!
//! The only file that calls the library `tokenizers`, which panics on damaged files.

use serde::de::IgnoredAny;
use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use crate::error::{Error, Result};
use crate::hub;
use crate::outside::{complaint, guarded, json, syntax};
use crate::progress::Progress;

/// Bytes of text that are tokenised at once.
pub const PIECE: usize = 64 << 10;
/// Bytes that two pieces share: far more than any word.
const OVERLAP: usize = 4 << 10;
/// Places that are tried in an overlap before the piece grows.
const TRIES: usize = 6;
/// Bytes of a tokenizer.json, several times those of the largest vocabularies.
const MAX_TOKENIZER: usize = 128 << 20;

/// How many times longer a tokenizer may make a text; those at hand replace single characters by single ones.
const MAX_GROWTH: f64 = 1000.0;

/// A tokenizer and the special tokens it puts round a sequence.
pub struct Encoder {
    tokenizer: Tokenizer,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Encoder {
    /// The tokenizer of the model in `folder`; without `special`, its special tokens are left out.
    ///
    /// # Errors
    /// `not_found` where there is none, `corrupt` where it is damaged.
    pub fn open(folder: &str, special: bool) -> Result<Self> {
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
        // Of a text that is no JSON its place and its fault are told.
        let syntax = || syntax::wrong(&data, &serde_json::from_slice::<IgnoredAny>(&data).err()?);
        let (tokenizer, sample) =
            called(open).map_err(|said| corrupt(syntax().map_or(said, |what| format!("not valid JSON: {what}"))))?;
        let (before, after) = sample.as_ref().map(frame).unwrap_or_default();
        Ok(Self { tokenizer, before, after })
    }

    /// Ids of a text, special tokens left out.
    ///
    /// # Errors
    /// `interrupted` between two pieces; `bad_argument` where the tokenizer refuses the text.
    pub fn ids(&self, text: &str, progress: &dyn Progress) -> Result<Vec<u32>> {
        self.first(text, usize::MAX, progress)
    }

    /// The first ids of a text: at least `count`, or all.
    ///
    /// # Errors
    /// As `ids`.
    pub fn first(&self, text: &str, count: usize, progress: &dyn Progress) -> Result<Vec<u32>> {
        let mut stream = Stream::new(self, progress);
        let mut rest = text;
        while stream.ids.len() < count && !(rest.is_empty() && stream.text.is_empty()) {
            // Whole characters, so that as much is there as is wanted.
            let missing = stream.wanted().saturating_sub(stream.text.len());
            let (now, later) = rest.split_at(floor(rest, if missing > 0 { missing + 3 } else { 0 }));
            stream.text.push_str(now);
            rest = later;
            stream.advance(rest.is_empty())?;
        }
        Ok(stream.ids)
    }

    /// Ids of a text that is tokenised as a whole.
    fn whole(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = called(|| self.tokenizer.encode_fast(text, false));
        encoding.map(|e| e.get_ids().to_vec()).map_err(refused)
    }

    /// Tokens of text in a sequence of `length`.
    ///
    /// # Errors
    /// `bad_argument` where special tokens leave no room.
    pub fn content(&self, length: usize) -> Result<usize> {
        let special = self.before.len() + self.after.len();
        length.checked_sub(special).filter(|content| *content > 0).ok_or_else(|| {
            Error::bad_argument(format!("sequence_length is {length}, of which special tokens take {special}"))
                .hint("use longer sequences, or add_special_tokens: false")
        })
    }

    /// Text that gives these ids, special tokens left out.
    pub fn text(&self, ids: &[u32]) -> Result<String> {
        let text = called(|| self.tokenizer.decode(ids, true));
        text.map_err(|said| Error::bad_argument(format!("turning tokens back into text: {said}")))
    }

    pub fn framed(&self, ids: &[u32]) -> Vec<u32> {
        [&self.before, ids, &self.after].concat()
    }
}

/// The last boundary between characters up to byte `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|byte| text.is_char_boundary(*byte)).unwrap_or(0)
}

fn refused(said: String) -> Error {
    Error::bad_argument(format!("tokenising: {said}"))
}

/// Asks the library; what it says, or panics with, is cut short.
fn called<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> std::result::Result<T, String> {
    guarded(call)?.map_err(complaint)
}

/// How many times longer the replacements of a normalizer or decoder, one after the other, can make a text.
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
fn frame(sample: &Encoding) -> (Vec<u32>, Vec<u32>) {
    let (ids, mask) = (sample.get_ids(), sample.get_special_tokens_mask());
    let leading = mask.iter().take_while(|m| **m == 1).count();
    let trailing = mask.iter().skip(leading).filter(|m| **m == 1).count();
    (ids[..leading].to_vec(), ids[ids.len() - trailing..].to_vec())
}

/// A text that comes bit by bit, and its ids so far.
pub struct Stream<'a> {
    encoder: &'a Encoder,
    progress: &'a dyn Progress,
    /// What has come and is not tokenised yet.
    pub text: String,
    /// Final, whatever follows.
    pub ids: Vec<u32>,
    /// Bytes to be tokenised at once.
    piece: usize,
    /// Whether a piece begins behind the blank at which the text was cut: some tokenizers put one in front of every text.
    drop_blank: bool,
}

/// A place where a text can be cut.
#[derive(Clone, Copy)]
struct Cut {
    /// Ids before it.
    ids: usize,
    /// Byte at which the left side ends.
    byte: usize,
}

impl<'a> Stream<'a> {
    pub fn new(encoder: &'a Encoder, progress: &'a dyn Progress) -> Self {
        Self { encoder, progress, text: String::new(), ids: Vec::new(), piece: PIECE, drop_blank: false }
    }

    /// Bytes that `text` should have before it is tokenised.
    pub fn wanted(&self) -> usize {
        self.piece + OVERLAP
    }

    /// Tokenises one piece of what has come, and all of it where it is the `last` and short enough.
    ///
    /// # Errors
    /// `interrupted`, and where the tokenizer refuses the text.
    pub fn advance(&mut self, last: bool) -> Result<()> {
        if self.progress.interrupted() {
            return Err(Error::interrupted());
        }
        if self.text.len() <= self.wanted() {
            if last {
                let ids = self.encoder.whole(&self.text)?;
                self.ids.extend(ids);
                self.text.clear();
                return Ok(());
            }
            if self.text.len() < self.wanted() {
                return Ok(());
            }
        }
        let end = floor(&self.text, self.wanted());
        let encoding = called(|| self.encoder.tokenizer.encode(&self.text[..end], false)).map_err(refused)?;
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

    /// Where the text behind a cut begins.
    fn after(&self, byte: usize) -> usize {
        byte + usize::from(self.drop_blank && self.text.as_bytes()[byte] == b' ')
    }

    /// A place in the overlap at which the text up to `end` can be cut.
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

    /// Whether the text between `left` and `right`, and that between `right` and `end`, give each by itself the ids that they
    /// give in the whole.
    fn independent(&self, ids: &[u32], left: Cut, right: Cut, end: usize) -> Result<bool> {
        let same = |from: usize, to: usize, ids: &[u32]| Ok(self.encoder.whole(&self.text[from..to])? == ids);
        let (first, second) = (self.after(left.byte), self.after(right.byte));
        Ok(same(second, end, &ids[right.ids..])?
            && same(first, right.byte, &ids[left.ids..right.ids])?
            && same(first, end, &ids[left.ids..])?)
    }

    /// Places between tokens, the best first: between words, then beside other blanks, then anywhere.
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
            // Offsets may leave out the blank in front of a word.
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
