//! Texts in a column of CSV and similar tables, read as pandas reads them: the first row has the
//! column names, quoted cells may contain delimiters and line ends, and empty cells and the usual
//! spellings of missing values have no text.

use std::io::{BufRead, BufReader};

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

use super::formats::no_column;
use super::text_file::{Bytes, unreadable};
use super::texts::{MAX_DOCUMENT, SLICE, not_text};
use crate::error::{Error, Result};
use crate::progress::interrupt_requested;

/// The possible delimiters of cells.
const DELIMITERS: &[u8] = b",;\t|";
/// The largest number of columns.
const MAX_COLUMNS: usize = 65_536;
/// Cells without a text: the `na_values` of pandas' `read_csv`, and so of the CSV files of
/// datasets.
const MISSING: &[&str] = &[
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// Cells of a stream, one after another.
struct Cells {
    name: String,
    reader: BufReader<Bytes>,
    parser: Reader,
    /// The line of the next byte, from 1.
    line: u64,
    /// Number of bytes in the current row.
    row: usize,
}

/// What a cell is.
struct Cell {
    bytes: Vec<u8>,
    empty: bool,
    last_of_row: bool,
    /// The line of its first byte.
    line: u64,
}

impl Cells {
    fn new(name: &str, text: Bytes, delimiter: u8) -> Self {
        let reader = BufReader::with_capacity(SLICE, text);
        let parser = ReaderBuilder::new().delimiter(delimiter).build();
        Self { name: name.to_string(), reader, parser, line: 1, row: 0 }
    }

    /// The next cell, with its bytes only if they are wanted.
    fn next(&mut self, wanted: bool) -> Result<Option<Cell>> {
        let mut cell = Cell { bytes: Vec::new(), empty: true, last_of_row: false, line: self.line };
        let mut output = [0; 4096];
        // A quoted cell ends at an even number of quotes.
        let (mut begun, mut quoted, mut quotes) = (false, false, 0_usize);
        loop {
            let here = self.reader.fill_buf().map_err(|e| unreadable(&self.name, &e))?;
            let ended = here.is_empty();
            let (result, read, written) = self.parser.read_field(here, &mut output);
            for byte in &here[..read] {
                // Line ends before a row belong to the previous row or are blank lines.
                if !begun && self.row == 0 && matches!(byte, b'\r' | b'\n') {
                    self.line += (*byte == b'\n') as u64;
                    cell.line = self.line;
                    continue;
                }
                quoted |= !begun && *byte == b'"';
                begun = true;
                quotes += (*byte == b'"') as usize;
                self.line += (*byte == b'\n') as u64;
            }
            self.reader.consume(read);
            if begun {
                self.row += read;
            }
            if self.row > MAX_DOCUMENT {
                return Err(self
                    .damaged(cell.line, &format!("a row of more than {MAX_DOCUMENT} bytes"))
                    .hint("is a quote never closed?"));
            }
            cell.empty &= written == 0;
            if wanted {
                cell.bytes.extend_from_slice(&output[..written]);
            }
            match result {
                ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => (),
                ReadFieldResult::Field { record_end } => {
                    if ended && quoted && quotes % 2 == 1 {
                        return Err(self
                            .damaged(cell.line, "a quote is opened here and never closed")
                            .hint("a quote within a text in quotes is written twice: \"\""));
                    }
                    cell.last_of_row = record_end;
                    if record_end {
                        self.row = 0;
                    }
                    return Ok(Some(cell));
                }
                ReadFieldResult::End => return Ok(None),
            }
        }
    }

    fn damaged(&self, line: u64, problem: &str) -> Error {
        Error::corrupt(format!("reading {}, line {line}: {problem}", self.name))
    }

    /// The names of the columns.
    fn header(&mut self) -> Result<Vec<String>> {
        let mut columns = Vec::new();
        while let Some(cell) = self.next(true)? {
            columns.push(String::from_utf8(cell.bytes).map_err(|_| not_text(&self.name))?);
            if cell.last_of_row {
                break;
            }
            if columns.len() == MAX_COLUMNS {
                return Err(self.damaged(1, &format!("more than {MAX_COLUMNS} columns")).hint("is it a table?"));
            }
        }
        Ok(columns)
    }
}

/// The texts of a column.
pub struct Texts {
    cells: Cells,
    columns: usize,
    column: usize,
}

impl Texts {
    /// Reads the header of the table that begins with `head`. If it has no such column with this
    /// `delimiter`, semicolons, tabs and bars are tried.
    ///
    /// # Errors
    /// `not_found` if there is no column of this name.
    pub fn open(name: &str, head: &[u8], text: Bytes, delimiter: u8, column: &str) -> Result<Self> {
        let header =
            |delimiter: u8| Cells::new(name, Box::new(std::io::Cursor::new(head.to_vec())), delimiter).header();
        let fits = |delimiter: &u8| header(*delimiter).is_ok_and(|columns| columns.iter().any(|other| other == column));
        let others = DELIMITERS.iter().copied();
        let delimiter = std::iter::once(delimiter).chain(others).find(fits).unwrap_or(delimiter);
        let mut cells = Cells::new(name, text, delimiter);
        let columns = cells.header()?;
        let Some(found) = columns.iter().position(|other| other == column) else {
            // The delimiter with the most cells is the most likely one.
            let all = DELIMITERS.iter().filter_map(|delimiter| header(*delimiter).ok());
            let columns = all.max_by_key(Vec::len).unwrap_or(columns);
            return Err(no_column(name, column, &columns));
        };
        Ok(Self { cells, columns: columns.len(), column: found })
    }

    /// The text of the next row; None at the end.
    fn text(&mut self) -> Result<Option<String>> {
        loop {
            if interrupt_requested() {
                return Err(Error::interrupted());
            }
            let (mut text, mut count) = (None, 0);
            loop {
                let Some(cell) = self.cells.next(count == self.column)? else { return Ok(None) };
                if count >= self.columns && !cell.empty {
                    let problem = format!("more cells than the {} of the header", self.columns);
                    return Err(self.cells.damaged(cell.line, &problem).hint(
                        "a text with delimiters or line ends stands in quotes; quotes in it are written twice: \"\"",
                    ));
                }
                if count == self.column {
                    text = Some(cell.bytes);
                }
                count += 1;
                if cell.last_of_row {
                    break;
                }
            }
            let Some(text) = text else { continue };
            let text = String::from_utf8(text).map_err(|_| not_text(&self.cells.name))?;
            if !MISSING.contains(&text.as_str()) {
                return Ok(Some(text));
            }
        }
    }
}

impl Iterator for Texts {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.text().transpose()
    }
}
