//! Tests of the way from text to token ids: the model's own tokenizer.json, windows with and
//! without overlap, special tokens, and documents.
//!
//! The ids were made with the Python package tokenizers 0.23.3:
//! ```python
//! from tokenizers import Tokenizer
//! ids = Tokenizer.from_file("examples/shakespeare-olmoe/tokenizer.json").encode(TEXT).ids
//! [ids[i:i+16] for i in range(0, 64, 16)]    # four windows; with overlap 0.5: range(0, 40, 8)
//! ```

use serde_json::{Value, json};

use crate::project::Project;

const TEXT: &str = "The lamp was lit at four o\u{2019}clock; nobody came. \"Who\u{2019}s there?\" she said.\n\n  \
                    Two spaces, a tab\there, caf\u{e9} \u{2013} and 3.14.\n";

const IDS: [u32; 77] = [
    354, 279, 385, 80, 493, 279, 275, 464, 272, 330, 288, 159, 223, 248, 67, 76, 79, 376, 27, 387, 66, 483, 89, 278,
    556, 14, 221, 2, 55, 424, 159, 223, 248, 83, 503, 31, 2, 486, 592, 361, 14, 199, 199, 221, 764, 87, 79, 411, 65,
    67, 280, 12, 259, 257, 65, 66, 198, 258, 265, 12, 278, 65, 70, 128, 103, 221, 159, 223, 242, 296, 221, 19, 14, 17,
    20, 14, 199,
];

/// A project with the example model's tokenizer and the text.
fn project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model").file("text.txt", TEXT);
    project
}

fn ids(project: &Project, options: &str) -> Value {
    let script = format!(
        "let model = load_model(\"model\");
         print(load_tokens(#{{ text: \"text.txt\", model: model, {options} }}).ids.to_json());"
    );
    project.script(&script).json()
}

#[test]
fn one_sequence_of_all_tokens() {
    assert_eq!(ids(&project(), "num_sequences: 1, sequence_length: 77"), json!([IDS.to_vec()]));
}

#[test]
fn windows() {
    let windows: Vec<&[u32]> = IDS.chunks_exact(16).collect();
    assert_eq!(ids(&project(), "num_sequences: 4, sequence_length: 16"), json!(windows));
    assert_eq!(ids(&project(), "num_sequences: 4, sequence_length: 16, overlap: 0.0"), json!(windows));
}

#[test]
fn windows_that_overlap_by_half() {
    let windows: Vec<&[u32]> = (0..5).map(|i| &IDS[8 * i..8 * i + 16]).collect();
    assert_eq!(ids(&project(), "num_sequences: 5, sequence_length: 16, overlap: 0.5"), json!(windows));
}

#[test]
fn straight_quotes() {
    let got = ids(&project(), "num_sequences: 1, sequence_length: 16, straight_quotes: true");
    assert_eq!(got, json!([[354, 279, 385, 80, 493, 279, 275, 464, 272, 330, 288, 7, 67, 76, 79, 376]]));
}

#[test]
fn the_same_text_by_another_way() {
    // Token ids given by hand name the same sequences: the hash is over the ids.
    let script = format!(
        "let model = load_model(\"model\");
         let read = load_tokens(#{{ text: \"text.txt\", model: model, num_sequences: 1, sequence_length: 77 }});
         let given = load_tokens(#{{ ids: [{IDS:?}] }});
         print(read.sha256 == given.sha256 && read.source == \"text.txt\" && given.source == \"script\");
         print(given.sha256);"
    );
    // hashlib.sha256(struct.pack("<77I", *ids)).hexdigest()
    let hash = "e83de52113c7e78b34490e54811f47094962281f6100c6f7ea4475b588d817b5";
    assert_eq!(project().script(&script).ok(), format!("true\n{hash}\n"));
}

/// A tokenizer of five words that puts `<s>` in front of a text.
fn with_special_tokens() -> Project {
    let project = project();
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
            "special_tokens": { "<s>": { "id": "<s>", "ids": [0], "tokens": ["<s>"] } },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "unk_token": "<unk>", "vocab": {
            "<s>": 0, "</s>": 1, "<unk>": 2, "one": 3, "two": 4, "three": 5, "four": 6, "five": 7 } },
    });
    project.file("model/tokenizer.json", tokenizer.to_string()).file("text.txt", "one two three four five");
    project
}

#[test]
fn special_tokens_stand_in_every_sequence() {
    // Tokenizer.encode("one two three four five").ids == [0, 3, 4, 5, 6, 7]
    let project = with_special_tokens();
    assert_eq!(ids(&project, "num_sequences: 1, sequence_length: 6"), json!([[0, 3, 4, 5, 6, 7]]));
    assert_eq!(ids(&project, "num_sequences: 2, sequence_length: 3"), json!([[0, 3, 4], [0, 5, 6]]));
    let overlapping = ids(&project, "num_sequences: 4, sequence_length: 3, overlap: 0.5");
    assert_eq!(overlapping, json!([[0, 3, 4], [0, 4, 5], [0, 5, 6], [0, 6, 7]]));
    let without = ids(&project, "num_sequences: 2, sequence_length: 2, add_special_tokens: false");
    assert_eq!(without, json!([[3, 4], [5, 6]]));
}

#[test]
fn special_tokens_need_room() {
    let project = with_special_tokens();
    let script = "let m = load_model(\"model\");
                  load_tokens(#{ text: \"text.txt\", model: m, num_sequences: 1, sequence_length: 1 });";
    project.refuses(script, 1, "sequence_length is 1, of which special tokens take 1", "add_special_tokens: false");
}

#[test]
fn documents() {
    let project = with_special_tokens();
    // Each document by itself: [0, 3, 4, 5] and [0, 6, 7, 2].
    project.file("text.txt", "one two three\n---\nfour five six\n---\n");
    let options = "num_sequences: 2, sequence_length: 4, separator: \"---\"";
    assert_eq!(ids(&project, options), json!([[0, 3, 4, 5], [0, 6, 7, 2]]));
    let options = "num_sequences: 2, sequence_length: 2, separator: \"---\"";
    assert_eq!(ids(&project, options), json!([[0, 3], [0, 6]]));
}

#[test]
fn a_script_encodes_and_decodes_with_the_models_tokenizer() {
    let script = r#"
        let model = load_model("model");
        let text = TEXT;
        let ids = model.encode(text);
        print(ids.to_json());
        print(model.decode(ids) == text);
        print(model.encode([text, "The lamp"]) == [ids, ids.extract(0, 4)]);
        print(model.decode([ids.extract(0, 4), []]).to_json());
        print(model.decode(ids.extract(0, 4).map(|id| [id])).to_json());
        print(model.encode("").to_json() + model.decode([]) + model.encode([]).to_json());
        let tokens = load_tokens(#{ ids: [ids.extract(0, 4)] });
        print(model.decode(tokens.ids[0]));
    "#;
    let said = project().script(&script.replace("TEXT", &json!(TEXT).to_string())).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(serde_json::from_str::<Vec<u32>>(lines[0]).unwrap(), IDS);
    let rest = ["true", "true", r#"["The lamp",""]"#, r#"["The"," l","am","p"]"#, "[][]", "The lamp"];
    assert_eq!(lines[1..], rest, "{said}");
}

#[test]
fn special_tokens_are_added_and_left_out_as_asked() {
    let project = with_special_tokens();
    let script = r#"
        let model = load_model("model");
        print(model.encode("one two").to_json());
        print(model.encode("one two", #{ add_special_tokens: false }).to_json());
        print(model.decode([0, 3, 4]));
        print(model.decode([0, 3, 4], #{ skip_special_tokens: true }));
        for ids in [[1, 99], [-1], ["one"], [[1], 2]] {
            try { model.decode(ids); print("?"); } catch (e) { print(`${e.message}`); }
        }
        try { model.encode(["one", 2]); } catch (e) { print(e.message); }
    "#;
    let said = project.script(script).ok();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..4], ["[0,3,4]", "[3,4]", "<s> one two", "one two"], "{said}");
    assert_eq!(lines[4], "decode: id 99 at position 1 is no token of this tokenizer");
    assert!(lines[5..8].iter().all(|line| line.contains("not an array of token ids")), "{said}");
    assert_eq!(lines[8..], ["encode: texts[1] is of type i64, expected a string"], "{said}");
}

#[test]
fn texts_of_a_script_become_windows() {
    let project = project();
    let texts = |options: &str| {
        let script = format!(
            "let model = load_model(\"model\");
             let tokens = load_tokens(#{{ texts: [{}, \"The lamp was lit at four\"], model: model, {options} }});
             print(#{{ ids: tokens.ids, source: tokens.source }}.to_json());",
            json!(TEXT)
        );
        project.script(&script)
    };
    let got = texts("sequence_length: 8").json();
    assert_eq!(got["source"], "script");
    assert_eq!(got["ids"], json!([IDS[..8], [354, 279, 385, 80, 493, 279, 275, 464]]));
    assert_eq!(texts("sequence_length: 8, skip_sequences: 1").json()["ids"].as_array().unwrap().len(), 1);
    // All texts as one stream.
    let stream = texts("sequence_length: 16, num_sequences: 5, windows: \"tokens\"").json();
    assert_eq!(stream["ids"].as_array().unwrap().len(), 5);
    let short = texts("sequence_length: 40").ends(3).stderr;
    assert!(short.contains("script: document 1 gives sequences of at most"), "{short}");
    for (options, said) in [
        ("sequence_length: 8, shuffle: true", "`shuffle` goes with a file, not with `texts`"),
        ("sequence_length: 8, text: \"text.txt\"", "give `text` or `texts`, not both"),
        ("num_sequences: 1", "option `sequence_length` is missing"),
        ("sequence_length: 8, num_sequences: 3", "2 documents, num_sequences is 3"),
    ] {
        let refused = texts(options).stderr;
        assert!(refused.contains(said), "{options}: {refused}");
    }
    let blank = r#"load_tokens(#{ texts: ["a", " "], model: load_model("model"), sequence_length: 1 });"#;
    assert!(project.script(blank).ends(1).stderr.contains("texts[1] is blank"));
}
