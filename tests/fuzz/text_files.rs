//! Token ids from JSON and safetensors files, and texts from JSON, CSV and Parquet files,
//! compressed or not.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::model_files::damaged_header;
use crate::mutate;
use crate::process::Start;
use crate::workshop::{TRAINED, Workshop, link, read, write};

pub fn ids(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    link(&workshop.model("olmoe"), &folder.join("m"));
    let ids = json!([[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
    let source = match chance.below(5) {
        0 | 1 => {
            write(folder.join("ids.json"), mutate::json_bytes(&ids, chance));
            "\"ids.json\"".to_string()
        }
        // JSON of numbers and lists is Rhai, too.
        2 => mutate::text(&mutate::structure(ids, chance)).replace('{', "#{"),
        _ => {
            let reference = read(workshop.root().join(format!("{TRAINED}-reference.safetensors")));
            write(folder.join("t.safetensors"), damaged_header(&reference, chance));
            format!(
                "\"t.safetensors\", tensor: \"{}\"",
                chance.pick(&["input_ids", "input_ids", "input_ids", "logits", "loss", ""])
            )
        }
    };
    let text = format!(
        // Attention over 100,000 positions is minutes of honest work.
        "let model = load_model(\"m\");\nlet t = load_tokens(#{{ ids: {source} }});\n\
         if t.sequence_length <= 10_000 {{ print(model.extract_layernorms(t).norms.len()); }}\n"
    );
    write(folder.join("s.rhai"), text);
    Start::of(&["run", "s.rhai"])
}

/// Reads `file` in some way.
fn script(workshop: &Workshop, folder: &Path, file: &str, chance: &mut Chance) -> Start {
    link(&workshop.model(TRAINED), &folder.join("m"));
    let options = *chance.pick(&[
        "",
        "",
        "",
        "windows: \"documents\", ",
        "windows: \"text\", ",
        "shuffle: true, seed: 3, ",
        "overlap: 0.9, ",
        "column: \"n\", ",
        "straight_quotes: true, ",
        "skip_sequences: 3, ",
    ]);
    let text = format!(
        "let model = load_model(\"m\");\n\
         let t = load_tokens(#{{ text: \"{file}\", model: model, {options}num_sequences: 2, sequence_length: 6 }});\n\
         print(t.num_sequences);\n"
    );
    write(folder.join("s.rhai"), text);
    Start::of(&["run", "s.rhai"])
}

pub fn jsonl(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let line =
        |number: usize| json!({ "text": format!("To be or not to be {number} that is the question"), "n": [number] });
    let lines = |chance: &mut Chance, damage: bool| {
        let line = |number| {
            if damage { mutate::text(&mutate::structure(line(number), chance)) } else { line(number).to_string() }
        };
        (0..20).map(line).collect::<Vec<_>>().join("\n").into_bytes()
    };
    let data = match chance.below(4) {
        0 => {
            let whole = lines(chance, false);
            let end = whole.len();
            mutate::bytes(whole, 0..end, chance)
        }
        1 | 2 => lines(chance, true),
        _ => match chance.below(9) {
            0 => b"[".repeat(100_000),
            1 => b"{\"text\":".repeat(50_000),
            2 => Vec::new(),
            3 => b"\n".repeat(100_000),
            4 => [b"\xef\xbb\xbf".to_vec(), lines(chance, false)].concat(),
            5 => b"\xff\xfe\x00\x00".to_vec(),
            6 => [b"{\"text\":\"".to_vec(), b"a".repeat(1 << 20), b"\"}".to_vec()].concat(),
            7 => [b"{\"text\":\"".to_vec(), b"a b ".repeat(1 << 18), b"\"}\n".to_vec()].concat(),
            _ => vec![0; 1 << 20],
        },
    };
    write(folder.join("t.jsonl"), data);
    script(workshop, folder, "t.jsonl", chance)
}

fn rows() -> Vec<Value> {
    (0..20)
        .map(|number| json!({ "text": format!("To be or not to be {number} that is the \"question\""), "n": [number] }))
        .collect()
}

/// JSON that is no JSON Lines: arrays, objects over several lines, a single object, under names that say so or nothing.
pub fn json(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let texts: Vec<Value> = rows().iter().map(|row| row["text"].clone()).collect();
    let whole = match chance.below(4) {
        0 => json!(rows()),
        1 => json!(texts),
        2 => json!({ "text": texts }),
        _ => rows().remove(0),
    };
    let data = match chance.below(6) {
        0 => {
            let data = serde_json::to_vec_pretty(&whole).unwrap();
            let end = data.len();
            mutate::bytes(data, 0..end, chance)
        }
        1 | 2 => mutate::json_bytes(&whole, chance),
        3 => {
            let values: Vec<String> = rows().iter().map(|row| serde_json::to_string_pretty(row).unwrap()).collect();
            let end = values.join("\n").len();
            mutate::bytes(values.join("\n").into_bytes(), 0..end, chance)
        }
        4 => whole.to_string().into_bytes()[..chance.below(whole.to_string().len())].to_vec(),
        _ => match chance.below(7) {
            0 => b"[".repeat(1 << 20),
            1 => b"[\"".to_vec(),
            2 => b"[,]".to_vec(),
            3 => [b"[{\"text\": \"".to_vec(), b"a b \\\" ".repeat(1 << 18)].concat(),
            4 => b"{\"a\":\n".repeat(100_000),
            5 => b"]".repeat(1000),
            _ => [b"[".to_vec(), b"null,".repeat(1 << 18), b"null]".to_vec()].concat(),
        },
    };
    let name = *chance.pick(&["t.json", "t.json", "t", "t.jsonl"]);
    write(folder.join(name), data);
    script(workshop, folder, name, chance)
}

pub fn csv(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let delimiter = *chance.pick(&[",", ";", "\t", "|"]);
    let end = *chance.pick(&["\n", "\r\n", "\r"]);
    let cell = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let row = |row: &Value| format!("{}{delimiter}{}{end}", cell(row["text"].as_str().unwrap()), row["n"][0]);
    let whole = format!("text{delimiter}n{end}{}", rows().iter().map(row).collect::<String>()).into_bytes();
    let data = match chance.below(4) {
        0..3 => {
            let length = whole.len();
            mutate::bytes(whole, 0..length, chance)
        }
        _ => match chance.below(6) {
            0 => [b"text,".repeat(100_000), b"n\n".to_vec()].concat(),
            1 => [b"text\n\"".to_vec(), b"a, b\n".repeat(1 << 18)].concat(),
            2 => [b"text\n".to_vec(), b"\n".repeat(1 << 20)].concat(),
            3 => [b"text\n".to_vec(), b"\"\"".repeat(1 << 18)].concat(),
            4 => Vec::new(),
            _ => [b"text\n".to_vec(), b",".repeat(1 << 20)].concat(),
        },
    };
    let name = *chance.pick(&["t.csv", "t.csv", "t.tsv", "t.tab"]);
    write(folder.join(name), data);
    script(workshop, folder, name, chance)
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Files packed with gzip or zstd: damaged, cut off, in parts, and such that unpack to far more than they are.
pub fn packed(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let zstd = chance.one_in(2);
    let pack = |data: &[u8]| if zstd { zstd::bulk::compress(data, 1).unwrap() } else { gzip(data) };
    let lines: String = rows().iter().map(|row| format!("{row}\n")).collect();
    let whole = pack(lines.as_bytes());
    let end = whole.len();
    let data = match chance.below(8) {
        0..3 => mutate::bytes(whole, 0..end, chance),
        3 => whole[..chance.below(end)].to_vec(),
        4 => [whole.clone(), chance.bytes(9)].concat(),
        5 => whole.repeat(1 + chance.below(50)),
        6 => pack(&pack(&pack(lines.as_bytes()))),
        _ => {
            let fill = *chance.pick(&[b' ', b'\n', b'a', b'[', b'{', b',', b'"', 0]);
            pack(&vec![fill; 4 << 20]).repeat(8)
        }
    };
    let names = ["t.jsonl.gz", "t.jsonl.zst", "t.jsonl", "t", "t.json.zst", "t.csv.gz", "t.txt.gz", "t.parquet"];
    let name = *chance.pick(&names);
    write(folder.join(name), data);
    script(workshop, folder, name, chance)
}

/// A table of texts in which pages are packed in some way.
fn table(chance: &mut Chance) -> Vec<u8> {
    let codec = *chance.pick(&[
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::BROTLI(BrotliLevel::default()),
        Compression::LZ4,
        Compression::LZ4_RAW,
        Compression::ZSTD(ZstdLevel::default()),
    ]);
    let version = *chance.pick(&[WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0]);
    let properties = WriterProperties::builder().set_compression(codec).set_writer_version(version);
    let properties = properties.set_dictionary_enabled(chance.one_in(2)).build();
    let schema = parse_message_type("message schema { REQUIRED BYTE_ARRAY text (UTF8); }").unwrap();
    let mut data = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut data, Arc::new(schema), Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let text = |row: &Value| ByteArray::from(row["text"].as_str().unwrap());
    let texts: Vec<ByteArray> = rows().iter().cycle().take(400).map(text).collect();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    data
}

pub fn parquet(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let whole = if chance.one_in(2) { workshop.table.clone() } else { table(chance) };
    let size = whole.len();
    let footer = u32::from_le_bytes(whole[size - 8..size - 4].try_into().unwrap()) as usize;
    let foot = size - 8 - footer;
    let data = match chance.below(5) {
        0 => mutate::bytes(whole, 0..size, chance),
        1 | 2 => {
            let changed = mutate::bytes(whole[foot..size - 8].to_vec(), 0..footer, chance);
            [&whole[..foot], &changed, &(changed.len() as u32).to_le_bytes(), b"PAR1"].concat()
        }
        3 => mutate::bytes(whole, 4..120, chance),
        _ => {
            let claims = [0, 1, size, size - 8, u32::MAX as usize, footer + 1, footer - 1, 12, 1 << 31];
            [&whole[..size - 8], &(*chance.pick(&claims) as u32).to_le_bytes(), b"PAR1"].concat()
        }
    };
    write(folder.join("t.parquet"), data);
    script(workshop, folder, "t.parquet", chance)
}
