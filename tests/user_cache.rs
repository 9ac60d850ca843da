//! Tests of the user's own cache, and of the hub's statements about the user's token: files that
//! cannot be used are not called missing, files that huggingface_hub uses are used, and the hub's
//! own words reach the user.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::fake_hub::hostile::Hostile;
use crate::fake_hub::{COMMIT, FAILED, Hub, Model, Mood, TOKEN};
use crate::project::{Outcome, Project, repository};

const ID: &str = "lab/llama";
const LOAD: &str = "print(load_model(\"lab/llama\").num_layers);";
const CACHE: &str = "hf/hub/models--lab--llama";
const INDEX: &str = "model.safetensors.index.json";
const SHARD: &str = "model-00002-of-00002.safetensors";

fn hub() -> Hub {
    Hub::start().with(ID, Model::Folder(repository().join("tests/fixtures/llama")))
}

/// A project with the model in its cache.
fn cached() -> Project {
    let project = Project::new();
    hub().run(&project, LOAD, None).ok();
    project
}

fn link(project: &Project, name: &str) -> PathBuf {
    project.path(&format!("{CACHE}/snapshots/{COMMIT}/{name}"))
}

fn blob(project: &Project, name: &str) -> PathBuf {
    link(project, name).canonicalize().unwrap()
}

fn with(project: &Project, variables: &[(&str, &str)]) -> Command {
    project.file("script.rhai", LOAD);
    let mut command = project.command(&["run", "script.rhai"]);
    command.envs(variables.iter().copied());
    command
}

fn run(project: &Project, variables: &[(&str, &str)]) -> Outcome {
    Outcome::of(with(project, variables).output().unwrap())
}

#[track_caller]
fn is_refused(outcome: Outcome, message: &str, hint: &str) {
    let stderr = outcome.ends(FAILED).stderr;
    let error = stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    let told = stderr.lines().find_map(|line| line.strip_prefix("  hint: ")).unwrap();
    assert!(error.contains(message), "{message:?} in {stderr}");
    assert!(told.contains(hint), "{hint:?} in {stderr}");
}

#[test]
pub fn damaged_files_of_the_cache_are_not_called_missing() {
    let ways = [(vec![("HF_HUB_OFFLINE", "1")], "HF_HUB_OFFLINE is set"), (vec![], "Connection refused")];
    for name in ["config.json", INDEX, SHARD] {
        let project = cached();
        let (path, bytes) = (blob(&project, name), fs::read(blob(&project, name)).unwrap());
        // One more byte is another content.
        fs::write(&path, [&bytes[..], b"\n"].concat()).unwrap();
        for (variables, problem) in &ways {
            let message = format!("model \"{ID}\": {name} in the cache is damaged: its content has not the ");
            is_refused(run(&project, variables), &message, &format!("remove {}", path.display()));
            is_refused(
                run(&project, variables),
                problem,
                &format!("the folder {}", path.parent().unwrap().parent().unwrap().display()),
            );
        }
        // What is there can be loaded by its path, and a hub that answers has it again.
        if name == "config.json" {
            let folder = link(&project, "").display().to_string();
            project.script(&format!("load_model(\"{folder}\");")).ok();
        }
        hub().run(&project, LOAD, None).ok();
        assert_eq!(fs::read(blob(&project, name)).unwrap(), bytes, "{name}");
    }
    let project = cached();
    fs::remove_file(blob(&project, SHARD)).unwrap();
    let message = format!("{SHARD} is not in the cache: the link in its place leads to no blob of this model");
    is_refused(run(&project, &[("HF_HUB_OFFLINE", "1")]), &message, &link(&project, SHARD).display().to_string());
    let file = link(&project, SHARD);
    fs::remove_file(&file).unwrap();
    fs::write(&file, "<html>").unwrap();
    let message = format!("{SHARD} in the cache is damaged: it does not begin like such a file");
    is_refused(run(&project, &[("HF_HUB_OFFLINE", "1")]), &message, &file.display().to_string());
    fs::remove_file(&file).unwrap();
    is_refused(
        run(&project, &[("HF_HUB_OFFLINE", "1")]),
        "is set and the file is not in the cache",
        "download it before",
    );
}

/// What is not needed by every analysis counts all the same when it is there.
#[test]
fn a_damaged_tokenizer_of_the_cache_is_not_used() {
    let hub = Hub::start().with(ID, Model::Folder(repository().join("examples/shakespeare-olmoe")));
    let project = Project::new();
    hub.run(&project, LOAD, None).ok();
    let path = blob(&project, "tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}\n")).unwrap();
    for variables in [&[("HF_HUB_OFFLINE", "1")][..], &[]] {
        let message = "tokenizer.json in the cache is damaged: its content has not the ";
        is_refused(run(&project, variables), message, &format!("remove {}", path.display()));
    }
    hub.run(&project, LOAD, None).ok();
    assert_eq!(fs::read_to_string(blob(&project, "tokenizer.json")).unwrap(), text);
}

/// Mirrors may name what they send in a way of their own, and the Python package names blobs by it.
#[test]
pub fn blobs_that_a_mirror_has_named_are_used() {
    let project = cached();
    for (number, name) in ["config.json", INDEX, "model-00001-of-00002.safetensors", SHARD].into_iter().enumerate() {
        let (path, named) = (blob(&project, name), format!("5f-mirror-etag-{number}"));
        fs::rename(&path, path.with_file_name(&named)).unwrap();
        fs::remove_file(link(&project, name)).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{named}"), link(&project, name)).unwrap();
    }
    assert_eq!(run(&project, &[("HF_HUB_OFFLINE", "1")]).ok(), "4\n");
    assert_eq!(run(&project, &[]).ok(), "4\n");
    // A link out of the blobs is followed by nobody, whatever it is called.
    let outside = project.path(&format!("{CACHE}/mirror"));
    fs::rename(blob(&project, "config.json"), &outside).unwrap();
    fs::remove_file(link(&project, "config.json")).unwrap();
    std::os::unix::fs::symlink("../../mirror", link(&project, "config.json")).unwrap();
    is_refused(run(&project, &[("HF_HUB_OFFLINE", "1")]), "config.json is not in the cache: the link", "remove ");
}

#[test]
fn variables_in_the_folders_of_the_cache_are_replaced() {
    let project = cached();
    let root = project.path("");
    let root = root.to_str().unwrap();
    for (name, value) in [
        ("HF_HOME", "$SCRATCH/hf"),
        ("HF_HOME", "${SCRATCH}/hf"),
        ("HF_HUB_CACHE", "$SCRATCH/${PART}/hub"),
        ("HUGGINGFACE_HUB_CACHE", "$SCRATCH/hf/hub"),
        ("HF_HOME", "~/hf"),
    ] {
        let variables = [
            ("HF_HUB_OFFLINE", "1"),
            ("SCRATCH", root),
            ("PART", "hf"),
            ("HOME", root),
            ("HF_HOME", "no"),
            (name, value),
        ];
        assert_eq!(run(&project, &variables).ok(), "4\n", "{name}={value}");
    }
    fs::create_dir(project.path("caches")).unwrap();
    fs::rename(project.path("hf"), project.path("caches/huggingface")).unwrap();
    let mut command =
        with(&project, &[("HF_HUB_OFFLINE", "1"), ("SCRATCH", root), ("XDG_CACHE_HOME", "$SCRATCH/caches")]);
    assert_eq!(Outcome::of(command.env_remove("HF_HOME").output().unwrap()).ok(), "4\n");
    // The token's file is found in the same way.
    project.file("secret/token", TOKEN);
    let hub = hub();
    hub.set("lab/llama", Model::Gated);
    let variables =
        [("HF_ENDPOINT", hub.address.as_str()), ("SCRATCH", root), ("HF_TOKEN_PATH", "$SCRATCH/secret/token")];
    is_refused(run(&Project::new(), &variables), "access refused", "accept the model's terms");
    let sent = format!("Bearer {TOKEN}");
    assert!(hub.requests.lock().unwrap().iter().all(|request| request.header("authorization") == Some(&sent)));
}

#[test]
fn the_variable_that_forbids_to_ask_is_the_one_that_is_named() {
    for (variables, named) in [
        (&[("TRANSFORMERS_OFFLINE", "1")][..], "TRANSFORMERS_OFFLINE"),
        (&[("HF_HUB_OFFLINE", "1")], "HF_HUB_OFFLINE"),
        (&[("HF_HUB_OFFLINE", "yes"), ("TRANSFORMERS_OFFLINE", "1")], "HF_HUB_OFFLINE"),
        (&[("HF_HUB_OFFLINE", ""), ("TRANSFORMERS_OFFLINE", "1")], "TRANSFORMERS_OFFLINE"),
    ] {
        let message = format!("{named} is set and the file is not in the cache");
        is_refused(run(&Project::new(), variables), &message, &format!("unset {named}, or"));
    }
}

/// A hub that answers every question so.
fn saying(status: &'static str, words: &str) -> Hub {
    let hub = hub();
    let headers = if words.is_empty() { vec![] } else { vec![("X-Error-Message", words.to_string())] };
    hub.mood(Mood { hostile: vec![Hostile::Answer("", status, headers, Vec::new())], ..Mood::default() });
    hub
}

#[test]
fn what_the_hub_says_of_a_token_is_told_and_believed() {
    const SETTINGS: &str = "Please enable access to public gated repositories in your fine-grained token settings.";
    // Whether the model is in the cache or not, a hub that answers and refuses is believed.
    for project in [Project::new(), cached()] {
        let says = |status, words, token, message: &str, hint: &str| {
            is_refused(saying(status, words).run(&project, LOAD, token), message, hint);
        };
        let expired = "User Access Token \"lab\" is expired";
        let message = format!("the token is not valid: the hub says \"{expired}\"");
        says("401 Unauthorized", expired, Some(TOKEN), &message, "set HF_TOKEN to a valid token");
        says("401 Unauthorized", "Who are you?", None, "no such model, or it is private", "set HF_TOKEN");
        let message = format!("access refused: the hub says \"{SETTINGS}\"");
        says("403 Forbidden", SETTINGS, Some(TOKEN), &message, "access tokens");
        says("403 Forbidden", "", Some(TOKEN), "access refused", "accept the model's terms");
        let message = "status 451: the hub says \"Taken down\"";
        says("451 Unavailable For Legal Reasons", "Taken down", None, message, "the model's page on the hub");
    }
}
