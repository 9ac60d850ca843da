//! Splits a stream into JSON values, of which only one is in memory: the items of an array, or
//! values one after another.

use std::fmt;
use std::io::{BufRead, BufReader};

use super::failure::TextFailure;
use super::text_file::{Bytes, unreadable};
use super::texts::{MAX_DOCUMENT, SLICE};
use crate::error::{Error, Result};
use crate::outside;
use crate::progress::interrupt_requested;

pub(crate) const HINT_ARRAY: &str = "expected an array of texts or of objects such as {\"text\": \"…\"}; `column` names another key, and \
                          format: \"text\" reads the file as plain text";

/// The position of a value in its file, from 1.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Line(u64),
    Item(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Item(item) => write!(f, "item {item} of the array"),
        }
    }
}

/// A JSON value as it is written in a file.
pub(crate) struct Value {
    pub place: Place,
    pub bytes: Vec<u8>,
    /// True if the file contains nothing else.
    pub alone: bool,
}

/// Finds the end of a value, byte by byte.
#[derive(Clone, Copy, Default)]
struct Scan {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

/// The role of a byte in the current value.
enum Step {
    Inside,
    /// The last byte.
    Last,
    /// The byte after the value.
    Behind,
}

impl Scan {
    fn step(&mut self, byte: u8) -> Step {
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                // This is not JSON, which the parser reports.
                b'\n' => return Step::Last,
                _ => (),
            }
        } else {
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth == 0 => return Step::Behind,
                b'}' | b']' => self.depth -= 1,
                _ if self.depth > 0 => return Step::Inside,
                b',' | b'\n' | b'\r' | b'\t' | b' ' => return Step::Behind,
                _ => return Step::Inside,
            }
        }
        if self.depth == 0 && !self.in_text && matches!(byte, b'}' | b']' | b'"') { Step::Last } else { Step::Inside }
    }
}

/// Properties of the first value of a text.
pub(crate) struct First {
    /// Number of line ends in it.
    pub lines: usize,
    /// Its end, if it has one.
    pub end: Option<usize>,
}

pub(crate) fn first_value(text: &[u8]) -> First {
    let (mut scan, mut lines) = (Scan::default(), 0);
    for (at, byte) in text.iter().enumerate() {
        match scan.step(*byte) {
            Step::Inside => lines += (*byte == b'\n') as usize,
            Step::Last => return First { lines, end: Some(at + 1) },
            Step::Behind => return First { lines, end: Some(at) },
        }
    }
    First { lines, end: None }
}

/// The values of a stream: one after another, or the items of an array.
pub(crate) struct Values {
    name: String,
    reader: BufReader<Bytes>,
    array: bool,
    line: u64,
    items: u64,
    ended: bool,
}

impl Values {
    pub(crate) fn new(name: &str, reader: Bytes, array: bool) -> Self {
        let reader = BufReader::with_capacity(SLICE, reader);
        Self { name: name.to_string(), reader, array, line: 1, items: 0, ended: false }
    }

    /// The next byte that is not whitespace, without consuming it.
    fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            let here = self.reader.fill_buf().map_err(|e| unreadable(&self.name, &e))?;
            let blank = here.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let (next, end) = (here.get(blank).copied(), here.is_empty());
            self.line += here[..blank].iter().filter(|byte| **byte == b'\n').count() as u64;
            self.reader.consume(blank);
            if next.is_some() || end {
                return Ok(next);
            }
        }
    }

    fn damaged(&self, problem: &str) -> Error {
        Error::of(TextFailure::BadRecord {
            name: self.name.clone(),
            place: format!("line {}", self.line),
            problem: problem.to_string(),
            hint: Some(HINT_ARRAY),
        })
    }

    /// Advances to the next item of the array, after its bracket or comma. False after the last
    /// one.
    fn next_item(&mut self) -> Result<bool> {
        let expected = if self.items == 0 { b'[' } else { b',' };
        match self.peek()? {
            Some(b']') if self.items > 0 => {
                self.reader.consume(1);
                return match self.peek()? {
                    None => Ok(false),
                    Some(_) => Err(self.damaged("more stands behind the end of the array")),
                };
            }
            Some(byte) if byte == expected => self.reader.consume(1),
            Some(_) => return Err(self.damaged("expected a comma or the end of the array")),
            None => return Err(self.damaged("it ends in the middle of the array")),
        }
        // An empty array.
        if self.items == 0 && self.peek()? == Some(b']') {
            self.items = 1;
            return self.next_item();
        }
        Ok(true)
    }

    fn value(&mut self) -> Result<Option<Value>> {
        if interrupt_requested() {
            return Err(Error::interrupted());
        }
        if self.ended || (self.array && !self.next_item()?) || (!self.array && self.peek()?.is_none()) {
            self.ended = true;
            return Ok(None);
        }
        match self.peek()? {
            Some(b',' | b']') | None if self.array => return Err(self.damaged("expected an item of the array")),
            _ => (),
        }
        let (line, mut bytes, mut scan) = (self.line, Vec::new(), Scan::default());
        loop {
            let here = self.reader.fill_buf().map_err(|e| unreadable(&self.name, &e))?;
            if here.is_empty() {
                break;
            }
            let (mut count, mut over) = (0, false);
            for byte in here {
                let step = scan.step(*byte);
                over = !matches!(step, Step::Inside);
                count += !matches!(step, Step::Behind) as usize;
                if over {
                    break;
                }
            }
            // A closing bracket without an opening one is returned as an invalid value.
            count += (over && count == 0 && bytes.is_empty()) as usize;
            self.line += here[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
            bytes.extend_from_slice(&here[..count]);
            self.reader.consume(count);
            if bytes.len() > MAX_DOCUMENT {
                return Err(Error::of(TextFailure::LongValue { name: self.name.clone(), most: MAX_DOCUMENT }));
            }
            if over {
                break;
            }
        }
        self.items += 1;
        let place = if self.array { Place::Item(self.items) } else { Place::Line(line) };
        let alone = !self.array && self.items == 1 && self.peek()?.is_none();
        Ok(Some(Value { place, bytes, alone }))
    }
}

impl Iterator for Values {
    type Item = Result<Value>;

    fn next(&mut self) -> Option<Self::Item> {
        let value = self.value().transpose();
        self.ended |= matches!(value, Some(Err(_)));
        value
    }
}

/// The text with null in place of NaN and the infinities, which Python writes and JSON does not
/// have. None if there are none.
pub(crate) fn without_nan(text: &[u8]) -> Option<Vec<u8>> {
    outside::json::replaced_no_numbers(text, |_| "null".to_string())
}
