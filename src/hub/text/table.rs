//! Texts in a column of CSV and similar tables, read as pandas reads them: the first row has the
//! column names, quoted cells may contain delimiters and line ends, and empty cells and the usual
//! spellings of missing values have no text.

use std::io::{BufRead, BufReader};

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

use super::failure::TextFailure;
use super::formats::{no_column, twice};
use super::tabular::DELIMITERS;
use super::text_file::{Bytes, unreadable};
use super::texts::{MAX_DOCUMENT, SLICE, not_text};
use crate::error::{Error, Result};
use crate::outside::shown;
use crate::progress::{interrupt_requested, note};
use crate::words::counted;

/// The largest number of columns.
const MAX_COLUMNS: usize = 65_536;
/// Cells without a text: the `na_values` of pandas' `read_csv`, and so of the CSV files of
/// datasets.
const MISSING: &[&str] = &[
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// What to do where quotes do not fit.
const QUOTES: &str = "a quote within a text in quotes is written twice: \"\"; where quotes are characters like any other, as \
                      usual in TSV, format: \"unquoted\" reads them so";

/// Cells of a stream, one after another.
struct Cells {
    name: String,
    reader: BufReader<Bytes>,
    parser: Reader,
    /// Whether cells may stand in quotes.
    quoting: bool,
    delimiter: u8,
    /// Of the next byte, from 1.
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
    /// Whether it begins and ends with ', without quotes " around it.
    begins: bool,
    ends: bool,
}

/// Where in a cell its next byte stands, for the quotes around it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// In front of its first byte.
    Ahead,
    /// The cell has no quotes around it: those within are part of its text.
    Without,
    Inside,
    /// Behind a quote that closes the cell, unless another one follows at once.
    Closed,
    /// Behind it, and behind blanks.
    Behind,
}

impl Quotes {
    /// Behind one byte more; `None` where a text stands behind the quote that closes.
    fn after(self, byte: u8, delimiter: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Ahead | Self::Closed, b'"') => Self::Inside,
            (Self::Inside, b'"') => Self::Closed,
            (Self::Ahead, _) => Self::Without,
            (Self::Without | Self::Inside, _) => self,
            (Self::Closed | Self::Behind, byte) if byte == delimiter || matches!(byte, b'\r' | b'\n') => self,
            (Self::Closed | Self::Behind, b' ' | b'\t') => Self::Behind,
            (Self::Closed | Self::Behind, _) => return None,
        })
    }
}

impl Cells {
    fn new(name: &str, text: Bytes, delimiter: u8, quoting: bool) -> Self {
        let reader = BufReader::with_capacity(SLICE, text);
        let parser = ReaderBuilder::new().delimiter(delimiter).quoting(quoting).build();
        Self { name: name.to_string(), reader, parser, quoting, delimiter, line: 1, row: 0 }
    }

    /// The next cell, with its bytes only if they are wanted.
    fn next(&mut self, wanted: bool) -> Result<Option<Cell>> {
        let mut cell =
            Cell { bytes: Vec::new(), empty: true, last_of_row: false, line: self.line, begins: false, ends: false };
        let mut output = [0; 4096];
        let (mut begun, mut quotes) = (false, if self.quoting { Quotes::Ahead } else { Quotes::Without });
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
                begun = true;
                let Some(next) = quotes.after(*byte, self.delimiter) else {
                    let problem = match cell.line {
                        line if line == self.line => "text behind the quote that closes a cell".to_string(),
                        line => format!("text behind the quote that closes a cell, which is opened in line {line}"),
                    };
                    return Err(self.damaged(self.line, &problem).hint(QUOTES));
                };
                quotes = next;
                self.line += (*byte == b'\n') as u64;
            }
            self.reader.consume(read);
            if begun {
                self.row += read;
            }
            if self.row > MAX_DOCUMENT {
                return Err(self
                    .damaged(cell.line, &format!("a row of more than {MAX_DOCUMENT} bytes"))
                    .hint(format!("is a quote never closed? {QUOTES}")));
            }
            if let (true, [first, ..]) = (cell.empty, &output[..written]) {
                cell.begins = *first == b'\'' && quotes == Quotes::Without;
            }
            if let [.., last] = &output[..written] {
                cell.ends = *last == b'\'' && quotes == Quotes::Without;
            }
            cell.empty &= written == 0;
            if wanted {
                cell.bytes.extend_from_slice(&output[..written]);
            }
            match result {
                ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => (),
                ReadFieldResult::Field { record_end } => {
                    if ended && quotes == Quotes::Inside {
                        return Err(self.damaged(cell.line, "a quote is opened here and never closed").hint(QUOTES));
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
        Error::of(TextFailure::BadRecord {
            name: self.name.clone(),
            place: format!("line {line}"),
            problem: problem.to_string(),
            hint: None,
        })
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

/// What to do where cells stand in other quotes.
const SINGLE: &str = "quotes around cells are \", and ' is a character like any other: write the file with \" around \
                      texts, as csv.writer of Python and pandas do where nothing else is asked for";

/// The texts of a column.
pub(crate) struct Texts {
    cells: Cells,
    columns: usize,
    column: usize,
    /// Whether the last row has a cell that ' opens and does not close.
    open: bool,
    /// Whether it has been told that a row is short, and that texts stand in '.
    told_short: bool,
    told_single: bool,
}

impl Texts {
    /// Reads the header of the table that begins with `head`. If it has no such column with this
    /// `delimiter`, semicolons, tabs and bars are tried.
    ///
    /// # Errors
    /// `not_found` where there is no column of this name.
    pub(crate) fn open(
        name: &str,
        head: &[u8],
        text: Bytes,
        (delimiter, quoting): (u8, bool),
        column: &str,
    ) -> Result<Self> {
        let beginning = |delimiter: u8| {
            let text = Box::new(std::io::Cursor::new(head.to_vec()));
            Cells::new(name, text, delimiter, quoting)
        };
        let header = |delimiter: u8| beginning(delimiter).header();
        let fits = |delimiter: &u8| header(*delimiter).is_ok_and(|columns| columns.iter().any(|other| other == column));
        let others = DELIMITERS.iter().copied();
        let delimiter = std::iter::once(delimiter).chain(others).find(fits).unwrap_or(delimiter);
        let mut cells = Cells::new(name, text, delimiter, quoting);
        let columns = cells.header()?;
        let Some(found) = columns.iter().position(|other| other == column) else {
            // The delimiter with the most cells is the most likely one.
            let all = DELIMITERS.iter().filter_map(|delimiter| header(*delimiter).ok());
            let columns = all.max_by_key(Vec::len).unwrap_or(columns);
            let error = no_column(name, column, &columns);
            return Err(match head.split(|byte| *byte == b'\n').next() {
                Some(first) if !first.trim_ascii().is_empty() => above(error, &String::from_utf8_lossy(first)),
                _ => error,
            });
        };
        if columns.iter().filter(|other| *other == column).count() > 1 {
            return Err(twice(name, column).hint("give each a name of its own in the first row"));
        }
        let (open, told_short, told_single) = (false, false, false);
        Ok(Self { cells, columns: columns.len(), column: found, open, told_short, told_single })
    }

    /// Tells of a row with too few cells. What is missing is empty, as for pandas.
    ///
    /// # Errors
    /// `corrupt` where it looks like the rest of a text that stands in ', and was cut at an end of
    /// line.
    fn short(&mut self, line: u64, count: usize, is_rest: bool) -> Result<()> {
        let cells = counted(count, "cell");
        if is_rest {
            let problem = format!("{cells} where the header has {}, behind a text that ' opens", self.columns);
            return Err(self.cells.damaged(line, &problem).hint(SINGLE));
        }
        if !self.told_short {
            note(&format!(
                "reading {}, line {line}: a row of {cells} where the header has {}; the missing ones are taken as \
                 empty, and rows like it are not told again",
                self.cells.name, self.columns
            ));
            self.told_short = true;
        }
        Ok(())
    }

    /// Tells of a text that stands in ', which are then part of it.
    fn single(&mut self, line: u64) {
        if !self.told_single {
            let name = &self.cells.name;
            note(&format!(
                "reading {name}, line {line}: a text begins and ends with ', which are part of it; {SINGLE}"
            ));
            self.told_single = true;
        }
    }

    /// The text of the next row; None at the end.
    fn text(&mut self) -> Result<Option<String>> {
        loop {
            if interrupt_requested() {
                return Err(Error::interrupted());
            }
            let (mut text, mut count) = (None, 0);
            let (mut line, mut single, was_open) = (0, false, std::mem::take(&mut self.open));
            loop {
                let Some(cell) = self.cells.next(count == self.column)? else { return Ok(None) };
                if count >= self.columns && !cell.empty {
                    let problem = format!("more cells than the {} of the header", self.columns);
                    return Err(self.cells.damaged(cell.line, &problem).hint(match self.open {
                        true => SINGLE,
                        false => {
                            "a text with delimiters or line ends stands in quotes; quotes in it are written twice: \"\""
                        }
                    }));
                }
                if count == 0 {
                    line = cell.line;
                }
                self.open |= self.cells.quoting && cell.begins && !cell.ends;
                if count == self.column {
                    single = self.cells.quoting && cell.begins && cell.ends && cell.bytes.len() > 1;
                    text = Some(cell.bytes);
                }
                count += 1;
                if cell.last_of_row {
                    break;
                }
            }
            if count < self.columns {
                self.short(line, count, was_open || self.open)?;
            }
            if single {
                self.single(line);
            }
            let Some(text) = text else { continue };
            let text = String::from_utf8(text).map_err(|_| not_text(&self.cells.name))?;
            if !MISSING.contains(&text.as_str()) {
                return Ok(Some(text));
            }
        }
    }
}

/// The error of a table whose first row does not name its columns, where that can be seen of the
/// first line.
fn above(error: Error, first: &str) -> Error {
    let (begins, line) = (|begin: &str| first.trim_start_matches('"').starts_with(begin), shown(first.trim()));
    match (begins("sep="), begins("#")) {
        (true, _) => error
            .hint(format!("remove the first line, {line}, which only Excel knows: the first row names the columns")),
        (_, true) => error.hint(format!("remove the comment, {line}: the first row names the columns")),
        _ => error,
    }
}

impl Iterator for Texts {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.text().transpose()
    }
}
