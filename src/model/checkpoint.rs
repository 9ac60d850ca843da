//! A checkpoint folder on disk: config.json and one or more safetensors files, read tensor by tensor at given offsets.
//!
//! Opening reads headers only. Nothing is memory-mapped, so resident memory is what was asked for; every read is counted.
//! Damage is found when the folder is opened (missing shards, truncated files, headers that do not fit).

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use super::spec::Tensor;
use crate::error::{Error, Result};
use crate::record::FileHash;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// A header larger than this is taken for damage (the safetensors library's own limit).
const MAX_HEADER: u64 = 100_000_000;
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

pub struct Checkpoint {
    pub folder: PathBuf,
    files: Vec<(String, File)>,
    pub hashes: Vec<FileHash>,
    entries: HashMap<String, Entry>,
    bytes_read: AtomicU64,
}

impl Checkpoint {
    /// Opens the folder and reads all headers; `config` is its config.json, hashed with the rest.
    pub fn open(folder: &Path) -> Result<Self> {
        let names = shard_names(folder)?;
        let mut checkpoint = Self {
            folder: folder.to_path_buf(),
            files: Vec::new(),
            hashes: Vec::new(),
            entries: HashMap::new(),
            bytes_read: AtomicU64::new(0),
        };
        for name in ["config.json", INDEX, "tokenizer.json"] {
            if let Ok(data) = std::fs::read(folder.join(name)) {
                checkpoint.hashes.push(file_hash(name, data.len() as u64, "sha256", &data));
            }
        }
        for name in names {
            checkpoint.add_file(&name)?;
        }
        Ok(checkpoint)
    }

    fn add_file(&mut self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        let reading = format!("reading {}", path.display());
        let file = File::open(&path).map_err(|e| Error::io(&reading, &e).hint("download the missing file"))?;
        let length = file.metadata().map_err(|e| Error::io(&reading, &e))?.len();
        let damaged = |problem: String| {
            Error::corrupt(format!("{reading}: {problem}")).hint("the file is damaged or incomplete; download it again")
        };
        let mut size = [0u8; 8];
        file.read_exact_at(&mut size, 0).map_err(|_| damaged(format!("{length} bytes are too few for safetensors")))?;
        let size = u64::from_le_bytes(size);
        if size > MAX_HEADER || 8 + size > length {
            return Err(damaged(format!("a header of {size} bytes does not fit a file of {length} bytes")));
        }
        let mut header = vec![0u8; 8 + size as usize];
        file.read_exact_at(&mut header, 0).map_err(|e| Error::io(&reading, &e))?;
        let metadata: Metadata =
            serde_json::from_slice(&header[8..]).map_err(|e| damaged(format!("bad header: {e}")))?;
        let data = 8 + size;
        if data + metadata.data_len() as u64 != length {
            let expected = data + metadata.data_len() as u64;
            return Err(damaged(format!("the header describes {expected} bytes, the file has {length}")));
        }
        let index = self.files.len();
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
        if length <= HASH_WHOLE {
            let whole = std::fs::read(&path).map_err(|e| Error::io(&reading, &e))?;
            self.hashes.push(file_hash(name, length, "sha256", &whole));
        } else {
            self.hashes.push(file_hash(name, length, "sha256 of header", &header));
        }
        self.files.push((name.to_string(), file));
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
            Error::not_found(format!("{}: tensor `{}` is missing", self.folder.display(), tensor.name))
                .hint("the checkpoint is incomplete, or its config.json describes another model")
        })?;
        if entry.shape != tensor.shape {
            let file = &self.files[entry.file].0;
            return Err(Error::corrupt(format!(
                "{}: tensor `{}` in {file} has shape {:?}, config.json says {:?}",
                self.folder.display(),
                tensor.name,
                entry.shape,
                tensor.shape
            ))
            .hint("config.json and weights belong to different models"));
        }
        Ok(entry)
    }

    /// Where a tensor lives, for messages: folder and file.
    pub fn place(&self, entry: &Entry) -> String {
        self.folder.join(&self.files[entry.file].0).display().to_string()
    }

    /// Fills `buffer` with a tensor's bytes from byte `offset` of its data.
    pub fn read_into(&self, entry: &Entry, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = &self.files[entry.file].1;
        file.read_exact_at(buffer, entry.begin + offset).map_err(|e| {
            Error::io(format!("reading {}", self.place(entry)), &e).hint("was the file changed during the run?")
        })?;
        self.bytes_read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// SHA-256 of pieces of the files that are too large to be hashed whole: tells other weights of the same shapes.
    pub fn sample(&self) -> Result<String> {
        let mut digest = Sha256::new();
        let mut piece = [0; SAMPLE_BYTES as usize];
        for (name, file) in &self.files {
            let reading = |e| Error::io(format!("reading {}", self.folder.join(name).display()), &e);
            let length = file.metadata().map_err(reading)?.len();
            if length > HASH_WHOLE {
                for i in 0..SAMPLES {
                    file.read_exact_at(&mut piece, (length - SAMPLE_BYTES) / (SAMPLES - 1) * i).map_err(reading)?;
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

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The safetensors files of a folder, sorted: from the index where there is one.
fn shard_names(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join(INDEX);
    if !path.exists() {
        if folder.join(SINGLE).exists() {
            return Ok(vec![SINGLE.to_string()]);
        }
        return Err(Error::not_found(format!("{}: neither {SINGLE} nor {INDEX}", folder.display()))
            .hint("a model folder holds config.json and safetensors weights"));
    }
    let reading = format!("reading {}", path.display());
    let damaged = |problem: String| Error::corrupt(format!("{reading}: {problem}")).hint("download the file again");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&reading, &e))?;
    let index: serde_json::Value = serde_json::from_str(&text).map_err(|e| damaged(format!("not valid JSON: {e}")))?;
    let map = index["weight_map"].as_object();
    let map = map.ok_or_else(|| damaged("`weight_map` is missing".to_string()))?;
    let names: BTreeSet<_> = map.values().filter_map(|value| value.as_str().map(str::to_string)).collect();
    for name in &names {
        if name.contains('/') || name.starts_with('.') {
            return Err(damaged(format!("`{name}` is not a file of this folder")));
        }
    }
    Ok(names.into_iter().collect())
}
