//! Samples of a checkpoint: small pieces of its tensors and files, where reading all of them would
//! take too long.

use sha2::{Digest, Sha256};

use super::checkpoint::{Checkpoint, HASH_WHOLE};
use super::entry::Entry;
use crate::error::Result;
use crate::hub::{Announcement, FileRange};
use crate::spec::TensorSpec;
use crate::words::hex;

/// Number of pieces that `sample` reads of a larger file. Other weights differ nearly everywhere.
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 4096;
/// Number of pieces of each tensor that are compared to see whether two tensors are the same.
const ALIKE: u64 = 4;
const ALIKE_BYTES: u64 = 4096;

impl Checkpoint {
    /// Whether two tensors of one shape and type seem to be the same: pieces of them are, or cannot
    /// be read. Tensors that do not lie together are not looked at.
    pub fn look_alike(&self, one: &TensorSpec, other: &TensorSpec) -> bool {
        let (Some(one), Some(other)) = (self.entry(&one.name), self.entry(&other.name)) else { return true };
        if (one.dtype, &one.shape, one.bytes) != (other.dtype, &other.shape, other.bytes) {
            return false;
        }
        if !one.lies_together() || !other.lies_together() {
            return true;
        }
        let length = one.bytes.min(ALIKE_BYTES);
        let starts: Vec<u64> = (0..ALIKE).map(|i| (one.bytes - length) / (ALIKE - 1) * i).collect();
        let ranges = |entry: &Entry| starts.iter().map(|start| entry.part(*start..start + length)).collect::<Vec<_>>();
        let (ranges, others) = (ranges(one), ranges(other));
        let mut ahead = self.ahead();
        for range in ranges.iter().chain(&others) {
            ahead.expect(Announcement { order: 0, max_gap: 0, ranges: vec![range.clone()] });
        }
        let read = |range: &FileRange| {
            let mut piece = vec![0; length as usize];
            self.source.read(range.file, range.range.start, &mut piece).map(|()| piece).ok()
        };
        ranges.iter().zip(&others).all(|(one, other)| match (read(one), read(other)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        })
    }

    /// SHA-256 of pieces of the files that are too large to be hashed whole and for which the hub
    /// gives no hash. It distinguishes other weights of the same shapes.
    pub fn sample(&self) -> Result<String> {
        let mut digest = Sha256::new();
        let mut piece = [0; SAMPLE_BYTES as usize];
        for (file, described) in self.source.files()?.iter().enumerate() {
            if described.bytes > HASH_WHOLE && described.announced_sha256.is_none() {
                for i in 0..SAMPLES {
                    self.source.read(file, (described.bytes - SAMPLE_BYTES) / (SAMPLES - 1) * i, &mut piece)?;
                    digest.update(piece);
                }
            }
        }
        Ok(hex(&digest.finalize()))
    }
}
