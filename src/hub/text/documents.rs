//! The documents of a corpus, one after another, from a text file in one of the formats of
//! `formats.rs`, on this machine or in a dataset on the hub.
//!
//! Documents come in groups (the row groups of Parquet; other files have one group). A group is
//! read when it is reached, and only as far as needed. If shuffled, the groups and the documents in
//! each group are in random order, which the seed determines.

use std::io::{Cursor, Read};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::failure::TextFailure;
use super::formats::{self, Format};
use super::json_sequence::Unmarked;
use super::json_values::Values;
use super::lines::{self, Shuffled, Slices};
use super::parquet_text::TextColumn;
use super::text_file::{Bytes, TextFile, unreadable};
use super::texts::Texts;
use super::unpack::Packing;
use super::{dataset, json, spooled, table};
use crate::error::{Error, Result};
use crate::outside::BOM;
use crate::progress::interrupt_requested;
use crate::record::{Brought, DEFAULT_COLUMN, TextArgs, TextFormat};

/// Size of the file's beginning by which its format is recognised.
const HEAD: u64 = 64 << 10;

/// Returns the documents of group `i`, in random order if there is a generator.
type ReadGroup = Box<dyn FnMut(usize, Option<ChaCha8Rng>) -> Result<Texts> + Send>;

pub struct Documents {
    /// Its name in results.
    pub source: String,
    /// The hub's commit.
    pub revision: Option<String>,
    /// True if there is one text without boundaries, whose consecutive pieces are returned.
    pub one_text: bool,
    read: ReadGroup,
    groups: std::collections::VecDeque<usize>,
    here: Texts,
    seed: Option<u64>,
}

impl Documents {
    /// The documents of `args`: of its dataset, of its list, or of its file.
    ///
    /// # Errors
    /// `not_found`, `io` or `corrupt` if the file cannot be read, `unsupported` for other formats,
    /// `bad_argument` if an option does not apply to the format, and the hub's refusals.
    pub fn open(args: &TextArgs) -> Result<Self> {
        if let Some(Brought { documents, one_text }) = args.documents.clone() {
            // The sender has ordered them.
            let mut documents = Some(documents);
            let read =
                move |_, _| -> Result<Texts> { Ok(Box::new(documents.take().unwrap_or_default().into_iter().map(Ok))) };
            return Ok(Self { one_text, ..Self::new(&args.path, 1, Box::new(read), None) });
        }
        let (file, revision) = match &args.dataset {
            Some(dataset) => {
                let found = dataset::open(dataset)?;
                (found.file, Some(found.revision))
            }
            None => (TextFile::here(&args.path)?, None),
        };
        let name = file.name.clone();
        let content = Content::of(file, args.format, args.column.is_some())?;
        content.suits(args)?;
        let column = args.column.clone().unwrap_or_else(|| DEFAULT_COLUMN.to_string());
        if content.format == Format::Parquet {
            let column = TextColumn::open(&name, content.file.bytes, &column, content.file.read)?;
            let groups = column.num_groups();
            let read = Box::new(move |group, random| column.group(group, random));
            return Ok(Self { revision, ..Self::new(&name, groups, read, args.shuffle) });
        }
        let separator = args.separator.clone();
        let one_text = content.format == Format::Plain && separator.is_none();
        let mut content = Some(content);
        let read = move |_, random| match content.take() {
            Some(content) => content.texts(&column, separator.as_deref(), random),
            None => Ok(Box::new(std::iter::empty()) as Texts),
        };
        Ok(Self { revision, one_text, ..Self::new(&name, 1, Box::new(read), args.shuffle) })
    }

    /// The first documents with about `bytes` in total, and at least one if there is any, to be
    /// sent to a machine.
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

    fn new(source: &str, groups: usize, read: ReadGroup, seed: Option<u64>) -> Self {
        let mut order: Vec<usize> = (0..groups).collect();
        if let Some(seed) = seed {
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        }
        let here = Box::new(std::iter::empty());
        let source = source.to_string();
        Self { source, revision: None, one_text: false, read, groups: order.into(), here, seed }
    }

    /// Ends the iteration.
    pub fn end(&mut self) {
        self.groups.clear();
        self.here = Box::new(std::iter::empty());
    }

    /// The next document that is not blank, or the next piece of the one text.
    pub fn next_document(&mut self) -> Result<Option<String>> {
        loop {
            if interrupt_requested() {
                return Err(Error::interrupted());
            }
            if let Some(document) = self.here.next() {
                let document = document?;
                if !self.one_text && document.trim().is_empty() {
                    continue;
                }
                return Ok(Some(document));
            }
            let Some(group) = self.groups.pop_front() else { return Ok(None) };
            // Every group has a random generator of its own, independent of the groups read before.
            let random = self.seed.map(|seed| {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(group as u64 + 1);
                random
            });
            self.here = (self.read)(group, random)?;
        }
    }
}

/// A file whose format is known, with the bytes that were read to recognise it.
struct Content {
    file: TextFile,
    format: Format,
    packing: Option<Packing>,
    /// The beginning of the decompressed text, and the rest.
    head: Vec<u8>,
    rest: Bytes,
    /// First byte of the text in an uncompressed file, after the byte order mark.
    begin: u64,
}

impl Content {
    fn of(file: TextFile, wanted: Option<TextFormat>, in_column: bool) -> Result<Self> {
        let name = file.name.clone();
        // The end of a Parquet file repeats the mark of its beginning, and each query to the hub
        // takes time.
        let is_parquet = match wanted {
            Some(wanted) => wanted == TextFormat::Parquet,
            None => file.remote && name.ends_with(".parquet"),
        };
        if is_parquet {
            let (head, rest): (_, Bytes) = (Vec::new(), Box::new(std::io::empty()));
            return Ok(Self { file, format: Format::Parquet, packing: None, head, rest, begin: 0 });
        }
        let beginning = |bytes: &mut Bytes| {
            let mut head = Vec::new();
            bytes.take(HEAD).read_to_end(&mut head).map_err(|e| unreadable(&name, &e))?;
            Ok::<_, Error>(head)
        };
        let mut rest: Bytes = Box::new(file.stream());
        let mut head = beginning(&mut rest)?;
        let packing = Packing::of(&head);
        if let Some(packing) = packing {
            let packed = Box::new(Cursor::new(head).chain(rest));
            rest = packing.unpacked(&name, packed).map_err(|e| unreadable(&name, &e))?;
            head = beginning(&mut rest)?;
        }
        let whole = (head.len() as u64) < HEAD;
        // Where marked files were joined or marked again, there are several.
        let marks = head.chunks_exact(BOM.len()).take_while(|mark| *mark == BOM).count();
        let begin = marks * BOM.len();
        head.drain(..begin);
        let format = formats::judge(&name, &head, whole, packing, wanted, in_column)?;
        Ok(Self { file, format, packing, head, rest, begin: begin as u64 })
    }

    /// Checks that the options of `args` apply to the format.
    fn suits(&self, args: &TextArgs) -> Result<()> {
        let wrong = |option, goes_with, hint| {
            let (name, format) = (self.file.name.clone(), self.format.name());
            Err(Error::of(TextFailure::Inapplicable { option, goes_with, name, format, hint }))
        };
        if self.format != Format::Plain {
            return match args.separator {
                Some(_) => wrong("separator", "a plain text", "JSON, tables and Parquet hold documents already"),
                None => Ok(()),
            };
        }
        let hint = "a plain text is one document; `separator` cuts it into several";
        if args.column.is_some() {
            let hint = "format: \"csv\" or \"tsv\" reads a table under any name; a plain text is one document, and `separator` \
                        cuts it into several";
            return wrong("column", "JSON, CSV or Parquet", hint);
        }
        if args.shuffle.is_some() && args.separator.is_none() {
            return wrong("shuffle", "several documents", hint);
        }
        Ok(())
    }

    /// The texts, in random order if there is a generator. Parquet has groups instead.
    fn texts(self, column: &str, separator: Option<&str>, random: Option<ChaCha8Rng>) -> Result<Texts> {
        let Self { file, format, packing, head, rest, begin } = self;
        let name = file.name.as_str();
        let head_of_table = if matches!(format, Format::Table { .. }) { head.clone() } else { Vec::new() };
        let text: Bytes = Box::new(Cursor::new(head).chain(rest));
        // If positions in the file are positions in the text, shuffling the positions suffices.
        let (placed, random) = match (random, packing, format) {
            (Some(random), None, Format::Plain | Format::JsonLines) if !file.remote => {
                (Some(Shuffled { random, read: file.read.clone(), begin }), None)
            }
            (random, ..) => (None, random),
        };
        let texts: Texts = match (format, separator) {
            (Format::Plain, Some(separator)) => {
                lines::between(name, lines::parts(name, text, separator, false, placed)?)
            }
            (Format::JsonLines, _) => {
                let parts = lines::parts(name, text, "\n", true, placed)?;
                Box::new(json::Texts::new(name, column, lines::values(parts)))
            }
            (Format::JsonValues | Format::JsonArray, _) => {
                let values = Values::new(name, text, format == Format::JsonArray);
                Box::new(json::Texts::new(name, column, values))
            }
            (Format::JsonSequence, _) => {
                let values = Values::new(name, Box::new(Unmarked::new(text)), false);
                Box::new(json::Texts::new(name, column, values))
            }
            (Format::Table { delimiter, quoting }, _) => {
                Box::new(table::Texts::open(name, &head_of_table, text, (delimiter, quoting), column)?)
            }
            (Format::Plain | Format::Parquet, _) => Box::new(Slices::new(name, text)),
        };
        match random {
            Some(random) => spooled::shuffled(name, texts, random),
            None => Ok(texts),
        }
    }
}
