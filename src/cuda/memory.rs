//! Memory of a GPU: what holds it, and how much of it is in use.

use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

use super::context::{Context, Stream};

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

/// GPU memory, freed in the order of the stream that it was allocated on.
pub struct Buffer {
    context: Arc<Context>,
    address: CUdeviceptr,
    bytes: usize,
    booked_as: Stream,
    freed_on: Stream,
}

impl Buffer {
    pub(super) fn new(context: Arc<Context>, address: CUdeviceptr, bytes: usize, stream: Stream) -> Self {
        Self { context, address, bytes, booked_as: stream, freed_on: stream }
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// From now on the computing stream alone uses this memory. What was copied into it must be complete.
    pub fn hand_over(&mut self) {
        self.freed_on = Stream::Compute;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        *self.context.account().of(self.booked_as) -= self.bytes;
        if self.context.enter().is_ok() {
            // SAFETY: allocated by `allocate`; what still uses it is on this stream, before this.
            _ = unsafe { result::free_async(self.address, self.context.stream(self.freed_on)) };
        }
    }
}
