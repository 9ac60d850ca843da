//! Opens a model: config to spec, headers checked against it, provenance gathered. No weights are read.

use std::sync::Arc;

use candle_core::DType;

use super::arch::{self, Names, Released};
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::inventory::{self, Part};
use super::spec;
use super::tensor::Device;
use crate::cuda;
use crate::error::{Error, Result};
use crate::hub::{ByteSource, Opened};
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
    /// Where the files are: a folder, or an address on the hub.
    pub fn place(&self) -> &str {
        &self.checkpoint.place
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

/// Reads and parses `config.json`.
pub fn read_config(source: &dyn ByteSource) -> Result<Config> {
    let path = format!("{}/config.json", source.place());
    let missing = || {
        Error::not_found(format!("reading {path}: No such file or directory"))
            .hint("a model folder holds config.json and safetensors weights")
    };
    let data = source.small("config.json")?.ok_or_else(missing)?;
    let text = String::from_utf8(data)
        .map_err(|_| Error::corrupt(format!("reading {path}: not UTF-8 text")).hint("download the file again"))?;
    Config::parse(&text, &path)
}

/// The GPU that device `name` means here; none for the CPU.
///
/// # Errors
/// When there is no such device, with what is missing.
fn gpu(name: &str) -> Result<Option<usize>> {
    match name {
        "cpu" => Ok(None),
        "auto" => Ok(automatic()),
        _ => match cuda::index(name) {
            Some(index) => usable(index).map_err(|error| error.context(format!("device \"{name}\""))).map(Some),
            None => Err(Error::bad_argument(format!("device \"{name}\" is unknown"))
                .hint("device is \"auto\", \"cpu\", \"cuda\" or \"cuda:N\"")),
        },
    }
}

#[cfg(not(feature = "cuda"))]
fn automatic() -> Option<usize> {
    None
}

/// The first GPU, or the CPU and one line that says why.
#[cfg(feature = "cuda")]
fn automatic() -> Option<usize> {
    static SAID: std::sync::Once = std::sync::Once::new();
    match usable(0) {
        Ok(index) => Some(index),
        Err(error) => {
            SAID.call_once(|| eprintln!("device \"auto\": the CPU computes; {}", error.message));
            None
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn usable(index: usize) -> Result<usize> {
    let gpu = cuda::gpu(index)?;
    Err(Error::unsupported(format!("a GPU ({}), but this program was built for processors only", gpu.name))
        .hint("build it with --features cuda (docs/gpu.md), or use device: \"cpu\" or \"auto\""))
}

#[cfg(feature = "cuda")]
fn usable(index: usize) -> Result<usize> {
    cuda::usable(index).map(|()| index)
}

#[cfg(not(feature = "cuda"))]
fn device(_gpu: Option<usize>, _max_vram: Option<u64>) -> Result<Device> {
    Ok(Device::Cpu)
}

#[cfg(feature = "cuda")]
fn device(gpu: Option<usize>, max_vram: Option<u64>) -> Result<Device> {
    let Some(index) = gpu else { return Ok(Device::Cpu) };
    let context = cuda::Context::open(index)?;
    if let Some(bytes) = max_vram {
        context.limit(bytes as usize);
    }
    Ok(Device::Cuda(context))
}

/// What a model is, from its config alone: for a plan. Sizes are those of the released checkpoints.
pub fn describe(files: Opened, args: &LoadArgs) -> Result<ModelInfo> {
    let gpu = gpu(&args.device)?;
    let config = read_config(&*files.source)?;
    let checkpoint = Checkpoint::open(files.source).ok();
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
    info(&config, &spec, (args, gpu), files.revision, sizes, Vec::new())
}

fn info(
    config: &Config,
    spec: &spec::Model,
    (args, gpu): (&LoadArgs, Option<usize>),
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
        device: gpu.map_or("cpu".to_string(), |index| format!("cuda:{index}")),
        chunk_layers: args.chunk_layers,
        synthetic: config.bool_or(SYNTHETIC_KEY, false)?,
        files,
    })
}

pub fn open(files: Opened, args: &LoadArgs) -> Result<OpenModel> {
    let revision = files.revision;
    let gpu = gpu(&args.device)?;
    let config = read_config(&*files.source)?;
    let checkpoint = Checkpoint::open(files.source)?;
    let spec = arch::model(&config, &checkpoint)?;
    let (mut parameters, mut weight_bytes) = (0, 0);
    for (tensor, _) in inventory::tensors(&spec) {
        parameters += inventory::parameters(&tensor);
        weight_bytes += checkpoint.expect(&tensor)?.bytes;
    }
    let hashes = checkpoint.hashes.clone();
    let info = info(&config, &spec, (args, gpu), revision, (parameters, weight_bytes), hashes)?;
    let dtype = match args.dtype {
        ComputeDtype::F32 => DType::F32,
        ComputeDtype::Bf16 => DType::BF16,
    };
    Ok(OpenModel { info, spec, checkpoint: Arc::new(checkpoint), dtype, device: device(gpu, args.max_vram)? })
}
