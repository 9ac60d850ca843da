//! Tests of every norm output, the last logits and the loss against Hugging Face transformers, on
//! the fixtures of each architecture. The outlier features are exactly those that plain numpy finds
//! in these activations.
//!
//! `OUTLIER_FIXTURES=DIR` runs the same checks over other folders made by the same generator.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use outlier::engine::extract;
use outlier::error::Result;
use outlier::hub::{self, Access};
use outlier::progress::Silent;
use outlier::record::{
    Activations, ComputeDtype, Criterion, ExtractArgs, Keep, LayerUnit, LoadArgs, Scope, TokenSource,
};
use outlier::spec::catalogue;
use outlier::stats;
use outlier::text::load_tokens;
use outlier::weights::open;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// ‖a − b‖ / ‖b‖ per tensor allowed in f32.
const F32_TOLERANCE: f64 = 1e-4;

/// How much further apart than the table of architectures states a processor may be.
const MORE: f64 = 5.0;

/// Name and values.
pub type Tensors = HashMap<String, Vec<f32>>;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// How a fixture is loaded: on the CPU, or where `OUTLIER_TEST_DEVICE` says.
pub fn load_args(id: &Path, dtype: ComputeDtype) -> LoadArgs {
    let id = id.display().to_string();
    let device = std::env::var("OUTLIER_TEST_DEVICE").unwrap_or("cpu".into());
    LoadArgs { id, revision: None, dtype, device, chunk_layers: 2, stream: false, max_vram: None }
}

/// All floating-point tensors of a file.
pub fn tensors(path: &Path) -> Tensors {
    let data = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&data).unwrap();
    let floats = file.iter().filter(|(_, view)| view.dtype() == Dtype::F32);
    let values = |bytes: &[u8]| bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    floats.map(|(name, view)| (name.to_string(), values(view.data()))).collect()
}

pub fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let (mut difference, mut norm) = (0.0, 0.0);
    for (a, b) in got.iter().zip(expected) {
        difference += (*a as f64 - *b as f64).powi(2);
        norm += (*b as f64).powi(2);
    }
    (difference / norm).sqrt()
}

/// A record and all activations by name.
pub type Outcome = (Activations, Tensors);

/// Runs a fixture as it comes.
pub fn run(folder: &Path, dtype: ComputeDtype) -> Outcome {
    let outcome = run_with(folder, &load_args(folder, dtype), ExtractArgs::default());
    outcome.unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

/// Runs a fixture with the given arguments, keeping everything.
pub fn run_with(folder: &Path, load: &LoadArgs, args: ExtractArgs) -> Result<Outcome> {
    let ids = TokenSource::IdsSafetensors {
        path: folder.join("reference.safetensors").display().to_string(),
        tensor: "input_ids".into(),
    };
    let tokens = load_tokens(&ids, &Silent)?;
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent)?;
    let model = open(files, load)?;
    let out = tempfile::tempdir().unwrap();
    let out_path = Some(out.path().display().to_string());
    let args = ExtractArgs { keep: Keep::Full, out: out_path, logits: true, ..args };
    let acts = extract(&model, &tokens, &args, &Silent)?;
    Ok((acts, tensors(&out.path().join("activations.safetensors"))))
}

/// The worst relative error over all tensors of the reference.
pub fn compare(folder: &Path, got: &Tensors) -> (f64, String) {
    compare_by(folder, got, |_, got, expected| relative_error(got, expected))
}

/// The worst of `error` over all tensors of the reference, by name, as they are and as they should
/// be.
pub fn compare_by(folder: &Path, got: &Tensors, error: impl Fn(&str, &[f32], &[f32]) -> f64) -> (f64, String) {
    let reference = tensors(&folder.join("reference.safetensors"));
    let name = |name: &str| {
        name.replace("attn_norm", "input_layernorm")
            .replace("ffn_norm", "post_attention_layernorm")
            .replace("last_logits", "final_logits_last")
    };
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let one_norm = config.contains("\"nemotron_h\"");
    let errors = reference.iter().map(|(key, expected)| {
        // Layers of hybrids have one norm, which the reference has under both names.
        let (own, other) = (name(key), name(key).replace("input_layernorm", "post_attention_layernorm"));
        let other = if other == own { own.replace("post_attention_layernorm", "input_layernorm") } else { other };
        let got = got.get(&own).or(got.get(&other).filter(|_| one_norm));
        let got = got.unwrap_or_else(|| panic!("{}: {key} is missing", folder.display()));
        (error(key, got, expected), key.clone())
    });
    errors.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

/// The worst relative error of a run whose operands are rounded. In a mixture a token at the edge between two experts may
/// go to the other one, which changes its row altogether: an eighth of the rows, or one, is left out there.
pub fn compare_rounded(folder: &Path, got: &Tensors, (hidden, vocab): (usize, usize)) -> (f64, String) {
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    if !config.contains("expert") {
        return compare(folder, got);
    }
    compare_by(folder, got, |name, got, expected| {
        let width = if name == "last_logits" { vocab } else { hidden };
        if expected.len() < 2 * width || expected.len() % width != 0 {
            return relative_error(got, expected);
        }
        let mut rows: Vec<(&[f32], &[f32])> = got.chunks_exact(width).zip(expected.chunks_exact(width)).collect();
        let distance =
            |row: &(&[f32], &[f32])| row.0.iter().zip(row.1).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        rows.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        rows.truncate(rows.len() - rows.len().div_ceil(8));
        let (got, expected): (Vec<&[f32]>, Vec<&[f32]>) = rows.into_iter().unzip();
        relative_error(&got.concat(), &expected.concat())
    })
}

/// The dims, layer counts and position counts of expected.json, whose layers are blocks.
pub fn check_features(folder: &Path, acts: &Activations) {
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let everything = Criterion {
        min_layer_percentage: 0.0,
        min_seq_percentage: 0.0,
        layer_unit: LayerUnit::Block,
        scope: Scope::Pooled,
        ..Criterion::default()
    };
    let mut got: Vec<_> = stats::detect(acts, &everything)
        .unwrap()
        .features
        .iter()
        .filter(|f| f.seq_positions > 0)
        .map(|f| (f.feature_dim as u64, f.blocks_hit as u64, f.seq_positions))
        .collect();
    got.sort();
    let features = expected["features"].as_array().unwrap();
    let count = |f: &Value, key: &str| f[key].as_u64().unwrap();
    let want: Vec<_> =
        features.iter().map(|f| (count(f, "dim"), count(f, "layer_count"), count(f, "position_count"))).collect();
    assert_eq!(got, want, "{}: (dim, layers, positions)", folder.display());
    let passing = stats::detect(acts, &Criterion { layer_unit: LayerUnit::Block, ..Criterion::default() }).unwrap();
    let mut dims: Vec<_> = passing.features.iter().map(|f| f.feature_dim as u64).collect();
    dims.sort();
    let want: Vec<_> = expected["outlier_dims"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
    assert_eq!(dims, want, "{}: outlier dims", folder.display());
}

/// Fixtures of the models of the sweep and their relatives: for what takes long, or holds for these alone.
pub const SWEEP: [&str; 12] = [
    "glm4_moe",
    "gpt2",
    "gpt_oss",
    "gpt_oss_bf16",
    "llama",
    "llama_square",
    "mixtral",
    "olmoe",
    "opt",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
];

/// One fixture of each structural kind, for what holds for all models if it holds for these: fused, stacked, split and packed
/// weights; every mixer and feed-forward network, with one norm, two, norms behind and none; positions of each sort; multipliers
/// and caps; embeddings per layer and borrowed keys; a model inside a larger one.
const KINDS: [&str; 22] = [
    "apertus",
    "bloom",
    "cohere2",
    "deepseek_v3",
    "gemma2",
    "gemma4_e",
    "glm4_moe",
    "gpt2",
    "gpt_neox",
    "gpt_oss",
    "granitemoe",
    "kimi_k25",
    "lfm2",
    "llama4",
    "llama_longrope",
    "mixtral",
    "nemotron_h",
    "olmo2",
    "opt_350m",
    "phi3",
    "qwen3_next",
    "stablelm_12b",
];

/// The folders of one fixture of each structural kind.
pub fn kinds() -> impl Iterator<Item = PathBuf> {
    KINDS.iter().map(|name| fixtures().join(name))
}

/// Folders with a reference run, sorted.
pub fn references(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("reference.safetensors").exists());
    folders.sort();
    assert!(!folders.is_empty(), "{}: no fixtures", root.display());
    folders
}

/// Runs a check on all fixtures, or those whose name contains `only`, and fails with the names of those that fail.
pub fn check_all(root: &Path, only: Option<&str>, check: fn(&Path)) {
    let folders = references(root).into_iter();
    check_each(folders.filter(|folder| only.is_none_or(|only| name(folder).contains(only))), check);
}

fn check_each(folders: impl Iterator<Item = PathBuf>, check: fn(&Path)) {
    let wrong: Vec<_> = folders.filter(|folder| std::panic::catch_unwind(|| check(folder)).is_err()).collect();
    assert!(wrong.is_empty(), "fixtures that differ: {wrong:?}");
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap().to_string_lossy().into_owned()
}

/// Holds a figure of one of the project's own fixtures against what the table of architectures states: transformers' reference
/// first, then the second opinion. Processors differ by some roundings.
fn check_stated(folder: &Path, which: usize, worst: f64) {
    if folder.parent() != Some(&fixtures()) {
        return;
    }
    let name = name(folder);
    let row = catalogue::of_fixture(&name).unwrap_or_else(|| panic!("{name} is in no row of spec/catalogue.rs"));
    let stated = row.apart[which];
    assert!(worst <= MORE * stated, "{name}: {worst:.1e}, and spec/catalogue.rs says {stated:.0e}");
}

pub fn check(folder: &Path) {
    let name = name(folder);
    let (acts, full) = run(folder, ComputeDtype::F32);
    let (worst, at) = compare(folder, &full);
    println!("{name}: worst relative error {worst:.2e} at {at}");
    assert!(worst <= F32_TOLERANCE, "{name}: relative error {worst:.2e} at {at}");
    check_stated(folder, 0, worst);
    check_features(folder, &acts);
}

/// What the engine shows of the first sequence is what the same description says number by number, in f64.
pub fn check_second_opinion(folder: &Path) {
    let (_, full) = run(folder, ComputeDtype::F32);
    let ids = TokenSource::IdsSafetensors {
        path: folder.join("reference.safetensors").display().to_string(),
        tensor: "input_ids".into(),
    };
    let tokens = load_tokens(&ids, &Silent).unwrap();
    let files = hub::open(&folder.display().to_string(), None, Access::Download, &Silent).unwrap();
    let model = open(files, &load_args(folder, ComputeDtype::F32)).unwrap();
    let plain = outlier::reference::compute(&model, &tokens.ids[0]).unwrap();
    let mut worst = 0f64;
    let mut close = |name: &str, expected: &[f64]| {
        let expected: Vec<f32> = expected.iter().map(|value| *value as f32).collect();
        let error = relative_error(&full[name][..expected.len()], &expected);
        assert!(error <= F32_TOLERANCE, "{}: {name} is {error:.2e} from its definition", folder.display());
        worst = worst.max(error);
    };
    plain.sites.iter().for_each(|(site, rows)| close(&site.name(), &rows.concat()));
    close("final_logits_last", &plain.last_logits);
    close("mean_nll", &[plain.mean_nll]);
    check_stated(folder, 1, worst);
}

#[test]
fn every_architecture_computes_what_its_description_says() {
    check_all(&fixtures(), None, check_second_opinion);
}

#[test]
fn every_architecture_agrees_with_transformers() {
    check_all(&fixtures(), None, check);
}

/// On the CPU the test above contains it. On GPUs it is for what depends on the structure only, as their number.
#[test]
fn every_kind_agrees_with_transformers() {
    check_each(kinds(), check);
}

/// Not part of the suite's own data: more variants, or other seeds.
#[test]
fn other_fixtures_agree_with_transformers() {
    if let Some(root) = std::env::var_os("OUTLIER_FIXTURES") {
        check_all(Path::new(&root), std::env::var("OUTLIER_ONLY").ok().as_deref(), check);
    }
}
