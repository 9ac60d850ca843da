//! The observers of an extraction beside the ladders of norms, made from its options.

use candle_core::DType;

use super::observe::{
    AttentionSinksObserver, AttributionObserver, ExpertsObserver, HitSite, HitsObserver, LadderFold, MassiveObserver,
    Meeting, MomentsObserver, Observer, QuantilesObserver, QuantisationObserver, SuperWeightsObserver, TopObserver,
    WeightsObserver,
};
use crate::error::{Error, Result};
use crate::record::{
    MEASURES_VERSION, MassiveRule, Measure, MeasureArgs, Measures, Site, SiteId, SiteLadders, SuperWeight, Tokens,
};
use crate::spec::{Ffn, Model};
use crate::tensor::Device;
use crate::vocabulary::Order;
use crate::weights::OpenModel;
use crate::weights::load::Loader;

/// The number of largest values in a record, all sites of all layers together: as text they have a
/// hundred bytes each, and the header of a record may have 100 MB.
const MAX_TOP: usize = 1 << 19;

/// The observers that were asked for.
pub(super) struct Measuring<'a> {
    ladders: Vec<(Site, usize, LadderFold)>,
    moments: Option<MomentsObserver>,
    top: Option<TopObserver<'a>>,
    massive: Option<MassiveObserver<'a>>,
    attention_sinks: Option<AttentionSinksObserver>,
    experts: Option<ExpertsObserver<'a>>,
    quantisation_error: Option<QuantisationObserver>,
    super_weights: Option<SuperWeightsObserver<'a>>,
    hits: Option<HitsObserver<'a>>,
    weights: Option<WeightsObserver>,
    attribution: Option<AttributionObserver<'a>>,
    quantiles: Option<QuantilesObserver>,
    /// True if weights are also measured that the pass does not read.
    unread_weights: bool,
}

impl<'a> Measuring<'a> {
    /// # Errors
    /// `bad_argument` if the model has no such site, or nothing that a measurement is about.
    pub(super) fn new(model: &Model, tokens: &'a Tokens, args: &MeasureArgs, ladder: &[f32]) -> Result<Self> {
        let laddered = ladders(model, args)?;
        let args = &whole(model, args)?;
        let (sequences, positions) = (tokens.info.num_sequences, tokens.info.sequence_length);
        if let Some(position) = args.attributed_positions.iter().find(|position| **position >= positions) {
            return Err(Error::bad_argument(format!(
                "`attributed_positions` has {position}, and sequences have {positions} positions"
            ))
            .hint(format!("they count from 0 to {}", positions - 1)));
        }
        let asked = |measure: Measure| args.observe.contains(&measure);
        let fold = |Laddered { site, width, layers }: Laddered| {
            let sites: Vec<SiteId> = layers.into_iter().map(|layer| SiteId { layer, site }).collect();
            (site, width, LadderFold::new(ladder, &sites, sequences, positions, width))
        };
        Ok(Self {
            ladders: laddered.into_iter().map(fold).collect(),
            moments: asked(Measure::Moments).then(|| MomentsObserver::new(&args.sites, positions)),
            top: asked(Measure::Top).then(|| TopObserver::new(&args.sites, tokens, args.top)),
            massive: asked(Measure::Massive).then(|| MassiveObserver::new(tokens, &args.massive_rules)),
            attention_sinks: asked(Measure::AttentionSinks).then(AttentionSinksObserver::default),
            experts: asked(Measure::Experts).then(|| ExpertsObserver::new(tokens)),
            quantisation_error: asked(Measure::QuantisationError)
                .then(|| QuantisationObserver::new(&args.sites, positions, model.hidden_size, &args.dims)),
            super_weights: asked(Measure::SuperWeights).then(|| SuperWeightsObserver::new(tokens, dense_layers(model))),
            hits: asked(Measure::Hits)
                .then(|| HitsObserver::new(hit_sites(model, args), tokens, ladder, args.hits_from)),
            weights: asked(Measure::Weights).then(|| WeightsObserver::new(model)),
            unread_weights: args.unread_weights,
            attribution: asked(Measure::Attribution).then(|| AttributionObserver::new(model, tokens, args)),
            quantiles: asked(Measure::Quantiles).then(|| QuantilesObserver::new(&args.sites, positions)),
        })
    }

    pub(super) fn observers(&mut self) -> Vec<&mut dyn Observer> {
        fn of<'o>(observer: Option<&'o mut (impl Observer + 'o)>) -> Option<&'o mut dyn Observer> {
            observer.map(|observer| observer as &mut dyn Observer)
        }
        let ladders = self.ladders.iter_mut().map(|(_, _, ladder)| ladder as &mut dyn Observer);
        let rest = [
            of(self.moments.as_mut()),
            of(self.top.as_mut()),
            of(self.massive.as_mut()),
            of(self.attention_sinks.as_mut()),
            of(self.experts.as_mut()),
            of(self.quantisation_error.as_mut()),
            of(self.super_weights.as_mut()),
            of(self.hits.as_mut()),
            of(self.weights.as_mut()),
            of(self.attribution.as_mut()),
            of(self.quantiles.as_mut()),
        ];
        ladders.chain(rest.into_iter().flatten()).collect()
    }

    /// The measurements. Single weights of `model` are read for them.
    pub(super) fn finish(self, model: &OpenModel) -> Result<(Vec<SiteLadders>, Measures)> {
        let of_site = |(site, width, ladder): (Site, usize, LadderFold)| {
            let layers = ladder.sites().iter().map(|at| at.layer).collect();
            let (all, without_first, non_finite) = ladder.finish();
            SiteLadders { site, width, layers, all, without_first, non_finite }
        };
        let ladders = self.ladders.into_iter().map(of_site).collect();
        let meetings = self.super_weights.map(SuperWeightsObserver::finish).unwrap_or_default();
        let super_weights = meetings.into_iter().map(|meeting| super_weight(model, meeting)).collect::<Result<_>>()?;
        let (hits, token_texts) = self.hits.map(HitsObserver::finish).unwrap_or_default();
        let weights = self.weights.map(|weights| weights.finish(model, self.unread_weights)).transpose()?;
        let (weights, unread_weights) = weights.unwrap_or_default();
        let mut measures = Measures {
            version: MEASURES_VERSION,
            moments: self.moments.map(MomentsObserver::finish).unwrap_or_default(),
            top: self.top.map(TopObserver::finish).unwrap_or_default(),
            massive: self.massive.map(MassiveObserver::finish).unwrap_or_default(),
            attention_sinks: self.attention_sinks.map(AttentionSinksObserver::finish).unwrap_or_default(),
            experts: self.experts.map(ExpertsObserver::finish).unwrap_or_default(),
            quantisation_error: self.quantisation_error.map(QuantisationObserver::finish).unwrap_or_default(),
            super_weights,
            hits,
            token_texts,
            modules: Vec::new(),
            weights,
            unread_weights,
            attribution: self.attribution.map(AttributionObserver::finish),
            quantiles: self.quantiles.map(QuantilesObserver::finish).unwrap_or_default(),
        };
        if measures.is_empty() {
            measures = Measures::default();
        }
        let Measures { moments, quantisation_error, super_weights, .. } = &measures;
        if !(moments.is_empty() && quantisation_error.is_empty() && super_weights.is_empty()) {
            measures.modules = model.spec.module_inputs();
        }
        Ok((ladders, measures))
    }
}

/// The layers whose feed-forward network is the same for all tokens.
fn dense_layers(model: &Model) -> Vec<usize> {
    let dense = |layer: &usize| {
        let ffn = model.layers[*layer].ffn.as_ref();
        ffn.is_some_and(|ffn| matches!(ffn.body, Ffn::Dense(_)))
    };
    (0..model.layers.len()).filter(dense).collect()
}

/// The weight where the largest input and output of a layer meet. Its row is read again.
fn super_weight(model: &OpenModel, meeting: Meeting) -> Result<SuperWeight> {
    let Meeting { layer, expert, input, output, input_there } = meeting;
    let (row, column) = (output.dim, input.dim);
    let routed;
    // A checkpoint may come from another machine, and may name what is not there.
    let of_layer = model.spec.layers.get(layer).and_then(|layer| layer.ffn.as_ref());
    let down = match (of_layer.map(|ffn| &ffn.body), expert) {
        (Some(Ffn::Dense(mlp)), None) => &mlp.down,
        (Some(Ffn::Moe(moe)), Some(expert)) if expert < moe.num_experts => {
            routed = moe.experts.network(expert);
            &routed.down
        }
        _ => return Err(Error::corrupt(format!("super weights of a network that layer {layer} has not"))),
    };
    let (first, at) = match down.order {
        Order::OutIn => (row, column),
        Order::InOut => (column, row),
    };
    let inner = model.spec.site_width(SiteId { layer, site: Site::FfnMid });
    if row >= model.spec.hidden_size || inner.is_none_or(|inner| column >= inner) {
        return Err(Error::corrupt(format!("super weights at [{row}, {column}], which layer {layer} has not")));
    }
    let loader = Loader { checkpoint: &model.checkpoint, devices: &[Device::Cpu] };
    let values = loader.rows(&down.weight, first, 1, Some(DType::F32))?.remove(0).values()?;
    let weight = values.get(at).copied().unwrap_or(f32::NAN);
    let share = (f64::from(weight) * f64::from(input_there) / f64::from(output.value)) as f32;
    Ok(SuperWeight { layer, expert, input, output, weight, share })
}

/// A site that gets ladders of its own, and the layers that have it.
pub struct Laddered {
    pub site: Site,
    pub width: usize,
    pub layers: Vec<usize>,
}

/// The sites beside the norms that get ladders.
///
/// # Errors
/// `bad_argument` if the model has no such site, or nothing that a measurement is about.
pub fn ladders(model: &Model, args: &MeasureArgs) -> Result<Vec<Laddered>> {
    let args = whole(model, args)?;
    if !args.observe.contains(&Measure::Outliers) {
        return Ok(Vec::new());
    }
    let sites = args.sites.into_iter().filter(|site| !Site::NORMS.contains(site));
    let laddered = |site: Site| ladder_of(model, site).map(|(width, layers)| Laddered { site, width, layers });
    Ok(sites.filter_map(laddered).collect())
}

/// The sites whose hits are kept by token: those whose rows are positions.
fn hit_sites(model: &Model, args: &MeasureArgs) -> Vec<HitSite> {
    let of = |site: &Site| {
        let (width, layers) = ladder_of(model, *site)?;
        let wanted = if site.is_hidden() && width == model.hidden_size { args.dims.clone() } else { Vec::new() };
        Some(HitSite { site: *site, layers, wanted })
    };
    args.sites.iter().filter_map(of).collect()
}

/// The width of a site and the layers that have it, if its rows are positions and it has one width.
/// In a mixture the rows of `ffn_mid` are tokens of experts, which a ladder does not count.
fn ladder_of(model: &Model, site: Site) -> Option<(usize, Vec<usize>)> {
    let mut layers = model.layers_with(site);
    if site == Site::FfnMid {
        layers.retain(|(layer, _)| model.layers[*layer].moe().is_none());
    }
    let (_, width) = *layers.first()?;
    let same = layers.iter().all(|(_, other)| *other == width);
    same.then(|| (width, layers.into_iter().map(|(layer, _)| layer).collect()))
}

/// What is to be measured, with all that is meant by an empty list.
///
/// # Errors
/// `bad_argument`, with what the model has, if something is asked for that it has not.
pub(super) fn whole(model: &Model, args: &MeasureArgs) -> Result<MeasureArgs> {
    let has = |site: &Site| !model.layers_with(*site).is_empty();
    let mut args = args.clone();
    if args.massive_rules.is_empty() {
        args.massive_rules.push(MassiveRule::PAPER);
    }
    if args.sites.is_empty() {
        args.sites = Site::ALL.into_iter().filter(has).collect();
    }
    if args.observe.is_empty() {
        args.observe = Measure::ALL.to_vec();
        args.observe.retain(|measure| match measure {
            Measure::Experts => model.experts().0 > 0,
            Measure::AttentionSinks => has(&Site::Q),
            _ => true,
        });
    }
    // The norms are recorded whether a layer has one for both parts or two.
    if let Some(site) = args.sites.iter().find(|site| !Site::NORMS.contains(site) && !has(site)) {
        let there: Vec<&str> = Site::ALL.iter().filter(|site| has(site)).map(|site| site.name()).collect();
        return Err(Error::bad_argument(format!("{} has no site {}", model.model_type, site.name()))
            .hint(format!("its sites are {}", there.join(", "))));
    }
    if args.observe.contains(&Measure::Top) {
        let places: usize = args.sites.iter().map(|site| model.layers_with(*site).len()).sum();
        let most = MAX_TOP / places.max(1);
        if args.top > most {
            return Err(Error::bad_argument(format!(
                "`top` is {}, and a record of {places} sites of layers has at most {most} values of each",
                args.top
            ))
            .hint(format!("give a smaller `top`, or name fewer sites: {MAX_TOP} values fit into a record")));
        }
    }
    if let Some(dim) = args.dims.iter().find(|dim| **dim >= model.hidden_size) {
        return Err(Error::bad_argument(format!(
            "`dims` has {dim}, and the model has {} dimensions",
            model.hidden_size
        ))
        .hint(format!("they count from 0 to {}", model.hidden_size - 1)));
    }
    if args.observe.contains(&Measure::Experts) && model.experts().0 == 0 {
        return Err(Error::bad_argument(format!("{} has no experts to observe", model.model_type))
            .hint("leave \"experts\" out of `observe`"));
    }
    if args.observe.contains(&Measure::AttentionSinks) && model.layers_with(Site::Q).is_empty() {
        return Err(Error::bad_argument(format!(
            "{} has no attention whose sinks could be observed",
            model.model_type
        ))
        .hint("leave \"attention_sinks\" out of `observe`"));
    }
    Ok(args)
}
