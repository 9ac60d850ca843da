//! From documents to sequences of token ids, by the model's own tokenizer.json.
//!
//! Documents are one stream, cut into windows that may overlap, or each of them gives its first tokens. In a stream each
//! document stands behind a space; a file that is one text is taken as it is.

use super::encoder::{Encoder, PIECE, Stream};
use crate::error::{Error, Result};
use crate::hub::Documents;
use crate::progress::Progress;
use crate::record::{TextArgs, Windows};
use crate::words::counted;

/// Characters that a token may stand for, to guess how much text is needed.
const CHARS_PER_TOKEN: usize = 6;
/// Tokens that must be left of the beginning of a text behind a window: the last ones may depend on what follows.
const MARGIN: usize = 1024;

/// `num_sequences` sequences of `sequence_length` ids.
///
/// # Errors
/// `bad_argument` when a number makes no sense, `not_found` when the text is too short, and what reading text or tokenizer fails with.
pub fn from_text(documents: &mut Documents, args: &TextArgs, progress: &dyn Progress) -> Result<Vec<Vec<u32>>> {
    for (name, value) in [("num_sequences", args.num_sequences), ("sequence_length", args.sequence_length)] {
        if value == 0 {
            return Err(Error::bad_argument(format!("{name} is 0")).hint("it must be at least 1"));
        }
    }
    if !(0.0..1.0).contains(&args.overlap) {
        return Err(Error::bad_argument(format!("overlap is {}, expected 0 to below 1", args.overlap))
            .hint("0.5 repeats half of each window in the next one"));
    }
    // Text that is not there is told before a tokenizer that is not.
    let mut source = Source { first: documents.next_document()?, documents, straight_quotes: args.straight_quotes };
    let encoder = Encoder::open(&args.tokenizer, args.add_special_tokens)?;
    let content = encoder.content(args.sequence_length)?;
    let step = ((content as f64 * (1.0 - args.overlap)).round() as usize).max(1);
    let count = args.skip_sequences.checked_add(args.num_sequences);
    let needed = count.and_then(|count| (count - 1).checked_mul(step)?.checked_add(content));
    let (Some(count), Some(needed)) = (count, needed) else {
        return Err(Error::bad_argument("more tokens are asked for than can be counted")
            .hint("use smaller num_sequences, skip_sequences and sequence_length"));
    };
    let cut = Cut { encoder: &encoder, progress, args, content, step, count, needed };
    let sequences = match args.windows {
        Windows::Documents => cut.one_per_document(&mut source)?,
        Windows::Tokens => cut.windows(&mut source)?,
        Windows::Text => cut.text_windows(&mut source)?,
    };
    Ok(sequences.into_iter().map(|ids| encoder.framed(&ids)).collect())
}

/// Documents, prepared.
struct Source<'a> {
    first: Option<String>,
    documents: &'a mut Documents,
    straight_quotes: bool,
}

impl Source<'_> {
    fn next(&mut self) -> Result<Option<String>> {
        let document = match self.first.take() {
            Some(first) => Some(first),
            None => self.documents.next_document()?,
        };
        let straight =
            |text: String| text.replace(['\u{201c}', '\u{201d}'], "\"").replace(['\u{2018}', '\u{2019}'], "'");
        Ok(if self.straight_quotes { document.map(straight) } else { document })
    }

    /// Adds documents to `text` until it has `length` bytes; false when there are no more.
    fn fill(&mut self, text: &mut String, length: usize) -> Result<bool> {
        while text.len() < length {
            let Some(document) = self.next()? else { return Ok(false) };
            if !self.documents.one_text {
                text.push(' ');
            }
            text.push_str(&document);
        }
        Ok(true)
    }
}

/// How sequences are cut, and by what.
struct Cut<'a> {
    encoder: &'a Encoder,
    progress: &'a dyn Progress,
    args: &'a TextArgs,
    /// Tokens of text in a sequence.
    content: usize,
    /// From the start of one window to that of the next.
    step: usize,
    /// Sequences, with those that are passed over.
    count: usize,
    /// Tokens that `count` windows take.
    needed: usize,
}

impl Cut<'_> {
    /// The first `content` tokens of each document. Of a text file every document must have them; of a corpus those that are
    /// too short are passed over.
    fn one_per_document(&self, source: &mut Source) -> Result<Vec<Vec<u32>>> {
        let args = self.args;
        let mut sequences = Vec::new();
        let (mut used, mut passed_over) = (0, 0);
        while used < self.count {
            let Some(mut ids) = self.document(source)? else {
                let short = match passed_over {
                    0 => String::new(),
                    count => format!(", and {count} of fewer tokens than sequence_length"),
                };
                let what = if args.separator.is_some() { " between separators" } else { "" };
                let documents = counted(used, "document");
                let name =
                    if args.skip_sequences > 0 { "skip_sequences and num_sequences are" } else { "num_sequences is" };
                return Err(Error::not_found(format!(
                    "{}: {documents}{what}{short}, {name} {}",
                    args.path, self.count
                ))
                .hint(match used.saturating_sub(args.skip_sequences) {
                    0 if passed_over > 0 => "use a smaller sequence_length or more text".to_string(),
                    0 if used > 0 => "use a smaller skip_sequences or more text".to_string(),
                    0 => "there is nothing in it: use more text, or another one".to_string(),
                    fit => format!("use num_sequences: {fit} or more text"),
                }));
            };
            if ids.len() < self.content && args.separator.is_none() {
                passed_over += 1;
                continue;
            }
            if ids.len() < self.content {
                let longest = ids.len() + args.sequence_length - self.content;
                return Err(Error::not_found(format!(
                    "{}: document {used} gives sequences of at most {}, sequence_length is {}",
                    args.path,
                    counted(longest, "token"),
                    args.sequence_length
                ))
                .hint("use a smaller sequence_length or longer documents"));
            }
            ids.truncate(self.content);
            if used >= args.skip_sequences {
                sequences.push(ids);
            }
            used += 1;
        }
        Ok(sequences)
    }

    /// The first ids of the next document: enough for a sequence, or all.
    fn document(&self, source: &mut Source) -> Result<Option<Vec<u32>>> {
        let Some(document) = source.next()? else { return Ok(None) };
        if !source.documents.one_text {
            return self.encoder.first(&document, self.content, self.progress).map(Some);
        }
        let mut stream = Stream::new(self.encoder, self.progress);
        stream.text = document;
        let mut more = true;
        while stream.ids.len() < self.content && (more || !stream.text.is_empty()) {
            let wanted = stream.wanted();
            more = source.fill(&mut stream.text, wanted)?;
            stream.advance(!more)?;
        }
        // There is no other document.
        source.documents.end();
        Ok(Some(stream.ids))
    }

    /// Windows of `content` tokens of the stream of all documents.
    fn windows(&self, source: &mut Source) -> Result<Vec<Vec<u32>>> {
        let first = self.args.skip_sequences * self.step;
        let mut stream = Stream::new(self.encoder, self.progress);
        let (mut passed_over, mut more) = (0, true);
        while passed_over + stream.ids.len() < self.needed {
            if !more && stream.text.is_empty() {
                return Err(self.too_short(passed_over + stream.ids.len()));
            }
            let wanted = stream.wanted();
            more = source.fill(&mut stream.text, wanted)?;
            stream.advance(!more)?;
            let unused = stream.ids.len().min(first - passed_over);
            stream.ids.drain(..unused);
            passed_over += unused;
        }
        Ok((0..self.args.num_sequences).map(|i| stream.ids[i * self.step..][..self.content].to_vec()).collect())
    }

    fn too_short(&self, have: usize) -> Error {
        let args = self.args;
        let fit = if have < self.content { 0 } else { 1 + (have - self.content) / self.step };
        let hint = match fit.saturating_sub(args.skip_sequences) {
            0 if args.skip_sequences > 0 => "use a smaller skip_sequences or more text".to_string(),
            0 if have == 0 => "there is nothing in it: use more text, or another one".to_string(),
            0 => format!("use a sequence_length of at most {have} or more text"),
            fit => format!("use num_sequences: {fit}, shorter sequences, an overlap, or more text"),
        };
        Error::not_found(format!(
            "{}: the text gives {}; {} of {} need {}",
            args.path,
            counted(have, "token"),
            counted(self.count, "sequence"),
            args.sequence_length,
            self.needed
        ))
        .hint(hint)
    }

    /// As `windows`, but window and rest are turned into text and tokenised again, as when texts and not ids are passed on.
    /// Where that changes the number of tokens, all sequences are cut to the shortest.
    fn text_windows(&self, source: &mut Source) -> Result<Vec<Vec<u32>>> {
        let mut sequences = if source.documents.one_text {
            self.windows_of_beginning(source)?
        } else {
            // Document by document: the text at hand ends where a document does.
            let mut more = |text: &mut String| source.fill(text, text.len() + 1);
            self.windows_of_texts(&mut more, 0)?.unwrap_or_default()
        };
        let shortest = sequences.iter().map(Vec::len).min().unwrap_or(0).min(self.content);
        sequences.iter_mut().for_each(|ids| ids.truncate(shortest));
        Ok(sequences)
    }

    /// One text may be far longer than is needed: of its beginning, windows that end well before its end are the same.
    fn windows_of_beginning(&self, source: &mut Source) -> Result<Vec<Vec<u32>>> {
        let mut beginning = String::new();
        let mut length = self.needed.saturating_mul(2 * CHARS_PER_TOKEN).saturating_add(PIECE);
        loop {
            let cut_off = source.fill(&mut beginning, length)?;
            let mut once = Some(beginning.as_str());
            let mut more = |text: &mut String| {
                let there = once.take();
                text.push_str(there.unwrap_or_default());
                Ok(there.is_some())
            };
            if let Some(sequences) = self.windows_of_texts(&mut more, if cut_off { MARGIN } else { 0 })? {
                return Ok(sequences);
            }
            length = beginning.len().saturating_mul(2);
        }
    }

    /// Windows of the texts that `more` adds until it says that there are none. `None` where fewer than `margin` tokens are
    /// left behind a window, without a margin an error.
    fn windows_of_texts(
        &self,
        more: &mut dyn FnMut(&mut String) -> Result<bool>,
        margin: usize,
    ) -> Result<Option<Vec<Vec<u32>>>> {
        let (mut sequences, mut count) = (Vec::new(), 0);
        let (mut text, mut cut) = (String::new(), 0);
        while sequences.len() < self.args.num_sequences {
            let mut ids = self.encoder.ids(&text, self.progress)?;
            while ids.len() < self.content + margin {
                let there = more(&mut text)?;
                ids = self.encoder.ids(&text, self.progress)?;
                if !there && ids.len() < self.content + margin {
                    return if margin > 0 { Ok(None) } else { Err(self.too_short(cut + ids.len())) };
                }
            }
            if count >= self.args.skip_sequences {
                let window = self.encoder.text(&ids[..self.content])?;
                sequences.push(self.encoder.ids(&window, self.progress)?);
            }
            count += 1;
            text = self.encoder.text(&ids[self.step..])?;
            cut += self.step;
        }
        Ok(Some(sequences))
    }
}
