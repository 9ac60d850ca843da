//! Granite 3.x with experts (`model_type` "granitemoe"). Facts: transformers `modeling_granitemoe`;
//! IBM 2024.
//!
//! Embeddings, outputs of sublayers, scores and logits have factors. Experts are stacked in one
//! tensor, and the softmax is over the logits of the chosen ones.

use super::decoder::{Decoder, LLAMA};
use super::experts::{self, Sizes};
use super::names::Names;
use crate::error::Result;
use crate::spec::config::Config;
use crate::spec::{Divisor, Ffn, Linear, Mixer, Model, Score, Scoring};
use crate::vocabulary::NormKind;

pub(super) fn model(c: &Config, names: &dyn Names) -> Result<Model> {
    let decoder = Decoder::from_config(c, names, NormKind::Rms, &LLAMA)?;
    let (hidden, bias) = (decoder.hidden, c.bool_or("attention_bias", false)?);
    let factor = |key: &str| Ok::<_, crate::error::Error>(c.opt_f64(key)?.unwrap_or(1.0));
    let (residual, scale, scaling) =
        (factor("residual_multiplier")?, factor("attention_multiplier")?, factor("logits_scaling")?);
    if scaling == 0.0 {
        return Err(c.wrong("logits_scaling", "is 0, by which logits would be divided"));
    }
    let sizes = Sizes::from_config(c, decoder.layers, &["num_local_experts", "num_experts"], &["intermediate_size"])?;
    let layers = (0..decoder.layers).map(|i| {
        let mut attention = decoder.attention(i, bias);
        attention.scale = scale;
        let prefix = format!("{}block_sparse_moe.", decoder.layer(i));
        let mut moe = experts::separate(&prefix, hidden, sizes, Scoring::new(Score::Chosen, Divisor::One));
        moe.router.linear = Linear::new(&format!("{prefix}router.layer"), sizes.num_experts, hidden, false);
        let [both, down] = ["input_linear", "output_linear"].map(|name| format!("{prefix}{name}.weight"));
        moe.experts = experts::stacked(&both, &down, hidden, sizes);
        let mut layer = decoder.block(i, Mixer::Attention(Box::new(attention)), Ffn::Moe(Box::new(moe)));
        layer.mixer.iter_mut().for_each(|mixer| mixer.factor = residual);
        layer.ffn.iter_mut().for_each(|ffn| ffn.factor = residual);
        layer
    });
    let mut model = decoder.model("granitemoe", layers.collect());
    model.embedding_factor = factor("embedding_multiplier")?;
    model.logit_factor = 1.0 / scaling;
    Ok(model)
}
