//! From documents to sequences of token ids, by the model's own tokenizer.json.
//!
//! All documents form one stream, which is cut into windows that may overlap, or each document
//! gives its first tokens. In a stream a space precedes each document. A file that is one text is
//! used unchanged.

use super::encoder::{Encoder, PIECE, Stream};
use crate::error::{Error, Result};
use crate::hub::Documents;
use crate::progress::Progress;
use crate::record::{TextArgs, Windows};
use crate::words::counted;

/// An upper estimate of the characters per token, which determines how much text is read.
const CHARS_PER_TOKEN: usize = 6;
/// Number of tokens that must remain after a window when only the beginning of a text was read: the
/// last ones may depend on the following text.
const MARGIN: usize = 1024;

/// Makes `num_sequences` sequences of `sequence_length` ids.
///
/// # Errors
/// `bad_argument` if a number is out of range, `not_found` if the text is too short, and the errors
/// of reading the text and the tokenizer.
pub(super) fn from_text(documents: &mut Documents, args: &TextArgs, progress: &dyn Progress) -> Result<Vec<Vec<u32>>> {
    for (name, value) in [("num_sequences", args.num_sequences), ("sequence_length", args.sequence_length)] {
        if value == 0 {
            return Err(Error::bad_argument(format!("{name} is 0")).hint("it must be at least 1"));
        }
    }
    if !(0.0..1.0).contains(&args.overlap) {
        return Err(Error::bad_argument(format!("overlap is {}, expected 0 to below 1", args.overlap))
            .hint("0.5 repeats half of each window in the next one"));
    }
    // A missing text is reported before a missing tokenizer.
    let mut source = Source { first: documents.next_document()?, documents, straight_quotes: args.straight_quotes };
    let encoder = Encoder::open(&args.tokenizer, args.add_special_tokens)?;
    let content = encoder.text_tokens(args.sequence_length)?;
    let step = ((content as f64 * (1.0 - args.overlap)).round() as usize).max(1);
    let count = args.skip_sequences.checked_add(args.num_sequences);
    let needed = count.and_then(|count| (count - 1).checked_mul(step)?.checked_add(content));
    let (Some(count), Some(needed)) = (count, needed) else {
        return Err(Error::bad_argument("more tokens are asked for than can be counted")
            .hint("use smaller num_sequences, skip_sequences and sequence_length"));
    };
    let slicer = Slicer { encoder: &encoder, progress, args, content, step, count, needed };
    let sequences = match args.windows() {
        Windows::Documents => slicer.first_tokens_of_documents(&mut source)?,
        Windows::Tokens => slicer.windows(&mut source)?,
        Windows::Text => slicer.text_windows(&mut source)?,
    };
    Ok(sequences.into_iter().map(|ids| encoder.with_special_tokens(&ids)).collect())
}

/// The documents, with straight quotes if requested.
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

    /// Appends documents to `text` until it has `length` bytes. False if there are no more
    /// documents.
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

/// The parameters of the sequences.
struct Slicer<'a> {
    encoder: &'a Encoder,
    progress: &'a dyn Progress,
    args: &'a TextArgs,
    /// Number of text tokens in a sequence.
    content: usize,
    /// Distance between the starts of consecutive windows, in tokens.
    step: usize,
    /// Number of sequences, including skipped ones.
    count: usize,
    /// Number of tokens in `count` windows.
    needed: usize,
}

impl Slicer<'_> {
    /// The first `content` tokens of each document. In a text file, and of texts that a script
    /// gives, every document must have that many. In a corpus, shorter documents are skipped.
    fn first_tokens_of_documents(&self, source: &mut Source) -> Result<Vec<Vec<u32>>> {
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
            let strict = args.separator.is_some() || args.is_given();
            if ids.len() < self.content && !strict {
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

    /// The first ids of the next document: at least `content`, or all.
    fn document(&self, source: &mut Source) -> Result<Option<Vec<u32>>> {
        let Some(document) = source.next()? else { return Ok(None) };
        if !source.documents.one_text {
            return self.encoder.first(&document, self.content, self.progress).map(Some);
        }
        let mut stream = Stream::new(self.encoder, self.progress);
        stream.text = document;
        let mut more = true;
        while stream.ids.len() < self.content && (more || !stream.text.is_empty()) {
            let wanted = stream.bytes_needed();
            more = source.fill(&mut stream.text, wanted)?;
            stream.advance(!more)?;
        }
        // There is no further document.
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
            let wanted = stream.bytes_needed();
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

    /// As `windows`, but the window and the rest of the text are decoded and tokenised again, as if
    /// texts were passed on in place of ids. If this changes the number of tokens, all sequences
    /// are cut to the shortest.
    fn text_windows(&self, source: &mut Source) -> Result<Vec<Vec<u32>>> {
        let mut sequences = if source.documents.one_text {
            self.windows_of_beginning(source)?
        } else {
            // Document by document: the available text ends at the end of a document.
            let mut more = |text: &mut String| source.fill(text, text.len() + 1);
            self.windows_of_texts(&mut more, 0)?.unwrap_or_default()
        };
        let shortest = sequences.iter().map(Vec::len).min().unwrap_or(0).min(self.content);
        sequences.iter_mut().for_each(|ids| ids.truncate(shortest));
        Ok(sequences)
    }

    /// A single text may be far longer than needed, so only its beginning is read. Windows that end
    /// well before the end of the beginning are those of the whole text.
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

    /// Windows of the texts that `more` appends until it returns false. None if fewer than `margin`
    /// tokens remain after a window; without a margin this is an error.
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
