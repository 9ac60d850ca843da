//! Texts in which records, annotations or settings stand around the words: subtitles, annotated
//! corpora, mail, references and others. `markup.rs` decides with this table and its own.

/// A kind of text that is no plain text.
pub(crate) struct Kind {
    /// The name, as in "x.srt is a file of subtitles".
    pub what: &'static str,
    /// Beginnings of such files after whitespace, in lower case.
    pub begins: &'static [&'static str],
    /// First elements of such files, in lower case.
    pub elements: &'static [&'static str],
    /// True for the beginning of such a file, after whitespace.
    pub tells: fn(&str) -> bool,
    /// Endings of their names.
    pub endings: &'static [&'static str],
    pub advice: &'static str,
}

const WORDS: &str = "write the words that are spoken to a plain text or to JSON Lines first; format: \"text\" reads it as it is, with all times";
const SENTENCES: &str = "join the tokens of each sentence to a text first, such as in JSON Lines; format: \"text\" reads it as it is, \
                         with all annotations";
const MESSAGES: &str = "extract the texts of its messages first, such as to JSON Lines with `mailbox` and `email` of Python; \
                        format: \"text\" reads it as it is, with all headers";
const TABLE: &str = "write its texts to a CSV or JSON Lines file; format: \"text\" reads it as it is";
const VALUES: &str = "write its texts to a JSON or JSON Lines file, such as with `yq -o json`; format: \"text\" reads it as it is, with \
                      all keys";
const FIELDS: &str = "write the texts of its records to a JSON Lines or CSV file; format: \"text\" reads it as it is, with the names of \
                      all fields";
const ROWS: &str = "write its texts to a Parquet, JSON Lines or CSV file, such as with COPY or SELECT … INTO OUTFILE; format: \"text\" \
                    reads it as it is, with all statements";

/// The kinds of this file.
pub(super) const RECORDS: &[Kind] = &[
    kind("a file of subtitles (SRT)", &[], &["srt"], WORDS).told_by(is_srt),
    kind("a file of subtitles (WebVTT)", &["webvtt"], &["vtt"], WORDS),
    kind("a file of subtitles", &["[script info]"], &["ass", "ssa", "sbv", "lrc"], WORDS),
    kind(
        "a corpus with annotations (CoNLL)",
        &["# sent_id", "# newdoc", "# global.columns", "# newpar", "# text =", "-docstart- "],
        &["conllu", "conll", "conllx", "conllup", "iob", "iob2"],
        SENTENCES,
    )
    .told_by(is_conll),
    kind("a mailbox (mbox)", &[], &["mbox", "mbx"], MESSAGES).told_by(is_mailbox),
    kind(
        "a message (e-mail)",
        &["return-path: <", "received: from ", "delivered-to: ", "message-id: <", "mime-version: 1.0"],
        &["eml", "emlx"],
        MESSAGES,
    ),
    kind("a table (ARFF)", &["@relation "], &["arff"], TABLE),
    kind("a table of numbers (LIBSVM)", &[], &["libsvm", "svmlight", "svm"], TABLE).told_by(is_libsvm),
    kind("YAML", &["%yaml "], &["yaml", "yml"], VALUES),
    kind("TOML", &[], &["toml"], VALUES),
    kind(
        "a list of references (BibTeX)",
        &["@article{", "@inproceedings{", "@book{", "@incollection{", "@misc{", "@phdthesis{", "@techreport{"],
        &["bib", "bibtex"],
        FIELDS,
    ),
    kind("a list of references (RIS)", &["ty  - "], &["ris", "enw", "nbib"], FIELDS),
    kind(
        "a file of contacts or of genetic variants (VCF)",
        &["begin:vcard", "##fileformat=vcf"],
        &["vcf", "vcard"],
        FIELDS,
    ),
    kind("a calendar (iCalendar)", &["begin:vcalendar"], &["ics", "ical"], FIELDS),
    kind("a file of translations (gettext)", &["msgid \""], &["po", "pot"], FIELDS),
    kind("a file of sequences (FASTA)", &[], &["fasta", "fastq"], FIELDS),
    kind("a graph (RDF)", &["@prefix "], &["nt", "nq", "ttl", "n3"], FIELDS),
    kind(
        "a dump of a database (SQL)",
        &[
            "-- mysql dump",
            "-- mariadb dump",
            "-- postgresql database dump",
            "--\n-- postgresql database dump",
            "pragma foreign_keys=off",
        ],
        &[],
        ROWS,
    ),
];

const fn kind(
    what: &'static str,
    begins: &'static [&'static str],
    endings: &'static [&'static str],
    advice: &'static str,
) -> Kind {
    Kind { what, begins, elements: &[], tells: by_nothing, endings, advice }
}

/// For kinds that only a fixed beginning or the name tells.
pub(super) fn by_nothing(_: &str) -> bool {
    false
}

impl Kind {
    const fn told_by(mut self, tells: fn(&str) -> bool) -> Self {
        self.tells = tells;
        self
    }
}

/// A number alone on the first line, and two times on the second.
fn is_srt(begin: &str) -> bool {
    let mut lines = begin.lines();
    let number = lines.next().is_some_and(|line| line.trim().parse::<u32>().is_ok());
    let is_time = |text: &str| {
        let (mut parts, last) =
            (text.trim().split(':'), |part: &str| part.chars().all(|c| c.is_ascii_digit() || ",.".contains(c)));
        parts.clone().count() == 3 && parts.all(|part| !part.is_empty() && last(part))
    };
    let second = lines.next().and_then(|line| line.split_once("-->"));
    // Coordinates may follow the second time.
    number
        && second.is_some_and(|(from, to)| is_time(from) && is_time(to.split_whitespace().next().unwrap_or_default()))
}

/// A token on each line: its number, the token and more in ten columns with tabs between them.
fn is_conll(begin: &str) -> bool {
    let row = |(index, line): (usize, &str)| {
        let mut cells = line.split('\t');
        cells.next() == Some((index + 1).to_string().as_str()) && cells.count() == 9
    };
    begin.lines().take(2).filter(|line| !line.is_empty()).count() == 2 && begin.lines().take(2).enumerate().all(row)
}

/// "From", an address and a date that begins with the day of the week.
fn is_mailbox(begin: &str) -> bool {
    let mut words = begin.lines().next().unwrap_or_default().split_whitespace();
    let day = |word: &str| ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].contains(&word);
    begin.starts_with("From ") && words.nth(2).is_some_and(day)
}

/// Two lines of a number and pairs of a number and a value.
fn is_libsvm(begin: &str) -> bool {
    let is_pair = |word: &str| {
        let pair = word.split_once(':');
        pair.is_some_and(|(index, value)| index.parse::<u32>().is_ok() && value.parse::<f64>().is_ok())
    };
    let is_row = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|label| label.parse::<f64>().is_ok())
            && words.clone().count() >= 2
            && words.all(is_pair)
    };
    let mut lines = begin.lines().filter(|line| !line.trim().is_empty());
    lines.next().is_some_and(is_row) && lines.next().is_some_and(is_row)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kind that the beginning tells.
    fn told(begin: &str) -> Option<&'static str> {
        let lower = begin.to_ascii_lowercase();
        let is_it = |kind: &&Kind| (kind.tells)(begin) || kind.begins.iter().any(|begin| lower.starts_with(begin));
        RECORDS.iter().find(is_it).map(|kind| kind.what)
    }

    #[test]
    fn records_are_told_by_their_beginning() {
        for (begin, expected) in [
            ("1\n00:00:01,000 --> 00:00:04,074\nTo be\n", Some("a file of subtitles (SRT)")),
            ("1\r\n00:00:01.0 --> 00:00:04.1 X1:1\r\nTo be\r\n", Some("a file of subtitles (SRT)")),
            ("WEBVTT\n\n00:01.000 --> 00:04.000\nTo be\n", Some("a file of subtitles (WebVTT)")),
            ("# sent_id = 1\n# text = To be\n", Some("a corpus with annotations (CoNLL)")),
            (
                "1\tTo\tto\tPART\tTO\t_\t2\tmark\t_\t_\n2\tbe\tbe\tAUX\tVB\t_\t0\troot\t_\t_\n",
                Some("a corpus with annotations (CoNLL)"),
            ),
            ("-DOCSTART- -X- -X- O\n", Some("a corpus with annotations (CoNLL)")),
            ("From x@example.org Fri Jul  8 12:08:34 2011\nSubject: a\n", Some("a mailbox (mbox)")),
            ("Return-Path: <x@example.org>\n", Some("a message (e-mail)")),
            ("@RELATION iris\n", Some("a table (ARFF)")),
            ("+1 1:0.5 7:1\n-1 2:0.25 3:1e-3\n", Some("a table of numbers (LIBSVM)")),
            ("@article{hamlet,\n", Some("a list of references (BibTeX)")),
            ("TY  - JOUR\n", Some("a list of references (RIS)")),
            ("BEGIN:VCALENDAR\r\n", Some("a calendar (iCalendar)")),
            // Prose.
            ("1\nTo be, or not to be\n", None),
            ("1\nfrom 1:2:3 --> on", None),
            ("1\tTo be\n2\tor not\n", None),
            ("From hence the Friday", None),
            ("From John to Fritz", None),
            ("1 1:1 In the beginning\n2 1:2 And the earth\n", None),
            ("12 1:30 2:45\n", None),
            ("@hamlet to be", None),
            ("# Text\n", None),
            ("", None),
        ] {
            assert_eq!(told(begin), expected, "{begin}");
        }
    }
}
