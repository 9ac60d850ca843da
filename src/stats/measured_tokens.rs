//! Checks the tokens with hits of a record, which may come from a file or a machine.

use super::count::check_count;
use crate::error::{Error, Result};
use crate::record::{Activations, DimHits, SiteHits, TokenHits, TokenTexts};

/// Checks that tokens with hits belong to the record, each once, and have a number for each layer.
pub(super) fn check_hits(acts: &Activations, of: &SiteHits) -> Result<()> {
    let damaged = |what: &str| Err(Error::corrupt(format!("{what} of hits at {}", of.site.name())));
    if of.layers.iter().any(|layer| *layer >= acts.num_layers) || of.layers.windows(2).any(|two| two[0] >= two[1]) {
        return damaged("layers");
    }
    let all = acts.num_sequences.saturating_mul(acts.sequence_length);
    for DimHits { count, tokens, .. } in &of.dims {
        let TokenHits { token, value, layer, rungs } = tokens;
        check_count("values of tokens with hits", value.len(), token.len())?;
        check_count("layers of tokens with hits", layer.len(), token.len())?;
        check_count("tokens with hits", token.len(), *count)?;
        check_count("rungs of hits", rungs.len(), token.len().saturating_mul(of.layers.len()))?;
        if token.windows(2).any(|two| two[0] >= two[1]) || token.last().is_some_and(|last| *last as usize >= all) {
            return damaged("tokens");
        }
        if rungs.iter().any(|rungs| usize::from(*rungs) > acts.ladder.len()) || value.iter().any(|x| !x.is_finite()) {
            return damaged("values");
        }
    }
    Ok(())
}

/// Checks that the texts of tokens are parts of one text, one behind the other.
pub(super) fn check_texts(acts: &Activations, texts: &TokenTexts) -> Result<()> {
    let all = acts.num_sequences.saturating_mul(acts.sequence_length);
    check_count("ids of tokens", texts.ids.len(), all)?;
    if texts.ends.is_empty() && texts.text.is_empty() {
        return Ok(());
    }
    check_count("texts of tokens", texts.ends.len(), all)?;
    let cut = texts.ends.iter().all(|end| texts.text.is_char_boundary(*end as usize));
    let whole = texts.ends.last().is_some_and(|end| *end as usize == texts.text.len());
    let climbs = texts.ends.windows(2).all(|two| two[0] <= two[1]);
    if cut && whole && climbs { Ok(()) } else { Err(Error::corrupt("texts of tokens do not follow each other")) }
}
