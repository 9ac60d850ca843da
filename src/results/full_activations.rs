//! `activations.safetensors`: every norm output, or tensors at chosen sites, written as they are
//! computed and never held in memory.
//!
//! All shapes are known beforehand, so the header is written first and each piece at its offset.
//! The file gets its name only when all tensors are complete. The unfinished file of a run that can
//! be resumed carries the run's fingerprint in its name, `.activations-MARK.partial`, so that the
//! run that continues finds it and no other run uses it. The writer holds a lock of the file.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::{NamedTempFile, TempPath};

use crate::disk;
use crate::error::{Error, Result};
use crate::outside;

pub const FILE: &str = "activations.safetensors";

/// The tensor of the token ids.
const IDS: &str = "input_ids";
/// Such files begin with one of these, after the length of their header: a tensor of the first
/// layer, a mark, or ids that other tensors lie before.
const BEGIN: &[u8] = br#"{"__metadata__":{"format":"pt"},"layers.0."#;
const MARKED: &[u8] = br#"{"__metadata__":{"activations":"outlier","format":"pt"},"#;
const BEGIN_WITH_IDS: &[u8] = br#"{"__metadata__":{"format":"pt"},"input_ids":{"data_offsets":["#;
/// The size of that length in bytes.
const LENGTH: u64 = 8;

/// Returns whether this program has written a file. An unreadable file counts as not written by it.
pub fn is_full_activations(path: &Path) -> bool {
    let mut begin = [0; BEGIN_WITH_IDS.len() + 1];
    let read = outside::open(path).and_then(|file| file.read_exact_at(&mut begin, LENGTH));
    let ids_behind = begin.strip_prefix(BEGIN_WITH_IDS).is_some_and(|offset| offset != b"0");
    read.is_ok() && (begin.starts_with(BEGIN) || begin.starts_with(MARKED) || ids_behind)
}

pub struct FullActivations {
    path: PathBuf,
    file: NamedTempFile,
    /// The absolute offset and the length of each tensor, in bytes.
    places: HashMap<String, (u64, u64)>,
    missing: u64,
}

/// The first bytes of the file and the offsets of its tensors.
struct Plan {
    head: Vec<u8>,
    places: HashMap<String, (u64, u64)>,
    /// The number of bytes of all tensors but the ids.
    data: u64,
    /// The offset of the ids, and their bytes.
    ids: (u64, Vec<u8>),
}

/// What such a file has in it.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    /// Name and shape of each f32 tensor, in file order.
    pub tensors: &'a [(String, Vec<usize>)],
    /// The ids of the tokens, sequence by sequence. All have one length.
    pub ids: &'a [Vec<u32>],
}

/// Computes the layout: the ids are behind all others.
fn plan(contents: Contents) -> Plan {
    let Contents { tensors, ids } = contents;
    let mut header = serde_json::Map::new();
    let first = tensors.first().is_some_and(|(name, _)| name.starts_with("layers.0."));
    let metadata = match first {
        true => json!({ "format": "pt" }),
        false => json!({ "activations": "outlier", "format": "pt" }),
    };
    header.insert("__metadata__".into(), metadata);
    let mut offset = 0u64;
    let mut places = HashMap::new();
    for (name, shape) in tensors {
        let bytes = shape.iter().product::<usize>() as u64 * 4;
        header
            .insert(name.clone(), json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, offset + bytes] }));
        places.insert(name.clone(), (offset, bytes));
        offset += bytes;
    }
    let shape = [ids.len(), ids.first().map_or(0, Vec::len)];
    // The ids of a vocabulary fit into the signed type, which every reader knows.
    let ids: Vec<u8> = ids.iter().flatten().flat_map(|id| id.to_le_bytes()).collect();
    let end = offset + ids.len() as u64;
    header.insert(IDS.into(), json!({ "dtype": "I32", "shape": shape, "data_offsets": [offset, end] }));
    let mut header = serde_json::to_vec(&header).expect("a JSON object");
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.extend(header);
    for place in places.values_mut() {
        place.0 += head.len() as u64;
    }
    let ids = (head.len() as u64 + offset, ids);
    Plan { head, places, data: offset, ids }
}

const PREFIX: &str = ".activations-";
const SUFFIX: &str = ".partial";

fn partial(folder: &Path, mark: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{mark}{SUFFIX}"))
}

/// Opens and locks an unfinished file, unless another run is writing it.
fn free(path: &Path) -> Option<File> {
    let file =
        File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    (disk::try_lock(&file) && disk::is_same_file(&file, path)).then_some(file)
}

impl FullActivations {
    /// Creates the file.
    pub fn create(folder: &str, contents: Contents) -> Result<Self> {
        let path = PathBuf::from(folder).join(FILE);
        let file = disk::create(&path)?;
        Self::begin(path, file, plan(contents))
    }

    /// Creates the file for a run that may be resumed and has the fingerprint `mark`. Unfinished
    /// files of runs with other fingerprints are removed from the folder, except those in `spared`,
    /// which can still be resumed. While another run with this fingerprint is at work, the file
    /// gets a name from which it cannot be resumed.
    pub fn create_for(mark: &str, spared: &[String], folder: &str, contents: Contents) -> Result<Self> {
        let folder = Path::new(folder);
        let unfinished = partial(folder, mark);
        let creating = |e: std::io::Error| {
            Error::io(format!("writing {}", unfinished.display()), &e).or_hint("is the folder writable?")
        };
        std::fs::create_dir_all(folder).map_err(creating)?;
        for entry in std::fs::read_dir(folder).map_err(creating)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
            let left = of.is_some_and(|of| of == mark || !spared.iter().any(|spared| spared == of));
            if left && free(&entry.path()).is_some() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let mut options = File::options();
        let file = match options.read(true).write(true).create_new(true).open(&unfinished) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Self::create(&folder.display().to_string(), contents);
            }
            file => file.map_err(creating)?,
        };
        if !disk::try_lock(&file) || !disk::is_same_file(&file, &unfinished) {
            return Self::create(&folder.display().to_string(), contents);
        }
        let file = NamedTempFile::from_parts(file, TempPath::try_from_path(&unfinished).map_err(creating)?);
        Self::begin(folder.join(FILE), file, plan(contents))
    }

    /// Opens the unfinished file of an earlier run with this fingerprint that has written all
    /// tensors named in `finished`. Returns nothing if there is no such file.
    pub fn resume(mark: &str, folder: &str, contents: Contents, finished: &[String]) -> Result<Option<Self>> {
        let folder = Path::new(folder);
        let unfinished = partial(folder, mark);
        let Some(file) = free(&unfinished) else { return Ok(None) };
        let reading = |e: std::io::Error| Error::io(format!("reading {}", unfinished.display()), &e);
        let plan = plan(contents);
        let mut head = vec![0; plan.head.len()];
        let length = file.metadata().map_err(reading)?.len();
        let ends = finished.iter().map(|name| plan.places[name].0 + plan.places[name].1);
        if length < ends.max().unwrap_or(0) || file.read_exact_at(&mut head, 0).is_err() || head != plan.head {
            return Ok(None);
        }
        let missing = plan.data - finished.iter().map(|name| plan.places[name].1).sum::<u64>();
        let mut file = NamedTempFile::from_parts(file, TempPath::try_from_path(&unfinished).map_err(reading)?);
        file.disable_cleanup(true);
        let full = Self { path: folder.join(FILE), file, places: plan.places, missing };
        full.put(&plan.ids.1, plan.ids.0)?;
        Ok(Some(full))
    }

    fn begin(path: PathBuf, file: NamedTempFile, plan: Plan) -> Result<Self> {
        let full = Self { path, file, places: plan.places, missing: plan.data };
        full.put(&plan.head, 0)?;
        full.put(&plan.ids.1, plan.ids.0)?;
        Ok(full)
    }

    /// Flushes all data written so far to the disk.
    pub fn keep(&mut self) -> Result<()> {
        let writing = |e: std::io::Error| Error::io(format!("writing {}", self.path.display()), &e);
        self.file.as_file().sync_data().map_err(writing)?;
        self.file.disable_cleanup(true);
        Ok(())
    }

    fn put(&self, data: &[u8], offset: u64) -> Result<()> {
        let writing = || format!("writing {}", self.path.display());
        self.file
            .as_file()
            .write_all_at(data, offset)
            .map_err(|e| Error::io(writing(), &e).or_hint("is the disk full?"))
    }

    /// Writes `values` into a tensor, beginning at element `start`.
    pub fn write(&mut self, tensor: &str, start: usize, values: &[f32]) -> Result<()> {
        let (offset, bytes) = *self.places.get(tensor).expect("announced at creation");
        let data: &[u8] = bytemuck::cast_slice(values);
        assert!(start as u64 * 4 + data.len() as u64 <= bytes, "{tensor} is larger than announced");
        self.put(data, offset + start as u64 * 4)?;
        self.missing -= data.len() as u64;
        Ok(())
    }

    /// Gives the file its name. The caller must have written every element before.
    pub fn finish(self) -> Result<()> {
        assert_eq!(self.missing, 0, "{} lacks values", self.path.display());
        disk::publish(self.file, &self.path)
    }
}
