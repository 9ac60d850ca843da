//! Tests of models in PyTorch files (`pytorch_model.bin`): they give the same result as their
//! safetensors form, wherever they are. Malicious files are refused in one sentence, and nothing is
//! run or written.

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::checkpoint::{self, Array, Arrays};
use crate::fake_hub::{Hub, Model};
use crate::project::{FULL, Outcome, Project, repository};
use crate::pytorch::{self, Entry, State};

const FAILED: i32 = 3;
const ID: &str = "lab/model";
const FILE: &str = "model/pytorch_model.bin";
const INDEX: &str = "model/pytorch_model.bin.index.json";

/// The tensors of a fixture, from all of its files.
fn arrays(fixture: &str) -> Arrays {
    let mut arrays = Arrays::new();
    for entry in std::fs::read_dir(repository().join("tests/fixtures").join(fixture)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            arrays.extend(checkpoint::read(&path));
        }
    }
    arrays
}

fn state(arrays: &Arrays) -> State {
    State::of(arrays.iter().map(|(name, array)| (name.as_str(), array.dtype, &array.shape[..], &array.data[..])))
}

/// A fixture without its weights.
fn without_weights(fixture: &str) -> Project {
    let project = Project::new();
    for file in ["config.json", "reference.safetensors"] {
        project.copy(&format!("tests/fixtures/{fixture}/{file}"), &format!("model/{file}"));
    }
    project
}

/// A fixture with a PyTorch file in place of its weights.
fn with(fixture: &str, file: impl AsRef<[u8]>) -> Project {
    let project = without_weights(fixture);
    project.file(FILE, file);
    project
}

/// The same fixture in several files, with their index.
fn sharded(fixture: &str) -> Project {
    let (project, arrays) = (without_weights(fixture), arrays(fixture));
    let mut map = Value::Null;
    let names: Vec<&String> = arrays.keys().collect();
    for (i, part) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let file = format!("pytorch_model-{:05}-of-00003.bin", i + 1);
        let part: Arrays = part.iter().map(|name| (name.to_string(), arrays[*name].clone())).collect();
        project.file(&format!("model/{file}"), state(&part).file());
        part.keys().for_each(|name| map[name] = json!(file));
    }
    project.file(INDEX, json!({ "metadata": {}, "weight_map": map }).to_string());
    project
}

fn script(id: &str, options: &str) -> String {
    format!(
        "let model = load_model(\"{id}\", {options});
         let tokens = load_tokens(#{{ ids: \"model/reference.safetensors\", tensor: \"input_ids\" }});
         model.extract_layernorms(tokens, #{{ keep: \"full\", out: \"full\", logits: true }});"
    )
}

/// Every norm output, the logits and the losses of a run.
#[track_caller]
fn full(project: &Project, outcome: Outcome) -> (Vec<u8>, String) {
    let stderr = outcome.ends(0).stderr;
    (project.bytes(&format!("full/{FULL}")), stderr)
}

/// The same results for the unchanged fixture.
fn expected(fixture: &str) -> Vec<u8> {
    let project = Project::new();
    project.copy(&format!("tests/fixtures/{fixture}"), "model");
    full(&project, project.script(&script("model", "#{}"))).0
}

#[track_caller]
fn says_nothing_of_the_model(stderr: &str) {
    let told = |line: &&str| {
        line.starts_with("note: ") && !line.starts_with("note: device") && !line.contains("there already")
    };
    assert_eq!(stderr.lines().find(told), None);
}

#[test]
fn a_pytorch_file_gives_what_safetensors_give() {
    for fixture in ["gpt2", "opt", "llama", "qwen3_moe"] {
        let (expected, arrays) = (expected(fixture), arrays(fixture));
        let plain = state(&arrays);
        let newer = State { newer: true, parameters: true, ..plain.clone() };
        let wrapped = State { wrapper: Some("state_dict"), ..plain.clone() };
        for (how, state) in [("plain", plain), ("newer", newer), ("wrapped", wrapped)] {
            let project = with(fixture, state.file());
            let (found, stderr) = full(&project, project.script(&script("model", "#{}")));
            assert!(found == expected, "{fixture}, {how}");
            says_nothing_of_the_model(&stderr);
        }
    }
}

#[test]
fn shards_of_pytorch_files_give_what_safetensors_give() {
    for fixture in ["gpt2", "llama"] {
        let project = sharded(fixture);
        assert!(full(&project, project.script(&script("model", "#{}"))).0 == expected(fixture), "{fixture}");
        let files = project.script("for file in load_model(\"model\").files { print(file.name); }").ok();
        assert!(files.contains("pytorch_model.bin.index.json") && files.contains("pytorch_model-00003-of-00003.bin"));
    }
}

/// The model is streamed, downloaded, read from the cache, and read from it without a network.
#[test]
fn pytorch_files_of_the_hub_give_what_safetensors_give() {
    for (fixture, project) in [("opt", with("opt", state(&arrays("opt")).file())), ("llama", sharded("llama"))] {
        let expected = expected(fixture);
        let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
        for options in ["#{ stream: true }", "#{}", "#{}"] {
            let outcome = hub.run(&project, &script(ID, options), None);
            assert!(full(&project, outcome).0 == expected, "{fixture} with {options}");
        }
        let mut offline = hub.command(&project, &script(ID, "#{}"));
        let outcome = Outcome::of(offline.env("HF_HUB_OFFLINE", "1").output().unwrap());
        assert!(full(&project, outcome).0 == expected, "{fixture} offline");
        // What is in the cache serves as well where the hub is gone.
        let mut gone = hub.command(&project, &script(ID, "#{}"));
        let outcome = Outcome::of(gone.env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap());
        assert!(full(&project, outcome).0 == expected, "{fixture} with the hub gone");
    }
}

/// The program asks once per commit whether there are safetensors, and notes the absence where the
/// Python package notes it.
#[test]
fn what_a_commit_lacks_is_asked_once() {
    let project = with("opt", state(&arrays("opt")).file());
    let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
    let load = format!("load_model(\"{ID}\");");
    hub.run(&project, &load, None).ends(0);
    assert!(hub.asked().iter().any(|(_, file)| file == "model.safetensors"));
    assert!(project.files("hf").iter().any(|file| file.contains(".no_exist/") && file.ends_with("/model.safetensors")));
    hub.run(&project, &load, None).ends(0);
    let again = hub.asked();
    assert!(again.iter().all(|(_, file)| !file.starts_with("model") && !file.starts_with("pytorch")), "{again:?}");
}

#[test]
fn a_plan_reads_headers_of_pytorch_files_only() {
    let project = with("opt", state(&arrays("opt")).file());
    let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
    let needs = |id: &str| format!("print(estimate_vram(\"{id}\", #{{ logits: true }}).read_bytes);");
    let safetensors = Project::new();
    safetensors.copy("tests/fixtures/opt", "model");
    let expected = safetensors.script(&needs("model")).ok();
    assert_eq!(project.script(&needs("model")).ok(), expected);
    assert_eq!(hub.run(&Project::new(), &needs(ID), None).ok(), expected);
}

/// Names have no base model's prefix, and old releases contain masks, which are not weights.
#[test]
fn names_and_buffers_of_old_releases_are_known() {
    let mut old: Arrays = arrays("gpt2")
        .into_iter()
        .map(|(name, array)| (name.strip_prefix("transformer.").unwrap_or(&name).to_string(), array))
        .collect();
    old.insert("h.0.attn.bias".to_string(), Array::new(Dtype::BOOL, &[1, 1, 4, 4], vec![1; 16]));
    old.insert("h.0.attn.masked_bias".to_string(), Array::new(Dtype::F32, &[], (-1e4f32).to_le_bytes().to_vec()));
    let project = with("gpt2", state(&old).file());
    let (found, stderr) = full(&project, project.script(&script("model", "#{}")));
    assert!(found == expected("gpt2"));
    says_nothing_of_the_model(&stderr);
}

/// Tensors are views of one storage, at any position in it, and the head is the embedding itself.
#[test]
fn tensors_that_share_a_storage() {
    let project = with("gpt2", state(&arrays("gpt2")).in_one_storage().file());
    assert!(full(&project, project.script(&script("model", "#{}"))).0 == expected("gpt2"));
    let mut tied = state(&arrays("gpt2"));
    let embedding = tied.tensors.iter().find(|view| view.name.ends_with("wte.weight")).unwrap().clone();
    tied.tensors.push(pytorch::View { name: "lm_head.weight".to_string(), ..embedding });
    let project = with("gpt2", tied.file());
    let (found, stderr) = full(&project, project.script(&script("model", "#{}")));
    assert!(found == expected("gpt2"));
    says_nothing_of_the_model(&stderr);
}

/// As in transformers, safetensors are preferred, and a single file to an index.
#[test]
fn safetensors_count_before_pytorch_files() {
    let project = Project::new();
    project.copy("tests/fixtures/gpt2", "model").file(FILE, "…");
    let (found, stderr) = full(&project, project.script(&script("model", "#{}")));
    assert!(found == expected("gpt2"));
    assert!(stderr.contains("note: model: model.safetensors is read and pytorch_model.bin is not"), "{stderr}");
    let project = Project::new();
    project.copy("tests/fixtures/llama", "model").file(INDEX, "…");
    let stderr = project.script("load_model(\"model\");").ends(0).stderr;
    let note = "note: model: model.safetensors.index.json is read and pytorch_model.bin.index.json is not";
    assert!(stderr.contains(note), "{stderr}");
    let project = with("gpt2", state(&arrays("gpt2")).file());
    project.file(INDEX, json!({ "weight_map": { "a": "gone.bin" } }).to_string());
    let stderr = project.script("load_model(\"model\");").ends(0).stderr;
    let note = "pytorch_model.bin is read and pytorch_model.bin.index.json, which names 1 other file, is not";
    assert!(stderr.contains(note), "{stderr}");
}

#[track_caller]
fn refuses(file: impl AsRef<[u8]>, message: &str, hint: &str) {
    let project = with("gpt2", file);
    let before = project.files("");
    for load in ["load_model(\"model\");", "estimate_vram(\"model\");"] {
        let told = project.script(load).ends(FAILED).stderr;
        assert!(told.contains(message), "{message:?} in\n{told}");
        assert!(told.lines().any(|line| line.starts_with("  hint: ") && line.contains(hint)), "{hint:?} in\n{told}");
        assert!(!told.contains("panicked"), "{told}");
    }
    let written: Vec<String> =
        project.files("").into_iter().filter(|file| !before.contains(file) && !file.ends_with(".rhai")).collect();
    assert_eq!(written, Vec::<String>::new());
}

/// A valid file except for its pickle.
fn with_pickle(pickle: impl AsRef<[u8]>) -> Vec<u8> {
    let mut entries = state(&arrays("gpt2")).entries();
    entries[0].data = pickle.as_ref().to_vec();
    pytorch::archive(&entries)
}

const TRUST: &str = "load no such file in Python unless you trust whoever made it";

/// The pickles make Python run a command, in every possible way.
#[test]
pub fn a_pickle_that_would_run_a_command_runs_nothing() {
    let command = b"X\x0a\0\0\0touch ran.\x85";
    for (pickle, asked) in [
        ([b"\x80\x02cos\nsystem\n", &command[..], b"R."].concat(), "`os.system`"),
        ([b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94", &command[..], b"R."].concat(), "`posix.system`"),
        (b"\x80\x02(X\x0a\0\0\0touch ran.ios\nsystem\n.".to_vec(), "an object of `os.system`"),
        (b"\x80\x02(cos\nsystem\nX\x0a\0\0\0touch ran.o.".to_vec(), "`os.system`"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x01))\x89N}N]stR.".to_vec(),
            "a tensor that is another than its numbers",
        ),
        (b"\x80\x02csubprocess\nPopen\n)\x81.".to_vec(), "`subprocess.Popen`"),
        (b"\x80\x02ccollections\nOrderedDict\n)R(K\x01K\x02tb.".to_vec(), "the state of an object to be set"),
        (b"\x80\x02ctorch\nFloatStorage\n)\x81}X\x01\0\0\0ab.".to_vec(), "an object to be made of a class"),
        (b"\x80\x02\x82\x01)R.".to_vec(), "number 1 of Python's registry of extensions"),
        (b"\x80\x02\x83\x01\x01)R.".to_vec(), "number 257 of Python's registry of extensions"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\0a\x85R.".to_vec(), "`builtins.eval`"),
        (b"\x80\x02ctorch\nload\nX\x01\0\0\0a\x85R.".to_vec(), "`torch.load`"),
        (b"\x80\x02c__main__\nTrainer\n)\x81.".to_vec(), "`__main__.Trainer`"),
        (b"\x80\x02ctorch\x1b[2J\nx\n.".to_vec(), "`torch\\u{1b}[2J.x`"),
    ] {
        let message =
            format!("reading {FILE}: its pickle asks for {asked}, which no tensor needs; nothing of it was run");
        refuses(with_pickle(&pickle), &message, TRUST);
        // The same behind tensors that are good.
        let good = state(&arrays("gpt2")).pickle();
        let behind = [&good[..good.len() - 1], &pickle[2..]].concat();
        refuses(with_pickle(behind), &message, TRUST);
    }
}

/// Depth, lengths and counts would exhaust the stack or the memory of a reader.
#[test]
pub fn a_pickle_that_wants_too_much_is_refused() {
    const DEEP: usize = 100_000;
    let deep =
        |begin: &[u8], end: &[u8]| [&b"\x80\x02"[..], &begin.repeat(DEEP), b"N", &end.repeat(DEEP), b"."].concat();
    let no_dictionary = "what is in it is no dictionary of tensors";
    for (pickle, message, hint) in [
        (deep(b"]", b"a"), no_dictionary, "save_pretrained(FOLDER)"),
        (deep(b"(", b"t"), no_dictionary, "save_pretrained(FOLDER)"),
        (deep(b"}K\x01", b"s"), "the dictionary in it holds no tensors", "save_pretrained(FOLDER)"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fa.".to_vec(), "its pickle is cut off", "download it again"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f\x01.".to_vec(), "its pickle is cut off", "download it again"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.".to_vec(), "its pickle is cut off", "download it again"),
        (b"\x80\x02N".to_vec(), "its pickle is cut off", "download it again"),
        (b"\x80\x02h\x05.".to_vec(), "takes up what it never made", "download it again"),
        ([&b"\x80\x02"[..], &b"]2".repeat(3_000_000), b"."].concat(), "makes more values than", "download it again"),
        ([&b"\x80\x04N"[..], &b"\x94".repeat(3_000_000), b"."].concat(), "makes more values than", "download it again"),
        (vec![b'('; 5_000_000], "makes more values than", "download it again"),
        (vec![b'N'; 33 << 20], "a pickle of 34603008 bytes is none of a file of weights", "download it again"),
        (b"\x80\x07N.".to_vec(), "a pickle of protocol 7", "save_pretrained(FOLDER)"),
        (b"(dp0\n.".to_vec(), "a pickle of protocol 0", "save_pretrained(FOLDER)"),
        (b"\xff".to_vec(), "its pickle has no instruction at byte 0", "download it again"),
        (b"".to_vec(), "its pickle is cut off", "download it again"),
    ] {
        refuses(with_pickle(pickle), message, hint);
    }
}

/// A text of megabytes occurs once in a pickle, and is the name of all tensors.
#[test]
fn a_long_name_that_is_used_often_costs_nothing() {
    let mut state = state(&arrays("gpt2"));
    let view = pytorch::View { name: "a".repeat(1 << 20), ..state.tensors[0].clone() };
    state.tensors.extend(vec![view; 200]);
    refuses(state.file(), "a tensor in it has a name of 1048576 bytes", "download it again");
}

/// A valid file with one changed tensor.
fn with_view(change: impl FnOnce(&mut pytorch::View)) -> Vec<u8> {
    let mut state = state(&arrays("gpt2"));
    change(state.tensors.iter_mut().find(|view| view.name.ends_with("wte.weight")).unwrap());
    state.file()
}

#[test]
fn tensors_that_do_not_fit_their_storage_are_refused() {
    type Change = fn(&mut pytorch::View);
    let changes: [(Change, &str); 10] = [
        (|view| view.offset = 1, "wte.weight` does not fit its storage"),
        (|view| view.offset = i64::MAX, "wte.weight` does not fit its storage"),
        (|view| view.offset = -1, "a place or a number of dimensions that none has"),
        (|view| view.shape[0] = i64::MAX, "wte.weight` does not fit its storage"),
        (|view| view.shape = vec![1 << 32, 1 << 32], "wte.weight` does not fit its storage"),
        (|view| view.shape[0] = -1, "sizes or strides that are no numbers from 0 on"),
        (|view| view.strides[0] = i64::MAX, "wte.weight` does not fit its storage"),
        (|view| view.strides[0] = -1, "sizes or strides that are no numbers from 0 on"),
        (|view| view.strides = vec![1], "a place or a number of dimensions that none has"),
        (|view| (view.shape, view.strides) = (vec![1; 1000], vec![1; 1000]), "a number of dimensions that none has"),
    ];
    for (change, message) in changes {
        refuses(with_view(change), message, "download it again");
    }
    let mut short = state(&arrays("gpt2")).entries();
    short.iter_mut().find(|entry| entry.name == "archive/data/0").unwrap().data.pop();
    refuses(pytorch::archive(&short), "has a storage of", "download it again");
    short.retain(|entry| entry.name != "archive/data/0");
    refuses(pytorch::archive(&short), "is in no entry of it", "download it again");
}

/// The estimate did not count the memory in which a tensor is laid out that is stored transposed.
#[test]
fn what_is_laid_out_in_memory_is_estimated() {
    let arrays = arrays("gpt2");
    let bytes = |name: &str, strides: Option<Vec<i64>>| {
        let mut state = state(&arrays);
        let view = state.tensors.iter_mut().find(|view| view.name == name).unwrap();
        let size = view.shape.iter().product::<i64>() * 4;
        view.strides = strides.unwrap_or(view.strides.clone());
        let script = "let e = estimate_vram(\"model\"); print(e.total_bytes);";
        (with("gpt2", state.file()).script(script).json().as_i64().unwrap(), size)
    };
    let name = arrays.keys().find(|name| name.ends_with("wte.weight")).unwrap();
    let rows = arrays[name].shape[0] as i64;
    let (together, size) = bytes(name, None);
    let (transposed, _) = bytes(name, Some(vec![1, rows]));
    // As it is stored, and row by row.
    assert_eq!(transposed - together, 2 * size);
}

/// A mask that is stored transposed is no part of the model, and of another type.
#[test]
fn a_tensor_that_does_not_lie_together_and_is_not_used_is_not_told() {
    let mut unused = arrays("gpt2");
    let mask = "transformer.h.0.attn.bias";
    unused.insert(mask.to_string(), Array::new(Dtype::BOOL, &[2, 2], vec![1; 4]));
    let mut state = state(&unused);
    state.tensors.iter_mut().find(|view| view.name == mask).unwrap().strides = vec![1, 2];
    with("gpt2", state.file()).script("load_model(\"model\");").ends(0);
}

#[test]
fn archives_that_are_none_of_torch_are_refused() {
    let good = state(&arrays("gpt2")).entries();
    let changed = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = good.clone();
        change(&mut entries);
        pytorch::archive(&entries)
    };
    let last = |entries: &[Entry]| entries.iter().rposition(|entry| entry.name.contains("/data/")).unwrap();
    for (file, message, hint) in [
        (changed(&|e| e[0].method = 8), "`archive/data.pkl` in it is compressed", "save_pretrained(FOLDER)"),
        (changed(&|e| e[4].method = 8), "`archive/data/0` in it is compressed", "save_pretrained(FOLDER)"),
        (changed(&|e| e[0].flags |= 1), "`archive/data.pkl` in it is encrypted", "save_pretrained(FOLDER)"),
        (changed(&|e| e.push(e[0].clone())), "`archive/data.pkl` is in it twice", "download it again"),
        (changed(&|e| e[5].begin = Some(0)), "overlaps what comes behind it, or leaves the file", "download it again"),
        (changed(&|e| e[4].bytes = Some(1 << 20)), "overlaps what comes behind it", "download it again"),
        (changed(&|e| e[4].bytes = Some(u64::MAX)), "overlaps what comes behind it, or leaves", "download it again"),
        (
            changed(&|e| e[4].begin = Some(u64::MAX - 9)),
            "overlaps what comes behind it, or leaves",
            "download it again",
        ),
        (changed(&|e| e[0].name = "data.pkl".into()), "its first entry is in no folder", "download it again"),
        (changed(&|e| e[0].name = "archive/x".into()), "a zip archive without `data.pkl`", "save_pretrained(FOLDER)"),
        (changed(&|e| e[1].name = "archive/constants.pkl".into()), "a TorchScript archive", "save_pretrained(FOLDER)"),
        (changed(&|e| e[3].data = b"big".to_vec()), "its numbers are stored big end first", "save_pretrained(FOLDER)"),
        (changed(&|e| e[3].data = b"odd".to_vec()), "is neither \"little\" nor \"big\"", "download it again"),
        (changed(&|e| e.truncate(last(e))), "is in no entry of it", "download it again"),
    ] {
        refuses(file, message, hint);
    }
    let file = state(&arrays("gpt2")).file();
    refuses(&file[..file.len() / 2], "no archive ends at the end of its", "download it again");
    refuses(&file[1..], "is not where it says", "download it again");
    let begin = file.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    for (entries, bytes, at) in [
        (1, u64::MAX, 1),
        (u64::MAX, 100, 0),
        (1 << 40, 1 << 50, 0),
        (0, 0, u64::MAX),
        (7, 46, begin as u64),
        (1, 45, begin as u64),
        (good.len() as u64, 46 * good.len() as u64, begin as u64),
    ] {
        let end = pytorch::end(entries, bytes, at, begin as u64);
        let told = with("gpt2", [&file[..begin], &end].concat()).script("load_model(\"model\");").ends(FAILED).stderr;
        assert!(told.contains("directory") && told.contains("download it again"), "{told}");
    }
}

#[test]
fn other_formats_under_the_name_of_a_pytorch_file() {
    let old = [&b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."[..], &[0; 100]].concat();
    refuses(&old, "a PyTorch file of before version 1.6", "torch.save(torch.load(FILE, weights_only=True), FILE)");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2147483648\n";
    refuses(pointer, "a Git LFS pointer to the file of 2147483648 bytes", "git lfs pull");
    refuses(b"GGUF\x03\0\0\0", "a GGUF file of llama.cpp, not a PyTorch file", "release in safetensors");
    refuses(b"\x80\x02}q\0.", "a pickle file, not a PyTorch file", "release in safetensors");
    refuses("<!DOCTYPE html><html><body>Sorry</body></html>", "not a PyTorch file", "saved in place of the file");
    let safetensors = std::fs::read(repository().join("tests/fixtures/gpt2/model.safetensors")).unwrap();
    refuses(safetensors, "a safetensors file, not a PyTorch file", "release in safetensors");
    refuses("", "no archive ends at the end of its 0 bytes", "download it again");
}

/// Other things that trainers store beside a model do not matter. A file without a model is
/// identified by its keys.
#[test]
fn dictionaries_around_a_model() {
    for wrapper in ["state_dict", "model", "module"] {
        let state = State { wrapper: Some(wrapper), ..state(&arrays("gpt2")) };
        with("gpt2", state.file()).script("load_model(\"model\");").ends(0);
    }
    let other = State { wrapper: Some("weights"), ..state(&arrays("gpt2")) };
    refuses(
        other.file(),
        "holds no tensors, nor does `state_dict`, `model` or `module` in it: it begins with `epoch`",
        "",
    );
}

#[test]
fn types_that_are_not_read_are_told_by_their_names() {
    for (dtype, width) in [(Dtype::I64, 8), (Dtype::I32, 4), (Dtype::U8, 1)] {
        let mut arrays = arrays("gpt2");
        let (_, norm) = arrays.iter_mut().find(|(name, _)| name.ends_with("ln_f.weight")).unwrap();
        *norm = Array::new(dtype, &norm.shape, vec![0; norm.shape[0] * width]);
        let project = with("gpt2", state(&arrays).file());
        let needs_the_norm = "estimate_vram(\"model\", #{ logits: true });
            load_model(\"model\").extract_layernorms(load_tokens(#{ ids: [[1, 2]] }), #{ logits: true });";
        let told = project.script(needs_the_norm).ends(FAILED).stderr;
        assert!(told.contains(&format!("ln_f.weight` is {dtype:?}, expected F32, BF16 or F16")), "{told}");
    }
}

#[test]
fn shards_of_both_kinds_are_refused() {
    let project = sharded("gpt2");
    project.copy("tests/fixtures/gpt2/model.safetensors", "model/a.safetensors");
    project.file(
        INDEX,
        json!({ "weight_map": { "a": "a.safetensors", "b": "pytorch_model-00001-of-00003.bin" } }).to_string(),
    );
    project.refuses(
        "load_model(\"model\");",
        FAILED,
        "some of its files of weights are safetensors",
        "all of one kind",
    );
}

/// If a file is not read and the hub has converted it, the error names the revision.
#[test]
fn a_conversion_on_the_hub_is_named() {
    let discussion = |number: u32, title: &str, author: &str| {
        let author = json!({ "name": author });
        json!({ "num": number, "title": title, "status": "open", "isPullRequest": true, "author": author })
    };
    let conversion = "Adding `safetensors` variant of this model";
    let project = with("gpt2", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.");
    let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
    let told =
        || hub.run(&Project::new(), &format!("load_model(\"{ID}\", #{{ stream: true }});"), None).ends(FAILED).stderr;
    assert!(told().contains("hint: write it anew in Python: torch.save("));
    let list =
        json!({ "discussions": [discussion(3, conversion, "somebody"), discussion(4, "Hello", "SFconvertbot")] });
    project.file("model/discussions.json", list.to_string());
    assert!(told().contains("hint: write it anew in Python: torch.save("));
    let list =
        json!({ "discussions": [discussion(3, "Hello", "SFconvertbot"), discussion(7, conversion, "SFconvertbot")] });
    project.file("model/discussions.json", list.to_string());
    let named = "hint: give load_model `revision: \"refs/pr/7\"`, where the hub has a conversion of it to safetensors; or write it anew";
    assert!(told().contains(named), "{}", told());
}
