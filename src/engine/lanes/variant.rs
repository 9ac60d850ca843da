//! The weights of lanes that change them, and the rounding of what is multiplied with them, layer
//! by layer.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::rounding::{changed_weight, round_weight};
use crate::error::Result;
use crate::record::{ActivationFormat, InputRounding, WeightFormat, WeightPlace};
use crate::spec::{Layer, Linear, Mlp, Model};
use crate::tensor::Tensor;
use crate::vocabulary::Order;

/// The first that is there a second time.
pub(super) fn twice<T: Ord>(named: &[T]) -> Option<&T> {
    let mut known = BTreeSet::new();
    named.iter().find(|one| !known.insert(*one))
}

/// How the weights of a lane differ from those of the model. Zeroed weights are zeroed before all
/// are rounded.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::engine) struct Variant {
    /// By layer.
    pub activations: BTreeMap<usize, ActivationFormat>,
    pub weights: BTreeMap<usize, WeightFormat>,
    zeroed: Vec<WeightPlace>,
}

impl Variant {
    /// Adds a weight that is 0.
    ///
    /// # Errors
    /// A message and a hint if the model has no such weight, or several.
    pub(super) fn zero(&mut self, model: &Model, place: &WeightPlace) -> std::result::Result<(), (String, String)> {
        let mut layer = model.layers[place.layer].clone();
        let mut expert = match (place.expert, layer.moe()) {
            (Some(expert), Some(moe)) if expert < moe.num_experts => Some(moe.experts.network(expert)),
            (None, _) => None,
            (Some(expert), _) => {
                let message = format!("zeroes a weight of expert {expert}, and layer {} has none such", place.layer);
                return Err((message, "name an expert of the layer, or leave `expert` out".to_string()));
            }
        };
        let linears: Vec<&mut Linear> = match &mut expert {
            Some(expert) => expert.linears_mut(),
            None => layer.linears_mut(),
        };
        let names = linears.iter().map(|of| module(&of.weight.name).to_string()).collect::<Vec<_>>();
        let found: Vec<&Linear> = linears.into_iter().map(|of| &*of).filter(|of| is_named(of, &place.module)).collect();
        let [of] = found[..] else {
            let message = format!("zeroes a weight of {:?}, which names {} linear layers", place.module, found.len());
            return Err((message, format!("layer {} has {}", place.layer, names.join(", "))));
        };
        let [out, inputs] = sizes(of);
        if place.row >= out || place.column >= inputs {
            let message = format!("zeroes [{}, {}] of {}", place.row, place.column, module(&of.weight.name));
            return Err((message, format!("it has {out} rows (outputs) and {inputs} columns (inputs)")));
        }
        if self.zeroed.contains(place) {
            return Err(("zeroes a weight twice".to_string(), "once is enough".to_string()));
        }
        self.zeroed.push(place.clone());
        Ok(())
    }

    /// Whether a layer is computed otherwise than in the model.
    fn changes(&self, layer: usize) -> bool {
        let zeroed = || self.zeroed.iter().any(|place| place.layer == layer);
        self.activations.contains_key(&layer) || self.weights.contains_key(&layer) || zeroed()
    }

    /// True if inputs are rounded in some layer.
    pub(in crate::engine) fn rounds_inputs(&self) -> bool {
        !self.activations.is_empty()
    }

    /// The loaded layer `i` as it is computed for sequences of so many positions; None if that is
    /// as the model does. `spec` describes it.
    pub(in crate::engine) fn layer(
        &self,
        (i, spec): (usize, &Layer),
        loaded: &Layer<Tensor>,
        positions: usize,
    ) -> Result<Option<Layer<Tensor>>> {
        if !self.changes(i) {
            return Ok(None);
        }
        let (mut own, mut spec) = (loaded.clone(), spec.clone());
        for (of, spec) in own.linears_mut().into_iter().zip(spec.linears_mut()) {
            self.change((i, None), of, spec, positions)?;
        }
        Ok(Some(own))
    }

    /// The same for a routed expert.
    pub(in crate::engine) fn expert(
        &self,
        (i, expert): (usize, usize),
        spec: &Mlp,
        loaded: &Mlp<Tensor>,
        positions: usize,
    ) -> Result<Option<Mlp<Tensor>>> {
        if !self.changes(i) {
            return Ok(None);
        }
        let (mut own, mut spec) = (loaded.clone(), spec.clone());
        for (of, spec) in own.linears_mut().into_iter().zip(spec.linears_mut()) {
            self.change((i, Some(expert)), of, spec, positions)?;
        }
        Ok(Some(own))
    }

    fn change(
        &self,
        (layer, expert): (usize, Option<usize>),
        of: &mut Linear<Tensor>,
        spec: &Linear,
        positions: usize,
    ) -> Result<()> {
        let here =
            |place: &&WeightPlace| (place.layer, place.expert) == (layer, expert) && is_named(spec, &place.module);
        let zeroed: Vec<&WeightPlace> = self.zeroed.iter().filter(here).collect();
        if !zeroed.is_empty() {
            of.weight = changed_weight(of, |values, inputs| {
                zeroed.iter().for_each(|place| values[place.row * inputs + place.column] = 0.0);
            })?;
        }
        let mut exact = None;
        if let Some(format) = self.weights.get(&layer) {
            let rounded = changed_weight(of, |values, inputs| round_weight(*format, values, inputs))?;
            exact = Some(std::mem::replace(&mut of.weight, rounded));
        }
        if let Some(format) = self.activations.get(&layer) {
            let exact = exact.filter(|_| *format == ActivationFormat::Int8Decomposed);
            of.rounding = Some(Box::new(InputRounding { format: *format, rows: positions, exact }));
        }
        Ok(())
    }
}

/// The name of a weight's module.
fn module(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// Whether a linear layer has this name, or one that ends with it.
fn is_named(of: &Linear, name: &str) -> bool {
    let module = module(&of.weight.name);
    module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// Numbers of outputs and inputs.
fn sizes(of: &Linear) -> [usize; 2] {
    let shape = of.weight.loaded_shape();
    let [first, second] = [shape.first(), shape.get(1)].map(|size| size.copied().unwrap_or(0));
    match of.order {
        Order::OutIn => [first, second],
        Order::InOut => [second, first],
    }
}
