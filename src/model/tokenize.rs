//! Token sequences: given as ids here, or cut from text by `sequences`. All have the same length.

use std::fs::File;

use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};

use super::checkpoint::hex;
use super::sequences;
use crate::error::{Error, Result};
use crate::hub::Documents;
use crate::record::{TokenSource, Tokens, TokensInfo};

pub fn load_tokens(source: &TokenSource) -> Result<Tokens> {
    match source {
        TokenSource::IdsJson { path } => tokens(path, None, ids_json(path)?),
        TokenSource::IdsSafetensors { path, tensor } => tokens(path, None, ids_safetensors(path, tensor)?),
        TokenSource::Ids { ids } => tokens("script", None, ids.clone()),
        TokenSource::Text(args) => {
            let mut documents = Documents::open(args)?;
            let ids = sequences::from_text(&mut documents, args)?;
            tokens(&documents.source, documents.revision, ids)
        }
    }
}

/// Checks that `ids` are sequences of one length and names them.
fn tokens(source: &str, revision: Option<String>, ids: Vec<Vec<u32>>) -> Result<Tokens> {
    let length = ids.first().map_or(0, Vec::len);
    if length == 0 {
        return Err(
            Error::bad_argument(format!("{source}: no tokens")).hint("give at least one sequence of at least one id")
        );
    }
    if let Some((s, other)) = ids.iter().enumerate().find(|(_, sequence)| sequence.len() != length) {
        return Err(Error::bad_argument(format!(
            "{source}: sequence 0 has {length} tokens, sequence {s} has {}",
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
    };
    Ok(Tokens { ids, info })
}

/// SHA-256 of all ids, each as four bytes, little endian.
pub fn hash_of_ids(ids: &[Vec<u32>]) -> String {
    let mut hash = Sha256::new();
    ids.iter().flatten().for_each(|id| hash.update(id.to_le_bytes()));
    hex(&hash.finalize())
}

fn unreadable(path: &str, error: &std::io::Error) -> Error {
    Error::io(format!("reading {path}"), error)
        .hint("paths given to load_tokens start from the folder the program runs in")
}

fn ids_json(path: &str) -> Result<Vec<Vec<u32>>> {
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    serde_json::from_str(&text).map_err(|e| {
        Error::corrupt(format!("reading {path}: {e}"))
            .hint("expected an array of arrays of token ids, such as [[1, 2], [3, 4]]")
    })
}

fn ids_safetensors(path: &str, tensor: &str) -> Result<Vec<Vec<u32>>> {
    let reading = format!("reading {path}");
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    // The file may hold gigabytes of activations beside the ids. Safety: a file that is cut short while it is read ends
    // the process; nothing of ours writes to inputs.
    let data = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(&reading, &e))?;
    let tensors = SafeTensors::deserialize(&data)
        .map_err(|e| Error::corrupt(format!("{reading}: {e}")).hint("the file is damaged or not safetensors"))?;
    let view = tensors.tensor(tensor).map_err(|_| {
        let names = tensors.names();
        Error::not_found(format!("{reading}: no tensor `{tensor}`"))
            .hint(crate::suggest::hint(tensor, names.iter().copied()))
    })?;
    let &[_, positions] = view.shape() else {
        let shape = view.shape();
        return Err(Error::bad_argument(format!(
            "{reading}: `{tensor}` has shape {shape:?}, expected [sequences, positions]"
        ))
        .hint("one sequence of n ids has the shape [1, n]"));
    };
    let bad = || {
        Error::bad_argument(format!("{reading}: `{tensor}` holds a negative or too large id"))
            .hint("are there padding marks such as -100? sequences must be complete")
    };
    let ids: Result<Vec<u32>> = match view.dtype() {
        Dtype::I64 | Dtype::U64 => {
            let values = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("eight bytes")));
            values.map(|id| u32::try_from(id).map_err(|_| bad())).collect()
        }
        Dtype::I32 | Dtype::U32 => {
            let values = view.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().expect("four bytes")));
            values.map(|id| u32::try_from(id).map_err(|_| bad())).collect()
        }
        other => Err(Error::bad_argument(format!("{reading}: `{tensor}` is {other:?}, expected integers"))
            .hint("store token ids as I32 or I64")),
    };
    if positions == 0 {
        return Ok(Vec::new());
    }
    Ok(ids?.chunks_exact(positions).map(<[u32]>::to_vec).collect())
}
