//! Damaged files of earlier runs: records, result files, checkpoints. In most cases the checksums
//! are corrected, so that they do not reveal the damage.

use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::chance::Chance;
use crate::mutate;
use crate::process::Start;
use crate::workshop::{RESUMED, TRAINED, Workshop, copy, link, read, read_json, write};

const USE: &str = r#"
    let s = load_results("first");
    print(s.found.num_features);
    let f = s.detect_outliers(#{ magnitude_threshold: 1.0 });
    print(f.num_features);
    print(s.bootstrap_ci(#{ magnitude_threshold: 1.0, n_resamples: 50 }).num_features);
    print(s.sweep_criteria(#{ magnitude_threshold: [0.5, 1.0], n_resamples: 20 }).len());
    print(s.detect_outliers(#{ magnitude_threshold: 1.7 }).answer);
    print(s.per_sequence(#{ magnitude_threshold: 1.0 }).len());
    let i = s.threshold_index();
    print(i.count_features(3.0, 0.1, 0.1));
    print(i.feature_dims(4.0, 0.1, 0.1).len());
    print(s.heat_map(#{ columns: 8 }).to_json().len());
    print(s.magnitude_histogram().to_json().len());
    print(s.layer_profile([0, 1]).to_json().len());
    print(s.perplexity().to_json().len());
    print(export_tables(s, "csv").len());
    print(export_tables(s, "parquet").len());
"#;

/// Some use of the analysis `first`.
fn using(folder: &Path, chance: &mut Chance) -> Start {
    write(folder.join("use.rhai"), USE);
    let ways: &[&[&str]] = &[
        &["run", "use.rhai"],
        &["run", "use.rhai"],
        &["run", "use.rhai"],
        &["run", "scripts/analyze.rhai"],
        &["run", "scripts/report.rhai"],
        &["run", "scripts/plots.rhai"],
        &["rethreshold", "results/first", "--magnitude", "1"],
    ];
    let way = *chance.pick(ways);
    Start::of(way)
}

fn bring(workshop: &Workshop, folder: &Path) {
    copy(&workshop.project().join("results"), &folder.join("results"));
    link(&workshop.project().join("scripts"), &folder.join("scripts"));
}

/// A record with its tensors unpacked.
struct Record {
    meta: Value,
    tensors: Vec<(String, Vec<u8>)>,
}

impl Record {
    fn read(path: &Path) -> Self {
        let data = read(path);
        let length = u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&data[8..8 + length]).unwrap();
        let at = |entry: &Value, which: usize| 8 + length + entry["data_offsets"][which].as_u64().unwrap() as usize;
        let entries = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__");
        let packed = entries.map(|(name, entry)| (name.clone(), data[at(entry, 0)..at(entry, 1)].to_vec())).collect();
        let meta = header["__metadata__"]["outlier"].as_str().unwrap_or("{}");
        Self { meta: serde_json::from_str(meta).unwrap(), tensors: packed }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".to_string(), json!({ "outlier": mutate::text(&self.meta) }));
        let mut data = Vec::new();
        for (name, packed) in &self.tensors {
            let end = data.len() + packed.len();
            header.insert(
                name.clone(),
                json!({ "dtype": "U8", "shape": [packed.len()], "data_offsets": [data.len(), end] }),
            );
            data.extend_from_slice(packed);
        }
        let header = Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
    }
}

fn packed(data: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(data, 3).unwrap()
}

/// A record of so many features that its extremes are 300 KB packed and 3 GiB unpacked, and its metadata agrees.
fn bomb(record: &mut Record) {
    static ZEROS: OnceLock<Vec<u8>> = OnceLock::new();
    let norms = record.meta["norms"].as_array().map_or(1, Vec::len) as u64;
    let cells = norms * record.meta["num_sequences"].as_u64().unwrap_or(1);
    let features = (3 << 30) / (4 * cells);
    record.meta["hidden_size"] = json!(features);
    // All cases have the same record.
    let zeros =
        ZEROS.get_or_init(|| zstd::stream::encode_all(std::io::repeat(0).take(4 * cells * features), 1).unwrap());
    for (name, packed) in &mut record.tensors {
        if ["max", "min"].contains(&name.as_str()) {
            packed.clone_from(zeros);
        }
    }
}

/// Writes the record, and its hash wherever that of the honest one stood: damage is to get past it.
fn replace(folder: &Path, honest: &[u8], damaged: &[u8]) {
    let hash = |data: &[u8]| Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (old, new) = (hash(honest), hash(damaged));
    for name in crate::names(folder).into_iter().filter(|name| name.ends_with(".json")) {
        let text = String::from_utf8(read(folder.join(&name))).unwrap();
        let resized = text.replace(&format!("\"bytes\": {},", honest.len()), &format!("\"bytes\": {},", damaged.len()));
        if text.contains(&old) {
            write(folder.join(&name), resized.replace(&old, &new));
        }
    }
    write(folder.join("activations.stats"), damaged);
}

pub fn record(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    bring(workshop, folder);
    let path = folder.join("results/first/activations.stats");
    let whole = read(&path);
    let mut record = Record::read(&path);
    let index = chance.below(record.tensors.len());
    let unpacked = zstd::stream::decode_all(record.tensors[index].1.as_slice()).unwrap();
    let size = unpacked.len();
    let damaged = match chance.below(8) {
        0 => mutate::bytes(whole.clone(), 0..whole.len(), chance),
        1 | 2 => {
            record.meta = mutate::structure(record.meta, chance);
            record.bytes()
        }
        3 if chance.one_in(3) => {
            bomb(&mut record);
            record.bytes()
        }
        3 => {
            let from = chance.below(record.tensors.len());
            record.tensors[index].1 = record.tensors[from].1.clone();
            record.bytes()
        }
        4 => {
            record.tensors[index].1 = packed(&chance.bytes(size.max(8)));
            record.bytes()
        }
        _ => {
            let unpacked = if size == 0 { chance.bytes(8) } else { unpacked };
            let range = 0..unpacked.len();
            record.tensors[index].1 = packed(&mutate::bytes(unpacked, range, chance));
            record.bytes()
        }
    };
    replace(&folder.join("results/first"), &whole, &damaged);
    using(folder, chance)
}

pub fn results(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    bring(workshop, folder);
    let mut names = crate::names(&folder.join("results/first"));
    names.retain(|name| name.ends_with(".json") || name.ends_with(".csv"));
    names.sort();
    let name = if chance.one_in(2) { "final_analysis_results.json" } else { chance.pick(&names) };
    let path = folder.join("results/first").join(name);
    let damaged = match name.ends_with(".json") {
        true => mutate::json_bytes(&read_json(&path), chance),
        false => {
            let whole = read(&path);
            let end = whole.len();
            mutate::bytes(whole, 0..end, chance)
        }
    };
    write(path, damaged);
    using(folder, chance)
}

/// A file of mark, length, header, checksum, payload, checksum: with right checksums whatever is in it.
fn sealed(mark: &[u8], header: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut data = [mark, &(header.len() as u64).to_le_bytes(), header].concat();
    data.extend(Sha256::digest(&data));
    data.extend_from_slice(payload);
    data.extend(Sha256::digest(&data));
    data
}

pub fn checkpoint(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    const MARK: usize = 24;
    const DIGEST: usize = 32;
    link(&workshop.model(TRAINED), &folder.join("m"));
    let whole = &workshop.checkpoint;
    let length = u64::from_le_bytes(whole[MARK..MARK + 8].try_into().unwrap()) as usize;
    let (mark, header) = (&whole[..MARK], &whole[MARK + 8..MARK + 8 + length]);
    let payload = &whole[MARK + 8 + length + DIGEST..whole.len() - DIGEST];
    let damaged = match chance.below(6) {
        0 => mutate::bytes(whole.clone(), 0..whole.len(), chance),
        1 | 2 => {
            let value: Value = serde_json::from_slice(header).unwrap();
            sealed(mark, mutate::text(&mutate::structure(value, chance)).as_bytes(), payload)
        }
        3 => sealed(mark, header, &mutate::bytes(payload.to_vec(), 0..200, chance)),
        4 => sealed(mark, header, &mutate::bytes(payload.to_vec(), 0..payload.len(), chance)),
        _ => whole[..chance.below(whole.len())].to_vec(),
    };
    write(folder.join("ck"), damaged);
    write(folder.join("s.rhai"), RESUMED);
    Start::of(&["run", "s.rhai"])
}
