//! The tokens with hits in the file of a record: `hits.SITE.DIM.token` (u32), `.value` (f32) and
//! `.layer` (u16) for each token with a hit, `.rungs` (u8, [tokens, layers of the site]), and of
//! all tokens `tokens.ids` (u32), `tokens.text` (UTF-8) and `tokens.ends` (u32).

use super::packed::{self, Packed, Unpacked};
use crate::record::{Activations, DimHits, Measures, Site, TokenHits, TokenTexts};

fn name(site: Site, dim: usize, part: &str) -> String {
    format!("hits.{}.{dim}.{part}", site.name())
}

pub(super) fn pack(packed: &mut Packed, measures: &Measures) {
    for of in &measures.hits {
        for DimHits { dim, tokens, .. } in &of.dims {
            packed.numbers(name(of.site, *dim, "token"), &tokens.token);
            packed.numbers(name(of.site, *dim, "value"), &tokens.value);
            packed.numbers(name(of.site, *dim, "layer"), &tokens.layer);
            packed.numbers(name(of.site, *dim, "rungs"), &tokens.rungs);
        }
    }
    if let Some(texts) = &measures.token_texts {
        packed.numbers("tokens.ids".to_string(), &texts.ids);
        packed.numbers("tokens.text".to_string(), texts.text.as_bytes());
        packed.numbers("tokens.ends".to_string(), &texts.ends);
    }
}

pub(super) fn unpack(tensor: &packed::Tensor, acts: &mut Activations) -> Unpacked<()> {
    let all = acts.num_sequences.checked_mul(acts.sequence_length);
    for of in &mut acts.measures.hits {
        let layers = of.layers.len();
        for DimHits { dim, count, tokens, .. } in &mut of.dims {
            let read = |part: &str| name(of.site, *dim, part);
            // A token has one row at most.
            let count = Some(*count).filter(|count| all.is_some_and(|all| *count <= all));
            *tokens = TokenHits {
                token: packed::read_numbers(tensor, &read("token"), count)?,
                value: packed::read_numbers(tensor, &read("value"), count)?,
                layer: packed::read_numbers(tensor, &read("layer"), count)?,
                rungs: packed::read_numbers(tensor, &read("rungs"), count.and_then(|count| count.checked_mul(layers)))?,
            };
        }
    }
    if let Some(texts) = &mut acts.measures.token_texts {
        let bytes = packed::read_numbers(tensor, "tokens.text", Some(texts.bytes))?;
        let text = String::from_utf8(bytes).map_err(|e| format!("`tokens.text` is not UTF-8: {e}"))?;
        let ends = packed::read_numbers(tensor, "tokens.ends", if texts.bytes == 0 { Some(0) } else { all })?;
        *texts = TokenTexts { ids: packed::read_numbers(tensor, "tokens.ids", all)?, bytes: texts.bytes, text, ends };
    }
    Ok(())
}
