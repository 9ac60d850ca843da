//! A checkpoint, on disk or on the hub: config.json and one or more safetensors files, read tensor by tensor at given
//! offsets.
//!
//! Opening reads headers only; every read is counted. Damage is found when the checkpoint is opened (missing shards,
//! truncated files, headers that do not fit).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use super::inventory::Part;
use super::spec::Tensor;
use crate::error::{Error, Result};
use crate::hub::{Ahead, Announcement, ByteSource, FileRange, SourceFile};
use crate::memory::PAGE;
use crate::outside::{self, complaint};
use crate::record::FileHash;

const INDEX: &str = "model.safetensors.index.json";
/// Bytes in front of a safetensors header: its length.
pub const LENGTH: u64 = 8;
/// A header larger than this is taken for damage (the safetensors library's own limit).
pub const MAX_HEADER: u64 = 100_000_000;
/// Sizes of a shape that a message shows.
const SHOWN_SIZES: usize = 8;
/// Files up to this size are hashed whole for provenance; of larger ones only the header is.
const HASH_WHOLE: u64 = 64 << 20;
/// Of those, `sample` reads so many pieces of so many bytes: other weights differ nearly everywhere.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4096;

pub struct Entry {
    file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// Absolute offset of the data in the file, bytes.
    begin: u64,
    pub bytes: u64,
}

impl Entry {
    /// Bytes `range` of the tensor's data, in the file.
    pub fn part(&self, range: Range<u64>) -> FileRange {
        FileRange { file: self.file, range: self.begin + range.start..self.begin + range.end }
    }

    /// Where in a page of the file byte `offset` of the tensor's data lies: memory that lies alike can be read into directly.
    pub fn phase(&self, offset: u64) -> usize {
        ((self.begin + offset) % PAGE as u64) as usize
    }
}

pub struct Checkpoint {
    /// The folder, or the address on the hub.
    pub place: String,
    source: Arc<dyn ByteSource>,
    pub hashes: Vec<FileHash>,
    entries: HashMap<String, Entry>,
    bytes_read: AtomicU64,
}

impl Checkpoint {
    /// Reads all headers; config.json and what else is small is hashed with them.
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let files = source.files()?;
        let sizes: Vec<u64> = headers(&source, files, |_| 0..LENGTH)?
            .into_iter()
            .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes were read")))
            .collect();
        for (file, size) in files.iter().zip(&sizes) {
            if *size > MAX_HEADER || LENGTH + size > file.bytes {
                let bytes = file.bytes;
                return Err(damaged(
                    &*source,
                    file,
                    format!("a header of {size} bytes does not fit a file of {bytes} bytes"),
                ));
            }
        }
        let all = sizes.iter().sum::<u64>();
        if all > MAX_HEADER {
            let place = source.place();
            return Err(Error::corrupt(format!("reading {place}: the headers of its files have {all} bytes"))
                .hint("the largest models have a few million; download the files again"));
        }
        let headers = headers(&source, files, |i| LENGTH..LENGTH + sizes[i])?;
        let mut checkpoint = Self {
            place: source.place(),
            source: source.clone(),
            hashes: Vec::new(),
            entries: HashMap::new(),
            bytes_read: AtomicU64::new(0),
        };
        for name in ["config.json", INDEX, "tokenizer.json"] {
            if let Some(data) = source.small(name)? {
                checkpoint.hashes.push(file_hash(name, data.len() as u64, "sha256", &data));
            }
        }
        for (index, header) in headers.iter().enumerate() {
            checkpoint.add_file(index, header)?;
        }
        Ok(checkpoint)
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
            let entry = Entry {
                file: index,
                dtype: info.dtype,
                shape: info.shape.clone(),
                begin: data + begin as u64,
                bytes: (end - begin) as u64,
            };
            self.entries.insert(tensor, entry);
        }
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
                source.read(index, 0, &mut whole)?;
                file_hash(&file.name, file.bytes, "sha256", &whole)
            }
            None => {
                let with_length = [&(header.len() as u64).to_le_bytes()[..], header].concat();
                file_hash(&file.name, file.bytes, "sha256 of header", &with_length)
            }
        });
        Ok(())
    }

    pub fn contains(&self, tensor: &str) -> bool {
        self.entries.contains_key(tensor)
    }

    pub fn entry(&self, tensor: &str) -> Option<&Entry> {
        self.entries.get(tensor)
    }

    /// The entry of a tensor the model needs, with the shape it must have.
    pub fn expect(&self, tensor: &Tensor) -> Result<&Entry> {
        let entry = self.entries.get(&tensor.name).ok_or_else(|| {
            Error::not_found(format!("{}: tensor `{}` is missing", self.place, tensor.name))
                .hint("the checkpoint is incomplete, or its config.json describes another model")
        })?;
        if entry.shape != tensor.shape {
            return Err(Error::corrupt(format!(
                "{}: tensor `{}` in {} has shape {:?}, config.json says {:?}",
                self.place,
                tensor.name,
                self.file_name(entry),
                &entry.shape[..entry.shape.len().min(SHOWN_SIZES)],
                tensor.shape
            ))
            .hint("config.json and weights belong to different models"));
        }
        Ok(entry)
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
        let index = match part {
            Part::Whole { .. } => None,
            Part::Slice { index, .. } | Part::Mxfp4 { index, .. } => Some(*index as u64),
        };
        let range = |tensor: &&Tensor| -> Result<FileRange> {
            let entry = self.expect(tensor)?;
            let slice = entry.bytes / tensor.shape.first().map_or(1, |count| (*count).max(1)) as u64;
            Ok(entry.part(index.map_or(0..entry.bytes, |index| index * slice..(index + 1) * slice)))
        };
        part.tensors().iter().map(range).collect()
    }

    /// SHA-256 of pieces of the files that are too large to be hashed whole, and whose hash nobody announces: tells other
    /// weights of the same shapes.
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

/// The same range of every file.
fn headers(
    source: &Arc<dyn ByteSource>,
    files: &[SourceFile],
    range: impl Fn(usize) -> Range<u64>,
) -> Result<Vec<Vec<u8>>> {
    let mut ahead = Ahead::new(source.clone());
    for (file, described) in files.iter().enumerate() {
        let range = range(file);
        if range.end > described.bytes {
            let problem = format!("{} bytes are too few for safetensors", described.bytes);
            return Err(damaged(&**source, described, problem));
        }
        ahead.expect(Announcement { order: 0, max_gap: 0, ranges: vec![FileRange { file, range }] });
    }
    let read = |file| {
        let range = range(file);
        let mut bytes = vec![0; (range.end - range.start) as usize];
        source.read(file, range.start, &mut bytes).map(|()| bytes)
    };
    (0..files.len()).map(read).collect()
}

fn damaged(source: &dyn ByteSource, file: &SourceFile, problem: String) -> Error {
    Error::corrupt(format!("reading {}/{}: {problem}", source.place(), file.name))
        .hint("the file is damaged or incomplete; download it again")
}

fn file_hash(name: &str, bytes: u64, kind: &str, data: &[u8]) -> FileHash {
    FileHash { name: name.to_string(), bytes, kind: kind.to_string(), digest: hex(&Sha256::digest(data)) }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
