//! A checkpoint, on disk or on the hub: config.json and one or more safetensors or PyTorch files,
//! read tensor by tensor at given offsets.
//!
//! Opening reads headers only; every read is counted. Damage is found when the checkpoint is opened
//! (missing shards, truncated files, headers that do not fit). Which of several tensors of one name
//! is the model's is decided as transformers does, and noted.

use std::collections::HashMap;
use std::collections::hash_map;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use super::safetensors_headers::{self, damaged};
use super::torch;
use super::wrappers;
use crate::error::{Error, Result};
use crate::formats;
use crate::hub::{self, Ahead, Announcement, ByteSource, FileRange};
use crate::memory::PAGE;
use crate::outside::safetensors::LENGTH;
use crate::outside::{self, complaint, shown};
use crate::record::FileHash;
use crate::spec::inventory::Part;
use crate::spec::naming::Naming;
use crate::spec::quantised;
use crate::spec::{StoredTensor, TensorSpec};
use crate::words::hex;

/// Sizes of a shape that a message shows.
const SHOWN_SIZES: usize = 8;
/// Files up to this size are hashed whole for provenance; of larger ones only the header is.
const HASH_WHOLE: u64 = 64 << 20;
/// Of those, `sample` reads so many pieces of so many bytes: other weights differ nearly
/// everywhere.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4096;
/// To see whether two tensors are the same, so many pieces of so many bytes are read of each.
const ALIKE: u64 = 4;
const ALIKE_BYTES: u64 = 4096;

#[derive(Clone)]
pub struct Entry {
    /// As it is called in its file.
    pub name: String,
    file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// In elements, where its numbers do not lie one behind the other.
    strides: Option<Vec<usize>>,
    /// Absolute offset of the data in the file, bytes.
    begin: u64,
    pub bytes: u64,
}

impl Entry {
    /// Bytes `range` of the tensor's data, in the file.
    pub fn part(&self, range: Range<u64>) -> FileRange {
        FileRange { file: self.file, range: self.begin + range.start..self.begin + range.end }
    }

    /// Where in a page of the file byte `offset` of the tensor's data lies: memory that lies alike
    /// can be read into directly.
    pub fn phase(&self, offset: u64) -> usize {
        ((self.begin + offset) % PAGE as u64) as usize
    }
}

pub struct Checkpoint {
    /// The folder, or the address on the hub.
    pub place: String,
    source: Arc<dyn ByteSource>,
    pub hashes: Vec<FileHash>,
    /// What the user should know of how its tensors were chosen.
    pub notes: Vec<String>,
    entries: HashMap<String, Entry>,
    naming: Option<Naming>,
    /// Tensors that were found in an earlier file as well: how many, and one of them.
    repeated: (usize, String),
    bytes_read: AtomicU64,
}

impl Checkpoint {
    /// Reads all headers; config.json and what else is small is hashed with them.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        if torch::holds(&*source)? {
            let described = torch::read(&source)?;
            let mut checkpoint = Self::beside(source, &hub::PYTORCH)?;
            for (index, file) in described.into_iter().enumerate() {
                checkpoint.add_pytorch(index, file)?;
            }
            checkpoint.note_repeated();
            return Ok(checkpoint);
        }
        let headers = safetensors_headers::read(&source)?;
        let mut checkpoint = Self::beside(source, &hub::SAFETENSORS)?;
        for (index, header) in headers.iter().enumerate() {
            checkpoint.add_file(index, header)?;
        }
        checkpoint.note_repeated();
        Ok(checkpoint)
    }

    /// A checkpoint without tensors so far: what lies beside its files.
    fn beside(source: Arc<dyn ByteSource>, layout: &hub::Layout) -> Result<Self> {
        let indexed = !matches!(source.files()?, [file] if file.name == layout.single);
        let mut hashes = Vec::new();
        for name in ["config.json", layout.index, "tokenizer.json"] {
            if (name != layout.index || indexed)
                && let Some(data) = source.small(name)?
            {
                hashes.push(file_hash(name, data.len() as u64, "sha256", &data));
            }
        }
        Ok(Self {
            place: source.place(),
            hashes,
            notes: source.note().map(str::to_string).into_iter().collect(),
            entries: HashMap::new(),
            naming: None,
            repeated: (0, String::new()),
            bytes_read: AtomicU64::new(0),
            source,
        })
    }

    fn note_repeated(&mut self) {
        if let (count @ 1.., name) = &self.repeated {
            let others = if *count > 1 { format!(" and {} others are", count - 1) } else { " is".to_string() };
            self.notes.push(format!(
                "{}: `{}`{others} in several files: what the last one by name has is read, as transformers does",
                self.place,
                shown(name)
            ));
        }
    }

    /// As `open`; nothing where the source has no weights.
    ///
    /// # Errors
    /// As `open`: weights that are there and cannot be read are an error.
    pub fn open_if_any(source: Arc<dyn ByteSource>) -> Result<Option<Self>> {
        match source.weights()? {
            Some(_) => Self::open(source).map(Some),
            None => Ok(None),
        }
    }

    /// From now on tensors have the names that the whole model has for them, whatever they are
    /// called in the files. Where one is there under two names, the first in alphabetical order
    /// counts, as in transformers.
    pub fn rename(&mut self, naming: Naming) {
        self.naming = Some(naming);
        let mut stored: Vec<Entry> = std::mem::take(&mut self.entries).into_values().collect();
        stored.sort_by(|a, b| naming.order(&a.name, &b.name));
        if let Some(entry) = stored.last().filter(|entry| naming.is_older(&entry.name)) {
            self.notes.push(format!(
                "{}: tensors are called as in a model for question answering (`{}`): they are read, but of the classes of \
                 transformers AutoModelForQuestionAnswering alone finds them; others compute with random weights",
                self.place,
                shown(&entry.name)
            ));
        }
        let mut twice: Vec<(String, String)> = Vec::new();
        for entry in stored {
            match self.entries.entry(naming.whole(&entry.name)) {
                hash_map::Entry::Occupied(first) => twice.push((first.get().name.clone(), entry.name)),
                hash_map::Entry::Vacant(place) => {
                    place.insert(entry);
                }
            }
        }
        if let Some((read, other)) = twice.first() {
            self.notes.push(format!(
                "{}: {} tensors are there under two names: `{}` is read and `{}` is not, and so on in alphabetical order, as \
                 transformers does",
                self.place,
                twice.len(),
                shown(read),
                shown(other)
            ));
        }
    }

    /// Replaces a tensor by `parts`, which lie in it one behind the other and are together all of
    /// it.
    pub fn divide(&mut self, fused: &str, parts: &[&TensorSpec]) {
        let Some(whole) = self.entries.remove(fused) else { return };
        let elements = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        let width = whole.bytes / elements(&whole.shape).max(1);
        let mut begin = whole.begin;
        for part in parts {
            let bytes = width * elements(&part.shape);
            let entry = Entry { begin, bytes, shape: part.shape.clone(), ..whole.clone() };
            self.entries.insert(part.name.clone(), entry);
            begin += bytes;
        }
    }

    fn add_file(&mut self, index: usize, header: &[u8]) -> Result<()> {
        let source = self.source.clone();
        let file = &source.files()?[index];
        let damaged = |problem: String| damaged(&*source, file, problem);
        outside::json::check(header, outside::json::LARGE).map_err(|said| damaged(format!("bad header: {said}")))?;
        let metadata: Metadata =
            serde_json::from_slice(header).map_err(|e| damaged(format!("bad header: {}", complaint(e))))?;
        let data = LENGTH + header.len() as u64;
        let expected = data.saturating_add(metadata.data_len() as u64);
        if expected != file.bytes {
            return Err(damaged(format!("the header describes {expected} bytes, the file has {}", file.bytes)));
        }
        for (tensor, info) in metadata.tensors() {
            let (begin, end) = info.data_offsets;
            self.add(Entry {
                name: tensor,
                file: index,
                dtype: info.dtype,
                shape: info.shape.clone(),
                strides: None,
                begin: data + begin as u64,
                bytes: (end - begin) as u64,
            });
        }
        self.add_hash(index, || [&(header.len() as u64).to_le_bytes()[..], header].concat())
    }

    fn add_pytorch(&mut self, index: usize, described: torch::Described) -> Result<()> {
        for torch::Tensor { name, dtype, shape, strides, begin, bytes } in described.tensors {
            self.add(Entry { name, file: index, dtype, shape, strides, begin, bytes });
        }
        self.add_hash(index, || described.header)
    }

    fn add(&mut self, entry: Entry) {
        let file = entry.file;
        // A file that has a name twice means the last.
        if let Some(earlier) = self.entries.insert(entry.name.clone(), entry)
            && earlier.file != file
        {
            self.repeated = (self.repeated.0 + 1, earlier.name);
        }
    }

    /// Of a file: its own hash, or that of what it says of itself.
    fn add_hash(&mut self, index: usize, header: impl FnOnce() -> Vec<u8>) -> Result<()> {
        let file = &self.source.files()?[index];
        self.hashes.push(match &file.announced_sha256 {
            // Whoever has the file can compare; here only parts of it were seen.
            Some(digest) => FileHash {
                name: file.name.clone(),
                bytes: file.bytes,
                kind: "sha256 announced by the hub".to_string(),
                digest: digest.clone(),
            },
            None if file.bytes <= HASH_WHOLE => {
                let mut whole = vec![0; file.bytes as usize];
                self.source.read(index, 0, &mut whole)?;
                file_hash(&file.name, file.bytes, "sha256", &whole)
            }
            None => file_hash(&file.name, file.bytes, "sha256 of header", &header()),
        });
        Ok(())
    }

    pub fn contains(&self, tensor: &str) -> bool {
        self.entries.contains_key(tensor)
    }

    /// Every tensor: its name in the whole model, and as it is called in its file; in no order.
    pub fn stored(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(whole, entry)| (whole.as_str(), entry.name.as_str()))
    }

    /// Whether a tensor is of a type that stands for something else.
    pub fn has_codes(&self) -> bool {
        self.entries.values().any(|entry| !formats::is_plain(entry.dtype))
    }

    pub fn entry(&self, tensor: &str) -> Option<&Entry> {
        self.entries.get(tensor)
    }

    /// The entry of a tensor the model needs, with the shape it must have.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<&Entry> {
        let missing = || match self.quantised(name) {
            Some(method) => quantised::stored(&format!("{}: the weight `{name}`", self.place), method),
            None => self.missing(name),
        };
        let entry = self.entries.get(name).ok_or_else(missing)?;
        if entry.shape != shape {
            if let Some(method) = self.quantised(name) {
                return Err(quantised::stored(&format!("{}: tensor `{}`", self.place(entry), entry.name), method));
            }
            return Err(Error::corrupt(format!(
                "{}: tensor `{}` in {} has shape {:?}, config.json says {:?}",
                self.place,
                entry.name,
                self.file_name(entry),
                &entry.shape[..entry.shape.len().min(SHOWN_SIZES)],
                shape
            ))
            .hint("config.json and weights belong to different models"));
        }
        if let Some(strides) = &entry.strides {
            return Err(Error::unsupported(format!(
                "{}: tensor `{}` of shape {:?} is stored with strides {strides:?}, so that its numbers do not lie one behind the other",
                self.place(entry),
                entry.name,
                entry.shape
            ))
            .hint("save it anew in Python, with `.contiguous()` on each tensor, or as safetensors"));
        }
        Ok(entry)
    }

    fn missing(&self, name: &str) -> Error {
        let message = format!("{}: tensor `{name}` is missing", self.place);
        let stored: Vec<&str> = self.entries.values().map(|entry| entry.name.as_str()).collect();
        match self.naming.and_then(|naming| wrappers::find(name, &stored, naming)) {
            Some(wrapped) => Error::not_found(format!("{message}: {}", wrapped.problem())).hint(wrapped.advice()),
            None => Error::not_found(message)
                .hint("the checkpoint is incomplete, or its config.json describes another model"),
        }
    }

    /// As `expect`, in a type that can be read: floats, or that of codes and scales.
    pub fn readable(&self, tensor: &StoredTensor) -> Result<&Entry> {
        let entry = self.expect(&tensor.name, &tensor.shape)?;
        let expected = match (tensor.dtype, entry.dtype) {
            (None, Dtype::F32 | Dtype::BF16 | Dtype::F16) => return Ok(entry),
            (None, _) => "F32, BF16 or F16".to_string(),
            (Some(dtype), found) if dtype == found => return Ok(entry),
            (Some(dtype), _) => format!("{dtype:?}"),
        };
        let what = format!("{}: tensor `{}` is {:?}, expected {expected}", self.place(entry), entry.name, entry.dtype);
        Err(match self.quantised(&tensor.name) {
            Some(method) => quantised::stored(&what, method),
            None => Error::unsupported(what).hint("look for a copy of this model in one of these formats"),
        })
    }

    /// The method by which a weight is quantised, if what stands beside it says so.
    fn quantised(&self, tensor: &str) -> Option<&'static str> {
        quantised::method(tensor, &|name| self.contains(name))
    }

    fn file_name(&self, entry: &Entry) -> &str {
        self.source.files().map_or("a file", |files| &files[entry.file].name)
    }

    /// Where a tensor lives, for messages: folder and file.
    pub fn place(&self, entry: &Entry) -> String {
        format!("{}/{}", self.place, self.file_name(entry))
    }

    /// Fills `buffer` with a tensor's bytes from byte `offset` of its data.
    pub fn read_into(&self, entry: &Entry, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.source.read(entry.file, entry.begin + offset, buffer)?;
        self.bytes_read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// To announce what will be read.
    pub fn ahead(&self) -> Ahead {
        Ahead::new(self.source.clone())
    }

    /// Bytes of a part in the files.
    pub fn part_ranges(&self, part: &Part) -> Result<Vec<FileRange>> {
        let range = |tensor: &StoredTensor| -> Result<FileRange> {
            let entry = self.expect(&tensor.name, &tensor.shape)?;
            Ok(entry.part(part.weight.own_bytes(tensor, entry.bytes)))
        };
        part.stored().iter().map(range).collect()
    }

    /// Whether two tensors of one shape and type seem to hold the same: pieces of them do, or
    /// cannot be read.
    pub fn look_alike(&self, one: &TensorSpec, other: &TensorSpec) -> bool {
        let (Some(one), Some(other)) = (self.entry(&one.name), self.entry(&other.name)) else { return true };
        if (one.dtype, &one.shape, one.bytes) != (other.dtype, &other.shape, other.bytes) {
            return false;
        }
        let length = one.bytes.min(ALIKE_BYTES);
        let starts: Vec<u64> = (0..ALIKE).map(|i| (one.bytes - length) / (ALIKE - 1) * i).collect();
        let ranges = |entry: &Entry| starts.iter().map(|start| entry.part(*start..start + length)).collect::<Vec<_>>();
        let (ranges, others) = (ranges(one), ranges(other));
        let mut ahead = self.ahead();
        for range in ranges.iter().chain(&others) {
            ahead.expect(Announcement { order: 0, max_gap: 0, ranges: vec![range.clone()] });
        }
        let read = |range: &FileRange| {
            let mut piece = vec![0; length as usize];
            self.source.read(range.file, range.range.start, &mut piece).map(|()| piece).ok()
        };
        ranges.iter().zip(&others).all(|(one, other)| match (read(one), read(other)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        })
    }

    /// Whether an adapter lies beside the weights.
    pub fn has_adapter(&self) -> bool {
        self.source.listing().is_some_and(|names| names.iter().any(|name| name == hub::ADAPTER))
    }

    /// SHA-256 of pieces of the files that are too large to be hashed whole, and whose hash nobody
    /// announces: tells other weights of the same shapes.
    pub fn sample(&self) -> Result<String> {
        let mut digest = Sha256::new();
        let mut piece = [0; SAMPLE_BYTES as usize];
        for (file, described) in self.source.files()?.iter().enumerate() {
            if described.bytes > HASH_WHOLE && described.announced_sha256.is_none() {
                for i in 0..SAMPLES {
                    self.source.read(file, (described.bytes - SAMPLE_BYTES) / (SAMPLES - 1) * i, &mut piece)?;
                    digest.update(piece);
                }
            }
        }
        Ok(hex(&digest.finalize()))
    }

    /// Tensor data read since the folder was opened, bytes.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

fn file_hash(name: &str, bytes: u64, kind: &str, data: &[u8]) -> FileHash {
    FileHash { name: name.to_string(), bytes, kind: kind.to_string(), digest: hex(&Sha256::digest(data)) }
}
