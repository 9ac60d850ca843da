//! Token sequences: given as ids, or cut from text by the model's own tokenizer.json.
//!
//! All sequences have the same length. Text is either one stream, cut into windows that may overlap, or documents between
//! separators, of which each gives its first tokens.

use std::fs::File;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::checkpoint::hex;
use crate::error::{Error, Result};
use crate::record::{TextArgs, TokenSource, Tokens, TokensInfo};

pub fn load_tokens(source: &TokenSource) -> Result<Tokens> {
    match source {
        TokenSource::IdsJson { path } => tokens(path, ids_json(path)?),
        TokenSource::IdsSafetensors { path, tensor } => tokens(path, ids_safetensors(path, tensor)?),
        TokenSource::Ids { ids } => tokens("script", ids.clone()),
        TokenSource::Text(args) => tokens(&args.path, text(args)?),
    }
}

/// Checks that `ids` are sequences of one length and names them.
fn tokens(source: &str, ids: Vec<Vec<u32>>) -> Result<Tokens> {
    let length = ids.first().map_or(0, Vec::len);
    if length == 0 {
        return Err(
            Error::bad_argument(format!("{source}: no tokens")).hint("give at least one sequence of at least one id")
        );
    }
    if let Some((s, other)) = ids.iter().enumerate().find(|(_, sequence)| sequence.len() != length) {
        return Err(Error::bad_argument(format!(
            "{source}: sequence 0 has {length} tokens, sequence {s} has {}",
            other.len()
        ))
        .hint("all sequences must have the same length; cut them to the shortest"));
    }
    let mut hash = Sha256::new();
    ids.iter().flatten().for_each(|id| hash.update(id.to_le_bytes()));
    let info = TokensInfo {
        source: source.to_string(),
        num_sequences: ids.len(),
        sequence_length: length,
        sha256: hex(&hash.finalize()),
    };
    Ok(Tokens { ids, info })
}

fn unreadable(path: &str, error: &std::io::Error) -> Error {
    Error::io(format!("reading {path}"), error).hint(match error.kind() {
        std::io::ErrorKind::InvalidData => "text must be UTF-8; convert the file first",
        _ => "paths given to load_tokens start from the folder the program runs in",
    })
}

/// A text file, or an error that says what to do.
pub fn read_text(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))
}

fn ids_json(path: &str) -> Result<Vec<Vec<u32>>> {
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    serde_json::from_str(&text).map_err(|e| {
        Error::corrupt(format!("reading {path}: {e}"))
            .hint("expected an array of arrays of token ids, such as [[1, 2], [3, 4]]")
    })
}

fn ids_safetensors(path: &str, tensor: &str) -> Result<Vec<Vec<u32>>> {
    let reading = format!("reading {path}");
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    // The file may hold gigabytes of activations beside the ids. Safety: a file that is cut short while it is read ends
    // the process; nothing of ours writes to inputs.
    let data = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(&reading, &e))?;
    let tensors = SafeTensors::deserialize(&data)
        .map_err(|e| Error::corrupt(format!("{reading}: {e}")).hint("the file is damaged or not safetensors"))?;
    let view = tensors.tensor(tensor).map_err(|_| {
        let names = tensors.names();
        Error::not_found(format!("{reading}: no tensor `{tensor}`"))
            .hint(crate::suggest::hint(tensor, names.iter().copied()))
    })?;
    let &[_, positions] = view.shape() else {
        let shape = view.shape();
        return Err(Error::bad_argument(format!(
            "{reading}: `{tensor}` has shape {shape:?}, expected [sequences, positions]"
        ))
        .hint("one sequence of n ids has the shape [1, n]"));
    };
    let bad = || {
        Error::bad_argument(format!("{reading}: `{tensor}` holds a negative or too large id"))
            .hint("are there padding marks such as -100? sequences must be complete")
    };
    let ids: Result<Vec<u32>> = match view.dtype() {
        Dtype::I64 | Dtype::U64 => {
            let values = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")));
            values.map(|id| u32::try_from(id).map_err(|_| bad())).collect()
        }
        Dtype::I32 | Dtype::U32 => {
            let values = view.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().expect("four bytes")));
            values.map(|id| u32::try_from(id).map_err(|_| bad())).collect()
        }
        other => Err(Error::bad_argument(format!("{reading}: `{tensor}` is {other:?}, expected integers"))
            .hint("store token ids as I32 or I64")),
    };
    if positions == 0 {
        return Ok(Vec::new());
    }
    Ok(ids?.chunks_exact(positions).map(<[u32]>::to_vec).collect())
}

fn text(args: &TextArgs) -> Result<Vec<Vec<u32>>> {
    for (name, value) in [("num_sequences", args.num_sequences), ("sequence_length", args.sequence_length)] {
        if value == 0 {
            return Err(Error::bad_argument(format!("{name} is 0")).hint("it must be at least 1"));
        }
    }
    if !(0.0..1.0).contains(&args.overlap) {
        return Err(Error::bad_argument(format!("overlap is {}, expected 0 to below 1", args.overlap))
            .hint("0.5 repeats half of each window in the next one"));
    }
    let mut text = match &args.text {
        Some(text) => text.clone(),
        None => read_text(&args.path)?,
    };
    if args.straight_quotes {
        text = text.replace(['\u{201c}', '\u{201d}'], "\"").replace(['\u{2018}', '\u{2019}'], "'");
    }
    let tokenizer = Sequencer::open(&args.tokenizer, args.add_special_tokens)?;
    let content = tokenizer.content(args.sequence_length)?;
    let sequences = match &args.separator {
        Some(separator) => documents(&tokenizer, &text, separator, content, args)?,
        None => windows(&tokenizer.ids(&text)?, content, args)?,
    };
    Ok(sequences.into_iter().map(|ids| tokenizer.framed(&ids)).collect())
}

/// The first `content` tokens of each of the first documents.
fn documents(
    tokenizer: &Sequencer,
    text: &str,
    separator: &str,
    content: usize,
    args: &TextArgs,
) -> Result<Vec<Vec<u32>>> {
    let documents: Vec<&str> = text.split(separator).map(str::trim).filter(|document| !document.is_empty()).collect();
    if documents.len() < args.num_sequences {
        return Err(Error::bad_argument(format!(
            "{}: {} documents between separators, num_sequences is {}",
            args.path,
            documents.len(),
            args.num_sequences
        ))
        .hint(format!("use num_sequences: {} or more text", documents.len())));
    }
    let sequence = |(i, document): (usize, &&str)| {
        let mut ids = tokenizer.ids(document)?;
        if ids.len() < content {
            let longest = ids.len() + args.sequence_length - content;
            return Err(Error::bad_argument(format!(
                "{}: document {i} gives sequences of at most {longest} tokens, sequence_length is {}",
                args.path, args.sequence_length
            ))
            .hint("use a smaller sequence_length or longer documents"));
        }
        ids.truncate(content);
        Ok(ids)
    };
    documents.iter().take(args.num_sequences).enumerate().map(sequence).collect()
}

/// Windows of `content` tokens, each starting `1 - overlap` of a window after the one before.
fn windows(ids: &[u32], content: usize, args: &TextArgs) -> Result<Vec<Vec<u32>>> {
    let step = ((content as f64 * (1.0 - args.overlap)).round() as usize).max(1);
    let needed = content + (args.num_sequences - 1) * step;
    if ids.len() < needed {
        let fit = if ids.len() < content { 0 } else { 1 + (ids.len() - content) / step };
        let hint = match fit {
            0 => format!("use a sequence_length of at most {} or more text", ids.len()),
            fit => format!("use num_sequences: {fit}, shorter sequences, an overlap, or more text"),
        };
        return Err(Error::bad_argument(format!(
            "{}: the text gives {} tokens; {} sequences of {} need {needed}",
            args.path,
            ids.len(),
            args.num_sequences,
            args.sequence_length
        ))
        .hint(hint));
    }
    Ok((0..args.num_sequences).map(|i| ids[i * step..i * step + content].to_vec()).collect())
}

/// A tokenizer and the special tokens it puts round a sequence.
struct Sequencer {
    tokenizer: Tokenizer,
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Sequencer {
    fn open(folder: &str, special: bool) -> Result<Self> {
        let path = Path::new(folder).join("tokenizer.json");
        if !path.exists() {
            return Err(Error::not_found(format!("{}: no such file", path.display()))
                .hint("text needs the model's tokenizer.json; without it give token ids: load_tokens(#{ ids: \"file.json\" })"));
        }
        let corrupt = |e: tokenizers::Error| {
            Error::corrupt(format!("reading {}: {e}", path.display())).hint("download the file again")
        };
        let mut tokenizer = Tokenizer::from_file(&path).map_err(corrupt)?;
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

    fn framed(&self, ids: &[u32]) -> Vec<u32> {
        [&self.before, ids, &self.after].concat()
    }
}
