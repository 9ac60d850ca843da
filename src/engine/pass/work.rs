//! The parameters of a pass that all devices share.

use candle_core::DType;

use crate::engine::observe::Observers;
use crate::engine::workspace::BatchPlan;
use crate::record::{Site, SiteId};
use crate::weights::OpenModel;

/// The sites after the first product of a feed-forward network. A layer with one of these sites
/// observed needs its network.
const BEHIND_FFN: [Site; 6] =
    [Site::RouterLogits, Site::FfnMid, Site::FfnMidShared, Site::FfnWrite, Site::ResidPost, Site::FinalNorm];

pub(crate) struct Work<'a> {
    pub model: &'a OpenModel,
    /// The batch sizes.
    pub plan: BatchPlan,
    pub logits: bool,
    pub observers: Observers<'a>,
    /// The observers of sequences that nobody observes.
    pub nobody: Observers<'a>,
}

impl Work<'_> {
    /// True if the output or an observer needs the feed-forward network of this layer.
    pub(crate) fn needs_ffn(&self, layer: usize) -> bool {
        let wanted = || {
            BEHIND_FFN.iter().any(|site| self.observers.want(SiteId { layer, site: *site }))
                || self.observers.want_experts(layer)
        };
        self.model.spec.needs_ffn(layer, self.logits || wanted())
    }

    /// Number of tokens per product of a network whose inner width is `intermediate`.
    pub(crate) fn ffn_rows(&self, intermediate: usize) -> usize {
        self.plan.ffn_rows(self.model.spec.hidden_size, intermediate)
    }

    /// True if large projections may round their inputs to bf16 where that is faster, because the
    /// compute dtype is bf16.
    pub(crate) fn rounded(&self) -> bool {
        self.model.dtype == DType::BF16
    }
}
