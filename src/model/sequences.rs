//! From documents to sequences of token ids, by the model's own tokenizer.json.
//!
//! Documents are one stream, cut into windows that may overlap, or each of them gives its first tokens. In a stream each
//! document stands behind a space; a file that is one text is taken as it is.

use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::hub::{self, Documents};
use crate::record::{TextArgs, Windows};

/// Characters that a token may stand for, to guess how much text is needed.
const CHARS_PER_TOKEN: usize = 6;
/// Tokens beyond the last window that must be there before text is cut off: the last ones may depend on what follows.
const MARGIN: usize = 32;

/// `num_sequences` sequences of `sequence_length` ids.
///
/// # Errors
/// `bad_argument` when a number makes no sense or the text is too short, and what reading text or tokenizer fails with.
pub fn from_text(documents: &mut Documents, args: &TextArgs) -> Result<Vec<Vec<u32>>> {
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
    let tokenizer = Sequencer::open(&args.tokenizer, args.add_special_tokens)?;
    let content = tokenizer.content(args.sequence_length)?;
    let sequences = match args.windows {
        Windows::Documents => one_per_document(&tokenizer, &mut source, content, args)?,
        Windows::Tokens => windows(&tokenizer, &mut source, content, args)?,
        Windows::Text => text_windows(&tokenizer, &mut source, content, args)?,
    };
    Ok(sequences.into_iter().map(|ids| tokenizer.framed(&ids)).collect())
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

/// The first `content` tokens of each document. Of a text file every document must have them; of a corpus those that are
/// too short are passed over.
fn one_per_document(
    tokenizer: &Sequencer,
    source: &mut Source,
    content: usize,
    args: &TextArgs,
) -> Result<Vec<Vec<u32>>> {
    let mut sequences = Vec::new();
    let (mut used, mut passed_over) = (0, 0);
    while used < args.skip_sequences + args.num_sequences {
        let Some(document) = source.next()? else {
            let needed = args.skip_sequences + args.num_sequences;
            let short = match passed_over {
                0 => String::new(),
                count => format!(", and {count} of fewer tokens than sequence_length"),
            };
            let what = if args.separator.is_some() { "documents between separators" } else { "documents" };
            let name =
                if args.skip_sequences > 0 { "skip_sequences and num_sequences are" } else { "num_sequences is" };
            return Err(Error::bad_argument(format!("{}: {used} {what}{short}, {name} {needed}", args.path))
                .hint(format!("use num_sequences: {} or more text", used.saturating_sub(args.skip_sequences))));
        };
        let mut ids = tokenizer.ids(&document)?;
        if ids.len() < content && args.separator.is_none() {
            passed_over += 1;
            continue;
        }
        if ids.len() < content {
            let longest = ids.len() + args.sequence_length - content;
            return Err(Error::bad_argument(format!(
                "{}: document {used} gives sequences of at most {longest} tokens, sequence_length is {}",
                args.path, args.sequence_length
            ))
            .hint("use a smaller sequence_length or longer documents"));
        }
        ids.truncate(content);
        if used >= args.skip_sequences {
            sequences.push(ids);
        }
        used += 1;
    }
    Ok(sequences)
}

/// From the start of one window of `content` tokens to that of the next.
fn step(content: usize, args: &TextArgs) -> usize {
    ((content as f64 * (1.0 - args.overlap)).round() as usize).max(1)
}

/// Windows of `content` tokens, each starting `1 - overlap` of a window after the one before.
fn windows(tokenizer: &Sequencer, source: &mut Source, content: usize, args: &TextArgs) -> Result<Vec<Vec<u32>>> {
    let step = step(content, args);
    let needed = content + (args.skip_sequences + args.num_sequences - 1) * step;
    let mut text = String::new();
    let mut length = needed * CHARS_PER_TOKEN;
    let ids = loop {
        let more = source.fill(&mut text, length)?;
        let ids = tokenizer.ids(&text)?;
        if ids.len() >= needed + MARGIN || !more {
            break ids;
        }
        length = 2 * text.len();
    };
    if ids.len() < needed {
        return Err(too_short(ids.len(), needed, step, content, args));
    }
    let first = args.skip_sequences * step;
    Ok((0..args.num_sequences).map(|i| ids[first + i * step..][..content].to_vec()).collect())
}

fn too_short(have: usize, needed: usize, step: usize, content: usize, args: &TextArgs) -> Error {
    let fit = if have < content { 0 } else { 1 + (have - content) / step };
    let hint = match fit.saturating_sub(args.skip_sequences) {
        0 if args.skip_sequences > 0 => "use a smaller skip_sequences or more text".to_string(),
        0 => format!("use a sequence_length of at most {have} or more text"),
        fit => format!("use num_sequences: {fit}, shorter sequences, an overlap, or more text"),
    };
    Error::bad_argument(format!(
        "{}: the text gives {have} tokens; {} sequences of {} need {needed}",
        args.path,
        args.skip_sequences + args.num_sequences,
        args.sequence_length
    ))
    .hint(hint)
}

/// As `windows`, but window and rest are turned into text and tokenised again, as when texts and not ids are passed on.
/// Where that changes the number of tokens, all sequences are cut to the shortest.
fn text_windows(tokenizer: &Sequencer, source: &mut Source, content: usize, args: &TextArgs) -> Result<Vec<Vec<u32>>> {
    let step = step(content, args);
    let (mut sequences, mut count) = (Vec::new(), 0);
    let (mut text, mut cut) = (String::new(), 0);
    while sequences.len() < args.num_sequences {
        // Document by document: the text at hand ends where a document does.
        let mut ids = tokenizer.ids(&text)?;
        while ids.len() < content {
            let length = text.len() + 1;
            let more = source.fill(&mut text, length)?;
            ids = tokenizer.ids(&text)?;
            if !more && ids.len() < content {
                let needed = content + (args.skip_sequences + args.num_sequences - 1) * step;
                return Err(too_short(cut + ids.len(), needed, step, content, args));
            }
        }
        if count >= args.skip_sequences {
            sequences.push(tokenizer.ids(&tokenizer.text(&ids[..content])?)?);
        }
        count += 1;
        text = tokenizer.text(&ids[step..])?;
        cut += step;
    }
    let shortest = sequences.iter().map(Vec::len).min().unwrap_or(0).min(content);
    sequences.iter_mut().for_each(|ids| ids.truncate(shortest));
    Ok(sequences)
}

/// A tokenizer and the special tokens it puts round a sequence.
struct Sequencer {
    tokenizer: Tokenizer,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Sequencer {
    fn open(folder: &str, special: bool) -> Result<Self> {
        let path = format!("{folder}/tokenizer.json");
        let data = hub::at(folder)?.small("tokenizer.json")?.ok_or_else(|| {
            Error::not_found(format!("{path}: no such file"))
                .hint("text needs the model's tokenizer.json; without it give token ids: load_tokens(#{ ids: \"file.json\" })")
        })?;
        let corrupt =
            |e: tokenizers::Error| Error::corrupt(format!("reading {path}: {e}")).hint("download the file again");
        let mut tokenizer = Tokenizer::from_bytes(&data).map_err(corrupt)?;
        tokenizer.with_truncation(None).map_err(corrupt)?;
        tokenizer.with_padding(None);
        let (mut before, mut after) = (Vec::new(), Vec::new());
        if special {
            let sample = tokenizer.encode("a", true).map_err(corrupt)?;
            let mask = sample.get_special_tokens_mask();
            let leading = mask.iter().take_while(|m| **m == 1).count();
            let trailing = mask.iter().skip(leading).filter(|m| **m == 1).count();
            before = sample.get_ids()[..leading].to_vec();
            after = sample.get_ids()[mask.len() - trailing..].to_vec();
        }
        Ok(Self { tokenizer, before, after })
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false);
        encoding.map(|e| e.get_ids().to_vec()).map_err(|e| Error::bad_argument(format!("tokenising: {e}")))
    }

    /// Tokens of text in a sequence of `length`.
    fn content(&self, length: usize) -> Result<usize> {
        let special = self.before.len() + self.after.len();
        length.checked_sub(special).filter(|content| *content > 0).ok_or_else(|| {
            Error::bad_argument(format!("sequence_length is {length}, of which special tokens take {special}"))
                .hint("use longer sequences, or add_special_tokens: false")
        })
    }

    /// Text that gives these ids, special tokens left out.
    fn text(&self, ids: &[u32]) -> Result<String> {
        let text = self.tokenizer.decode(ids, true);
        text.map_err(|e| Error::bad_argument(format!("turning tokens back into text: {e}")))
    }

    fn framed(&self, ids: &[u32]) -> Vec<u32> {
        [&self.before, ids, &self.after].concat()
    }
}
