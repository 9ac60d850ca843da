//! The tensors of `activations.safetensors`: the sites, layers and sequences that it has.

use crate::error::{Error, Result};
use crate::record::{ExtractArgs, Site, SiteId, Tokens};
use crate::spec::Model;

/// What of all activations is written.
pub(super) struct KeptSites {
    /// Each site with its width, in the order of layers and sites.
    pub sites: Vec<(SiteId, usize)>,
    /// The sequences, ascending.
    pub sequences: Vec<usize>,
    pub positions: usize,
}

impl KeptSites {
    /// # Errors
    /// `bad_argument` for a site, layer or sequence that is not there, or rows of experts.
    pub(super) fn new(model: &Model, tokens: &Tokens, args: &ExtractArgs) -> Result<Self> {
        let measure = &args.measure;
        let every = measure.keep_sites.is_empty();
        let asked = |site: Site| every || measure.keep_sites.contains(&site);
        let in_layers = |layer: usize| measure.keep_layers.is_empty() || measure.keep_layers.contains(&layer);
        let numbers = [
            ("keep_layers", &measure.keep_layers, model.layers.len(), "layers"),
            ("keep_sequences", &measure.keep_sequences, tokens.info.num_sequences, "sequences"),
        ];
        for (option, numbers, count, what) in numbers {
            if let Some(number) = numbers.iter().find(|number| **number >= count) {
                return Err(Error::bad_argument(format!("`{option}` has {number}, and there are {count} {what}"))
                    .hint(format!("they count from 0 to {}", count - 1)));
            }
        }
        let norms = model.sublayer_sites().into_iter().map(|at| (at, model.hidden_size));
        let mut sites: Vec<(SiteId, usize)> = norms.filter(|(at, _)| asked(at.site) && in_layers(at.layer)).collect();
        for site in Site::ALL.into_iter().filter(|site| !Site::NORMS.contains(site) && asked(*site)) {
            let there = model.layers_with(site).into_iter().filter(|(layer, _)| in_layers(*layer));
            let (rows, routed): (Vec<_>, Vec<_>) =
                there.partition(|(layer, _)| site != Site::FfnMid || model.layers[*layer].moe().is_none());
            if !every && let (true, Some((layer, _))) = (rows.is_empty(), routed.first()) {
                return Err(Error::bad_argument(format!(
                    "`keep_sites` has {}, whose rows are those of experts in layer {layer}",
                    site.name()
                ))
                .hint("leave it out: files have a row for each position"));
            }
            sites.extend(rows.into_iter().map(|(layer, width)| (SiteId { layer, site }, width)));
        }
        sites.sort_by_key(|(at, _)| *at);
        if sites.is_empty() {
            let names: Vec<&str> = measure.keep_sites.iter().map(|site| site.name()).collect();
            return Err(Error::bad_argument(format!("keep: the layers that are kept have no {}", names.join(", ")))
                .hint("docs/sites.md says which layers have which sites"));
        }
        let mut sequences = match measure.keep_sequences.is_empty() {
            true => (0..tokens.info.num_sequences).collect(),
            false => measure.keep_sequences.clone(),
        };
        sequences.sort_unstable();
        sequences.dedup();
        Ok(Self { sites, sequences, positions: tokens.info.sequence_length })
    }

    /// The tensors of the file, with their shapes.
    pub(super) fn tensors(&self, model: &Model, tokens: &Tokens, args: &ExtractArgs) -> Vec<(String, Vec<usize>)> {
        let (s, t) = (tokens.info.num_sequences, self.positions);
        let of = |(at, width): &(SiteId, usize)| (at.name(), vec![self.sequences.len(), t, *width]);
        let mut tensors: Vec<_> = self.sites.iter().map(of).collect();
        if args.logits {
            tensors.push(("final_logits_last".to_string(), vec![s, model.vocab_size]));
            tensors.push(("mean_nll".to_string(), vec![if t > 1 { s } else { 0 }]));
        }
        tensors
    }

    /// Names of the tensors that are complete after `layers` layers. What the head reads is seen
    /// when it is computed, and again by a run that goes on there.
    pub(super) fn finished(&self, layers: usize) -> Vec<String> {
        let done = self.sites.iter().filter(|(at, _)| at.layer < layers && at.site != Site::FinalNorm);
        done.map(|(at, _)| at.name()).collect()
    }
}
