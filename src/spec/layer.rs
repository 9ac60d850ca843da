//! A decoder layer: a token mixer and a feed-forward network on the residual stream.

use super::ffn::{Ffn, Moe};
use super::linear::{Linear, Norm};
use super::mixer::{Mixer, Qkv};
use super::weight::TensorSpec;
use crate::vocabulary::Activation;

/// A decoder layer, most often x += mixer(norm(x)); x += ffn(norm(x)).
#[derive(Clone, Debug)]
pub struct Layer<W = TensorSpec> {
    /// The token mixer: attention or a part in its place. Some hybrids have layers without one.
    pub mixer: Option<Sublayer<Mixer<W>, W>>,
    pub ffn: Option<Sublayer<Ffn<W>, W>>,
    /// True if both read the stream before either is added to it: x += mixer(norm(x)) +
    /// ffn(norm(x)) (GPT-J).
    pub parallel: bool,
    /// The contribution of the token's embedding for this layer, which is added after both.
    pub embedding_gate: Option<EmbeddingGate<W>>,
    /// A final factor of the stream, [1] (Gemma 4).
    pub scalar: Option<W>,
}

/// x += norm(up(activation(gate(x)) * e)), where e is the token's embedding for this layer
/// (`LayerEmbeddings`).
#[derive(Clone, Debug)]
pub struct EmbeddingGate<W = TensorSpec> {
    /// A projection from the hidden size to the size of e.
    pub gate: Linear<W>,
    pub activation: Activation,
    pub up: Linear<W>,
    pub norm: Norm<W>,
}

/// A mixer or a feed-forward network, with what it reads from the residual stream and how its
/// output is added.
#[derive(Clone, Debug)]
pub struct Sublayer<B, W = TensorSpec> {
    pub reads: Reads<W>,
    pub body: B,
    /// The norm of the output, applied before the addition (OLMo 2, Gemma 2).
    pub write_norm: Option<Norm<W>>,
    /// The factor of the output (Granite).
    pub factor: f64,
    /// The norm of the sum, which replaces the stream (OPT-350m).
    pub sum_norm: Option<Norm<W>>,
}

impl<B> Sublayer<B> {
    /// x += body(norm(x)).
    pub fn new(norm: Norm, body: B) -> Self {
        Self::reading(Reads::Norm(norm), body)
    }

    /// x += body(reads).
    pub fn reading(reads: Reads, body: B) -> Self {
        Self { reads, body, write_norm: None, factor: 1.0, sum_norm: None }
    }
}

impl<B, W> Sublayer<B, W> {
    /// Whether the output is added to the stream as it is.
    pub fn is_plain(&self) -> bool {
        self.write_norm.is_none() && self.sum_norm.is_none() && self.factor == 1.0
    }
}

/// The input of a sublayer.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum Reads<W = TensorSpec> {
    /// A norm of the residual stream.
    Norm(Norm<W>),
    /// The input of the mixer of the same layer: both have one norm (GPT-J, Falcon).
    AsMixer,
    /// The residual stream itself (OLMo 2).
    Stream,
}

impl<W> Layer<W> {
    /// The earlier layer whose keys and values the attention uses, if it has none of its own.
    pub fn borrows(&self) -> Option<usize> {
        match &self.mixer.as_ref()?.body {
            Mixer::Attention(attention) => match attention.qkv {
                Qkv::Borrowed { from, .. } => Some(from),
                _ => None,
            },
            _ => None,
        }
    }
}

impl Layer {
    /// x += mixer(reads); x += ffn(reads), with nothing after them.
    pub fn of(mixer: Option<Sublayer<Mixer>>, ffn: Option<Sublayer<Ffn>>) -> Self {
        Self { mixer, ffn, parallel: false, embedding_gate: None, scalar: None }
    }

    /// The same layer with `factor` on what both sublayers add.
    pub fn with_factor(mut self, factor: f64) -> Self {
        if let Some(mixer) = &mut self.mixer {
            mixer.factor = factor;
        }
        if let Some(ffn) = &mut self.ffn {
            ffn.factor = factor;
        }
        self
    }

    /// x += mixer(norm(x)); x += ffn(norm(x)), each with a norm of its own.
    pub fn of_two_norms([mixer_norm, ffn_norm]: [Norm; 2], mixer: Mixer, ffn: Ffn) -> Self {
        let (mixer, ffn) = (Sublayer::new(mixer_norm, mixer), Sublayer::new(ffn_norm, ffn));
        Self::of(Some(mixer), Some(ffn))
    }

    /// x += norm(mixer(norm(x))); x += norm(ffn(norm(x))), with the norms in the order of
    /// computation.
    pub fn of_four_norms([before, mixed, between, fed]: [Norm; 4], mixer: Mixer, ffn: Ffn) -> Self {
        let (mut mixer, mut ffn) = (Sublayer::new(before, mixer), Sublayer::new(between, ffn));
        (mixer.write_norm, ffn.write_norm) = (Some(mixed), Some(fed));
        Self::of(Some(mixer), Some(ffn))
    }

    /// x += mixer(norm(x)) + ffn(norm(x)), with the same norm.
    pub fn of_one_norm(norm: Norm, mixer: Mixer, ffn: Ffn) -> Self {
        let (mixer, ffn) = (Sublayer::new(norm, mixer), Sublayer::reading(Reads::AsMixer, ffn));
        Self { parallel: true, ..Self::of(Some(mixer), Some(ffn)) }
    }

    /// x = norm(x + mixer(x)); x = norm(x + ffn(x)).
    pub fn of_sum_norms([mixer_norm, ffn_norm]: [Norm; 2], mixer: Mixer, ffn: Ffn) -> Self {
        let (mut mixer, mut ffn) = (Sublayer::reading(Reads::Stream, mixer), Sublayer::reading(Reads::Stream, ffn));
        (mixer.sum_norm, ffn.sum_norm) = (Some(mixer_norm), Some(ffn_norm));
        Self::of(Some(mixer), Some(ffn))
    }

    /// The weights of the layer that a pass needs. Without `ffn`, the norm before the feed-forward
    /// network stays, because observers see its output, and what follows it is left out.
    pub fn needed(&self, ffn: bool) -> Self {
        let mut needed = self.clone();
        if let (Some(sublayer), false) = (&mut needed.ffn, ffn) {
            (sublayer.body, sublayer.write_norm, sublayer.sum_norm) = (Ffn::NotNeeded, None, None);
            needed.embedding_gate = None;
        }
        needed
    }

    /// The experts, if the feed-forward network is a mixture.
    pub fn moe(&self) -> Option<&Moe> {
        match &self.ffn.as_ref()?.body {
            Ffn::Moe(moe) => Some(moe),
            _ => None,
        }
    }
}
