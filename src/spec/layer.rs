//! A decoder layer: a token mixer and a feed-forward network on the residual stream.

use super::ffn::{Ffn, Moe};
use super::linear::Norm;
use super::mixer::Mixer;
use super::weight::TensorSpec;

/// A decoder layer, most often x += mixer(norm(x)); x += ffn(norm(x)).
#[derive(Clone, Debug)]
pub struct Layer<W = TensorSpec> {
    /// Token mixer: attention or what stands in its place. Some hybrids have layers without.
    pub mixer: Option<Sublayer<Mixer<W>, W>>,
    pub ffn: Option<Sublayer<Ffn<W>, W>>,
    /// Both read the stream before either is added to it: x += mixer(norm(x)) + ffn(norm(x)) (GPT-J).
    pub parallel: bool,
    /// [1]: what the stream is multiplied with after both (Gemma 4).
    pub scalar: Option<W>,
}

/// A mixer or a feed-forward network between the stream that it reads and the stream that it is added to.
#[derive(Clone, Debug)]
pub struct Sublayer<B, W = TensorSpec> {
    pub reads: Reads<W>,
    pub body: B,
    /// Norm of its output, before that is added (OLMo 2, Gemma 2).
    pub write_norm: Option<Norm<W>>,
    /// What its output is multiplied with (Granite).
    pub factor: f64,
    /// Norm of the sum, in place of the stream (OPT-350m).
    pub sum_norm: Option<Norm<W>>,
}

impl<B> Sublayer<B> {
    /// x += body(norm(x)).
    pub fn new(norm: Norm, body: B) -> Self {
        Self::reading(Reads::Norm(norm), body)
    }

    /// x += body(what it reads).
    pub fn reading(reads: Reads, body: B) -> Self {
        Self { reads, body, write_norm: None, factor: 1.0, sum_norm: None }
    }
}

impl<B, W> Sublayer<B, W> {
    /// Whether its output is added to the stream as it is.
    pub fn is_plain(&self) -> bool {
        self.write_norm.is_none() && self.sum_norm.is_none() && self.factor == 1.0
    }
}

/// What a sublayer reads.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // one per layer
pub enum Reads<W = TensorSpec> {
    /// A norm of the residual stream.
    Norm(Norm<W>),
    /// What the mixer of the same layer reads: one norm for both (GPT-J, Falcon).
    AsMixer,
    /// The residual stream itself (OLMo 2).
    Stream,
}

impl Layer {
    /// The same with what both sublayers add multiplied with `factor`.
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
        Self { mixer: Some(mixer), ffn: Some(ffn), parallel: false, scalar: None }
    }

    /// x += mixer(norm(x)) + ffn(norm(x)), with the same norm.
    pub fn of_one_norm(norm: Norm, mixer: Mixer, ffn: Ffn) -> Self {
        let (mixer, ffn) = (Sublayer::new(norm, mixer), Sublayer::reading(Reads::AsMixer, ffn));
        Self { mixer: Some(mixer), ffn: Some(ffn), parallel: true, scalar: None }
    }

    /// x = norm(x + mixer(x)); x = norm(x + ffn(x)).
    pub fn of_sum_norms([mixer_norm, ffn_norm]: [Norm; 2], mixer: Mixer, ffn: Ffn) -> Self {
        let (mut mixer, mut ffn) = (Sublayer::reading(Reads::Stream, mixer), Sublayer::reading(Reads::Stream, ffn));
        (mixer.sum_norm, ffn.sum_norm) = (Some(mixer_norm), Some(ffn_norm));
        Self { mixer: Some(mixer), ffn: Some(ffn), parallel: false, scalar: None }
    }

    /// What a pass needs of the layer; without `ffn` the norm before the feed-forward network stays, since it is shown.
    pub fn needed(&self, ffn: bool) -> Self {
        let mut needed = self.clone();
        if let (Some(sublayer), false) = (&mut needed.ffn, ffn) {
            (sublayer.body, sublayer.write_norm, sublayer.sum_norm) = (Ffn::NotNeeded, None, None);
        }
        needed
    }

    /// The experts, where the feed-forward network is a mixture.
    pub fn moe(&self) -> Option<&Moe> {
        match &self.ffn.as_ref()?.body {
            Ffn::Moe(moe) => Some(moe),
            _ => None,
        }
    }
}
