//! Pinned host memory, from which the GPU copies while the host goes on, and the marks that say how far it is.

use std::ops::Range;

use cudarc::driver::result;
use cudarc::driver::sys::{self, CUdeviceptr, CUevent};

use super::driver_context::{Current, Stream, failed};
use crate::error::Result;

/// Host memory that stays where it is, for all GPUs.
pub(super) struct Pinned(*mut u8, usize);

// SAFETY: it is plain memory with one owner, and any thread may free it.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Bytes of each half that a reading thread fills.
    pub(super) const BYTES: usize = 8 << 20;

    fn new(_: &Current, bytes: usize) -> Result<Self> {
        // SAFETY: a context is current, and what is allocated is freed when this is dropped.
        let address = unsafe { result::malloc_host(bytes, sys::CU_MEMHOSTALLOC_PORTABLE) };
        let address = address.map_err(|error| failed(&format!("pinning {bytes} bytes of host memory"), error))?;
        // SAFETY: so many bytes were just allocated. They are written here because `Half::bytes` lets others read them.
        unsafe { address.cast::<u8>().write_bytes(0, bytes) };
        Ok(Self(address.cast(), bytes))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: `new` has allocated it, and nothing else frees it.
        _ = unsafe { result::free_host(self.0.cast()) };
    }
}

/// Pinned memory and the marks behind the copies that last left it.
pub(super) struct Half {
    memory: Pinned,
    in_flight: Vec<Event>,
}

impl Half {
    pub(super) fn new(current: &Current, bytes: usize) -> Result<Self> {
        Ok(Self { memory: Pinned::new(current, bytes)?, in_flight: Vec::new() })
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
        // SAFETY: `Pinned::new` has allocated and written as many bytes, and they are borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.memory.0, self.memory.1) }
    }

    /// Copies a range of the bytes to the GPU of the current context, in the order of its `stream`. They stay as they are
    /// until `wait`: whoever writes to them before changes what arrives.
    ///
    /// # Safety
    /// `to` leads to at least so many bytes of memory of this GPU, which are used and freed in the order of `stream`.
    pub(super) unsafe fn send(
        &mut self,
        current: &Current,
        range: Range<usize>,
        to: CUdeviceptr,
        stream: Stream,
    ) -> Result<()> {
        // Made first: a copy under way must not be left without its mark.
        let sent = Event::new(current)?;
        let bytes = &self.bytes()[range];
        // SAFETY: the caller promises the room at `to`. The memory here is pinned, and is freed only after `wait`, or after
        // the stream has come to its end where the mark could not be set.
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

impl Drop for Half {
    fn drop(&mut self) {
        _ = self.wait();
    }
}

/// A mark on a stream.
pub(super) struct Event(CUevent);

// SAFETY: the driver lets any thread use an event, and this is its one owner.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new(_: &Current) -> Result<Self> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        event.map(Self).map_err(|error| failed("making an event", error))
    }

    /// One that knows when it was passed.
    pub(super) fn timed(_: &Current) -> Result<Self> {
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT);
        event.map(Self).map_err(|error| failed("making an event", error))
    }

    /// Microseconds from this mark to a later one; both are timed, and passed.
    pub(super) fn until(&self, later: &Self) -> Result<f64> {
        // SAFETY: both events live as long as their owners, which are borrowed.
        let milliseconds = unsafe { result::event::elapsed(self.0, later.0) };
        milliseconds.map(|ms| ms as f64 * 1e3).map_err(|error| failed("reading the time of an event", error))
    }

    /// Sets the mark behind what is on a stream now. An event of another context is refused by the driver.
    pub(super) fn record(&self, current: &Current, stream: Stream) -> Result<()> {
        // SAFETY: the event lives as long as `self`, the stream as long as the context that is current.
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
        // SAFETY: `new` or `timed` has made it, and it is destroyed once.
        _ = unsafe { result::event::destroy(self.0) };
    }
}
