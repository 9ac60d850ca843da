//! Formats of weights that are not stored as plain floats: one file and one row of `FORMATS` for
//! each. This room knows names, types, sizes and bytes, but no files and no tensors.
//!
//! A `Format` looks at a weight (`Look`) and says whether the weight is stored in it. If so, it
//! answers with a `Coding`: the pieces that hold the weight, and how their bytes become values.
//! What the tensors cannot tell comes from `Settings`, which are read from config.json.

mod affine;
mod awq;
mod bitsandbytes;
mod float;
mod format;
mod fp8;
pub mod ggml;
mod gptq;
mod int8;
mod look;
mod modules;
pub mod mxfp4;
mod nvfp4;
mod packed_int;
mod piece;
mod settings;
#[cfg(test)]
mod variants;
mod widen;

use std::sync::Arc;

use safetensors::Dtype;

use crate::error::{Error, Result};

pub use float::{eight_bits, is_of_eight_bits};
pub use format::{Coding, Decoded, Format, Kept, Kernel, Wrong};
pub use fp8::has_scales;
pub use look::{Header, Headers, Look};
pub use piece::{Along, Announced, Piece, window};
pub use settings::{BESIDE_CONFIG, HINT, Settings};

/// All formats that are read. A weight belongs to the first that detects it.
static FORMATS: &[&Format] = &[
    &mxfp4::GPT_OSS,
    &mxfp4::MXFP4,
    &nvfp4::NVFP4,
    &fp8::FP8,
    &packed_int::PACKED_INT,
    &int8::INT8,
    &gptq::GPTQ,
    &awq::AWQ,
    &bitsandbytes::FOUR_BITS,
    &ggml::GGML,
];

/// Endings of the names of tensors that hold settings of calibration or of activations. They say
/// nothing about weights.
const PASSED: &[&str] = &[
    ".input_scale",
    ".input_global_scale",
    ".input_scale_ub",
    ".activation_scale",
    "_activation_scale",
    ".qscale_act",
    ".k_scale",
    ".v_scale",
    ".kv_scale",
];

/// Names of tensors that change the input of a projection, so that its weight alone is not what the
/// model computes.
const ON_INPUT: &[&str] = &["pre_quant_scale", "svdquant_lora_a", "svdquant_lora_b"];

/// Whether a tensor of this name holds only how activations, or the cache of a server, are
/// quantised.
pub fn is_passed(name: &str) -> bool {
    PASSED.iter().any(|ending| name.ends_with(ending))
}

/// Whether the values of a type are plain floats.
pub fn is_plain(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16 | Dtype::F64)
}

/// The names that the codes of the weight `P.weight` may have in place of its own.
pub fn names_of_codes(weight: &str) -> Vec<String> {
    let module = weight.strip_suffix(".weight");
    let packed = module.map(|module| [format!("{weight}_packed"), format!("{module}.qweight")]);
    packed.into_iter().flatten().chain(ggml::names(weight)).collect()
}

/// How a weight is stored, or None if it is stored as plain floats or is not in the files.
///
/// # Errors
/// The errors of the formats, and the error of a weight whose codes come without the tensors that
/// give them values.
pub fn find(look: &Look) -> Result<Option<Arc<dyn Coding>>> {
    let own = look.own();
    // Codes may have a float type if somebody converted them. A tensor of the weight's shape is
    // plain.
    let floats = own.is_some_and(|own| is_plain(own.dtype));
    if own.is_some_and(|own| floats && own.shape == look.shape) {
        return Ok(None);
    }
    // A model that was cast to floats of eight bits as a whole has no scales anywhere.
    let cast = own.is_some_and(|own| is_of_eight_bits(own.dtype) && own.shape == look.shape);
    if cast && !look.scaled && look.settings.method().is_none() {
        return Ok(None);
    }
    for format in FORMATS {
        if let Some(coding) = (format.detect)(look)? {
            if let Some(name) = ON_INPUT.iter().map(|name| look.beside(name)).find(|name| look.header(name).is_some()) {
                return Err(look.unread(&format!("has a scale `{name}` for what it reads, which is not computed")));
            }
            return Ok(Some(coding));
        }
    }
    let Some(own) = own.filter(|_| !floats) else { return Ok(None) };
    if own.dtype == Dtype::U32 && look.header(&look.beside("scales")).is_some() {
        return Err(look.unread("is quantised (MLX)"));
    }
    Err(Error::unsupported(format!(
        "{}: the weight `{}` is {:?} of shape {:?}, and no tensor beside it says what the codes stand for",
        look.place, look.name, own.dtype, own.shape
    ))
    .hint(
        "the checkpoint is incomplete, or quantised in a way that is not read; docs/quantised.md lists those that are",
    ))
}

/// How a release with these settings stores a weight whose files have not been seen, or None if it
/// leaves the weight plain.
pub fn expected(look: &Look) -> Option<Arc<dyn Coding>> {
    if look.settings.leaves_plain(look.module()) {
        return None;
    }
    FORMATS.iter().find_map(|format| {
        let announced = (format.announced)(look)?;
        (format.detect)(&Look { headers: &announced, ..*look }).ok().flatten()
    })
}
