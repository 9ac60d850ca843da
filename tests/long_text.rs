//! Tests of texts that are far longer than the sequences made of them: they take the memory of one
//! piece, give the ids of the whole text, and end at the first signal.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ExitStatus, Stdio};

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::interrupt::{ending, interrupt, start};
use crate::project::{Project, repository};

/// Bytes of a text that is long.
const LONG: usize = 20 << 20;
/// Kilobytes that no window of it needs: a tokenizer of it all takes gigabytes.
const FEW: u64 = 400 << 10;

fn example() -> Value {
    let path = repository().join("examples/shakespeare-olmoe/tokenizer.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The example's tokens as other families spell and split them.
fn families() -> Vec<(&'static str, Value)> {
    let gpt2 = example();
    let mut llama3 = example();
    let pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    llama3["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
    ]});
    llama3["normalizer"] = json!({ "type": "NFC" });
    // The blank is a letter of its own, in front of words.
    let spelled = example().to_string().replace('\u{120}', "\u{2581}");
    let mut llama2: Value = serde_json::from_str(&spelled).unwrap();
    llama2["pre_tokenizer"] = Value::Null;
    llama2["model"]["unk_token"] = "<|endoftext|>".into();
    llama2["model"]["fuse_unk"] = true.into();
    let blank = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" });
    let prepend = json!({ "type": "Prepend", "prepend": "\u{2581}" });
    llama2["normalizer"] = json!({ "type": "Sequence", "normalizers": [prepend, blank] });
    llama2["decoder"] = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " },
        { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
    ]});
    let metaspace = |scheme: &str, split: bool| {
        let mut metaspace = llama2.clone();
        metaspace["normalizer"] = Value::Null;
        let parts = json!({ "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split });
        metaspace["pre_tokenizer"] = parts.clone();
        metaspace["decoder"] = parts;
        metaspace
    };
    let always = metaspace("always", true);
    let first = metaspace("first", false);
    vec![("gpt2", gpt2), ("llama3", llama3), ("llama2", llama2), ("metaspace", always), ("first", first)]
}

/// Words, numbers, signs, blanks, other scripts and long runs, the same from the same seed.
fn text(bytes: usize, seed: u64) -> String {
    const PARTS: &[&str] = &[
        " the",
        " and",
        " nobler",
        " question",
        ",",
        ".",
        "\n",
        "\n\n",
        "   ",
        "  \n ",
        "\t",
        " don't",
        " \u{201c}",
        "\u{201d}",
        " 1234567890",
        " 3.14",
        " caf\u{e9}",
        " e\u{301}",
        "\u{4e2d}\u{6587}\u{5b57}",
        "\u{3002}",
        " \u{1f600}",
        "--",
        "!?",
        " a",
        " To be, or not to be",
        "<|endoftext|>",
        " x=y+z;",
        "\u{a0}",
        "\r\n",
        "ABC",
    ];
    let mut dice = seed;
    let mut text = String::from("Whether");
    while text.len() < bytes {
        dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let roll = (dice >> 33) as usize;
        match roll % 4000 {
            0 => text.push_str(&"a".repeat(roll % 9000)),
            1 => text.push_str(&" ".repeat(roll % 3000)),
            2 => text.push_str(&"7".repeat(roll % 3000)),
            3 => text.push_str(&"\u{6587}\u{5b57}".repeat(roll % 3000)),
            other => text.push_str(PARTS[other % PARTS.len()]),
        }
    }
    text
}

fn project(tokenizer: &Value) -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/olmoe", "model").file("model/tokenizer.json", tokenizer.to_string());
    project
}

/// Ids as one sequence.
fn ids(project: &Project, options: &str) -> Vec<Vec<u32>> {
    let script = format!("print(load_tokens(#{{ model: load_model(\"model\"), {options} }}).ids.to_json());");
    serde_json::from_value(project.script(&script).json()).unwrap()
}

#[test]
fn ids_of_pieces_are_those_of_the_whole() {
    for (name, family) in families() {
        let tokenizer = Tokenizer::from_bytes(family.to_string()).unwrap();
        let project = project(&family);
        for seed in 0..3 {
            let text = text(400_000, seed);
            let whole = tokenizer.encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
            project.file("text.txt", &text);
            let options = |count: usize| {
                format!("text: \"text.txt\", num_sequences: 1, sequence_length: {count}, add_special_tokens: false")
            };
            let pieces = ids(&project, &options(whole.len())).remove(0);
            let differs = whole.iter().zip(&pieces).position(|(a, b)| a != b);
            assert_eq!((pieces.len(), differs), (whole.len(), None), "{name}, seed {seed}");
            // The beginning alone is the beginning of the whole, also as a document.
            let windows = format!("{}, windows: \"documents\"", options(50_000));
            assert_eq!(ids(&project, &windows)[0], whole[..50_000], "{name}, seed {seed}");
        }
    }
}

#[test]
fn windows_of_texts_are_those_of_the_whole() {
    for (name, family) in families() {
        let tokenizer = Tokenizer::from_bytes(family.to_string()).unwrap();
        let project = project(&family);
        let mut text = text(400_000, 5);
        project.file("text.txt", &text);
        let encode = |text: &str| tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
        let decode = |ids: &[u32]| tokenizer.decode(ids, true).unwrap();
        let mut expected = Vec::new();
        for _ in 0..6 {
            let ids = encode(&text);
            expected.push(encode(&decode(&ids[..64])));
            text = decode(&ids[32..]);
        }
        let shortest = expected.iter().map(Vec::len).min().unwrap().min(64);
        expected.iter_mut().for_each(|ids| ids.truncate(shortest));
        let options = "text: \"text.txt\", num_sequences: 4, skip_sequences: 2, sequence_length: 64, overlap: 0.5, \
                       windows: \"text\", add_special_tokens: false";
        let got = ids(&project, options);
        assert_eq!(got.iter().map(|ids| &ids[..shortest]).collect::<Vec<_>>(), expected[2..], "{name}");
    }
}

/// How a program ended, and the most memory that it was seen to use, in kilobytes. Not the figure that `wait4` gives: a child
/// begins with that of its parent, here the process of all tests.
fn measured(child: &mut Child) -> (ExitStatus, u64) {
    let (path, mut most) = (format!("/proc/{}/status", child.id()), 0);
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let seen = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(seen.unwrap_or(0));
        if let Some(status) = child.try_wait().unwrap() {
            return (status, most);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_long_text_costs_no_more_than_its_windows() {
    let project = project(&example());
    let line = "To be, or not to be, that is the question: whether it is nobler in the mind to suffer. ";
    let text = line.repeat(LONG / line.len());
    project.file("text.txt", &text).file("one.jsonl", json!({ "text": text }).to_string());
    project.file("many.jsonl", format!("{}\n", json!({ "text": line })).repeat(LONG / line.len()));
    let gzip = |data: String| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    project.file("one.json", json!([text]).to_string()).file("text.txt.gz", gzip(text.clone()));
    let many =
        |before: &str, one: String, between: &str| format!("{before}{}", vec![one; LONG / line.len()].join(between));
    project.file("many.json", many("[", json!({ "text": line }).to_string(), ",\n") + "]");
    project.file("many.csv", many("text,n\n", format!("\"{line}\",1"), "\n"));
    project.file("one.csv", format!("text,n\n\"{text}\",1\n"));
    project.file("many.jsonl.gz", gzip(many("", json!({ "text": line }).to_string(), "\n")));
    // Far more than there is memory, in a few kilobytes.
    let block = zstd::bulk::compress(&vec![b' '; 64 << 20], 1).unwrap();
    project.file("blanks.jsonl.zst", block.repeat(64));
    project.file("gap.jsonl", format!("{}\n", json!({ "other": [line], "text": line })).repeat(LONG / 2 / line.len()));
    for options in [
        "text: \"text.txt\"",
        "text: \"text.txt\", windows: \"text\"",
        "text: \"text.txt\", separator: \"?\", windows: \"tokens\"",
        "text: \"one.jsonl\"",
        "text: \"many.jsonl\"",
        "text: \"many.jsonl\", shuffle: true",
        "text: \"gap.jsonl\", windows: \"documents\"",
        "text: \"text.txt.gz\"",
        "text: \"one.json\"",
        "text: \"many.json\"",
        "text: \"many.csv\"",
        "text: \"many.csv\", shuffle: true",
        "text: \"one.csv\"",
        "text: \"many.jsonl.gz\", shuffle: true",
    ] {
        let script = format!(
            "let model = load_model(\"model\");
             load_tokens(#{{ {options}, model: model, num_sequences: 2, sequence_length: 16 }});"
        );
        project.file("script.rhai", script);
        let mut child =
            project.command(&["run", "script.rhai"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (status, kilobytes) = measured(&mut child);
        assert!(status.success(), "{options}: {status}");
        assert!(kilobytes < FEW, "{options}: {kilobytes} kB");
    }
    let name = "blanks.jsonl.zst";
    let script = format!(
        "let model = load_model(\"model\");
         load_tokens(#{{ text: {name:?}, model: model, num_sequences: 2, sequence_length: 16 }});"
    );
    project.file("script.rhai", script);
    let mut child =
        project.command(&["run", "script.rhai"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (status, kilobytes) = measured(&mut child);
    assert_eq!(status.code(), Some(3), "{name}");
    assert!(kilobytes < 4 * FEW, "{name}: {kilobytes} kB");
}

#[test]
fn tokenising_ends_at_the_first_signal() {
    let project = project(&example());
    project.file("text.txt", "To be, or not to be, that is the question. ".repeat(1 << 20));
    // More than the text has: without the signal, the end is another error.
    let script = "let model = load_model(\"model\"); print(\"begun\");
                  try {
                      load_tokens(#{ text: \"text.txt\", model: model, num_sequences: 1048576, sequence_length: 128 });
                  } catch (e) { print(e.kind); }";
    project.file("script.rhai", script);
    let mut child = start(&project, &["run", "script.rhai"]);
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    interrupt(&child);
    ending(child).ends(130);
    line.clear();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "interrupted\n");
}
