//! Streams that are packed with gzip or zstd. Unpacked bytes are made when they are read, so that what a small file unpacks to
//! takes no memory.

use std::io::{BufRead, BufReader, Error as IoError, ErrorKind, Read};

use flate2::bufread::GzDecoder;

use super::text_file::Bytes;
use crate::error::Error;

/// What a gzip member begins with: two magic bytes, and the only method there is.
const GZIP: &[u8] = &[0x1f, 0x8b, 8];
/// What a zstd frame begins with.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Behind one byte from 0x50 to 0x5f: a frame of something else, which zstd passes over. Parallel packers begin with one.
const SKIPPED: &[u8] = &[0x2a, 0x4d, 0x18];
/// Logarithm of the bytes that a zstd frame may look back: more is made on demand only, with `--long` or `--ultra`.
const MAX_WINDOW: u32 = 27;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// By the first bytes, whatever the name.
    pub fn of(first: &[u8]) -> Option<Self> {
        let skipped = matches!(first, [0x50..=0x5f, rest @ ..] if rest.starts_with(SKIPPED));
        if first.starts_with(GZIP) {
            Some(Self::Gzip)
        } else if first.starts_with(ZSTD) || skipped {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The unpacked bytes of all members or frames of the file `name`.
    ///
    /// # Errors
    /// Those of the library when it cannot begin; while reading, an `Error` that says what is wrong with the file.
    pub fn unpacked(self, name: &str, packed: Bytes) -> std::io::Result<Bytes> {
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

/// The members of a gzip file, one after another. Zeros may stand behind each of them, as tapes and disks leave them.
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

/// A stream whose errors say which file cannot be unpacked, and why.
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
            let (name, packing) = (&self.name, self.packing.name());
            let told = if error.kind() == ErrorKind::UnexpectedEof {
                Error::corrupt(format!("reading {name}: it ends in the middle of its {packing} data"))
                    .hint("the download or the packing was cut off: fetch or pack it again")
            } else if error.to_string().contains("too much memory") {
                let most = 1 << (MAX_WINDOW - 20);
                Error::unsupported(format!("reading {name}: unpacking it takes a window of more than {most} MB"))
                    .hint("unpack it first (zstd -d --long=31), or pack it without --long and --ultra")
            } else {
                Error::corrupt(format!("reading {name}: its {packing} data are damaged"))
                    .hint(format!("see whether {packing} -t takes it; else fetch or pack it again"))
            };
            IoError::other(told)
        })
    }
}
