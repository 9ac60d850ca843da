//! Token ids from JSON and safetensors files, and texts from JSON Lines and Parquet files.

use std::path::Path;

use serde_json::json;

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
        "let model = load_model(\"m\");\nlet t = load_tokens(#{{ ids: {source} }});\nprint(model.extract_layernorms(t).norms.len());\n"
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

pub fn parquet(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let whole = workshop.table.clone();
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
