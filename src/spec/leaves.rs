//! The leaves of a model: what the weight at each of them does, and the one walk over them.

/// What a weight does; decides the precision it is kept in and how a synthetic one is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Weight of the norm whose output the mixer reads.
    AttnNorm,
    /// Weight of the norm whose output the feed-forward network reads.
    FfnNorm,
    /// Any other norm weight.
    OtherNorm,
    NormBias,
    /// Projection that reads what the mixer reads.
    FromAttnIn,
    /// Projection that reads what the feed-forward network reads.
    FromFfnIn,
    /// Projection between others of the same sublayer.
    Inner,
    /// Projection whose output is added to the residual stream.
    ToResidual,
    Router,
    Bias,
    Sinks,
    Conv,
    ALog,
    DtBias,
    CorrectionBias,
    /// A factor on the whole stream.
    StreamFactor,
    /// A number, or a few, that some function is made with.
    Parameter,
}

impl Role {
    /// Whether −∞ has a meaning: it enters as its exponential, 0, or is added to scores of which
    /// the largest are chosen.
    pub fn may_be_minus_infinity(self) -> bool {
        matches!(self, Role::ALog | Role::DtBias | Role::Sinks | Role::CorrectionBias)
    }

    /// Kept in f32 whatever the compute dtype: small, and either scale factors or decisive for
    /// routing.
    pub fn in_f32(self) -> bool {
        !matches!(self, Role::FromAttnIn | Role::FromFfnIn | Role::Inner | Role::ToResidual)
    }
}

/// A part of a model with weights `W`.
///
/// What is read, what is counted and what synthetic models have is one walk over the description of
/// a part; what was read takes its place in the loaded part by the same walk again. So nothing is
/// looked up by its name.
pub trait Leaves<W> {
    /// The same part with other weights.
    type With<U>;

    /// Puts `f` of each weight in its place.
    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Self::With<U>;
}
