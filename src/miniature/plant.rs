//! Planted features: the norms whose weights are scaled at a dimension, and the factor.

use crate::spec::Role;

/// The scale of ordinary norm weights, which is so small that no other feature comes near the
/// threshold.
pub(super) const ORDINARY: f32 = 0.4;

/// A feature dimension whose norm weights are `scale` in a share of the layers.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    pub dim: usize,
    pub scale: f32,
    /// The share of layers, 0 to 1. With 1 the feature is in every layer, which makes it
    /// systematic.
    pub layer_share: f64,
}

impl Planted {
    pub const fn new(dim: usize, scale: f32, layer_share: f64) -> Self {
        Self { dim, scale, layer_share }
    }

    /// True if it is planted in `layer`. The layers are evenly spaced.
    pub fn in_layer(&self, layer: usize) -> bool {
        let steps = |n: usize| (n as f64 * self.layer_share).ceil() as usize;
        steps(layer + 1) > steps(layer)
    }
}

/// The planted features in a tensor of `role` in `layer`.
pub(super) fn touching(planted: &[Planted], role: Option<Role>, layer: Option<usize>) -> Vec<Planted> {
    let touched =
        matches!(role, Some(Role::AttnNorm | Role::FfnNorm | Role::FromAttnIn | Role::FromFfnIn | Role::Router));
    match layer {
        Some(layer) if touched => planted.iter().copied().filter(|planted| planted.in_layer(layer)).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_spread_over_the_layers() {
        let count = |share| (0..10).filter(|layer| Planted::new(0, 1.0, share).in_layer(*layer)).count();
        assert_eq!([count(1.0), count(0.4), count(0.5)], [10, 4, 5]);
    }
}
