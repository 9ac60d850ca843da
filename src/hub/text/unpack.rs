//! Streams that are compressed with gzip or zstd. They are decompressed while they are read, so
//! that the decompressed size takes no memory.

use std::io::{BufRead, BufReader, Error as IoError, ErrorKind, Read};

use flate2::bufread::GzDecoder;

use super::failure::TextFailure;
use super::text_file::Bytes;
use crate::error::Error;

/// First bytes of a gzip member: two magic bytes, and the only method.
const GZIP: &[u8] = &[0x1f, 0x8b, 8];
/// The error of bytes behind a member that begin no other, as it passes through readers.
const BEHIND: &str = "bytes behind the gzip data";
/// First bytes of a zstd frame.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Preceded by a byte from 0x50 to 0x5f: a skippable zstd frame. Parallel compressors begin with
/// one.
const SKIPPED: &[u8] = &[0x2a, 0x4d, 0x18];
/// Logarithm of the window of a zstd frame. Larger windows exist only on demand, with `--long` or
/// `--ultra`.
const MAX_WINDOW: u32 = 27;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// The compression by the first bytes, for any name.
    pub(crate) fn of(first: &[u8]) -> Option<Self> {
        let skipped = matches!(first, [0x50..=0x5f, rest @ ..] if rest.starts_with(SKIPPED));
        if first.starts_with(GZIP) {
            Some(Self::Gzip)
        } else if first.starts_with(ZSTD) || skipped {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The decompressed bytes of all members or frames of the file `name`.
    ///
    /// # Errors
    /// The errors of the library at the start; while reading, an `Error` that describes the problem
    /// of the file.
    pub(crate) fn unpacked(self, name: &str, packed: Bytes) -> std::io::Result<Bytes> {
        let stream: Bytes = match self {
            Self::Gzip => Box::new(Members { member: Some(GzDecoder::new(BufReader::new(packed))) }),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::new(packed)?;
                decoder.window_log_max(MAX_WINDOW)?;
                Box::new(decoder)
            }
        };
        Ok(Box::new(Told { name: name.to_string(), packing: self, stream }))
    }
}

/// The members of a gzip file, one after another. Zeros may follow each of them, as tapes and disks
/// leave them.
struct Members {
    member: Option<GzDecoder<BufReader<Bytes>>>,
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(member) = self.member.take() else { break };
            let mut packed = member.into_inner();
            let more = loop {
                let here = packed.fill_buf()?;
                let zeros = here.iter().take_while(|byte| **byte == 0).count();
                if zeros < here.len() || here.is_empty() {
                    let more = !here.is_empty();
                    // Of a member that is cut off there may be less.
                    let rest = &here[zeros..];
                    if !rest.iter().zip(GZIP).all(|(byte, magic)| byte == magic) {
                        return Err(IoError::other(BEHIND));
                    }
                    packed.consume(zeros);
                    break more;
                }
                packed.consume(zeros);
            };
            self.member = more.then(|| GzDecoder::new(packed));
        }
        Ok(0)
    }
}

/// A stream whose errors name the file and the reason.
struct Told {
    name: String,
    packing: Packing,
    stream: Bytes,
}

impl Read for Told {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(buffer).map_err(|error| {
            if error.get_ref().is_some_and(|inner| inner.is::<Error>()) || error.kind() == ErrorKind::Interrupted {
                return error;
            }
            let (name, packing) = (self.name.clone(), self.packing.name());
            let told = if error.to_string() == BEHIND {
                TextFailure::BehindGzip { name }
            } else if error.kind() == ErrorKind::UnexpectedEof {
                TextFailure::CutOff { name, packing }
            } else if error.to_string().contains("too much memory") {
                TextFailure::LargeWindow { name, most_mb: 1 << (MAX_WINDOW - 20) }
            } else {
                TextFailure::DamagedPacking { name, packing }
            };
            IoError::other(Error::of(told))
        })
    }
}
