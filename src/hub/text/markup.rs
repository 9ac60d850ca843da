//! Texts that are not plain text: markup, archives of web pages and the kinds of `records.rs`,
//! recognised by their beginnings and names.

use super::records::{Kind, RECORDS, by_nothing};
use crate::hub::file_name::{Name, PLAIN};

const PAGE: &str = "was a page saved in place of the file? fetch the file itself, or extract the text; \
                    format: \"text\" reads the markup as it is";
const EXTRACT: &str = "extract its texts first, such as to JSON Lines; format: \"text\" reads the markup as it is";
const ARCHIVE: &str = "extract the texts of its records first, such as to JSON Lines with the Python package warcio; \
                       format: \"text\" reads it with all headers";

const KINDS: &[Kind] = &[
    Kind {
        what: "a web page (HTML)",
        begins: &["<!doctype html"],
        elements: &["html", "head", "body", "meta", "title", "link", "script", "style", "base"],
        tells: by_nothing,
        endings: &["html", "htm", "xhtml", "shtml", "xht"],
        advice: PAGE,
    },
    Kind {
        what: "a saved web page (MHTML)",
        begins: &["from: <saved by ", "from: \"saved by "],
        elements: &[],
        tells: by_nothing,
        endings: &["mhtml", "mht"],
        advice: PAGE,
    },
    Kind {
        what: "an archive of web pages (WARC)",
        begins: &["warc/", "filedesc://"],
        elements: &[],
        tells: by_nothing,
        endings: &["warc", "wet", "wat"],
        advice: ARCHIVE,
    },
    Kind {
        what: "an image (SVG)",
        begins: &["<!doctype svg"],
        elements: &["svg"],
        tells: by_nothing,
        endings: &["svg"],
        advice: EXTRACT,
    },
    Kind {
        what: "XML",
        begins: &["<?xml"],
        elements: &["mediawiki", "rss", "feed", "tei", "teicorpus", "urlset"],
        tells: by_nothing,
        endings: &[
            "xml", "rss", "atom", "tei", "nxml", "fb2", "xsl", "xslt", "xsd", "tmx", "xlf", "xliff", "ttml", "rdf",
            "owl",
        ],
        advice: EXTRACT,
    },
    Kind {
        what: "markup (SGML)",
        begins: &["<!doctype"],
        elements: &[],
        tells: by_nothing,
        endings: &["sgml", "sgm"],
        advice: EXTRACT,
    },
];
/// Markup of an unknown kind.
const OTHER: Kind =
    Kind { what: "markup", begins: &["<!--"], elements: &[], tells: by_nothing, endings: &[], advice: EXTRACT };
/// Endings of texts in which HTML comments and elements are usual.
const WITH_HTML: &[&str] = &["md", "markdown", "mdx"];

/// The kind of the file `name` with this beginning, if it is no plain text. The beginning of a
/// table or of JSON tells no records.
pub(crate) fn of(name: &Name, head: &[u8]) -> Option<&'static Kind> {
    let head = String::from_utf8_lossy(head);
    let begin = head.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let lower: String = begin.chars().take(40).map(|c| c.to_ascii_lowercase()).collect();
    let begins = |kind: &Kind| kind.begins.iter().any(|begin| lower.starts_with(begin));
    let element = element(begin);
    let begun = KINDS.iter().find(|kind| {
        begins(kind) || element.as_ref().is_some_and(|element| kind.elements.contains(&element.name.as_str()))
    });
    let recorded = || RECORDS.iter().find(|kind| !name.is_of_documents() && (begins(kind) || (kind.tells)(begin)));
    let other = || {
        let any = begins(&OTHER) || element.as_ref().is_some_and(|element| element.has_attribute);
        (any && !WITH_HTML.contains(&name.ending())).then_some(&OTHER)
    };
    // A file saved as "page.html.txt" is a web page, too.
    let called = || {
        let ending = name.endings.iter().rev().find(|ending| !is_appended(ending))?;
        KINDS.iter().chain(RECORDS).find(|kind| kind.endings.contains(&ending.as_str()))
    };
    begun.or_else(recorded).or_else(called).or_else(other)
}

/// True for an ending that people and programs append to the name of a file.
fn is_appended(ending: &str) -> bool {
    PLAIN.contains(&ending)
        || ["gz", "gzip", "zst", "zstd", "bak", "old", "orig", "part"].contains(&ending)
        || ending.bytes().all(|byte| byte.is_ascii_digit())
}

/// The beginning of an element: `<name …`.
struct Element {
    /// The name in lower case.
    name: String,
    /// True if an attribute with a quoted value follows the name.
    has_attribute: bool,
}

/// The first element of a text. Angle brackets around words (`<s>`, `<John> Hello`) look like one
/// without attributes.
fn element(text: &str) -> Option<Element> {
    let in_name = |c: char| c.is_alphanumeric() || ":-_.".contains(c);
    let inner = text.strip_prefix('<')?;
    let end = inner.find(|c| !in_name(c))?;
    let (name, rest) = inner.split_at(end);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !rest.starts_with(|c: char| c.is_whitespace() || ">/".contains(c))
    {
        return None;
    }
    let attribute = rest.trim_start();
    let value = attribute.trim_start_matches(in_name).trim_start();
    let quoted = value.strip_prefix('=').is_some_and(|value| value.trim_start().starts_with(['"', '\'']));
    let has_attribute = quoted && attribute.starts_with(in_name) && attribute.len() < rest.len();
    Some(Element { name: name.to_ascii_lowercase(), has_attribute })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(name: &str, head: &str) -> Option<&'static str> {
        of(&Name::of(name), head.as_bytes()).map(|kind| kind.what)
    }

    #[test]
    fn markup_is_told_by_its_beginning() {
        for (head, expected) in [
            ("<!-- saved from url=(0022)https://x -->", Some("markup")),
            ("\u{feff}\n <head><meta charset=\"utf-8\">", Some("a web page (HTML)")),
            ("<META name=x>", Some("a web page (HTML)")),
            ("<!DOCTYPE HTML PUBLIC>", Some("a web page (HTML)")),
            ("<!DOCTYPE lewis SYSTEM \"lewis.dtd\">", Some("markup (SGML)")),
            ("<mediawiki xmlns=\"http://x\">", Some("XML")),
            ("<svg/>", Some("an image (SVG)")),
            ("<doc id='12' url='x'>", Some("markup")),
            ("<tei:text\n  n = \"1\">", Some("markup")),
            ("WARC/1.0\r\nWARC-Type: conversion", Some("an archive of web pages (WARC)")),
            ("From: <Saved by Blink>\r\n", Some("a saved web page (MHTML)")),
            ("<s> To be", None),
            ("<John> Hello, x=\"1\"", None),
            ("<|endoftext|>", None),
            ("<-- see=\"above\"", None),
            ("<header> 5 < 6", None),
            ("< html", None),
            ("From: John", None),
            ("", None),
        ] {
            assert_eq!(what("t", head), expected, "{head}");
        }
        assert_eq!(what("README.md", "<!-- a comment -->\n# Title"), None);
        assert_eq!(what("README.md", "<p align=\"center\">"), None);
        assert_eq!(what("README.md", "<!doctype html>"), Some("a web page (HTML)"));
    }

    #[test]
    fn markup_is_told_by_its_name() {
        for (name, expected) in [
            ("a/t.HTML", Some("a web page (HTML)")),
            ("t.html.gz", Some("a web page (HTML)")),
            ("t.html.txt", Some("a web page (HTML)")),
            ("t.htm.1", Some("a web page (HTML)")),
            ("t.xml.txt.zst", Some("XML")),
            ("t.warc.wet.gz", Some("an archive of web pages (WARC)")),
            ("xml/t.txt", None),
            ("xml.txt", None),
            ("about.html.notes", None),
        ] {
            assert_eq!(what(name, "To be"), expected, "{name}");
        }
    }
}
