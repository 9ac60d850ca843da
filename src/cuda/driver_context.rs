//! The driver's context of a GPU with its two streams, and the driver's errors in words.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::ptr::null_mut;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUcontext, CUstream};

use crate::error::{Error, Kind, Result};

/// Which stream work is put on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stream {
    Compute,
    Copy,
}

/// An error of the driver in words.
pub(super) fn failed(what: &str, error: DriverError) -> Error {
    let name = error.error_name().map_or("unknown error".into(), CStr::to_string_lossy).into_owned();
    match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => out_of_memory(format!("{what}: the GPU's memory is full")),
        _ => Error::new(Kind::Unsupported, format!("CUDA: {what}: {name}"))
            .hint("outlier doctor says what CUDA there is; device: \"cpu\" works everywhere"),
    }
}

pub(super) fn out_of_memory(problem: String) -> Error {
    Error::new(Kind::Oom, problem).hint("fewer or shorter sequences, a smaller memory_budget, or a larger GPU")
}

/// What the driver has opened of a GPU.
pub(super) struct DriverContext {
    context: CUcontext,
    device: sys::CUdevice,
    compute: CUstream,
    copy: CUstream,
}

impl DriverContext {
    /// Opens GPU `index`, which `super::gpu` has found.
    pub(super) fn open(index: usize) -> std::result::Result<Self, DriverError> {
        result::init()?;
        let device = result::device::get(index as c_int)?;
        // SAFETY: the driver has just given this device; `release` gives the context back.
        let context = unsafe { result::primary_ctx::retain(device)? };
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context)? };
        keep_freed_memory(device)?;
        let stream = || result::stream::create(result::stream::StreamKind::NonBlocking);
        Ok(Self { context, device, compute: stream()?, copy: stream()? })
    }

    /// Makes this context the calling thread's, for as long as the guard lives.
    pub(super) fn enter(&self) -> Result<Current<'_>> {
        // SAFETY: the context is retained until `release`, whose caller promises that nobody enters it any more.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("entering its context", error))?;
        Ok(Current { driver: self, before: ENTERED.replace(self.context) })
    }

    /// Gives everything back.
    ///
    /// # Safety
    /// Nothing uses this context or its streams any more, and nobody enters it again.
    pub(super) unsafe fn release(&self) {
        // SAFETY: `open` made both streams and retained the context, and the caller promises that this is their end.
        unsafe {
            _ = result::stream::destroy(self.compute);
            _ = result::stream::destroy(self.copy);
            _ = result::primary_ctx::release(self.device);
        }
    }
}

thread_local! {
    /// The context of the innermost guard of this thread; null where there is none.
    static ENTERED: Cell<CUcontext> = const { Cell::new(null_mut()) };
}

/// Says that a GPU's context is current on this thread. What the driver does in the current context asks for it, and streams
/// are to be had from it alone. Guards live in local variables only, so that the last to begin is the first to end; the
/// context that was current before is then current again.
pub(super) struct Current<'a> {
    driver: &'a DriverContext,
    /// What the guard around this one has entered; null where there is none.
    before: CUcontext,
}

impl Current<'_> {
    pub(super) fn stream(&self, stream: Stream) -> CUstream {
        match stream {
            Stream::Compute => self.driver.compute,
            Stream::Copy => self.driver.copy,
        }
    }

    /// Waits until a stream has done all that is on it.
    pub(super) fn synchronize(&self, stream: Stream) -> std::result::Result<(), DriverError> {
        // SAFETY: the stream lives as long as its context, which `self` borrows.
        unsafe { result::stream::synchronize(self.stream(stream)) }
    }

    /// Waits for both streams.
    pub(super) fn finish(&self) -> Result<()> {
        [Stream::Compute, Stream::Copy]
            .into_iter()
            .try_for_each(|stream| self.synchronize(stream).map_err(|error| failed("waiting for the GPU", error)))
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        ENTERED.set(self.before);
        if !self.before.is_null() && self.before != self.driver.context {
            // SAFETY: the guard that has entered it lives on this thread, and keeps it from being released.
            _ = unsafe { result::ctx::set_current(self.before) };
        }
    }
}

/// The driver keeps memory that is freed for what is allocated next.
fn keep_freed_memory(device: sys::CUdevice) -> std::result::Result<(), DriverError> {
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the driver knows the device, or answers with an error.
    let pool = unsafe { result::device::get_default_mem_pool(device)? };
    // SAFETY: this attribute of a pool is a number of 64 bits, which outlives the call.
    unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut all).cast()) }
}
