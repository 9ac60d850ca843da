//! The leaves of a model: the role of each weight, and the one walk over all weights.

/// The role of a weight. It decides the precision in which the weight is kept, and how a synthetic
/// one is drawn.
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
    /// A factor of the whole stream.
    StreamFactor,
    /// A parameter of some function, of one or a few numbers.
    Parameter,
}

impl Role {
    /// Whether −∞ has a meaning: the weight enters as its exponential, 0, or is added to scores of
    /// which the largest are chosen.
    pub fn may_be_minus_infinity(self) -> bool {
        matches!(self, Role::ALog | Role::DtBias | Role::Sinks | Role::CorrectionBias)
    }

    /// True if the weight is kept in f32 whatever the compute dtype is, because it is small and
    /// either a scale factor or decisive for routing.
    pub fn in_f32(self) -> bool {
        !matches!(self, Role::FromAttnIn | Role::FromFfnIn | Role::Inner | Role::ToResidual)
    }
}

/// A part of a model with weights `W`.
///
/// What is read, what is counted and what synthetic models have follows from one walk over the
/// description of a part. The weights that were read take their places in the loaded part by the
/// same walk. So nothing is looked up by its name.
pub trait Leaves<W> {
    /// The same part with weights of another type.
    type With<U>;

    /// Replaces each weight by `f` of it.
    fn map<U>(&self, f: &mut dyn FnMut(&W, Role) -> U) -> Self::With<U>;
}
