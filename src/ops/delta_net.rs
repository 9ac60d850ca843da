//! What a gated delta rule is given beside its queries, keys and values.

use crate::tensor::Tensor;

/// The heads of a gated delta rule and what decides how fast they forget.
pub struct DeltaNet<'a> {
    pub positions: usize,
    pub heads: usize,
    /// Heads that share a key.
    pub group: usize,
    /// [sequences * positions, 2 * heads]: for each key, beta of its group before the sigmoid, then what drives the decay.
    pub beta_and_decay: &'a Tensor,
    /// Logarithm of the rate of decay, [heads].
    pub a_log: &'a Tensor,
    /// Added to what drives the decay, [heads].
    pub dt_bias: &'a Tensor,
}
