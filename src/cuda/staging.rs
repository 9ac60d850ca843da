//! Pinned host memory, from which the GPU copies asynchronously, and events that mark the progress
//! of a stream.

use std::ops::Range;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdeviceptr, CUevent};

use super::driver_context::{Current, Stream, failed};
use crate::error::Result;

/// Pinned (page-locked) host memory, usable by all GPUs.
pub(super) struct PinnedMemory(*mut u8, usize);

// SAFETY: this is plain memory with one owner, and any thread may free it.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    /// Bytes of payload of each staging buffer of a reading thread.
    pub(super) const BYTES: usize = 8 << 20;

    fn new(_: &Current, bytes: usize) -> Result<Self> {
        // SAFETY: a context is current, and the memory is freed when this value is dropped.
        let address = unsafe { result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_PORTABLE) };
        let address = address.map_err(|error| failed(&format!("pinning {bytes} bytes of host memory"), error))?;
        // SAFETY: this many bytes were just allocated. They are initialised here because
        // `StagingBuffer::bytes` lends them for reading.
        unsafe { address.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self(address.cast(), bytes))
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        // SAFETY: `new` allocated the memory, and nothing else frees it.
        _ = unsafe { result::free_host(self.0.cast()) };
    }
}

/// Pinned memory with the events of the copies from it that may still be in flight.
pub(super) struct StagingBuffer {
    memory: PinnedMemory,
    in_flight: Vec<Event>,
}

impl StagingBuffer {
    pub(super) fn new(current: &Current, bytes: usize) -> Result<Self> {
        Ok(Self { memory: PinnedMemory::new(current, bytes)?, in_flight: Vec::new() })
    }

    /// Waits for all copies from this memory, even if one of them failed. It may be overwritten
    /// afterwards.
    pub(super) fn wait(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for sent in self.in_flight.drain(..) {
            outcome = outcome.and(sent.wait());
        }
        outcome
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `PinnedMemory::new` allocated and initialised this many bytes, and they are
        // borrowed with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.0, self.memory.1) }
    }

    /// Copies a range of the bytes to the GPU of the current context, on `stream`. They must not
    /// change before `wait` returns, or the copy has undefined contents.
    ///
    /// # Safety
    /// `to` is the address of at least this many bytes of memory of this GPU, used and freed on
    /// `stream`.
    pub(super) unsafe fn send(
        &mut self,
        current: &Current,
        range: Range<usize>,
        to: CUdeviceptr,
        stream: Stream,
    ) -> Result<()> {
        // The event is created before the copy begins: a copy in flight needs one.
        let sent = Event::new(current)?;
        let bytes = &self.bytes()[range];
        // SAFETY: the caller promises the memory at `to`. The source is pinned, and is freed only
        // after `wait`, or after the stream is synchronised if the event could not be recorded.
        let copied = unsafe { result::memcpy_htod_async(to, bytes, current.stream(stream)) };
        copied.map_err(|error| failed("copying to the GPU", error))?;
        if let Err(error) = sent.record(current, stream) {
            _ = current.synchronize(stream);
            return Err(error);
        }
        self.in_flight.push(sent);
        Ok(())
    }
}

impl Drop for StagingBuffer {
    fn drop(&mut self) {
        _ = self.wait();
    }
}

/// A CUDA event: a mark on a stream.
pub(super) struct Event(CUevent);

// SAFETY: the driver allows any thread to use an event, and this is its only owner.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new(_: &Current) -> Result<Self> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        event.map(Self).map_err(|error| failed("making an event", error))
    }

    /// An event that records its time.
    pub(super) fn timed(_: &Current) -> Result<Self> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        event.map(Self).map_err(|error| failed("making an event", error))
    }

    /// Microseconds from this event to a later one. Both record their time and have been reached.
    pub(super) fn elapsed_us(&self, later: &Self) -> Result<f64> {
        // SAFETY: both events are borrowed and so have not been destroyed.
        let milliseconds = unsafe { result::event::elapsed(self.0, later.0) };
        milliseconds.map(|ms| ms as f64 * 1e3).map_err(|error| failed("reading the time of an event", error))
    }

    /// Records the event after the current work of a stream. The driver returns an error for an
    /// event of another context.
    pub(super) fn record(&self, current: &Current, stream: Stream) -> Result<()> {
        // SAFETY: the event lives as long as `self`, and the stream as long as the current context.
        unsafe { result::event::record(self.0, current.stream(stream)) }
            .map_err(|error| failed("recording an event", error))
    }

    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the event lives as long as `self`.
        unsafe { result::event::synchronize(self.0) }.map_err(|error| failed("waiting for the GPU", error))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: `new` or `timed` created the event, and it is destroyed once.
        _ = unsafe { result::event::destroy(self.0) };
    }
}
