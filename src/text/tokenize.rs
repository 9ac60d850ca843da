//! Token sequences of equal length, from given ids or, by `sequences`, from text.

use std::os::unix::fs::FileExt;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use sha2::{Digest, Sha256};

use super::{ids_json, sequences, token_masks};
use crate::error::{Error, Result};
use crate::hub::{self, Documents};
use crate::outside::safetensors::{LENGTH, MAX_HEADER};
use crate::outside::{self, complaint};
use crate::progress::Progress;
use crate::record::{MAX_TOKENS, TokenSource, Tokens, TokensInfo};
use crate::words::{counted, hex};

pub fn load_tokens(source: &TokenSource, progress: &dyn Progress) -> Result<Tokens> {
    match source {
        TokenSource::IdsJson { path } => tokens(path, None, ids_json::read(path)?),
        TokenSource::IdsSafetensors { path, tensor } => tokens(path, None, ids_safetensors(path, tensor)?),
        TokenSource::Ids { ids } => tokens(Tokens::SCRIPT, None, ids.clone()),
        TokenSource::Text(args) => {
            let mut documents = Documents::open(args)?;
            let ids = sequences::from_text(&mut documents, args, progress)?;
            tokens(&documents.source, documents.revision, ids)
        }
    }
}

/// Checks that all sequences in `ids` have the same length, and adds their origin and hash.
fn tokens(source: &str, revision: Option<String>, ids: Vec<Vec<u32>>) -> Result<Tokens> {
    let length = ids.first().map_or(0, Vec::len);
    // Ids in a script are a wrong argument. Ids in a file make the file corrupt.
    let wrong = |message: String| {
        if source == Tokens::SCRIPT { Error::bad_argument(message) } else { Error::corrupt(message) }
    };
    if length == 0 {
        return Err(wrong(format!("{source}: no tokens")).hint("give at least one sequence of at least one id"));
    }
    if let Some((s, other)) = ids.iter().enumerate().find(|(_, sequence)| sequence.len() != length) {
        return Err(wrong(format!(
            "{source}: sequence 0 has {}, sequence {s} has {}",
            counted(length, "token"),
            other.len()
        ))
        .hint("all sequences must have the same length; cut them to the shortest"));
    }
    let info = TokensInfo {
        source: source.to_string(),
        revision,
        num_sequences: ids.len(),
        sequence_length: length,
        sha256: hash_of_ids(&ids),
        parts: Vec::new(),
    };
    Ok(Tokens { ids, info })
}

/// SHA-256 of all ids, each as four little-endian bytes.
pub fn hash_of_ids(ids: &[Vec<u32>]) -> String {
    let mut hash = Sha256::new();
    ids.iter().flatten().for_each(|id| hash.update(id.to_le_bytes()));
    hex(&hash.finalize())
}

fn unreadable(path: &str, error: &std::io::Error) -> Error {
    outside::unreadable(Path::new(path), error, ids_json::PATHS)
}

fn ids_safetensors(path: &str, tensor: &str) -> Result<Vec<Vec<u32>>> {
    let reading = format!("reading {path}");
    let damaged = |problem: String| {
        Error::corrupt(format!("{reading}: {problem}")).hint("the file is damaged or not safetensors")
    };
    let file = outside::open(Path::new(path)).map_err(|e| unreadable(path, &e))?;
    let length = file.metadata().map_err(|e| unreadable(path, &e))?.len();
    // The file may also contain gigabytes of activations, so only the ids are read.
    let read = |offset: u64, bytes: u64| {
        let mut data = vec![0; bytes as usize];
        file.read_exact_at(&mut data, offset).map_err(|e| damaged(e.to_string()))?;
        Ok(data)
    };
    let header = read(0, LENGTH)?.try_into().map(u64::from_le_bytes).expect("eight bytes were read");
    if header > MAX_HEADER || LENGTH + header > length {
        let begin = read(0, length.min(hub::TELLING))?;
        if let Some(error) = hub::no_safetensors(path, &begin, ids_json::CONVERT, ids_json::CONVERT) {
            return Err(error);
        }
        return Err(damaged(format!("a header of {header} bytes does not fit a file of {length} bytes")));
    }
    let header_text = read(LENGTH, header)?;
    outside::json::check(&header_text, outside::json::LARGE).map_err(|said| damaged(format!("bad header: {said}")))?;
    let metadata: Metadata =
        serde_json::from_slice(&header_text).map_err(|e| damaged(format!("bad header: {}", complaint(e))))?;
    if LENGTH + header + metadata.data_len() as u64 != length {
        return Err(damaged("the header describes another number of bytes than there are".to_string()));
    }
    let info = metadata.info(tensor).ok_or_else(|| {
        let names = metadata.offset_keys();
        Error::not_found(format!("{reading}: no tensor `{tensor}`"))
            .hint(crate::suggest::hint(tensor, names.iter().map(String::as_str)))
    })?;
    let &[sequences, positions] = info.shape.as_slice() else {
        let shape = &info.shape[..info.shape.len().min(8)];
        return Err(Error::corrupt(format!(
            "{reading}: `{tensor}` has shape {shape:?}, expected [sequences, positions]"
        ))
        .hint("one sequence of n ids has the shape [1, n]"));
    };
    let Some((width, id)) = integers(info.dtype) else {
        return Err(Error::corrupt(format!("{reading}: `{tensor}` is {:?}, expected integers", info.dtype))
            .hint("store token ids as integers, such as I32 or I64"));
    };
    if positions == 0 || sequences == 0 {
        return Ok(Vec::new());
    }
    let (begin, end) = info.data_offsets;
    if end - begin > MAX_TOKENS * width {
        return Err(Error::corrupt(format!("{reading}: `{tensor}` holds more than {MAX_TOKENS} ids"))
            .hint("take fewer sequences"));
    }
    let values = |(begin, end): (usize, usize)| read(LENGTH + header + begin as u64, (end - begin) as u64);
    let data = values(info.data_offsets)?;
    for (name, mask) in token_masks::of(&metadata, tensor, &info.shape) {
        let Some(sequence) = token_masks::padded(&name, mask.dtype, &values(mask.data_offsets)?, positions) else {
            continue;
        };
        let name = outside::shown(&name);
        return Err(Error::corrupt(format!("{reading}: `{name}` marks padding in sequence {sequence} of `{tensor}`"))
            .hint("sequences must be complete: cut all of them to the length of the shortest, without padding"));
    }
    let bad = || {
        Error::corrupt(format!("{reading}: `{tensor}` holds a negative or too large id"))
            .hint("are there padding marks such as -100? sequences must be complete")
    };
    let ids = data.chunks_exact(width).map(|bytes| id(bytes).ok_or_else(bad));
    let ids = ids.collect::<Result<Vec<u32>>>()?;
    Ok(ids.chunks_exact(positions).map(<[u32]>::to_vec).collect())
}

/// Parses an id from its bytes, if it is from 0 to 2^32 - 1.
type ReadId = fn(&[u8]) -> Option<u32>;

/// For an integer type: its size in bytes, and its parser. None for other types.
fn integers(dtype: Dtype) -> Option<(usize, ReadId)> {
    Some(match dtype {
        Dtype::I64 => (8, |bytes| i64::from_le_bytes(bytes.try_into().ok()?).try_into().ok()),
        Dtype::U64 => (8, |bytes| u64::from_le_bytes(bytes.try_into().ok()?).try_into().ok()),
        Dtype::I32 => (4, |bytes| i32::from_le_bytes(bytes.try_into().ok()?).try_into().ok()),
        Dtype::U32 => (4, |bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?))),
        Dtype::I16 => (2, |bytes| i16::from_le_bytes(bytes.try_into().ok()?).try_into().ok()),
        Dtype::U16 => (2, |bytes| Some(u16::from_le_bytes(bytes.try_into().ok()?).into())),
        Dtype::I8 => (1, |bytes| i8::from_le_bytes(bytes.try_into().ok()?).try_into().ok()),
        Dtype::U8 => (1, |bytes| bytes.first().copied().map(u32::from)),
        _ => return None,
    })
}
