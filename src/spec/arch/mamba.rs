//! Mamba-2 in the configs of hybrids, and the kind of each of their layers.

use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::spec::{Linear, Mamba2, Norm, TensorSpec};
use crate::vocabulary::NormKind;

/// The sublayer of a layer that has only one.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Mamba,
    Attention,
    Dense,
    Mixture,
}

/// The kind of each layer, from a list of words, as transformers 5 writes it, or from letters. The
/// words have precedence.
pub(super) fn kinds(c: &Config) -> Result<Vec<Kind>> {
    let by_words = c.opt_list_str("layers_block_type")?.map(|words| by_words(c, &words)).transpose()?;
    let by_letters = c.opt_str("hybrid_override_pattern")?.map(|letters| by_letters(c, &letters)).transpose()?;
    let kinds = match (by_words, by_letters) {
        (Some(words), letters) => {
            if letters.is_some_and(|letters| letters != words) {
                let says = "says something else than `layers_block_type`; as in transformers, the latter counts";
                c.tell("hybrid_override_pattern", says);
            }
            words
        }
        (None, Some(letters)) => letters,
        (None, None) => return Err(c.absent("hybrid_override_pattern", "it says what each layer is")),
    };
    if let Some(layers) = c.opt_usize("num_hidden_layers")?.filter(|layers| *layers != kinds.len()) {
        let says =
            format!("is {layers}, but {} layers are described; as in transformers, the latter count", kinds.len());
        c.tell("num_hidden_layers", &says);
    }
    match kinds.is_empty() {
        true => Err(c.wrong("hybrid_override_pattern", "describes no layer")),
        false => Ok(kinds),
    }
}

fn by_letters(c: &Config, letters: &str) -> Result<Vec<Kind>> {
    let kind = |letter| match letter {
        'M' => Ok(Kind::Mamba),
        '*' => Ok(Kind::Attention),
        '-' => Ok(Kind::Dense),
        'E' => Ok(Kind::Mixture),
        _ => Err(c.uncomputed("hybrid_override_pattern", &format!("has '{letter}'; known are M, *, - and E"))),
    };
    letters.chars().map(kind).collect()
}

fn by_words(c: &Config, words: &[String]) -> Result<Vec<Kind>> {
    let kind = |word: &String| match word.as_str() {
        "linear_attention" | "mamba" => Ok(Kind::Mamba),
        "full_attention" | "attention" => Ok(Kind::Attention),
        "mlp" => Ok(Kind::Dense),
        "moe" => Ok(Kind::Mixture),
        word => Err(c.wrong("layers_block_type", &format!("has \"{}\"", shown(word)))),
    };
    words.iter().map(kind).collect()
}

/// Older names of settings, which have precedence, with the newer ones.
const RENAMED: &[(&str, &str)] = &[
    ("mamba_n_groups", "n_groups"),
    ("mamba_d_conv", "conv_kernel"),
    ("mamba_conv_bias", "use_conv_bias"),
    ("mamba_dt_min", "time_step_min"),
];
/// All older names, also of settings that no layer needs.
pub(super) const OLDER: &[&str] = &[
    "mamba_n_groups",
    "mamba_d_conv",
    "mamba_conv_bias",
    "mamba_dt_min",
    "mamba_expand",
    "mamba_dt_max",
    "mamba_dt_limit",
    "mamba_dt_init_floor",
    "mamba_chunk_size",
];

/// The key under which a config has the setting `name`.
fn spelled<'a>(c: &Config, name: &'a str) -> &'a str {
    RENAMED.iter().find(|(old, new)| *new == name && c.has(old)).map_or(name, |(old, _)| old)
}

/// A Mamba-2 mixer whose tensors have the names `{name}in_proj` and so on, for this hidden size.
pub(super) fn mamba2(c: &Config, name: &str, hidden: usize, eps: f64) -> Result<Mamba2> {
    let named = |part: &str| format!("{name}{part}");
    let (heads, head_dim) = (c.size("mamba_num_heads")?, c.size("mamba_head_dim")?);
    let (groups, state) = (c.size(spelled(c, "n_groups"))?, c.size("ssm_state_size")?);
    if !heads.is_multiple_of(groups) {
        return Err(c.wrong("n_groups", &format!("is {groups}, which does not divide {heads} heads")));
    }
    let bias = c.bool_or("use_bias", false)?;
    let (inner, channels) = (heads * head_dim, heads * head_dim + 2 * groups * state);
    let kernel = c.opt_usize(spelled(c, "conv_kernel"))?.unwrap_or(4);
    Ok(Mamba2 {
        heads,
        head_dim,
        groups,
        state,
        input: Linear::new(&named("in_proj"), inner + channels + heads, hidden, bias),
        conv: TensorSpec::new(named("conv1d.weight"), [channels, 1, kernel]),
        conv_bias: c
            .bool_or(spelled(c, "use_conv_bias"), true)?
            .then(|| TensorSpec::new(named("conv1d.bias"), [channels])),
        dt_bias: TensorSpec::new(named("dt_bias"), [heads]),
        a_log: TensorSpec::new(named("A_log"), [heads]),
        d: TensorSpec::new(named("D"), [heads]),
        norm: Norm::new(NormKind::Rms, &named("norm"), inner, eps),
        out: Linear::new(&named("out_proj"), hidden, inner, bias),
        min_step: c.opt_f64(spelled(c, "time_step_min"))?.unwrap_or(0.001),
    })
}
