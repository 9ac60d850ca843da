//! The bytes of a pickle. A declared length is used only if this number of bytes follows.

use super::problem::{Outcome, damaged};

pub(super) struct Input<'a> {
    pub pickle: &'a [u8],
    /// The offset of the next byte.
    pub at: usize,
}

impl<'a> Input<'a> {
    fn cut_off<T>(&self) -> Outcome<T> {
        damaged(format!("its pickle is cut off: it needs more than its {} bytes", self.pickle.len()))
    }

    /// Checks that this number of bytes follows.
    pub(super) fn fits(&self, bytes: u64) -> Outcome<()> {
        if bytes > (self.pickle.len() - self.at) as u64 { self.cut_off() } else { Ok(()) }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Outcome<&'a [u8]> {
        self.fits(bytes as u64)?;
        let begin = self.at;
        self.at += bytes;
        Ok(&self.pickle[begin..self.at])
    }

    pub(super) fn byte(&mut self) -> Outcome<u8> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned number of `bytes` bytes.
    pub(super) fn length(&mut self, bytes: usize) -> Outcome<u64> {
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(self.take(bytes)?);
        Ok(u64::from_le_bytes(all))
    }

    /// As `length`, followed by that number of bytes.
    pub(super) fn following(&mut self, bytes: usize) -> Outcome<&'a [u8]> {
        let length = self.length(bytes)?;
        self.fits(length)?;
        self.take(length as usize)
    }

    /// The rest of a line, without its end.
    pub(super) fn line(&mut self) -> Outcome<&'a str> {
        let rest = &self.pickle[self.at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return self.cut_off() };
        self.at += end + 1;
        match std::str::from_utf8(&rest[..end]) {
            Ok(line) => Ok(line),
            Err(_) => damaged("a name in its pickle is not UTF-8"),
        }
    }
}
