//! Writes activations to `activations.safetensors` during the pass: every norm output, or chosen
//! sites of chosen sequences.

use std::io::{Read, Write};
use std::ops::Range;

use super::observer::Observer;
use crate::error::Result;
use crate::record::SiteId;
use crate::results::FullActivations;
use crate::tensor::Tensor;

/// An observer whose state is the file itself: for a checkpoint it only flushes the file.
pub struct FullWriter {
    pub file: FullActivations,
    /// The sites that are written.
    pub sites: Vec<SiteId>,
    /// The sequences that are written, ascending.
    pub sequences: Vec<usize>,
    pub positions: usize,
}

impl Observer for FullWriter {
    fn wants(&self, site: SiteId) -> bool {
        self.sites.contains(&site)
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        let (_, width) = x.dims2()?;
        let (name, per_sequence) = (site.name(), self.positions * width);
        let of = |sequence| self.sequences.binary_search(&sequence).ok();
        let places: Vec<Option<usize>> = sequences.map(of).collect();
        if let (Some(first), true) = (places[0], places.iter().all(Option::is_some)) {
            // All that lie between are kept, so they lie together.
            return self.file.write(&name, first * per_sequence, &x.values()?);
        }
        for (row, place) in places.into_iter().enumerate() {
            let Some(place) = place else { continue };
            let values = x.rows(row * self.positions, self.positions)?.values()?;
            self.file.write(&name, place * per_sequence, &values)?;
        }
        Ok(())
    }

    fn save(&mut self, _layers: usize, _checkpoint: &mut dyn Write) -> Result<()> {
        self.file.keep()
    }

    fn resume(&mut self, _layers: usize, _checkpoint: &mut dyn Read) -> Result<()> {
        Ok(())
    }

    fn reset(&mut self) {}
}
