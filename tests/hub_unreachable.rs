//! Tests of a hub that does not answer: the cache is used at once with one note, and missing files
//! are named. Tests of models by their names from the time before owners.

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fake_hub::{COMMIT, FAILED, Hub, Model};
use crate::project::{Outcome, Project, repository};

/// A branch, and a commit that is known to be there.
const REVISIONS: [&str; 2] = ["main", COMMIT];
const SHARDED: &str = "lab/sharded";
const SINGLE: &str = "lab/single";
/// So long a run may take that waits for nobody: far less than two attempts at a hub that takes no call.
const AT_ONCE: Duration = Duration::from_secs(15);

fn fixture(name: &str) -> PathBuf {
    repository().join(name)
}

/// A project whose cache holds a model in shards, without a tokenizer, and one in a single file with one.
fn cached() -> (Hub, Project) {
    let hub = Hub::start()
        .with(SHARDED, Model::Folder(fixture("tests/fixtures/llama")))
        .with(SINGLE, Model::Folder(fixture("examples/shakespeare-olmoe")));
    let project = Project::new();
    for id in [SHARDED, SINGLE] {
        hub.run(&project, &layers(id, "main", ""), None).ok();
    }
    (hub, project)
}

fn layers(id: &str, revision: &str, options: &str) -> String {
    format!("print(load_model(\"{id}\", #{{ revision: \"{revision}\" {options} }}).num_layers);")
}

/// Ways in which a hub cannot be reached, as variables of the environment. What keeps them so lives as long as the list.
struct Unreachable {
    ways: Vec<(&'static str, Vec<(&'static str, String)>)>,
    _silent: TcpListener,
}

impl Unreachable {
    fn new() -> Self {
        // Takes connections and never says a word.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
        let waits = answering("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n");
        let portal = answering("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n");
        let silence = format!("http://{}", silent.local_addr().unwrap());
        let hub = |address: &str| vec![("HF_ENDPOINT", address.to_string())];
        let through = |proxy: &str| {
            let named = ["http_proxy", "https_proxy", "ALL_PROXY"].map(|name| (name, proxy.to_string()));
            named.into_iter().chain([("HF_ENDPOINT", "http://hub.example".to_string())]).collect::<Vec<_>>()
        };
        let ways = vec![
            ("nobody listens", hub("http://127.0.0.1:9")),
            ("its name is unknown", hub("http://no-such-host.invalid")),
            ("it takes no word", hub(&silence)),
            ("it is out of order", hub(&busy)),
            ("it wants to be left alone", hub(&waits)),
            ("somebody else answers", hub(&portal)),
            ("the proxy is not there", through("http://127.0.0.1:9")),
            ("the proxy takes no word", through(&silence)),
            ("the proxy cannot reach it", through(&busy)),
        ];
        Self { ways, _silent: silent }
    }
}

/// A server that answers every request with the same words.
fn answering(words: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                use std::io::Read;
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|count| count > 0)
                    && stream.write_all(words.as_bytes()).is_ok()
                {}
            });
        }
    });
    address
}

fn command(project: &Project, variables: &[(&str, String)], words: &[&str]) -> Command {
    let mut command = project.command(words);
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    command
}

fn run(project: &Project, variables: &[(&str, String)], script: &str) -> Outcome {
    project.file("script.rhai", script);
    Outcome::of(command(project, variables, &["run", "script.rhai"]).output().unwrap())
}

/// The lines that say that the cache is used.
fn told(outcome: &Outcome) -> Vec<&str> {
    outcome.stderr.lines().filter(|line| line.contains("used as it is in the cache")).collect()
}

#[test]
fn a_model_that_is_in_the_cache_needs_no_hub() {
    let (_hub, project) = cached();
    let unreachable = Unreachable::new();
    for (way, variables) in &unreachable.ways {
        for (id, revision, options) in [
            (SHARDED, "main", ""),
            (SINGLE, "main", ""),
            (SHARDED, COMMIT, ""),
            (SINGLE, COMMIT, ""),
            (SINGLE, "main", ", stream: true"),
        ] {
            let begin = Instant::now();
            let outcome = run(&project, variables, &layers(id, revision, options));
            let took = begin.elapsed();
            assert_eq!(outcome.code, 0, "{way}, {id} at {revision}{options}: {}", outcome.stderr);
            assert!(took < AT_ONCE, "{way}, {id} at {revision}{options}: {took:?}");
            // A commit never moves: about one that is whole nobody need be asked.
            let asked = revision == "main" || id == SHARDED;
            let lines = told(&outcome);
            assert!(lines.len() <= 1 && (asked || lines.is_empty()), "{way}, {id} at {revision}: {}", outcome.stderr);
            if revision == "main" {
                assert_eq!(lines.len(), 1, "{way}, {id}: {}", outcome.stderr);
                assert!(lines[0].contains(&format!("model \"{id}\"")) && lines[0].contains(COMMIT), "{lines:?}");
            }
        }
    }
}

#[test]
fn an_analysis_from_the_cache_is_the_analysis() {
    let (hub, project) = cached();
    let script = format!(
        "let model = load_model(\"{SINGLE}\");
         let needs = estimate_vram(\"{SINGLE}\");
         let tokens = load_tokens(#{{ text: \"text.txt\", model: model, num_sequences: 1, sequence_length: 16 }});
         print(needs.read_bytes); print(model.revision);
         print(model.extract_layernorms(tokens).detect_outliers(#{{ magnitude_threshold: 3.0 }}).to_json());"
    );
    project.file("text.txt", "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer.");
    let online = hub.run(&project, &script, None).ok();
    let outcome = run(&project, &[], &script);
    assert_eq!(told(&outcome).len(), 1, "once for one model: {}", outcome.stderr);
    assert_eq!(outcome.ok(), online);
    let planned = command(&project, &[], &["plan", "script.rhai"]).output().unwrap();
    assert!(Outcome::of(planned).ok().contains("Total: 1 pass"));
}

#[test]
fn what_is_missing_in_the_cache_is_named() {
    let shard = "model-00002-of-00002.safetensors";
    for revision in REVISIONS {
        let (hub, project) = cached();
        let cache = "hf/hub/models--lab--sharded";
        std::fs::remove_file(project.path(&format!("{cache}/snapshots/{COMMIT}/{shard}"))).unwrap();
        let outcome = run(&project, &[], &layers(SHARDED, revision, "")).ends(FAILED);
        let message = format!("model \"{SHARDED}\": {shard} is not in the cache, and fetching {shard} from the hub: ");
        assert!(
            outcome.stderr.contains(&message) && outcome.stderr.contains("Connection refused"),
            "{}",
            outcome.stderr
        );
        assert!(outcome.stderr.contains("hint: is the network reachable?") && told(&outcome).is_empty());
        std::fs::remove_file(project.path(&format!("{cache}/snapshots/{COMMIT}/model-00001-of-00002.safetensors")))
            .unwrap();
        let outcome = run(&project, &[], &layers(SHARDED, revision, "")).ends(FAILED);
        let both = "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors are not in the cache";
        assert!(outcome.stderr.contains(both), "{}", outcome.stderr);
        // What was only lost here is fetched again from a hub that answers.
        hub.run(&project, &layers(SHARDED, revision, ""), None).ok();
    }
}

#[test]
fn a_dataset_that_is_in_the_cache_needs_no_hub() {
    let origin = Project::new();
    crate::dataset::corpus_at(&origin.path("set/data/train-0.parquet"));
    let hub = Hub::start().with("datasets/lab/set", Model::Folder(origin.path("set")));
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    let script = |sequences: usize| {
        format!(
            "let model = load_model(\"model\");
             let tokens = load_tokens(#{{ dataset: \"lab/set\", model: model, num_sequences: {sequences}, sequence_length: 8 }});
             print(tokens.ids);"
        )
    };
    let online = hub.run(&project, &script(1), None).ok();
    let unreachable = Unreachable::new();
    for (way, variables) in &unreachable.ways {
        let begin = Instant::now();
        let outcome = run(&project, variables, &script(1));
        let took = begin.elapsed();
        assert!(outcome.code == 0 && took < AT_ONCE, "{way}: {took:?} {}", outcome.stderr);
        assert_eq!(told(&outcome).len(), 1, "{way}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, online, "{way}");
    }
    // Which file it is is known, and not what is in it.
    std::fs::remove_dir_all(project.path(&format!("cache/outlier/datasets/lab--set/{COMMIT}"))).unwrap();
    let outcome = run(&project, &[], &script(1)).ends(FAILED);
    let message =
        "dataset \"lab/set\": not all of data/train-0.parquet is in the cache, and fetching data/train-0.parquet";
    assert!(outcome.stderr.contains(message), "{}", outcome.stderr);
}

#[test]
fn models_and_datasets_without_an_owner() {
    let origin = Project::new();
    crate::dataset::corpus_at(&origin.path("set/data/train-0.parquet"));
    let hub = Hub::start()
        .with("gpt2", Model::Moved("openai-community/gpt2"))
        .with("openai-community/gpt2", Model::Folder(fixture("examples/shakespeare-olmoe")))
        .with("datasets/wikitext", Model::Moved("datasets/Salesforce/wikitext"))
        .with("datasets/Salesforce/wikitext", Model::Folder(origin.path("set")));
    let project = Project::new();
    let script = |options: &str| {
        format!(
            "let model = load_model(\"gpt2\", #{{ {options} }});
             let tokens = load_tokens(#{{ dataset: \"wikitext\", model: model, num_sequences: 1, sequence_length: 8 }});
             print(model.id); print(model.revision); print(tokens.ids);
             print(model.extract_layernorms(tokens).detect_outliers().to_json());"
        )
    };
    let streamed = hub.run(&project, &script("stream: true"), None).ok();
    assert!(!project.has("hf/hub") && streamed.starts_with(&format!("gpt2\n{COMMIT}\n")), "{streamed}");
    assert_eq!(hub.run(&project, &script(""), None).ok(), streamed);
    // As the Python package keeps it, and found there again without a hub.
    assert!(project.has(&format!("hf/hub/models--gpt2/snapshots/{COMMIT}/model.safetensors")));
    assert_eq!(run(&project, &[], &script("")).ok(), streamed);
    hub.run(&project, "print(estimate_vram(\"gpt2\").num_layers);", None).ok();
}

#[test]
fn an_address_of_the_hub_is_answered_with_the_id() {
    let hub = Hub::start();
    for (address, hint) in [
        ("https://huggingface.co/gpt2", "the id of it on the hub is \"gpt2\""),
        ("https://huggingface.co/lab/model/tree/main", "the id of it on the hub is \"lab/model\""),
        ("huggingface.co/lab", "the id of it on the hub is \"lab\""),
        ("hf.co/lab/model/tree/v2", "\"lab/model\", and `revision: \"v2\"` names the revision"),
    ] {
        let message = format!("model \"{address}\": no such folder, and not a hub id");
        hub.refuses(&format!("load_model(\"{address}\")"), None, &message, hint);
    }
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    let script = "load_tokens(#{ dataset: \"https://huggingface.co/datasets/lab/texts\", model: load_model(\"model\"), \
                  num_sequences: 1, sequence_length: 2 });";
    let outcome = hub.run(&project, script, None).ends(1);
    assert!(outcome.stderr.contains("the id of it on the hub is \"lab/texts\""), "{}", outcome.stderr);
    assert!(hub.asked().is_empty());
}

#[test]
fn a_name_without_an_owner_may_be_a_misspelt_folder() {
    let hub = Hub::start();
    let hint = "give a folder with config.json and safetensors files, or a hub id such as";
    let none = "model \"gtp2\": no such folder, and not a hub id: fetching config.json from the hub: no such model";
    hub.refuses("load_model(\"gtp2\")", None, none, hint);
    hub.refuses("load_model(\"gtp2\", #{ stream: true })", None, none, hint);
    let silent =
        "model \"gtp2\": no such folder, and the hub cannot be asked for it: fetching config.json from the hub: ";
    Project::new().refuses("load_model(\"gtp2\")", FAILED, silent, hint);
    // Files are no models, and nobody is asked about them.
    hub.asked();
    let project = Project::new();
    project.file("weights", "").file("model.safetensors", "");
    for (name, what) in [
        ("weights", "a file, not the folder of a model"),
        ("model.safetensors", "a safetensors file, not the folder of a model"),
        ("not_there.gguf", "no such folder, and not a hub id"),
    ] {
        let outcome = hub.run(&project, &format!("load_model(\"{name}\")"), None).ends(FAILED);
        assert!(outcome.stderr.contains(&format!("model \"{name}\": {what}")), "{}", outcome.stderr);
    }
    assert!(hub.asked().is_empty());
}
