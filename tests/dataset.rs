//! Tests of texts with many documents: JSON Lines, Parquet, and datasets on the hub, of which only
//! the needed part is read.

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use crate::fake_hub::cdn::{Network, counted};
use crate::fake_hub::{COMMIT, FAILED, Hub, Model};
use crate::project::Project;

const ID: &str = "HuggingFaceFW/fineweb-edu";
const SAMPLE: &str = "sample/10BT/013_00000.parquet";
/// The exit code of a script with a mistake.
const SCRIPT: i32 = 1;

/// Twelve documents of different lengths in four row groups.
fn corpus() -> Vec<Vec<String>> {
    let document = |i: usize| {
        let words = ["To be", "or not to be", "that is the question", "whether 'tis nobler", "in the mind to suffer"];
        let words = (0..8 + 3 * i).map(|w| words[(w * (i + 2) + i) % words.len()]).collect::<Vec<_>>();
        format!("Document {i}: {}.", words.join(", "))
    };
    (0..12).map(document).collect::<Vec<_>>().chunks(3).map(<[String]>::to_vec).collect()
}

/// The corpus as a file of a dataset.
pub fn corpus_at(path: &Path) {
    parquet(path, &corpus(), Compression::UNCOMPRESSED);
}

/// Bytes that cannot be compressed.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u32 + 1;
    let byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(byte).take(length).collect()
}

/// A table with a column of text, in which one row of each group is empty, and a large column of
/// something else.
fn parquet(path: &Path, groups: &[Vec<String>], compression: Compression) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema =
        "message schema { OPTIONAL BYTE_ARRAY text (UTF8); REQUIRED BYTE_ARRAY url (UTF8); REQUIRED INT64 n; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, properties).unwrap();
    for (g, texts) in groups.iter().enumerate() {
        let rows = texts.len() + 1;
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_str())).collect();
        let levels: Vec<i16> = (0..rows).map(|row| (row != 1) as i16).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let urls: Vec<ByteArray> = (0..rows).map(|row| ByteArray::from(noise(10 * g + row, 100_000))).collect();
        column.typed::<ByteArrayType>().write_batch(&urls, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..rows as i64).collect();
        column.typed::<parquet::data_type::Int64Type>().write_batch(&numbers, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

/// A project with the example's tokenizer as `model/`.
fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

/// A hub with the sample of FineWeb-Edu: a small file, and a larger one of other text.
fn hub() -> (Project, Hub) {
    let origin = Project::new();
    parquet(&origin.path(SAMPLE), &corpus(), Compression::SNAPPY);
    let other = vec![vec!["Nothing of this is read.".to_string()]; 9];
    parquet(&origin.path("sample/10BT/000_00000.parquet"), &other, zstd());
    parquet(&origin.path("data/CC-MAIN-2024-10/train-00000-of-00001.parquet"), &corpus()[..1], zstd());
    parquet(&origin.path("data/CC-MAIN-2024-10/test-00000-of-00001.parquet"), &corpus()[1..2], zstd());
    let hub = Hub::start().with(&format!("datasets/{ID}"), Model::Folder(origin.path("")));
    (origin, hub)
}

fn load(options: &str) -> String {
    format!(
        "let model = load_model(\"model\"); let t = load_tokens(#{{ model: model, {options} }}); print(t.to_json());"
    )
}

fn sample(options: &str) -> String {
    load(&format!("dataset: \"{ID}\", config: \"sample-10BT\", {options}"))
}

/// The ids of a plain text.
fn ids_of(text: &str, options: &str) -> Value {
    let project = project();
    project.file("text.txt", text);
    project.script(&load(&format!("text: \"text.txt\", {options}"))).json()["ids"].take()
}

/// All documents as one text, with a space before each.
fn joined() -> String {
    corpus().concat().iter().map(|document| format!(" {document}")).collect()
}

#[test]
fn windows_of_a_dataset() {
    let (origin, hub) = hub();
    let project = project();
    let options = "num_sequences: 4, sequence_length: 16";
    let tokens = hub.run(&project, &sample(options), None).json();
    assert_eq!(tokens["ids"], ids_of(&joined(), options));
    assert_eq!((&tokens["source"], &tokens["revision"]), (&json!(format!("{ID}/{SAMPLE}")), &json!(COMMIT)));
    assert_eq!(tokens["sha256"].as_str().unwrap().len(), 64);
    // The end of the file, and the text of one row group: a small part of it.
    let sent = hub.cdn.sent();
    let (bytes, twice) = counted(&sent[&origin.path(SAMPLE)]);
    let size = std::fs::metadata(origin.path(SAMPLE)).unwrap().len();
    assert_eq!(sent.len(), 1);
    assert!(size > 1_500_000 && bytes < 70_000 && twice == 0, "{bytes} of {size} bytes sent, {twice} twice");
}

#[test]
fn a_dataset_is_read_once() {
    let (_origin, hub) = hub();
    let project = project();
    let options = "num_sequences: 4, sequence_length: 16";
    let first = hub.run(&project, &sample(options), None).ok();
    hub.cdn.sent();
    assert_eq!(hub.run(&project, &sample(options), None).ok(), first);
    assert!(hub.cdn.sent().is_empty(), "text is fetched once");
    // Without the hub, and without asking for it, the text is still there.
    assert_eq!(project.script(&sample(options)).ok(), first);
    hub.asked();
    let mut command = hub.command(&project, &sample(options));
    let offline = crate::project::Outcome::of(command.env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert_eq!(offline.ok(), first);
    // A commit does not move: once it is known nobody is asked.
    assert!(hub.asked().is_empty());
    let pinned = sample(&format!("revision: \"{COMMIT}\", {options}"));
    hub.run(&project, &pinned, None).ok();
    assert!(!hub.asked().is_empty());
    assert_eq!(hub.run(&project, &pinned, None).ok(), first);
    assert!(hub.asked().is_empty());
}

#[test]
fn the_hash_of_the_tokens_goes_into_the_result() {
    let (_origin, hub) = hub();
    let project = project();
    let script = sample("num_sequences: 2, sequence_length: 16")
        + "let acts = model.extract_layernorms(t);
           save_results(\"edu\", #{ activations: acts, found: acts.detect_outliers() });";
    let output = hub.run(&project, &script, None).ok();
    let tokens: Value = serde_json::from_str(output.lines().next().unwrap()).unwrap();
    let kept = &project.json("results/edu/final_analysis_results.json")["provenance"]["tokens"];
    for field in ["source", "revision", "sha256", "num_sequences", "sequence_length"] {
        assert_eq!(kept[field], tokens[field], "{field}");
    }
    let again = project.script("print(load_results(\"results/edu\").activations.to_json());").json();
    assert_eq!(again["tokens"]["revision"], COMMIT);
}

/// A script of the sweep takes model and text from the hub. Neither is written to disk, and the
/// record names both.
#[test]
fn a_model_and_a_dataset_straight_from_the_hub() {
    let (_origin, hub) = hub();
    let (model, project) = (project(), Project::new());
    hub.set("allenai/OLMoE-1B-7B-0125", Model::Folder(model.path("model")));
    project.copy("scripts", "scripts");
    let words =
        ["--dataset", ID, "--config", "sample-10BT", "--stream", "--num-sequences", "2", "--sequence-length", "16"];
    let mut command = project.command(&[&["run", "scripts/01_olmoe_1b_7b.rhai"], &words[..]].concat());
    let outcome = crate::project::Outcome::of(command.env("HF_ENDPOINT", &hub.address).output().unwrap()).ends(0);
    assert!(outcome.stdout.contains("olmoe_1b_7b"), "{}", outcome.stdout);
    let kept = &project.json("results/olmoe_1b_7b/final_analysis_results.json")["provenance"];
    assert_eq!(kept["tokens"]["source"], format!("{ID}/{SAMPLE}"));
    assert_eq!(kept["tokens"]["revision"], COMMIT);
    let weights = project.files("").into_iter().filter(|file| file.ends_with(".safetensors"));
    assert_eq!(weights.count(), 0, "weights were written");
}

#[test]
fn other_configs_splits_files_and_columns() {
    let (_origin, hub) = hub();
    let project = project();
    let text = |options: &str| {
        let script = load(&format!("dataset: \"{ID}\", {options}, num_sequences: 1, sequence_length: 16"));
        hub.run(&project, &script, None).json()
    };
    let crawl = text("config: \"CC-MAIN-2024-10\"");
    assert_eq!(crawl["source"], format!("{ID}/data/CC-MAIN-2024-10/train-00000-of-00001.parquet"));
    let test = text("config: \"CC-MAIN-2024-10\", split: \"test\"");
    assert_eq!(test["source"], format!("{ID}/data/CC-MAIN-2024-10/test-00000-of-00001.parquet"));
    assert_ne!(test["ids"], crawl["ids"]);
    assert_eq!(text("file: \"data/CC-MAIN-2024-10/test-00000-of-00001.parquet\"")["ids"], test["ids"]);
}

#[test]
fn sequences_can_be_passed_over() {
    let (_origin, hub) = hub();
    let project = project();
    let ids = |options: &str| hub.run(&project, &sample(options), None).json()["ids"].take();
    for windows in
        ["windows: \"tokens\"", "windows: \"tokens\", overlap: 0.5", "windows: \"text\"", "windows: \"documents\""]
    {
        let all = ids(&format!("num_sequences: 5, sequence_length: 16, {windows}"));
        let rest = ids(&format!("num_sequences: 3, skip_sequences: 2, sequence_length: 16, {windows}"));
        assert_eq!(rest.as_array().unwrap()[..], all.as_array().unwrap()[2..], "{windows}");
    }
}

#[test]
fn documents_that_are_too_short_are_passed_over() {
    let (_origin, hub) = hub();
    let ids = |options: &str| hub.run(&project(), &sample(options), None).json()["ids"].take();
    let long = |text: &String| {
        let got = ids_of(text, "num_sequences: 1, sequence_length: 1");
        assert!(got.is_array());
        let outcome = {
            let project = project();
            project.file("text.txt", text);
            project.script(&load("text: \"text.txt\", num_sequences: 1, sequence_length: 120"))
        };
        outcome.code == 0
    };
    let documents: Vec<String> = corpus().concat().into_iter().filter(long).collect();
    assert!(documents.len() > 2 && documents.len() < 12, "{}", documents.len());
    let expected: Vec<Value> = documents[..2]
        .iter()
        .map(|text| ids_of(text, "num_sequences: 1, sequence_length: 120").as_array().unwrap()[0].clone())
        .collect();
    assert_eq!(ids("num_sequences: 2, sequence_length: 120, windows: \"documents\""), json!(expected));
}

#[test]
fn shuffled_by_a_seed() {
    let (origin, hub) = hub();
    let project = project();
    let ids = |options: &str| {
        hub.run(
            &project,
            &sample(&format!("num_sequences: 6, sequence_length: 8, windows: \"documents\", {options}")),
            None,
        )
        .json()["ids"]
            .take()
    };
    let (plain, one, two) = (ids(""), ids("shuffle: true, seed: 1"), ids("shuffle: true, seed: 2"));
    assert!(one != plain && two != plain && one != two);
    assert_eq!(ids("shuffle: true, seed: 1"), one);
    assert_eq!(ids("shuffle: true"), ids("shuffle: true, seed: 0"));
    // Every document is there, and once: all of them in another order.
    let all = |options: &str| {
        let script = sample(&format!("num_sequences: 12, sequence_length: 8, windows: \"documents\", {options}"));
        let mut all = hub.run(&project, &script, None).json()["ids"].as_array().unwrap().clone();
        all.sort_by_key(Value::to_string);
        all
    };
    assert_eq!(all("shuffle: true, seed: 3"), all(""));
    // Six documents are two row groups of three.
    let fresh = self::project();
    hub.cdn.sent();
    let script = sample("num_sequences: 6, sequence_length: 8, windows: \"documents\", shuffle: true, seed: 1");
    assert_eq!(hub.run(&fresh, &script, None).json()["ids"], one);
    let columns = hub.cdn.sent()[&origin.path(SAMPLE)].len();
    assert!(columns <= 3, "the footer and two row groups, not {columns} ranges");
    // A local file is shuffled in the same way.
    fresh.file("docs.parquet", origin.bytes(SAMPLE));
    let options = "num_sequences: 6, sequence_length: 8, windows: \"documents\", shuffle: true, seed: 1";
    assert_eq!(fresh.script(&load(&format!("text: \"docs.parquet\", {options}"))).json()["ids"], one);
}

#[test]
fn files_of_many_documents() {
    let project = project();
    let documents = corpus().concat();
    let lines =
        |key: &str| documents.iter().map(|text| format!("{}\n\n", json!({ key: text, "n": 1 }))).collect::<String>();
    project.file("docs.jsonl", lines("text")).file("other.jsonl", lines("content"));
    for (name, compression) in [("snappy", Compression::SNAPPY), ("zstd", zstd()), ("none", Compression::UNCOMPRESSED)]
    {
        parquet(&project.path(&format!("{name}.parquet")), &corpus(), compression);
    }
    let options = "num_sequences: 20, sequence_length: 16, overlap: 0.25";
    let expected = ids_of(&joined(), options);
    for (file, column) in [
        ("docs.jsonl", ""),
        ("other.jsonl", "column: \"content\", "),
        ("snappy.parquet", ""),
        ("zstd.parquet", "column: \"text\", "),
        ("none.parquet", ""),
    ] {
        let tokens = project.script(&load(&format!("text: \"{file}\", {column}{options}"))).json();
        assert_eq!((&tokens["ids"], &tokens["source"]), (&expected, &json!(file)));
        assert!(tokens["revision"].is_null());
    }
}

#[test]
fn damaged_and_wrong_files() {
    let project = project();
    parquet(&project.path("docs.parquet"), &corpus(), zstd());
    let whole = project.bytes("docs.parquet");
    let one = "num_sequences: 1, sequence_length: 8";
    let refuses = |file: &str, options: &str, code: i32, message: &str, hint: &str| {
        project.refuses(&load(&format!("text: \"{file}\", {options}{one}")), code, message, hint);
    };
    refuses(
        "docs.parquet",
        "column: \"txet\", ",
        FAILED,
        "reading docs.parquet: no column \"txet\"",
        "did you mean `text`?",
    );
    refuses("docs.parquet", "column: \"n\", ", FAILED, "column \"n\" holds INT64, not text", "a column of strings");
    project.file("cut.parquet", &whole[..whole.len() - 100]);
    refuses("cut.parquet", "", FAILED, "reading cut.parquet: it does not end like a Parquet file", "download it again");
    project.file("short.parquet", "PAR1");
    refuses("short.parquet", "", FAILED, "too short for a Parquet file", "download it again");
    let mut spoiled = whole.clone();
    let footer = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
    spoiled[whole.len() - 8 - footer..whole.len() - 8].fill(0xff);
    project.file("spoiled.parquet", &spoiled);
    refuses("spoiled.parquet", "", FAILED, "reading spoiled.parquet: ", "download it again");
    project.file("docs.jsonl", "{\"text\": \"fine\"}\n{\"text\": 3}\n");
    refuses(
        "docs.jsonl",
        "",
        FAILED,
        "reading docs.jsonl, line 2: no text under \"text\"",
        "`column` names another key",
    );
    project.file("docs.jsonl", "{\"text\": \"fine\"}\nnot json\n");
    refuses("docs.jsonl", "", FAILED, "reading docs.jsonl, line 2: ", "every line is a JSON object");
    project.file("docs.jsonl", "{\"text\": \"fine\"}\n");
    let documents = "windows: \"documents\", ";
    refuses(
        "docs.jsonl",
        documents,
        FAILED,
        "0 documents, and 1 of fewer tokens",
        "use a smaller sequence_length or more text",
    );
}

#[test]
fn options_that_do_not_go_together() {
    let project = project();
    project.file("text.txt", "To be").file("docs.jsonl", "{\"text\": \"fine\"}\n");
    let refuses = |options: &str, message: &str, hint: &str| project.refuses(&load(options), SCRIPT, message, hint);
    refuses(
        "text: \"a.txt\", dataset: \"a/b\"",
        "give `text` or `dataset`, not both",
        "tokenised by the model's tokenizer",
    );
    refuses("ids: [[1]], dataset: \"a/b\"", "give `ids` or `dataset`, not both", "");
    refuses("text: \"text.txt\", config: \"a\"", "`config` goes with `dataset`", "neither configs nor revisions");
    refuses(
        "dataset: \"a/b\", file: \"x\", config: \"a\"",
        "`config` goes with the choice of a file",
        "leave one of them out",
    );
    let rest = "num_sequences: 1, sequence_length: 8";
    let file = |options: &str| format!("text: {options}, {rest}");
    let separator = file("\"docs.jsonl\", separator: \"-\"");
    refuses(&separator, "`separator` goes with a plain text", "hold documents already");
    let shuffle = file("\"text.txt\", shuffle: true");
    refuses(&shuffle, "`shuffle` goes with several documents", "`separator` cuts it");
    refuses(&file("\"text.txt\", column: \"a\""), "`column` goes with JSON", "");
    refuses(&format!("text: \"docs.jsonl\", seed: 3, {rest}"), "`seed` without `shuffle`", "shuffle: true");
    refuses(&format!("text: \"docs.jsonl\", windows: \"word\", {rest}"), "`windows` is \"word\"", "");
    refuses(&format!("dataset: \"a b\", {rest}"), "dataset \"a b\" is not a hub id", "HuggingFaceFW/fineweb-edu");
}

#[test]
fn datasets_that_are_not_there() {
    let (_origin, hub) = hub();
    let refuses = |options: &str, message: &str, hint: &str| {
        let outcome = hub.run(&project(), &load(&format!("{options}, num_sequences: 1, sequence_length: 8")), None);
        let outcome = outcome.ends(FAILED);
        assert!(outcome.stderr.contains(message) && outcome.stderr.contains(hint), "{}", outcome.stderr);
    };
    refuses("dataset: \"lab/none\"", "dataset \"lab/none\"", "for a private dataset set HF_TOKEN");
    let edu = format!("dataset: \"{ID}\"");
    refuses(
        &format!("{edu}, config: \"sample-9BT\""),
        "no Parquet, JSON or CSV files of a config \"sample-9BT\"",
        "with `file`",
    );
    refuses(&format!("{edu}, config: \"sample-10BT\", split: \"test\""), "has no split \"test\"", "with `file`");
    refuses(&format!("{edu}, file: \"x.parquet\""), "the dataset has no such file", "under \"Files\"");
    refuses(&format!("{edu}, revision: \"v7\""), "no such revision", "of this dataset");
    hub.network(Network { ends_at: Some(0), ..Network::default() });
    refuses(
        &format!("{edu}, config: \"sample-10BT\""),
        "fetching sample/10BT/013_00000.parquet",
        "is the network reachable?",
    );
}

/// Windows that are passed on as text: where a window begins or ends inside a character, text and ids go different ways.
///
/// Made with the Python package tokenizers 0.23.3:
/// ```python
/// buffer, length, texts = " " + TEXT, 28, []
/// while len(texts) < 4:
///     ids = tokenizer.encode(buffer).ids
///     texts.append(tokenizer.decode(ids[:length]))
///     buffer = tokenizer.decode(ids[length // 2:])
/// print([tokenizer.encode(text).ids[:length] for text in texts])
/// ```
#[test]
fn windows_of_text() {
    let text = "The lamp was lit at four o\u{2019}clock; nobody came. \"Who\u{2019}s there?\" she said.\n\n  \
                Two spaces, a tab\there, caf\u{e9} \u{2013} and 3.14.\n";
    let expected = json!([
        [
            221, 354, 279, 385, 80, 493, 279, 275, 464, 272, 330, 288, 159, 223, 248, 67, 76, 79, 376, 27, 387, 66,
            483, 89, 278, 556, 14, 221
        ],
        [
            172, 124, 122, 67, 76, 79, 376, 27, 387, 66, 483, 89, 278, 556, 14, 221, 2, 55, 424, 159, 223, 248, 83,
            503, 31, 2, 486, 592
        ],
        [
            14, 221, 2, 55, 424, 159, 223, 248, 83, 503, 31, 2, 486, 592, 361, 14, 199, 199, 221, 764, 87, 79, 411, 65,
            67, 280, 12, 259
        ],
        [
            361, 14, 199, 199, 221, 764, 87, 79, 411, 65, 67, 280, 12, 259, 257, 65, 66, 198, 258, 265, 12, 278, 65,
            70, 128, 103, 221, 172
        ]
    ]);
    let project = project();
    project.file("docs.jsonl", json!({ "text": text }).to_string());
    let options = "num_sequences: 4, sequence_length: 28, overlap: 0.5";
    let ids = |windows: &str| {
        let script = load(&format!("text: \"docs.jsonl\", {options}, windows: \"{windows}\""));
        project.script(&script).json()["ids"].take()
    };
    assert_eq!(ids("text"), expected);
    assert_ne!(ids("tokens"), expected);
}
