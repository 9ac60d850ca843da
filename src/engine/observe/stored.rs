//! The state of an observer in a checkpoint, as MessagePack.

use std::io::{Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::record::{AttentionSinks, Experts, Massive, Moments, QuantError, Quantiles, Top};

/// The largest stored state in bytes. What is read is bounded by the file, whose checksums hold.
const MOST: u64 = 64 << 30;

pub(in crate::engine) fn write(state: &impl Serialize, checkpoint: &mut dyn Write) -> Result<()> {
    rmp_serde::encode::write_named(&mut &mut *checkpoint, state)
        .map_err(|e| Error::new(Kind::Io, format!("writing the checkpoint: {e}")).hint("is the disk full?"))
}

pub(in crate::engine) fn read<T: DeserializeOwned>(checkpoint: &mut dyn Read) -> Result<T> {
    rmp_serde::from_read(checkpoint.take(MOST)).map_err(|e| Error::corrupt(format!("reading it: {e}")))
}

/// What an observer has done of a layer.
pub(super) trait OfLayer {
    fn layer(&self) -> usize;
}

/// Implements `OfLayer` for what has its layer in a field, or in the site that it has in one.
macro_rules! of_layer {
    ($($of:ty: $($field:ident).+),* $(,)?) => {
        $(impl OfLayer for $of {
            fn layer(&self) -> usize {
                self.$($field).+
            }
        })*
    };
}

of_layer! {
    Moments: at.layer, Top: at.layer, QuantError: at.layer, Quantiles: at.layer,
    Massive: layer, AttentionSinks: layer, Experts: layer,
}

/// Reads what was done of the first `layers` layers.
pub(super) fn read_done<T: DeserializeOwned + OfLayer>(layers: usize, checkpoint: &mut dyn Read) -> Result<Vec<T>> {
    let done: Vec<T> = read(checkpoint)?;
    match done.iter().all(|of| of.layer() < layers) {
        true => Ok(done),
        false => Err(Error::corrupt("its measurements are of other layers")),
    }
}

/// The methods of an observer whose state in a checkpoint is one of its fields, a list of what is
/// done so far.
macro_rules! kept_in {
    ($done:ident) => {
        fn save(&mut self, _layers: usize, checkpoint: &mut dyn ::std::io::Write) -> $crate::error::Result<()> {
            $crate::engine::observe::stored::write(&self.$done, checkpoint)
        }

        fn resume(&mut self, layers: usize, checkpoint: &mut dyn ::std::io::Read) -> $crate::error::Result<()> {
            self.$done = $crate::engine::observe::stored::read_done(layers, checkpoint)?;
            Ok(())
        }

        fn reset(&mut self) {
            self.$done.clear();
        }
    };
}

/// The same of an observer that settles a layer when it is done.
macro_rules! settled_in {
    ($done:ident) => {
        fn end_layer(
            &mut self,
            _layer: usize,
            _stream: &[(::std::ops::Range<usize>, &$crate::tensor::Tensor)],
        ) -> $crate::error::Result<()> {
            self.settle();
            Ok(())
        }

        fn fetch(&mut self) -> $crate::error::Result<()> {
            self.settle();
            Ok(())
        }

        $crate::engine::observe::stored::kept_in!($done);
    };
}

pub(super) use {kept_in, settled_in};
