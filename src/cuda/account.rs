//! Accounting of GPU memory: the bytes in use, their peak, and their limit.

use super::driver_context::Stream;

/// Bytes of GPU memory in use. Arrays that the copy stream allocates are weights; all others are
/// work. Weights have a reserve of their own, because work that runs out of memory can be split
/// into smaller batches, and weights cannot.
#[derive(Default)]
pub(super) struct Account {
    pub(super) weights: usize,
    pub(super) work: usize,
    pub(super) peak: usize,
    /// The most bytes that may be in use.
    pub(super) limit: usize,
    /// The part of `limit` that is kept for weights.
    pub(super) reserved: usize,
    /// True if an allocation was refused.
    pub(super) full: bool,
}

impl Account {
    pub(super) fn of(&mut self, stream: Stream) -> &mut usize {
        match stream {
            Stream::Compute => &mut self.work,
            Stream::Copy => &mut self.weights,
        }
    }

    /// Adds `bytes` to the account. If they exceed the limit, the error is the limit in bytes.
    pub(super) fn book(&mut self, bytes: usize, stream: Stream) -> std::result::Result<(), usize> {
        let weights = self.weights.max(if stream == Stream::Compute { self.reserved } else { 0 });
        if weights + self.work + bytes > self.limit {
            self.full = true;
            return Err(self.limit);
        }
        *self.of(stream) += bytes;
        self.peak = self.peak.max(self.weights + self.work);
        Ok(())
    }
}
