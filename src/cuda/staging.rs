//! Pinned host memory, from which the GPU copies while the host goes on, and the marks that say how far it is.

use std::ops::Range;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdeviceptr, CUevent, CUstream};

use super::driver_context::failed;
use crate::error::Result;

/// Host memory that stays where it is, for all GPUs.
pub(super) struct Pinned(*mut u8, usize);

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Bytes of each half that a reading thread fills.
    pub(super) const BYTES: usize = 8 << 20;

    fn new(bytes: usize) -> Result<Self> {
        // SAFETY: freed when dropped.
        let address = unsafe { result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_PORTABLE) };
        let address = address.map_err(|error| failed(&format!("pinning {bytes} bytes of host memory"), error))?;
        // SAFETY: just allocated; reading it must not meet bytes that were never written.
        unsafe { address.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self(address.cast(), bytes))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`.
        _ = unsafe { result::free_host(self.0.cast()) };
    }
}

/// Pinned memory and the marks behind the copies that last left it.
pub(super) struct Half {
    memory: Pinned,
    in_flight: Vec<Event>,
}

impl Half {
    pub(super) fn new(bytes: usize) -> Result<Self> {
        Ok(Self { memory: Pinned::new(bytes)?, in_flight: Vec::new() })
    }

    /// Waits until the memory may be written again: for all copies, whatever becomes of one of them.
    pub(super) fn wait(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for sent in self.in_flight.drain(..) {
            outcome = outcome.and(sent.wait());
        }
        outcome
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `new` allocated and wrote as many bytes, and they are borrowed with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.0, self.memory.1) }
    }

    /// Copies a range of the bytes to the GPU of the current context, in the order of its `stream`.
    pub(super) fn send(&mut self, range: Range<usize>, to: CUdeviceptr, stream: CUstream) -> Result<()> {
        // Made first: a copy under way must not be left without its mark.
        let sent = Event::new()?;
        let bytes = &self.bytes()[range];
        // SAFETY: the memory is pinned, lives as long as `self`, and is written again only after `wait`, or after the
        // stream has come to its end where the mark could not be set.
        unsafe { result::memcpy_htod_async(to, bytes, stream) }.map_err(|error| failed("copying to the GPU", error))?;
        if let Err(error) = sent.record(stream) {
            // SAFETY: the stream belongs to the current context.
            _ = unsafe { result::stream::synchronize(stream) };
            return Err(error);
        }
        self.in_flight.push(sent);
        Ok(())
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        _ = self.wait();
    }
}

/// A mark on a stream.
pub(super) struct Event(CUevent);

// SAFETY: as for `Context`.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new() -> Result<Self> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        event.map(Self).map_err(|error| failed("making an event", error))
    }

    /// One that knows when it was passed.
    pub(super) fn timed() -> Result<Self> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        event.map(Self).map_err(|error| failed("making an event", error))
    }

    /// Microseconds from this mark to a later one; both are timed, and passed.
    pub(super) fn until(&self, later: &Self) -> Result<f64> {
        // SAFETY: both events live.
        let milliseconds = unsafe { result::event::elapsed(self.0, later.0) };
        milliseconds.map(|ms| ms as f64 * 1e3).map_err(|error| failed("reading the time of an event", error))
    }

    pub(super) fn record(&self, stream: CUstream) -> Result<()> {
        // SAFETY: both belong to the current context.
        unsafe { result::event::record(self.0, stream) }.map_err(|error| failed("recording an event", error))
    }

    pub(super) fn wait(&self) -> Result<()> {
        // SAFETY: the event was made by `new`.
        unsafe { result::event::synchronize(self.0) }.map_err(|error| failed("waiting for the GPU", error))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and destroyed once.
        _ = unsafe { result::event::destroy(self.0) };
    }
}
