//! Names of sites, such as `layers.3.input_layernorm`, as values of scripts: strings that have the
//! fields `layer` and `site`.

use rhai::{Engine, INT, ImmutableString};

use crate::error::Error;
use crate::host::language::problem::{ScriptResult, throw};

pub(crate) fn register(engine: &mut Engine) {
    engine.register_get("layer", |name: &mut ImmutableString| -> ScriptResult<INT> {
        parts(name).map(|(layer, _)| layer).ok_or_else(|| no_site("layer", name))
    });
    engine.register_get("site", |name: &mut ImmutableString| -> ScriptResult<ImmutableString> {
        parts(name).map(|(_, site)| site.into()).ok_or_else(|| no_site("site", name))
    });
}

/// Layer and site of a name; None for any other text.
fn parts(name: &str) -> Option<(INT, &str)> {
    let (layer, site) = name.strip_prefix("layers.")?.split_once('.')?;
    let is_number = !layer.is_empty() && layer.bytes().all(|digit| digit.is_ascii_digit());
    let is_site = site.starts_with(|c: char| c.is_ascii_lowercase())
        && site.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c));
    if is_number && is_site { Some((layer.parse().ok()?, site)) } else { None }
}

fn no_site(field: &str, text: &str) -> Box<rhai::EvalAltResult> {
    let message = format!("a value of type string has no field `{field}`: {text:.40?} is not the name of a site");
    throw(
        Error::bad_argument(message)
            .hint("names of sites have it, such as acts.norms[0] or \"layers.3.input_layernorm\""),
    )
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn names_of_sites_have_two_parts() {
        assert_eq!(parts("layers.3.input_layernorm"), Some((3, "input_layernorm")));
        assert_eq!(parts("layers.12.ffn_mid.expert.5"), Some((12, "ffn_mid.expert.5")));
        for text in ["", "layers", "layers.3", "layers.3.", "layers..x", "layers.-1.x", "layers.3.Some text", "x.3.y"] {
            assert_eq!(parts(text), None, "{text}");
        }
    }
}
