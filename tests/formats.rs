//! Tests of the formats of text files: each is recognised even if its name does not tell, and
//! nothing else is measured as plain text.
//!
//! What the documents of a file are was looked up with the Python packages datasets 4 and pandas: nulls in JSON, empty cells and
//! NaN in CSV, line ends and quotes in cells.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use crate::fake_hub::cdn::counted;
use crate::fake_hub::{Hub, Model};
use crate::project::Project;
use crate::sshd::Sshd;

/// The exit codes of a script with a mistake, and of a file that cannot be read.
const SCRIPT: i32 = 1;
const FAILED: i32 = 3;
const BOM: &[u8] = b"\xef\xbb\xbf";
const OPTIONS: &str = "num_sequences: 2, sequence_length: 12, windows: \"tokens\"";

fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

fn load(options: &str) -> String {
    format!("let model = load_model(\"model\"); print(load_tokens(#{{ model: model, {options} }}).ids.to_json());")
}

/// Documents that are difficult for formats.
fn documents() -> Vec<String> {
    [
        "To be, or not to be: that is the \"question\".",
        "Whether 'tis nobler; in the mind,\nto suffer {the slings}",
        "[and arrows] of outrageous fortune\\, caf\u{e9} \u{1f600}",
        "or to take arms\tagainst a sea of troubles",
    ]
    .map(str::to_string)
    .to_vec()
}

/// The ids of a stream of these documents, each after a space.
fn ids_of(documents: &[String]) -> Value {
    let project = project();
    project.file("plain.txt", documents.iter().map(|document| format!(" {document}")).collect::<String>());
    project.script(&load(&format!("text: \"plain.txt\", {OPTIONS}"))).json()
}

/// Ids of a file with these contents.
fn ids(name: &str, data: impl AsRef<[u8]>, options: &str) -> Value {
    let project = project();
    project.file(name, data);
    project.script(&load(&format!("text: \"{name}\", {options}{OPTIONS}"))).json()
}

#[track_caller]
fn reads(name: &str, data: impl AsRef<[u8]>, options: &str) {
    assert_eq!(ids(name, data, options), ids_of(&documents()), "{name}");
}

#[track_caller]
fn refuses(name: &str, data: impl AsRef<[u8]>, options: &str, code: i32, message: &str, hint: &str) {
    let project = project();
    project.file(name, data);
    project.refuses(&load(&format!("text: \"{name}\", {options}{OPTIONS}")), code, message, hint);
}

fn lines() -> String {
    documents().iter().map(|text| format!("{}\n", json!({ "text": text, "url": "http://x", "n": [1] }))).collect()
}

fn array() -> String {
    serde_json::to_string_pretty(&documents().iter().map(|text| json!({ "n": 1, "text": text })).collect::<Vec<_>>())
        .unwrap()
}

fn cell(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn csv(delimiter: &str, end: &str) -> String {
    let rows = documents()
        .iter()
        .enumerate()
        .map(|(i, text)| format!("{i}{delimiter}{}{end}", cell(text)))
        .collect::<String>();
    format!("n{delimiter}text{end}{rows}")
}

fn gzip(data: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: impl AsRef<[u8]>) -> Vec<u8> {
    zstd::bulk::compress(data.as_ref(), 3).unwrap()
}

#[test]
fn json_is_not_measured_as_plain_text() {
    reads("lines.json", lines(), "");
    reads("lines.jsonl", lines(), "");
    reads("lines.NDJSON", lines(), "");
    reads("crlf.json", lines().replace('\n', "\r\n"), "");
    reads("gap.json", lines().replace('\n', "\n\n") + "  \n", "");
    reads("array.json", array(), "");
    reads("array.jsonl", array(), "");
    reads("texts.json", serde_json::to_string(&documents()).unwrap(), "");
    let all: String = documents().iter().map(|text| json!({ "text": text }).to_string()).collect();
    reads("touching.json", all, "");
    let pretty =
        |text: &String| serde_json::to_string_pretty(&json!({ "text": text, "more": { "text": "no" } })).unwrap();
    reads("pretty.json", documents().iter().map(pretty).collect::<Vec<_>>().join("\n"), "");
    reads("columns.json", json!({ "text": documents(), "n": [1, 2, 3, 4] }).to_string(), "");
    // As pandas writes a table.
    let numbered: serde_json::Map<String, Value> =
        documents().iter().enumerate().map(|(i, text)| (i.to_string(), json!(text))).collect();
    reads("pandas.json", json!({ "n": { "0": 1 }, "text": numbered }).to_string(), "");
    // As `field` of the library datasets.
    let rows: Vec<Value> = documents().iter().map(|text| json!({ "text": text })).collect();
    let within = json!({ "version": 1, "data": rows });
    reads("within.json", within.to_string(), "column: \"data.text\", ");
    reads("within.json", serde_json::to_string_pretty(&within).unwrap(), "column: \"data.text\", ");
    let nested: String = documents().iter().map(|text| format!("{}\n", json!({ "meta": { "body": text } }))).collect();
    reads("nested.jsonl", nested, "column: \"meta.body\", ");
    // Without a name that says so.
    for name in ["lines", "lines.dump", "lines.corpus"] {
        reads(name, lines(), "");
        reads(name, array(), "");
    }
}

#[test]
fn one_object_longer_than_what_tells_the_format() {
    let text = documents().join(" ").repeat(1000);
    let expected = ids_of(std::slice::from_ref(&text));
    for name in ["one.json", "one.jsonl", "one"] {
        assert_eq!(ids(name, json!({ "text": text }).to_string(), ""), expected, "{name}");
        assert_eq!(ids(name, json!([text]).to_string(), ""), expected, "{name}");
    }
}

#[test]
fn csv_is_not_measured_as_plain_text() {
    reads("t.csv", csv(",", "\n"), "");
    reads("t.csv", csv(",", "\r\n"), "");
    reads("t.csv", csv(",", "\n").trim_end(), "");
    reads("semicolons.csv", csv(";", "\r\n"), "");
    reads("bars.csv", csv("|", "\n"), "");
    reads("t.tsv", csv("\t", "\n"), "");
    reads("t.tab", csv("\t", "\n"), "");
    reads("t.data", csv(",", "\n"), "format: \"csv\", ");
    reads("t.data", csv("\t", "\n"), "format: \"tsv\", ");
    reads("other.csv", csv(",", "\n").replacen("text", "body", 1), "column: \"body\", ");
    // Line ends within a cell are part of its text.
    let expected = ids_of(&["one\r\ntwo three four five six seven eight nine ten eleven twelve".to_string()]);
    let row = "id,text\r\n1,\"one\r\ntwo three four five six seven eight nine ten eleven twelve\"\r\n";
    assert_eq!(ids("ends.csv", row, ""), expected);
}

#[test]
fn rows_of_csv_that_are_not_clear_are_errors() {
    let row = "one two three four five six seven eight nine ten eleven twelve";
    refuses(
        "t.csv",
        format!("n,text\n1,{row}, and more\n"),
        "",
        FAILED,
        "line 2: more cells than the 2 of the header",
        "in quotes",
    );
    refuses(
        "t.csv",
        format!("n,text\n1,{row}\n2,\"{row}\n3,{row}\n"),
        "",
        FAILED,
        "line 3: a quote is opened",
        "written twice",
    );
    // Empty cells behind the last column are harmless.
    let expected = ids_of(&[row.repeat(3)]);
    assert_eq!(ids("t.csv", format!("n,text\n1,{},\n", row.repeat(3)), ""), expected);
    refuses(
        "t.csv",
        "n,text\n1,a\n",
        "column: \"txet\", ",
        FAILED,
        "no column \"txet\"; there are `n`, `text`",
        "did you mean `text`?",
    );
    refuses(
        "t.csv",
        "a;b\n1;x\n",
        "",
        FAILED,
        "reading t.csv: no column \"text\"; there are `a`, `b`",
        "with `column`",
    );
}

#[test]
fn text_behind_a_closing_quote_swallows_no_rows() {
    let row = "one two three four five six seven eight nine ten eleven twelve";
    let open = format!("n\ttext\n1\t\"Quoted {row}\n2\t{row}\n3\t{row} quote\" and more\n");
    let message = "line 4: text behind the quote that closes a cell, which is opened in line 2";
    refuses("t.tsv", &open, "", FAILED, message, "format: \"unquoted\"");
    let said = format!("text\n\"Hello,\" he said: {row}\n");
    for name in ["t.csv", "t.tsv"] {
        refuses(name, &said, "", FAILED, "line 2: text behind the quote that closes a cell", "written twice");
        refuses(
            name,
            format!("\"n\" m\ttext\n1\t{row}\n"),
            "",
            FAILED,
            "line 1: text behind the quote",
            "written twice",
        );
    }
    refuses("t.csv", format!("text\n\"a \\\"b\\\", {row}\"\n"), "", FAILED, "line 2: text behind", "written twice");
    // Blanks are none, and a quote within a cell that does not begin with one is a character.
    let expected = ids_of(&[row.to_string(), format!("a 5\" disk, {row}")]);
    assert_eq!(ids("t.tsv", format!("text\tn\n\"{row}\" \t1\na 5\" disk, {row}\t2\n"), ""), expected);
    // What a program wrote that knows no quotes.
    let expected = ids_of(&[format!("\"Quoted {row}"), row.to_string(), format!("{row} quote\" and more")]);
    for (name, table) in [("t.tsv", open.clone()), ("t.data", open.clone()), ("t.csv", open.replace('\t', ","))] {
        assert_eq!(ids(name, &table, "format: \"unquoted\", "), expected, "{name}");
    }
}

#[test]
fn a_column_that_is_there_twice_is_not_chosen_from() {
    let row = "one two three four five six seven eight nine ten eleven twelve";
    let twice = format!("text,n,text\n{row},1,{row}\n");
    refuses("t.csv", &twice, "", FAILED, "reading t.csv: more than one column is called \"text\"", "a name of its own");
    // Others may be.
    assert_eq!(ids("t.csv", twice.replacen("n,text", "n,n", 1), ""), ids_of(&[row.to_string()]));
    let object = |value: Value| format!("{value}\n");
    for value in [
        json!({ "meta.text": row, "meta": { "text": row } }),
        json!({ "meta": { "text": row }, "meta.text": row }),
        json!({ "a.meta": { "text": row }, "a": { "meta.text": row } }),
    ] {
        let column = if value.get("a").is_some() { "a.meta.text" } else { "meta.text" };
        let message = format!("reading t.jsonl, line 1: two texts under \"{column}\"");
        let options = format!("column: \"{column}\", ");
        refuses("t.jsonl", object(value), &options, FAILED, &message, "leave one of the two out");
    }
    let expected = ids_of(&[row.to_string()]);
    for text in [
        object(json!({ "meta.text": row, "meta": { "text": null } })),
        object(json!({ "meta.text": null, "meta": { "text": row } })),
        // As Python reads a key that is there twice.
        format!("{{\"meta\": {{\"text\": \"x\"}}, \"meta\": {{\"text\": \"{row}\"}}}}\n"),
    ] {
        assert_eq!(ids("t.jsonl", text, "column: \"meta.text\", "), expected);
    }
}

#[test]
fn a_table_without_its_column_says_what_its_first_row_has() {
    let no = "reading t.csv: no column \"text\"";
    let row = "one two three four five six";
    refuses("t.csv", format!("sep=;\ntext;n\n{row};1\n"), "", FAILED, no, "remove the first line, sep=;");
    refuses("t.csv", format!("# made today\ntext,n\n{row},1\n"), "", FAILED, no, "remove the comment, # made today");
    let unusual = "there are `text (en)`, `text/plain`, `50%`, 1 more";
    refuses("t.csv", format!("text (en),text/plain,50%,a=b\n{row},1,2,3\n"), "", FAILED, unusual, "with `column`");
}

#[test]
fn half_of_a_character_is_called_so() {
    for text in [r"\ud83d", r"\ud83d and more", r"\ud83d\u0041", r"\ude00"] {
        let line = format!("{{\"n\": \"\\ud83d\", \"text\": \"{text}\"}}\n");
        let message = "reading t.jsonl, line 1: `\\u` with half of a character (a lone surrogate)";
        refuses("t.jsonl", line, "", FAILED, message, "surrogatepass");
    }
    let whole = r"\ud83d\ude00 one two three four five six seven eight nine ten eleven twelve";
    let expected = ids_of(&[whole.replacen(r"\ud83d\ude00", "\u{1f600}", 1)]);
    // Where nobody reads it, it does not matter.
    assert_eq!(ids("t.jsonl", format!("{{\"n\": \"\\ud83d\", \"text\": \"{whole}\"}}\n"), ""), expected);
}

#[test]
fn packed_files_are_read_by_what_they_are() {
    for pack in [gzip as fn(Vec<u8>) -> Vec<u8>, zstd] {
        for (name, data) in [
            ("t.jsonl.gz", lines()),
            ("t.json.gz", array()),
            ("t.JSON.ZST", array()),
            ("t.csv.zst", csv(",", "\n")),
            ("t.tsv.gz", csv("\t", "\n")),
            ("t.jsonl", lines()),
            ("lines", lines()),
        ] {
            reads(name, pack(data.into_bytes()), "");
        }
        let text: String = documents().iter().map(|document| format!(" {document}")).collect();
        reads("t.txt.gz", pack(text.clone().into_bytes()), "");
        reads("t.txt", pack(text.into_bytes()), "");
        let separated = documents().join("\n---\n");
        reads("t.txt", pack(separated.into_bytes()), "separator: \"\\n---\\n\", ");
        // Packed in parts, as parallel packers and `cat` make them; an empty one among them.
        let parts: Vec<u8> = lines().lines().flat_map(|line| pack(format!("{line}\n").into_bytes())).collect();
        reads("t.jsonl.gz", [pack(Vec::new()), parts].concat(), "");
    }
    // Already unpacked on the way, and padded.
    reads("t.jsonl.gz", lines(), "");
    reads("t.jsonl.gz", [gzip(lines()), vec![0; 1000]].concat(), "");
    // zstd passes over frames that are not its own.
    reads("t.jsonl.zst", [b"\x51\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd(lines())].concat(), "");
}

#[test]
pub fn packed_files_that_are_cut_off_are_errors() {
    let many = lines().repeat(2000);
    let all = "num_sequences: 40000, sequence_length: 32";
    for (name, packed) in [("t.jsonl.gz", gzip(&many)), ("t.jsonl.zst", zstd(&many))] {
        let project = project();
        project.file(name, &packed[..packed.len() - 9]);
        let script = load(&format!("text: \"{name}\", {all}"));
        project.refuses(&script, FAILED, &format!("reading {name}: it ends in the middle of its"), "again");
        let mut damaged = packed.clone();
        let middle = packed.len() / 2;
        damaged[middle..middle + 40].fill(0x55);
        project.file(name, damaged);
        let outcome = project.script(&script).ends(FAILED);
        assert!(outcome.stderr.contains(&format!("reading {name}")), "{}", outcome.stderr);
    }
    let twice = gzip(gzip(lines()));
    refuses("t.jsonl.gz", twice, "", FAILED, "t.jsonl.gz is packed twice", "unpack it");
}

/// A table with a column of texts, of lists of texts, of numbers and of bytes.
fn parquet(path: &Path, compression: Compression, version: WriterVersion, dictionary: bool) {
    let schema = "message schema { OPTIONAL BYTE_ARRAY text (UTF8); OPTIONAL group words (LIST) { REPEATED group list {
                  OPTIONAL BYTE_ARRAY element (UTF8); } } REQUIRED BYTE_ARRAY image; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).set_writer_version(version);
    let properties = Arc::new(properties.set_dictionary_enabled(dictionary).build());
    let mut writer = SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, properties).unwrap();
    let values: Vec<ByteArray> = documents().iter().map(|text| ByteArray::from(text.as_str())).collect();
    // The second row has no text.
    let rows = values.len() as i16 + 1;
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let levels: Vec<i16> = (0..rows).map(|row| (row != 1) as i16).collect();
    column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let words = vec![ByteArray::from("word"); rows as usize];
    let (defined, repeated) = (vec![3; rows as usize], vec![0; rows as usize]);
    column.typed::<ByteArrayType>().write_batch(&words, Some(&defined), Some(&repeated)).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let images = vec![ByteArray::from(vec![0xff, 0xd8, 0xff]); rows as usize];
    column.typed::<ByteArrayType>().write_batch(&images, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn parquet_of_every_codec_is_read() {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ];
    let project = project();
    let expected = ids_of(&documents());
    for codec in codecs {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            for dictionary in [true, false] {
                parquet(&project.path("t.parquet"), codec, version, dictionary);
                let got = project.script(&load(&format!("text: \"t.parquet\", {OPTIONS}"))).json();
                assert_eq!(got, expected, "{codec} {version:?} {dictionary}");
            }
        }
    }
    // Told by what it begins with, too.
    std::fs::copy(project.path("t.parquet"), project.path("table")).unwrap();
    assert_eq!(project.script(&load(&format!("text: \"table\", {OPTIONS}"))).json(), expected);
}

#[test]
fn good_parquet_files_are_never_called_damaged() {
    let project = project();
    parquet(&project.path("t.parquet"), Compression::SNAPPY, WriterVersion::PARQUET_1_0, true);
    let whole = project.bytes("t.parquet");
    let refuses = |file: &str, options: &str, message: &str, hint: &str| {
        let script = load(&format!("text: \"{file}\", {options}{OPTIONS}"));
        let outcome = project.script(&script).ends(FAILED);
        assert!(outcome.stderr.contains(message) && outcome.stderr.contains(hint), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("damaged"), "{}", outcome.stderr);
    };
    refuses("t.parquet", "column: \"words\", ", "column \"words\" holds lists, not text", "`column`: `text`, `image`");
    refuses("t.parquet", "column: \"words.list.element\", ", "holds lists, not text", "`text`");
    refuses("t.parquet", "column: \"image\", ", "holds bytes that are no text in UTF-8", "column of strings");
    refuses("t.parquet", "column: \"body\", ", "no column \"body\"; there are `text`, `image`", "with `column`");
    project.file("t.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n");
    refuses("t.parquet", "", "reading t.parquet: a Git LFS pointer to the file of 12345 bytes", "git lfs pull");
    project.file("t.parquet", "<!DOCTYPE html>\n<html><body>Sign in</body></html>");
    refuses("t.parquet", "", "t.parquet is a web page", "fetch the file itself");
    project.file("t.parquet.gz", gzip(&whole));
    refuses("t.parquet.gz", "", "is Parquet packed with gzip", "unpack it first");
    project.file("t.parquet", [b"PARE", &whole[4..whole.len() - 4], b"PARE"].concat());
    refuses("t.parquet", "", "is an encrypted Parquet file", "decrypt it");
}

#[test]
pub fn what_small_files_unpack_to_takes_no_memory() {
    let project = project();
    let schema = Arc::new(parse_message_type("message schema { REQUIRED BYTE_ARRAY text (UTF8); }").unwrap());
    for codec in [Compression::GZIP(GzipLevel::default()), Compression::BROTLI(BrotliLevel::default())] {
        let properties = WriterProperties::builder().set_compression(codec).set_dictionary_enabled(false);
        let path = project.path("t.parquet");
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema.clone(), Arc::new(properties.build())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let text = ByteArray::from("a".repeat(1 << 20).as_str());
        column.typed::<ByteArrayType>().write_batch(&[text], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let mut data = project.bytes("t.parquet");
        project.file("t.parquet", &data);
        project.script(&load("text: \"t.parquet\", num_sequences: 1, sequence_length: 4")).ok();
        // Field 2 of the first page's header, in Thrift: 2^20 + 4, and of these 2^20 are taken away.
        assert_eq!(data[6..10], [0x15, 0x88, 0x80, 0x80], "{codec}");
        data[9] = 0x80;
        data[10] = 0;
        project.file("t.parquet", &data);
        let script = load("text: \"t.parquet\", num_sequences: 1, sequence_length: 4");
        project.refuses(&script, FAILED, "a page unpacks to more than it says", "");
    }
    // A frame that looks back further than usual ones.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(30).unwrap();
    encoder.write_all(lines().as_bytes()).unwrap();
    encoder.flush().unwrap();
    encoder.write_all(lines().as_bytes()).unwrap();
    project.file("t.jsonl.zst", encoder.finish().unwrap());
    let script = load(&format!("text: \"t.jsonl.zst\", {OPTIONS}"));
    project.refuses(&script, FAILED, "takes a window of more than 128 MB", "without --long");
}

#[test]
fn other_formats_are_refused_by_name() {
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let text = "To be, or not to be, that is the question. ".repeat(9);
    let mut tar = vec![0; 512];
    tar[..5].copy_from_slice(b"a.txt");
    tar[257..262].copy_from_slice(b"ustar");
    let stray = |magic: &[u8]| [magic, &[0, 1, 2, 3, 0xff, 0xfe], text.as_bytes()].concat();
    for (name, data, what, advice) in [
        ("t.zip", stray(b"PK\x03\x04"), "a zip archive", "unpack it"),
        ("t.txt", stray(b"PK\x03\x04"), "a zip archive", "unpack it"),
        ("t.docx", stray(b"PK\x03\x04"), "a Word", "as plain text"),
        ("t.xlsx", stray(b"PK\x03\x04"), "a spreadsheet", "as CSV"),
        ("t.npz", stray(b"PK\x03\x04"), "a NumPy file", "under `ids`"),
        ("t.pt", stray(b"PK\x03\x04"), "a PyTorch file", "weights"),
        ("t.bin", stray(b"PK\x03\x04"), "a PyTorch file", "weights"),
        ("t.npy", stray(b"\x93NUMPY"), "a NumPy file", "under `ids`"),
        ("t.pkl", stray(b"\x80\x04"), "a pickle file", "Parquet"),
        ("t.safetensors", stray(b"\x10\0\0\0\0\0\0\0{"), "a safetensors file", "under `ids`"),
        ("t.gguf", stray(b"GGUF\x03\0\0\0"), "a GGUF file", "weights"),
        ("t", tar.clone(), "a tar archive", "unpack it"),
        ("t.tar.gz", gzip(&tar), "a tar archive", "unpack it"),
        ("t.jsonl.bz2", stray(b"BZh91AY&SY"), "packed with bzip2", "bzip2 -dk"),
        ("t.jsonl.xz", stray(b"\xfd7zXZ\0"), "packed with xz", "xz -dk"),
        ("t.jsonl.lz4", stray(b"\x04\x22\x4d\x18"), "packed with lz4", "lz4 -d"),
        ("t.jsonl.br", stray(b""), "packed with brotli", "brotli -dk"),
        ("t.7z", stray(b"7z\xbc\xaf\x27\x1c"), "a 7z archive", "unpack it"),
        ("t.arrow", stray(b"\xff\xff\xff\xff\x10\x01\0\0\x10\0\0\0"), "an Arrow file", "Parquet"),
        ("t.feather", stray(b"ARROW1"), "an Arrow file", "Parquet"),
        ("t.orc", stray(b"ORC"), "an ORC file", "Parquet"),
        ("t.avro", stray(b"Obj\x01"), "an Avro file", "Parquet"),
        ("t.sqlite", stray(b"SQLite format 3\0"), "an SQLite database", "Parquet"),
        ("t.h5", stray(b"\x89HDF\r\n\x1a\n"), "an HDF5 file", "Parquet"),
        ("t.pdf", stray(b"%PDF-1.7"), "a PDF", "pdftotext"),
        ("t.txt", stray(b"%PDF-1.7"), "a PDF", "pdftotext"),
        ("t.rtf", b"{\\rtf1 To be, or not to be}".to_vec(), "RTF", "as plain text"),
        ("t.txt", b"{\\rtf1 To be, or not to be}".to_vec(), "RTF", "as plain text"),
        ("t.txt", stray(b"\x89PNG\r\n"), "an image", "plain text"),
        ("t.html", b"<html><body>To be".to_vec(), "a web page (HTML)", "format: \"text\""),
        ("t.jsonl", b"\n<!doctype HTML>\n<html>".to_vec(), "a web page (HTML)", "fetch the file itself"),
        ("t.xml", b"<?xml version=\"1.0\"?><a/>".to_vec(), "XML", "format: \"text\""),
        ("t.txt", [b"\xff\xfe".to_vec(), wide(&text)].concat(), "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
        ("t.csv", [b"\xff\xfe".to_vec(), wide(&text)].concat(), "UTF-16 text", "iconv -f UTF-16 -t UTF-8"),
        ("t.txt", b"\xff\xfe\0\0T\0\0\0o\0\0\0".to_vec(), "UTF-32 text", "iconv -f UTF-32"),
    ] {
        refuses(name, data, "", FAILED, &format!("{name} is {what}"), advice);
    }
    refuses("t.txt", wide(&text), "", FAILED, "t.txt holds NUL bytes", "iconv -f UTF-16LE");
    let big_endian: Vec<u8> = wide(&text).chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    refuses("t.txt", big_endian, "", FAILED, "t.txt holds NUL bytes", "iconv -f UTF-16BE");
    refuses(
        "t.txt",
        "caf\u{e9} ".repeat(9).chars().map(|c| c as u8).collect::<Vec<_>>(),
        "",
        FAILED,
        "reading t.txt",
        "iconv -f ENCODING -t UTF-8 FILE > NEW, where ENCODING is WINDOWS-1252, GB18030, SHIFT_JIS",
    );
    let project = project();
    project.file("ids.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
    project.refuses("load_tokens(#{ ids: \"ids.json\" })", FAILED, "ids.json: a Git LFS pointer", "git lfs pull");
}

#[test]
fn a_byte_order_mark_is_no_token() {
    let marked = |data: String| [BOM, data.as_bytes()].concat();
    reads("t.jsonl", marked(lines()), "");
    reads("t.json", marked(array()), "");
    reads("t", marked(array()), "");
    reads("t.jsonl.gz", gzip(marked(lines())), "");
    let first: String = documents().iter().map(|text| format!("{},1\n", cell(text))).collect();
    reads("t.csv", marked(format!("text,n\n{first}")), "");
    reads("t.csv", marked(format!("\"text\",n\n{first}")), "");
    let separated = documents().join("\n---\n");
    reads("t.txt", marked(separated.clone()), "separator: \"---\", ");
    let text = documents().concat();
    assert_eq!(ids("t.txt", marked(text.clone()), ""), ids("t.txt", &text, ""));
    assert_eq!(ids("t.txt.zst", zstd(marked(text.clone())), ""), ids("t.txt", &text, ""));
    // Places in the file are counted with it.
    let random = "shuffle: true, seed: 3, ";
    for (name, data, options) in
        [("t.jsonl", lines(), random.to_string()), ("t.txt", separated, format!("separator: \"---\", {random}"))]
    {
        assert_eq!(ids(name, marked(data.clone()), &options), ids(name, data, &options), "{name}");
    }
}

#[test]
fn scripts_and_json_may_begin_with_a_byte_order_mark() {
    let project = project();
    let marked = |path: &str| project.file(path, [BOM, &project.bytes(path)].concat());
    project.file("ids.json", "[[1, 2, 3], [4, 5, 6]]").file("add.rhai", "fn one(x) { x + 1 }");
    for path in ["model/config.json", "model/tokenizer.json", "ids.json", "add.rhai"] {
        marked(path);
    }
    let script = "import \"add\" as add; let model = load_model(\"model\");
                  let tokens = load_tokens(#{ ids: \"ids.json\" });
                  print(add::one(model.extract_layernorms(tokens).num_sequences));";
    project.file("script.rhai", script);
    marked("script.rhai");
    assert_eq!(project.run(&["run", "script.rhai"]).ok().trim(), "3");
    project.run(&["plan", "script.rhai"]).ok();
}

#[test]
fn rows_without_a_text_are_passed_over_in_every_format() {
    let texts = documents();
    let row = |row: usize| match row {
        0 => json!({ "text": null, "n": 1 }),
        2 => json!({ "n": 1 }),
        4 => json!({ "text": "", "n": 1 }),
        6 => json!({ "text": "  ", "n": 1 }),
        odd => json!({ "n": 1, "text": texts[odd / 2] }),
    };
    let rows: Vec<Value> = (0..8).map(row).collect();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    reads("t.jsonl", &lines, "");
    reads("t.json", &lines, "");
    reads("t.json", json!(rows).to_string(), "");
    reads("t.json", json!([null, texts[0], "", texts[1], texts[2], null, texts[3]]).to_string(), "");
    reads("t.json", json!({ "text": [null, texts[0], "", texts[1], texts[2], null, texts[3]] }).to_string(), "");
    // As Python writes what pandas calls missing, in this key and in others.
    let nan = lines.replace("null", "NaN").replace("\"n\":1", "\"n\":-Infinity");
    assert!(nan.contains("NaN") && nan.contains("-Infinity"));
    reads("t.jsonl", &nan, "");
    reads("t.json", format!("[{}]", nan.trim_end().replace('\n', ",")), "");
    reads("t", &nan, "");
    // Within a text these are words.
    let word = json!({ "text": "NaN and Infinity are no numbers, says \"NaN\", and neither is -Infinity, they say" });
    let expected = ids_of(&[word["text"].as_str().unwrap().to_string()]);
    assert_eq!(ids("t.jsonl", format!("{{\"text\": NaN}}\n{word}\n"), ""), expected);
    let cells = ["", "\"\"", "NA", "NaN", "null", "None", "N/A", "\"  \""];
    let table: String = texts
        .iter()
        .enumerate()
        .map(|(i, text)| format!("{},1\n{},2\n\n{},3\n", cell(text), cells[2 * i], cells[2 * i + 1]))
        .collect();
    reads("t.csv", format!("text,n\n{table}"), "");
    reads("short.csv", format!("n,text\n0\n{}", csv(",", "\n").replacen("n,text\n", "", 1)), "");
    // What is there and no text is an error, whatever the format.
    for (bad, what) in
        [(json!(3), "a number"), (json!(["a"]), "a list"), (json!({}), "an object"), (json!(true), "true")]
    {
        let message = format!("no text under \"text\", but {what}");
        let line = format!("{}\n{}\n", json!({ "text": "x" }), json!({ "text": bad }));
        refuses("t.jsonl", line, "", FAILED, &format!("reading t.jsonl, line 2: {message}"), "");
        let array = json!([{ "text": "x" }, { "text": bad }]);
        refuses(
            "t.json",
            array.to_string(),
            "",
            FAILED,
            &format!("reading t.json, item 2 of the array: {message}"),
            "",
        );
    }
}

#[test]
pub fn a_column_that_is_not_there_is_told_with_those_that_are() {
    let known = "; there are `text`, `url`, `n`";
    let columns = || json!({ "text": "x", "url": "y", "n": [1] });
    let lines = format!("{}\n", columns()).repeat(2000);
    refuses(
        "t.jsonl",
        &lines,
        "column: \"body\", ",
        FAILED,
        &format!("reading t.jsonl: no column \"body\"{known}"),
        "with `column`",
    );
    refuses("t.jsonl", &lines, "column: \"txt\", ", FAILED, known, "did you mean `text`?");
    refuses("t.json", json!([columns()]).to_string(), "column: \"body\", ", FAILED, known, "");
    let pretty =
        serde_json::to_string_pretty(&json!({ "version": 1, "data": [{ "title": "a", "text": "b" }] })).unwrap();
    refuses("t.json", pretty, "", FAILED, "no column \"text\"; there are `version`, `data.title`, `data.text`", "");
    let split = json!({ "test": [], "train": [{ "text": "b" }] });
    refuses("t.json", split.to_string(), "", FAILED, "`train.text`", "did you mean `train.text`?");
    // Rows that lack a column which others have are not the end of it.
    let few = format!("{}\n", json!({ "n": 1 })).repeat(900) + self::lines().as_str();
    reads("t.jsonl", few, "");
    // What stands in place of keys may be anything.
    let secret = "c3dvcmRmaXNoOnN3b3JkZmlzaC1hbmQtbXVjaC1tb3JlLW9mLWl0LXRoYW4tZml0cw==";
    let project = project();
    project.file("t.json", json!({ secret: 1 }).to_string()).file("t.csv", format!("{secret},{secret}\n1,2\n"));
    for name in ["t.json", "t.csv"] {
        let outcome = project.script(&load(&format!("text: \"{name}\", {OPTIONS}"))).ends(FAILED);
        assert!(
            outcome.stderr.contains("no column \"text\"") && !outcome.stderr.contains(&secret[..41]),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn prose_in_brackets_stays_a_text() {
    let plain = |text: &str| {
        let text = text.repeat(9);
        let expected = ids("t.txt", &text, "format: \"text\", ");
        for name in ["t.txt", "t", "t.script"] {
            assert_eq!(ids(name, &text, ""), expected, "{text}");
        }
        // A name that says JSON is believed, unless the user says otherwise.
        assert_eq!(ids("t.json", &text, "format: \"text\", "), expected, "{text}");
        let project = project();
        project.file("t.json", &text);
        let outcome = project.script(&load(&format!("text: \"t.json\", {OPTIONS}"))).ends(FAILED);
        assert!(outcome.stderr.contains("reading t.json"), "{}", outcome.stderr);
    };
    plain("[Enter HAMLET] To be, or not to be, that is the question. ");
    plain("[1] The first note of many, which is long enough to be cut. ");
    plain("[\"To be\", said Hamlet] or not to be, that is the question. ");
    plain("{ To be, or not to be } that is the question, he said, and went. ");
    plain("{\"To be\", or not to be} that is the question, he said, and went. ");
    plain("\"To be\", said Hamlet, \"or not to be, that is the question\" and went. ");
}

#[test]
fn name_and_content_that_do_not_agree() {
    for data in [lines(), array()] {
        let message = "t.txt has the name of a plain text, and begins like JSON";
        refuses("t.txt", &data, "", SCRIPT, message, "format: \"json\"");
        reads("t.txt", &data, "format: \"json\", ");
        let expected = ids("t.script", format!(" {data}"), "format: \"text\", ");
        assert_eq!(ids("t.txt", format!(" {data}"), "format: \"text\", "), expected);
        assert_ne!(expected, ids_of(&documents()));
    }
    let page = "<html><body>To be, or not to be: that is the question.</body></html>";
    assert_eq!(ids("t.html", page, "format: \"text\", ").as_array().unwrap().len(), 2);
    refuses("t.jsonl", "no json\n", "", FAILED, "reading t.jsonl, line 1: expected", "every line is a JSON object");
    refuses("t.json", "[{\"text\": \"a\"}, {\"text\": \"b\"", "", FAILED, "reading t.json", "format: \"text\"");
    refuses("t.json", "[{\"text\": \"a\"}] and more", "", FAILED, "more stands behind the end of the array", "");
    refuses("t.json", "[{\"text\": \"a\"} {\"text\": \"b\"}]", "", FAILED, "expected a comma", "");
    refuses("t.json", "[3, 4]", "", FAILED, "reading t.json, item 1 of the array: no object", "");
    refuses("t.json", "[]", "", FAILED, "the text gives 0 tokens", "");
    refuses("t.txt", "To be", "format: \"parquet\", ", FAILED, "too short for a Parquet file", "");
    refuses("t.txt", "To be", "format: \"word\", ", SCRIPT, "`format` is \"word\"", "");
}

#[test]
fn options_go_with_formats() {
    let goes = |what: &str| format!("`{what}` goes with");
    refuses("t.txt", "To be", "column: \"text\", ", SCRIPT, &goes("column"), "`separator` cuts it");
    refuses("t.txt", "To be", "column: \"text\", separator: \"-\", ", SCRIPT, &goes("column"), "");
    refuses(
        "t.txt.gz",
        gzip("To be"),
        "shuffle: true, ",
        SCRIPT,
        "`shuffle` goes with several documents; t.txt.gz is a plain text",
        "",
    );
    refuses("t.json", array(), "separator: \"-\", ", SCRIPT, "`separator` goes with a plain text; t.json is JSON", "");
    refuses("t.csv", csv(",", "\n"), "separator: \"-\", ", SCRIPT, &goes("separator"), "hold documents already");
    let project = project();
    project.refuses("load_tokens(#{ ids: [[1]], format: \"json\" })", SCRIPT, "`format` goes with `text`", "");
    // Before anything runs.
    project.file("t.zip", b"PK\x03\x04").file("t.csv", "a,b\n1,2\n");
    for name in ["t.zip", "t.csv"] {
        project.file("script.rhai", load(&format!("text: \"{name}\", {OPTIONS}")));
        let outcome = project.run(&["plan", "script.rhai"]).ends(FAILED);
        assert!(
            outcome.stderr.contains("t.zip is a zip archive") || outcome.stderr.contains("no column"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn every_format_can_be_shuffled() {
    let one = |name: &str, data: Vec<u8>, options: &str| {
        let project = project();
        project.file(name, data);
        let options = format!("text: \"{name}\", {options}windows: \"documents\", sequence_length: 4");
        let all = |more: &str| -> Vec<Value> {
            let script = load(&format!("{options}, {more}num_sequences: 20"));
            project.script(&script).json().as_array().unwrap().clone()
        };
        (all(""), all("shuffle: true, seed: 1, "), all("shuffle: true, seed: 2, "), all("shuffle: true, seed: 1, "))
    };
    let documents: Vec<String> = (0..20).map(|i| format!("{i} to be or not to be")).collect();
    let rows = documents.iter().map(|text| format!("{}\n", json!({ "text": text }))).collect::<String>();
    let table = format!("text\n{}\n", documents.join("\n"));
    let mut expected = None;
    for (name, data, options) in [
        ("t.jsonl", rows.clone().into_bytes(), ""),
        ("t.jsonl.gz", gzip(&rows), ""),
        ("t.json", serde_json::to_vec(&documents).unwrap(), ""),
        ("t.csv", table.clone().into_bytes(), ""),
        ("t.csv.zst", zstd(&table), ""),
        ("t.txt", documents.join("---").into_bytes(), "separator: \"---\", "),
        ("t.txt.gz", gzip(documents.join("---")), "separator: \"---\", "),
    ] {
        let found = one(name, data, options);
        let (plain, first, second, again) = &found;
        assert!(first != plain && first != second && first == again, "{name}");
        let sorted = |ids: &[Value]| {
            let mut ids: Vec<String> = ids.iter().map(Value::to_string).collect();
            ids.sort();
            ids
        };
        assert_eq!(sorted(first), sorted(plain), "{name}");
        // The same order, whatever the documents are written in.
        assert_eq!(expected.get_or_insert_with(|| found.clone()), &found, "{name}");
    }
}

/// The layout of AllenAI's C4: compressed JSON Lines, with a folder for each config.
const C4: &str = "allenai/c4";

fn hub() -> (Project, Hub) {
    let origin = Project::new();
    let mut state = 1_u32;
    let noise: Vec<String> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("{:x}", state)
        })
        .collect();
    let many: String = noise.chunks(500).map(|words| format!("{}\n", json!({ "text": words.join(" ") }))).collect();
    origin.file("en/c4-train.00000-of-00002.json.gz", gzip(lines() + many.as_str()));
    origin.file("en/c4-train.00001-of-00002.json.gz", gzip(lines() + many.as_str() + many.as_str()));
    origin.file("en/c4-validation.00000-of-00001.json.gz", gzip(lines().replace("To be", "Not to be")));
    origin.file("en/dataset_info.json", "{}");
    origin
        .file("more/t.csv", csv(",", "\n"))
        .file("more/t.json", array())
        .file("more/t.txt", documents().join("\n---\n"));
    parquet(&origin.path("more/table"), Compression::BROTLI(BrotliLevel::default()), WriterVersion::PARQUET_2_0, true);
    origin.file("more/t.zip", b"PK\x03\x04\0\0");
    let hub = Hub::start().with(&format!("datasets/{C4}"), Model::Folder(origin.path("")));
    (origin, hub)
}

#[test]
fn datasets_of_every_format_are_read_from_the_hub() {
    let (origin, hub) = hub();
    let project = project();
    let ids = |options: &str| hub.run(&project, &load(&format!("dataset: \"{C4}\", {options}, {OPTIONS}")), None);
    let expected = ids_of(&documents());
    assert_eq!(ids("config: \"en\"").json(), expected);
    // Of a long file the beginning is sent, once.
    let path = origin.path("en/c4-train.00000-of-00002.json.gz");
    let size = std::fs::metadata(&path).unwrap().len();
    let (bytes, twice) = counted(&hub.cdn.sent()[&path]);
    assert!(size > 800_000 && bytes <= 320 << 10 && twice == 0, "{bytes} of {size} bytes sent, {twice} twice");
    // And kept.
    assert_eq!(ids("config: \"en\"").json(), expected);
    assert!(hub.cdn.sent().is_empty());
    assert_ne!(ids("config: \"en\", split: \"validation\"").json(), expected);
    for file in ["more/t.csv", "more/t.json", "more/table"] {
        assert_eq!(ids(&format!("file: \"{file}\"")).json(), expected, "{file}");
    }
    assert_eq!(ids("file: \"more/t.txt\", separator: \"---\"").json(), expected);
    for options in ["file: \"more/t.csv\", shuffle: true, seed: 1", "config: \"en\", shuffle: true, seed: 1"] {
        assert_ne!(ids(options).json(), expected);
    }
    let refused = ids("file: \"more/t.zip\"").ends(FAILED);
    assert!(refused.stderr.contains("more/t.zip is a zip archive"), "{}", refused.stderr);
    let refused = ids("config: \"en\", column: \"body\"").ends(FAILED);
    assert!(refused.stderr.contains("no column \"body\"; there are `text`"), "{}", refused.stderr);
    let refused = ids("config: \"fr\"").ends(FAILED);
    assert!(refused.stderr.contains("no Parquet, JSON or CSV files"), "{}", refused.stderr);
}

#[test]
fn formats_are_the_same_on_other_machines() {
    let sshd = Sshd::start();
    let there = Project::trusting(&sshd.fingerprint());
    there.copy("examples/shakespeare-olmoe", "model");
    there.file("data/lines.json", lines()).file("data/t.csv.gz", gzip(csv(";", "\n")));
    there.file("data/marked.txt", [BOM, documents().concat().as_bytes()].concat());
    let (host, key, fingerprint) = (sshd.target(), sshd.key_file(), sshd.fingerprint());
    let script = format!(
        "let gpu = provision_gpu(#{{ provider: \"ssh\", host: \"{host}\", key: \"{}\", fingerprint: \"{fingerprint}\" }});
         gpu.sync(#{{ up: [\"data\", \"model\"] }});
         gpu.run_command(\"mv data there\");
         let model = gpu.load_model(\"model\");
         for path in [\"data/lines.json\", \"there/lines.json\", \"data/t.csv.gz\", \"there/t.csv.gz\", \"data/marked.txt\", \"there/marked.txt\"] {{
             print(load_tokens(#{{ text: path, model: model, {OPTIONS} }}).ids.to_json());
         }}",
        key.display()
    );
    there.file("script.rhai", script);
    // The server is on this computer.
    let said = there.run(&["run", "--allow-commands", "script.rhai"]).ok();
    let found: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let (rows, text) = (ids_of(&documents()), ids("t.txt", documents().concat(), ""));
    assert_eq!(found, [rows.clone(), rows.clone(), rows.clone(), rows, text.clone(), text]);
}

const ROW: &str = "one two three four five six seven eight nine ten eleven twelve";

/// A table with nothing but this schema and, where there is a text, a row of it in each of its columns.
fn table_of(path: &Path, schema: &str, texts: &[&str]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    if !texts.is_empty() {
        let mut group = writer.next_row_group().unwrap();
        for text in texts {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(*text)], None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// `pq.write_table(pa.table({"text": [ROW]}), FILE, write_page_checksum=True, compression="none", use_dictionary=False,
/// store_schema=False, write_statistics=False)` of pyarrow 26, which refuses the flipped bit with
/// `page_checksum_verification=True`.
const CHECKED: &str = "UEFSMRUAFZABFZABFYSuqPYLHBUCFQAVBhUGHAAAAAIAAAACAT4AAABvbmUgdHdvIHRocmVlIGZvdXIgZml2ZSBzaXggc2V2ZW4gZWlnaHQgbmluZSB0\
    ZW4gZWxldmVuIHR3ZWx2ZRUEGSw1ABgGc2NoZW1hFQIAFQwlAhgEdGV4dCUATBwAAAAWAhkcGRwmABwVDBklBgAZGAR0ZXh0FQAWAhbGARbGASYISRwVABUAFQIA\
    PBZ8GQYZJgACAAAAFsYBFgImCBbGAQAoIHBhcnF1ZXQtY3BwLWFycm93IHZlcnNpb24gMjYuMC4xGRwcAAAAjAAAAFBBUjE=";

#[test]
fn a_parquet_page_that_does_not_have_its_checksum_is_damaged() {
    use base64ct::{Base64, Encoding};
    let file = Base64::decode_vec(CHECKED).unwrap();
    assert_eq!(ids("t.parquet", &file, ""), ids_of(&[ROW.to_string()]));
    let text = file.windows(5).position(|bytes| bytes == b"seven").unwrap();
    let mut flipped = file;
    flipped[text] ^= 1;
    refuses("t.parquet", flipped, "", FAILED, "reading t.parquet: ", "damaged or incomplete; download it again");
}

#[test]
fn a_parquet_column_that_is_there_twice_is_not_chosen_from() {
    let project = project();
    let load = |column: &str| load(&format!("text: \"t.parquet\", column: \"{column}\", {OPTIONS}"));
    let text = |name: &str| format!("REQUIRED BYTE_ARRAY {name} (UTF8);");
    let schema = format!("message m {{ {} {} {} }}", text("text"), text("other"), text("text"));
    table_of(&project.path("t.parquet"), &schema, &["no", ROW, ROW]);
    let message = "reading t.parquet: more than one column is called \"text\"";
    project.refuses(&load("text"), FAILED, message, "a name of its own");
    assert_eq!(project.script(&load("other")).json(), ids_of(&[ROW.to_string()]));
    // In an object as well.
    let schema = format!("message m {{ REQUIRED group meta {{ {0} {0} }} }}", text("text"));
    table_of(&project.path("t.parquet"), &schema, &[ROW, ROW]);
    project.refuses(&load("meta.text"), FAILED, "more than one column is called \"meta.text\"", "a name of its own");
}

#[test]
fn parquet_without_a_column_of_strings_lists_its_columns() {
    let project = project();
    let schema = "message m { OPTIONAL group messages (LIST) { REPEATED group list { OPTIONAL group element {
                  OPTIONAL BYTE_ARRAY content (UTF8); } } } REQUIRED INT64 id; }";
    table_of(&project.path("t.parquet"), schema, &[]);
    let message = "no column \"text\"; there are `messages`, `id`";
    project.refuses(&load(&format!("text: \"t.parquet\", {OPTIONS}")), FAILED, message, "one string in each row");
}

/// The notes of a run that reads this file.
#[track_caller]
fn notes(name: &str, data: &str) -> Vec<String> {
    let project = project();
    project.file(name, data);
    let stderr = project.script(&load(&format!("text: \"{name}\", {OPTIONS}"))).ends(0).stderr;
    let of_the_file = |line: &&str| line.contains(&format!("reading {name}"));
    stderr.lines().filter(of_the_file).map(str::to_string).collect()
}

#[test]
fn short_rows_of_csv_are_told() {
    let said = notes("t.csv", &format!("id,text,n\n1,{ROW},2\n2\n3\n4,{ROW},5\n"));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("line 3: a row of 1 cell where the header has 3"), "{said:?}");
    let said = notes("t.tsv", &format!("text\tn\n{ROW}\n{ROW}\t1\n"));
    assert!(said.len() == 1 && said[0].contains("line 2: a row of 1 cell where the header has 2"), "{said:?}");
    for whole in [format!("text\n{ROW}\n\n{ROW}\n"), format!("n,text\n,{ROW}\n1,\n2,\"{ROW}\"\n")] {
        assert!(notes("t.csv", &whole).is_empty(), "{whole}");
    }
}

#[test]
fn quotes_that_csv_does_not_know_are_told() {
    // As csv.writer(quotechar="'") of Python writes.
    let table = format!("id,text,n\r\n0,'{ROW}, and \"more\"\nnew line',0.5\r\n1,'{ROW}',1\r\n");
    let message = "line 3: 2 cells where the header has 3, behind a text that ' opens";
    refuses("t.csv", &table, "", FAILED, message, "' is a character like any other");
    let many = format!("id,text\n0,'{ROW}, and more'\n");
    refuses("t.csv", &many, "", FAILED, "line 2: more cells than the 2 of the header", "' is a character");
    let said = notes("t.csv", &format!("id,text\n0,'{ROW}'\n1,'{ROW}'\n"));
    assert!(said.len() == 1 && said[0].contains("line 2: a text begins and ends with '"), "{said:?}");
    // Apostrophes of a text.
    for row in [format!("'Tis {ROW}"), format!("{ROW} o'"), format!("\"'{ROW}'\"")] {
        assert!(notes("t.csv", &format!("id,text\n0,{row}\n")).is_empty(), "{row}");
    }
}

#[test]
fn formats_without_an_ending_are_told_by_what_is_in_them() {
    let zip =
        |kind: &str| [b"PK\x03\x04".as_slice(), &[0; 26], b"mimetype", kind.as_bytes(), &[0, 1, 2, 0xff]].concat();
    for (data, what, advice) in [
        ([b"ORC".as_slice(), &[0, 1, 2, 3, 0xff], ROW.as_bytes()].concat(), "an ORC file", "Parquet"),
        (zip("application/epub+zip"), "an EPUB book", "pandoc"),
        (zip("application/vnd.oasis.opendocument.text"), "a Word or OpenDocument text", "as plain text"),
        (zip("application/vnd.oasis.opendocument.spreadsheet"), "a spreadsheet", "as CSV"),
    ] {
        for name in ["t", "t.1"] {
            refuses(name, &data, "", FAILED, &format!("{name} is {what}"), advice);
        }
    }
    refuses("t.epub", zip("application/epub+zip"), "", FAILED, "t.epub is an EPUB book", "pandoc");
    let text = format!("ORCHARDS: {ROW}");
    assert_eq!(ids("t", &text, ""), {
        let project = project();
        project.file("plain.txt", &text);
        project.script(&load(&format!("text: \"plain.txt\", {OPTIONS}"))).json()
    });
}

#[test]
fn the_advice_on_encodings_names_no_single_one() {
    // Japanese in UTF-16 without a byte order mark, and in Shift JIS; Chinese in GBK.
    let japanese: Vec<u8> = "\u{65e5}\u{672c}\u{8a9e}".repeat(9).encode_utf16().flat_map(u16::to_le_bytes).collect();
    for data in [japanese, b"\x93\xfa\x96\x7b\x8c\xea".repeat(9), b"\xc4\xe3\xba\xc3".repeat(9)] {
        refuses("t.txt", data, "", FAILED, "reading t.txt", "LATIN1 and its like take any bytes");
    }
}

#[test]
fn bytes_behind_gzip_data_are_not_called_a_cut() {
    let behind = "reading t.jsonl.gz: behind its gzip data are bytes that are none";
    for junk in [b"garbage".as_slice(), b"\0\0g", &[b'x'; 100], b"\x1fx"] {
        refuses("t.jsonl.gz", [gzip(lines()), junk.to_vec()].concat(), "", FAILED, behind, "gzip -dc FILE > NEW");
    }
    // A second member that is cut off is.
    let second = gzip(lines());
    for length in [1, 2, 9, second.len() / 2] {
        let cut = [gzip(lines()), second[..length].to_vec()].concat();
        refuses("t.jsonl.gz", cut, "", FAILED, "it ends in the middle of its gzip data", "cut off");
    }
}
