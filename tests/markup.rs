//! Tests of markup, archives of pages, and tables with names of texts: none of them is measured as
//! plain text unless the user asks for it.

use std::io::Write;

use crate::project::Project;

/// Exit codes of a script that is wrong, and of a file that cannot be read.
const SCRIPT: i32 = 1;
const FAILED: i32 = 3;
const PROSE: &str = "To be, or not to be: that is the question, whether 'tis nobler in the mind to suffer.";

fn load(name: &str, options: &str) -> String {
    format!(
        "let model = load_model(\"model\");
         print(load_tokens(#{{ text: \"{name}\", model: model, {options} num_sequences: 1, sequence_length: 8 }}).ids.to_json());"
    )
}

fn project(name: &str, data: impl AsRef<[u8]>) -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project.file(name, data);
    project
}

#[track_caller]
fn is_asked_about(name: &str, data: impl AsRef<[u8]>, what: &str) {
    let project = project(name, data);
    project.refuses(&load(name, ""), FAILED, &format!("{name} is {what}"), "format: \"text\"");
    project.script(&load(name, "format: \"text\",")).ok();
}

fn gzip(data: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &str) -> Vec<u8> {
    zstd::bulk::compress(data.as_bytes(), 3).unwrap()
}

#[test]
fn markup_is_not_measured_as_plain_text_whatever_its_name() {
    for (begin, what) in [
        ("<mediawiki xmlns=\"http://www.mediawiki.org/xml/export-0.11/\">\n", "XML"),
        ("<!-- saved from url=(0022)https://example.org/ -->\n<p>", "markup"),
        ("\u{feff}\n\t <head><meta charset=\"utf-8\"><title>", "a web page (HTML)"),
        ("<meta charset=\"utf-8\">", "a web page (HTML)"),
        ("<!DOCTYPE lewis SYSTEM \"lewis.dtd\">\n", "markup (SGML)"),
        ("<svg width=\"9\">", "an image (SVG)"),
        ("<doc id=\"12\" url=\"https://example.org/\">\n", "markup"),
        ("WARC/1.0\r\nWARC-Type: conversion\r\n\r\n", "an archive of web pages (WARC)"),
        ("From: <Saved by Blink>\r\nMIME-Version: 1.0\r\n\r\n", "a saved web page (MHTML)"),
    ] {
        let data = format!("{begin}{PROSE}");
        for name in ["t", "t.txt", "t.dump"] {
            is_asked_about(name, &data, what);
        }
        is_asked_about("t.txt.gz", gzip(&data), what);
        is_asked_about("t.zst", zstd(&data), what);
    }
}

#[test]
fn names_of_markup_are_not_measured_as_plain_text() {
    for (name, what) in [
        ("t.xml", "XML"),
        ("t.svg", "an image (SVG)"),
        ("t.html", "a web page (HTML)"),
        ("T.HTM", "a web page (HTML)"),
        ("t.xhtml", "a web page (HTML)"),
        ("t.mhtml", "a saved web page (MHTML)"),
        ("t.warc", "an archive of web pages (WARC)"),
        ("t.warc.wet", "an archive of web pages (WARC)"),
        ("t.sgm", "markup (SGML)"),
        ("t.html.txt", "a web page (HTML)"),
        ("t.xml.1.txt", "XML"),
    ] {
        is_asked_about(name, PROSE, what);
        is_asked_about(&format!("{name}.gz"), gzip(PROSE), what);
        is_asked_about(&format!("{name}.zst"), zstd(PROSE), what);
    }
}

#[test]
fn texts_that_only_look_like_markup_stay_texts() {
    let ids = |name: &str, text: &str, options: &str| project(name, text).script(&load(name, options)).ok();
    for (name, begin) in [
        ("t.txt", "<s> "),
        ("t.txt", "<John> a=\"1\" "),
        ("t", "<|endoftext|>"),
        ("t", "< html > "),
        ("t.xml-notes", ""),
        ("html/t.txt", ""),
        ("README.md", "<!-- a comment -->\n"),
        ("README.md", "<p align=\"center\">\n"),
    ] {
        let text = format!("{begin}{PROSE}");
        assert_eq!(ids(name, &text, ""), ids(name, &text, "format: \"text\","), "{name}");
    }
}

#[test]
fn tables_under_other_names_are_not_measured_as_plain_text() {
    let rows = |delimiter: &str| {
        format!("n{delimiter}words\n1{delimiter}{PROSE}\n").replace("be, or", "be or").replace("ion, wh", "ion wh")
    };
    let plain = project("t.csv", rows(",")).script(&load("t.csv", "column: \"words\",")).ok();
    for (name, delimiter) in [
        ("t.csv.txt", ","),
        ("t.tsv.bak", "\t"),
        ("t.psv.1", "|"),
        ("t.CSV.part", ","),
        ("t.csv.txt", "|"),
        ("t.psv", "|"),
    ] {
        let project = project(name, rows(delimiter));
        assert_eq!(project.script(&load(name, "column: \"words\",")).ok(), plain, "{name}");
        if name != "t.psv" {
            let message = format!("{name} has \".{}\" in its name, but not at its end", &name[2..5].to_lowercase());
            project.refuses(&load(name, ""), SCRIPT, &message, "`column` names the column");
            project.refuses(&load(name, ""), SCRIPT, &message, "format: \"text\"");
        }
        assert_ne!(project.script(&load(name, "format: \"text\",")).ok(), plain, "{name}");
    }
    project("t.psv", rows("|")).refuses(
        &load("t.psv", ""),
        FAILED,
        "no column \"text\"; there are `n`, `words`",
        "`column`",
    );
}

#[test]
fn an_error_in_json_names_one_line() {
    let hint = "every line is a JSON object";
    let refuses = |name: &str, text: &str, message: &str, hint: &str| {
        let project = project(name, text);
        project.refuses(&load(name, ""), FAILED, message, hint);
        assert!(!project.script(&load(name, "")).stderr.contains(" at line "), "{text}");
    };
    let message = "reading t.jsonl, line 3: EOF while parsing a string (column 13)";
    refuses("t.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\n{\"text\": \"abc\n", message, hint);
    let message = "reading t.json, line 6: expected `,` or `}` (column 2)";
    refuses("t.json", "{\n\"text\":\"a\"}\n\n{\n \"text\": \"b\"\n \"c\": 1}\n", message, hint);
    let message = "reading t.json, item 2 of the array: expected value (column 10 of it)";
    refuses("t.json", "[{\"text\":\"a\"},\n{\"text\": x}]", message, "an array of texts");
}
