//! Tests of malicious hubs and providers: their text becomes no file name, their bytes are verified
//! by hash, endless answers are abandoned, and a secret goes only where the user sends it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::fake_hub::cdn::Network;
use crate::fake_hub::hostile::{Hostile, Next};
use crate::fake_hub::{COMMIT, FAILED, Hub, Model, Mood, TOKEN, git_hash};
use crate::project::{Outcome, Project, repository};

const ID: &str = "lab/llama";
const CACHE: &str = "hf/hub/models--lab--llama";
const LOAD: &str = "print(load_model(\"lab/llama\").num_layers);";
const SHARD: &str = "model-00001-of-00002.safetensors";
const DATASET: &str = "lab/texts";
const TEXTS: &str =
    "load_tokens(#{ dataset: \"lab/texts\", model: load_model(\"model\"), num_sequences: 1, sequence_length: 8 });";
/// The longest run of a program that gives up by itself, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

fn fixture() -> PathBuf {
    repository().join("tests/fixtures/llama")
}

/// A hub with a small model and a dataset that has no files.
fn hub() -> Hub {
    let empty = repository().join("tests/fixtures/llama");
    Hub::start().with(ID, Model::Folder(fixture())).with(&format!("datasets/{DATASET}"), Model::Folder(empty))
}

fn ill(hub: &Hub, hostile: Vec<Hostile>) {
    hub.mood(Mood { hostile, ..Mood::default() });
}

/// All files outside of the caches, with their contents.
fn outside(project: &Project) -> Vec<(String, Vec<u8>)> {
    let ours = |file: &String| !file.starts_with("hf/") && !file.starts_with("cache/") && file != "script.rhai";
    project.files("").into_iter().filter(ours).map(|file| (file.clone(), project.bytes(&file))).collect()
}

/// The end of a program that must end by itself.
#[track_caller]
fn ends_by_itself(mut child: Child) -> Outcome {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not come to an end");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Outcome::of(child.wait_with_output().unwrap())
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
pub fn what_a_hub_says_becomes_no_file_name() {
    let up = "../../../../home/.bashrc";
    let header = |end, name, value: &str| Hostile::Header(end, name, Some(format!("\"{value}\"")));
    let bare = |end, name, value: &str| Hostile::Header(end, name, Some(value.to_string()));
    let cases = [
        vec![header(SHARD, "X-Linked-Etag", up)],
        vec![header(SHARD, "X-Linked-Etag", "/tmp/outlier-hub-trust")],
        vec![header(SHARD, "X-Linked-Etag", &"a".repeat(40))],
        vec![header(SHARD, "X-Linked-Etag", &"A".repeat(64))],
        vec![header(SHARD, "X-Linked-Etag", "")],
        vec![header("config.json", "ETag", up)],
        vec![header("config.json", "ETag", ".bashrc")],
        vec![bare("config.json", "X-Repo-Commit", "../../../../home")],
        vec![bare("config.json", "X-Repo-Commit", &"a".repeat(400))],
        vec![bare(SHARD, "X-Repo-Commit", &"a".repeat(40))],
        vec![Hostile::Header("config.json", "X-Repo-Commit", None)],
    ];
    for case in cases {
        let (hub, project) = (hub(), Project::new());
        project.file("home/.bashrc", "mine\n");
        ill(&hub, case.clone());
        let before = outside(&project);
        let mut command = hub.command(&project, LOAD);
        let outcome = Outcome::of(command.env("HOME", project.path("home")).output().unwrap()).ends(FAILED);
        assert!(outcome.stderr.contains("is not "), "{case:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("hint: is HF_ENDPOINT the address of a hub"), "{case:?}: {}", outcome.stderr);
        assert_eq!(outside(&project), before, "{case:?}");
        let ours = |file: &String| file.contains("/blobs/") || file.contains("/snapshots/") || file.contains(".lock");
        let absence = format!(".no_exist/{COMMIT}/model.safetensors");
        let known = |file: &String| ours(file) || file.ends_with("refs/main") || file.ends_with(&absence);
        let files = project.files("hf").into_iter().filter(|file| !known(file));
        assert_eq!(files.collect::<Vec<_>>(), [""; 0], "{case:?}");
        hub.mood(Mood::default());
        hub.run(&project, LOAD, None).ok();
    }
}

#[test]
fn what_a_dataset_is_said_to_hold_becomes_no_file_name() {
    let project = Project::new();
    project.copy("examples/shakespeare-olmoe", "model");
    let list = |end, path: &str| {
        let list = serde_json::json!([{ "type": "file", "path": path, "size": 64 }]);
        Hostile::Answer(end, "200 OK", vec![], list.to_string().into_bytes())
    };
    // Whatever file is asked for is there.
    let headers = vec![("ETag", format!("\"{}\"", "a".repeat(64))), ("X-Repo-Commit", COMMIT.to_string())];
    let file = || Hostile::Answer(".parquet", "200 OK", headers.clone(), vec![b'x'; 64]);
    let commit = Hostile::Answer("/main", "200 OK", vec![], b"{\"id\": \"x\", \"sha\": \"../../../../..\"}".to_vec());
    let etag = Hostile::Header(".parquet", "X-Linked-Etag", Some("../../x".to_string()));
    let cases = [
        vec![list("/data", "../../../../../stolen.parquet"), file()],
        vec![list("/data", "/tmp/outlier-hub-trust.parquet"), file()],
        vec![commit, list("/data", "stolen.parquet"), file()],
        vec![etag, list("/data", "data/x.parquet")],
    ];
    for case in cases {
        let hub = hub();
        ill(&hub, case.clone());
        let before: Vec<String> = outside(&project).into_iter().map(|(file, _)| file).collect();
        hub.run(&project, TEXTS, None).ends(FAILED);
        let after: Vec<String> = outside(&project).into_iter().map(|(file, _)| file).collect();
        assert_eq!(after, before, "{case:?}");
    }
    // A script is no more to be believed than a hub.
    let hub = hub();
    for options in ["file: \"../../../../x.parquet\"", "config: \"../../x\"", "revision: \"../../../x\""] {
        let outcome = hub.run(&project, &TEXTS.replace("model:", &format!("{options}, model:")), None).ends(1);
        assert!(outcome.stderr.contains("hint: give "), "{options}: {}", outcome.stderr);
    }
    let outcome = hub.run(&project, "load_model(\"lab/llama\", #{ revision: \"../../../../x\" });", None).ends(1);
    assert!(outcome.stderr.contains("is not the name of a revision"), "{}", outcome.stderr);
    assert!(hub.asked().is_empty(), "nobody is asked");
}

#[test]
pub fn what_was_downloaded_is_believed_by_its_hash() {
    let (hub, project) = (hub(), Project::new());
    let config = std::fs::read_to_string(fixture().join("config.json")).unwrap();
    let other = config.replacen("\"rms_norm_eps\"", "\"rms_norm_epz\"", 1);
    assert_eq!((other.len(), other == config), (config.len(), false));
    ill(&hub, vec![Hostile::Body("config.json", other.clone().into_bytes())]);
    for script in [LOAD, "load_model(\"lab/llama\", #{ stream: true });"] {
        let outcome = hub.run(&project, script, None).ends(FAILED);
        assert!(outcome.stderr.contains("config.json from the hub: the bytes have the git hash"), "{}", outcome.stderr);
    }
    assert!(!project.has(&format!("{CACHE}/snapshots/{COMMIT}/config.json")));
    hub.mood(Mood::default());
    hub.run(&project, LOAD, None).ok();
    // What lies in the cache is no better: a small file is looked at each time, a large one before it is linked.
    let blob = |name: &str| project.path(&format!("{CACHE}/snapshots/{COMMIT}/{name}")).canonicalize().unwrap();
    std::fs::write(blob("config.json"), &other).unwrap();
    let mut shard = std::fs::read(blob(SHARD)).unwrap();
    *shard.last_mut().unwrap() ^= 1;
    std::fs::write(blob(SHARD), shard).unwrap();
    std::fs::remove_file(project.path(&format!("{CACHE}/snapshots/{COMMIT}/{SHARD}"))).unwrap();
    let outcome = hub.run(&project, LOAD, None).ends(0);
    assert!(outcome.stderr.contains("is damaged: fetching"), "{}", outcome.stderr);
    for name in ["config.json", SHARD] {
        assert!(std::fs::read(blob(name)).unwrap() == std::fs::read(fixture().join(name)).unwrap(), "{name}");
    }
}

/// Links and references in the cache count as the places that they lead to.
#[test]
fn a_cache_that_leads_elsewhere_is_not_followed() {
    let (hub, project) = (hub(), Project::new());
    let other = std::fs::read_to_string(fixture().join("config.json")).unwrap().replacen("1", "2", 1);
    project.file("elsewhere.json", &other).file(&format!("{CACHE}/refs/main"), "../../../..");
    let link = project.path(&format!("{CACHE}/snapshots/{COMMIT}/config.json"));
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    for target in ["../../../../../elsewhere.json", &format!("../../../{}", git_hash(other.as_bytes()))] {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        project.file(&format!("hf/hub/{}", git_hash(other.as_bytes())), &other);
        let mut offline = hub.command(&project, &format!("load_model(\"{ID}\", #{{ revision: \"{COMMIT}\" }});"));
        let outcome = Outcome::of(offline.env("HF_HUB_OFFLINE", "1").output().unwrap()).ends(FAILED);
        assert!(outcome.stderr.contains("is not in the cache"), "{target}: {}", outcome.stderr);
        hub.run(&project, LOAD, None).ok();
        let kept = std::fs::read_link(&link).unwrap();
        assert!(kept.starts_with("../../blobs") && project.text("elsewhere.json") == other, "{}", kept.display());
    }
    assert_eq!(project.text(&format!("{CACHE}/refs/main")), COMMIT);
}

/// Sizes, lists and answers are endless, or so slow that they are.
#[test]
fn what_never_ends_is_given_up() {
    let size = |text: &str| vec![Hostile::Header(SHARD, "X-Linked-Size", Some(text.to_string()))];
    let cases = [
        (LOAD, size("4611686018427387904"), "is not the size of a file"),
        (LOAD, size("18446744073709551616"), "is not the size of a file"),
        (LOAD, size("-1"), "is not the size of a file"),
        (LOAD, vec![Hostile::RedirectLoop("config.json")], "too many redirects"),
        (LOAD, vec![Hostile::EndlessHead("config.json")], "times in a row"),
        (LOAD, vec![Hostile::Drip("config.json", Duration::from_millis(20))], "fetching config.json"),
        (TEXTS, vec![Hostile::EndlessBody("revision/main")], "the answer is longer than 64 MB"),
        (TEXTS, vec![Hostile::Drip("revision/main", Duration::from_millis(20))], "bytes come in a second"),
        (TEXTS, vec![Hostile::Pages("/data", Next::Same)], "the list has no end"),
        (TEXTS, vec![Hostile::Pages("/data", Next::Other)], "the list has no end"),
    ];
    std::thread::scope(|scope| {
        for (script, hostile, message) in cases {
            scope.spawn(move || {
                let (hub, project) = (hub(), Project::new());
                project.copy("examples/shakespeare-olmoe", "model");
                ill(&hub, hostile.clone());
                let mut command = hub.command(&project, script);
                if matches!(hostile[0], Hostile::Drip(..)) {
                    // The least of a minute is then the least of a few seconds.
                    command.env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
                }
                let outcome = ends_by_itself(spawn(command)).ends(FAILED);
                assert!(outcome.stderr.contains(message), "{hostile:?}: {message:?} in {}", outcome.stderr);
            });
        }
    });
}

/// A server that sends a little and closes the connection, again and again.
#[test]
fn a_connection_that_always_breaks_is_given_up() {
    let (hub, project) = (hub(), Project::new());
    hub.network(Network { cut_every: Some(64), ..Network::default() });
    let outcome = ends_by_itself(spawn(hub.command(&project, LOAD))).ends(FAILED);
    assert!(outcome.stderr.contains("times in a row"), "{}", outcome.stderr);
}

fn interrupted_while_it_waits(command: Command, said: &str) -> Outcome {
    let mut child = spawn(command);
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains(said) {
        assert!(std::io::BufRead::read_line(&mut stderr, &mut text).unwrap() > 0, "it ended: {text}");
    }
    let begun = Instant::now();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    std::thread::spawn(move || std::io::Read::read_to_string(&mut stderr, &mut String::new()));
    let outcome = ends_by_itself(child);
    assert!(begun.elapsed() < Duration::from_secs(60), "it waited for as long as it was asked to");
    Outcome { stderr: text, ..outcome }
}

#[test]
pub fn a_server_that_asks_to_wait_for_ever() {
    for seconds in ["18446744073709551615", "100000"] {
        let (hub, project) = (hub(), Project::new());
        let status = |status| Hostile::Answer(SHARD, status, vec![("Retry-After", seconds.to_string())], vec![]);
        for status in [status("503 Service Unavailable"), status("429 Too Many Requests")] {
            ill(&hub, vec![status]);
            let outcome = interrupted_while_it_waits(hub.command(&project, LOAD), "the hub asks to wait ").ends(130);
            let told = outcome.stderr.split("the hub asks to wait ").nth(1).unwrap();
            let told: u64 = told.split(' ').next().unwrap().parse().unwrap();
            assert!(told <= 420, "{told} s");
        }
        let mut command = project.command(&["gpus", "--all"]);
        ill(&hub, vec![Hostile::Answer("", "503 Busy", vec![("Retry-After", seconds.to_string())], vec![])]);
        command.env("OUTLIER_RUNPOD_URL", &hub.address).env("RUNPOD_API_KEY", "rpa_x");
        if seconds == "100000" {
            interrupted_while_it_waits(command, "RunPod asks to wait 60 s");
        }
    }
}

/// A project below a folder with a `.env`, a listener that no user has named, and a command in the
/// project that reaches nothing outside of this machine.
fn below(env: &str, command: &[&str]) -> (Project, Hub, impl Fn() -> Command) {
    let (listener, project) = (hub(), Project::new());
    let env = env.replace("=URL", &format!("={}", listener.address));
    project.file(".env", env).file("sub/script.rhai", LOAD);
    let words: Vec<String> = command.iter().map(|word| word.to_string()).collect();
    let folder = project.path("");
    let command = move || {
        let project = Project::new();
        let mut command = project.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        command.current_dir(folder.join("sub")).env_remove("HF_ENDPOINT").env_remove("NO_PROXY").env_remove("no_proxy");
        command
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
            .env("HF_HOME", folder.join("hf"))
            .env("HOME", folder.join("home"));
        command
    };
    (project, listener, command)
}

#[test]
pub fn a_dot_env_redirects_nothing() {
    let env = "HF_ENDPOINT=URL\nOUTLIER_RUNPOD_URL=URL\nHTTP_PROXY=URL\nHTTPS_PROXY=URL\n";
    for words in [["run", "script.rhai"].as_slice(), &["offers"]] {
        let (project, listener, command) = below(env, words);
        for own in [false, true] {
            if own {
                std::fs::rename(project.path(".env"), project.path("sub/.env")).unwrap();
            }
            let mut command = command();
            command.env("HF_TOKEN", "hf_mine").env("RUNPOD_API_KEY", "rpa_mine");
            let outcome = ends_by_itself(spawn(command));
            assert_ne!(outcome.code, 0);
            let requests = listener.requests.lock().unwrap();
            assert!(requests.is_empty(), "a stranger was asked: {requests:?}");
            let told = ".env sets HF_ENDPOINT, OUTLIER_RUNPOD_URL, HTTP_PROXY, HTTPS_PROXY, which is not read from it";
            assert_eq!(outcome.stderr.contains(told), own, "{}", outcome.stderr);
        }
    }
}

#[test]
fn a_dot_env_is_read_here_and_from_this_user_only() {
    let hub = hub();
    let project = Project::new();
    let file = project.path("sub/.env");
    let tokens = || {
        hub.asked();
        let mut command = hub.command(&project, "");
        project.file("sub/script.rhai", "load_model(\"lab/llama\", #{ stream: true });");
        let outcome = Outcome::of(command.current_dir(project.path("sub")).output().unwrap());
        let requests = hub.requests.lock().unwrap();
        let with = requests.iter().filter(|request| request.header("authorization").is_some()).count();
        assert!(!requests.is_empty() && (with == 0 || with == requests.len()));
        (with > 0, outcome.stderr)
    };
    let write = |mode| {
        project.file("sub/.env", format!("# mine\nexport HF_TOKEN=\"{TOKEN}\" # ours\n"));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    };
    project.file(".env", format!("HF_TOKEN={TOKEN}"));
    let (sent, stderr) = tokens();
    assert!(!sent && !stderr.contains(".env"), "a folder above is not this one: {stderr}");
    for mode in [0o600, 0o644, 0o400] {
        write(mode);
        let (sent, stderr) = tokens();
        let told = stderr.contains(".env holds keys, and others on this machine may read it");
        assert!(sent && told == (mode == 0o644) && !stderr.contains("is not read"), "{mode:o}: {stderr}");
        std::fs::remove_file(&file).unwrap();
    }
    for mode in [0o620, 0o602, 0o666] {
        write(mode);
        let (sent, stderr) = tokens();
        assert!(!sent && stderr.contains("others may write to it") && stderr.contains("chmod 600 .env"), "{stderr}");
    }
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("../.env", &file).unwrap();
    let (sent, stderr) = tokens();
    assert!(!sent && stderr.contains(".env is not read: it is a symbolic link"), "{stderr}");
    // A variable that is set wins, and nothing that is started inherits what the file says.
    std::fs::remove_file(&file).unwrap();
    write(0o600);
    project.file("sub/script.rhai", "print(provision_gpu().run_command(\"env\").out);");
    let mut command = project.command(&["run", "--allow-commands", "script.rhai"]);
    let outcome = Outcome::of(command.current_dir(project.path("sub")).output().unwrap()).ends(0);
    assert!(!outcome.stdout.contains(TOKEN), "{}", outcome.stdout);
}

/// The listener is a proxy, which requests to other computers pass.
#[test]
pub fn a_token_does_not_cross_a_network_in_clear() {
    let (hub, project) = (hub(), Project::new());
    project.file("script.rhai", LOAD);
    let mut command = project.command(&["run", "script.rhai"]);
    command.env("HF_ENDPOINT", "http://hub.invalid").env("HTTP_PROXY", &hub.address).env("HF_TOKEN", TOKEN);
    let outcome = Outcome::of(command.output().unwrap()).ends(FAILED);
    assert!(!hub.requests.lock().unwrap().is_empty(), "the hub itself is asked");
    assert!(outcome.stderr.contains("no token is sent over plain http to another computer"), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("hint: give HF_ENDPOINT an address that begins with https://"),
        "{}",
        outcome.stderr
    );
    let mut command = project.command(&["offers"]);
    command.env("OUTLIER_RUNPOD_URL", "http://runpod.invalid").env("HTTP_PROXY", &hub.address);
    let outcome = Outcome::of(command.env("RUNPOD_API_KEY", "rpa_mine").output().unwrap()).ends(FAILED);
    assert!(outcome.stderr.contains("the key does not travel there"), "{}", outcome.stderr);
    let requests = hub.requests.lock().unwrap();
    assert!(requests.iter().all(|request| request.header("authorization").is_none()), "{requests:?}");
}

/// A provider whose answers are invalid.
#[test]
fn a_provider_that_means_ill() {
    let pod = |id: &str, name: &str| {
        serde_json::json!({ "pods": [{ "id": id, "name": name, "status": "RUNNING", "cost": 1.0,
                                       "gpu": { "id": "A\u{1b}[2J" }, "ssh": { "direct": null } }] })
    };
    let gpus = |hostile: Hostile| {
        let (hub, project) = (hub(), Project::new());
        ill(&hub, vec![hostile]);
        let mut command = project.command(&["gpus", "--all"]);
        command.env("OUTLIER_RUNPOD_URL", &hub.address).env("RUNPOD_API_KEY", "rpa_mine");
        let outcome = ends_by_itself(spawn(command));
        assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains('\u{1b}'), "{}", outcome.stdout);
        outcome
    };
    let answer =
        |value: serde_json::Value| gpus(Hostile::Answer("/v2/pods", "200 OK", vec![], value.to_string().into_bytes()));
    let fine = answer(pod("abc123", "outlier-\u{1b}]0;name\u{7}"));
    assert!(fine.code == 0 && fine.stdout.contains("abc123"), "{}{}", fine.stdout, fine.stderr);
    for id in ["../../x", "a;b", "-x", "a b", "a\u{1b}b"] {
        let outcome = answer(pod(id, "outlier-mine"));
        assert!(outcome.stderr.contains("a pod has an unexpected form"), "{id}: {}", outcome.stderr);
    }
    let page = serde_json::json!({ "pods": [], "pagination": { "nextCursor": "again", "hasNextPage": true } });
    let outcome = answer(page);
    assert!(outcome.stderr.contains("the list of pods has no end"), "{}", outcome.stderr);
    let outcome = gpus(Hostile::EndlessBody("/v2/pods"));
    assert!(outcome.stderr.contains("an answer of more than 32 MB"), "{}", outcome.stderr);
    let other = hub();
    let outcome = gpus(Hostile::Answer("", "307 Redirect", vec![("Location", other.address.clone())], vec![]));
    assert!(outcome.stderr.contains("the service is elsewhere"), "{}", outcome.stderr);
    assert!(other.requests.lock().unwrap().is_empty(), "a redirect was followed");
    let words = serde_json::json!({ "detail": "\u{1b}[31m".repeat(1000) }).to_string().into_bytes();
    gpus(Hostile::Answer("/v2/pods", "400 Bad Request", vec![], words));
}

#[test]
fn what_killed_downloads_leave_is_removed_in_the_end() {
    let (hub, project) = (hub(), Project::new());
    let (old, new) = (format!("{CACHE}/blobs/{}.incomplete", "a".repeat(64)), format!("{CACHE}/blobs/b.incomplete"));
    project.file(&old, "x").file(&new, "x").file(&format!("{CACHE}/snapshots/{COMMIT}/x.7.link"), "x");
    for file in [&old, &format!("{CACHE}/snapshots/{COMMIT}/x.7.link")] {
        assert!(Command::new("touch").args(["-d", "2020-01-01"]).arg(project.path(file)).status().unwrap().success());
    }
    hub.run(&project, LOAD, None).ok();
    let left: Vec<_> =
        project.files(CACHE).into_iter().filter(|f| f.contains("incomplete") || f.contains("link")).collect();
    assert_eq!(left, ["blobs/b.incomplete"]);
}

/// An index names thousands of files, and a config is larger than any release's.
#[test]
fn small_files_are_small() {
    let origin = Project::new();
    origin.copy("tests/fixtures/llama", "model");
    let names: Vec<String> = (0..5000).map(|i| format!("\"t{i}\": \"m{i}.safetensors\"")).collect();
    let index = format!("{{\"weight_map\": {{{}}}}}", names.join(", "));
    origin.file("model/model.safetensors.index.json", index);
    origin.refuses("load_model(\"model\");", FAILED, "it names more than 4096 files", "is this model complete?");
    let file = std::fs::File::create(origin.path("model/config.json")).unwrap();
    file.set_len(1 << 40).unwrap();
    origin.refuses("load_model(\"model\");", FAILED, "larger than the 67108864 bytes that are read of such a file", "");
    std::fs::remove_file(origin.path("model/config.json")).unwrap();
    assert!(Command::new("mkfifo").arg(origin.path("model/config.json")).status().unwrap().success());
    origin.refuses("load_model(\"model\");", FAILED, "not a regular file", "");
    let hub = hub();
    let sha = format!("\"{:x}\"", Sha256::digest(b"x"));
    ill(
        &hub,
        vec![
            Hostile::Header("config.json", "X-Linked-Size", Some((1u64 << 39).to_string())),
            Hostile::Header("config.json", "X-Linked-Etag", Some(sha)),
        ],
    );
    for script in [LOAD, "load_model(\"lab/llama\", #{ stream: true });"] {
        let outcome = hub.run(&Project::new(), script, None).ends(FAILED);
        assert!(outcome.stderr.contains("more than the 64 MB"), "{}", outcome.stderr);
    }
}
