//! GGUF files, which llama.cpp runs: one file, or several parts, with weights, config and
//! tokenizer. Here it looks like a folder of transformers: other rooms get what is made of what the
//! file says, and tensors have the names and the order that they have in transformers.
//!
//! A tensor that llama.cpp's converter has changed lies behind the end of the first file, as far as
//! readers know: what is read there is made, as it is read, of the bytes that the file has of it.

mod config;
mod failure;
mod header;
mod names;
pub(crate) mod remote;
mod tokenizer;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use safetensors::Dtype;
use serde_json::{Map, Value};

use super::folder::Folder;
use super::gguf_files;
use super::source::{Announcement, ByteSource, FileRange, SourceFile, SourceTensor, SourceTensors, Tag};
use super::streamed::CONFIG;
use crate::error::{Error, Result};
use crate::formats::ggml::Type;
use crate::hub::failure::Failure;
use crate::outside::{self, shown};
use config::{Family, ROPE_FACTORS};
use header::{Header, MAGIC, Place, damaged, unsupported};
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

/// True if a file is a GGUF file, by its name or by its first bytes.
pub(crate) fn is_gguf(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| gguf_files::is_gguf(&name.to_string_lossy()));
    (named && path.is_file()) || begins(path)
}

fn begins(path: &Path) -> bool {
    outside::beginning(path, MAGIC.len() as u64).is_ok_and(|head| head == MAGIC)
}

/// The name of the GGUF file of a folder that has no other weights, or of the first of its parts;
/// None if there is none.
///
/// # Errors
/// `not_found` if there are several models.
pub(crate) fn in_folder(folder: &Path) -> Result<Option<String>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.path().is_file());
    let models = gguf_files::models(names.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    match &models[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        [first, ..] => {
            let first = shown(&folder.join(first).display().to_string());
            let (folder, count, listed) = (folder.to_path_buf(), models.len(), gguf_files::listed(&models));
            Err(Error::of(Failure::SeveralGguf { folder, count, listed, first }))
        }
    }
}

pub(crate) struct Gguf {
    /// The parts of the model are its weights.
    files: Box<dyn ByteSource>,
    /// The first of them.
    place: String,
    note: Option<String>,
    opened: OnceLock<Opened>,
}

struct Opened {
    header: Header,
    factors: Option<Vec<f32>>,
    tensors: SourceTensors,
    /// By where they begin, behind the end of the first file.
    made: BTreeMap<u64, Made>,
}

/// A tensor that is made of those of the file.
struct Made {
    bytes: u64,
    of: Recipe,
}

#[derive(Clone, Copy)]
enum Recipe {
    /// Rows of heads, each of `row` bytes and `rows` of them to a head, in pairs that are turned
    /// together.
    Paired { from: Place, row: u64, rows: u64 },
    /// Numbers in f32 to which one was added.
    PlusOne { from: Place },
    /// Rows of two tensors in turn.
    Alternating { from: [Place; 2], row: u64 },
}

impl Gguf {
    /// A file of this machine, or all parts of a model of which it is one.
    pub(crate) fn new(path: &Path) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let names = gguf_files::parts(&path.file_name().unwrap_or_default().to_string_lossy());
        let first = path.with_file_name(&names[0]).display().to_string();
        Self::over(Box::new(Folder::of_files(folder, names)), first)
    }

    /// The model in the weight files of a source, of which the first is called `place`.
    pub(crate) fn over(files: Box<dyn ByteSource>, place: String) -> Self {
        Self { files, place, note: None, opened: OnceLock::new() }
    }

    /// Adds a note for the user about the choice of the file.
    pub(crate) fn noting(self, note: Option<String>) -> Self {
        Self { note, ..self }
    }

    fn opened(&self) -> Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let files = self.files.files()?;
        let places: Vec<String> = files.iter().map(|file| self.place_of(&file.name)).collect();
        let header = header::read(&*self.files, &places)?;
        let family = config::family(&self.place, &header.metadata)?;
        let factors = self.factors(&header)?;
        let described = config::config(&self.place, &header, factors.clone())?;
        let mut shelf = Shelf::new(&self.place, files[0].bytes, header.bytes.clone(), &described);
        for tensor in header.tensors.iter().filter(|tensor| tensor.name != ROPE_FACTORS) {
            shelf.put(family, tensor)?;
        }
        let (tensors, made) = shelf.finish()?;
        Ok(self.opened.get_or_init(|| Opened { header, factors, tensors, made }))
    }

    fn factors(&self, header: &Header) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = header.tensors.iter().find(|tensor| tensor.name == ROPE_FACTORS) else { return Ok(None) };
        if tensor.kind.plain() != Some(Dtype::F32) || tensor.shape.len() != 1 || tensor.shape[0] > MAX_FACTORS {
            return Err(damaged(&self.place, format!("`{ROPE_FACTORS}` is no list of numbers in F32")));
        }
        let data = self.stored(tensor.place, tensor.bytes)?;
        Ok(Some(data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }

    fn config(&self) -> Result<Vec<u8>> {
        let opened = self.opened()?;
        let config = config::config(&self.place, &opened.header, opened.factors.clone())?;
        Ok(serde_json::to_vec_pretty(&config).expect("texts and numbers"))
    }

    /// Bytes of the files from `place` on.
    fn stored(&self, place: Place, bytes: u64) -> Result<Vec<u8>> {
        let mut data = vec![0; bytes as usize];
        self.files.read(place.file, place.begin, &mut data)?;
        Ok(data)
    }

    /// Fills `buffer` from byte `offset` of a tensor that is made.
    fn make(&self, of: Recipe, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let (mut at, end) = (offset, offset + buffer.len() as u64);
        let mut rest = buffer;
        while at < end {
            // What is made at once, around `at`: where it begins, and its bytes.
            let (begin, made) = match of {
                Recipe::PlusOne { from } => {
                    let first = at / F32_BYTES * F32_BYTES;
                    let bytes = (end.next_multiple_of(F32_BYTES) - first).min(PIECE);
                    let mut data = self.stored(from.behind(first), bytes)?;
                    for number in data.as_chunks_mut::<4>().0 {
                        *number = (f32::from_le_bytes(*number) - 1.0).to_le_bytes();
                    }
                    (first, data)
                }
                Recipe::Paired { from, row, rows } => {
                    let head = row * rows;
                    let first = at / head * head;
                    let stored = self.stored(from.behind(first), head)?;
                    let place = |r: u64| (2 * (r % (rows / 2)) + r / (rows / 2)) * row;
                    let rows = (0..rows).map(|r| &stored[place(r) as usize..][..row as usize]);
                    (first, rows.collect::<Vec<_>>().concat())
                }
                Recipe::Alternating { from, row } => {
                    let first = at / (2 * row) * (2 * row);
                    let pairs = ((end - first).div_ceil(2 * row)).min((PIECE / (2 * row)).max(1));
                    let [even, odd] = from.map(|place| self.stored(place.behind(first / 2), pairs * row));
                    let (even, odd) = (even?, odd?);
                    let rows = even.chunks_exact(row as usize).zip(odd.chunks_exact(row as usize));
                    (first, rows.flat_map(|(one, other)| [one, other]).collect::<Vec<_>>().concat())
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
    halves: BTreeMap<String, (Change, Vec<usize>, &'static Type, Place)>,
    experts: usize,
}

impl<'a> Shelf<'a> {
    fn new(place: &'a str, file: u64, headers: Vec<u64>, config: &'a Map<String, Value>) -> Self {
        let tensors = SourceTensors { tensors: Vec::new(), headers };
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
        let header::Tensor { shape, kind, place, bytes, .. } = tensor;
        let misfit = || damaged(self.place, format!("tensor `{told}` in it has sizes that do not fit its metadata"));
        match change {
            Change::None => self.add(name, kind, shape.clone(), *place, *bytes),
            Change::PlusOne => {
                if kind.plain() != Some(Dtype::F32) {
                    return Err(unsupported(self.place, format!("the norm `{told}` in it is {}, not F32", kind.name)));
                }
                let made = self.make(*bytes, Recipe::PlusOne { from: *place });
                self.add(name, kind, shape.clone(), made, *bytes);
            }
            Change::Paired => {
                let rows = self.size("head_dim");
                let all = shape[0] as u64;
                if rows == 0 || !rows.is_multiple_of(2) || all == 0 || !all.is_multiple_of(rows) || *bytes == 0 {
                    return Err(misfit());
                }
                let made = self.make(*bytes, Recipe::Paired { from: *place, row: bytes / all, rows });
                self.add(name, kind, shape.clone(), made, *bytes);
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
                    self.add(name, kind, rest.to_vec(), place.behind(expert as u64 * own), own);
                }
            }
            Change::Even | Change::Odd => {
                let Some((other, other_shape, other_kind, other_place)) = self.halves.remove(&name) else {
                    self.halves.insert(name, (change, shape.clone(), kind, *place));
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
                let from = if change == Change::Odd { [other_place, *place] } else { [*place, other_place] };
                if row == 0 {
                    return Err(misfit());
                }
                let mut shape = shape.clone();
                shape[1] *= 2;
                let made = self.make(2 * bytes, Recipe::Alternating { from, row });
                self.add(name, kind, shape, made, 2 * bytes);
            }
        }
        Ok(())
    }

    /// The place of a tensor that is made.
    fn make(&mut self, bytes: u64, of: Recipe) -> Place {
        let begin = self.next;
        self.next = (begin + bytes.max(1)).next_multiple_of(APART);
        self.made.insert(begin, Made { bytes, of });
        Place { file: 0, begin }
    }

    fn add(&mut self, name: String, kind: &'static Type, mut shape: Vec<usize>, place: Place, bytes: u64) {
        // Stacks of experts are rows of outputs here and of inputs in plain releases: such bytes
        // are never taken for those.
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
        let Place { file, begin } = place;
        self.tensors.tensors.push(SourceTensor { name, file, dtype, shape, begin, bytes });
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

    fn place_of(&self, file: &str) -> String {
        let first = self.files.files().ok().and_then(|files| self.place.strip_suffix(&*files[0].name));
        first.map_or_else(|| self.place.clone(), |folder| format!("{folder}{file}"))
    }

    fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match name {
            CONFIG => self.config().map(Some),
            TOKENIZER => match self.files.small(TOKENIZER)? {
                Some(beside) => Ok(Some(beside)),
                None => tokenizer::json(&self.place, &self.opened()?.header.metadata),
            },
            _ => Ok(None),
        }
    }

    fn weights(&self) -> Result<Option<&[SourceFile]>> {
        self.files.weights()
    }

    fn tensors(&self) -> Result<Option<&SourceTensors>> {
        self.opened().map(|opened| Some(&opened.tensors))
    }

    fn listing(&self) -> Option<Vec<String>> {
        None
    }

    fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let made = || {
            let made = &self.opened.get().filter(|_| file == 0)?.made;
            let (begin, made) = made.range(..=offset).next_back()?;
            (offset - begin + buffer.len() as u64 <= made.bytes).then_some((*begin, made.of))
        };
        match made() {
            Some((begin, of)) => self.make(of, offset - begin, buffer),
            None => self.files.read(file, offset, buffer),
        }
    }

    fn expect(&self, tag: Tag, announcement: Announcement) {
        let Some(opened) = self.opened.get() else { return };
        let ranges = announcement.ranges.into_iter().flat_map(|FileRange { file, range }| {
            let made = opened.made.range(..=range.start).next_back().filter(|_| file == 0);
            let Some((place, made)) = made else { return vec![FileRange { file, range }] };
            let [first, last] = [range.start, range.end].map(|at| (at - place).min(made.bytes));
            let part = |from: Place, range: Range<u64>| FileRange {
                file: from.file,
                range: from.begin + range.start..from.begin + range.end,
            };
            match made.of {
                Recipe::PlusOne { from } => vec![part(from, first..last)],
                Recipe::Paired { from, row, rows } => {
                    let head = row * rows;
                    vec![part(from, first / head * head..last.next_multiple_of(head))]
                }
                Recipe::Alternating { from, .. } => from.map(|from| part(from, first / 2..last.div_ceil(2))).to_vec(),
            }
        });
        self.files.expect(tag, Announcement { ranges: ranges.collect(), ..announcement });
    }

    fn forget(&self, tags: &[Tag]) {
        self.files.forget(tags);
    }
}
