//! Writes every norm output to `activations.safetensors` during the pass.

use std::io::{Read, Write};
use std::ops::Range;

use super::observer::Observer;
use crate::error::Result;
use crate::record::{Site, SiteId};
use crate::results::FullActivations;
use crate::tensor::Tensor;

/// An observer whose state is the file itself: for a checkpoint it only flushes the file.
pub struct FullWriter {
    pub file: FullActivations,
    /// Number of values of one sequence at a site.
    pub per_sequence: usize,
}

impl Observer for FullWriter {
    fn wants(&self, site: SiteId) -> bool {
        Site::NORMS.contains(&site.site)
    }

    fn observe(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        self.file.write(&site.name(), sequences.start * self.per_sequence, &x.values()?)
    }

    fn save(&mut self, _layers: usize, _checkpoint: &mut dyn Write) -> Result<()> {
        self.file.keep()
    }

    fn resume(&mut self, _layers: usize, _checkpoint: &mut dyn Read) -> Result<()> {
        Ok(())
    }

    fn reset(&mut self) {}
}
