//! Draws the tensors of a miniature, and writes them as sharded safetensors with an index, and a
//! byte-level tokenizer.json.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::plant::{self, ORDINARY, Planted};
use crate::disk;
use crate::error::{Error, Result};
use crate::formats::mxfp4;
use crate::spec::inventory;
use crate::spec::{HeadNorm, Mixer, Model, Norm, Reads, Role, StoredTensor};
use crate::vocabulary::NormKind;

const SHARDS: usize = 2;
/// The standard deviation of projection outputs for inputs of unit variance. Projections to the
/// residual stream have half of it.
const GAIN: f32 = 0.7;

struct Drawn {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    data: Vec<u8>,
}

/// Writes all tensors of `spec` to `SHARDS` files and an index.
pub(super) fn checkpoint(
    folder: &Path,
    spec: &Model,
    planted: &[Planted],
    seed: u64,
    first_shard: usize,
) -> Result<()> {
    let centred = zero_centred(spec);
    let draw = |(tensor, role): &(StoredTensor, Option<Role>)| {
        let offset = if centred.contains(tensor.name.as_str()) { -1.0 } else { 0.0 };
        draw(tensor, *role, planted, seed, offset)
    };
    let drawn: Vec<Drawn> = inventory::tensors(spec).iter().map(draw).collect();
    let total: usize = drawn.iter().map(|tensor| tensor.data.len()).sum();
    let mut shards: Vec<Vec<&Drawn>> = vec![Vec::new()];
    let mut size = 0;
    for tensor in &drawn {
        if size >= total / SHARDS * shards.len() && shards.len() < SHARDS {
            shards.push(Vec::new());
        }
        size += tensor.data.len();
        shards.last_mut().expect("never empty").push(tensor);
    }
    let last = shards.len() - 1 + first_shard;
    let mut map = BTreeMap::new();
    for (number, tensors) in (first_shard..).zip(&shards) {
        let file = format!("model-{number:05}-of-{last:05}.safetensors");
        let views = tensors.iter().map(|t| {
            let view = TensorView::new(t.dtype, t.shape.clone(), &t.data).expect("shape and data agree");
            (t.name.as_str(), view)
        });
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let bytes = safetensors::serialize(views, Some(metadata))
            .map_err(|e| Error::corrupt(format!("writing {file}: {e}")))?;
        disk::write(&folder.join(&file), &bytes)?;
        map.extend(tensors.iter().map(|tensor| (tensor.name.clone(), file.clone())));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    disk::write(&folder.join("model.safetensors.index.json"), index.to_string().as_bytes())
}

/// The random stream of a tensor. Each has its own, so that an additional tensor changes no other.
fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    let digest = Sha256::digest(format!("{seed} {name}"));
    ChaCha8Rng::from_seed(digest.into())
}

/// The first number in a tensor's name: "model.layers.3.…", "transformer.h.3.…".
fn layer_of(name: &str) -> Option<usize> {
    name.split('.').find_map(|part| part.parse().ok())
}

fn own(reads: &Reads) -> Option<&Norm> {
    match reads {
        Reads::Norm(norm) => Some(norm),
        Reads::AsMixer | Reads::Stream => None,
    }
}

/// The norms whose effective weight is 1 + the stored weight.
fn zero_centred(spec: &Model) -> HashSet<&str> {
    let mut norms: Vec<&Norm> = spec.final_norm.iter().collect();
    for layer in &spec.layers {
        if let Some(mixer) = &layer.mixer {
            norms.extend(own(&mixer.reads));
            if let Mixer::Attention(attention) = &mixer.body {
                for norm in attention.qk_norm.iter().flat_map(|norms| [Some(&norms.q), norms.k.as_ref()]).flatten() {
                    match norm {
                        HeadNorm::Each(norm) | HeadNorm::Together(norm) => norms.push(norm),
                        HeadNorm::Own(each) => norms.extend(each),
                        HeadNorm::Unweighted { .. } => {}
                    }
                }
            }
        }
        norms.extend(layer.ffn.as_ref().and_then(|ffn| own(&ffn.reads)));
        norms.extend(layer.mixer.as_ref().and_then(|mixer| mixer.write_norm.as_ref()));
        norms.extend(layer.ffn.as_ref().and_then(|ffn| ffn.write_norm.as_ref()));
    }
    let centred = norms.into_iter().filter(|norm| norm.kind == NormKind::RmsZeroCentred);
    centred.map(|norm| norm.weight.name.as_str()).collect()
}

/// Draws a tensor. `offset` is added to norm weights before they are stored.
fn draw(tensor: &StoredTensor, role: Option<Role>, planted: &[Planted], seed: u64, offset: f32) -> Drawn {
    let mut rng = stream(seed, &tensor.name);
    let count: usize = tensor.shape.iter().product();
    let planted = plant::touching(planted, role, layer_of(&tensor.name));
    let done = |dtype, data| Drawn { name: tensor.name.clone(), shape: tensor.shape.clone(), dtype, data };
    if tensor.dtype.is_some() && tensor.weights > 0 {
        return done(Dtype::U8, blocks(&mut rng, &tensor.shape, &planted));
    }
    if tensor.dtype.is_some() {
        // Codes are 2.2 on average, so this scale gives an output of about unit variance.
        let inputs = tensor.shape.last().copied().unwrap_or(1) * mxfp4::BLOCK;
        let exponent = (GAIN / (3.0 * (inputs as f32).sqrt())).log2().round() as i32;
        return done(Dtype::U8, vec![(127 + exponent) as u8; count]);
    }
    let mut normal = |std: f32| -> Vec<f32> {
        (0..count).map(|_| std * Distribution::<f32>::sample(&StandardNormal, &mut rng)).collect()
    };
    let inputs = *tensor.shape.last().unwrap_or(&1) as f32;
    let mut values = match role {
        // These are the embeddings and the head.
        None => normal(1.0),
        Some(Role::AttnNorm | Role::FfnNorm) => normal(0.02).iter().map(|v| ORDINARY + v).collect(),
        Some(Role::OtherNorm | Role::StreamFactor) => normal(0.02).iter().map(|v| 1.0 + v).collect(),
        Some(Role::NormBias | Role::Bias | Role::CorrectionBias) => normal(0.02),
        Some(Role::Sinks) => normal(1.0),
        Some(Role::FromAttnIn | Role::FromFfnIn | Role::Router) => normal(GAIN / ORDINARY / inputs.sqrt()),
        Some(Role::Inner) => normal(GAIN / inputs.sqrt()),
        Some(Role::ToResidual) => normal(GAIN / 2.0 / inputs.sqrt()),
        Some(Role::Parameter) => normal(0.5),
        Some(Role::Conv) => normal(0.5),
        Some(Role::ALog) => normal(0.3),
        Some(Role::DtBias) => normal(0.5),
    };
    for Planted { dim, scale, .. } in planted {
        match role {
            Some(Role::AttnNorm | Role::FfnNorm) => values[dim] = scale,
            _ if tensor.shape.len() == 2 => {
                // In [out, in], the columns that read the planted feature are scaled down in
                // return.
                for row in values.chunks_exact_mut(tensor.shape[1]) {
                    row[dim] *= ORDINARY / scale;
                }
            }
            _ => (),
        }
    }
    values.iter_mut().for_each(|value| *value += offset);
    match role {
        Some(Role::ALog | Role::DtBias | Role::CorrectionBias) => {
            done(Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
        _ => done(Dtype::BF16, values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
    }
}

/// Random codes [.., rows, groups, 16]. Planted input features get code 0.
fn blocks(rng: &mut ChaCha8Rng, shape: &[usize], planted: &[Planted]) -> Vec<u8> {
    let mut codes: Vec<u8> = (0..shape.iter().product()).map(|_| rng.random()).collect();
    let row = shape[shape.len() - 2] * mxfp4::BLOCK_BYTES;
    for row in codes.chunks_exact_mut(row) {
        for planted in planted {
            let nibble = if planted.dim % 2 == 0 { 0xf0 } else { 0x0f };
            row[planted.dim / 2] &= nibble;
        }
    }
    codes
}

/// A tokenizer whose tokens are the 256 bytes, in GPT-2's spelling, and an end-of-text token.
pub(super) fn byte_tokenizer() -> Value {
    // GPT-2 writes printable bytes as themselves and the rest as characters from U+0100 on.
    let printable = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut next = 256;
    let spelling = (0..256u32).map(|b| {
        let code = match printable(b) {
            true => b,
            false => {
                next += 1;
                next - 1
            }
        };
        char::from_u32(code).expect("below the surrogates").to_string()
    });
    let vocab: serde_json::Map<String, Value> =
        spelling.zip(0..).map(|(c, id): (String, u32)| (c, id.into())).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{ "id": 256, "content": "<|endoftext|>", "single_word": false, "lstrip": false,
                           "rstrip": false, "normalized": false, "special": true }],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                   "vocab": vocab, "merges": [] }
    })
}
