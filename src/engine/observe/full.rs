//! Writes every norm output to `activations.safetensors` while it exists.

use std::io::{Read, Write};
use std::ops::Range;

use super::observer::Observer;
use crate::error::Result;
use crate::record::{Site, SiteId};
use crate::results::FullActivations;
use crate::tensor::Tensor;

/// The file is what this observer keeps: a checkpoint needs nothing of it but that it is on the disk.
pub struct FullWriter {
    pub file: FullActivations,
    /// Values of one sequence at a site.
    pub per_sequence: usize,
}

impl Observer for FullWriter {
    fn wants(&self, site: SiteId) -> bool {
        Site::NORMS.contains(&site.site)
    }

    fn see(&mut self, site: SiteId, sequences: Range<usize>, x: &Tensor) -> Result<()> {
        self.file.write(&site.name(), sequences.start * self.per_sequence, &x.values()?)
    }

    fn save(&mut self, _layers: usize, _checkpoint: &mut dyn Write) -> Result<()> {
        self.file.keep()
    }

    fn resume(&mut self, _layers: usize, _checkpoint: &mut dyn Read) -> Result<()> {
        Ok(())
    }

    fn begin_again(&mut self) {}
}
