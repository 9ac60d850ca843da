//! The linear layers of a model by the site that each reads: their names in the checkpoint, and
//! those that llama.cpp gives them.

use std::collections::HashSet;

use super::{DeltaInputs, Experts, Ffn, LatentQuery, Linear, Mixer, Mlp, Model, Qkv};
use crate::record::{ModuleInput, Site, SiteId};
use crate::vocabulary::Order;

impl Model {
    /// All linear layers of the decoder whose input is a site, and the head, in the order of
    /// computation. Routed experts come once for each kind of projection, without a name.
    pub fn module_inputs(&self) -> Vec<ModuleInput> {
        let mut modules = self.found().0;
        let layer = self.layers.len() - 1;
        // A head that shares its weights with the embedding is a layer of its own all the same.
        let name = if self.head.name == self.embedding.name { "lm_head" } else { &self.head.name };
        let module = name.trim_end_matches(".weight").to_string();
        modules.push(ModuleInput {
            module,
            gguf: "output.weight".into(),
            at: SiteId { layer, site: Site::FinalNorm },
            routed: String::new(),
        });
        modules
    }

    /// The linear layers inside decoder layers, and the names of weights that are stored [in, out].
    fn found(&self) -> (Vec<ModuleInput>, HashSet<String>) {
        let (mut modules, mut in_out) = (Vec::new(), HashSet::new());
        for (layer, of) in self.layers.iter().enumerate() {
            let mut found = Found { layer, modules: &mut modules, in_out: &mut in_out };
            if let Some(mixer) = &of.mixer {
                found.mixer(&mixer.body);
            }
            if let Some(ffn) = &of.ffn {
                found.ffn(&ffn.body);
            }
        }
        (modules, in_out)
    }

    /// Names of the weights that are stored [in, out], or [experts, in, out].
    pub fn stored_in_out(&self) -> HashSet<String> {
        self.found().1
    }
}

/// The linear layers of one decoder layer.
struct Found<'a> {
    layer: usize,
    modules: &'a mut Vec<ModuleInput>,
    in_out: &'a mut HashSet<String>,
}

impl Found<'_> {
    fn note_order(&mut self, linear: &Linear) {
        if linear.order == Order::InOut {
            self.in_out.insert(linear.weight.name.clone());
        }
    }

    fn add(&mut self, linear: Option<&Linear>, gguf: &str, site: Site) {
        linear.into_iter().for_each(|linear| self.note_order(linear));
        let name = |linear: &Linear| linear.weight.name.trim_end_matches(".weight").to_string();
        let module = linear.map(name).unwrap_or_default();
        let gguf = format!("blk.{}.{gguf}.weight", self.layer);
        // Parts of one tensor are one layer.
        let known = self.modules.iter().any(|of| !of.module.is_empty() && of.module == module);
        if !known {
            let at = SiteId { layer: self.layer, site };
            self.modules.push(ModuleInput { module, gguf, at, routed: String::new() });
        }
    }

    /// Adds one kind of projection of all routed experts. `of` is that of expert `e`.
    fn add_routed(&mut self, of: impl Fn(usize) -> Option<Linear>, gguf: &str, site: Site) {
        let Some(first) = of(0) else { return };
        self.note_order(&first);
        self.add(None, gguf, site);
        let name = |linear: &Linear| linear.weight.name.trim_end_matches(".weight").to_string();
        let routed = match first.weight.slice {
            Some(_) => name(&first),
            None => match name(&first).split_once(".experts.0.") {
                Some((before, after)) => format!("{before}.experts.{}.{after}", ModuleInput::EXPERT),
                None => String::new(),
            },
        };
        if let Some(added) = self.modules.last_mut() {
            added.routed = routed;
        }
    }

    fn mixer(&mut self, mixer: &Mixer) {
        let mut read = |linear: &Linear, gguf: &str| self.add(Some(linear), gguf, Site::AttnIn);
        match mixer {
            Mixer::Attention(attention) => {
                match &attention.qkv {
                    Qkv::Separate { q, k, v } => {
                        read(q, "attn_q");
                        read(k, "attn_k");
                        read(v, "attn_v");
                    }
                    Qkv::KeyIsValue { q, k } => {
                        read(q, "attn_q");
                        read(k, "attn_k");
                    }
                    Qkv::Borrowed { q, .. } => read(q, "attn_q"),
                    Qkv::Grouped(fused) | Qkv::Fused(fused) => read(fused, "attn_qkv"),
                    Qkv::Latent(latent) => {
                        match &latent.query {
                            LatentQuery::Direct(q) => read(q, "attn_q"),
                            LatentQuery::Low { down, .. } => read(down, "attn_q_a"),
                        }
                        read(&latent.kv_down, "attn_kv_a_mqa");
                    }
                }
                self.add(Some(&attention.out), "attn_output", Site::AttnOut);
            }
            Mixer::DeltaNet(net) => {
                match &net.inputs {
                    DeltaInputs::Grouped { qkvz, ba } => {
                        read(qkvz, "ssm_in");
                        read(ba, "ssm_ba");
                    }
                    DeltaInputs::Separate { qkv, z, b, a } => {
                        read(qkv, "attn_qkv");
                        read(z, "attn_gate");
                        read(b, "ssm_beta");
                        read(a, "ssm_alpha");
                    }
                }
                self.add(Some(&net.out), "ssm_out", Site::AttnOut);
            }
            Mixer::GatedConv(conv) => {
                read(&conv.input, "shortconv.in_proj");
                self.add(Some(&conv.out), "shortconv.out_proj", Site::AttnOut);
            }
            Mixer::Mamba2(mamba) => {
                read(&mamba.input, "ssm_in");
                self.add(Some(&mamba.out), "ssm_out", Site::AttnOut);
            }
        }
    }

    fn ffn(&mut self, ffn: &Ffn) {
        match ffn {
            Ffn::Dense(mlp) => self.mlp(mlp, "", Site::FfnMid),
            Ffn::Moe(moe) => {
                self.add(Some(&moe.router.linear), "ffn_gate_inp", Site::FfnIn);
                let network = |e: usize| moe.experts.network(e);
                // A stack may have both in one tensor, which is two for llama.cpp.
                let stacked = matches!(*moe.experts, Experts::Stacked(_));
                let gate = |e: usize| network(e).gate.or_else(|| stacked.then(|| network(e).up));
                self.add_routed(gate, "ffn_gate_exps", Site::FfnIn);
                self.add_routed(|e| Some(network(e).up), "ffn_up_exps", Site::FfnIn);
                self.add_routed(|e| Some(network(e).down), "ffn_down_exps", Site::FfnMid);
                if let Some(shared) = &moe.shared {
                    self.mlp(&shared.mlp, "_shexp", Site::FfnMidShared);
                    if let Some(gate) = &shared.gate {
                        self.add(Some(gate), "ffn_gate_inp_shexp", Site::FfnIn);
                    }
                }
            }
            Ffn::NotNeeded => (),
        }
    }

    fn mlp(&mut self, mlp: &Mlp, suffix: &str, inner: Site) {
        if let Some(gate) = &mlp.gate {
            self.add(Some(gate), &format!("ffn_gate{suffix}"), Site::FfnIn);
        }
        self.add(Some(&mlp.up), &format!("ffn_up{suffix}"), Site::FfnIn);
        self.add(Some(&mlp.down), &format!("ffn_down{suffix}"), inner);
    }
}
