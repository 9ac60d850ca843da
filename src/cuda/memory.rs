//! Memory of a GPU: what holds it, how it is filled and read, and how it is copied.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

use super::context::Context;
use super::driver_context::{Stream, failed, out_of_memory};
use super::staging::{Half, Pinned};
use super::timeline::Amount;
use crate::error::{Result, fault};
use crate::memory::PAGE;

/// Bytes of each piece that is uploaded in the order of a stream.
const UPLOAD_BYTES: usize = 1 << 20;
/// Pieces in flight.
const UPLOADS: usize = 8;

/// GPU memory, used and freed in the order of one stream: at first of the one that it was allocated on.
pub(super) struct Buffer {
    context: Arc<Context>,
    address: CUdeviceptr,
    bytes: usize,
    booked_as: Stream,
    stream: Stream,
}

impl Buffer {
    /// Memory with anything in it, in the order of `stream`.
    ///
    /// # Errors
    /// Of kind `oom` when the GPU or the limit has no room for it.
    pub(super) fn new(context: &Arc<Context>, bytes: usize, stream: Stream) -> Result<Self> {
        let current = context.enter()?;
        let booked = context.account().book(bytes, stream);
        booked.map_err(|limit| out_of_memory(format!("the GPU's memory is full: {limit} bytes are allowed")))?;
        // SAFETY: the stream is that of the current context; what is allocated is freed when this is dropped.
        let address = unsafe { result::malloc_async(current.stream(stream), bytes.max(1)) };
        let address = address.map_err(|error| {
            let mut account = context.account();
            *account.of(stream) -= bytes;
            account.full = true;
            failed(&format!("allocating {bytes} bytes"), error)
        })?;
        Ok(Self { context: context.clone(), address, bytes, booked_as: stream, stream })
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The stream in whose order this memory is used and freed.
    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the bytes of `range` begin on the GPU.
    ///
    /// # Errors
    /// `internal` when they are not all within this memory.
    pub(super) fn address_of(&self, range: Range<usize>) -> Result<CUdeviceptr> {
        if range.start > range.end || range.end > self.bytes {
            fault!("bytes {range:?} of {} on a GPU", self.bytes);
        }
        Ok(self.address + range.start as u64)
    }

    /// Copies `bytes` to byte `first` and those after it, without waiting for it.
    pub(super) fn upload(&self, first: usize, bytes: &[u8]) -> Result<()> {
        let current = self.context.enter()?;
        let mut uploads = self.context.uploads();
        let (halves, next) = &mut *uploads;
        for (i, piece) in bytes.chunks(UPLOAD_BYTES).enumerate() {
            let first = first + i * UPLOAD_BYTES;
            let to = self.address_of(first..first + piece.len())?;
            if halves.len() < UPLOADS {
                halves.push(Half::new(&current, UPLOAD_BYTES)?);
            }
            let half = &mut halves[*next];
            *next = (*next + 1) % UPLOADS;
            half.wait()?;
            half.bytes()[..piece.len()].copy_from_slice(piece);
            self.context.timed(&current, self.stream, "to the GPU", Amount::Bytes(piece.len()), || {
                // SAFETY: `address_of` has found room for the piece, in memory that is used and freed on this stream.
                unsafe { half.send(&current, 0..piece.len(), to, self.stream) }
            })?;
        }
        Ok(())
    }

    /// Copies byte `first` and those after it to `bytes`, once the stream has done what is before that.
    pub(super) fn download(&self, first: usize, bytes: &mut [u8]) -> Result<()> {
        let from = self.address_of(first..first + bytes.len())?;
        let current = self.context.enter()?;
        let copying = |error| failed("copying from the GPU", error);
        let begun = self.context.timed(&current, self.stream, "from the GPU", Amount::Bytes(bytes.len()), || {
            // SAFETY: `address_of` has found as many bytes. `bytes` is borrowed until the stream has come to its end below,
            // which is waited for even where a mark could not be set behind the copy.
            unsafe { result::memcpy_dtoh_async(bytes, from, current.stream(self.stream)) }.map_err(copying)
        });
        let ended = current.synchronize(self.stream).map_err(copying);
        begun.and(ended)
    }

    /// Copies the bytes of `range` of another buffer of this GPU, on the same stream, to byte `first` and those after it.
    pub(super) fn copy(&self, first: usize, other: &Self, range: Range<usize>) -> Result<()> {
        if !Arc::ptr_eq(&self.context, &other.context) || self.stream != other.stream {
            fault!("a copy within a GPU from memory of another, or of another stream");
        }
        let bytes = range.len();
        let (from, to) = (other.address_of(range)?, self.address_of(first..first + bytes)?);
        if from.abs_diff(to) < bytes as u64 {
            fault!("a copy of {bytes} bytes on a GPU to where they are");
        }
        let current = self.context.enter()?;
        self.context.timed(&current, self.stream, "within the GPU", Amount::Bytes(bytes), || {
            // SAFETY: both ranges lie within their buffers, which are used and freed on this stream, and do not overlap.
            unsafe { result::memcpy_dtod_async(to, from, bytes, current.stream(self.stream)) }
                .map_err(|error| failed("copying on the GPU", error))
        })
    }

    /// Makes every byte `value`.
    pub(super) fn fill(&self, value: u8) -> Result<()> {
        let current = self.context.enter()?;
        self.context.timed(&current, self.stream, "clear", Amount::Bytes(self.bytes), || {
            // SAFETY: the buffer has as many bytes, and is used and freed on this stream.
            unsafe { result::memset_d8_async(self.address, value, self.bytes, current.stream(self.stream)) }
                .map_err(|error| failed("clearing GPU memory", error))
        })
    }

    /// Waits until what the calling thread has done to this memory on the copying stream is complete. From then on the
    /// computing stream alone uses it.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        self.context.settle()?;
        self.stream = Stream::Compute;
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        *self.context.account().of(self.booked_as) -= self.bytes;
        if let Ok(current) = self.context.enter() {
            // SAFETY: `new` has allocated it; what still uses it is on this stream, before this.
            _ = unsafe { result::free_async(self.address, current.stream(self.stream)) };
        }
    }
}

/// Memory on the copying stream of each of `contexts`, with the same bytes in all: `fill` gets an offset and where to put what
/// is there, once for every piece: `phase` bytes (below `PAGE`) behind the beginning of a page. Complete when this returns.
pub(super) fn receive(
    contexts: &[&Arc<Context>],
    bytes: usize,
    phase: usize,
    mut fill: impl FnMut(usize, &mut [u8]) -> Result<()>,
) -> Result<Vec<Buffer>> {
    let buffers =
        contexts.iter().map(|context| Buffer::new(context, bytes, Stream::Copy)).collect::<Result<Vec<_>>>()?;
    // Where it is kept.
    let current = contexts[0].enter()?;
    let mut halves = match contexts[0].idle().pop() {
        Some(halves) => halves,
        None => [Half::new(&current, Pinned::BYTES + PAGE)?, Half::new(&current, Pinned::BYTES + PAGE)?],
    };
    for (i, start) in (0..bytes).step_by(Pinned::BYTES).enumerate() {
        let length = Pinned::BYTES.min(bytes - start);
        let half = &mut halves[i % 2];
        half.wait()?;
        fill(start, &mut half.bytes()[phase..phase + length])?;
        for (context, buffer) in contexts.iter().zip(&buffers) {
            let to = buffer.address_of(start..start + length)?;
            let current = context.enter()?;
            context.timed(&current, Stream::Copy, "to the GPU", Amount::Bytes(length), || {
                // SAFETY: `address_of` has found room for the piece, in memory of this GPU that was allocated on this stream.
                unsafe { half.send(&current, phase..phase + length, to, Stream::Copy) }
            })?;
        }
    }
    halves.iter_mut().try_for_each(Half::wait)?;
    contexts[0].idle().push(halves);
    Ok(buffers)
}
