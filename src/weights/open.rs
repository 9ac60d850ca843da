//! Opens a model: makes the spec from the config, checks the headers against it, and gathers the
//! provenance. No weights are read.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use safetensors::Dtype;
use serde_json::{Map, Value};

use super::checkpoint::Checkpoint;
use super::fused;
use super::headers;
use super::unused;
use crate::cuda;
use crate::error::{Error, Result};
use crate::formats::{self, BESIDE_CONFIG, Header, Headers};
use crate::hub::{self, ByteSource, Opened};
use crate::outside;
use crate::progress::note;
use crate::record::{ComputeDtype, FileHash, LoadArgs, ModelInfo, SiteId, StoredAs};
use crate::spec::arch::{self, Names, Released};
use crate::spec::config::{Config, EDITED};
use crate::spec::inventory::{self, Part};
use crate::spec::naming::Naming;
use crate::spec::{self, Model, Role, StoredTensor};
use crate::tensor::Device;

/// The mark that the program's own synthetic models carry in config.json.
pub const SYNTHETIC_KEY: &str = "_outlier_synthetic";

/// A model that is ready to stream.
pub struct OpenModel {
    pub info: ModelInfo,
    pub spec: spec::Model,
    pub checkpoint: Arc<Checkpoint>,
    pub dtype: DType,
    pub devices: Vec<Device>,
    /// Facts about the choice of weights that the user should know.
    pub notes: Vec<String>,
}

/// The sequences that one device computes.
pub struct ShardPlan {
    pub device: Device,
    pub sequences: Range<usize>,
}

impl OpenModel {
    /// The place of the files: a folder, or an address on the hub.
    pub fn place(&self) -> &str {
        &self.checkpoint.place
    }

    /// Divides the sequences into ranges of about equal length, one for each device that has any.
    pub fn shard_plans(&self, sequences: usize) -> Vec<ShardPlan> {
        let count = self.devices.len().min(sequences).max(1);
        let of = |(i, device): (usize, &Device)| ShardPlan {
            device: device.clone(),
            sequences: i * sequences / count..(i + 1) * sequences / count,
        };
        self.devices.iter().take(count).enumerate().map(of).collect()
    }

    /// Number of stored bytes of a part.
    pub fn stored_bytes(&self, part: &Part) -> Result<u64> {
        part.stored().iter().try_fold(0, |sum, tensor| {
            let own = part.weight.own_bytes(tensor, self.checkpoint.expect(&tensor.name, &tensor.shape)?.bytes);
            Ok(sum + own.end - own.start)
        })
    }

    /// Number of stored bytes of the head and the weights before it.
    pub fn head_bytes(&self) -> Result<u64> {
        let mut bytes = self.stored_bytes(&Part { weight: self.spec.head.clone(), role: Role::ToResidual })?;
        for part in inventory::before_head(&self.spec) {
            bytes += self.stored_bytes(&part)?;
        }
        Ok(bytes)
    }
}

impl Names for Checkpoint {
    fn has(&self, tensor: &str) -> bool {
        self.contains(tensor) || formats::names_of_codes(tensor).iter().any(|name| self.contains(name))
    }

    fn headers(&self) -> Option<(&dyn Headers, &str)> {
        Some((self, &self.place))
    }
}

impl Headers for Checkpoint {
    fn header(&self, name: &str) -> Option<Header<'_>> {
        self.entry(name).map(|entry| Header { dtype: entry.dtype, shape: &entry.shape })
    }
}

/// Reads and parses `config.json`.
pub(super) fn read_config(source: &dyn ByteSource) -> Result<Config> {
    let path = format!("{}/config.json", source.place());
    let missing = || {
        Error::not_found(format!("reading {path}: No such file or directory"))
            .hint("a model folder holds config.json and safetensors weights")
    };
    let data = source.small("config.json")?;
    let data = data.ok_or_else(|| hub::without_config(source).unwrap_or_else(missing))?;
    let text =
        String::from_utf8(data).map_err(|_| Error::corrupt(format!("reading {path}: not UTF-8 text")).hint(EDITED))?;
    Config::parse(&text, &path)
}

/// The description of quantised weights in a file beside config.json, if it exists.
///
/// # Errors
/// `corrupt` if it is not a JSON object.
fn beside_config(source: &dyn ByteSource, file: &str, inside: Option<&str>) -> Result<Option<Map<String, Value>>> {
    let Some(data) = source.small(file)? else { return Ok(None) };
    let path = format!("{}/{file}", source.place());
    let value = outside::json::from_slice(&data, outside::json::SMALL).map_err(|e| {
        Error::corrupt(format!("reading {path}: not valid JSON: {}", outside::complaint(e))).hint(EDITED)
    })?;
    let value = inside.map_or(Some(&value), |key| value.get(key));
    match value {
        Some(Value::Object(map)) => Ok(Some(map.clone())),
        _ => Err(Error::corrupt(format!("reading {path}: it does not describe quantised weights")).hint(EDITED)),
    }
}

/// The indices of the GPUs that device `name` means on this machine. They are empty for the CPU.
///
/// # Errors
/// An error if there is no such device, which says what is missing.
fn gpus(name: &str) -> Result<Vec<usize>> {
    match name {
        "cpu" => Ok(Vec::new()),
        "auto" => Ok(automatic()),
        "cuda" => cuda::all().map_err(|error| error.context("device \"cuda\"")),
        _ => {
            cuda::check_name(name)?;
            let indices = cuda::indices(name).unwrap_or_default();
            for index in &indices {
                cuda::check_usable(*index).map_err(|error| error.context(format!("device \"{name}\"")))?;
            }
            Ok(indices)
        }
    }
}

/// All GPUs, or the CPU and a note with the reason.
fn automatic() -> Vec<usize> {
    static SAID: std::sync::Once = std::sync::Once::new();
    cuda::all().unwrap_or_else(|error| {
        SAID.call_once(|| note(&format!("device \"auto\": the CPU computes; {}", error.message)));
        Vec::new()
    })
}

fn devices(gpus: &[usize], max_vram: Option<u64>) -> Result<Vec<Device>> {
    let open = |index: &usize| {
        let context = cuda::Context::open(*index)?;
        if let Some(bytes) = max_vram {
            context.limit(bytes as usize);
        }
        Ok(Device::Cuda(context))
    };
    match gpus {
        [] => Ok(vec![Device::Cpu]),
        gpus => gpus.iter().map(open).collect(),
    }
}

/// A model as its config and, if there are files, their headers describe it.
pub struct Described {
    pub config: Config,
    pub spec: spec::Model,
    naming: Naming,
    /// None if there is a config alone. Sizes are then those of released checkpoints.
    pub checkpoint: Option<Checkpoint>,
}

impl Described {
    pub fn open(source: Arc<dyn ByteSource>) -> Result<Self> {
        let (mut config, nested) = arch::language_model(read_config(&*source)?)?;
        let mut checkpoint = Checkpoint::open_if_any(source.clone())?;
        // transformers 5 writes the language model of Qwen3.5 with the names of the whole.
        let as_nested = || arch::is_inside(&config) && checkpoint.as_ref().is_some_and(Checkpoint::is_nested);
        let naming = Naming { nested: nested || as_nested(), ..arch::kind(&config)?.naming() };
        if let Some(checkpoint) = &mut checkpoint {
            checkpoint.rename(naming);
        }
        // Each of these files costs a request over a network.
        if checkpoint.as_ref().is_none_or(Checkpoint::has_codes) {
            for (file, inside, method) in BESIDE_CONFIG {
                if let Some(values) = beside_config(&*source, file, *inside)? {
                    config.beside(format!("{}/{file}", source.place()), method, values);
                }
            }
        }
        let names: &dyn Names = match &checkpoint {
            Some(checkpoint) => checkpoint,
            None => &Released,
        };
        let spec = arch::model(&config, names)?;
        if let Some(checkpoint) = &mut checkpoint {
            fused::separate(checkpoint, &spec)?;
        }
        Ok(Self { config, spec, naming, checkpoint })
    }

    /// Facts about the choice of weights that the user should know.
    fn notes(&self) -> Vec<String> {
        let Some(checkpoint) = &self.checkpoint else { return Vec::new() };
        let mut notes = checkpoint.notes.clone();
        let Model { head, embedding, .. } = &self.spec;
        if self.spec.tied && head != embedding && !checkpoint.look_alike(head, embedding) {
            notes.push(format!(
                "{}: config.json ties the head to the embedding, but the files have a `{}` of their own that differs: it is used for \
                 logits, as transformers does",
                checkpoint.place, head.name
            ));
        }
        notes.extend(unused::note(checkpoint, &self.spec, self.naming));
        if checkpoint.has_adapter() {
            notes.push(format!(
                "{}: the adapter beside the model ({}) is not applied to it",
                checkpoint.place,
                hub::ADAPTER
            ));
        }
        notes
    }
}

/// Checks that this machine has the device `name`. Every machine has one that "auto" means.
///
/// # Errors
/// As `gpus`.
pub fn check_device(name: &str) -> Result<()> {
    if name == "auto" { Ok(()) } else { gpus(name).map(drop) }
}

/// A model as its config and the headers of its files describe it, for a dry run.
pub struct Description {
    pub info: ModelInfo,
    /// The sites that a record of this model has, in the order of computation.
    pub norms: Vec<SiteId>,
    pub spec: Model,
    /// Facts about the checkpoint that the user should know, one sentence each.
    pub notes: Vec<String>,
}

/// Describes a model from its config and headers alone. Without weight files, the sizes are those
/// of the released checkpoints. With `elsewhere` the model is for another machine, and the device
/// keeps the name that the user wrote, because the devices of that machine are not known here.
///
/// # Errors
/// The errors of the config and of the headers, such as a weight that every pass needs and that
/// cannot be read.
pub fn describe(files: Opened, args: &LoadArgs, elsewhere: bool) -> Result<Description> {
    let device = if elsewhere { args.device.clone() } else { cuda::name(&gpus(&args.device)?) };
    let described = Described::open(files.source)?;
    let Described { config, spec, checkpoint, .. } = &described;
    if let Some(checkpoint) = checkpoint {
        headers::check(checkpoint, spec, false)?;
    }
    let mut sizes = Sizes::default();
    for (tensor, role) in inventory::tensors(spec) {
        let entry = checkpoint.as_ref().map(|checkpoint| checkpoint.entry(&tensor.name));
        if entry.is_none_or(|entry| entry.is_some()) {
            // Models are usually released in bf16.
            let usual = if spec.stored_in_f32 { Dtype::F32 } else { Dtype::BF16 };
            let dtype = entry.flatten().map_or(usual, |entry| entry.dtype);
            sizes.add(&tensor, dtype, inventory::released_bytes(spec, &tensor, role));
        }
    }
    Ok(Description {
        info: info(config, spec, (args, device), files.revision, sizes, Vec::new())?,
        norms: spec.norm_sites(),
        notes: described.notes(),
        spec: spec.clone(),
    })
}

/// The sum of the tensors of a model.
#[derive(Default)]
struct Sizes {
    parameters: u64,
    bytes: u64,
    stored_as: BTreeMap<String, u64>,
}

impl Sizes {
    fn add(&mut self, tensor: &StoredTensor, dtype: Dtype, bytes: u64) {
        self.parameters += tensor.weights;
        self.bytes += bytes;
        if tensor.weights > 0 {
            let format = tensor.format.clone().unwrap_or_else(|| dtype.to_string());
            *self.stored_as.entry(format).or_default() += tensor.weights;
        }
    }

    /// The types and formats in which the weights are stored, the most frequent first.
    fn stored_as(self) -> Vec<StoredAs> {
        let all = self.stored_as.into_iter().map(|(format, parameters)| StoredAs { format, parameters });
        let mut all: Vec<StoredAs> = all.collect();
        all.sort_by_key(|stored| Reverse(stored.parameters));
        all
    }
}

/// Checks config and headers, as `open` does.
///
/// # Errors
/// As `open`.
pub fn check_headers(source: Arc<dyn ByteSource>) -> Result<()> {
    let Described { spec, checkpoint, .. } = Described::open(source.clone())?;
    let checkpoint = checkpoint.map_or_else(|| Checkpoint::open(source), Ok)?;
    headers::check(&checkpoint, &spec, false)
}

fn info(
    config: &Config,
    spec: &spec::Model,
    (args, device): (&LoadArgs, String),
    revision: Option<String>,
    sizes: Sizes,
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
        parameters: sizes.parameters,
        active_parameters: inventory::active_parameters(spec),
        weight_bytes: sizes.bytes,
        weights_stored_as: sizes.stored_as(),
        dtype: args.dtype,
        device,
        chunk_layers: args.chunk_layers,
        synthetic: config.bool_or(SYNTHETIC_KEY, false)?,
        files,
    })
}

/// Opens a model. The headers of all its weights have been checked, except for those that only
/// logits need.
///
/// # Errors
/// `not_found` if files or weights are missing, `unsupported` if the engine cannot compute the
/// model or read its weights, `corrupt` if files are damaged or do not belong together.
pub fn open(files: Opened, args: &LoadArgs) -> Result<OpenModel> {
    let gpus = gpus(&args.device)?;
    let described = Described::open(files.source.clone())?;
    let notes = described.notes();
    let Described { config, spec, checkpoint, .. } = described;
    // If there are no weights, opening them gives the error.
    let checkpoint = checkpoint.map_or_else(|| Checkpoint::open(files.source), Ok)?;
    headers::check(&checkpoint, &spec, false)?;
    let mut sizes = Sizes::default();
    for (tensor, _) in inventory::tensors(&spec) {
        if let Some(entry) = checkpoint.entry(&tensor.name) {
            sizes.add(&tensor, entry.dtype, entry.bytes);
        }
    }
    let hashes = checkpoint.hashes.clone();
    let info = info(&config, &spec, (args, cuda::name(&gpus)), files.revision, sizes, hashes)?;
    let dtype = match args.dtype {
        ComputeDtype::F32 => DType::F32,
        ComputeDtype::Bf16 => DType::BF16,
    };
    let devices = devices(&gpus, args.max_vram)?;
    Ok(OpenModel { info, spec, checkpoint: Arc::new(checkpoint), dtype, devices, notes })
}
