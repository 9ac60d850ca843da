//! GGUF files, which llama.cpp runs: one file that has weights, config and tokenizer. Here it looks like a folder of transformers: what
//! other rooms ask for is made of what the file says, and tensors have the names and the order that they have there.
//!
//! A tensor that llama.cpp's converter has changed lies behind the end of the file, as far as readers know: what is read there is
//! made, as it is read, of the bytes that the file has of it.

mod config;
mod header;
mod names;
mod tokenizer;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::folder::Folder;
use super::source::{Announcement, ByteSource, FileRange, SourceFile, SourceTensor, SourceTensors, Tag};
use super::streamed::CONFIG;
use crate::error::{Error, Result};
use crate::formats::ggml::Type;
use crate::outside::{self, shown};
use config::{Family, ROPE_FACTORS};
use header::{Header, MAGIC, damaged, unsupported};
use names::Change;

const TOKENIZER: &str = "tokenizer.json";
/// Places behind the end of the file begin at multiples of so many bytes.
const APART: u64 = 4096;
/// Bytes that are made of others at once, about.
const PIECE: u64 = 1 << 20;
/// Factors of a rope: half of the sizes of the largest heads.
const MAX_FACTORS: usize = 1 << 14;
/// Experts of a layer, all layers together.
const MAX_EXPERTS: usize = 1 << 20;
const F32_BYTES: u64 = 4;

/// Whether a file begins as a GGUF file does.
pub(super) fn is_gguf(path: &Path) -> bool {
    outside::beginning(path, MAGIC.len() as u64).is_ok_and(|head| head == MAGIC)
}

/// The GGUF file of a folder that has no other weights; none where there is none.
///
/// # Errors
/// `unsupported` where there are several.
pub(super) fn in_folder(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut files: Vec<PathBuf> = entries.unwrap_or_default();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        // What turns images into embeddings stands beside the language model.
        name.ends_with(".gguf") && !name.starts_with("mmproj") && is_gguf(path)
    });
    files.sort();
    match &files[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        [first, ..] => Err(Error::unsupported(format!("{}: {} GGUF files", folder.display(), files.len()))
            .hint(format!("name the one that is meant: load_model(\"{}\")", shown(&first.display().to_string())))),
    }
}

pub(super) struct Gguf {
    file: Folder,
    place: String,
    opened: OnceLock<Opened>,
}

struct Opened {
    header: Header,
    factors: Option<Vec<f32>>,
    tensors: SourceTensors,
    /// By where they begin, behind the end of the file.
    made: BTreeMap<u64, Made>,
}

/// A tensor that is made of those of the file.
struct Made {
    bytes: u64,
    of: Recipe,
}

#[derive(Clone, Copy)]
enum Recipe {
    /// Rows of heads at `begin`, each of `row` bytes and `rows` of them to a head, in pairs that are turned together.
    Paired { begin: u64, row: u64, rows: u64 },
    /// Numbers in f32 to which one was added.
    PlusOne { begin: u64 },
    /// Rows of two tensors in turn.
    Alternating { begins: [u64; 2], row: u64 },
}

impl Gguf {
    pub(super) fn new(path: &Path) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { file: Folder::of_file(folder, name), place: path.display().to_string(), opened: OnceLock::new() }
    }

    fn opened(&self) -> Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let header = header::read(&self.file).map_err(|error| self.named(error))?;
        let family = config::family(&self.place, &header.metadata)?;
        let factors = self.factors(&header)?;
        let file = self.file.files()?[0].bytes;
        let described = config::config(&self.place, &header, factors.clone())?;
        let mut shelf = Shelf::new(&self.place, file, header.bytes, &described);
        for tensor in header.tensors.iter().filter(|tensor| tensor.name != ROPE_FACTORS) {
            shelf.put(family, tensor)?;
        }
        let (tensors, made) = shelf.finish()?;
        Ok(self.opened.get_or_init(|| Opened { header, factors, tensors, made }))
    }

    /// An error that names the folder of the file names the file.
    fn named(&self, error: Error) -> Error {
        let folder = format!("reading {}:", self.file.place());
        let message = error.message.replacen(&folder, &format!("reading {}:", self.place), 1);
        Error { message, ..error }
    }

    fn factors(&self, header: &Header) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = header.tensors.iter().find(|tensor| tensor.name == ROPE_FACTORS) else { return Ok(None) };
        if tensor.kind.plain() != Some(Dtype::F32) || tensor.shape.len() != 1 || tensor.shape[0] > MAX_FACTORS {
            return Err(damaged(&self.place, format!("`{ROPE_FACTORS}` is no list of numbers in F32")));
        }
        let mut data = vec![0; tensor.bytes as usize];
        self.file.read(0, tensor.begin, &mut data)?;
        Ok(Some(data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }

    fn config(&self) -> Result<Vec<u8>> {
        let opened = self.opened()?;
        let config = config::config(&self.place, &opened.header, opened.factors.clone())?;
        Ok(serde_json::to_vec_pretty(&config).expect("texts and numbers"))
    }

    /// Bytes of the file from `begin` on.
    fn stored(&self, begin: u64, bytes: u64) -> Result<Vec<u8>> {
        let mut data = vec![0; bytes as usize];
        self.file.read(0, begin, &mut data)?;
        Ok(data)
    }

    /// Fills `buffer` from byte `offset` of a tensor that is made.
    fn make(&self, of: Recipe, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (mut at, end) = (offset, offset + buffer.len() as u64);
        let mut rest = buffer;
        while at < end {
            // What is made at once, around `at`: where it begins, and its bytes.
            let (begin, made) = match of {
                Recipe::PlusOne { begin } => {
                    let from = at / F32_BYTES * F32_BYTES;
                    let bytes = (end.next_multiple_of(F32_BYTES) - from).min(PIECE);
                    let mut data = self.stored(begin + from, bytes)?;
                    for number in data.as_chunks_mut::<4>().0 {
                        *number = (f32::from_le_bytes(*number) - 1.0).to_le_bytes();
                    }
                    (from, data)
                }
                Recipe::Paired { begin, row, rows } => {
                    let head = row * rows;
                    let from = at / head * head;
                    let stored = self.stored(begin + from, head)?;
                    let place = |r: u64| (2 * (r % (rows / 2)) + r / (rows / 2)) * row;
                    let rows = (0..rows).map(|r| &stored[place(r) as usize..][..row as usize]);
                    (from, rows.collect::<Vec<_>>().concat())
                }
                Recipe::Alternating { begins, row } => {
                    let from = at / (2 * row) * (2 * row);
                    let pairs = ((end - from).div_ceil(2 * row)).min((PIECE / (2 * row)).max(1));
                    let [even, odd] = begins.map(|begin| self.stored(begin + from / 2, pairs * row));
                    let (even, odd) = (even?, odd?);
                    let rows = even.chunks_exact(row as usize).zip(odd.chunks_exact(row as usize));
                    (from, rows.flat_map(|(one, other)| [one, other]).collect::<Vec<_>>().concat())
                }
            };
            let part = &made[(at - begin) as usize..];
            let (now, later) = rest.split_at_mut(part.len().min(rest.len()));
            now.copy_from_slice(&part[..now.len()]);
            (at, rest) = (at + now.len() as u64, later);
        }
        Ok(())
    }
}

/// Tensors on their way from the file to what readers know of them.
struct Shelf<'a> {
    place: &'a str,
    config: &'a Map<String, Value>,
    tensors: SourceTensors,
    made: BTreeMap<u64, Made>,
    /// Where the next tensor that is made begins.
    next: u64,
    /// The first of two that alternate, by the name that they have together.
    halves: BTreeMap<String, (Change, Vec<usize>, &'static Type, u64)>,
    experts: usize,
}

impl<'a> Shelf<'a> {
    fn new(place: &'a str, file: u64, header: u64, config: &'a Map<String, Value>) -> Self {
        let tensors = SourceTensors { tensors: Vec::new(), header };
        let next = file.next_multiple_of(APART);
        Self { place, config, tensors, made: BTreeMap::new(), next, halves: BTreeMap::new(), experts: 0 }
    }

    fn size(&self, key: &str) -> u64 {
        self.config.get(key).and_then(Value::as_u64).unwrap_or(0)
    }

    fn put(&mut self, family: Family, tensor: &header::Tensor) -> Result<()> {
        let told = shown(&tensor.name);
        let Some((name, change)) = names::mapped(family, &tensor.name) else {
            return Err(unsupported(
                self.place,
                format!("tensor `{told}` in it has no place in a model of its architecture"),
            ));
        };
        let header::Tensor { shape, kind, begin, bytes, .. } = tensor;
        let misfit = || damaged(self.place, format!("tensor `{told}` in it has sizes that do not fit its metadata"));
        match change {
            Change::None => self.add(name, kind, shape.clone(), *begin, *bytes),
            Change::PlusOne => {
                if kind.plain() != Some(Dtype::F32) {
                    return Err(unsupported(self.place, format!("the norm `{told}` in it is {}, not F32", kind.name)));
                }
                let begin = self.make(*bytes, Recipe::PlusOne { begin: *begin });
                self.add(name, kind, shape.clone(), begin, *bytes);
            }
            Change::Paired => {
                let rows = self.size("head_dim");
                let all = shape[0] as u64;
                if rows == 0 || rows % 2 != 0 || all == 0 || all % rows != 0 || *bytes == 0 {
                    return Err(misfit());
                }
                let begin = self.make(*bytes, Recipe::Paired { begin: *begin, row: bytes / all, rows });
                self.add(name, kind, shape.clone(), begin, *bytes);
            }
            Change::Experts => {
                let [experts, rest @ ..] = &shape[..] else { return Err(misfit()) };
                self.experts = self.experts.saturating_add(*experts);
                if *experts as u64 != self.size("num_experts") || rest.len() != 2 || self.experts > MAX_EXPERTS {
                    return Err(misfit());
                }
                let own = bytes / (*experts).max(1) as u64;
                for expert in 0..*experts {
                    let name = name.replacen("{}", &expert.to_string(), 1);
                    self.add(name, kind, rest.to_vec(), begin + expert as u64 * own, own);
                }
            }
            Change::Even | Change::Odd => {
                let Some((other, other_shape, other_kind, other_begin)) = self.halves.remove(&name) else {
                    self.halves.insert(name, (change, shape.clone(), kind, *begin));
                    return Ok(());
                };
                if *other_shape != shape[..] || other == change || shape.len() < 2 {
                    return Err(misfit());
                }
                if !std::ptr::eq(other_kind, *kind) {
                    let what = format!("`{told}` in it is {}, and what belongs to it {}", kind.name, other_kind.name);
                    return Err(unsupported(self.place, what));
                }
                // Rows of biases are numbers.
                let row = bytes / shape[0].saturating_mul(shape[1]).max(1) as u64;
                let begins = if change == Change::Odd { [other_begin, *begin] } else { [*begin, other_begin] };
                if row == 0 {
                    return Err(misfit());
                }
                let mut shape = shape.clone();
                shape[1] *= 2;
                let begin = self.make(2 * bytes, Recipe::Alternating { begins, row });
                self.add(name, kind, shape, begin, 2 * bytes);
            }
        }
        Ok(())
    }

    /// The place of a tensor that is made.
    fn make(&mut self, bytes: u64, of: Recipe) -> u64 {
        let begin = self.next;
        self.next = (begin + bytes.max(1)).next_multiple_of(APART);
        self.made.insert(begin, Made { bytes, of });
        begin
    }

    fn add(&mut self, name: String, kind: &'static Type, mut shape: Vec<usize>, begin: u64, bytes: u64) {
        // Stacks of experts are rows of outputs here and of inputs in plain releases: such bytes are never taken for those.
        let stack = shape.len() == 3;
        let (name, dtype) = match kind.plain() {
            Some(dtype) if !stack => (name, dtype),
            _ => {
                if let Some(row) = shape.last_mut() {
                    *row = *row / kind.columns * kind.bytes;
                }
                (kind.name_of(&name), Dtype::U8)
            }
        };
        self.tensors.tensors.push(SourceTensor { name, dtype, shape, begin, bytes });
    }

    fn finish(self) -> Result<(SourceTensors, BTreeMap<u64, Made>)> {
        if let Some(name) = self.halves.keys().next() {
            return Err(damaged(self.place, format!("half of `{name}` is missing in it")));
        }
        let mut names = HashSet::new();
        match self.tensors.tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
            Some(tensor) => Err(damaged(self.place, format!("`{}` is in it twice", shown(&tensor.name)))),
            None => Ok((self.tensors, self.made)),
        }
    }
}

impl ByteSource for Gguf {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match name {
            CONFIG => self.config().map(Some),
            TOKENIZER => match self.file.small(TOKENIZER)? {
                Some(beside) => Ok(Some(beside)),
                None => tokenizer::json(&self.place, &self.opened()?.header.metadata),
            },
            _ => Ok(None),
        }
    }

    fn weights(&self) -> Result<Option<&[SourceFile]>> {
        self.file.weights()
    }

    fn tensors(&self) -> Result<Option<&SourceTensors>> {
        self.opened().map(|opened| Some(&opened.tensors))
    }

    fn listing(&self) -> Option<Vec<String>> {
        None
    }

    fn note(&self) -> Option<&str> {
        None
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let made = || {
            let (begin, made) = self.opened.get()?.made.range(..=offset).next_back()?;
            (offset - begin + buffer.len() as u64 <= made.bytes).then_some((*begin, made.of))
        };
        match made() {
            Some((begin, of)) => self.make(of, offset - begin, buffer),
            None => self.file.read(file, offset, buffer),
        }
    }

    fn expect(&self, tag: Tag, announcement: Announcement) {
        let Some(opened) = self.opened.get() else { return };
        let ranges = announcement.ranges.into_iter().flat_map(|FileRange { file, range }| {
            let Some((place, made)) = opened.made.range(..=range.start).next_back() else {
                return vec![FileRange { file, range }];
            };
            let [from, to] = [range.start, range.end].map(|at| (at - place).min(made.bytes));
            let parts = match made.of {
                Recipe::PlusOne { begin } => vec![begin + from..begin + to],
                Recipe::Paired { begin, row, rows } => {
                    let head = row * rows;
                    vec![begin + from / head * head..begin + to.next_multiple_of(head)]
                }
                Recipe::Alternating { begins, .. } => {
                    begins.map(|begin| begin + from / 2..begin + to.div_ceil(2)).to_vec()
                }
            };
            parts.into_iter().map(|range| FileRange { file, range }).collect()
        });
        self.file.expect(tag, Announcement { ranges: ranges.collect(), ..announcement });
    }

    fn forget(&self, tags: &[Tag]) {
        self.file.forget(tags);
    }
}
