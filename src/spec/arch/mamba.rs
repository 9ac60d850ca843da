//! Mamba-2 as configs of hybrids describe it, and what each of their layers is.

use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::{Linear, Mamba2, Norm, TensorSpec};
use crate::vocabulary::NormKind;

/// What a layer with a single sublayer has there.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Mamba,
    Attention,
    Dense,
    Mixture,
}

/// What each layer is: by letters, or by words where transformers 5 wrote the config.
pub fn kinds(c: &Config) -> Result<Vec<Kind>> {
    let kinds = match (c.opt_str("hybrid_override_pattern")?, c.opt_list_str("layers_block_type")?) {
        (Some(letters), _) => {
            let kind = |letter| match letter {
                'M' => Ok(Kind::Mamba),
                '*' => Ok(Kind::Attention),
                '-' => Ok(Kind::Dense),
                'E' => Ok(Kind::Mixture),
                _ => Err(c.wrong("hybrid_override_pattern", &format!("has '{letter}'; known are M, *, - and E"))),
            };
            letters.chars().map(kind).collect::<Result<Vec<_>>>()?
        }
        (None, Some(words)) => {
            let kind = |word: &String| match word.as_str() {
                "linear_attention" | "mamba" => Ok(Kind::Mamba),
                "full_attention" | "attention" => Ok(Kind::Attention),
                "mlp" => Ok(Kind::Dense),
                "moe" => Ok(Kind::Mixture),
                word => Err(c.wrong("layers_block_type", &format!("has \"{}\"", shown(word)))),
            };
            words.iter().map(kind).collect::<Result<Vec<_>>>()?
        }
        (None, None) => return Err(c.absent("hybrid_override_pattern", "it says what each layer is")),
    };
    match c.opt_usize("num_hidden_layers")? {
        Some(layers) if layers != kinds.len() => {
            Err(c.wrong("num_hidden_layers", &format!("is {layers}, and {} layers are described", kinds.len())))
        }
        _ => Ok(kinds),
    }
}

/// A Mamba-2 whose tensors are called `{name}in_proj` and so on, in a model of this hidden size.
pub fn mamba2(c: &Config, name: &str, hidden: usize, eps: f64) -> Result<Mamba2> {
    let named = |part: &str| format!("{name}{part}");
    let (heads, head_dim) = (c.size("mamba_num_heads")?, c.size("mamba_head_dim")?);
    let (groups, state) = (c.size("n_groups")?, c.size("ssm_state_size")?);
    if !heads.is_multiple_of(groups) {
        return Err(c.wrong("n_groups", &format!("is {groups}, which does not divide {heads} heads")));
    }
    let bias = c.bool_or("use_bias", false)?;
    let (inner, channels) = (heads * head_dim, heads * head_dim + 2 * groups * state);
    let kernel = c.opt_usize("conv_kernel")?.unwrap_or(4);
    Ok(Mamba2 {
        heads,
        head_dim,
        groups,
        state,
        input: Linear::new(&named("in_proj"), inner + channels + heads, hidden, bias),
        conv: TensorSpec::new(named("conv1d.weight"), [channels, 1, kernel]),
        conv_bias: c.bool_or("use_conv_bias", true)?.then(|| TensorSpec::new(named("conv1d.bias"), [channels])),
        dt_bias: TensorSpec::new(named("dt_bias"), [heads]),
        a_log: TensorSpec::new(named("A_log"), [heads]),
        d: TensorSpec::new(named("D"), [heads]),
        norm: Norm::new(NormKind::Rms, &named("norm"), inner, eps),
        out: Linear::new(&named("out_proj"), hidden, inner, bias),
        min_step: c.opt_f64("time_step_min")?.unwrap_or(0.001),
    })
}
