//! The linear layers of a decoder layer, one after another: all products with a weight but those of
//! routers and gates of single numbers.

use super::{DeltaInputs, Ffn, Gate, LatentQuery, Layer, Linear, Mixer, Mlp, Qkv};

impl<W> Layer<W> {
    /// The linear layers of the mixer, of a dense feed-forward network, and of a shared expert.
    pub fn linears_mut(&mut self) -> Vec<&mut Linear<W>> {
        let mut all = Vec::new();
        if let Some(mixer) = &mut self.mixer {
            match &mut mixer.body {
                Mixer::Attention(attention) => {
                    of_qkv(&mut attention.qkv, &mut all);
                    if let Some(Gate::Own(gate)) = &mut attention.gate {
                        all.push(gate);
                    }
                    all.push(&mut attention.out);
                }
                Mixer::DeltaNet(net) => {
                    match &mut net.inputs {
                        DeltaInputs::Grouped { qkvz, ba } => all.extend([qkvz, ba]),
                        DeltaInputs::Separate { qkv, z, b, a } => all.extend([qkv, z, b, a]),
                    }
                    all.push(&mut net.out);
                }
                Mixer::GatedConv(conv) => all.extend([&mut conv.input, &mut conv.out]),
                Mixer::Mamba2(mamba) => all.extend([&mut mamba.input, &mut mamba.out]),
            }
        }
        match self.ffn.as_mut().map(|ffn| &mut ffn.body) {
            Some(Ffn::Dense(mlp)) => all.extend(mlp.linears_mut()),
            Some(Ffn::Moe(moe)) => all.extend(moe.shared.iter_mut().flat_map(|shared| shared.mlp.linears_mut())),
            Some(Ffn::NotNeeded) | None => (),
        }
        all
    }
}

fn of_qkv<'a, W>(qkv: &'a mut Qkv<W>, all: &mut Vec<&'a mut Linear<W>>) {
    match qkv {
        Qkv::Separate { q, k, v } => all.extend([q, k, v]),
        Qkv::KeyIsValue { q, k } => all.extend([q, k]),
        Qkv::Borrowed { q, .. } => all.push(q),
        Qkv::Grouped(fused) | Qkv::Fused(fused) => all.push(fused),
        Qkv::Latent(latent) => {
            match &mut latent.query {
                LatentQuery::Direct(q) => all.push(q),
                LatentQuery::Low { down, up, .. } => all.extend([down, up]),
            }
            all.extend([&mut latent.kv_down, &mut latent.kv_up]);
        }
    }
}

impl<W> Mlp<W> {
    pub fn linears_mut(&mut self) -> Vec<&mut Linear<W>> {
        self.gate.iter_mut().chain([&mut self.up, &mut self.down]).collect()
    }
}
