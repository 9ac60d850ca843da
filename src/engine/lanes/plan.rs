//! The lanes of a pass, made from what was asked for and checked against the model, before anything
//! is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::variant::{Variant, twice};
use crate::error::{Error, Result};
use crate::record::{
    BASELINE, CHANGEABLE, Change, Dims, ExtractArgs, Lane, MAX_LANES, NewValue, Places, Site, SiteId, Tokens,
};
use crate::spec::Model;

/// The longest name of a lane.
const MAX_NAME: usize = 80;

/// All lanes beside the model as it is.
pub(in crate::engine) struct LanePlan {
    /// Lane 1 is the first.
    pub lanes: Vec<Arc<Planned>>,
    /// Whether the attention of changed inputs is computed layer by layer.
    pub attention_top1: bool,
}

/// One lane.
pub(in crate::engine) struct Planned {
    pub name: String,
    /// Its changes, with the features that were drawn.
    pub changes: Vec<Change>,
    /// The first layer whose input or computation differs; the number of layers if only the output
    /// of the last one does.
    pub first: usize,
    pub variant: Variant,
    edits: BySite,
    experts_off: BTreeMap<usize, BTreeSet<usize>>,
}

/// A change of values at a site.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Edit {
    pub what: What,
    /// The positions that change; None for all.
    pub positions: Option<BTreeSet<usize>>,
}

#[derive(Clone, Debug)]
pub(in crate::engine) enum What {
    Features { to: NewValue, dims: Vec<usize> },
    ZeroBeyond(f32),
    Elements { to: NewValue, elements: Vec<[usize; 3]> },
}

/// The edits of a lane by site.
type BySite = BTreeMap<SiteId, Vec<Edit>>;

impl Edit {
    pub(super) fn needs_means(&self) -> bool {
        match &self.what {
            What::Features { to, .. } | What::Elements { to, .. } => *to == NewValue::Mean,
            What::ZeroBeyond(_) => false,
        }
    }
}

impl Planned {
    pub(super) fn edits_at(&self, at: SiteId) -> &[Edit] {
        self.edits.get(&at).map_or(&[], Vec::as_slice)
    }

    pub(super) fn experts_off(&self, layer: usize) -> &BTreeSet<usize> {
        static NONE: BTreeSet<usize> = BTreeSet::new();
        self.experts_off.get(&layer).unwrap_or(&NONE)
    }

    /// Whether it changes what is at this site.
    pub(in crate::engine) fn changes_at(&self, at: SiteId) -> bool {
        self.edits.contains_key(&at)
    }
}

impl LanePlan {
    /// None if no lanes were asked for.
    ///
    /// # Errors
    /// `bad_argument` if a change is not possible in this model and these tokens, or contradicts
    /// another, and if a lane changes nothing.
    pub(in crate::engine) fn new(model: &Model, tokens: &Tokens, args: &ExtractArgs) -> Result<Option<Self>> {
        let of = (tokens.info.num_sequences, tokens.info.sequence_length);
        planned(model, of, args)
    }

    /// Sites of which lanes need means of the model as it is, besides the residual stream.
    pub(super) fn averaged(&self) -> BTreeSet<SiteId> {
        let edits = self.lanes.iter().flat_map(|lane| &lane.edits);
        let averaged = edits.filter(|(at, edits)| at.site != Site::ResidPost && edits.iter().any(Edit::needs_means));
        averaged.map(|(at, _)| *at).collect()
    }

    /// Lanes that are computed together, because they use the same weights, in the order in which
    /// they begin.
    pub(super) fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (i, lane) in self.lanes.iter().enumerate() {
            match groups.iter_mut().find(|group| self.lanes[group[0]].variant == lane.variant) {
                Some(group) => group.push(i),
                None => groups.push(vec![i]),
            }
        }
        groups.iter_mut().for_each(|group| group.sort_by_key(|lane| (self.lanes[*lane].first, *lane)));
        groups
    }
}

/// Checks lanes against a model and the number and length of its sequences.
pub fn check_lanes(model: &Model, of: (usize, usize), args: &ExtractArgs) -> Result<()> {
    planned(model, of, args).map(drop)
}

fn planned(model: &Model, of: (usize, usize), args: &ExtractArgs) -> Result<Option<LanePlan>> {
    let asked = &args.lanes;
    if asked.lanes.is_empty() {
        return match asked.attention_top1 {
            true => Err(bad("`attention_top1` is about lanes, and there are none", "add lanes: [#{ name, changes }]")),
            false => Ok(None),
        };
    }
    if !args.logits {
        return Err(bad("lanes are compared by what the model's head computes", "add logits: true"));
    }
    if model.layer_embeddings.is_some() {
        let message = format!("{} adds embeddings in every layer, which lanes do not compute", model.model_type);
        return Err(bad(message, "leave `lanes` out for this model"));
    }
    if asked.lanes.len() > MAX_LANES {
        return Err(bad(
            format!("{} lanes are too many for one pass", asked.lanes.len()),
            format!("at most {MAX_LANES}"),
        ));
    }
    let mut names = BTreeSet::from([BASELINE]);
    let mut lanes = Vec::new();
    for lane in &asked.lanes {
        let name = lane.name.trim();
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(bad(
                "a lane has no name, or a long one",
                format!("give it a name of at most {MAX_NAME} bytes"),
            ));
        }
        if !names.insert(name) {
            let hint = format!("give each its own; \"{BASELINE}\" is the model as it is");
            return Err(bad(format!("two lanes are called {name:?}"), hint));
        }
        lanes.push(Arc::new(of_lane(model, of, lane)?));
    }
    let attention = |lane: &Arc<Planned>| lane.edits.keys().any(|at| at.site == Site::AttnIn);
    if asked.attention_top1 && !lanes.iter().any(attention) {
        return Err(bad("`attention_top1` is about lanes that change attn_in, and none does", "leave it out"));
    }
    Ok(Some(LanePlan { lanes, attention_top1: asked.attention_top1 }))
}

fn bad(message: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::bad_argument(message).hint(hint)
}

fn of_lane(model: &Model, of: (usize, usize), lane: &Lane) -> Result<Planned> {
    let checked = Checked { model, sequences: of.0, positions: of.1, name: &lane.name };
    let mut planned = Planned {
        name: lane.name.trim().to_string(),
        changes: Vec::new(),
        first: usize::MAX,
        variant: Variant::default(),
        edits: BySite::new(),
        experts_off: BTreeMap::new(),
    };
    for change in &lane.changes {
        checked.add(&mut planned, change)?;
    }
    if planned.changes.is_empty() {
        return Err(checked.bad("changes nothing", "lane 0 of every pass is the model as it is: leave this one out"));
    }
    checked.contradictions(&planned)?;
    Ok(planned)
}

/// What a lane is checked against.
struct Checked<'a> {
    model: &'a Model,
    sequences: usize,
    positions: usize,
    name: &'a str,
}

impl Checked<'_> {
    fn bad(&self, message: impl std::fmt::Display, hint: impl Into<String>) -> Error {
        bad(format!("lane {:?} {message}", self.name), hint)
    }

    /// Adds a change, unless it makes no difference.
    fn add(&self, lane: &mut Planned, change: &Change) -> Result<()> {
        let mut resolved = change.clone();
        match &mut resolved {
            Change::Features { to, dims, at } => {
                let chosen = self.dims(dims)?;
                if let NewValue::Given(values) = to
                    && (values.len() != chosen.len() || values.iter().any(|value| !value.is_finite()))
                {
                    let message = format!("has {} values for {} features", values.len(), chosen.len());
                    return Err(self.bad(message, "give a finite number for each of `dims`"));
                }
                if matches!(to, NewValue::Scale(factor) if !factor.is_finite()) {
                    return Err(self.bad("scales by what is no number", "give a finite `factor`"));
                }
                if chosen.is_empty() || *to == NewValue::Scale(1.0) {
                    return Ok(());
                }
                *dims = Dims::Given(chosen.clone());
                self.at(lane, at, &What::Features { to: to.clone(), dims: chosen })?;
            }
            Change::ZeroBeyond { threshold, at } => {
                if !(*threshold > 0.0 && threshold.is_finite()) {
                    return Err(self.bad(format!("has a threshold of {threshold}"), "give a number above 0"));
                }
                self.at(lane, at, &What::ZeroBeyond(*threshold))?;
            }
            Change::Elements { to, layer, elements } => {
                self.layers(&[*layer])?;
                let inside =
                    |[s, t, d]: &[usize; 3]| *s < self.sequences && *t < self.positions && *d < self.model.hidden_size;
                if let Some(outside) = elements.iter().find(|element| !inside(element)) {
                    let most = [self.sequences, self.positions, self.model.hidden_size].map(|count| count - 1);
                    return Err(self.bad(
                        format!("has the element {outside:?}, and the last one is {most:?}"),
                        "an element is [sequence, position, dimension], counted from 0",
                    ));
                }
                if let Some(element) = twice(elements) {
                    return Err(self.bad(format!("names the element {element:?} twice"), "once is enough"));
                }
                if elements.is_empty() {
                    return Ok(());
                }
                let what = What::Elements { to: to.clone(), elements: elements.clone() };
                self.edit(lane, SiteId { layer: *layer, site: Site::ResidPost }, Edit { what, positions: None });
            }
            Change::ZeroWeight(place) => {
                self.layers(&[place.layer])?;
                lane.variant.zero(self.model, place).map_err(|(message, hint)| self.bad(message, hint))?;
                lane.first = lane.first.min(place.layer);
            }
            Change::ExpertsOff { layer, experts } => {
                self.layers(&[*layer])?;
                let Some(moe) = self.model.layers[*layer].moe() else {
                    return Err(self.bad(
                        format!("switches off experts of layer {layer} of {}, which has none", self.model.model_type),
                        "name a layer with experts",
                    ));
                };
                if let Some(expert) = experts.iter().find(|expert| **expert >= moe.num_experts) {
                    let message = format!("switches off expert {expert}, and layer {layer} has {}", moe.num_experts);
                    return Err(self.bad(message, "experts count from 0"));
                }
                if let Some(expert) = twice(experts) {
                    return Err(self.bad(format!("names expert {expert} twice"), "once is enough"));
                }
                if experts.is_empty() {
                    return Ok(());
                }
                lane.experts_off.entry(*layer).or_default().extend(experts.iter());
                lane.first = lane.first.min(*layer);
            }
            Change::RoundActivations { format, layers } => {
                for layer in self.all_or(layers)? {
                    if lane.variant.activations.insert(layer, *format).is_some() {
                        return Err(
                            self.bad(format!("rounds the activations of layer {layer} twice"), "once is enough")
                        );
                    }
                    lane.first = lane.first.min(layer);
                }
            }
            Change::RoundWeights { format, layers } => {
                for layer in self.all_or(layers)? {
                    if lane.variant.weights.insert(layer, *format).is_some() {
                        return Err(self.bad(format!("rounds the weights of layer {layer} twice"), "once is enough"));
                    }
                    lane.first = lane.first.min(layer);
                }
            }
        }
        lane.changes.push(resolved);
        Ok(())
    }

    fn edit(&self, lane: &mut Planned, at: SiteId, edit: Edit) {
        // A change of what leaves a layer concerns the next one.
        let first = if at.site == Site::ResidPost { at.layer + 1 } else { at.layer };
        lane.first = lane.first.min(first);
        lane.edits.entry(at).or_default().push(edit);
    }

    /// Adds a change at all of these places.
    fn at(&self, lane: &mut Planned, places: &Places, what: &What) -> Result<()> {
        let Places { sites, layers, positions } = places;
        self.layers(layers)?;
        if let Some(position) = positions.iter().find(|position| **position >= self.positions) {
            let message = format!("has position {position}, and a sequence has {}", self.positions);
            return Err(self.bad(message, "positions count from 0"));
        }
        if let Some(position) = twice(positions) {
            return Err(self.bad(format!("names position {position} twice"), "once is enough"));
        }
        let names = || CHANGEABLE.map(Site::short_name).join(", ");
        if sites.is_empty() {
            return Err(self.bad("names no site", format!("its `sites` may be {}", names())));
        }
        let positions = (!positions.is_empty()).then(|| positions.iter().copied().collect::<BTreeSet<_>>());
        for site in sites.iter().copied().collect::<BTreeSet<_>>() {
            if !CHANGEABLE.contains(&site) {
                return Err(self.bad(format!("changes {}", site.short_name()), format!("lanes change {}", names())));
            }
            let has = |layer: &usize| self.model.site_width(SiteId { layer: *layer, site }).is_some();
            let chosen: Vec<usize> = match layers.is_empty() {
                true => (0..self.model.layers.len()).filter(has).collect(),
                false => layers.clone(),
            };
            if let Some(without) = chosen.iter().find(|layer| !has(layer)) {
                let message = format!("changes {} of layer {without}, which has none", site.short_name());
                return Err(self.bad(message, "leave the layer out"));
            }
            if chosen.is_empty() {
                let message = format!("changes {}, and no layer of this model has one of its own", site.short_name());
                return Err(self.bad(message, "both parts of its layers read attn_in: change that"));
            }
            for layer in chosen {
                if site == Site::FfnIn && self.reads_elsewhere(layer) {
                    let message = format!("changes ffn_in of layer {layer}, whose experts have a norm of their own");
                    return Err(self.bad(message, "change attn_in or resid_post in this model"));
                }
                self.edit(lane, SiteId { layer, site }, Edit { what: what.clone(), positions: positions.clone() });
            }
        }
        Ok(())
    }

    /// Whether experts or router read the stream by norms of their own.
    fn reads_elsewhere(&self, layer: usize) -> bool {
        let moe = self.model.layers[layer].moe();
        moe.is_some_and(|moe| moe.router.norm.is_some() || moe.expert_norm.is_some() || moe.sum_norm.is_some())
    }

    fn layers(&self, layers: &[usize]) -> Result<()> {
        let count = self.model.layers.len();
        match layers.iter().find(|layer| **layer >= count) {
            Some(layer) => {
                Err(self.bad(format!("has layer {layer}, and the model has {count}"), "layers count from 0"))
            }
            None => match twice(layers) {
                Some(layer) => Err(self.bad(format!("names layer {layer} twice"), "once is enough")),
                None => Ok(()),
            },
        }
    }

    fn all_or(&self, layers: &[usize]) -> Result<BTreeSet<usize>> {
        self.layers(layers)?;
        Ok(match layers.is_empty() {
            true => (0..self.model.layers.len()).collect(),
            false => layers.iter().copied().collect(),
        })
    }

    /// The features, ascending if they are drawn.
    fn dims(&self, dims: &Dims) -> Result<Vec<usize>> {
        let hidden = self.model.hidden_size;
        let (Dims::Given(named) | Dims::Random { except: named, .. }) = dims;
        if let Some(dim) = named.iter().find(|dim| **dim >= hidden) {
            let message = format!("has dimension {dim}, and the model has {hidden}");
            return Err(self.bad(message, format!("they count from 0 to {}", hidden - 1)));
        }
        if let Some(dim) = twice(named) {
            return Err(self.bad(format!("names dimension {dim} twice"), "once is enough"));
        }
        let Dims::Random { count, seed, except } = dims else { return Ok(named.clone()) };
        let mut pool: Vec<usize> = (0..hidden).filter(|dim| !except.contains(dim)).collect();
        if *count > pool.len() {
            let message = format!("draws {count} features of {}", pool.len());
            return Err(self.bad(message, "draw fewer, or leave fewer out by `except`"));
        }
        let drawn = rand::seq::index::sample(&mut ChaCha8Rng::seed_from_u64(*seed), pool.len(), *count);
        let chosen: BTreeSet<usize> = drawn.into_iter().map(|i| pool[i]).collect();
        pool.retain(|dim| chosen.contains(dim));
        Ok(pool)
    }

    /// Two changes that give one value something else each.
    fn contradictions(&self, lane: &Planned) -> Result<()> {
        for (at, edits) in &lane.edits {
            for (i, edit) in edits.iter().enumerate() {
                if let Some(dim) = edits[..i].iter().find_map(|earlier| both_change(earlier, edit)) {
                    let place = format!("{} of layer {}", at.site.short_name(), at.layer);
                    return Err(self.bad(
                        format!("changes dimension {dim} in {place} twice"),
                        "two changes of one value contradict each other: let each have its own features, layers or positions",
                    ));
                }
                let beyond = |edit: &Edit| matches!(edit.what, What::ZeroBeyond(_));
                if beyond(edit) && edits[..i].iter().any(beyond) {
                    let message = format!("has two thresholds at {} of layer {}", at.site.short_name(), at.layer);
                    return Err(self.bad(message, "the lower one is enough"));
                }
            }
        }
        Ok(())
    }
}

/// A dimension that both change at the same position.
fn both_change(a: &Edit, b: &Edit) -> Option<usize> {
    let dims = |edit: &Edit| -> Vec<(Option<usize>, usize)> {
        match &edit.what {
            What::Features { dims, .. } => dims.iter().map(|dim| (None, *dim)).collect(),
            What::Elements { elements, .. } => elements.iter().map(|[_, t, dim]| (Some(*t), *dim)).collect(),
            What::ZeroBeyond(_) => Vec::new(),
        }
    };
    let apart = match (&a.positions, &b.positions) {
        (Some(a), Some(b)) => a.is_disjoint(b),
        _ => false,
    };
    let (first, second) = (dims(a), dims(b));
    let elements = [a, b].iter().all(|edit| matches!(edit.what, What::Elements { .. }));
    if elements {
        let (What::Elements { elements: x, .. }, What::Elements { elements: y, .. }) = (&a.what, &b.what) else {
            return None;
        };
        return x.iter().find(|element| y.contains(element)).map(|[_, _, dim]| *dim);
    }
    let meets = |t: &Option<usize>, edit: &Edit| match (t, &edit.positions) {
        (Some(t), Some(positions)) => positions.contains(t),
        _ => true,
    };
    let same =
        |(t, dim): &(Option<usize>, usize)| second.iter().any(|(u, other)| other == dim && meets(t, b) && meets(u, a));
    if apart { None } else { first.iter().find(|one| same(one)).map(|(_, dim)| *dim) }
}
