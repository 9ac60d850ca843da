//! File names, as far as they indicate a format.

/// Endings of plain texts. If such a file looks like another format, the user is asked about it.
pub(super) const PLAIN: &[&str] = &["txt", "text", "md", "markdown", "rst", "log", "tex"];

/// Endings of JSON: one value, or one per line.
pub(super) const JSON: &[&str] = &["json"];
pub(super) const JSON_LINES: &[&str] = &["jsonl", "ndjson", "jsonlines", "json-seq", "jsonseq"];
/// Endings that say nothing, of tables as well as of other files.
pub(super) const UNCLEAR: &[&str] = &["dat", "data"];
/// Endings of tables with their delimiters. If they occur within a name, the user is asked about
/// it.
const TABLES: &[(&str, u8)] =
    &[("csv", b','), ("tsv", b'\t'), ("tab", b'\t'), ("psv", b'|'), ("ssv", b';'), ("dsv", b',')];

/// The delimiter of a table whose name has this ending.
pub(super) fn delimiter(ending: &str) -> Option<u8> {
    TABLES.iter().find(|(table, _)| *table == ending).map(|(_, delimiter)| *delimiter)
}

/// The parts of a file name, in lower case.
pub(super) struct Name {
    pub file: String,
    /// Without the ending of a compression that is undone while reading: "x.csv.txt" for
    /// "x.CSV.txt.gz".
    pub unpacked: String,
    /// Its parts after points: "csv" and "txt".
    pub endings: Vec<String>,
}

impl Name {
    pub(super) fn of(path: &str) -> Self {
        let file = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let inner = [".gz", ".gzip", ".zst", ".zstd"].into_iter().find_map(|packed| file.strip_suffix(packed));
        let unpacked = inner.unwrap_or(&file).to_string();
        let endings = unpacked.split('.').skip(1).map(str::to_string).collect();
        Self { file, unpacked, endings }
    }

    /// The last ending, or an empty text for a name without a point.
    pub(super) fn ending(&self) -> &str {
        self.endings.last().map_or("", String::as_str)
    }

    /// True if it indicates JSON or a table.
    pub(super) fn is_of_documents(&self) -> bool {
        let ending = self.ending();
        JSON.contains(&ending) || JSON_LINES.contains(&ending) || delimiter(ending).is_some()
    }
}
