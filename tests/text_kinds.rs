//! Tests of texts of other kinds than prose, which were measured with their marks, keys and times:
//! each is read as what it is, or refused with a sentence that says what to do.

use serde_json::{Value, json};

use crate::project::Project;

/// Exit codes of a script that is wrong, and of a file that cannot be read.
const SCRIPT: i32 = 1;
const FAILED: i32 = 3;
const PROSE: &str = "To be, or not to be: that is the question, whether 'tis nobler in the mind to suffer.";
const OTHER: &str = "Or to take arms against a sea of troubles, and by opposing end them: to die, to sleep.";

fn load(name: &str, options: &str) -> String {
    format!(
        "let model = load_model(\"model\");
         print(load_tokens(#{{ text: \"{name}\", model: model, {options} windows: \"tokens\", num_sequences: 2, sequence_length: 12 }})
             .ids.to_json());"
    )
}

fn project(name: &str, data: impl AsRef<[u8]>) -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project.file(name, data);
    project
}

fn ids(name: &str, data: impl AsRef<[u8]>, options: &str) -> Value {
    project(name, data).script(&load(name, options)).json()
}

/// The ids of two documents.
fn expected() -> Value {
    ids("t.txt", format!(" {PROSE} {OTHER}"), "")
}

#[track_caller]
fn reads(name: &str, data: impl AsRef<[u8]>, options: &str) {
    assert_eq!(ids(name, data, options), expected(), "{name}");
}

#[track_caller]
fn refuses(name: &str, data: impl AsRef<[u8]>, code: i32, message: &str, hint: &str) {
    project(name, data).refuses(&load(name, ""), code, message, hint);
}

/// Refused, and read as it is on demand.
#[track_caller]
fn is_asked_about(name: &str, data: impl AsRef<[u8]>, what: &str) {
    let project = project(name, data);
    project.refuses(&load(name, ""), FAILED, &format!("{name} is {what}"), "format: \"text\"");
    project.script(&load(name, "format: \"text\",")).ok();
}

#[test]
fn json_text_sequences_are_no_plain_text() {
    let record = |text: &str| format!("\u{1e}{}\n", json!({ "n": 1, "text": text }));
    let pretty = |text: &str| format!("\u{1e}{}\n", serde_json::to_string_pretty(&json!({ "text": text })).unwrap());
    let [lines, several] = [[record(PROSE), record(OTHER)].concat(), [pretty(PROSE), pretty(OTHER)].concat()];
    for data in [&lines, &several] {
        for name in ["t", "t.json", "t.jsonl", "t.json-seq", "t.dump"] {
            reads(name, data, "");
        }
        reads("t.txt", data, "format: \"json\",");
        refuses("t.txt", data, SCRIPT, "begins like JSON", "format: \"json\"");
    }
    // Marks twice, and blanks in front of them.
    reads("t.json", lines.replace('\u{1e}', " \u{1e}\u{1e}"), "");
    let random = "shuffle: true, seed: 5,";
    let of = |data: &str| ids("t.jsonl", data, random);
    assert_eq!(of(&lines), of(&lines.replace('\u{1e}', "")));
    // A mark in front of prose is a character like any other.
    assert_eq!(ids("t", format!("\u{1e}{PROSE}"), ""), ids("t", format!("\u{1e}{PROSE}"), "format: \"text\","));
}

#[test]
fn a_text_on_each_line_of_json_is_read() {
    let lines = format!("{}\n{}\n", json!(PROSE), json!(OTHER));
    for name in ["t.json", "t.jsonl"] {
        reads(name, &lines, "");
        reads(name, format!("null\n{}\n  {}\r\nnull\n", json!(PROSE), json!(OTHER)), "");
    }
    reads("t.txt", &lines, "format: \"json\",");
    let project = project("t.jsonl", &lines);
    project.refuses(&load("t.jsonl", "column: \"body\","), FAILED, "a text without a key", "leave `column` out");
}

/// Texts of the first array were read, and the others reported when they were reached.
#[test]
fn an_array_on_each_line_is_told_before_anything_is_read() {
    let lines = format!("{}\n{}\n", json!([PROSE, "a"]), json!([OTHER, "b"]));
    for name in ["t.json", "t.jsonl", "t", "t.dump"] {
        refuses(name, &lines, FAILED, "has several arrays in it", "jq -c '{text: .[0]}'");
    }
    refuses("t.txt", &lines, SCRIPT, "begins like JSON", "format: \"json\"");
}

#[test]
fn objects_as_python_prints_them_are_no_plain_text() {
    let lines = format!("{{'text': \"{PROSE}\", 'n': None}}\n{{'text': 'a'}}\n");
    for data in [lines.clone(), format!("[{}]", lines.trim().replace('\n', ", "))] {
        for name in ["t.txt", "t", "t.json", "t.jsonl", "t.csv"] {
            refuses(name, &data, FAILED, "objects as Python prints them", "json.dumps(row)");
        }
        project("t.txt", &data).script(&load("t.txt", "format: \"text\",")).ok();
    }
    let text = format!("{{'Tis nobler}} {PROSE} {OTHER}");
    assert_eq!(ids("t.txt", &text, ""), ids("t.txt", &text, "format: \"text\","));
}

#[test]
fn kinds_of_records_are_told_by_their_names() {
    for (name, what) in [
        ("t.srt", "a file of subtitles (SRT)"),
        ("t.en.vtt", "a file of subtitles (WebVTT)"),
        ("t.ass", "a file of subtitles"),
        ("t.conllu", "a corpus with annotations (CoNLL)"),
        ("t.CONLL", "a corpus with annotations (CoNLL)"),
        ("t.mbox", "a mailbox (mbox)"),
        ("t.eml", "a message (e-mail)"),
        ("t.arff", "a table (ARFF)"),
        ("t.libsvm", "a table of numbers (LIBSVM)"),
        ("t.yaml", "YAML"),
        ("t.yml.txt", "YAML"),
        ("t.toml", "TOML"),
        ("t.ris", "a list of references (RIS)"),
        ("t.bib", "a list of references (BibTeX)"),
        ("t.vcf", "a file of contacts or of genetic variants (VCF)"),
        ("t.ics", "a calendar (iCalendar)"),
        ("t.po", "a file of translations (gettext)"),
        ("t.ttl", "a graph (RDF)"),
        ("t.fasta", "a file of sequences (FASTA)"),
        ("t.tmx", "XML"),
    ] {
        is_asked_about(name, PROSE, what);
    }
}

#[test]
fn kinds_of_records_are_told_by_their_beginnings() {
    for (begin, what) in [
        ("1\n00:00:01,000 --> 00:00:04,000\n", "a file of subtitles (SRT)"),
        ("\u{feff}WEBVTT\n\n00:01.000 --> 00:04.000\n", "a file of subtitles (WebVTT)"),
        ("# sent_id = 1\n# text = To be\n1\tTo\tto\n", "a corpus with annotations (CoNLL)"),
        ("From a@example.org Fri Jul  8 12:08:34 2011\n\n", "a mailbox (mbox)"),
        ("Message-ID: <1@example.org>\nFrom: a@example.org\n\n", "a message (e-mail)"),
        ("@RELATION plays\n@ATTRIBUTE text string\n@DATA\n", "a table (ARFF)"),
        ("+1 1:0.5 7:1\n-1 2:0.25 3:1\n", "a table of numbers (LIBSVM)"),
        ("@article{hamlet,\n  abstract = {", "a list of references (BibTeX)"),
        ("TY  - JOUR\nAB  - ", "a list of references (RIS)"),
        ("BEGIN:VCARD\nNOTE:", "a file of contacts"),
        ("-- MySQL dump 10.13\n\nINSERT INTO page VALUES (1, '", "a dump of a database (SQL)"),
    ] {
        for name in ["t", "t.txt", "t.dump"] {
            is_asked_about(name, format!("{begin}{PROSE}\n{OTHER}"), what);
        }
    }
}

#[test]
fn tables_under_names_that_say_nothing_are_asked_about() {
    let row = |text: &str| text.replace([',', ':'], "");
    let plain = ids("t.tsv", format!("text\n{}\n{}\n", row(PROSE), row(OTHER)), "");
    for delimiter in ["\t", ",", ";", "|"] {
        let table = format!("n{delimiter}text\n1{delimiter}{}\n2{delimiter}{}\n", row(PROSE), row(OTHER));
        for name in ["t.dat", "t.data"] {
            let project = project(name, &table);
            let message = format!("load_tokens: {name} looks like a table");
            project.refuses(&load(name, ""), SCRIPT, &message, "`column` names the column");
            assert_eq!(project.script(&load(name, "column: \"text\",")).json(), plain, "{name} {delimiter}");
            assert_ne!(project.script(&load(name, "format: \"text\",")).json(), plain, "{name}");
        }
    }
    let prose = format!("{PROSE}\n\n{OTHER} {OTHER}\n{PROSE} And so on\n");
    assert_eq!(ids("t.dat", &prose, ""), ids("t.dat", &prose, "format: \"text\","));
}

#[test]
fn several_byte_order_marks_are_no_tokens() {
    let marks = "\u{feff}\u{feff}\u{feff}";
    let lines = format!("{}\n{}\n", json!({ "text": PROSE }), json!({ "text": OTHER }));
    reads("t.jsonl", format!("{marks}{lines}"), "");
    reads("t.txt", format!("{marks} {PROSE} {OTHER}"), "");
    let random = "shuffle: true, seed: 5,";
    assert_eq!(ids("t.jsonl", format!("{marks}{lines}"), random), ids("t.jsonl", lines, random));
}
