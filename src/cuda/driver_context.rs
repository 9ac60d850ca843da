//! The driver's context of a GPU with its two streams, and the driver's errors in words.

use std::ffi::{CStr, c_int};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUstream};

use crate::error::{Error, Kind, Result};

/// Which stream work is put on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stream {
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
    context: sys::CUcontext,
    device: sys::CUdevice,
    compute: CUstream,
    copy: CUstream,
}

impl DriverContext {
    /// Opens GPU `index`, which `super::gpu` has found. What is opened is the calling thread's.
    pub(super) fn open(index: usize) -> std::result::Result<Self, DriverError> {
        // SAFETY: the device is one the driver counts; what is made is freed by `release`.
        unsafe {
            result::init()?;
            let device = result::device::get(index as c_int)?;
            let context = result::primary_ctx::retain(device)?;
            result::ctx::set_current(context)?;
            keep_freed_memory(device)?;
            let stream = || result::stream::create(result::stream::StreamKind::NonBlocking);
            let (compute, copy) = (stream()?, stream()?);
            Ok(Self { context, device, compute, copy })
        }
    }

    /// Makes this context the calling thread's.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("entering its context", error))
    }

    pub(super) fn stream(&self, stream: Stream) -> CUstream {
        match stream {
            Stream::Compute => self.compute,
            Stream::Copy => self.copy,
        }
    }

    /// Waits for both streams. In the current context.
    pub(super) fn finish(&self) -> Result<()> {
        for stream in [self.compute, self.copy] {
            // SAFETY: the streams are this context's.
            unsafe { result::stream::synchronize(stream) }.map_err(|error| failed("waiting for the GPU", error))?;
        }
        Ok(())
    }

    /// Gives everything back.
    ///
    /// # Safety
    /// This context is current, and nothing uses it or its streams any more.
    pub(super) unsafe fn release(&self) {
        unsafe {
            _ = result::stream::destroy(self.compute);
            _ = result::stream::destroy(self.copy);
            _ = result::primary_ctx::release(self.device);
        }
    }
}

/// The driver keeps memory that is freed for what is allocated next.
///
/// # Safety
/// The device's context is current.
unsafe fn keep_freed_memory(device: sys::CUdevice) -> std::result::Result<(), DriverError> {
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    unsafe {
        let pool = result::device::get_default_mem_pool(device)?;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut all).cast())
    }
}
