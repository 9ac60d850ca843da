//! Tests of token sequences that cannot be used: none, of unequal length, outside the vocabulary,
//! from damaged files, or from a text that is too short.

use safetensors::Dtype;
use serde_json::Value;

use crate::checkpoint::{self, Array, Arrays};
use crate::project::Project;

/// Exit codes: a wrong script, and a file that is missing or damaged.
const SCRIPT: i32 = 1;
const FILE: i32 = 3;

fn project() -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model");
    project
}

/// An analysis of what `load_tokens(options)` returns.
fn analysis(options: &str) -> String {
    format!(
        "let model = load_model(\"model\");
         let tokens = load_tokens({options});
         let acts = model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"results/full\" }});
         save_results(\"analysis\", #{{ activations: acts, found: acts.detect_outliers() }});"
    )
}

#[track_caller]
fn refuses(project: &Project, options: &str, code: i32, message: &str, hint: &str) {
    project.refuses(&analysis(options), code, message, hint);
}

#[test]
fn good_tokens_pass() {
    let project = project();
    project.file("ids.json", "[[1, 2, 3], [127, 0, 5]]");
    project.script(&analysis("#{ ids: \"ids.json\" }")).ok();
    project.script(&analysis("#{ ids: \"model/reference.safetensors\" }")).ok();
}

#[test]
fn no_tokens() {
    let project = project();
    project.file("empty.json", "[]").file("hollow.json", "[[], []]");
    for (options, code, source) in [
        ("#{ ids: [] }", SCRIPT, "script"),
        ("#{ ids: [[]] }", SCRIPT, "script"),
        ("#{ ids: \"empty.json\" }", FILE, "empty.json"),
        ("#{ ids: \"hollow.json\" }", FILE, "hollow.json"),
    ] {
        let hint = "give at least one sequence of at least one id";
        refuses(&project, options, code, &format!("{source}: no tokens"), hint);
    }
}

#[test]
fn ragged_tokens() {
    let project = project();
    project.file("ids.json", "[[1, 2, 3], [4, 5, 6], [7, 8]]");
    let message = "ids.json: sequence 0 has 3 tokens, sequence 2 has 2";
    refuses(&project, "#{ ids: \"ids.json\" }", FILE, message, "cut them to the shortest");
    refuses(&project, "#{ ids: [[1], [2, 3]] }", SCRIPT, "script: sequence 0 has 1 token,", "cut them to the shortest");
}

#[test]
fn ids_outside_the_vocabulary() {
    let project = project();
    let message = "token id 128 (sequence 1, position 2) is outside the vocabulary of 128";
    let hint = "tokenise with this model's tokenizer.json";
    refuses(&project, "#{ ids: [[1, 2, 3], [1, 2, 128]] }", SCRIPT, message, hint);
    // What a script has written itself is its own mistake, and what a file holds is that of the file.
    project.file("ids.json", "[[1, 2, 3], [1, 2, 128]]");
    refuses(&project, "#{ ids: \"ids.json\" }", FILE, message, hint);
}

#[test]
fn files_that_are_not_ids() {
    let project = project();
    let hint = "expected an array of arrays of token ids";
    for text in
        ["", "[[1, 2], [3, 4]", "{\"ids\": [[1]]}", "[1, 2]", "[[1, -2]]", "[[1.5]]", "[[4294967296]]", "[[\"a\"]]"]
    {
        project.file("ids.json", text);
        refuses(&project, "#{ ids: \"ids.json\" }", FILE, "reading ids.json: ", hint);
    }
    refuses(&project, "#{ ids: \"missing.json\" }", FILE, "reading missing.json: No such file", "load_tokens");
    for ids in ["[1, 2]", "[[1, -2]]", "[[1.5]]", "[[\"a\"]]", "[[4294967296]]", "[()]"] {
        let message = "`ids` is not an array of arrays of token ids";
        refuses(&project, &format!("#{{ ids: {ids} }}"), SCRIPT, message, "such as [[1, 2], [3, 4]]");
    }
    refuses(
        &project,
        "#{ ids: 5 }",
        SCRIPT,
        "load_tokens: `ids` is 5, expected the path of a file or an array",
        "outlier doc load_tokens",
    );
}

/// What people give as ids, what it is called, and what to do.
#[test]
fn ids_in_another_shape_are_called_by_their_name() {
    let project = project();
    for (file, data, message, hint) in [
        ("ids.json", &b"[[1, 2, -100], [3, 4, 5]]"[..], "-100 is no token id (sequence 0, position 2)", "padding"),
        ("ids.json", b"[[1, 2], [3, -1]]", "-1 is no token id (sequence 1, position 1)", "padding"),
        ("ids.json", b"[[1, 2.0]]", "2.0 is no whole number (sequence 0, position 1)", "array.astype(int)"),
        ("ids.json", b"[[1, 4294967296]]", "4294967296 is too large", "such as [[1, 2]"),
        ("ids.json", b"[1, 2, 3]", "a flat list of numbers", "[[1, 2, 3]]"),
        ("ids.json", b"[[[1, 2], [3, 4]]]", "a list where an id must be (sequence 0, position 0)", "nested too deep"),
        ("ids.json", b"[[\"1\", \"2\"]]", "a text where an id must be", "without quotes"),
        ("ids.json", b"[[1, null]]", "null where an id must be (sequence 0, position 1)", "such as"),
        (
            "ids.json",
            b"{\"input_ids\": [[1, 2], [3, 4]]}",
            "an object, with the list under `input_ids`",
            "jq .input_ids FILE",
        ),
        ("ids.json", b"{\"tokens\": [[1, 2]], \"n\": 1}", "an object, with the list under `tokens`", "jq .tokens"),
        ("ids.json", b"{\"a\": [1], \"b\": [2]}", "an object of 2 keys", "one list must hold"),
        (
            "ids.json",
            b"[{\"input_ids\": [1, 2]}]",
            "sequence 0 is an object, with the list under `input_ids`",
            "jq '[.[].input_ids]'",
        ),
        ("ids.json", b"[[1, 2], 3]", "sequence 1 is a number", "such as"),
        ("ids.json", b"\"1 2 3\"", "a text, and no list", "such as"),
        ("ids.json", b"[[1, 2], [3, 4],]", "not valid JSON: line 1, column 17: a comma before `]`", "such as"),
        ("ids.json", b"[[1, 2], [3", "not valid JSON: line 1, column 11: the text ends inside a list", "such as"),
        ("ids.jsonl", b"[1, 2]\n[3, 4]\n", "several JSON values one after the other, as in JSON Lines", "jq -s . FILE"),
        ("ids.jsonl", b"{\"input_ids\": [1]}\n{\"input_ids\": [2]}\n", "as in JSON Lines", "jq -s"),
        ("ids.npy", b"\x93NUMPY\x01\0v\0{'descr'", "this is a NumPy file", "array.tolist()"),
        ("ids.npz", b"PK\x03\x04abc", "this is a NumPy file", "array.tolist()"),
        ("ids.pt", b"PK\x03\x04abc", "this is a PyTorch file", "array.tolist()"),
        ("ids.pkl", b"\x80\x04\x95abc", "this is a pickle file", "array.tolist()"),
        ("ids.parquet", b"PAR1abcPAR1", "this is a Parquet file", "array.tolist()"),
        ("ids", b"\x10\0\0\0\0\0\0\0{\"input_ids\":{}}", "this is a safetensors file", "tensor: \"input_ids\""),
    ] {
        project.file(file, data);
        refuses(
            &project,
            &format!("#{{ ids: \"{file}\" }}"),
            FILE,
            &format!("reading {file}: "),
            "expected an array of arrays",
        );
        refuses(&project, &format!("#{{ ids: \"{file}\" }}"), FILE, message, hint);
    }
    // The same in a script.
    for (ids, message) in [
        ("[[1, 2, -100]]", "-100 is no token id (sequence 0, position 2)"),
        ("[1, 2]", "a flat list of numbers"),
        ("[[1.5]]", "1.5 is no whole number"),
        ("[[[1]]]", "a list where an id must be"),
        ("[#{ input_ids: [1] }]", "sequence 0 is an object, with the list under `input_ids`"),
    ] {
        refuses(&project, &format!("#{{ ids: {ids} }}"), SCRIPT, message, "such as [[1, 2], [3, 4]]");
    }
    // What else is in a file is not shown.
    project.file("ids.json", "{\"hf_secret_key\": \"hf_secret\", \"x\": [\"hf_secret\"]}");
    let outcome = project.script(&analysis("#{ ids: \"ids.json\" }")).ends(FILE);
    assert!(!outcome.stderr.contains("hf_secret"), "{}", outcome.stderr);
}

#[test]
fn safetensors_without_the_tensor() {
    let project = project();
    let options = |tensor: &str| format!("#{{ ids: \"model/reference.safetensors\", tensor: \"{tensor}\" }}");
    let message = "reading model/reference.safetensors: no tensor `input_idz`";
    refuses(&project, &options("input_idz"), FILE, message, "did you mean `input_ids`?");
    refuses(&project, &options("zebra"), FILE, "no tensor `zebra`", "`input_ids`");
    let message = "`last_logits` is F32, expected integers";
    refuses(&project, &options("last_logits"), FILE, message, "I32 or I64");
}

#[test]
fn safetensors_that_hold_no_sequences() {
    let project = project();
    let ids = |shape: &[usize], ids: &[i64]| {
        Array::new(Dtype::I64, shape, ids.iter().flat_map(|id| id.to_le_bytes()).collect())
    };
    let arrays = [
        ("flat", ids(&[4], &[1, 2, 3, 4])),
        ("negative", ids(&[1, 2], &[1, -1])),
        ("large", ids(&[1, 2], &[1, 1 << 40])),
        ("none", ids(&[0, 2], &[])),
        ("hollow", ids(&[2, 0], &[])),
    ];
    let arrays: Arrays = arrays.map(|(name, array)| (name.to_string(), array)).into();
    checkpoint::write(&project.path("ids.safetensors"), &arrays);
    for (tensor, message, hint) in [
        ("flat", "`flat` has shape [4], expected [sequences, positions]", "has the shape [1, n]"),
        ("negative", "`negative` holds a negative or too large id", "padding"),
        ("large", "`large` holds a negative or too large id", "padding"),
        ("none", "ids.safetensors: no tokens", "give at least one sequence"),
        ("hollow", "ids.safetensors: no tokens", "give at least one sequence"),
    ] {
        refuses(&project, &format!("#{{ ids: \"ids.safetensors\", tensor: \"{tensor}\" }}"), FILE, message, hint);
    }
}

#[test]
fn damaged_safetensors() {
    let project = project();
    let data = project.bytes("model/reference.safetensors");
    for length in [0, 7, 100, data.len() - 1] {
        project.file("ids.safetensors", &data[..length]);
        let message = "reading ids.safetensors: ";
        refuses(&project, "#{ ids: \"ids.safetensors\" }", FILE, message, "the file is damaged or not safetensors");
    }
}

/// The llama fixture with the tokenizer and a text.
fn with_text(text: &str) -> Project {
    let project = project();
    project.copy("examples/shakespeare-olmoe/tokenizer.json", "model/tokenizer.json").file("text.txt", text);
    project
}

fn text(num_sequences: &str, sequence_length: &str, more: &str) -> String {
    format!(
        "#{{ text: \"text.txt\", model: model, num_sequences: {num_sequences}, \
         sequence_length: {sequence_length}{more} }}"
    )
}

#[test]
fn sequences_longer_than_the_text() {
    let project = with_text("To be, or not to be.");
    let message = "text.txt: the text gives";
    refuses(&project, &text("1", "500", ""), FILE, message, "use a sequence_length of at most");
    refuses(&project, &text("9", "4", ""), FILE, message, "use num_sequences: ");
    refuses(&project, &text("9", "4", ", overlap: 0.5"), FILE, message, "use num_sequences: ");
    project.file("text.txt", "");
    refuses(&project, &text("1", "1", ""), FILE, "the text gives 0 tokens", "more text");
}

#[test]
fn documents_that_are_too_few_or_too_short() {
    let project = with_text("One short document.--Another short one.--");
    let separated = ", separator: \"--\"";
    let message = "text.txt: 2 documents between separators, num_sequences is 3";
    refuses(&project, &text("3", "2", separated), FILE, message, "use num_sequences: 2 or more text");
    let message = "text.txt: document 0 gives sequences of at most";
    refuses(&project, &text("2", "300", separated), FILE, message, "use a smaller sequence_length");
}

#[test]
fn windows_that_make_no_sense() {
    let project = with_text("To be, or not to be.");
    refuses(&project, &text("0", "4", ""), SCRIPT, "num_sequences is 0", "at least 1");
    refuses(&project, &text("1", "0", ""), SCRIPT, "sequence_length is 0", "at least 1");
    for overlap in ["1.0", "-0.1", "50"] {
        let options = text("1", "4", &format!(", overlap: {overlap}"));
        refuses(&project, &options, SCRIPT, "overlap is", "0.5 repeats half of each window");
    }
}

#[test]
fn text_without_a_tokenizer() {
    let project = project();
    project.file("text.txt", "To be, or not to be.");
    refuses(&project, &text("1", "4", ""), FILE, "model/tokenizer.json: no such file", "load_tokens(#{ ids:");
    project.file("model/tokenizer.json", "{\"version\": \"1.0\"");
    refuses(&project, &text("1", "4", ""), FILE, "reading model/tokenizer.json: ", "fetch it again");
}

#[test]
fn text_that_cannot_be_read() {
    let project = with_text("");
    let missing = text("1", "4", "").replace("text.txt", "missing.txt");
    refuses(&project, &missing, FILE, "reading missing.txt: No such file", "load_tokens");
    project.file("text.txt", [b'a', 0xff, 0xfe]);
    refuses(&project, &text("1", "4", ""), FILE, "reading text.txt: ", "UTF-8");
}

/// The tokenizer with another value of a key of its model.
fn with_model_key(key: &str, value: Value) -> Project {
    let project = with_text("To be, or not to be.");
    let mut tokenizer = project.json("model/tokenizer.json");
    tokenizer["model"][key] = value;
    project.file("model/tokenizer.json", tokenizer.to_string());
    project
}

#[test]
fn merges_that_are_left_out_at_random_are_refused() {
    let message = "reading model/tokenizer.json: `dropout` of its model is 0.5";
    refuses(&with_model_key("dropout", 0.5.into()), &text("1", "4", ""), FILE, message, "set `dropout` to null");
    for none in [Value::Null, 0.0.into()] {
        let load = format!("let model = load_model(\"model\"); load_tokens({});", text("1", "4", ""));
        with_model_key("dropout", none).script(&load).ends(0);
    }
}

#[test]
fn merges_that_do_not_fit_the_vocabulary_are_told_in_words() {
    let project = with_model_key("continuing_subword_prefix", "a long prefix".into());
    let message = "reading model/tokenizer.json: parts of tokenizer.json do not fit each other";
    refuses(&project, &text("1", "4", ""), FILE, message, "correct the file there");
}
