//! Which layers of a model have which sites, and how wide they are.

use super::{Ffn, Mixer, Model, Qkv, Reads};
use crate::record::{Site, SiteId};
use crate::vocabulary::Order;

impl Model {
    /// The width of a site in a layer, if the layer has it.
    pub fn site_width(&self, at: SiteId) -> Option<usize> {
        let layer = self.layers.get(at.layer)?;
        let (mixer, ffn) = (layer.mixer.as_ref(), layer.ffn.as_ref());
        let attention = match mixer.map(|mixer| &mixer.body) {
            Some(Mixer::Attention(attention)) => Some(attention),
            _ => None,
        };
        let delta = match mixer.map(|mixer| &mixer.body) {
            Some(Mixer::DeltaNet(net)) => Some(net),
            _ => None,
        };
        let moe = layer.moe();
        let hidden = self.hidden_size;
        match at.site {
            Site::Embed => (at.layer == 0).then_some(hidden),
            Site::AttnIn | Site::AttnWrite | Site::ResidMid => mixer.map(|_| hidden),
            Site::Q => attention.map(|of| of.heads * of.head_dim),
            Site::K => match attention.map(|of| (&of.qkv, of)) {
                None | Some((Qkv::Borrowed { .. }, _)) => None,
                Some((_, of)) => Some(of.kv_heads * of.head_dim),
            },
            Site::QDelta | Site::KDelta => delta.map(|of| of.key_heads * of.key_dim),
            Site::AttnOut => mixer.map(|mixer| match &mixer.body {
                Mixer::Attention(of) => of.heads * of.value_dim,
                Mixer::DeltaNet(of) => of.value_heads * of.value_dim,
                Mixer::GatedConv(_) => hidden,
                Mixer::Mamba2(of) => of.heads * of.head_dim,
            }),
            Site::FfnIn => ffn.filter(|ffn| !matches!(ffn.reads, Reads::AsMixer)).map(|_| hidden),
            Site::FfnWrite => ffn.map(|_| hidden),
            Site::RouterLogits => moe.map(|moe| moe.num_experts),
            Site::FfnMid => match ffn.map(|ffn| &ffn.body) {
                Some(Ffn::Dense(mlp)) => Some(match mlp.down.order {
                    Order::OutIn => mlp.down.weight.shape[1],
                    Order::InOut => mlp.down.weight.shape[0],
                }),
                Some(Ffn::Moe(moe)) => Some(moe.intermediate),
                _ => None,
            },
            Site::FfnMidShared => moe.and_then(|moe| moe.shared.as_ref()).map(|shared| {
                let down = &shared.mlp.down;
                match down.order {
                    Order::OutIn => down.weight.shape[1],
                    Order::InOut => down.weight.shape[0],
                }
            }),
            Site::ResidPost => Some(hidden),
            Site::FinalNorm => (at.layer + 1 == self.layers.len()).then_some(self.head.shape[1]),
        }
    }

    /// The layers that have a site, with its width in each.
    pub fn layers_with(&self, site: Site) -> Vec<(usize, usize)> {
        let of = |layer| Some((layer, self.site_width(SiteId { layer, site })?));
        (0..self.layers.len()).filter_map(of).collect()
    }
}
