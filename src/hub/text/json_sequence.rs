//! JSON text sequences (RFC 7464): a mark stands in front of each value. `jq --seq` and logs of
//! programs write them.

use std::io::Read;

use super::text_file::Bytes;

/// The mark in front of a value, the character "record separator".
pub(super) const MARK: u8 = 0x1e;

/// True if a file that begins with `head` is a sequence.
pub(super) fn begins(head: &[u8]) -> bool {
    head.trim_ascii_start().first() == Some(&MARK)
}

/// The bytes of a sequence with a blank in place of each mark, so that values follow each other.
/// Marks begin lines. Anywhere else they are errors of the JSON that they are in.
pub(super) struct Unmarked {
    text: Bytes,
    /// True if only blanks and marks have come since the last end of line.
    fresh: bool,
}

impl Unmarked {
    pub(super) fn new(text: Bytes) -> Self {
        Self { text, fresh: true }
    }
}

impl Read for Unmarked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.text.read(buffer)?;
        for byte in &mut buffer[..count] {
            match *byte {
                MARK if self.fresh => *byte = b' ',
                b'\n' => self.fresh = true,
                other => self.fresh &= other.is_ascii_whitespace(),
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_in_front_of_lines_become_blanks() {
        let text = b"\x1e{\"a\": 1}\n \x1e\x1e{\n\"b\": \"\x1e\"}\n";
        let mut unmarked = Unmarked::new(Box::new(&text[..]));
        let mut found = Vec::new();
        // Few bytes at a time.
        let mut some = [0; 3];
        loop {
            let count = unmarked.read(&mut some).unwrap();
            found.extend_from_slice(&some[..count]);
            if count == 0 {
                break;
            }
        }
        assert_eq!(found, b" {\"a\": 1}\n   {\n\"b\": \"\x1e\"}\n");
    }
}
