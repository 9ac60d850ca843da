//! The walk over the weights of each part of a model, in the order in which they are read.

use super::{
    Attention, BeforeHead, DeltaInputs, DeltaNet, EmbeddingGate, Ffn, Gate, GatedConv, HeadNorm, Latent, LatentQuery,
    Layer, LayerEmbeddings, Leaves, Linear, Mamba2, Mixer, Mlp, Moe, Norm, QkNorm, Qkv, Reads, Role, Router,
    SharedExpert, Sublayer, XIelu,
};

impl<W> Norm<W> {
    pub fn map<U>(&self, role: Role, f: &mut dyn FnMut(&W, Role) -> U) -> Norm<U> {
        Norm {
            kind: self.kind,
            weight: f(&self.weight, role),
            bias: self.bias.as_ref().map(|bias| f(bias, Role::NormBias)),
            eps: self.eps,
        }
    }
}

impl<W> Linear<W> {
    pub fn map<U>(&self, role: Role, f: &mut dyn FnMut(&W, Role) -> U) -> Linear<U> {
        Linear {
            weight: f(&self.weight, role),
            bias: self.bias.as_ref().map(|bias| f(bias, Role::Bias)),
            order: self.order,
            rounding: None,
        }
    }
}

impl<W> HeadNorm<W> {
    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> HeadNorm<U> {
        match self {
            HeadNorm::Each(norm) => HeadNorm::Each(norm.map(Role::OtherNorm, f)),
            HeadNorm::Own(norms) => HeadNorm::Own(norms.iter().map(|norm| norm.map(Role::OtherNorm, f)).collect()),
            HeadNorm::Together(norm) => HeadNorm::Together(norm.map(Role::OtherNorm, f)),
            HeadNorm::Unweighted { eps } => HeadNorm::Unweighted { eps: *eps },
        }
    }
}

impl<W> Latent<W> {
    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Latent<U> {
        let query = match &self.query {
            LatentQuery::Direct(linear) => LatentQuery::Direct(linear.map(Role::FromAttnIn, f)),
            LatentQuery::Low { down, norm, up } => LatentQuery::Low {
                down: down.map(Role::FromAttnIn, f),
                norm: norm.map(Role::OtherNorm, f),
                up: up.map(Role::Inner, f),
            },
        };
        Latent {
            query,
            kv_down: self.kv_down.map(Role::FromAttnIn, f),
            kv_norm: self.kv_norm.map(Role::OtherNorm, f),
            kv_up: self.kv_up.map(Role::Inner, f),
            nope_dim: self.nope_dim,
        }
    }
}

impl<W> Qkv<W> {
    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Qkv<U> {
        match self {
            Qkv::Separate { q, k, v } => Qkv::Separate {
                q: q.map(Role::FromAttnIn, f),
                k: k.map(Role::FromAttnIn, f),
                v: v.map(Role::FromAttnIn, f),
            },
            Qkv::KeyIsValue { q, k } => {
                Qkv::KeyIsValue { q: q.map(Role::FromAttnIn, f), k: k.map(Role::FromAttnIn, f) }
            }
            Qkv::Borrowed { q, from } => Qkv::Borrowed { q: q.map(Role::FromAttnIn, f), from: *from },
            Qkv::Grouped(linear) => Qkv::Grouped(linear.map(Role::FromAttnIn, f)),
            Qkv::Fused(linear) => Qkv::Fused(linear.map(Role::FromAttnIn, f)),
            Qkv::Latent(latent) => Qkv::Latent(Box::new(latent.map(f))),
        }
    }
}

impl<W> Leaves<W> for Attention<W> {
    type With<U> = Attention<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Attention<U> {
        let qkv = self.qkv.map(f);
        let gate = self.gate.as_ref().map(|gate| match gate {
            Gate::InQuery => Gate::InQuery,
            Gate::Own(linear) => Gate::Own(linear.map(Role::FromAttnIn, f)),
        });
        let qk_norm = self.qk_norm.as_ref().map(|norms| QkNorm {
            q: norms.q.map(f),
            k: norms.k.as_ref().map(|norm| norm.map(f)),
            after_rope: norms.after_rope,
        });
        let sinks = self.sinks.as_ref().map(|sinks| f(sinks, Role::Sinks));
        Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            value_dim: self.value_dim,
            qkv,
            out: self.out.map(Role::ToResidual, f),
            qk_norm,
            value_norm: self.value_norm,
            clip: self.clip,
            rope: self.rope.clone(),
            growth: self.growth,
            span: self.span,
            sinks,
            scale: self.scale,
            softcap: self.softcap,
            alibi: self.alibi.clone(),
            gate,
        }
    }
}

impl<W> Leaves<W> for DeltaNet<W> {
    type With<U> = DeltaNet<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> DeltaNet<U> {
        DeltaNet {
            key_heads: self.key_heads,
            value_heads: self.value_heads,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
            inputs: match &self.inputs {
                DeltaInputs::Grouped { qkvz, ba } => {
                    DeltaInputs::Grouped { qkvz: qkvz.map(Role::FromAttnIn, f), ba: ba.map(Role::FromAttnIn, f) }
                }
                DeltaInputs::Separate { qkv, z, b, a } => DeltaInputs::Separate {
                    qkv: qkv.map(Role::FromAttnIn, f),
                    z: z.map(Role::FromAttnIn, f),
                    b: b.map(Role::FromAttnIn, f),
                    a: a.map(Role::FromAttnIn, f),
                },
            },
            conv: f(&self.conv, Role::Conv),
            a_log: f(&self.a_log, Role::ALog),
            dt_bias: f(&self.dt_bias, Role::DtBias),
            norm: self.norm.map(Role::OtherNorm, f),
            out: self.out.map(Role::ToResidual, f),
        }
    }
}

impl<W> Leaves<W> for GatedConv<W> {
    type With<U> = GatedConv<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> GatedConv<U> {
        GatedConv {
            input: self.input.map(Role::FromAttnIn, f),
            conv: f(&self.conv, Role::Conv),
            conv_bias: self.conv_bias.as_ref().map(|bias| f(bias, Role::Bias)),
            out: self.out.map(Role::ToResidual, f),
        }
    }
}

impl<W> Leaves<W> for Mamba2<W> {
    type With<U> = Mamba2<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Mamba2<U> {
        Mamba2 {
            heads: self.heads,
            head_dim: self.head_dim,
            groups: self.groups,
            state: self.state,
            input: self.input.map(Role::FromAttnIn, f),
            conv: f(&self.conv, Role::Conv),
            conv_bias: self.conv_bias.as_ref().map(|bias| f(bias, Role::Bias)),
            dt_bias: f(&self.dt_bias, Role::DtBias),
            a_log: f(&self.a_log, Role::ALog),
            d: f(&self.d, Role::Parameter),
            norm: self.norm.map(Role::OtherNorm, f),
            out: self.out.map(Role::ToResidual, f),
            min_step: self.min_step,
        }
    }
}

impl<W> Leaves<W> for Mixer<W> {
    type With<U> = Mixer<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Mixer<U> {
        match self {
            Mixer::Attention(attention) => Mixer::Attention(Box::new(attention.map(f))),
            Mixer::DeltaNet(net) => Mixer::DeltaNet(Box::new(net.map(f))),
            Mixer::GatedConv(conv) => Mixer::GatedConv(Box::new(conv.map(f))),
            Mixer::Mamba2(mamba) => Mixer::Mamba2(Box::new(mamba.map(f))),
        }
    }
}

impl<W> Leaves<W> for Mlp<W> {
    type With<U> = Mlp<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Mlp<U> {
        Mlp {
            gate: self.gate.as_ref().map(|gate| gate.map(Role::FromFfnIn, f)),
            up: self.up.map(Role::FromFfnIn, f),
            down: self.down.map(Role::ToResidual, f),
            activation: self.activation,
            xielu: self.xielu.as_ref().map(|xielu| XIelu {
                alpha_p: f(&xielu.alpha_p, Role::Parameter),
                alpha_n: f(&xielu.alpha_n, Role::Parameter),
                beta: f(&xielu.beta, Role::Parameter),
                eps: f(&xielu.eps, Role::Parameter),
            }),
        }
    }
}

impl<W> Leaves<W> for SharedExpert<W> {
    type With<U> = SharedExpert<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> SharedExpert<U> {
        SharedExpert {
            mlp: self.mlp.map(f),
            gate: self.gate.as_ref().map(|gate| gate.map(Role::FromFfnIn, f)),
            write_norm: self.write_norm.as_ref().map(|norm| norm.map(Role::OtherNorm, f)),
        }
    }
}

/// The router and the shared expert. Routed experts are read one by one, as the `Mlp` that
/// `Experts::network` describes.
impl<W> Leaves<W> for Moe<W> {
    type With<U> = Moe<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Moe<U> {
        let router = Router {
            norm: self.router.norm.as_ref().map(|norm| norm.map(Role::OtherNorm, f)),
            linear: self.router.linear.map(Role::Router, f),
            logit_factor: self.router.logit_factor,
            scoring: self.router.scoring.clone(),
            correction_bias: self.router.correction_bias.as_ref().map(|bias| f(bias, Role::CorrectionBias)),
            expert_factors: self.router.expert_factors.as_ref().map(|factors| f(factors, Role::ExpertFactors)),
        };
        Moe {
            num_experts: self.num_experts,
            top_k: self.top_k,
            router,
            expert_norm: self.expert_norm.as_ref().map(|norm| norm.map(Role::OtherNorm, f)),
            experts: self.experts.clone(),
            sum_norm: self.sum_norm.as_ref().map(|norm| norm.map(Role::OtherNorm, f)),
            shared: self.shared.as_ref().map(|shared| shared.map(f)),
            intermediate: self.intermediate,
        }
    }
}

impl<W> Leaves<W> for Ffn<W> {
    type With<U> = Ffn<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Ffn<U> {
        match self {
            Ffn::Dense(mlp) => Ffn::Dense(Box::new(mlp.map(f))),
            Ffn::Moe(moe) => Ffn::Moe(Box::new(moe.map(f))),
            Ffn::NotNeeded => Ffn::NotNeeded,
        }
    }
}

impl<B: Leaves<W>, W> Sublayer<B, W> {
    fn map<U>(&self, norm: Role, f: &mut dyn FnMut(&W, Role) -> U) -> Sublayer<B::With<U>, U> {
        let reads = match &self.reads {
            Reads::Norm(own) => Reads::Norm(own.map(norm, f)),
            Reads::AsMixer => Reads::AsMixer,
            Reads::Stream => Reads::Stream,
        };
        Sublayer {
            reads,
            body: self.body.map(f),
            write_norm: self.write_norm.as_ref().map(|norm| norm.map(Role::OtherNorm, f)),
            factor: self.factor,
            sum_norm: self.sum_norm.as_ref().map(|norm| norm.map(Role::OtherNorm, f)),
        }
    }
}

impl<W> EmbeddingGate<W> {
    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> EmbeddingGate<U> {
        EmbeddingGate {
            gate: self.gate.map(Role::Inner, f),
            activation: self.activation,
            up: self.up.map(Role::ToResidual, f),
            norm: self.norm.map(Role::OtherNorm, f),
        }
    }
}

impl<W> Leaves<W> for LayerEmbeddings<W> {
    type With<U> = LayerEmbeddings<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> LayerEmbeddings<U> {
        LayerEmbeddings {
            table: self.table.clone(),
            factor: self.factor,
            projection: self.projection.map(Role::Inner, f),
            projection_factor: self.projection_factor,
            norm: self.norm.map(Role::OtherNorm, f),
            sum_factor: self.sum_factor,
        }
    }
}

/// All weights but those of the routed experts.
impl<W> Leaves<W> for Layer<W> {
    type With<U> = Layer<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Layer<U> {
        Layer {
            mixer: self.mixer.as_ref().map(|mixer| mixer.map(Role::AttnNorm, f)),
            ffn: self.ffn.as_ref().map(|ffn| ffn.map(Role::FfnNorm, f)),
            parallel: self.parallel,
            embedding_gate: self.embedding_gate.as_ref().map(|gate| gate.map(f)),
            scalar: self.scalar.as_ref().map(|scalar| f(scalar, Role::StreamFactor)),
        }
    }
}

impl<W> Leaves<W> for BeforeHead<W> {
    type With<U> = BeforeHead<U>;

    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> BeforeHead<U> {
        BeforeHead {
            final_norm: self.final_norm.as_ref().map(|norm| norm.map(Role::OtherNorm, f)),
            project_out: self.project_out.as_ref().map(|linear| linear.map(Role::ToResidual, f)),
            head_bias: self.head_bias.as_ref().map(|bias| f(bias, Role::Bias)),
        }
    }
}
