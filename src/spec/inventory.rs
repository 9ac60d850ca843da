//! The tensors that a model needs, the portion of the stream in which each is read, and its role.
//!
//! The reader follows these lists, the estimate adds up their bytes, and the miniature models are
//! made from them. So what is read, estimated and written cannot differ.

use std::collections::HashSet;

use super::{Experts, Layer, Leaves, Linear, Model, Moe, Norm, Role, StoredTensor, TensorSpec};

/// A weight to be read, and its role.
#[derive(Clone, Debug)]
pub struct Part {
    pub weight: TensorSpec,
    pub role: Role,
}

impl Part {
    /// Number of values after loading.
    pub fn elements(&self) -> usize {
        self.weight.elements()
    }

    /// The tensors of the checkpoint that hold this weight.
    pub fn stored(&self) -> Vec<StoredTensor> {
        self.weight.stored()
    }
}

/// The weights of a part of a model, in the order in which they are read.
pub fn parts<L: Leaves<TensorSpec>>(of: &L) -> Vec<Part> {
    let mut parts = Vec::new();
    of.map(&mut |weight, role| parts.push(Part { weight: weight.clone(), role }));
    parts
}

/// Puts the weights that were read for `parts(of)` in their places.
pub fn filled<L: Leaves<TensorSpec>, W>(of: &L, read: Vec<W>) -> L::With<W> {
    let mut read = read.into_iter();
    of.map(&mut |_, _| read.next().expect("the walk that asked for them"))
}

/// The core of a layer: all of its weights but those of the routed experts. Without `ffn`, only
/// what the last layer of an analysis needs: both norms and the mixer.
pub fn core(layer: &Layer, ffn: bool) -> Vec<Part> {
    parts(&layer.needed(ffn))
}

/// Number of experts that have tensors of their own. In a stack, the tensors of the first expert
/// hold all.
pub fn stored_experts(moe: &Moe) -> usize {
    if matches!(*moe.experts, Experts::Separate(_)) { moe.num_experts } else { 1 }
}

/// The weights of routed expert `e`.
pub fn expert(experts: &Experts, e: usize) -> Vec<Part> {
    parts(&experts.network(e))
}

/// The weights between the last layer and the head, which only the logits need. The head itself is
/// read in blocks of rows.
pub fn before_head(model: &Model) -> Vec<Part> {
    parts(&model.before_head())
}

/// The weights of a projection outside the layers.
pub fn projection(linear: &Linear) -> Vec<Part> {
    let mut parts = Vec::new();
    linear.map(Role::ToResidual, &mut |weight: &TensorSpec, role| parts.push(Part { weight: weight.clone(), role }));
    parts
}

/// The weights of the norm of the embeddings.
pub fn embedding_norm(norm: &Norm) -> Vec<Part> {
    let mut parts = Vec::new();
    norm.map(Role::OtherNorm, &mut |weight: &TensorSpec, role| parts.push(Part { weight: weight.clone(), role }));
    parts
}

/// Number of weights that one token multiplies with, without embeddings and head.
pub fn active_parameters(spec: &Model) -> u64 {
    let elements = |parts: &[Part]| parts.iter().map(|part| part.elements() as u64).sum::<u64>();
    let layer = |layer: &Layer| {
        let experts = layer.moe().map_or(0, |moe| moe.top_k as u64 * elements(&expert(&moe.experts, 0)));
        elements(&core(layer, true)) + experts
    };
    let projected = spec.layer_embeddings.as_ref().map_or(0, |own| elements(&parts(own)));
    projected + spec.layers.iter().map(layer).sum::<u64>()
}

/// The bytes of a tensor as models are released: bf16, but the correction bias of routers in f32,
/// and quantised weights as the settings say.
pub fn released_bytes(tensor: &StoredTensor, role: Option<Role>) -> u64 {
    let elements = tensor.shape.iter().product::<usize>() as u64;
    match (tensor.dtype, role) {
        (Some(dtype), _) => elements * dtype.bitsize() as u64 / 8,
        (None, Some(Role::CorrectionBias)) => 4 * elements,
        (None, _) => 2 * elements,
    }
}

/// The largest number of elements of a tensor and of a model. The largest released models have
/// 2^41.
const MAX_ELEMENTS: u64 = 1 << 44;

/// Whether the tensors have sizes that a model can have, so that their bytes can be counted.
pub fn plausible(model: &Model) -> bool {
    let elements = |shape: &[usize]| {
        let product = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64));
        product.filter(|elements| *elements <= MAX_ELEMENTS)
    };
    let all = |parts: &[Part]| parts.iter().try_fold(0u64, |sum, part| sum.checked_add(elements(&part.weight.shape)?));
    let layer = |layer: &Layer| {
        let core = all(&core(layer, true))?;
        let Some(moe) = layer.moe() else { return Some(core) };
        let count = stored_experts(moe);
        core.checked_add(all(&expert(&moe.experts, 0))?.checked_mul(count as u64)?)
    };
    let own = model.layer_embeddings.as_ref().map(|own| &own.table);
    let outside = [Some(&model.embedding), Some(&model.head), model.positions.as_ref().map(|p| &p.weight), own];
    let ends = outside.into_iter().flatten().try_fold(0u64, |sum, tensor| sum.checked_add(elements(&tensor.shape)?));
    let projections = model
        .project_in
        .iter()
        .chain(&model.project_out)
        .try_fold(0, |sum: u64, linear| sum.checked_add(elements(&linear.weight.shape)?));
    let layers = model.layers.iter().try_fold(0u64, |sum, one| sum.checked_add(layer(one)?));
    let sum = || ends?.checked_add(projections?)?.checked_add(layers?);
    sum().is_some_and(|elements| elements <= MAX_ELEMENTS)
}

/// Every tensor of the checkpoint that the model can need, each once, in the order of the layers.
pub fn tensors(model: &Model) -> Vec<(StoredTensor, Option<Role>)> {
    let outside = |weight: &TensorSpec| weight.stored().into_iter().map(|tensor| (tensor, None));
    let mut all: Vec<_> = outside(&model.embedding).collect();
    all.extend(model.positions.iter().flat_map(|positions| outside(&positions.weight)));
    all.extend(model.layer_embeddings.iter().flat_map(|own| outside(&own.table)));
    // Several weights may be rows of one tensor.
    let mut known: HashSet<String> = HashSet::new();
    let mut add = |parts: Vec<Part>| {
        let stored = parts.iter().flat_map(|part| part.stored().into_iter().map(|tensor| (tensor, Some(part.role))));
        all.extend(stored.filter(|(tensor, _)| known.insert(tensor.name.clone())));
    };
    model.project_in.iter().for_each(|linear| add(projection(linear)));
    model.embedding_norm.iter().for_each(|norm| add(embedding_norm(norm)));
    model.layer_embeddings.iter().for_each(|own| add(parts(own)));
    for layer in &model.layers {
        add(core(layer, true));
        if let Some(moe) = layer.moe() {
            (0..stored_experts(moe)).for_each(|e| add(expert(&moe.experts, e)));
        }
    }
    add(before_head(model));
    if model.head != model.embedding {
        all.extend(outside(&model.head));
    }
    all
}
