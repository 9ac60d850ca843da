//! The two kinds of layers of Gemma 4, with a window and without: each has its heads and its rope.

use super::decoder::{head_count, sliding_window};
use crate::error::Result;
use crate::outside;
use crate::spec::config::{Config, shown};
use crate::spec::rope::{Rope, Scaling};
use crate::vocabulary::Pairs;

const SLIDING_WINDOW: usize = 512;
const GLOBAL_HEAD_DIM: usize = 512;
/// Of a head in `per_layer_config`; the widest that are released have 512 dimensions.
const MAX_WIDTH: u64 = 1 << 16;

/// What the layers of one kind have of their own.
pub(super) struct Kind {
    pub head_dim: usize,
    pub kv_heads: usize,
    pub key_is_value: bool,
    pub window: Option<usize>,
    pub rope: Rope,
}

/// Layers with a window, and layers without.
pub(super) fn kinds(c: &Config, heads: usize, full: &[bool]) -> Result<[Kind; 2]> {
    let head_dim = c.opt_usize("head_dim")?.unwrap_or(256);
    let kv_heads = head_count(c, "num_key_value_heads", c.size("num_key_value_heads")?, heads)?;
    let key_is_value = c.bool_or("attention_k_eq_v", false)?;
    let global_dim = c.opt_usize("global_head_dim")?.unwrap_or(GLOBAL_HEAD_DIM);
    let global_heads = c.opt_usize("num_global_key_value_heads")?.filter(|_| key_is_value).unwrap_or(kv_heads);
    let (global_dim, global_heads) = match overrides(c, full)? {
        Some([dim, count]) => (dim.unwrap_or(head_dim), count.unwrap_or(kv_heads)),
        None => (global_dim, global_heads),
    };
    head_count(c, "num_global_key_value_heads", global_heads, heads)?;
    for (key, dim) in [("head_dim", head_dim), ("global_head_dim", global_dim)] {
        if dim == 0 || dim % 2 != 0 {
            return Err(c.wrong(key, &format!("is {dim}, not an even number")));
        }
    }
    let (mut sliding, mut without) = ((10_000.0, None), (1_000_000.0, Some(0.25)));
    if let Some(ropes) = c.section("rope_parameters")? {
        for (key, of) in [("sliding_attention", &mut sliding), ("full_attention", &mut without)] {
            let Some(own) = ropes.section(key)? else {
                let problem =
                    format!("has no rope for `{key}`, without which transformers cannot make the model either");
                return Err(c.wrong("rope_parameters", &problem));
            };
            *of = rope_of_kind(&own, of.0)?;
            own.finish_section()?;
        }
        ropes.finish_section()?;
    }
    let rope = |(theta, share): (f64, Option<f64>), dim: usize| {
        let turning = share.map(|share| (share * dim as f64 / 2.0) as usize);
        let scaling = turning.map_or(Scaling::None, |turning| Scaling::Proportional { turning });
        Rope { theta, dim, divisor: dim, pairs: Pairs::Halves, scaling }
    };
    let window = sliding_window(c)?.or(Some(SLIDING_WINDOW));
    let (with, without) = (rope(sliding, head_dim), rope(without, global_dim));
    Ok([
        Kind { head_dim, kv_heads, key_is_value: false, window, rope: with },
        Kind { head_dim: global_dim, kv_heads: global_heads, key_is_value, window: None, rope: without },
    ])
}

/// Base of the angles of one kind of layers and, of a rope of the type `proportional`, the share of
/// a head that turns. An object that names no type has the type `default`, which turns all of a
/// head (transformers `standardize_rope_params`).
fn rope_of_kind(rope: &Config, theta: f64) -> Result<(f64, Option<f64>)> {
    let (kind, old) = (rope.opt_str("rope_type")?, rope.opt_str("type")?);
    for (key, counts) in [("rope_type", true), ("type", rope.missing("rope_type"))] {
        if counts && !rope.missing(key) && !rope.has(key) {
            return Err(rope.wrong(key, "is null, which is no kind of rope: transformers cannot make the model either"));
        }
    }
    let (theta, share) = (rope.opt_f64("rope_theta")?.unwrap_or(theta), rope.opt_f64("partial_rotary_factor")?);
    match kind.or(old).as_deref().unwrap_or("default") {
        "default" => Ok((theta, None)),
        "proportional" => {
            rope.only("factor", 1.0.into())?;
            Ok((theta, Some(share.unwrap_or(1.0))))
        }
        other => {
            let problem = format!("is \"{}\"; supported are default, proportional", outside::shown(other));
            Err(rope.uncomputed("rope_type", &problem))
        }
    }
}

/// Size and number of the key heads of layers without a window in `per_layer_config`, which
/// transformers 5 writes in place of `global_head_dim` and `num_global_key_value_heads`, and which
/// counts more: by number of layer what is not as in the others.
fn overrides(c: &Config, full: &[bool]) -> Result<Option<[Option<usize>; 2]>> {
    const KEY: &str = "per_layer_config";
    const NAMES: [&str; 2] = ["head_dim", "num_key_value_heads"];
    let Some(value) = c.get(KEY) else { return Ok(None) };
    let Some(layers) = value.as_object() else {
        return Err(c.wrong(KEY, &format!("is {}, expected an object", shown(value))));
    };
    let mut all = vec![[None; 2]; full.len()];
    for (layer, settings) in layers {
        let own = layer.parse().ok().and_then(|layer: usize| all.get_mut(layer));
        let (Some(own), Some(settings)) = (own, settings.as_object()) else {
            return Err(c.wrong(KEY, &format!("has \"{}\", no settings of one of the layers", outside::shown(layer))));
        };
        for (name, value) in settings {
            let at = NAMES.iter().position(|known| known == name);
            let number = value.as_u64().filter(|number| *number <= MAX_WIDTH).map(|number| number as usize);
            let (Some(at), Some(_)) = (at, number) else {
                let problem = format!("asks for `{}`: {} in a layer", outside::shown(name), shown(value));
                return Err(c.uncomputed(KEY, &format!("{problem}; supported are numbers for {}", NAMES.join(", "))));
            };
            own[at] = number;
        }
    }
    let of_kind = |kind| all.iter().zip(full).filter(move |(_, full)| **full == kind).map(|(own, _)| *own);
    let first = of_kind(true).next().unwrap_or_default();
    match of_kind(false).all(|own| own == [None; 2]) && of_kind(true).all(|own| own == first) {
        true => Ok(Some(first)),
        false => Err(c.uncomputed(KEY, "is not the same for all layers without a window, and nothing for the others")),
    }
}
