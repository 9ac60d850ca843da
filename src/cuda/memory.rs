//! Memory of a GPU: what holds it, and how it is filled.

use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

use super::context::Context;
use super::driver_context::{Stream, failed, out_of_memory};
use super::staging::{Half, Pinned};
use super::timeline::Amount;
use crate::error::Result;
use crate::memory::PAGE;

/// GPU memory, freed in the order of the stream that it was allocated on.
pub struct Buffer {
    context: Arc<Context>,
    address: CUdeviceptr,
    bytes: usize,
    booked_as: Stream,
    freed_on: Stream,
}

impl Buffer {
    /// Memory with anything in it, in the order of `stream`.
    ///
    /// # Errors
    /// Of kind `oom` when the GPU or the limit has no room for it.
    pub fn new(context: &Arc<Context>, bytes: usize, stream: Stream) -> Result<Self> {
        context.enter()?;
        let booked = context.account().book(bytes, stream);
        booked.map_err(|limit| out_of_memory(format!("the GPU's memory is full: {limit} bytes are allowed")))?;
        // SAFETY: the stream is this context's; what is allocated is freed when this is dropped.
        let address = unsafe { result::malloc_async(context.stream(stream), bytes.max(1)) };
        let address = address.map_err(|error| {
            let mut account = context.account();
            *account.of(stream) -= bytes;
            account.full = true;
            failed(&format!("allocating {bytes} bytes"), error)
        })?;
        Ok(Self { context: context.clone(), address, bytes, booked_as: stream, freed_on: stream })
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
            // SAFETY: allocated by `new`; what still uses it is on this stream, before this.
            _ = unsafe { result::free_async(self.address, self.context.stream(self.freed_on)) };
        }
    }
}

/// Memory on the copying stream of each of `contexts`, with the same bytes in all: `fill` gets an offset and where to put what
/// is there, once for every piece: `phase` bytes (below `PAGE`) behind the beginning of a page. Complete when this returns.
pub fn receive(
    contexts: &[&Arc<Context>],
    bytes: usize,
    phase: usize,
    mut fill: impl FnMut(usize, &mut [u8]) -> Result<()>,
) -> Result<Vec<Buffer>> {
    let buffers =
        contexts.iter().map(|context| Buffer::new(context, bytes, Stream::Copy)).collect::<Result<Vec<_>>>()?;
    // Where it is kept.
    contexts[0].enter()?;
    let mut halves = match contexts[0].idle().pop() {
        Some(halves) => halves,
        None => [Half::new(Pinned::BYTES + PAGE)?, Half::new(Pinned::BYTES + PAGE)?],
    };
    for (i, start) in (0..bytes).step_by(Pinned::BYTES).enumerate() {
        let length = Pinned::BYTES.min(bytes - start);
        let half = &mut halves[i % 2];
        half.wait()?;
        fill(start, &mut half.bytes()[phase..phase + length])?;
        for (context, buffer) in contexts.iter().zip(&buffers) {
            context.enter()?;
            context.timed(Stream::Copy, "to the GPU", Amount::Bytes(length), || {
                half.send(phase..phase + length, buffer.address() + start as u64, context.stream(Stream::Copy))
            })?;
        }
    }
    halves.iter_mut().try_for_each(Half::wait)?;
    contexts[0].idle().push(halves);
    Ok(buffers)
}
