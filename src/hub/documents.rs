//! The documents of a corpus, one after another: of a local text, JSON Lines or Parquet file, or of a dataset on the hub.
//!
//! Documents come in groups (the row groups of Parquet; all others have one), which are read when they are reached, and of a
//! group no more than is asked for. Shuffled, the groups come in random order and so do the documents of each; both follow
//! from the seed.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::dataset;
use super::lines::{self, Slices};
use super::parquet_text::TextColumn;
use crate::error::{Error, Result};
use crate::outside;
use crate::record::TextArgs;

/// Texts, made when they are asked for.
pub type Texts = Box<dyn Iterator<Item = Result<String>> + Send>;
/// Gives the documents of group `i`, in the order of this generator where there is one.
type ReadGroup = Box<dyn Fn(usize, Option<ChaCha8Rng>) -> Result<Texts> + Send>;

pub struct Documents {
    /// What to call it in a result.
    pub source: String,
    /// The hub's commit.
    pub revision: Option<String>,
    /// There is one text, and no boundary to mark: what comes are consecutive pieces of it.
    pub one_text: bool,
    read: ReadGroup,
    groups: std::collections::VecDeque<usize>,
    here: Texts,
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
        let (column, separator) = (args.column.clone(), args.separator.clone());
        let documents = match (args.documents.clone(), format) {
            // Whoever sent them has put them in order.
            (Some(brought), _) => {
                let texts = move || -> Texts { Box::new(brought.clone().into_iter().map(Ok)) };
                Self::new(&args.path, 1, Box::new(move |_, _| Ok(texts())), None)
            }
            (None, Format::Parquet) => Self::parquet(&path, local_parquet(&path, &args.column)?, args.shuffle),
            (None, Format::JsonLines) => {
                let read = move |_, random| lines::json(&path, &column, random);
                Self::new(&args.path, 1, Box::new(read), args.shuffle)
            }
            (None, Format::Plain) => {
                let read = move |_, random| match &separator {
                    Some(separator) => lines::between(&path, separator, random),
                    None => Ok(Box::new(Slices::open(&path)?) as Texts),
                };
                Self::new(&args.path, 1, Box::new(read), args.shuffle)
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

    fn parquet(source: &str, column: TextColumn, seed: Option<u64>) -> Self {
        Self::new(source, column.num_groups(), Box::new(move |group, random| column.group(group, random)), seed)
    }

    fn new(source: &str, groups: usize, read: ReadGroup, seed: Option<u64>) -> Self {
        let mut order: Vec<usize> = (0..groups).collect();
        if let Some(seed) = seed {
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
        let here = Box::new(std::iter::empty());
        let source = source.to_string();
        Self { source, revision: None, one_text: false, read, groups: order.into(), here, seed }
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        self.groups.clear();
        self.here = Box::new(std::iter::empty());
    }

    /// The next document that is not blank, or the next piece of the one text.
    pub fn next_document(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(document) = self.here.next() {
                let document = document?;
                if !self.one_text && document.trim().is_empty() {
                    continue;
                }
                return Ok(Some(document));
            }
            let Some(group) = self.groups.pop_front() else { return Ok(None) };
            // Every group has a stream of its own, whichever is read before it.
            let random = self.seed.map(|seed| {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(group as u64 + 1);
                random
            });
            self.here = (self.read)(group, random)?;
        }
    }
}

pub fn unreadable(path: &str, error: &std::io::Error) -> Error {
    Error::io(format!("reading {path}"), error).hint(match error.kind() {
        std::io::ErrorKind::InvalidData => "text must be UTF-8; convert the file first",
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => "name a file",
        _ => "paths given to load_tokens start from the folder the program runs in",
    })
}

fn local_parquet(path: &str, column: &str) -> Result<TextColumn> {
    let file = outside::open(Path::new(path)).map_err(|e| unreadable(path, &e))?;
    let bytes = file.metadata().map_err(|e| unreadable(path, &e))?.len();
    let name = path.to_string();
    let read = move |range: std::ops::Range<u64>| {
        let mut data = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut data, range.start).map_err(|e| unreadable(&name, &e))?;
        Ok(data)
    };
    TextColumn::open(path, bytes, column, Arc::new(read))
}
