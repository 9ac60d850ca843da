//! The driver's context of a GPU with its two streams, and error messages for the driver's errors.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::ptr::null_mut;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUcontext, CUstream};

use crate::error::{Error, Kind, Result};

/// One of the two streams of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stream {
    Compute,
    Copy,
}

/// The error for a failed call of the driver.
pub(super) fn failed(what: &str, error: DriverError) -> Error {
    let name = error.error_name().map_or("unknown error".into(), CStr::to_string_lossy).into_owned();
    match kind(error.0) {
        Kind::Oom => out_of_memory(format!("{what}: the GPU's memory is full")),
        Kind::Internal => Error::internal(format!("CUDA: {what}: {name}")),
        kind => Error::new(kind, format!("CUDA: {what}: {name}"))
            .hint("outlier doctor says what CUDA there is; device: \"cpu\" works everywhere"),
    }
}

/// The kind of an error of the driver. A wrong argument, or an access outside of an array, is a
/// fault of the program: a script that leaves out what is not supported must not leave out faults.
fn kind(error: sys::CUresult) -> Kind {
    use sys::CUresult::*;
    match error {
        CUDA_ERROR_OUT_OF_MEMORY => Kind::Oom,
        CUDA_ERROR_INVALID_VALUE
        | CUDA_ERROR_INVALID_CONTEXT
        | CUDA_ERROR_INVALID_HANDLE
        | CUDA_ERROR_ILLEGAL_ADDRESS
        | CUDA_ERROR_ASSERT
        | CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUDA_ERROR_MISALIGNED_ADDRESS
        | CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUDA_ERROR_INVALID_PC
        | CUDA_ERROR_LAUNCH_FAILED => Kind::Internal,
        _ => Kind::Unsupported,
    }
}

pub(super) fn out_of_memory(problem: String) -> Error {
    Error::new(Kind::Oom, problem).hint("fewer or shorter sequences, a smaller memory_budget, or a larger GPU")
}

/// The driver's handles for a GPU.
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
        // SAFETY: the driver returned this device just now, and `release` releases the context.
        let context = unsafe { result::primary_ctx::retain(device)? };
        // SAFETY: the context was just retained.
        unsafe { result::ctx::set_current(context)? };
        keep_freed_memory(device)?;
        let stream = || result::stream::create(result::stream::StreamKind::NonBlocking);
        Ok(Self { context, device, compute: stream()?, copy: stream()? })
    }

    /// Makes this context current on the calling thread, until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Current<'_>> {
        // SAFETY: the context is retained until `release`, whose caller promises that nobody enters
        // it afterwards.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("entering its context", error))?;
        Ok(Current { driver: self, before: ENTERED.replace(self.context) })
    }

    /// Destroys the streams and releases the context.
    ///
    /// # Safety
    /// Nothing uses this context or its streams any more, and nobody enters it again.
    pub(super) unsafe fn release(&self) {
        // SAFETY: `open` created both streams and retained the context, and the caller promises
        // that they are not used any more.
        unsafe {
            _ = result::stream::destroy(self.compute);
            _ = result::stream::destroy(self.copy);
            _ = result::primary_ctx::release(self.device);
        }
    }
}

thread_local! {
    /// The context of the innermost guard on this thread, or null.
    static ENTERED: Cell<CUcontext> = const { Cell::new(null_mut()) };
}

/// A guard that makes a GPU's context current on this thread. Functions that need the current
/// context take it as an argument, and streams are available only through it. Guards are kept in
/// local variables, so that they are dropped in reverse order; dropping one makes the previous
/// context current again.
pub(super) struct Current<'a> {
    driver: &'a DriverContext,
    /// The context of the enclosing guard, or null.
    before: CUcontext,
}

impl Current<'_> {
    pub(super) fn stream(&self, stream: Stream) -> CUstream {
        match stream {
            Stream::Compute => self.driver.compute,
            Stream::Copy => self.driver.copy,
        }
    }

    /// Waits until a stream has finished all of its work.
    pub(super) fn synchronize(&self, stream: Stream) -> std::result::Result<(), DriverError> {
        // SAFETY: the stream lives as long as its context, which `self` borrows.
        unsafe { result::stream::synchronize(self.stream(stream)) }
    }

    /// Waits until both streams have finished all of their work.
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
            // SAFETY: the guard that entered this context still lives on this thread and keeps the
            // context from being released.
            _ = unsafe { result::ctx::set_current(self.before) };
        }
    }
}

/// Makes the driver keep freed memory for later allocations.
fn keep_freed_memory(device: sys::CUdevice) -> std::result::Result<(), DriverError> {
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the driver checks the device and returns an error if it is unknown.
    let pool = unsafe { result::device::get_default_mem_pool(device)? };
    // SAFETY: this attribute is a 64-bit number, which outlives the call.
    unsafe { result::mem_pool::set_attribute(pool, attribute, (&raw mut all).cast()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_access_of_a_kernel_is_no_missing_support() {
        assert_eq!(kind(sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), Kind::Internal);
        assert_eq!(kind(sys::CUresult::CUDA_ERROR_INVALID_VALUE), Kind::Internal);
        assert_eq!(kind(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY), Kind::Oom);
        assert_eq!(kind(sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU), Kind::Unsupported);
    }
}
