//! Tests of downloads into the Hugging Face cache: they have the layout of the Python package,
//! continue where they stopped, are verified, and are shared between processes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::fake_hub::cdn::{Network, counted};
use crate::fake_hub::{COMMIT, FAILED, Hub, Model, Mood};
use crate::project::{Outcome, Project};
use crate::streaming::Shape;

const ID: &str = "lab/large";
const CACHE: &str = "hf/hub/models--lab--large";
const LOAD: &str = "print(load_model(\"lab/large\").num_layers);";
const LAYER: &str = "model-layer-00.safetensors";

/// One file of 160 MB: more than is in flight at once.
const LARGE: Shape = Shape { hidden: 1024, inner: 24576, experts: 0, layers: 1 };
const SMALL: Shape = Shape { hidden: 64, inner: 96, experts: 0, layers: 2 };

fn start(shape: &Shape) -> (Project, Project, Hub) {
    let origin = Project::new();
    shape.write(&origin);
    let hub = Hub::start().with(ID, Model::Folder(origin.path("model")));
    (origin, Project::new(), hub)
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of a file's header, which is read before much is downloaded.
fn header(data: &[u8]) -> u64 {
    8 + u64::from_le_bytes(data[..8].try_into().unwrap())
}

#[test]
fn the_cache_is_laid_out_as_in_python() {
    let (origin, project, hub) = start(&SMALL);
    hub.mood(Mood { xet: true, relative_redirects: true, ..Mood::default() });
    assert_eq!(hub.run(&project, LOAD, None).ok(), "2\n");
    for name in [LAYER, "model-rest.safetensors"] {
        let data = origin.bytes(&format!("model/{name}"));
        let link = std::fs::read_link(project.path(&format!("{CACHE}/snapshots/{COMMIT}/{name}"))).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("../../blobs/{}", sha256(&data)));
        assert!(project.bytes(&format!("{CACHE}/snapshots/{COMMIT}/{name}")) == data);
    }
    assert_eq!(project.text(&format!("{CACHE}/refs/main")), COMMIT);
    let left: Vec<_> = project.files(CACHE).into_iter().filter(|file| file.contains("incomplete")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn offline_the_cache_is_used_and_nobody_is_asked() {
    let (_origin, project, hub) = start(&SMALL);
    hub.run(&project, LOAD, None).ok();
    hub.asked();
    let offline = |script: &str| {
        let mut command = hub.command(&project, script);
        Outcome::of(command.env("HF_HUB_OFFLINE", "1").output().unwrap())
    };
    assert_eq!(offline(LOAD).ok(), "2\n");
    assert_eq!(offline("print(load_model(\"lab/large\", #{ stream: true }).revision);").ok(), format!("{COMMIT}\n"));
    assert_eq!(offline("print(estimate_vram(\"lab/large\").num_layers);").ok(), "2\n");
    let outcome = offline("load_model(\"lab/other\");").ends(FAILED);
    assert!(outcome.stderr.contains("HF_HUB_OFFLINE is set and the file is not in the cache"), "{}", outcome.stderr);
    std::fs::remove_file(project.path(&format!("{CACHE}/snapshots/{COMMIT}/{LAYER}"))).unwrap();
    let outcome = offline(LOAD).ends(FAILED);
    assert!(outcome.stderr.contains(&format!("fetching {LAYER} from the hub: HF_HUB_OFFLINE")), "{}", outcome.stderr);
    assert!(hub.asked().is_empty());
}

#[test]
fn a_download_that_is_killed_goes_on_where_it_was() {
    let (origin, project, hub) = start(&LARGE);
    hub.network(Network { bandwidth: Some(30_000_000), ..Network::default() });
    let data = origin.bytes(&format!("model/{LAYER}"));
    let incomplete = project.path(&format!("{CACHE}/blobs/{}.incomplete", sha256(&data)));
    let have = || std::fs::metadata(&incomplete).map_or(0, |metadata| metadata.len());
    let mut child = hub.command(&project, LOAD).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while have() < 20_000_000 {
        assert!(
            begun.elapsed() < Duration::from_secs(300) && child.try_wait().unwrap().is_none(),
            "no download to kill"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = have();
    assert!(kept < data.len() as u64, "it was whole before it was killed");
    // A connection that is gone is noticed at its next block.
    while !hub.cdn.sent().is_empty() {
        std::thread::sleep(Duration::from_millis(300));
    }
    hub.network(Network::default());
    assert_eq!(hub.run(&project, LOAD, None).ok(), "1\n");
    let sent = hub.cdn.sent();
    let ranges = &sent[&origin.path("model").join(LAYER)];
    assert_eq!(counted(ranges), (data.len() as u64 - kept + header(&data), 0), "only what was missing is fetched");
    assert!(project.bytes(&format!("{CACHE}/snapshots/{COMMIT}/{LAYER}")) == data);
}

#[test]
fn ctrl_c_keeps_what_has_arrived() {
    let (origin, project, hub) = start(&LARGE);
    hub.network(Network { bandwidth: Some(4_000_000), ..Network::default() });
    let hash = sha256(&origin.bytes(&format!("model/{LAYER}")));
    let incomplete = project.path(&format!("{CACHE}/blobs/{hash}.incomplete"));
    let mut child = hub.command(&project, LOAD).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !std::fs::metadata(&incomplete).is_ok_and(|metadata| metadata.len() > 0) {
        assert!(child.try_wait().unwrap().is_none(), "no download to interrupt");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    Outcome::of(child.wait_with_output().unwrap()).ends(130);
    assert!(incomplete.exists(), "it stopped before all had arrived");
}

#[test]
fn wrong_bytes_are_refused_and_removed() {
    let (origin, project, hub) = start(&SMALL);
    let size = origin.bytes(&format!("model/{LAYER}")).len() as u64;
    hub.network(Network { spoiled: Some((LAYER, size - 1)), ..Network::default() });
    let outcome = hub.run(&project, LOAD, None).ends(FAILED);
    let message = format!("fetching {LAYER} from the hub: the bytes have the SHA-256 ");
    assert!(outcome.stderr.contains(&message) && outcome.stderr.contains("has been removed"), "{}", outcome.stderr);
    let hash = sha256(&origin.bytes(&format!("model/{LAYER}")));
    for name in [hash.clone(), format!("{hash}.incomplete")] {
        assert!(!project.has(&format!("{CACHE}/blobs/{name}")), "{name} is still there");
    }
    assert!(!project.has(&format!("{CACHE}/snapshots/{COMMIT}/{LAYER}")));
    hub.network(Network::default());
    assert_eq!(hub.run(&project, LOAD, None).ok(), "2\n");
}

#[test]
fn a_bad_network_is_survived() {
    let (origin, project, hub) = start(&LARGE);
    hub.network(Network {
        cut_every: Some(7_000_000),
        fail_every: Some(9),
        expire_after: Some(20),
        ..Network::default()
    });
    assert_eq!(hub.run(&project, LOAD, None).ok(), "1\n");
    let data = origin.bytes(&format!("model/{LAYER}"));
    let sent = hub.cdn.sent();
    assert_eq!(
        counted(&sent[&origin.path("model").join(LAYER)]),
        (data.len() as u64 + header(&data), header(&data)),
        "no byte comes twice"
    );
    assert!(project.bytes(&format!("{CACHE}/snapshots/{COMMIT}/{LAYER}")) == data);
}

#[test]
fn two_processes_download_once() {
    let (origin, project, hub) = start(&LARGE);
    hub.network(Network { bandwidth: Some(150_000_000), ..Network::default() });
    let start = || hub.command(&project, LOAD).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children = [start(), start()];
    let outcomes = children.map(|child| Outcome::of(child.wait_with_output().unwrap()));
    let waited = outcomes.iter().filter(|o| o.stderr.contains("another process is downloading")).count();
    // One may wait for a file while the other waits for another.
    assert!(waited >= 1, "{} {}", outcomes[0].stderr, outcomes[1].stderr);
    for outcome in outcomes {
        assert_eq!(outcome.ok(), "1\n");
    }
    let data = origin.bytes(&format!("model/{LAYER}"));
    let (total, twice) = counted(&hub.cdn.sent()[&origin.path("model").join(LAYER)]);
    assert_eq!(total - twice, data.len() as u64);
    assert!(twice <= 2 * header(&data), "of headers each process may read its own: {twice} bytes twice");
}

#[test]
fn what_does_not_fit_into_the_cache_is_not_begun() {
    let (_origin, project, hub) = start(&SMALL);
    let cache = project.path("hf");
    std::fs::create_dir(&cache).unwrap();
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&cache).status();
    assert!(mounted.unwrap().success(), "a small file system needs root");
    let outcome = hub.run(&project, LOAD, None);
    let left = project.files("hf");
    let _ = std::process::Command::new("umount").arg("-l").arg(&cache).status();
    let outcome = outcome.ends(3);
    assert!(outcome.stderr.contains("the disk is full, lab/large does not fit: it takes "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("hint: free space, set HF_HOME to a larger disk"), "{}", outcome.stderr);
    assert!(!left.iter().any(|file| file.contains("incomplete")), "{left:?}");
}
