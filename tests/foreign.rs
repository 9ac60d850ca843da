//! Tests that a file in a format of another program has the same name wherever it is given: as a
//! text, as a model, in a model's folder, as `model.safetensors`, or as token ids. No such file is
//! measured as plain text, and none is called damaged.

use crate::project::Project;

const FAILED: i32 = 3;
const PROSE: &str = "To be, or not to be: that is the question, whether 'tis nobler in the mind to suffer.";
const ANNEX: &str =
    "/annex/objects/SHA256E-s2147483648--4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n";

fn text_project() -> Project {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    project
}

fn load_text(name: &str) -> String {
    format!(
        "load_tokens(#{{ text: \"{name}\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 8, windows: \"tokens\" }});"
    )
}

#[track_caller]
fn is_no_text(name: &str, data: impl AsRef<[u8]>, message: &str, hint: &str) {
    let project = text_project();
    project.file(name, data);
    project.refuses(&load_text(name), FAILED, &format!("{name} is {message}"), hint);
}

/// A model with this file and no other weights.
fn with(name: &str, data: impl AsRef<[u8]>) -> Project {
    let project = Project::new();
    project.copy("tests/fixtures/llama/config.json", "model/config.json").file(&format!("model/{name}"), data);
    project
}

#[track_caller]
fn refuses_model(project: &Project, id: &str, message: &str, hint: &str) {
    let outcome = project.script(&format!("load_model(\"{id}\");")).ends(FAILED);
    let stderr = &outcome.stderr;
    assert!(stderr.contains(message) && stderr.contains(hint), "{message:?} and {hint:?} in\n{stderr}");
    assert!(!stderr.contains("damaged") && !stderr.contains("download it again"), "{stderr}");
}

/// Bytes with NUL among them and no text.
fn stray(begin: &[u8]) -> Vec<u8> {
    [begin, &[0, 1, 2, 3, 0xff, 0xfe, 0, 0, 0, 9], PROSE.as_bytes()].concat()
}

fn tar() -> Vec<u8> {
    let mut tar = vec![0; 512];
    tar[..5].copy_from_slice(b"a.bin");
    tar[257..262].copy_from_slice(b"ustar");
    tar
}

#[test]
fn files_with_the_names_of_weights_are_not_measured_as_plain_text() {
    for (name, what) in [
        ("t.onnx", "an ONNX model"),
        ("t.onnx_data", "an ONNX model"),
        ("t.msgpack", "a MessagePack file"),
        ("t.ggml", "a GGUF file"),
        ("t.keras", "a model of TensorFlow or Keras"),
        ("t.pb", "a model of TensorFlow or Keras"),
        ("t.tflite", "a model for running on devices"),
        ("openvino_model.bin", "an OpenVINO model"),
    ] {
        is_no_text(name, PROSE, what, "");
    }
    // The ending by itself says nothing: programs of all kinds use it.
    let project = text_project();
    project.file("t.bin", PROSE).script(&load_text("t.bin")).ends(0);
}

#[test]
fn weights_given_as_text_have_the_name_that_they_have_as_weights() {
    for (name, data, what) in [
        ("pytorch_model.bin", stray(b"PK\x03\x04"), "a PyTorch file"),
        ("old.bin", stray(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."), "a PyTorch file"),
        ("old.txt", stray(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."), "a PyTorch file"),
        ("model.pth.tar", stray(b"PK\x03\x04"), "a PyTorch file"),
        ("m.keras", stray(b"PK\x03\x04"), "a model of TensorFlow or Keras"),
        ("m.nemo", tar(), "a model for running on devices"),
        ("t.txt", stray(b"GGUF\x01\0\0\0"), "a GGUF file of llama.cpp"),
        ("t.txt", stray(b"tjgg\x03\0\0\0"), "a GGUF file of llama.cpp"),
        ("t.txt", stray(b"\x08\x07\x12\x07pytorch"), "an ONNX model"),
        ("t.txt", stray(b"\x1c\0\0\0TFL3"), "a model for running on devices"),
        ("t.txt", stray(b"\x10\0\0\0\0\0\0\0{\"a\":"), "a safetensors file"),
        ("t.parquet", stray(b"PK\x03\x04"), "a zip archive"),
        ("t.safetensors", stray(b"PK\x03\x04"), "a zip archive"),
    ] {
        is_no_text(name, data, what, "");
    }
}

#[test]
fn pointers_are_told_in_the_same_words_everywhere() {
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2147483648\n";
    let told = "a Git LFS pointer to the file of 2147483648 bytes, which has not been fetched";
    for (pointer, told, hint) in [
        (lfs.to_string(), told, "git lfs pull"),
        (lfs.replace("git-lfs.github", "hawser.github"), told, "git lfs pull"),
        (lfs.replace("size 2147483648\n", ""), "a Git LFS pointer to the file, which has", "git lfs pull"),
        (ANNEX.to_string(), "a git-annex pointer to the file, which has not been fetched", "git annex get"),
    ] {
        for name in ["t.txt", "t.jsonl", "t.parquet", "t"] {
            let project = text_project();
            project.file(name, &pointer);
            project.refuses(&load_text(name), FAILED, &format!("reading {name}: {told}"), hint);
        }
        for name in ["model.safetensors", "model.safetensors.index.json", "config.json"] {
            refuses_model(&with(name, &pointer), "model", told, hint);
        }
        for name in ["ids.json", "ids.safetensors"] {
            let project = Project::new();
            project.file(name, &pointer);
            project.refuses(&format!("load_tokens(#{{ ids: \"{name}\" }});"), FAILED, told, hint);
        }
    }
}

#[test]
fn other_formats_under_the_name_of_safetensors_are_not_called_damaged() {
    for (data, what) in [
        (stray(b"\x80\x04\x95"), "a pickle file"),
        (stray(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."), "a PyTorch file"),
        (stray(b"\x93NUMPY\x01\0"), "a NumPy file"),
        (stray(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
        (stray(b"\x08\x07\x12\x07pytorch"), "an ONNX model"),
        (stray(b"tjgg\x03\0\0\0"), "a GGUF file"),
        (stray(b"\x28\xb5\x2f\xfd"), "packed with zstd"),
        (stray(b"\xfd7zXZ\0"), "packed with xz"),
        (stray(b"7z\xbc\xaf\x27\x1c"), "a 7z archive"),
        (tar(), "a tar archive"),
        (stray(b"PAR1"), "a Parquet file"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>".to_vec(), "a web page (HTML)"),
    ] {
        refuses_model(&with("model.safetensors", &data), "model", what, "not a safetensors file");
        let project = Project::new();
        project.file("ids.safetensors", &data);
        let script = "load_tokens(#{ ids: \"ids.safetensors\" });";
        project.refuses(script, FAILED, &format!("reading ids.safetensors: {what}"), "write them as JSON");
    }
}

#[test]
fn other_files_saved_under_the_names_of_json_are_told() {
    let page = b"<!DOCTYPE html>\n<html><body>Sign in</body></html>".to_vec();
    let wide: Vec<u8> = "{ }".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (data, what) in [
        (page, "a web page (HTML), and no JSON"),
        (stray(b"PK\x03\x04"), "a zip archive, and no JSON"),
        ([b"\xff\xfe".to_vec(), wide].concat(), "UTF-16 text, and no JSON"),
    ] {
        for name in ["config.json", "model.safetensors.index.json"] {
            refuses_model(
                &with(name, &data),
                "model",
                &format!("reading model/{name}: {what}"),
                "fetch the file itself",
            );
        }
        let project = text_project();
        project.file("model/tokenizer.json", &data).file("t.txt", PROSE);
        project.refuses(
            &load_text("t.txt"),
            FAILED,
            &format!("reading model/tokenizer.json: {what}"),
            "fetch the file",
        );
    }
}

/// They were "`model_type` is missing" and "a text must stand in double quotes".
#[test]
fn answers_of_servers_saved_in_place_of_json_are_told() {
    for (data, what) in [
        (r#"{"error":"Repository not found"}"#, "the answer of a server, which says `Repository not found`"),
        (r#"{"statusCode":401,"message":"Invalid token"}"#, "the answer of a server, which says `Invalid token`"),
        ("Entry not found", "a text that begins with `Entry not found`, and no JSON"),
        (
            "Access to model x/y is restricted.\n",
            "a text that begins with `Access to model x/y is restricted.`, and no JSON",
        ),
    ] {
        for name in ["config.json", "model.safetensors.index.json"] {
            let said = format!("reading model/{name}: {what}");
            refuses_model(&with(name, data.as_bytes()), "model", &said, "saved in place of the file");
        }
    }
}

/// The length of a header can be written with the bytes with which a pickle begins: 640.
#[test]
fn a_safetensors_file_that_is_cut_off_is_no_pickle() {
    let cut = [&b"\x80\x02\0\0\0\0\0\0{\"a\":"[..], &[b' '; 100]].concat();
    let stderr = with("model.safetensors", cut).script("load_model(\"model\");").ends(FAILED).stderr;
    assert!(stderr.contains("a header of 640 bytes does not fit") && !stderr.contains("pickle"), "{stderr}");
}

#[test]
fn weights_that_are_told_as_texts_are_told_in_a_folder() {
    for (name, what, hint) in [
        ("MODEL.Q8_0.GGML", "a GGUF file of llama.cpp", "the model it was made from"),
        ("weights.npy", "a NumPy file", "in the layout of Hugging Face transformers"),
        ("model.hdf5", "an HDF5 file", "in the layout of Hugging Face transformers"),
        ("model.pkl", "a pickle file", "in the layout of Hugging Face transformers"),
        ("openvino_model.bin", "an OpenVINO model", "in the layout of Hugging Face transformers"),
        ("model.safetensors.gz", "packed with gzip", "unpack it"),
        ("model.tar.gz", "a tar archive", "unpack it"),
        ("model.zip", "a zip archive", "unpack it"),
    ] {
        let message = format!("model: no safetensors weights, but {name}, {what}");
        refuses_model(&with(name, "…"), "model", &message, hint);
    }
    // Weights in a format of weights are told before an archive that lies beside them.
    let project = with("all.zip", "…");
    project.file("model/model.pt", "…");
    refuses_model(&project, "model", "but model.pt, a PyTorch file", "save_pretrained(FOLDER)");
}

#[test]
fn a_file_given_as_a_model_is_told_by_what_it_is() {
    for (name, data, what, hint) in [
        ("weights", stray(b"tjgg"), "a GGUF file of llama.cpp; only safetensors are read", "made from"),
        ("weights.pt", stray(b"PK\x03\x04"), "a PyTorch file; only safetensors are read", "save_pretrained"),
        ("m.tar.gz", stray(b"\x1f\x8b\x08"), "packed with gzip; only safetensors are read", "unpack it"),
        ("m.npy", stray(b"\x93NUMPY"), "a NumPy file; only safetensors are read", "release"),
        ("m", stray(b"%PDF-1.7"), "a PDF, not the folder of a model", "give the folder it is in"),
    ] {
        let project = Project::new();
        project.file(name, data);
        refuses_model(&project, name, &format!("model \"{name}\": {what}"), hint);
    }
}

#[test]
fn ids_in_another_format_have_the_same_name() {
    for (name, data, what) in [
        ("ids.json", stray(b"\x08\x07\x12\x07pytorch"), "this is an ONNX model"),
        ("ids.json", stray(b"\x28\xb5\x2f\xfd"), "this is packed with zstd"),
        ("ids.json.gz", stray(b"\x1f\x8b\x08"), "this is packed with gzip"),
        ("ids.msgpack", stray(b"\x82"), "this is a MessagePack file"),
        ("ids.json", b"<!doctype html><html>".to_vec(), "this is a web page (HTML)"),
    ] {
        let project = Project::new();
        project.file(name, data);
        project.refuses(&format!("load_tokens(#{{ ids: \"{name}\" }});"), FAILED, what, "write them as JSON");
    }
}

/// The name of a table without a column called "text" is asked for one, whatever stands between its cells.
#[test]
fn tables_of_every_delimiter_are_tables() {
    let plain = |name: &str, data: String, options: &str| {
        let project = text_project();
        project.file(name, data);
        let script = format!(
            "let model = load_model(\"model\");
             print(load_tokens(#{{ text: \"{name}\", model: model, {options} num_sequences: 1, sequence_length: 8 }}).ids.to_json());"
        );
        project.script(&script)
    };
    let rows = |delimiter: &str, column: &str| format!("n{delimiter}{column}\n1{delimiter}\"{PROSE}\"\n");
    let expected = plain("t.csv", rows(",", "text"), "").ok();
    for (name, delimiter) in [("t.psv", "|"), ("t.ssv", ";"), ("t.dsv", "|"), ("t.dsv", ","), ("t.tab", "\t")] {
        assert_eq!(plain(name, rows(delimiter, "text"), "").ok(), expected, "{name}");
        assert_eq!(plain(name, rows(delimiter, "words"), "column: \"words\",").ok(), expected, "{name}");
        let stderr = plain(name, rows(delimiter, "words"), "").ends(FAILED).stderr;
        assert!(stderr.contains("no column \"text\"; there are `n`, `words`"), "{name}: {stderr}");
    }
    // Where the name leaves it open, `column` asks for a table, and the error says how to get one.
    let stderr = plain("t.dump", rows(";", "text"), "column: \"text\",").ends(1).stderr;
    assert!(stderr.contains("t.dump is a plain text") && stderr.contains("format: \"csv\""), "{stderr}");
    assert_eq!(plain("t.dump", rows(";", "text"), "column: \"text\", format: \"csv\",").ok(), expected);
    assert_eq!(plain("t.dat", rows(";", "text"), "column: \"text\",").ok(), expected);
}
