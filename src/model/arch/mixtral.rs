//! Mixtral (`model_type` "mixtral"). Facts: transformers `modeling_mixtral`; Jiang et al. 2024.
//!
//! Experts are named w1 (gate), w3 (up), w2 (down); their weights are always renormalised.

use super::decoder::{Decoder, Heads, sliding_window};
use super::{Names, activation, experts};
use crate::error::Result;
use crate::model::config::Config;
use crate::model::rope::Rope;
use crate::model::spec::{Experts, Ffn, Linear, Mixer, Mlp, Model, NormKind, Scoring};

pub fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, false)?;
    let heads = Heads::from_config(c)?;
    let rope = Rope::from_config(c, heads.head_dim, 1_000_000.0)?;
    let window = sliding_window(c, true)?;
    let sizes = experts::Sizes {
        num_experts: c.size("num_local_experts")?,
        top_k: c.size("num_experts_per_tok")?,
        intermediate: c.size("intermediate_size")?,
        activation: activation(c, "hidden_act", "silu")?,
    };
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, heads, false, Some(rope.clone()));
        attention.window = window;
        let prefix = format!("{}block_sparse_moe.", decoder.layer(i));
        let mut moe = experts::separate(c, &prefix, decoder.hidden, sizes, Scoring::Softmax { renormalise: true })?;
        moe.experts =
            Experts::Separate((0..sizes.num_experts).map(|e| expert(&prefix, e, decoder.hidden, sizes)).collect());
        Ok(decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Moe(Box::new(moe))))
    });
    Ok(decoder.model("mixtral", layers.collect::<Result<_>>()?))
}

fn expert(prefix: &str, e: usize, hidden: usize, sizes: experts::Sizes) -> Mlp {
    let name = |part: &str| format!("{prefix}experts.{e}.{part}");
    Mlp {
        gate: Some(Linear::new(&name("w1"), sizes.intermediate, hidden, false)),
        up: Linear::new(&name("w3"), sizes.intermediate, hidden, false),
        down: Linear::new(&name("w2"), hidden, sizes.intermediate, false),
        activation: sizes.activation,
    }
}
