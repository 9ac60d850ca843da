//! What all devices of a pass look at.

use candle_core::DType;

use crate::engine::observe::Observers;
use crate::engine::workspace::BatchPlan;
use crate::record::{Site, SiteId};
use crate::weights::OpenModel;

/// Sites behind the feed-forward network of a layer: what stands there needs it.
const BEHIND_FFN: [Site; 5] = [Site::FfnMid, Site::FfnMidShared, Site::FfnWrite, Site::ResidPost, Site::FinalNorm];

pub struct Work<'a> {
    pub model: &'a OpenModel,
    /// How the work is cut.
    pub cut: BatchPlan,
    pub logits: bool,
    pub observers: Observers<'a>,
}

impl Work<'_> {
    /// Whether anything needs the feed-forward network of this layer.
    pub fn needs_ffn(&self, layer: usize) -> bool {
        let wanted = || BEHIND_FFN.iter().any(|site| self.observers.want(SiteId { layer, site: *site }));
        self.model.spec.needs_ffn(layer, self.logits || wanted())
    }

    /// Tokens per product of a network whose inner width is `intermediate`.
    pub fn ffn_rows(&self, intermediate: usize) -> usize {
        self.cut.ffn_rows(self.model.spec.hidden_size, intermediate)
    }

    /// Whether large projections may round what they read to bf16, where that is faster: the compute dtype is bf16.
    pub fn rounded(&self) -> bool {
        self.model.dtype == DType::BF16
    }
}
