//! Numbers of channels for quantisers: an importance matrix as llama.cpp writes it, and the scales
//! of SmoothQuant and AWQ.

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::error::{Error, Result};
use crate::record::{Activations, ModuleInput, Moments, Site};

/// What a quantiser scales the channels of a linear layer by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScaleKind {
    /// The largest |x| (SmoothQuant, Xiao et al. 2023).
    Absmax,
    /// The mean |x| (AWQ, Lin et al. 2023).
    AbsMean,
}

/// Numbers for each channel of what every linear layer reads, as a safetensors file with the names
/// of the layers.
///
/// # Errors
/// `not_found` if the record has no moments of any site that a layer reads.
pub fn act_scales(acts: &Activations, kind: ScaleKind) -> Result<Vec<u8>> {
    let mut scales: Vec<(&str, Vec<f32>)> = Vec::new();
    // Routers and gates of one number are not quantised.
    let quantised = |module: &&ModuleInput| !module.module.is_empty() && !module.gguf.contains("ffn_gate_inp");
    for module in acts.measures.modules.iter().filter(quantised) {
        let Some(of) = moments(acts, module.at.layer, module.at.site) else { continue };
        let rows = of.rows.iter().sum::<u64>().max(1) as f64;
        let channels = &of.channels;
        let extremes = channels.max.iter().zip(&channels.min);
        scales.push((
            &module.module,
            match kind {
                ScaleKind::Absmax => extremes.map(|(max, min)| max.abs().max(min.abs())).collect(),
                ScaleKind::AbsMean => channels.sumabs.iter().map(|sum| (sum / rows) as f32).collect(),
            },
        ));
    }
    if scales.is_empty() {
        return Err(nothing("export_act_scales"));
    }
    let view = |values: &'_ [f32]| -> Vec<u8> { bytemuck::cast_slice(values).to_vec() };
    let bytes: Vec<(&str, usize, Vec<u8>)> =
        scales.iter().map(|(name, values)| (*name, values.len(), view(values))).collect();
    let views = bytes.iter().map(|(name, count, bytes)| {
        (*name, TensorView::new(Dtype::F32, vec![*count], bytes).expect("as many bytes as it has"))
    });
    Ok(safetensors::serialize(views, None).expect("shapes and sizes agree"))
}

/// The moments of a site whose channels are the same for all rows.
fn moments(acts: &Activations, layer: usize, site: Site) -> Option<&Moments> {
    let of = |of: &&Moments| of.at.layer == layer && of.at.site == site && of.rows.len() == 1;
    acts.measures.moments.iter().find(of)
}

fn nothing(what: &str) -> Error {
    Error::not_found(format!("{what}: the record has no moments of what linear layers read")).hint(
        "measure them: model.extract(tokens, #{ sites: [\"attn_in\", \"attn_out\", \"ffn_in\", \"ffn_mid\"], observe: [\"moments\", \
         \"experts\"] })",
    )
}

/// A tensor of an importance matrix: its name, its rows and columns, and its values.
struct Entry {
    name: String,
    shape: (usize, usize),
    values: Vec<f32>,
}

/// The importance matrix of a record: for each linear layer, in the names of llama.cpp, the sum of
/// x^2 of every channel (`in_sum2`), and the number of rows (`counts`); for experts, of each. It is
/// a GGUF file, as llama.cpp's tool `imatrix` writes it.
///
/// # Errors
/// `not_found` if the record has no moments of any site that a layer reads.
pub fn imatrix(acts: &Activations) -> Result<Vec<u8>> {
    let mut entries: Vec<Entry> = Vec::new();
    for module in acts.measures.modules.iter().filter(|module| module.at.site != Site::FinalNorm) {
        let Some((rows, sums)) = sums_of(acts, module.at.layer, module.at.site, module.module.is_empty()) else {
            continue;
        };
        let groups = rows.len();
        let shape = (groups, sums.len() / groups.max(1));
        let counts = rows.iter().map(|rows| *rows as f32).collect();
        entries.push(Entry { name: format!("{}.in_sum2", module.gguf), shape, values: sums });
        entries.push(Entry { name: format!("{}.counts", module.gguf), shape: (groups, 1), values: counts });
    }
    if entries.is_empty() {
        return Err(nothing("export_imatrix"));
    }
    Ok(write(acts, &entries))
}

/// The rows and Σx² of what a layer reads; with `routed`, of what each expert does.
fn sums_of(acts: &Activations, layer: usize, site: Site, routed: bool) -> Option<(Vec<u64>, Vec<f32>)> {
    let narrow = |sums: &[f64]| sums.iter().map(|sum| *sum as f32).collect();
    if routed && site == Site::FfnIn {
        let experts = acts.measures.experts.iter().find(|of| of.layer == layer)?;
        return Some((experts.tokens.clone(), experts.input_sum2.clone()));
    }
    let found = acts.measures.moments.iter().find(|of| of.at.layer == layer && of.at.site == site);
    let of = found.filter(|of| routed == (of.rows.len() > 1))?;
    Some((of.rows.clone(), narrow(&of.channels.sum2)))
}

/// A GGUF file of version 3 with f32 tensors.
fn write(acts: &Activations, entries: &[Entry]) -> Vec<u8> {
    const MAGIC: &[u8] = b"GGUF";
    const VERSION: u32 = 3;
    /// Numbers of types of values, and of the f32 type of tensors.
    const U32: u32 = 4;
    const STRING: u32 = 8;
    const ARRAY: u32 = 9;
    const F32: u32 = 0;
    const ALIGNMENT: usize = 32;
    let mut file = MAGIC.to_vec();
    let text = |file: &mut Vec<u8>, text: &str| {
        file.extend((text.len() as u64).to_le_bytes());
        file.extend(text.as_bytes());
    };
    file.extend(VERSION.to_le_bytes());
    file.extend((entries.len() as u64).to_le_bytes());
    file.extend(4u64.to_le_bytes());
    text(&mut file, "general.type");
    file.extend(STRING.to_le_bytes());
    text(&mut file, "imatrix");
    text(&mut file, "imatrix.datasets");
    file.extend(ARRAY.to_le_bytes());
    file.extend(STRING.to_le_bytes());
    file.extend(1u64.to_le_bytes());
    text(&mut file, &acts.tokens.source);
    for (key, value) in [("imatrix.chunk_count", acts.num_sequences), ("imatrix.chunk_size", acts.sequence_length)] {
        text(&mut file, key);
        file.extend(U32.to_le_bytes());
        file.extend((value as u32).to_le_bytes());
    }
    let mut offset = 0;
    for Entry { name, shape: (groups, width), values } in entries {
        text(&mut file, name);
        // The fastest dimension comes first.
        file.extend(2u32.to_le_bytes());
        [*width, *groups].iter().for_each(|size| file.extend((*size as u64).to_le_bytes()));
        file.extend(F32.to_le_bytes());
        file.extend((offset as u64).to_le_bytes());
        offset = (offset + size_of_val(&values[..])).next_multiple_of(ALIGNMENT);
    }
    for Entry { values, .. } in entries {
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
    file
}
