//! Texts in random order from files that can only be read sequentially: compressed files, tables,
//! arrays. They are written to an unnamed temporary file, so that only their positions are in
//! memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::failure::TextFailure;
use super::texts::{MAX_SHUFFLED, Texts, too_many};
use crate::error::{Error, Result};
use crate::progress::interrupt_requested;

/// The most bytes of all texts, so that a small compressed file cannot fill a disk.
const MAX_SPOOLED: u64 = 4 << 30;

/// The `texts` of the file `name` in random order.
///
/// # Errors
/// `unsupported` for more than 4 GiB or 64 Mi texts, `io` if the disk is full, and the errors of
/// `texts`.
pub(crate) fn shuffled(name: &str, texts: Texts, mut random: ChaCha8Rng) -> Result<Texts> {
    let unwritable = |e: std::io::Error| {
        Error::io(format!("shuffling {name}: writing its texts to a temporary file"), &e)
            .or_hint("make room there, or name another folder in TMPDIR")
    };
    let file = tempfile::tempfile().map_err(unwritable)?;
    let mut writer = BufWriter::new(file);
    // First byte and length of each text.
    let mut spots: Vec<(u64, u32)> = Vec::new();
    let mut end = 0;
    for text in texts {
        let text = text?;
        if spots.len() == MAX_SHUFFLED {
            return Err(too_many(name));
        }
        if end + text.len() as u64 > MAX_SPOOLED {
            return Err(Error::of(TextFailure::TooLargeToShuffle { name: name.to_string(), most: MAX_SPOOLED }));
        }
        if interrupt_requested() {
            return Err(Error::interrupted());
        }
        writer.write_all(text.as_bytes()).map_err(unwritable)?;
        spots.push((end, text.len() as u32));
        end += text.len() as u64;
    }
    let file: File = writer.into_inner().map_err(|e| unwritable(e.into_error()))?;
    spots.shuffle(&mut random);
    let name = name.to_string();
    Ok(Box::new(spots.into_iter().map(move |(offset, length)| {
        let mut bytes = vec![0; length as usize];
        let unreadable = |e: std::io::Error| Error::io(format!("shuffling {name}: reading a temporary file"), &e);
        file.read_exact_at(&mut bytes, offset).map_err(unreadable)?;
        Ok(String::from_utf8(bytes).expect("texts were written"))
    })))
}
