//! The weights on their way to the layers: what is asked for is announced to where the bytes are, read ahead, and counted.

use std::sync::Arc;

use crate::engine::workspace::{read_ahead, weights_at_once};
use crate::error::Result;
use crate::record::Tokens;
use crate::spec::inventory::{self, Part};
use crate::spec::{BeforeHead, Layer, Mlp, Moe};
use crate::tensor::{Device, Tensor};
use crate::weights::load::Loader;
use crate::weights::plan::Plan;
use crate::weights::reader::{Portion, Reader, Times};
use crate::weights::{OpenModel, Share};

/// How many bytes of weights may wait to be used.
#[derive(Clone, Copy, PartialEq)]
pub enum ReadAhead {
    /// Some layers and experts, as the estimate counts them.
    Bounded,
    /// All of a model, which has been read before the first layer begins: for benchmarks.
    Everything,
}

pub struct WeightStream<'a> {
    model: &'a OpenModel,
    reader: Reader,
    plan: Plan,
    /// Bytes of tensor data that this pass has asked for.
    pub needed: u64,
}

impl<'a> WeightStream<'a> {
    /// For layers from `first` on, on the devices of `shares`.
    pub fn start(
        model: &'a OpenModel,
        shares: &[Share],
        tokens: &Tokens,
        (logits, first): (bool, usize),
        ahead: ReadAhead,
    ) -> Result<Self> {
        let devices: Arc<[Device]> = shares.iter().map(|share| share.device.clone()).collect();
        let loader = Loader { checkpoint: &model.checkpoint, devices: &devices };
        // Whatever is not there is not needed.
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

    fn ask(&mut self, portion: Portion, parts: Vec<Part>) -> Result<()> {
        for part in &parts {
            self.needed += self.model.stored_bytes(part)?;
        }
        self.plan.announce(portion, &parts)?;
        self.reader.ask(portion, parts)
    }

    /// Asks for everything of a layer but its routed experts; without `ffn`, for both norms and the mixer. Nothing happens behind
    /// the last layer.
    pub fn ask_core(&mut self, layer: usize, ffn: bool) -> Result<()> {
        match self.model.spec.layers.get(layer) {
            Some(spec) => self.ask(Portion::Core(layer), inventory::core(spec, ffn)),
            None => Ok(()),
        }
    }

    pub fn ask_expert(&mut self, layer: usize, moe: &Moe, expert: usize) -> Result<()> {
        self.ask(Portion::Expert { layer, expert }, inventory::expert(&moe.experts, expert))
    }

    /// Of this layer, no experts but those that were asked for will be.
    pub fn skip_other_experts(&mut self, layer: usize, moe: &Moe, asked: &[usize]) {
        self.plan.skip_other_experts(layer, moe.num_experts, asked);
    }

    /// Reads everything that a pass can need, for as long as it lasts.
    pub fn preload(&mut self, needs_ffn: impl Fn(usize) -> bool) -> Result<()> {
        let model = self.model;
        for (i, layer) in model.spec.layers.iter().enumerate() {
            self.ask_core(i, needs_ffn(i))?;
            if let (Some(moe), true) = (layer.moe(), needs_ffn(i)) {
                (0..moe.num_experts).try_for_each(|expert| self.ask_expert(i, moe, expert))?;
            }
        }
        self.reader.settle();
        Ok(())
    }

    /// Waits for everything of a layer but its routed experts, as it was asked for: one for each device.
    pub fn layer(&mut self, layer: usize, ffn: bool) -> Result<Vec<Layer<Tensor>>> {
        let needed = self.model.spec.layers[layer].needed(ffn);
        let read = self.reader.take(Portion::Core(layer))?;
        Ok(read.into_iter().map(|read| inventory::filled(&needed, read)).collect())
    }

    /// Waits for an expert that was asked for: one for each device.
    pub fn expert(&mut self, layer: usize, moe: &Moe, expert: usize) -> Result<Vec<Mlp<Tensor>>> {
        let network = moe.experts.network(expert);
        let read = self.reader.take(Portion::Expert { layer, expert })?;
        Ok(read.into_iter().map(|read| inventory::filled(&network, read)).collect())
    }

    /// What the head reads first: the final norm, and a projection in OPT. Asked for and waited for at once.
    pub fn before_head(&mut self) -> Result<Vec<BeforeHead<Tensor>>> {
        let before = self.model.spec.before_head();
        self.reader.ask(Portion::FinalNorm, inventory::parts(&before))?;
        let read = self.reader.take(Portion::FinalNorm)?;
        Ok(read.into_iter().map(|read| inventory::filled(&before, read)).collect())
    }

    pub fn times(&self) -> Times {
        self.reader.times()
    }
}
