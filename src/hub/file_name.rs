//! The name of a file, as far as it tells a format.

/// Endings of names of plain texts: what looks like another format there is asked about.
pub const PLAIN: &[&str] = &["txt", "text", "md", "markdown", "rst", "log", "tex"];

/// Endings of names of JSON: one value, or one on each line.
pub const JSON: &[&str] = &["json"];
pub const JSON_LINES: &[&str] = &["jsonl", "ndjson", "jsonlines"];
/// Endings of names of tables, and what stands between their cells: within a name they are asked about.
const TABLES: &[(&str, u8)] =
    &[("csv", b','), ("tsv", b'\t'), ("tab", b'\t'), ("psv", b'|'), ("ssv", b';'), ("dsv", b',')];

/// What stands between the cells of a table whose name ends so.
pub fn delimiter(ending: &str) -> Option<u8> {
    TABLES.iter().find(|(table, _)| *table == ending).map(|(_, delimiter)| *delimiter)
}

/// What the name of a file says about it, in small letters.
pub struct Name {
    pub file: String,
    /// Without what a packer adds whose work is undone in reading: "x.csv.txt" for "x.CSV.txt.gz".
    pub unpacked: String,
    /// What stands behind the points of that: "csv" and "txt".
    pub endings: Vec<String>,
}

impl Name {
    pub fn of(path: &str) -> Self {
        let file = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let inner = [".gz", ".gzip", ".zst", ".zstd"].into_iter().find_map(|packed| file.strip_suffix(packed));
        let unpacked = inner.unwrap_or(&file).to_string();
        let endings = unpacked.split('.').skip(1).map(str::to_string).collect();
        Self { file, unpacked, endings }
    }

    /// How it ends: nothing for a name without a point.
    pub fn ending(&self) -> &str {
        self.endings.last().map_or("", String::as_str)
    }

    /// Whether it says that the file is JSON or a table.
    pub fn is_of_documents(&self) -> bool {
        let ending = self.ending();
        JSON.contains(&ending) || JSON_LINES.contains(&ending) || delimiter(ending).is_some()
    }
}
