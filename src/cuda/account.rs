//! How much of the memory of a GPU is in use, and how much may be.

use super::driver_context::Stream;

/// Bytes of GPU memory. What the copying stream allocates are weights, and they have room of their own: work that finds none
/// can be cut, weights cannot.
#[derive(Default)]
pub(super) struct Account {
    pub(super) weights: usize,
    pub(super) work: usize,
    pub(super) peak: usize,
    /// Bytes that may be in use.
    pub(super) limit: usize,
    /// Of them those that work leaves alone.
    pub(super) reserved: usize,
    /// Something was refused.
    pub(super) full: bool,
}

impl Account {
    pub(super) fn of(&mut self, stream: Stream) -> &mut usize {
        match stream {
            Stream::Compute => &mut self.work,
            Stream::Copy => &mut self.weights,
        }
    }

    /// Books `bytes` more, or says how many bytes are allowed.
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
