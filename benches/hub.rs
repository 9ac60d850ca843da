//! Measures how much of a link a streamed model uses: a mixture of experts of more than 1 GB, which
//! is made here and served by the tests' hub over loopback at a limited rate. `make bench-hub`.
//!
//! The link use is the number of bytes sent, divided by the number that the link could have carried
//! during the analysis. Arguments: megabytes per second (200), sequences of 512 tokens (4).

// Items that modules of a test share are public to nobody else.
#![allow(unreachable_pub)]
#![allow(dead_code)]

#[path = "../tests/checkpoint.rs"]
mod checkpoint;
#[path = "../tests/fake_hub/mod.rs"]
mod fake_hub;
#[path = "../tests/project.rs"]
mod project;
#[path = "../tests/streaming.rs"]
mod streaming;

use std::time::Instant;

use fake_hub::cdn::{Network, counted};
use fake_hub::{Hub, Model};
use project::Project;
use serde_json::Value;
use streaming::Shape;

const RUNS: usize = 5;
const TOKENS: usize = 512;
const SHAPE: Shape = Shape { hidden: 1024, inner: 512, experts: 64, layers: 6 };

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let megabytes = numbers.first().copied().unwrap_or(200);
    let sequences = numbers.get(1).copied().unwrap_or(4);
    let project = Project::new();
    SHAPE.write(&project);
    let row = |s: usize| (0..TOKENS).map(|t| (t * 7 + s * 31 + 3) % 256).collect::<Vec<_>>();
    let ids: Vec<_> = (0..sequences).map(row).collect();
    project.file("ids.json", serde_json::to_string(&ids).unwrap());
    let hub = Hub::start().with("lab/model", Model::Folder(project.path("model")));
    let size: u64 =
        project.files("model").iter().map(|f| std::fs::metadata(project.path("model").join(f)).unwrap().len()).sum();
    println!(
        "model: {:.2} GB, {} layers, {} experts; {sequences} x {TOKENS} tokens",
        size as f64 / 1e9,
        SHAPE.layers,
        SHAPE.experts
    );

    let script = |id: &str, stream: bool| {
        format!(
            "let model = load_model(\"{id}\", #{{ stream: {stream}, dtype: \"bf16\" }});
             let acts = model.extract_layernorms(load_tokens(#{{ ids: \"ids.json\" }}), #{{ logits: true }});
             print(#{{ m: acts.measurements, nll: acts.mean_nll }}.to_json());"
        )
    };
    let local = project.script(&script("model", false)).json();
    println!("from the page cache:    analysis {:6.2} s", seconds(&local));
    run(&project, &hub, &script("lab/model", true), &local, "no limit:              ", None);
    let bandwidth = megabytes as u64 * 1_000_000;
    let mut uses = Vec::new();
    for _ in 0..RUNS {
        let what = format!("{megabytes:>4} MB/s:             ");
        uses.push(run(&project, &hub, &script("lab/model", true), &local, &what, Some(bandwidth)));
    }
    uses.sort_by(f64::total_cmp);
    println!("link used, median of {RUNS}: {:.1} %", uses[RUNS / 2]);
    let what = format!("{megabytes:>4} MB/s, 1 % fail, cut every 100 MB: ");
    let bad = Network {
        bandwidth: Some(bandwidth),
        fail_every: Some(100),
        cut_every: Some(100_000_000),
        ..Network::default()
    };
    hub.network(bad);
    measured(&project, &hub, &script("lab/model", true), &local, &what, Some(bandwidth));
}

fn seconds(printed: &Value) -> f64 {
    printed["m"]["wall_seconds"].as_f64().unwrap()
}

fn run(project: &Project, hub: &Hub, script: &str, local: &Value, what: &str, bandwidth: Option<u64>) -> f64 {
    hub.network(Network { bandwidth, ..Network::default() });
    measured(project, hub, script, local, what, bandwidth)
}

/// Prints a line and returns the share of the link that was used, in percent.
fn measured(project: &Project, hub: &Hub, script: &str, local: &Value, what: &str, bandwidth: Option<u64>) -> f64 {
    hub.cdn.sent();
    let start = Instant::now();
    let printed = hub.run(project, script, None).json();
    let wall = start.elapsed().as_secs_f64();
    assert_eq!(printed["nll"], local["nll"], "streamed and local losses differ");
    let sent = hub.cdn.sent();
    let (bytes, twice) = sent.values().map(|ranges| counted(ranges)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let seconds = seconds(&printed);
    let rate = bytes as f64 / seconds;
    let used = bandwidth.map_or(f64::NAN, |bandwidth| 100.0 * rate / bandwidth as f64);
    println!(
        "{what} analysis {seconds:6.2} s, process {wall:6.2} s, {:.3} GB sent, {twice} bytes twice, {:.0} MB/s{}, peak {:.0} MB",
        bytes as f64 / 1e9,
        rate / 1e6,
        if used.is_nan() { String::new() } else { format!(", link used {used:.1} %") },
        printed["m"]["peak_memory_bytes"].as_f64().unwrap() / 1e6,
    );
    used
}
