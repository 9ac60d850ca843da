//! Opens a model folder: config to spec, headers checked against it, provenance gathered. No weights are read.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};

use super::arch::{self, Names, Released};
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::inventory::{self, Part};
use super::spec;
use crate::error::{Error, Result};
use crate::record::{ComputeDtype, FileHash, LoadArgs, ModelInfo};

/// The mark that the program's own synthetic models carry in config.json.
pub const SYNTHETIC_KEY: &str = "_outlier_synthetic";

/// A model that is ready to stream.
pub struct OpenModel {
    pub info: ModelInfo,
    pub spec: spec::Model,
    pub checkpoint: Arc<Checkpoint>,
    pub dtype: DType,
    pub device: Device,
}

impl OpenModel {
    /// Where the files are.
    pub fn checkpoint_folder(&self) -> String {
        self.checkpoint.folder.display().to_string()
    }

    /// Bytes of a part as stored.
    pub fn stored_bytes(&self, part: &Part) -> Result<u64> {
        part.tensors().into_iter().try_fold(0, |sum, tensor| {
            let bytes = self.checkpoint.expect(tensor)?.bytes;
            Ok(sum + if matches!(part, Part::Whole { .. }) { bytes } else { bytes / tensor.shape[0] as u64 })
        })
    }

    /// Bytes of the head and what stands before it.
    pub fn head_bytes(&self) -> Result<u64> {
        let mut bytes = self.checkpoint.expect(&self.spec.head)?.bytes;
        for part in inventory::before_head(&self.spec) {
            bytes += self.stored_bytes(&part)?;
        }
        Ok(bytes)
    }
}

impl Names for Checkpoint {
    fn has(&self, tensor: &str) -> bool {
        self.contains(tensor)
    }
}

/// Reads and parses `config.json` of a folder.
pub fn read_config(folder: &Path) -> Result<Config> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Error::io(format!("reading {}", path.display()), &e)
            .hint("a model folder holds config.json and safetensors weights")
    })?;
    Config::parse(&text, &path.display().to_string())
}

pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" | "auto" => Ok(Device::Cpu),
        _ => {
            Err(Error::unsupported(format!("device \"{name}\" is not available in this build"))
                .hint("use device: \"cpu\""))
        }
    }
}

/// What a model is, from its config alone: for a plan. Sizes are those of the released checkpoints.
pub fn describe(folder: &Path, args: &LoadArgs, revision: Option<String>) -> Result<ModelInfo> {
    device(&args.device)?;
    let config = read_config(folder)?;
    let checkpoint = Checkpoint::open(folder).ok();
    let names: &dyn Names = match &checkpoint {
        Some(checkpoint) => checkpoint,
        None => &Released,
    };
    let spec = arch::model(&config, names)?;
    let (mut parameters, mut weight_bytes) = (0, 0);
    for (tensor, role) in inventory::tensors(&spec) {
        parameters += inventory::parameters(&tensor);
        weight_bytes += inventory::released_bytes(&tensor, role);
    }
    let sizes = (parameters, weight_bytes);
    info(&config, &spec, args, revision, sizes, Vec::new())
}

fn info(
    config: &Config,
    spec: &spec::Model,
    args: &LoadArgs,
    revision: Option<String>,
    (parameters, weight_bytes): (u64, u64),
    files: Vec<FileHash>,
) -> Result<ModelInfo> {
    let (num_experts, num_experts_per_tok) = spec.experts();
    Ok(ModelInfo {
        id: args.id.clone(),
        revision,
        model_type: spec.model_type.clone(),
        num_layers: spec.layers.len(),
        hidden_size: spec.hidden_size,
        vocab_size: spec.vocab_size,
        num_experts,
        num_experts_per_tok,
        parameters,
        active_parameters: super::estimate::active_parameters(spec),
        weight_bytes,
        dtype: args.dtype,
        device: "cpu".to_string(),
        chunk_layers: args.chunk_layers,
        synthetic: config.bool_or(SYNTHETIC_KEY, false)?,
        files,
    })
}

/// `folder` is where the files are, `revision` the hub's commit when they came from there.
pub fn open(folder: &Path, args: &LoadArgs, revision: Option<String>) -> Result<OpenModel> {
    let config = read_config(folder)?;
    let checkpoint = Checkpoint::open(folder)?;
    let spec = arch::model(&config, &checkpoint)?;
    let (mut parameters, mut weight_bytes) = (0, 0);
    for (tensor, _) in inventory::tensors(&spec) {
        parameters += inventory::parameters(&tensor);
        weight_bytes += checkpoint.expect(&tensor)?.bytes;
    }
    let files = checkpoint.hashes.clone();
    let info = info(&config, &spec, args, revision, (parameters, weight_bytes), files)?;
    let dtype = match args.dtype {
        ComputeDtype::F32 => DType::F32,
        ComputeDtype::Bf16 => DType::BF16,
    };
    Ok(OpenModel { info, spec, checkpoint: Arc::new(checkpoint), dtype, device: device(&args.device)? })
}
