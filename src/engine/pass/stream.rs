//! The stream of weights to the layers: requested weights are announced to their source, read
//! ahead, and counted.

use std::sync::Arc;

use crate::engine::observe::Observers;
use crate::engine::workspace::{read_ahead, weights_at_once};
use crate::error::Result;
use crate::record::Tokens;
use crate::spec::inventory::{self, Part};
use crate::spec::{BeforeHead, Layer, Mlp, Moe};
use crate::tensor::{Device, Tensor};
use crate::weights::load::Loader;
use crate::weights::plan::Plan;
use crate::weights::reader::{Portion, Reader, Times};
use crate::weights::{OpenModel, ShardPlan};

/// The amount of weights that are read ahead.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum ReadAhead {
    /// Some layers and experts, as in the estimate.
    Bounded,
    /// The whole model, which is read before the first layer begins, for benchmarks.
    Everything,
}

pub(crate) struct WeightStream<'a> {
    model: &'a OpenModel,
    reader: Reader,
    plan: Plan,
    /// Bytes of tensor data that this pass has requested.
    pub needed: u64,
}

impl<'a> WeightStream<'a> {
    /// Starts the stream for layers from `first` on, on the devices of `plans`.
    pub(crate) fn start(
        model: &'a OpenModel,
        plans: &[ShardPlan],
        tokens: &Tokens,
        (logits, first): (bool, usize),
        ahead: ReadAhead,
    ) -> Result<Self> {
        let devices: Arc<[Device]> = plans.iter().map(|plan| plan.device.clone()).collect();
        let loader = Loader { checkpoint: &model.checkpoint, devices: &devices };
        // A missing weight is not needed.
        let size = |part: &Part| Ok(loader.resident_bytes(part).unwrap_or(0));
        let (budget, reserved) = match ahead {
            ReadAhead::Bounded => {
                let budget = read_ahead(&model.spec, model.info.chunk_layers, &size)?;
                (budget, weights_at_once(&model.spec, budget, &size)?)
            }
            ReadAhead::Everything => (usize::MAX, 0),
        };
        devices.iter().try_for_each(|device| device.reserve(reserved))?;
        let reader = Reader::start(model.checkpoint.clone(), devices, budget)?;
        Ok(Self { model, reader, plan: Plan::new(model, tokens, logits, first)?, needed: 0 })
    }

    fn request(&mut self, portion: Portion, parts: Vec<Part>) -> Result<()> {
        for part in &parts {
            self.needed += self.model.stored_bytes(part)?;
        }
        self.plan.announce(portion, &parts)?;
        self.reader.request(portion, parts)
    }

    /// Requests the core of a layer: all weights but those of the routed experts. Without `ffn`,
    /// only the mixer and the norms that `Layer::needed` keeps. After the last layer it does
    /// nothing.
    pub(crate) fn request_core(&mut self, layer: usize, ffn: bool) -> Result<()> {
        match self.model.spec.layers.get(layer) {
            Some(spec) => self.request(Portion::Core(layer), inventory::core(spec, ffn)),
            None => Ok(()),
        }
    }

    pub(crate) fn request_expert(&mut self, layer: usize, moe: &Moe, expert: usize) -> Result<()> {
        self.request(Portion::Expert { layer, expert }, inventory::expert(&moe.experts, expert))
    }

    /// Discards the announcements of all experts of this layer that are not in `requested`.
    pub(crate) fn skip_other_experts(&mut self, layer: usize, moe: &Moe, requested: &[usize]) {
        self.plan.skip_other_experts(layer, moe.num_experts, requested);
    }

    /// Requests all weights that a pass can need, and waits for them.
    pub(crate) fn preload(&mut self, needs_ffn: impl Fn(usize) -> bool) -> Result<()> {
        let model = self.model;
        for (i, layer) in model.spec.layers.iter().enumerate() {
            self.request_core(i, needs_ffn(i))?;
            if let (Some(moe), true) = (layer.moe(), needs_ffn(i)) {
                (0..moe.num_experts).try_for_each(|expert| self.request_expert(i, moe, expert))?;
            }
        }
        self.reader.wait_all();
        Ok(())
    }

    /// Waits for the core of a layer, requested with the same `ffn`. One copy for each device.
    pub(crate) fn layer(&mut self, layer: usize, ffn: bool, observers: &Observers) -> Result<Vec<Layer<Tensor>>> {
        let needed = self.model.spec.layers[layer].needed(ffn);
        let read = self.reader.recv(Portion::Core(layer))?;
        observers.show_weights(Some(layer), || inventory::parts(&needed), &read[0])?;
        Ok(read.into_iter().map(|read| inventory::filled(&needed, read)).collect())
    }

    /// Waits for a requested expert. One copy for each device.
    pub(crate) fn expert(
        &mut self,
        layer: usize,
        moe: &Moe,
        expert: usize,
        observers: &Observers,
    ) -> Result<Vec<Mlp<Tensor>>> {
        let network = moe.experts.network(expert);
        let read = self.reader.recv(Portion::Expert { layer, expert })?;
        observers.show_weights(Some(layer), || inventory::parts(&network), &read[0])?;
        Ok(read.into_iter().map(|read| inventory::filled(&network, read)).collect())
    }

    /// Requests the weights between the last layer and the head (the final norm, and OPT's
    /// projection), and waits for them.
    pub(crate) fn before_head(&mut self, observers: &Observers) -> Result<Vec<BeforeHead<Tensor>>> {
        let before = self.model.spec.before_head();
        self.reader.request(Portion::FinalNorm, inventory::parts(&before))?;
        let read = self.reader.recv(Portion::FinalNorm)?;
        observers.show_weights(None, || inventory::parts(&before), &read[0])?;
        Ok(read.into_iter().map(|read| inventory::filled(&before, read)).collect())
    }

    pub(crate) fn times(&self) -> Times {
        self.reader.times()
    }
}
