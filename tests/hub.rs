//! Tests of models from the hub: shards, revisions, the cache, and every way in which the hub
//! refuses.

use std::path::PathBuf;

use crate::fake_hub::cdn::{Network, counted};
use crate::fake_hub::{COMMIT, FAILED, Hub, Model, TOKEN};
use crate::project::{FINAL, Project, repository};

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

fn analysis(id: &str, options: &str) -> String {
    format!(
        "let model = load_model(\"{id}\", {options});
         let acts = model.extract_layernorms(load_tokens(#{{ ids: [[1, 2, 3], [4, 5, 6]] }}), #{{ logits: true }});
         let found = acts.detect_outliers();
         print(found.to_json());
         save_results(\"hub\", #{{ activations: acts, found: found }});"
    )
}

fn from_hub(options: &str) -> String {
    analysis("lab/llama", options)
}

#[test]
fn a_model_from_shards_is_the_model_in_a_folder() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let project = Project::new();
    project.copy("tests/fixtures/llama", "local");
    let local = project.script(&analysis("local", "#{}")).ok();
    assert_eq!(hub.run(&project, &from_hub("#{}"), None).ok(), local);
    let whole = project.json(&format!("results/hub/{FINAL}"));
    let model = &whole["provenance"]["model"];
    assert_eq!((&model["id"], &model["revision"]), (&"lab/llama".into(), &COMMIT.into()));
    assert_eq!(project.json("results/hub/config.json")["model"]["revision"], COMMIT);
    assert_eq!(model["files"].as_array().unwrap().len(), 4, "config, index and two shards: {model}");
}

#[test]
fn a_single_file_and_its_tokenizer() {
    let hub = Hub::start().with("lab/llama", Model::Folder(repository().join("examples/shakespeare-olmoe")));
    let project = Project::new();
    project.file("text.txt", "To be, or not to be, that is the question.");
    let script = "let model = load_model(\"lab/llama\");
                  let tokens = load_tokens(#{ text: \"text.txt\", model: model, num_sequences: 1, sequence_length: 8 });
                  print(tokens.ids[0].len());";
    assert_eq!(hub.run(&project, script, None).ok(), "8\n");
}

#[test]
fn the_second_run_uses_the_cache() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let project = Project::new();
    let first = hub.run(&project, &from_hub("#{}"), None).ok();
    let fetched: Vec<String> =
        hub.asked().into_iter().filter(|(method, _)| method == "GET").map(|(_, file)| file).collect();
    assert_eq!(fetched, ["config.json", "model.safetensors.index.json"]);
    let sent = hub.cdn.sent();
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        let path = fixture("llama").join(shard);
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(counted(&sent[&path]), (size, 0), "{shard} is fetched once");
    }
    assert_eq!(hub.run(&project, &from_hub("#{}"), None).ok(), first);
    let asked = hub.asked();
    assert!(asked.iter().all(|(method, _)| method == "HEAD"), "{asked:?}");
    assert!(asked.contains(&("HEAD".to_string(), "config.json".to_string())), "a branch may have moved: {asked:?}");
    // A commit never moves: what is there is not asked for, even without a hub.
    let pinned =
        project.file("script.rhai", format!("print(load_model(\"lab/llama\", #{{ revision: \"{COMMIT}\" }}).path);"));
    hub.run(pinned, &pinned.text("script.rhai"), None).ok();
    let asked = hub.asked();
    assert!(asked.iter().all(|(_, file)| file == "tokenizer.json"), "only what was not there: {asked:?}");
}

#[test]
fn other_revisions() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let project = Project::new();
    hub.run(&project, &from_hub("#{ revision: \"v1\" }"), None).ok();
    let paths: Vec<_> = hub.requests.lock().unwrap().iter().map(|request| request.path.clone()).collect();
    assert!(paths.contains(&"/lab/llama/resolve/v1/config.json".to_string()), "{paths:?}");
    assert_eq!(project.json(&format!("results/hub/{FINAL}"))["provenance"]["model"]["revision"], COMMIT);
    let message = "model \"lab/llama\": fetching config.json from the hub: no revision \"v2\"";
    hub.refuses(&from_hub("#{ revision: \"v2\" }"), None, message, "give a branch, tag or commit of this model");
}

#[test]
fn all_files_are_of_one_commit() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    hub.run(&Project::new(), &from_hub("#{}"), None).ok();
    let paths: Vec<_> = hub.requests.lock().unwrap().iter().map(|request| request.path.clone()).collect();
    let others = paths.iter().filter(|path| !path.ends_with("/config.json"));
    assert!(others.clone().count() >= 3 && others.clone().all(|path| path.contains(COMMIT)), "{paths:?}");
}

#[test]
fn models_that_do_not_exist() {
    let hub = Hub::start().with("lab/secret", Model::Private);
    let hint = "check the id; for a private model set HF_TOKEN";
    for id in ["lab/lama", "lab/gone", "lab/secret"] {
        let message = format!("model \"{id}\": fetching config.json from the hub: no such model, or it is private");
        hub.refuses(&analysis(id, "#{}"), None, &message, hint);
        hub.refuses(&analysis(id, "#{}"), Some(TOKEN), &message, hint);
    }
}

#[test]
fn models_without_weights_that_are_read() {
    let project = Project::new();
    project.copy("tests/fixtures/llama/config.json", "pickle/config.json").file("pickle/model.pt", "…");
    let hub = Hub::start().with("lab/llama", Model::Folder(project.path("pickle")));
    let message = "model \"lab/llama\": no safetensors weights, but model.pt, a PyTorch file";
    hub.refuses(&from_hub("#{}"), None, message, "save_pretrained(FOLDER)");
    std::fs::remove_file(project.path("pickle/model.pt")).unwrap();
    let message = "fetching model.safetensors from the hub: the model has no such file";
    hub.refuses(&from_hub("#{}"), None, message, "only safetensors and PyTorch files");
}

#[test]
fn a_shard_that_is_missing() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "part");
    std::fs::remove_file(project.path("part/model-00002-of-00002.safetensors")).unwrap();
    let hub = Hub::start().with("lab/llama", Model::Folder(project.path("part")));
    let message = "fetching model-00002-of-00002.safetensors from the hub: the model has no such file";
    hub.refuses(&from_hub("#{}"), None, message, "");
}

#[test]
fn an_index_that_leads_out_of_the_cache() {
    let project = Project::new();
    project.copy("tests/fixtures/llama", "evil");
    project.file("evil/model.safetensors.index.json", r#"{"weight_map": {"a": "../../../../evil"}}"#);
    let hub = Hub::start().with("lab/llama", Model::Folder(project.path("evil")));
    hub.refuses(&from_hub("#{}"), None, "`../../../../evil` is not a file of this model", "correct `weight_map`");
}

#[test]
fn gated_models() {
    let hub = Hub::start().with("lab/llama", Model::Gated);
    let hint = "accept the model's terms on the hub and set HF_TOKEN";
    let message = "model \"lab/llama\": fetching config.json from the hub: access refused";
    hub.refuses(&from_hub("#{}"), None, message, hint);
    hub.refuses(&from_hub("#{}"), Some(TOKEN), message, hint);
    let script = "try { load_model(\"lab/llama\") } catch (e) { print(e.kind) }";
    assert_eq!(hub.run(&Project::new(), script, None).ok(), "auth\n");
}

#[test]
fn the_token_is_sent_and_never_shown() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let project = Project::new();
    hub.run(&project, &from_hub("#{}"), Some(TOKEN)).ok();
    let sent = format!("Bearer {TOKEN}");
    let requests = hub.requests.lock().unwrap().clone();
    assert!(requests.iter().all(|request| request.header("authorization") == Some(sent.as_str())));
    assert!(hub.cdn.requests() > 0 && hub.cdn.tokens_seen() == 0, "the token is for the hub and no other host");
    hub.set("lab/gated", Model::Gated);
    for id in ["lab/llama", "lab/gated", "lab/lama"] {
        let script = format!("print(load_model(\"{id}\").to_json());");
        let outcome = hub.run(&project, &script, Some(TOKEN));
        assert!(!outcome.stdout.contains(TOKEN) && !outcome.stderr.contains(TOKEN), "{}", outcome.stderr);
    }
    for file in project.files("") {
        let data = project.bytes(&file);
        assert!(!data.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()), "the token is in {file}");
    }
}

/// An address to which no path can be added is none of a hub.
#[test]
fn endpoints_that_are_none_are_told_at_once() {
    for endpoint in ["httpx://127.0.0.1:9", "http://127.0.0.1:9?a=b", "http://127.0.0.1:9/#a", "file:///etc", "ftp://x"]
    {
        let project = Project::new();
        project.file("script.rhai", "load_model(\"lab/x\");");
        let mut command = project.command(&["run", "script.rhai"]);
        let outcome = crate::project::Outcome::of(command.env("HF_ENDPOINT", endpoint).output().unwrap());
        assert!(
            outcome.stderr.contains("it is a URL such as https://huggingface.co"),
            "{endpoint}: {}",
            outcome.stderr
        );
    }
}

/// A proxy would get the token unencrypted, and may be anybody's.
#[test]
fn a_token_for_this_computer_passes_no_proxy() {
    let (hub, project) = (Hub::start().with("lab/x", Model::Folder(fixture("olmoe"))), Project::new());
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        let proxy = Hub::start();
        let mut command = hub.command(&project, &analysis("lab/x", "#{ stream: true }"));
        command.env("HF_TOKEN", TOKEN).env(variable, &proxy.address).env_remove("NO_PROXY").env_remove("no_proxy");
        let outcome = crate::project::Outcome::of(command.output().unwrap());
        assert!(proxy.requests.lock().unwrap().is_empty(), "{variable}");
        let asked: Vec<_> = hub.requests.lock().unwrap().drain(..).collect();
        let told: Vec<_> =
            asked.iter().map(|request| (&request.path, request.header("authorization").is_some())).collect();
        assert!(!told.is_empty() && told.iter().all(|(_, token)| *token), "{variable}: {told:?} {}", outcome.stderr);
    }
}

#[test]
fn a_wrong_token() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    let message = "fetching config.json from the hub: the token is not valid";
    hub.refuses(&from_hub("#{}"), Some("hf_expired"), message, "unset it: public models need none");
}

#[test]
fn a_download_that_breaks_off_is_not_taken_for_whole() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("llama")));
    // Of every file only the beginning arrives, however often it is asked for.
    hub.network(Network { ends_at: Some(1000), ..Network::default() });
    let project = Project::new();
    let outcome = hub.run(&project, &from_hub("#{}"), None).ends(FAILED);
    assert!(outcome.stderr.contains("fetching model-00001-of-00002.safetensors from the hub"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: is the network reachable?"), "{}", outcome.stderr);
    hub.network(Network::default());
    hub.run(&project, &from_hub("#{}"), None).ok();
}

#[test]
fn an_error_page_in_place_of_a_file_is_not_kept() {
    for end in ["config.json", "00002.safetensors"] {
        let hub = Hub::start().with("lab/llama", Model::Sorry(fixture("llama"), end));
        let project = Project::new();
        hub.run(&project, &from_hub("#{}"), None).ends(FAILED);
        hub.set("lab/llama", Model::Folder(fixture("llama")));
        hub.run(&project, &from_hub("#{}"), None).ok();
    }
}

#[test]
fn a_hub_that_does_not_answer() {
    let message = "model \"lab/llama\": fetching config.json from the hub: ";
    let hint = "is the network reachable? a model that is already in a folder can be given by its path";
    Project::new().refuses(&from_hub("#{}"), FAILED, message, hint);
}

#[test]
fn a_folder_wins_over_the_hub() {
    let hub = Hub::start().with("lab/llama", Model::Folder(fixture("mixtral")));
    let project = Project::new();
    project.copy("tests/fixtures/llama", "lab/llama");
    let script = "let m = load_model(\"lab/llama\"); print(m.model_type); print(m.revision);";
    assert_eq!(hub.run(&project, script, None).ok(), "llama\n\n");
    assert!(hub.asked().is_empty());
}
