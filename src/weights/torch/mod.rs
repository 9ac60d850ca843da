//! PyTorch weight files (`pytorch_model.bin`) of `torch.save`: an archive with the numbers, and a
//! pickle that describes the tensors.
//!
//! A pickle can make Python run any code. Here it is interpreted by a machine that knows only
//! tensors, and an archive that is not as `torch.save` writes it is rejected, so that a file can
//! cause nothing but reads of its tensors. Only directories, pickles and headers are read here, for
//! all files of a model at once.

mod archive;
mod input;
mod objects;
mod pickle;
mod problem;
mod state;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry::{Occupied, Vacant};
use std::ops::Range;
use std::sync::Arc;

use safetensors::Dtype;

use archive::{Directory, Found, Place};
use pickle::MAX_PICKLE;
use problem::{Outcome, Problem, damaged, unsupported};
use state::Stored;

use crate::error::{Error, Kind, Result};
use crate::hub::{self, Ahead, Announcement, ByteSource, FileRange};
use crate::outside::safetensors::MAX_HEADER;
use crate::outside::shown;

/// Headers of entries within this distance are fetched together.
const GAP: u64 = 64 << 10;
/// The pickle in the archive.
const PICKLE: &str = "data.pkl";
/// An entry of archives that contain a program in addition to tensors.
const PROGRAM: &str = "constants.pkl";
const BYTE_ORDER: &str = "byteorder";
/// The largest size of the entry with the byte order.
const MAX_ORDER: u64 = 64;

/// A tensor in a file.
pub(super) struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The strides in elements, if its numbers are not contiguous.
    pub strides: Option<Vec<usize>>,
    /// Offset of its data in the file.
    pub begin: u64,
    pub bytes: u64,
}

/// The description of one file.
pub(super) struct Described {
    pub tensors: Vec<Tensor>,
    /// The directory and the pickle.
    pub header: Vec<u8>,
}

/// A file that is being read.
struct Opened {
    directory: Directory,
    pickle: Found,
    byte_order: Option<Found>,
}

/// True if the weights of a model are in PyTorch files.
///
/// # Errors
/// `unsupported` if only some of them are.
pub(super) fn holds(source: &dyn ByteSource) -> Result<bool> {
    let files = source.files()?;
    let count = files.iter().filter(|file| hub::is_pytorch(&file.name)).count();
    match count {
        0 => Ok(false),
        _ if count == files.len() => Ok(true),
        _ => Err(Error::unsupported(format!(
            "{}: some of its files of weights are safetensors and some are PyTorch files",
            source.place()
        ))
        .hint("fetch all of one kind, with the index that names them")),
    }
}

/// Reads the descriptions of all files.
///
/// # Errors
/// `unsupported` if a pickle needs anything but tensors, and for files of other formats; `corrupt`
/// for damage.
pub(super) fn read(source: &Arc<dyn ByteSource>) -> Result<Vec<Described>> {
    let converted = |error: &Error| if error.kind == Kind::Unsupported { source.converted() } else { None };
    described(source).map_err(|error| match converted(&error) {
        Some(revision) => {
            let otherwise = error.hint.as_ref().map_or(String::new(), |hint| format!("; or {hint}"));
            error.hint(format!(
                "give load_model `revision: \"{revision}\"`, where the hub has a conversion of it to safetensors{otherwise}"
            ))
        }
        None => error,
    })
}

fn described(source: &Arc<dyn ByteSource>) -> Result<Vec<Described>> {
    let opened = open_all(source)?;
    limited(source, opened.iter().map(|opened| opened.pickle.all()))?;
    let ranges = opened.iter().enumerate().flat_map(|(file, opened)| {
        [Some(&opened.pickle), opened.byte_order.as_ref()].into_iter().flatten().map(move |found| (file, found.all()))
    });
    let mut contents = each(source, ranges.collect(), |_, content| Ok(content))?.into_iter();
    let mut pickles = Vec::new();
    for (file, opened) in opened.iter().enumerate() {
        pickles.push(contents.next().unwrap_or_default());
        if let Some(found) = &opened.byte_order {
            let order = contents.next().unwrap_or_default();
            found.content(&order).and_then(check_order).map_err(|problem| told(source, file, problem))?;
        }
    }
    let mut states = Vec::new();
    for (file, (opened, pickle)) in opened.iter().zip(&pickles).enumerate() {
        states.push(State::of(opened, pickle).map_err(|problem| told(source, file, problem))?);
    }
    let headers = states.iter().enumerate();
    let headers = headers.flat_map(|(file, state)| state.storages.values().map(move |found| (file, found.header())));
    let mut headers = each(source, headers.collect(), |_, header| Ok(header))?.into_iter();
    let mut described = Vec::new();
    for (file, (state, Opened { directory, .. })) in states.into_iter().zip(&opened).enumerate() {
        let header = [&directory.data, state.pickle].concat();
        let tensors = state.placed(&mut headers).map_err(|problem| told(source, file, problem))?;
        described.push(Described { tensors, header });
    }
    Ok(described)
}

fn told(source: &Arc<dyn ByteSource>, file: usize, problem: Problem) -> Error {
    let name = source.files().map_or("a file", |files| &files[file].name);
    problem.of(&format!("{}/{name}", source.place()))
}

/// The directories of all files.
fn open_all(source: &Arc<dyn ByteSource>) -> Result<Vec<Opened>> {
    let files = source.files()?;
    let tails = files.iter().map(|file| file.bytes.saturating_sub(archive::TAIL)..file.bytes).enumerate();
    let ends = each(source, tails.collect(), |file, tail| {
        let bytes = files[file].bytes;
        let Some(place) = archive::place(&tail, bytes).map_err(|problem| told(source, file, problem))? else {
            return Err(no_archive(source, file)?);
        };
        // Usually all of the directory has been read.
        let inside = |at: u64| at.checked_sub(bytes - tail.len() as u64).map(|at| at as usize);
        let directory = inside(place.range.start).zip(inside(place.range.end));
        Ok((place, directory.map(|(begin, end)| tail[begin..end].to_vec())))
    })?;
    limited(source, ends.iter().map(|(place, _)| place.range.clone()))?;
    let missing = ends.iter().enumerate().filter(|(_, (_, directory))| directory.is_none());
    let missing = missing.map(|(file, (place, _))| (file, place.range.clone())).collect();
    let mut fetched = each(source, missing, |_, directory| Ok(directory))?.into_iter();
    let open = |(file, (place, directory)): (usize, (Place, Option<Vec<u8>>))| {
        let directory = directory.or_else(|| fetched.next()).unwrap_or_default();
        open(directory, &place).map_err(|problem| told(source, file, problem))
    };
    ends.into_iter().enumerate().map(open).collect()
}

fn open(directory: Vec<u8>, place: &Place) -> Outcome<Opened> {
    let directory = Directory::read(directory, place)?;
    let Some(pickle) = directory.find(PICKLE)? else {
        return unsupported(format!("a zip archive without `{PICKLE}`, and so none that torch.save writes"));
    };
    if directory.find(PROGRAM)?.is_some() {
        return unsupported("a TorchScript archive, which holds a program, and not weights alone");
    }
    if pickle.bytes > MAX_PICKLE {
        return damaged(format!("a pickle of {} bytes is none of a file of weights", pickle.bytes));
    }
    let byte_order = directory.find(BYTE_ORDER)?;
    match &byte_order {
        Some(order) if order.bytes > MAX_ORDER => damaged(format!("its `{BYTE_ORDER}` has {} bytes", order.bytes)),
        _ => Ok(Opened { directory, pickle, byte_order }),
    }
}

fn check_order(order: &[u8]) -> Outcome<()> {
    match order {
        b"little" => Ok(()),
        b"big" => unsupported("its numbers are stored big end first, as a computer of another kind has written them"),
        _ => damaged(format!("its `{BYTE_ORDER}` is neither \"little\" nor \"big\"")),
    }
}

/// The tensors of one file with their storages.
struct State<'a> {
    pickle: &'a [u8],
    tensors: Vec<Stored<'a>>,
    /// The storages by their names in the pickle.
    storages: BTreeMap<&'a str, Found>,
}

impl<'a> State<'a> {
    fn of(opened: &Opened, entry: &'a [u8]) -> Outcome<Self> {
        let pickle = opened.pickle.content(entry)?;
        let (objects, root) = pickle::run(pickle)?;
        let tensors = state::tensors(&objects, root)?;
        let mut storages = BTreeMap::new();
        for tensor in &tensors {
            let found = match storages.entry(tensor.key) {
                Vacant(place) => match opened.directory.find(&format!("data/{}", tensor.key))? {
                    Some(found) => place.insert(found),
                    None => return damaged(format!("tensor `{}` is in no entry of it", shown(tensor.name))),
                },
                Occupied(found) => found.into_mut(),
            };
            if found.bytes != tensor.storage_bytes {
                return damaged(format!(
                    "tensor `{}` has a storage of {} bytes, and its entry has {}",
                    shown(tensor.name),
                    tensor.storage_bytes,
                    found.bytes
                ));
            }
        }
        Ok(Self { pickle, tensors, storages })
    }

    /// The tensors sorted by offset in the file; `headers` are those of the storages.
    fn placed(self, headers: &mut impl Iterator<Item = Vec<u8>>) -> Outcome<Vec<Tensor>> {
        let mut begins = BTreeMap::new();
        for (key, found) in &self.storages {
            begins.insert(*key, found.data(&headers.next().unwrap_or_default())?.start);
        }
        let placed = |Stored { name, dtype, shape, strides, key, begin, bytes, .. }: Stored| {
            let (name, begin) = (name.to_string(), begins[key] + begin);
            Tensor { name, dtype, shape, strides, begin, bytes }
        };
        Ok(self.tensors.into_iter().map(placed).collect())
    }
}

/// Applies `f` to ranges of files, which are announced together and read in turn.
fn each<T>(
    source: &Arc<dyn ByteSource>,
    ranges: Vec<(usize, Range<u64>)>,
    mut make: impl FnMut(usize, Vec<u8>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut ahead = Ahead::new(source.clone());
    let announced = ranges.iter().map(|(file, range)| FileRange { file: *file, range: range.clone() }).collect();
    ahead.expect(Announcement { order: 0, max_gap: GAP, ranges: announced });
    let read = |(file, range): (usize, Range<u64>)| {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        source.read(file, range.start, &mut bytes)?;
        make(file, bytes)
    };
    ranges.into_iter().map(read).collect()
}

/// Rejects more reads than the files of any model need.
fn limited(source: &Arc<dyn ByteSource>, ranges: impl Iterator<Item = Range<u64>>) -> Result<()> {
    let all: u64 = ranges.map(|range| range.end - range.start).sum();
    if all <= MAX_HEADER {
        return Ok(());
    }
    let message = format!("reading {}: what its files say of themselves has {all} bytes", source.place());
    Err(Error::corrupt(message).hint("the largest models have a few million; download the files again"))
}

/// The error of a file that is not an archive: another format, or a truncated one.
fn no_archive(source: &Arc<dyn ByteSource>, index: usize) -> Result<Error> {
    let file = &source.files()?[index];
    let mut begin = vec![0; file.bytes.min(hub::TELLING) as usize];
    source.read(index, 0, &mut begin)?;
    let path = format!("{}/{}", source.place(), file.name);
    let cut_off = || Problem::Damaged(format!("no archive ends at the end of its {} bytes", file.bytes)).of(&path);
    Ok(hub::no_pytorch(&path, &begin).unwrap_or_else(cut_off))
}
