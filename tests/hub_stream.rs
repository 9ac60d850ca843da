//! Tests of `stream: true`: a model on the hub gives the same bytes as on disk, whatever the
//! network does, and nothing else is written, fetched or fetched twice.

use std::path::PathBuf;

use crate::fake_hub::cdn::{Network, Sent, counted};
use crate::fake_hub::{COMMIT, FAILED, Hub, Model, Mood, TOKEN};
use crate::oracle;
use crate::project::{FULL, Outcome, Project};
use crate::streaming::Shape;

const ID: &str = "lab/streamed";
const IDS: &str = "[[1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 9, 200, 9, 1, 1, 255]]";

/// Layers of 34 MB, so that each takes several requests.
const LARGE: Shape = Shape { hidden: 1024, inner: 4096, experts: 0, layers: 3 };
/// Layers of a few kilobytes.
const SMALL: Shape = Shape { hidden: 64, inner: 96, experts: 0, layers: 3 };

/// A project with a model in `model/`, and a hub that has the same.
struct Both {
    project: Project,
    hub: Hub,
    /// Seconds without a byte after which a connection is given up.
    stall: &'static str,
}

fn both(shape: &Shape) -> Both {
    let project = Project::new();
    shape.write(&project);
    let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
    Both { project, hub, stall: "120" }
}

fn analysis(id: &str, stream: bool, ids: &str, extract: &str) -> String {
    format!(
        "let model = load_model(\"{id}\", #{{ stream: {stream} }});
         let options = #{{ keep: \"full\", out: \"results/full\" }};
         options += {extract};
         let acts = model.extract_layernorms(load_tokens(#{{ ids: {ids} }}), options);
         print(#{{ m: acts.measurements, c: acts.expert_coverage }}.to_json());"
    )
}

impl Both {
    /// What the analysis of the files on disk gives: every norm output and the logits, and what it measured.
    fn local(&self, ids: &str, extract: &str) -> (Vec<u8>, serde_json::Value) {
        let measured = self.project.script(&analysis("model", false, ids, extract)).json();
        let full = self.project.bytes(&format!("results/full/{FULL}"));
        std::fs::remove_dir_all(self.project.path("results")).unwrap();
        (full, measured)
    }

    fn streamed(&self, ids: &str, extract: &str) -> Outcome {
        let mut command = self.hub.command(&self.project, &analysis(ID, true, ids, extract));
        command.env("HF_HUB_DOWNLOAD_TIMEOUT", self.stall).env("TMPDIR", self.project.path("tmp"));
        Outcome::of(command.output().unwrap())
    }

    /// Both ways give the same, and what is sent is what is needed; returns what was sent.
    #[track_caller]
    fn agree(&self, ids: &str, extract: &str) -> Sent {
        let (sent, needed) = self.same(ids, extract);
        // Headers are read beside the tensors, and small gaps.
        let total: u64 = sent.values().map(|ranges| counted(ranges).0).sum();
        assert!(total >= needed && total <= needed + needed / 10 + 200_000, "{total} bytes sent, {needed} needed");
        sent
    }

    /// Both ways give the same; returns what was sent, and how many bytes the computation took.
    #[track_caller]
    fn same(&self, ids: &str, extract: &str) -> (Sent, u64) {
        let (local, measured) = self.local(ids, extract);
        let before = self.project.files("");
        self.hub.cdn.sent();
        let got = self.streamed(ids, extract).json();
        assert!(self.project.bytes(&format!("results/full/{FULL}")) == local, "streamed and local results differ");
        assert_eq!(got["c"], measured["c"]);
        assert_eq!(got["m"]["bytes_read"], measured["m"]["bytes_read"]);
        let written = self.project.files("").into_iter().filter(|file| !before.contains(file));
        assert_eq!(written.collect::<Vec<_>>(), [format!("results/full/{FULL}")], "nothing but the result is written");
        std::fs::remove_dir_all(self.project.path("results")).unwrap();
        (self.hub.cdn.sent(), measured["m"]["bytes_read"].as_u64().unwrap())
    }
}

#[track_caller]
fn nothing_twice(sent: &Sent) {
    for (file, ranges) in sent {
        assert_eq!(counted(ranges).1, 0, "{} bytes twice: {ranges:?}", file.display());
    }
}

#[test]
fn streamed_results_are_those_of_files_on_disk() {
    for shape in [LARGE, SMALL, Shape { experts: 8, ..SMALL }] {
        let both = both(&shape);
        for extract in ["#{}", "#{ logits: true }"] {
            nothing_twice(&both.agree(IDS, extract));
        }
    }
}

#[test]
fn every_kind_of_layer_is_streamed_as_it_is_read_from_disk() {
    for kind in oracle::kinds() {
        let project = Project::new();
        project.copy(&format!("tests/fixtures/{}", kind.file_name().unwrap().display()), "model");
        // References are no part of a repository.
        for file in ["reference.safetensors", "expected.json"] {
            std::fs::remove_file(project.path(&format!("model/{file}"))).unwrap();
        }
        let hub = Hub::start().with(ID, Model::Folder(project.path("model")));
        let both = Both { project, hub, stall: "120" };
        both.same("[[1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 9, 100, 9, 1, 1, 127]]", "#{ logits: true }");
    }
}

#[test]
fn the_model_says_where_it_is() {
    let Both { project, hub, .. } = both(&SMALL);
    let script = format!("let m = load_model(\"{ID}\", #{{ stream: true }}); print(m.path); print(m.revision);");
    assert_eq!(hub.run(&project, &script, None).ok(), format!("hf://{ID}@{COMMIT}\n{COMMIT}\n"));
}

#[test]
fn text_is_cut_by_the_tokenizer_on_the_hub() {
    let project = Project::new();
    project
        .copy("examples/shakespeare-olmoe", "example")
        .file("text.txt", "To be, or not to be, that is the question.");
    let hub = Hub::start().with(ID, Model::Folder(project.path("example")));
    let script = |load: &str| {
        format!(
            "let model = load_model({load});
             let o = #{{ text: \"text.txt\", model: model, num_sequences: 1, sequence_length: 8 }};
             print(load_tokens(o).ids.to_json());"
        )
    };
    let local = project.script(&script("\"example\"")).ok();
    assert_eq!(hub.run(&project, &script(&format!("\"{ID}\", #{{ stream: true }}")), None).ok(), local);
    assert!(!project.has("hf"));
}

#[test]
fn a_bad_network_changes_nothing() {
    let both = both(&LARGE);
    let cut_every = Some(3_000_000);
    both.hub.network(Network { cut_every, fail_every: Some(10), ..Network::default() });
    let sent = both.agree(IDS, "#{ logits: true }");
    nothing_twice(&sent);
    let ranges: usize = sent.values().map(Vec::len).sum();
    assert!(ranges > 30, "connections were cut: {ranges} ranges");
}

#[test]
fn connections_that_fall_silent_are_given_up() {
    // Long enough that a machine with much to do does not fall silent, shorter than the silence that is played.
    let both = Both { stall: "6", ..both(&LARGE) };
    both.hub.network(Network { stall_every: Some(6), ..Network::default() });
    nothing_twice(&both.agree(IDS, "#{}"));
}

#[test]
fn signed_addresses_expire() {
    let both = both(&LARGE);
    both.hub.network(Network { expire_after: Some(3), ..Network::default() });
    nothing_twice(&both.agree(IDS, "#{}"));
}

#[test]
fn the_token_stays_with_the_hub() {
    let Both { project, hub, .. } = both(&SMALL);
    hub.network(Network { expire_after: Some(2), fail_every: Some(3), ..Network::default() });
    hub.run(&project, &analysis(ID, true, IDS, "#{}"), Some(TOKEN)).ok();
    let sent = format!("Bearer {TOKEN}");
    let requests = hub.requests.lock().unwrap().clone();
    assert!(!requests.is_empty() && requests.iter().all(|r| r.header("authorization") == Some(sent.as_str())));
    assert!(requests.iter().all(|r| r.header("accept-encoding") == Some("identity")));
    assert!(hub.cdn.requests() > 0 && hub.cdn.tokens_seen() == 0);
}

#[test]
fn a_hub_that_is_asked_too_often_or_is_busy() {
    let both = both(&SMALL);
    both.hub.mood(Mood { limited: 2, busy: 2, relative_redirects: true, ..Mood::default() });
    let limit_headers = vec![("Retry-After", "1")];
    both.hub.network(Network { limited: 3, limit_headers, ..Network::default() });
    nothing_twice(&both.agree(IDS, "#{}"));
    let limit_headers = vec![("RateLimit", "\"resolvers\";r=0;t=0")];
    both.hub.network(Network { limited: 3, limit_headers, ..Network::default() });
    nothing_twice(&both.agree(IDS, "#{}"));
}

#[track_caller]
fn refused(outcome: Outcome, message: &str, hint: &str) {
    let outcome = outcome.ends(FAILED);
    assert!(outcome.stderr.contains(message), "{message:?} in {}", outcome.stderr);
    assert!(outcome.stderr.contains(hint), "{hint:?} in {}", outcome.stderr);
}

#[test]
fn a_file_that_changes_is_an_error() {
    let both = both(&LARGE);
    // Two requests read the header of each of four files.
    both.hub.network(Network { changes_after: Some(12), ..Network::default() });
    refused(both.streamed(IDS, "#{}"), "the file has changed on the hub while it was read", "give `revision` a commit");
}

#[test]
fn a_server_that_ignores_ranges() {
    // Small files are read from their beginning; of large ones that would be most bytes for nothing.
    let both = both(&SMALL);
    both.hub.network(Network { whole_files: true, ..Network::default() });
    let (local, _) = both.local(IDS, "#{}");
    both.streamed(IDS, "#{}").ok();
    assert!(both.project.bytes(&format!("results/full/{FULL}")) == local);
    let both = self::both(&LARGE);
    both.hub.network(Network { whole_files: true, ..Network::default() });
    refused(both.streamed(IDS, "#{}"), "the server does not serve ranges", "a proxy may stand between");
}

#[test]
fn what_does_not_exist_is_told_as_for_downloads() {
    let hub = Hub::start().with("lab/gated", Model::Gated);
    let script = |id: &str, options: &str| format!("load_model(\"{id}\", #{{ stream: true {options} }})");
    hub.refuses(&script("lab/gated", ""), Some(TOKEN), "access refused", "accept the model's terms");
    hub.refuses(&script("lab/none", ""), None, "no such model, or it is private", "set HF_TOKEN");
    hub.refuses(&script("lab/none", ""), Some("hf_expired"), "the token is not valid", "unset it");
    let Both { hub, .. } = both(&SMALL);
    hub.refuses(&script(ID, ", revision: \"v9\""), None, "no revision \"v9\"", "give a branch, tag or commit");
}

#[test]
fn unchosen_experts_and_unused_rows_are_not_fetched() {
    let shape = Shape { hidden: 256, inner: 512, experts: 64, layers: 3 };
    let both = both(&shape);
    // Few tokens: what the router will choose is not guessed.
    let sent = both.agree(IDS, "#{}");
    nothing_twice(&sent);
    let layer = both.project.path("model/model-layer-01.safetensors");
    let size = std::fs::metadata(&layer).unwrap().len();
    assert!(counted(&sent[&layer]).0 < size * 2 / 3, "all experts were fetched");
    // Many tokens: experts are fetched before the router has chosen them.
    let row: Vec<usize> = (0..256).map(|t| (t * 7 + 3) % 256).collect();
    let (sent, needed) = both.same(&serde_json::to_string(&vec![row; 2]).unwrap(), "#{}");
    nothing_twice(&sent);
    assert!(sent.values().map(|ranges| counted(ranges).0).sum::<u64>() >= needed);
}

/// Bytes of a safetensors header and its length.
fn header_bytes(path: &PathBuf) -> u64 {
    let data = std::fs::read(path).unwrap();
    8 + u64::from_le_bytes(data[..8].try_into().unwrap())
}

#[test]
fn an_estimate_reads_headers_only() {
    let Both { project, hub, .. } = both(&LARGE);
    let estimate = |id: &str| format!("print(estimate_vram(\"{id}\").to_json());");
    let mut local = project.script(&estimate("model")).json();
    let before = project.files("");
    let got = hub.run(&project, &estimate(ID), None).json();
    local["id"] = ID.into();
    assert_eq!(got, local);
    let sent = hub.cdn.sent();
    assert_eq!(sent.len(), LARGE.layers + 1);
    for (file, ranges) in &sent {
        assert_eq!(counted(ranges), (header_bytes(file), 0), "{}", file.display());
    }
    assert_eq!(project.files(""), before, "nothing is written");
}

#[test]
fn an_estimate_of_a_streamed_model_counts_what_is_on_its_way() {
    let Both { project, .. } = both(&LARGE);
    let total = |options: &str| format!("estimate_vram(\"model\", #{{ {options} }}).total_bytes");
    let script = format!("print({} - {});", total("stream: true"), total("stream: false"));
    let download = project.script("print(estimate_vram(\"model\").download_bytes);").ok();
    assert_eq!(project.script(&script).ok(), download, "less than the limit: all of it");
}
