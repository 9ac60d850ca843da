//! Which tensors a model needs, in which portion of the stream, and what each is for.
//!
//! The reader follows these lists, the estimate adds up their bytes, and the miniature models are made from them, so
//! what is read, what is announced and what is written cannot drift apart.

use super::{Experts, Ffn, Layer, Linear, Mixer, Mlp, Model, Moe, Norm, Qkv, StackedWeight, Tensor};

/// What a tensor does; decides the precision it is kept in and how a synthetic one is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weight of a hooked norm.
    InputNorm,
    FfnNorm,
    /// Any other norm weight.
    OtherNorm,
    NormBias,
    /// Projection that consumes the attention-input norm's output.
    FromInputNorm,
    /// Projection that consumes the FFN-input norm's output.
    FromFfnNorm,
    /// Projection whose output is added to the residual stream.
    ToResidual,
    Router,
    Bias,
    Sinks,
    Conv,
    ALog,
    DtBias,
    CorrectionBias,
}

impl Role {
    /// Whether −∞ has a meaning: it enters as its exponential, 0, or is added to scores of which the largest are chosen.
    pub fn may_be_minus_infinity(self) -> bool {
        matches!(self, Role::ALog | Role::DtBias | Role::Sinks | Role::CorrectionBias)
    }

    /// Kept in f32 whatever the compute dtype: small, and either scale factors or decisive for routing.
    pub fn in_f32(self) -> bool {
        !matches!(self, Role::FromInputNorm | Role::FromFfnNorm | Role::ToResidual)
    }
}

/// One thing to read: a tensor or one slice of it along the first dimension.
#[derive(Clone, Debug)]
pub enum Part {
    Whole {
        tensor: Tensor,
        role: Role,
    },
    /// `tensor[index]`; kept under the tensor's name.
    Slice {
        tensor: Tensor,
        index: usize,
        role: Role,
    },
    /// `blocks[index]` and `scales[index]`, dequantised to [out, in]; kept under the name of `blocks`.
    Mxfp4 {
        blocks: Tensor,
        scales: Tensor,
        index: usize,
        role: Role,
    },
}

impl Part {
    /// The name under which the executor asks for it.
    pub fn key(&self) -> &str {
        match self {
            Part::Whole { tensor, .. } | Part::Slice { tensor, .. } => &tensor.name,
            Part::Mxfp4 { blocks, .. } => &blocks.name,
        }
    }

    pub fn role(&self) -> Role {
        match self {
            Part::Whole { role, .. } | Part::Slice { role, .. } | Part::Mxfp4 { role, .. } => *role,
        }
    }

    /// The tensors of the checkpoint behind this part.
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Part::Whole { tensor, .. } | Part::Slice { tensor, .. } => vec![tensor],
            Part::Mxfp4 { blocks, scales, .. } => vec![blocks, scales],
        }
    }

    /// Elements after loading.
    pub fn elements(&self) -> usize {
        match self {
            Part::Whole { tensor, .. } => tensor.shape.iter().product(),
            Part::Slice { tensor, .. } => tensor.shape[1..].iter().product(),
            // Two 4-bit values per byte.
            Part::Mxfp4 { blocks, .. } => blocks.shape[1..].iter().product::<usize>() * 2,
        }
    }
}

#[derive(Default)]
struct Parts(Vec<Part>);

impl Parts {
    fn whole(&mut self, tensor: &Tensor, role: Role) {
        self.0.push(Part::Whole { tensor: tensor.clone(), role });
    }

    fn norm(&mut self, norm: &Norm, role: Role) {
        self.whole(&norm.weight, role);
        if let Some(bias) = &norm.bias {
            self.whole(bias, Role::NormBias);
        }
    }

    fn linear(&mut self, linear: &Linear, role: Role) {
        self.whole(&linear.weight, role);
        if let Some(bias) = &linear.bias {
            self.whole(bias, Role::Bias);
        }
    }

    fn mlp(&mut self, mlp: &Mlp) {
        if let Some(gate) = &mlp.gate {
            self.linear(gate, Role::FromFfnNorm);
        }
        self.linear(&mlp.up, Role::FromFfnNorm);
        self.linear(&mlp.down, Role::ToResidual);
    }

    fn mixer(&mut self, mixer: &Mixer) {
        match mixer {
            Mixer::Attention(attention) => {
                match &attention.qkv {
                    Qkv::Separate { q, k, v } => {
                        for linear in [q, k, v] {
                            self.linear(linear, Role::FromInputNorm);
                        }
                    }
                    Qkv::Fused(linear) => self.linear(linear, Role::FromInputNorm),
                }
                if let Some(norms) = &attention.qk_norm {
                    self.norm(&norms.q, Role::OtherNorm);
                    self.norm(&norms.k, Role::OtherNorm);
                }
                if let Some(sinks) = &attention.sinks {
                    self.whole(sinks, Role::Sinks);
                }
                self.linear(&attention.out, Role::ToResidual);
            }
            Mixer::DeltaNet(net) => {
                self.linear(&net.in_qkvz, Role::FromInputNorm);
                self.linear(&net.in_ba, Role::FromInputNorm);
                self.whole(&net.conv, Role::Conv);
                self.whole(&net.a_log, Role::ALog);
                self.whole(&net.dt_bias, Role::DtBias);
                self.norm(&net.norm, Role::OtherNorm);
                self.linear(&net.out, Role::ToResidual);
            }
        }
    }
}

/// Norms, mixer, and the dense FFN or the router and shared expert: everything of a layer but its routed experts.
/// Without `ffn`, only what the last layer of an analysis needs: both norms and the mixer.
pub fn core(layer: &Layer, ffn: bool) -> Vec<Part> {
    let mut parts = Parts::default();
    parts.norm(&layer.input_norm, Role::InputNorm);
    parts.mixer(&layer.mixer);
    parts.norm(&layer.ffn_norm, Role::FfnNorm);
    if ffn {
        match &layer.ffn {
            Ffn::Dense(mlp) => parts.mlp(mlp),
            Ffn::Moe(moe) => {
                parts.linear(&moe.router.linear, Role::Router);
                if let Some(bias) = &moe.router.correction_bias {
                    parts.whole(bias, Role::CorrectionBias);
                }
                if let Some(shared) = &moe.shared {
                    parts.mlp(&shared.mlp);
                    if let Some(gate) = &shared.gate {
                        parts.linear(gate, Role::FromFfnNorm);
                    }
                }
            }
        }
    }
    parts.0
}

/// How many experts have tensors of their own; stacked, all are in those of the first.
pub fn stored_experts(moe: &Moe) -> usize {
    if matches!(moe.experts, Experts::Separate(_)) { moe.num_experts } else { 1 }
}

/// The weights of routed expert `e`.
pub fn expert(experts: &Experts, e: usize) -> Vec<Part> {
    match experts {
        Experts::Separate(mlps) => {
            let mut parts = Parts::default();
            parts.mlp(&mlps[e]);
            parts.0
        }
        Experts::Stacked { gate_up, gate_up_bias, down, down_bias, .. } => {
            let slice = |tensor: &Tensor, role| Part::Slice { tensor: tensor.clone(), index: e, role };
            let weight = |weight: &StackedWeight, role| match weight {
                StackedWeight::Dense(tensor) => slice(tensor, role),
                StackedWeight::Mxfp4 { blocks, scales } => {
                    Part::Mxfp4 { blocks: blocks.clone(), scales: scales.clone(), index: e, role }
                }
            };
            vec![
                weight(gate_up, Role::FromFfnNorm),
                slice(gate_up_bias, Role::Bias),
                weight(down, Role::ToResidual),
                slice(down_bias, Role::Bias),
            ]
        }
    }
}

/// What stands between the last layer and the head, and only the logits need (the head is read in blocks of rows).
pub fn before_head(model: &Model) -> Vec<Part> {
    let mut parts = Parts::default();
    if let Some(norm) = &model.final_norm {
        parts.norm(norm, Role::OtherNorm);
    }
    if let Some(projection) = &model.project_out {
        parts.linear(projection, Role::ToResidual);
    }
    parts.0
}

/// A projection outside the layers.
pub fn projection(linear: &Linear) -> Vec<Part> {
    let mut parts = Parts::default();
    parts.linear(linear, Role::ToResidual);
    parts.0
}

/// Weights that a stored tensor stands for: a byte of MXFP4 blocks holds two, their scales none.
pub fn parameters(tensor: &Tensor) -> u64 {
    let elements = tensor.shape.iter().product::<usize>() as u64;
    match &tensor.name {
        name if name.ends_with("_blocks") => 2 * elements,
        name if name.ends_with("_scales") => 0,
        _ => elements,
    }
}

/// Weights that one token multiplies with, without embeddings and head.
pub fn active_parameters(spec: &Model) -> u64 {
    let elements = |parts: &[Part]| parts.iter().map(|part| part.elements() as u64).sum::<u64>();
    let layer = |layer: &Layer| {
        let experts = match &layer.ffn {
            Ffn::Dense(_) => 0,
            Ffn::Moe(moe) => moe.top_k as u64 * elements(&expert(&moe.experts, 0)),
        };
        elements(&core(layer, true)) + experts
    };
    spec.layers.iter().map(layer).sum()
}

/// Bytes of a tensor as models are released: bf16, the correction bias of routers in f32, MXFP4 in bytes.
pub fn released_bytes(tensor: &Tensor, role: Option<Role>) -> u64 {
    let elements = tensor.shape.iter().product::<usize>() as u64;
    match &tensor.name {
        name if name.ends_with("_blocks") || name.ends_with("_scales") => elements,
        _ if role == Some(Role::CorrectionBias) => 4 * elements,
        _ => 2 * elements,
    }
}

/// Elements of one tensor and of a model; the largest models that are released have 2^41.
const MAX_ELEMENTS: u64 = 1 << 44;

/// Whether tensors have sizes that some model could have, so that their bytes can be counted.
pub fn plausible(model: &Model) -> bool {
    let elements = |tensor: &Tensor| {
        let product = tensor.shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64));
        product.filter(|elements| *elements <= MAX_ELEMENTS)
    };
    let all = |parts: &[Part]| {
        let mut tensors = parts.iter().flat_map(Part::tensors);
        tensors.try_fold(0u64, |sum, tensor| sum.checked_add(elements(tensor)?))
    };
    let layer = |layer: &Layer| {
        let core = all(&core(layer, true))?;
        let Ffn::Moe(moe) = &layer.ffn else { return Some(core) };
        let count = stored_experts(moe);
        core.checked_add(all(&expert(&moe.experts, 0))?.checked_mul(count as u64)?)
    };
    let outside = [Some(&model.embedding), Some(&model.head), model.positions.as_ref().map(|p| &p.weight)];
    let ends = outside.into_iter().flatten().try_fold(0u64, |sum, tensor| sum.checked_add(elements(tensor)?));
    let projections = model
        .project_in
        .iter()
        .chain(&model.project_out)
        .try_fold(0, |sum: u64, linear| sum.checked_add(elements(&linear.weight)?));
    let layers = model.layers.iter().try_fold(0u64, |sum, one| sum.checked_add(layer(one)?));
    let sum = || ends?.checked_add(projections?)?.checked_add(layers?);
    sum().is_some_and(|elements| elements <= MAX_ELEMENTS)
}

/// Every tensor the model can need, each once, in the order of the layers.
pub fn tensors(model: &Model) -> Vec<(Tensor, Option<Role>)> {
    let mut all = vec![(model.embedding.clone(), None)];
    all.extend(model.positions.iter().map(|positions| (positions.weight.clone(), None)));
    for part in model.project_in.iter().flat_map(projection) {
        all.extend(part.tensors().into_iter().map(|tensor| (tensor.clone(), Some(part.role()))));
    }
    for layer in &model.layers {
        let mut parts = core(layer, true);
        if let Ffn::Moe(moe) = &layer.ffn {
            let count = stored_experts(moe);
            parts.extend((0..count).flat_map(|e| expert(&moe.experts, e)));
        }
        for part in &parts {
            all.extend(part.tensors().into_iter().map(|tensor| (tensor.clone(), Some(part.role()))));
        }
    }
    all.extend(
        before_head(model).iter().flat_map(|part| part.tensors().into_iter().cloned().map(|t| (t, Some(part.role())))),
    );
    if model.head != model.embedding {
        all.push((model.head.clone(), None));
    }
    all
}
