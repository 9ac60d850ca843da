//! Finds how the weights of a described model are stored, one by one, from the headers of the
//! files, or from the settings if there is a config alone. Experts are described one by one or as a
//! stack, as the files have them.

use std::collections::HashSet;
use std::sync::Arc;

use super::arch::Names;
use super::inventory;
use super::leaves::{Leaves, Role};
use super::quantised;
use super::{Experts, Ffn, Layer, Linear, Mlp, Model, Moe, Sublayer, TensorSpec};
use crate::error::{Error, Result};
use crate::formats::{self, Headers, Look, Settings};
use crate::vocabulary::Order;

/// Endings of the name of a projection that has tensors of its own.
const OWN: &[&str] = &[".weight", ".weight_packed", ".qweight"];
/// What stands behind the name of a stack whose codes do not have its own.
const OWN_STACK: &[&str] = &["_packed", ".qweight"];

/// Returns the model with the coding of each weight.
///
/// # Errors
/// The errors of the formats: a weight in codes that are not read, or whose tensors do not fit each
/// other or the settings.
pub(super) fn resolve(mut model: Model, names: &dyn Names, settings: &Settings) -> Result<Model> {
    if let Some((headers, _)) = names.headers() {
        model.layers = model.layers.into_iter().map(|layer| follow(layer, headers)).collect();
    } else if settings.method().is_none() {
        return Ok(model);
    }
    let known: HashSet<String> = inventory::tensors(&model).into_iter().map(|(tensor, _)| tensor.name).collect();
    let scaled = names.headers().is_some_and(|(headers, _)| formats::has_scales(headers, known.iter()));
    let mut resolver = Resolver { names, settings, known: &known, scaled, error: None };
    let outside = [&mut model.embedding, &mut model.head];
    for weight in outside.into_iter().chain(model.positions.iter_mut().map(|positions| &mut positions.weight)) {
        *weight = resolver.outside(weight);
    }
    for linear in [&mut model.project_in, &mut model.project_out].into_iter().flatten() {
        *linear = linear.map(Role::ToResidual, &mut |weight: &TensorSpec, role| resolver.weight(weight, role));
    }
    model.layers = model.layers.iter().map(|layer| resolver.layer(layer)).collect();
    resolver.error.map_or(Ok(model), Err)
}

struct Resolver<'a> {
    names: &'a dyn Names,
    settings: &'a Settings,
    /// The names of all weights, as if none were quantised.
    known: &'a HashSet<String>,
    /// Whether some of them have scales.
    scaled: bool,
    /// The first error, because a walk over weights cannot end early.
    error: Option<Error>,
}

impl Resolver<'_> {
    fn layer(&mut self, layer: &Layer) -> Layer {
        let mut layer = layer.map(&mut |weight, role| self.weight(weight, role));
        if let Some(Sublayer { body: Ffn::Moe(moe), .. }) = &mut layer.ffn {
            moe.experts = Arc::new(self.experts(&moe.experts));
        }
        layer
    }

    fn experts(&mut self, experts: &Experts) -> Experts {
        let mut mlp = |mlp: &Mlp| mlp.map(&mut |weight, role| self.weight(weight, role));
        match experts {
            Experts::Separate(mlps) => Experts::Separate(mlps.iter().map(mlp).collect()),
            Experts::Stacked(stack) => Experts::Stacked(mlp(stack)),
        }
    }

    /// The embedding, head and positions. They are quantised only if the files have them so; the
    /// settings alone are not enough.
    fn outside(&mut self, weight: &TensorSpec) -> TensorSpec {
        match self.names.headers() {
            Some(_) => self.weight(weight, Role::ToResidual),
            None => weight.clone(),
        }
    }

    fn weight(&mut self, weight: &TensorSpec, role: Role) -> TensorSpec {
        if weight.shape.len() < 2 || self.error.is_some() {
            return weight.clone();
        }
        let look = |headers, place| Look {
            name: &weight.name,
            shape: &weight.shape,
            headers,
            settings: self.settings,
            model: self.known,
            scaled: self.scaled,
            place,
        };
        let found = match self.names.headers() {
            Some((headers, place)) => formats::find(&look(headers, place)),
            // Releases do not quantise small projections, such as gates with one output.
            None if role.in_f32() || weight.loaded_shape()[0] == 1 => Ok(None),
            None => Ok(formats::expected(&look(&Vec::new(), self.settings.place()))),
        };
        match found {
            Ok(coding) => TensorSpec { coding, ..weight.clone() },
            Err(error) => {
                let beside = self.names.headers().filter(|(headers, _)| headers.header(&weight.name).is_some());
                let unread = beside.and_then(|(headers, place)| {
                    let method = quantised::method(&weight.name, &|name| headers.header(name).is_some())?;
                    Some(quantised::stored(&format!("{place}: the weight `{}`", weight.name), method))
                });
                self.error = Some(unread.unwrap_or(error));
                weight.clone()
            }
        }
    }
}

/// Returns the layer with its experts one by one or as a stack, if the files have them otherwise
/// than the architecture's release in bf16. Plain stacks, in files of an architecture whose experts
/// have tensors of their own, are taken apart when they are read.
fn follow(mut layer: Layer, headers: &dyn Headers) -> Layer {
    if let Some(Sublayer { body: Ffn::Moe(moe), .. }) = &mut layer.ffn
        && let Some(experts) = apart(moe, headers).or_else(|| together(moe, headers))
    {
        moe.experts = Arc::new(experts);
    }
    layer
}

/// Separate experts, `{prefix}experts.{e}.{gate,up,down}_proj`, in place of a stack with the gates
/// above the ups.
fn apart(moe: &Moe, headers: &dyn Headers) -> Option<Experts> {
    let Experts::Stacked(stack) = &*moe.experts else { return None };
    let gate = stack.gate.as_ref()?;
    let prefix = gate.weight.name.strip_suffix("gate_up_proj")?;
    let own = |e: usize, name: &str| format!("{prefix}{e}.{name}");
    let there = |name: String| OWN.iter().any(|ending| headers.header(&format!("{name}{ending}")).is_some());
    if headers.header(&gate.weight.name).is_some() || !there(own(0, "gate_proj")) {
        return None;
    }
    let [.., hidden, inner] = down_sizes(&stack.down)?;
    let expert = |e| {
        let linear = |name: &str, out, input| Linear::new(&own(e, name), out, input, false);
        Mlp {
            gate: Some(linear("gate_proj", inner, hidden)),
            up: linear("up_proj", inner, hidden),
            down: linear("down_proj", hidden, inner),
            activation: stack.activation,
            xielu: None,
        }
    };
    Some(Experts::Separate((0..moe.num_experts).map(expert).collect()))
}

/// The numbers of outputs and inputs of the matrices of a stack, in this order whatever the stored
/// order is.
fn down_sizes(down: &Linear) -> Option<[usize; 2]> {
    let [_, first, second] = down.weight.shape[..] else { return None };
    Some(if down.order == Order::OutIn { [first, second] } else { [second, first] })
}

/// Two stacks of codes, `experts.gate_up_proj` and `experts.down_proj`, in place of separate
/// experts.
fn together(moe: &Moe, headers: &dyn Headers) -> Option<Experts> {
    let Experts::Separate(experts) = &*moe.experts else { return None };
    let first = experts.first()?;
    let (gate, up, down) = (first.gate.as_ref()?, &first.up.weight, &first.down.weight);
    let prefix = moe.router.linear.weight.name.strip_suffix("gate.weight")?;
    let [both, out] = ["gate_up_proj", "down_proj"].map(|name| format!("{prefix}experts.{name}"));
    let packed = |name: &str| OWN_STACK.iter().any(|ending| headers.header(&format!("{name}{ending}")).is_some());
    let coded = |name: &str| match headers.header(name) {
        Some(header) => !formats::is_plain(header.dtype),
        None => packed(name),
    };
    if !coded(&both) || !coded(&out) || headers.header(&gate.weight.name).is_some() {
        return None;
    }
    let [inner, hidden] = up.shape[..] else { return None };
    let count = moe.num_experts;
    let linear = |weight| Linear { weight, bias: None, order: Order::OutIn, rounding: None };
    let both = TensorSpec::new(both, [count, 2 * inner, hidden]);
    Some(Experts::Stacked(Mlp {
        gate: Some(linear(both.rows(0, inner))),
        up: linear(both.rows(inner, inner)),
        down: linear(TensorSpec::new(out, [count, down.shape[0], down.shape[1]])),
        activation: first.activation,
        xielu: None,
    }))
}
