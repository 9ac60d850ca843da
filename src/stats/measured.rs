//! Checks what a record has beside the ladders of norms. It may come from a file or a machine.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use super::count::check_count;
use super::measured_tokens::{check_hits, check_texts};
use crate::error::{Error, Result};
use crate::record::{
    Activations, AttributedValue, Channels, Experts, MEASURES_VERSION, Massive, Measure, MeasureArgs, Measures,
    Moments, QUANTILE_LEVELS, Site, SiteId, Top, TopValue,
};

/// Checks that a record has no sites and measurements but those that were asked for.
///
/// # Errors
/// `corrupt` for others.
pub fn check_asked(acts: &Activations, args: &MeasureArgs) -> Result<()> {
    let Measures {
        version: _,
        moments,
        top,
        massive,
        attention_sinks,
        experts,
        quantisation_error,
        super_weights,
        hits,
        token_texts,
        modules,
        weights,
        unread_weights,
        attribution,
        quantiles,
    } = &acts.measures;
    // An empty list is all that the model has.
    let asked = |measure: Measure| args.observe.is_empty() || args.observe.contains(&measure);
    let at = |site: Site| args.sites.is_empty() || args.sites.contains(&site);
    let ladders = |site: Site| at(site) && !Site::NORMS.contains(&site);
    let holds = [
        ("ladders", Measure::Outliers, acts.sites.is_empty(), acts.sites.iter().all(|of| ladders(of.site))),
        ("moments", Measure::Moments, moments.is_empty(), moments.iter().all(|of| at(of.at.site))),
        ("largest values", Measure::Top, top.is_empty(), top.iter().all(|of| at(of.at.site))),
        ("massive activations", Measure::Massive, massive.is_empty(), true),
        ("attention sinks", Measure::AttentionSinks, attention_sinks.is_empty(), true),
        ("experts", Measure::Experts, experts.is_empty(), true),
        (
            "quantisation errors",
            Measure::QuantisationError,
            quantisation_error.is_empty(),
            quantisation_error.iter().all(|of| at(of.at.site)),
        ),
        ("super weights", Measure::SuperWeights, super_weights.is_empty(), true),
        ("tokens with hits", Measure::Hits, hits.is_empty(), hits.iter().all(|of| at(of.site))),
        ("texts of tokens", Measure::Hits, token_texts.is_none(), true),
        ("weights", Measure::Weights, weights.is_empty() && unread_weights.is_empty(), true),
        ("writes", Measure::Attribution, attribution.is_none(), true),
        ("quantiles", Measure::Quantiles, quantiles.is_empty(), quantiles.iter().all(|of| at(of.at.site))),
    ];
    let other = |what: &str| Err(Error::corrupt(format!("{what} that nobody has asked for")));
    if let Some((what, ..)) =
        holds.into_iter().find(|(_, measure, none, of_sites)| !(*none || asked(*measure) && *of_sites))
    {
        return other(what);
    }
    let with_modules = [Measure::Moments, Measure::QuantisationError, Measure::SuperWeights];
    match modules.is_empty() || with_modules.into_iter().any(asked) {
        true => Ok(()),
        false => other("linear layers"),
    }
}

fn once<T: Copy + Eq + Hash + Debug>(what: &str, mut keys: impl Iterator<Item = T>) -> Result<()> {
    let mut seen = HashSet::new();
    match keys.find(|key| !seen.insert(*key)) {
        Some(twice) => Err(Error::corrupt(format!("the {what} of {twice:?} are there twice"))),
        None => Ok(()),
    }
}

/// Checks that measurements belong to the model and its tokens, are there once, have as many
/// numbers as they say, and that their sums are finite.
pub(super) fn check_measures(acts: &Activations) -> Result<()> {
    let measures = &acts.measures;
    if !measures.is_empty() && measures.version != MEASURES_VERSION {
        let found = measures.version;
        return Err(Error::corrupt(format!("measurements of version {found}, this program has {MEASURES_VERSION}")));
    }
    let Measures { attention_sinks, quantisation_error, super_weights, modules, .. } = measures;
    let of = Model(acts);
    measures.moments.iter().try_for_each(|moments| of.moments(moments))?;
    once("moments", measures.moments.iter().map(|moments| moments.at))?;
    for Top { at, values } in &measures.top {
        of.layer("largest values", at.layer)?;
        values.iter().try_for_each(|value| of.value(Some(at.site), value))?;
    }
    once("largest values", measures.top.iter().map(|top| top.at))?;
    measures.massive.iter().try_for_each(|massive| of.massive(massive))?;
    once("massive activations", measures.massive.iter().map(|massive| massive.layer))?;
    attention_sinks.iter().try_for_each(|sinks| of.layer("attention sinks", sinks.layer))?;
    // A layer has those of the first positions and those of all.
    once("attention sinks", attention_sinks.iter().map(|sinks| (sinks.layer, sinks.positions)))?;
    quantisation_error.iter().try_for_each(|error| of.layer("quantisation errors", error.at.layer))?;
    once("quantisation errors", quantisation_error.iter().map(|error| error.at))?;
    modules.iter().try_for_each(|module| of.layer("linear layers", module.at.layer))?;
    once("linear layers", modules.iter().map(|module| &module.module).filter(|name| !name.is_empty()))?;
    for weight in super_weights {
        of.layer("super weights", weight.layer)?;
        of.value(None, &weight.input)?;
        of.value(Some(Site::FfnWrite), &weight.output)?;
    }
    once("super weights", super_weights.iter().map(|weight| weight.layer))?;
    for value in measures.attribution.iter().flat_map(|of| &of.values) {
        let AttributedValue { sequence, position, token_id, dim, layers, .. } = value;
        let (sequence, position, token_id, dim) = (*sequence, *position, *token_id, *dim);
        of.value(Some(Site::ResidPost), &TopValue { value: 0.0, sequence, position, token_id, dim, expert: None })?;
        layers.iter().try_for_each(|writes| of.layer("writes", writes.layer))?;
    }
    for quantiles in &measures.quantiles {
        of.layer("quantiles", quantiles.at.layer)?;
        check_count("quantiles", quantiles.values.len(), QUANTILE_LEVELS.len())?;
    }
    once("quantiles", measures.quantiles.iter().map(|quantiles| quantiles.at))?;
    measures.weights.iter().try_for_each(|weights| of.layer("weights", weights.layer.unwrap_or(0)))?;
    once("weights", measures.weights.iter().map(|weights| &weights.name))?;
    measures.hits.iter().try_for_each(|hits| check_hits(acts, hits))?;
    once("tokens with hits", measures.hits.iter().map(|hits| hits.site))?;
    measures.token_texts.iter().try_for_each(|texts| check_texts(acts, texts))?;
    measures.experts.iter().try_for_each(|experts| of.experts(experts))?;
    once("experts", measures.experts.iter().map(|experts| experts.layer))
}

/// What measurements must fit.
struct Model<'a>(&'a Activations);

impl Model<'_> {
    fn layer(&self, what: &str, layer: usize) -> Result<()> {
        match layer < self.0.num_layers {
            true => Ok(()),
            false => Err(Error::corrupt(format!("{what} of layer {layer} of {}", self.0.num_layers))),
        }
    }

    /// The width of a site, as far as the record knows it.
    fn width(&self, site: Site) -> Option<usize> {
        // The head of some models reads fewer numbers than the residual stream has.
        (site.is_hidden() && site != Site::FinalNorm).then_some(self.0.hidden_size)
    }

    fn value(&self, site: Option<Site>, value: &TopValue) -> Result<()> {
        let acts = self.0;
        let there = value.sequence < acts.num_sequences
            && value.position < acts.sequence_length
            && site.and_then(|site| self.width(site)).is_none_or(|width| value.dim < width)
            && value.expert.is_none_or(|expert| expert < acts.model.num_experts);
        if there { Ok(()) } else { Err(Error::corrupt(format!("a value at {value:?}"))) }
    }

    fn moments(&self, of: &Moments) -> Result<()> {
        let Moments { at, width, rows, channels, .. } = of;
        self.layer("moments", at.layer)?;
        let name = SiteId::name(*at);
        let Channels { max, min, sum, sum2, sumabs, sum3, sum4 } = channels;
        let expected = rows.len().saturating_mul(*width);
        for found in [max.len(), min.len(), sum.len(), sum2.len(), sumabs.len(), sum3.len(), sum4.len()] {
            check_count(&format!("channels of {name}"), found, expected)?;
        }
        let tokens = (self.0.num_sequences as u64).saturating_mul(self.0.sequence_length as u64);
        let fits = !rows.is_empty()
            && self.width(at.site).is_none_or(|of_site| of_site == *width)
            && rows.iter().all(|rows| *rows <= tokens);
        // Extremes of channels without any finite value are infinite.
        let numbers = max.iter().chain(min).all(|value| !value.is_nan())
            && [sum, sum3].iter().all(|sums| sums.iter().all(|sum| sum.is_finite()))
            && [sum2, sumabs, sum4].iter().all(|sums| sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0));
        match fits && numbers {
            true => Ok(()),
            false => Err(Error::corrupt(format!("moments of {name} that cannot be"))),
        }
    }

    fn massive(&self, of: &Massive) -> Result<()> {
        self.layer("massive activations", of.layer)?;
        let hidden = Some(Site::ResidPost);
        let mut values = of.activations.iter().flat_map(|of| &of.top);
        values.try_for_each(|value| self.value(hidden, &value.at))?;
        let dims = of.activations.iter().flat_map(|of| of.dims.iter().map(|dim| dim.dim));
        let sinks = of.sinks.iter().flat_map(|of| of.dims.iter().map(|dim| dim.dim));
        match dims.chain(sinks).find(|dim| *dim >= self.0.hidden_size) {
            Some(dim) => Err(Error::corrupt(format!("dimension {dim} of {}", self.0.hidden_size))),
            None => Ok(()),
        }
    }

    fn experts(&self, of: &Experts) -> Result<()> {
        self.layer("experts", of.layer)?;
        let count = of.tokens.len();
        if count > self.0.model.num_experts {
            return Err(Error::corrupt(format!("{count} experts of {}", self.0.model.num_experts)));
        }
        let Experts { gate_mass, output_absmax, output_absmax_at, reap, reap_softmax, .. } = of;
        let lists = [gate_mass.len(), output_absmax.len(), output_absmax_at.len(), reap.len(), reap_softmax.len()];
        lists.iter().try_for_each(|found| check_count("numbers of experts", *found, count))?;
        check_count("pairs of experts", of.coactivation.len(), count.saturating_mul(count))?;
        check_count("inputs of experts", of.input_sum2.len(), count.saturating_mul(self.0.hidden_size))?;
        output_absmax_at.iter().flatten().try_for_each(|value| self.value(None, value))
    }
}
