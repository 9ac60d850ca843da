//! The name of a file, as far as it tells a format.

/// Endings of names of plain texts: what looks like another format there is asked about.
pub const PLAIN: &[&str] = &["txt", "text", "md", "markdown", "rst", "log", "tex"];

/// What the name of a file says about it.
pub struct Name {
    /// What stands behind the points, in small letters and without what a packer adds: "csv" and "txt" for "x.CSV.txt.gz".
    pub endings: Vec<String>,
}

impl Name {
    pub fn of(path: &str) -> Self {
        let file = path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let inner = [".gz", ".gzip", ".zst", ".zstd"].into_iter().find_map(|packed| file.strip_suffix(packed));
        Self { endings: inner.unwrap_or(&file).split('.').skip(1).map(str::to_string).collect() }
    }

    /// How it ends: nothing for a name without a point.
    pub fn ending(&self) -> &str {
        self.endings.last().map_or("", String::as_str)
    }
}
