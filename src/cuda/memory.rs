//! GPU memory: allocation, transfers to and from the host, and copies within the GPU.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::result;
use cudarc::driver::sys::CUdeviceptr;

use super::context::Context;
use super::driver_context::{Stream, failed, out_of_memory};
use super::staging::{PinnedMemory, StagingBuffer};
use super::timeline::Amount;
use crate::error::{Result, fault};
use crate::memory::PAGE;

/// Size in bytes of each piece of an upload in stream order.
const UPLOAD_BYTES: usize = 1 << 20;
/// The number of upload buffers, and so of pieces in flight.
const UPLOADS: usize = 8;

/// GPU memory that one stream uses and frees. At first that is the stream that allocated it.
pub(super) struct Buffer {
    context: Arc<Context>,
    address: CUdeviceptr,
    bytes: usize,
    booked_as: Stream,
    stream: Stream,
}

impl Buffer {
    /// Uninitialised memory on `stream`.
    ///
    /// # Errors
    /// `oom` if the GPU or the limit does not allow it.
    pub(super) fn new(context: &Arc<Context>, bytes: usize, stream: Stream) -> Result<Self> {
        let current = context.enter()?;
        let booked = context.account().book(bytes, stream);
        booked.map_err(|limit| out_of_memory(format!("the GPU's memory is full: {limit} bytes are allowed")))?;
        // SAFETY: the stream belongs to the current context. The memory is freed when this value is
        // dropped.
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

    /// The stream that uses and frees this memory.
    pub(super) fn stream(&self) -> Stream {
        self.stream
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of the bytes of `range` on the GPU.
    ///
    /// # Errors
    /// `internal` if the range is not within this memory.
    pub(super) fn address_of(&self, range: Range<usize>) -> Result<CUdeviceptr> {
        if range.start > range.end || range.end > self.bytes {
            fault!("bytes {range:?} of {} on a GPU", self.bytes);
        }
        Ok(self.address + range.start as u64)
    }

    /// Copies `bytes` to the bytes from `first` on, without waiting for the copy.
    pub(super) fn upload(&self, first: usize, bytes: &[u8]) -> Result<()> {
        let current = self.context.enter()?;
        let mut uploads = self.context.uploads();
        let (staging_buffers, next) = &mut *uploads;
        for (i, piece) in bytes.chunks(UPLOAD_BYTES).enumerate() {
            let first = first + i * UPLOAD_BYTES;
            let to = self.address_of(first..first + piece.len())?;
            if staging_buffers.len() < UPLOADS {
                staging_buffers.push(StagingBuffer::new(&current, UPLOAD_BYTES)?);
            }
            let staging = &mut staging_buffers[*next];
            *next = (*next + 1) % UPLOADS;
            staging.wait()?;
            staging.bytes()[..piece.len()].copy_from_slice(piece);
            self.context.timed(&current, self.stream, "to the GPU", Amount::Bytes(piece.len()), || {
                // SAFETY: `address_of` checked that the piece fits into this memory, which is used
                // and freed on this stream.
                unsafe { staging.send(&current, 0..piece.len(), to, self.stream) }
            })?;
        }
        Ok(())
    }

    /// Copies the bytes from `first` on to `bytes`, after the earlier work of the stream.
    pub(super) fn download(&self, first: usize, bytes: &mut [u8]) -> Result<()> {
        let from = self.address_of(first..first + bytes.len())?;
        let current = self.context.enter()?;
        let copying = |error| failed("copying from the GPU", error);
        let begun = self.context.timed(&current, self.stream, "from the GPU", Amount::Bytes(bytes.len()), || {
            // SAFETY: `address_of` checked the range. `bytes` stays borrowed until the stream is
            // synchronised below, which happens even if the timeline's second event could not be
            // recorded.
            unsafe { result::memcpy_dtoh_async(bytes, from, current.stream(self.stream)) }.map_err(copying)
        });
        let ended = current.synchronize(self.stream).map_err(copying);
        begun.and(ended)
    }

    /// Copies the bytes of `range` of another buffer on the same GPU and stream to the bytes from
    /// `first` on.
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
            // SAFETY: both ranges lie within their buffers, which are used and freed on this
            // stream, and do not overlap.
            unsafe { result::memcpy_dtod_async(to, from, bytes, current.stream(self.stream)) }
                .map_err(|error| failed("copying on the GPU", error))
        })
    }

    /// Sets every byte to `value`.
    pub(super) fn fill(&self, value: u8) -> Result<()> {
        let current = self.context.enter()?;
        self.context.timed(&current, self.stream, "clear", Amount::Bytes(self.bytes), || {
            // SAFETY: the buffer has this size and is used and freed on this stream.
            unsafe { result::memset_d8_async(self.address, value, self.bytes, current.stream(self.stream)) }
                .map_err(|error| failed("clearing GPU memory", error))
        })
    }

    /// Waits for the work of the calling thread on the copy stream. From then on only the compute
    /// stream uses this memory.
    pub(super) fn hand_to_compute_stream(&mut self) -> Result<()> {
        self.context.wait_for_copies()?;
        self.stream = Stream::Compute;
        Ok(())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        *self.context.account().of(self.booked_as) -= self.bytes;
        if let Ok(current) = self.context.enter() {
            // SAFETY: `new` allocated the memory, and all work that uses it is on this stream
            // already.
            _ = unsafe { result::free_async(self.address, current.stream(self.stream)) };
        }
    }
}

/// One buffer per context, all with the same bytes, on the copy stream. `fill` is called for each
/// piece with its offset in bytes and with the pinned memory to write it to, which begins `phase`
/// bytes (less than `PAGE`) after the start of a page. The copies are complete when this function
/// returns.
pub(super) fn broadcast(
    contexts: &[&Arc<Context>],
    bytes: usize,
    phase: usize,
    mut fill: impl FnMut(usize, &mut [u8]) -> Result<()>,
) -> Result<Vec<Buffer>> {
    let buffers =
        contexts.iter().map(|context| Buffer::new(context, bytes, Stream::Copy)).collect::<Result<Vec<_>>>()?;
    // The pinned buffers belong to the first context.
    let current = contexts[0].enter()?;
    let mut staging_buffers = match contexts[0].idle().pop() {
        Some(staging_buffers) => staging_buffers,
        None => [
            StagingBuffer::new(&current, PinnedMemory::BYTES + PAGE)?,
            StagingBuffer::new(&current, PinnedMemory::BYTES + PAGE)?,
        ],
    };
    for (i, start) in (0..bytes).step_by(PinnedMemory::BYTES).enumerate() {
        let length = PinnedMemory::BYTES.min(bytes - start);
        let staging = &mut staging_buffers[i % 2];
        staging.wait()?;
        fill(start, &mut staging.bytes()[phase..phase + length])?;
        for (context, buffer) in contexts.iter().zip(&buffers) {
            let to = buffer.address_of(start..start + length)?;
            let current = context.enter()?;
            context.timed(&current, Stream::Copy, "to the GPU", Amount::Bytes(length), || {
                // SAFETY: `address_of` checked that the piece fits into memory of this GPU that was
                // allocated on this stream.
                unsafe { staging.send(&current, phase..phase + length, to, Stream::Copy) }
            })?;
        }
    }
    staging_buffers.iter_mut().try_for_each(StagingBuffer::wait)?;
    contexts[0].idle().push(staging_buffers);
    Ok(buffers)
}
