//! The documents of a corpus, one after another: of a local text, JSON Lines or Parquet file, or of a dataset on the hub.
//!
//! Documents come in groups (the row groups of Parquet; all others have one), which are read when they are reached.
//! Shuffled, the groups come in random order and so do the documents of each; both follow from the seed.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::dataset;
use super::parquet_text::TextColumn;
use crate::error::{Error, Result};
use crate::record::TextArgs;

/// Gives the documents of group `i`.
type ReadGroup = Box<dyn Fn(usize) -> Result<Vec<String>> + Send>;

pub struct Documents {
    /// What to call it in a result.
    pub source: String,
    /// The hub's commit.
    pub revision: Option<String>,
    /// There is one text, and no boundary to mark.
    pub one_text: bool,
    read: ReadGroup,
    groups: VecDeque<usize>,
    here: VecDeque<String>,
    seed: Option<u64>,
}

/// How a file of text is written, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Plain,
    JsonLines,
    Parquet,
}

impl Format {
    pub fn of(path: &str) -> Self {
        match path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "parquet" => Self::Parquet,
            "jsonl" | "ndjson" => Self::JsonLines,
            _ => Self::Plain,
        }
    }
}

impl Documents {
    /// The documents that `args` names: of its dataset, those it brings along, or of its file.
    ///
    /// # Errors
    /// `not_found`, `io` or `corrupt` when the file cannot be read, and what the hub refuses with.
    pub fn open(args: &TextArgs) -> Result<Self> {
        let path = args.path.clone();
        if let Some(dataset) = &args.dataset {
            let found = dataset::open(dataset, &args.column)?;
            let documents = Self::parquet(&found.source, found.column, args.shuffle);
            return Ok(Self { revision: Some(found.revision), ..documents });
        }
        let format = Format::of(&path);
        let one_text = format == Format::Plain && args.separator.is_none();
        let documents = match (args.documents.clone(), format) {
            // Whoever sent them has put them in order.
            (Some(brought), _) => Self::single(&args.path, move || Ok(brought.clone()), None),
            (None, Format::Parquet) => Self::parquet(&path, local_parquet(&path, &args.column)?, args.shuffle),
            (None, Format::JsonLines) => {
                let column = args.column.clone();
                Self::single(&args.path, move || json_lines(&path, &column), args.shuffle)
            }
            (None, Format::Plain) => {
                let separator = args.separator.clone();
                Self::single(&args.path, move || plain(&path, separator.as_deref()), args.shuffle)
            }
        };
        Ok(Self { one_text, ..documents })
    }

    /// The first documents, of at most about `bytes`, but at least one where there is one: to be sent along.
    pub fn first(mut self, bytes: usize) -> Result<Vec<String>> {
        let (mut documents, mut total) = (Vec::new(), 0);
        while total < bytes
            && let Some(document) = self.next_document()?
        {
            total += document.len();
            documents.push(document);
        }
        Ok(documents)
    }

    fn single(source: &str, read: impl Fn() -> Result<Vec<String>> + Send + 'static, seed: Option<u64>) -> Self {
        Self::new(source, 1, Box::new(move |_| read()), seed)
    }

    fn parquet(source: &str, column: TextColumn, seed: Option<u64>) -> Self {
        Self::new(source, column.num_groups(), Box::new(move |group| column.group(group)), seed)
    }

    fn new(source: &str, groups: usize, read: ReadGroup, seed: Option<u64>) -> Self {
        let mut order: Vec<usize> = (0..groups).collect();
        if let Some(seed) = seed {
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
        let here = VecDeque::new();
        let source = source.to_string();
        Self { source, revision: None, one_text: false, read, groups: order.into(), here, seed }
    }

    /// The next document that is not blank.
    pub fn next_document(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(document) = self.here.pop_front() {
                if document.trim().is_empty() {
                    continue;
                }
                return Ok(Some(document));
            }
            let Some(group) = self.groups.pop_front() else { return Ok(None) };
            let mut documents = (self.read)(group)?;
            if let Some(seed) = self.seed {
                // Every group has a stream of its own, whichever is read before it.
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(group as u64 + 1);
                documents.shuffle(&mut random);
            }
            self.here = documents.into();
        }
    }
}

fn unreadable(path: &str, error: &std::io::Error) -> Error {
    Error::io(format!("reading {path}"), error).hint(match error.kind() {
        std::io::ErrorKind::InvalidData => "text must be UTF-8; convert the file first",
        _ => "paths given to load_tokens start from the folder the program runs in",
    })
}

/// A text file: one document, or those between separators.
fn plain(path: &str, separator: Option<&str>) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    match separator {
        Some(separator) => Ok(text.split(separator).map(|document| document.trim().to_string()).collect()),
        None => Ok(vec![text]),
    }
}

/// One JSON object per line, with the document under `column`.
fn json_lines(path: &str, column: &str) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let document = |(i, line): (usize, &str)| {
        let damaged = |problem: String| {
            Error::corrupt(format!("reading {path}, line {}: {problem}", i + 1))
                .hint("every line is a JSON object such as {\"text\": \"…\"}; `column` names another key")
        };
        let value: serde_json::Value = serde_json::from_str(line).map_err(|e| damaged(e.to_string()))?;
        let text = value.get(column).and_then(|value| value.as_str());
        text.map(str::to_string).ok_or_else(|| damaged(format!("no text under \"{column}\"")))
    };
    lines.map(document).collect()
}

fn local_parquet(path: &str, column: &str) -> Result<TextColumn> {
    let file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    let bytes = file.metadata().map_err(|e| unreadable(path, &e))?.len();
    let name = path.to_string();
    let read = move |range: std::ops::Range<u64>| {
        let mut data = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut data, range.start).map_err(|e| unreadable(&name, &e))?;
        Ok(data)
    };
    TextColumn::open(path, bytes, column, Arc::new(read))
}
