//! A checkpoint, on disk or on the hub: config.json and one or more safetensors or PyTorch files,
//! whose tensors are read at given offsets.
//!
//! Opening a checkpoint reads only headers, and every read is counted. Damage is found at that
//! time: missing shards, truncated files, headers that do not fit. If a tensor occurs several
//! times, the choice is that of transformers, and the user is told.

use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use super::entry::Entry;
use super::safetensors_headers::{self, damaged};
use super::strided::{self, LaidOut};
use super::torch;
use super::wrappers;
use crate::error::{Error, Result};
use crate::formats;
use crate::hub::{self, Ahead, ByteSource, FileRange};
use crate::outside::safetensors::LENGTH;
use crate::outside::{self, complaint, shown};
use crate::record::FileHash;
use crate::spec::inventory::Part;
use crate::spec::naming::{NESTED, Naming};
use crate::spec::quantised;
use crate::spec::{StoredTensor, TensorSpec};
use crate::words::{counted, hex};

/// Number of sizes of a shape that a message shows.
const SHOWN_SIZES: usize = 8;
/// The largest file that is hashed whole for provenance, in bytes. Of a larger file only the header
/// is hashed.
pub(super) const HASH_WHOLE: u64 = 64 << 20;

pub struct Checkpoint {
    /// The folder, or the address on the hub.
    pub place: String,
    pub(super) source: Arc<dyn ByteSource>,
    pub hashes: Vec<FileHash>,
    /// Facts about the choice of tensors that the user should know.
    pub notes: Vec<String>,
    entries: HashMap<String, Entry>,
    naming: Option<Naming>,
    /// Number of tensors that were also in an earlier file, and the name of one.
    repeated: (usize, String),
    laid_out: Mutex<LaidOut>,
    bytes_read: AtomicU64,
}

impl Checkpoint {
    /// Reads all headers, and hashes them, config.json and the other small files.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        if let Some(tensors) = source.tensors()? {
            return Self::of_source(source.clone(), tensors);
        }
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

    /// The checkpoint of a source that itself knows its tensors.
    fn of_source(source: Arc<dyn ByteSource>, tensors: &hub::SourceTensors) -> Result<Self> {
        let mut checkpoint = Self::empty(source.clone(), Vec::new());
        for hub::SourceTensor { name, file, dtype, shape, begin, bytes } in &tensors.tensors {
            let (name, file, shape) = (name.clone(), *file, shape.clone());
            checkpoint.add(Entry { name, file, dtype: *dtype, shape, strides: None, begin: *begin, bytes: *bytes });
        }
        for (file, bytes) in tensors.headers.iter().enumerate() {
            let mut header = vec![0; *bytes as usize];
            source.read(file, 0, &mut header)?;
            checkpoint.add_hash(file, || header)?;
        }
        Ok(checkpoint)
    }

    /// A checkpoint without tensors, with the small files beside the weights.
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
        Ok(Self::empty(source, hashes))
    }

    fn empty(source: Arc<dyn ByteSource>, hashes: Vec<FileHash>) -> Self {
        Self {
            place: source.place(),
            hashes,
            notes: source.note().map(str::to_string).into_iter().collect(),
            entries: HashMap::new(),
            naming: None,
            repeated: (0, String::new()),
            laid_out: Mutex::default(),
            bytes_read: AtomicU64::new(0),
            source,
        }
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

    /// As `open`, or None if the source has no weights.
    ///
    /// # Errors
    /// As `open`. Weights that exist and cannot be read are an error.
    pub fn open_if_any(source: Arc<dyn ByteSource>) -> Result<Option<Self>> {
        match source.weights()? {
            Some(_) => Self::open(source).map(Some),
            None => Ok(None),
        }
    }

    /// Gives all tensors the names that the whole model has for them, whatever their names in the
    /// files are. If a tensor exists under two names, the first in alphabetical order is used, as
    /// in transformers.
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
                "{}: {} {} there under two names: `{}` is read and `{}` is not, and so on in alphabetical order, as \
                 transformers does",
                self.place,
                counted(twice.len(), "tensor"),
                if twice.len() == 1 { "is" } else { "are" },
                shown(read),
                shown(other)
            ));
        }
    }

    /// Gives the tensor `stored` another name.
    pub fn call(&mut self, stored: &str, name: String) {
        if let Some(entry) = self.entries.remove(stored) {
            self.entries.insert(name, entry);
        }
    }

    /// Whether the files hold a larger model around the language model, or were written as if.
    pub fn is_nested(&self) -> bool {
        self.entries.values().any(|entry| NESTED.iter().any(|prefix| entry.name.starts_with(prefix)))
    }

    /// Replaces a tensor by `parts`, which are contiguous in it and together all of it.
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
        // If a file has a name twice, the last tensor is used.
        if let Some(earlier) = self.entries.insert(entry.name.clone(), entry)
            && earlier.file != file
        {
            self.repeated = (self.repeated.0 + 1, earlier.name);
        }
    }

    /// Adds the hash of a file: its own, or that of its header.
    fn add_hash(&mut self, index: usize, header: impl FnOnce() -> Vec<u8>) -> Result<()> {
        let file = &self.source.files()?[index];
        self.hashes.push(match &file.announced_sha256 {
            // A user who has the whole file can compare this hash. The program has seen only parts
            // of it.
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

    /// Every tensor, in no order: its name in the whole model, and its name in its file.
    pub fn stored(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(whole, entry)| (whole.as_str(), entry.name.as_str()))
    }

    /// Whether a tensor has a type of codes.
    pub fn has_codes(&self) -> bool {
        self.entries.values().any(|entry| !formats::is_plain(entry.dtype))
    }

    pub fn entry(&self, tensor: &str) -> Option<&Entry> {
        self.entries.get(tensor)
    }

    /// The memory beside a tensor's own in which it is laid out as it is read, in bytes.
    pub fn laying_out_bytes(&self, tensor: &str) -> u64 {
        self.entry(tensor).map_or(0, strided::memory)
    }

    /// The entry of a tensor that the model needs, checked for its shape.
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
        strided::check(entry, &self.place(entry))?;
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

    /// As `expect`, checked also for a type that can be read: floats, or those of codes and scales.
    pub fn readable(&self, tensor: &StoredTensor) -> Result<&Entry> {
        let entry = self.expect(&tensor.name, &tensor.shape)?;
        let expected = match (tensor.dtype, entry.dtype) {
            (None, found) if formats::is_plain(found) || formats::is_of_eight_bits(found) => return Ok(entry),
            (None, _) => "F32, BF16 or F16 (or F64, or floats of eight bits)".to_string(),
            (Some(dtype), found) if dtype == found => return Ok(entry),
            (Some(dtype), _) => format!("{dtype:?}"),
        };
        let what = format!("{}: tensor `{}` is {:?}, expected {expected}", self.place(entry), entry.name, entry.dtype);
        Err(match self.quantised(&tensor.name) {
            Some(method) => quantised::stored(&what, method),
            None => Error::unsupported(what).hint("look for a copy of this model in one of these formats"),
        })
    }

    /// The method by which a weight is quantised, if neighbouring tensors show it.
    fn quantised(&self, tensor: &str) -> Option<&'static str> {
        quantised::method(tensor, &|name| self.contains(name))
    }

    fn file_name(&self, entry: &Entry) -> &str {
        self.source.files().map_or("a file", |files| &files[entry.file].name)
    }

    /// The place of a tensor for messages: folder and file.
    pub fn place(&self, entry: &Entry) -> String {
        self.source.place_of(self.file_name(entry))
    }

    /// Fills `buffer` with a tensor's bytes from byte `offset` of its data.
    pub fn read_into(&self, entry: &Entry, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &entry.strides {
            None => self.source.read(entry.file, entry.begin + offset, buffer)?,
            Some(strides) => {
                let mut laid_out = self.laid_out.lock().unwrap_or_else(PoisonError::into_inner);
                let read = |stored: &mut [u8]| self.source.read(entry.file, entry.begin, stored);
                laid_out.copy(entry, strides, offset, buffer, read)?;
            }
        }
        self.bytes_read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The handle that announces reads to the source.
    pub fn ahead(&self) -> Ahead {
        Ahead::new(self.source.clone())
    }

    /// The ranges of the files with the bytes of a part, without those of tensors that do not lie
    /// together, of which one may be read once for several parts.
    pub fn part_ranges(&self, part: &Part) -> Result<Vec<FileRange>> {
        let mut ranges = Vec::new();
        for tensor in part.stored() {
            let entry = self.expect(&tensor.name, &tensor.shape)?;
            if entry.lies_together() {
                ranges.push(entry.part(part.weight.own_bytes(&tensor, entry.bytes)));
            }
        }
        Ok(ranges)
    }

    /// Whether an adapter is beside the weights.
    pub fn has_adapter(&self) -> bool {
        self.source.listing().is_some_and(|names| names.iter().any(|name| name == hub::ADAPTER))
    }

    /// Number of bytes of tensor data that have been read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

fn file_hash(name: &str, bytes: u64, kind: &str, data: &[u8]) -> FileHash {
    FileHash { name: name.to_string(), bytes, kind: kind.to_string(), digest: hex(&Sha256::digest(data)) }
}
