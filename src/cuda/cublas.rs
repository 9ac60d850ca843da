//! cuBLAS, which is opened at run time.

use cudarc::cublas::result::{self, CublasError};
use cudarc::cublas::sys::{self, cublasHandle_t};

use super::driver_context::{Current, Stream};
use super::library;
use crate::error::{Error, Kind, Result};

pub(super) fn failed(what: &str, error: CublasError) -> Error {
    Error::new(Kind::Unsupported, format!("cuBLAS: {what}: {:?}", error.0))
        .hint("outlier doctor says what CUDA there is; device: \"cpu\" works everywhere")
}

/// Whether the library can be opened: from the loader's path, or from where toolkits and PyTorch keep it.
pub fn is_here() -> bool {
    static SEARCH: std::sync::Once = std::sync::Once::new();
    // SAFETY: to open the library runs its own initialisation, which is made for that.
    let opens = || unsafe { sys::is_culib_present() };
    if opens() {
        return true;
    }
    SEARCH.call_once(library::load_cublas);
    opens()
}

/// The handle of a context, for one thread at a time.
pub(super) struct Blas(pub(super) cublasHandle_t);

// SAFETY: cuBLAS lets any thread use a handle, one at a time, whose current context is the handle's.
unsafe impl Send for Blas {}

impl Blas {
    /// Of the current context, on its stream that computes.
    pub(super) fn start(current: &Current) -> Result<Self> {
        let starting = |error| failed("starting", error);
        let handle = result::create_handle().map_err(starting)?;
        // SAFETY: the handle was just made in the context of this stream, which outlives it: `end` comes first.
        unsafe { result::set_stream(handle, current.stream(Stream::Compute).cast()) }.map_err(starting)?;
        Ok(Self(handle))
    }

    /// # Safety
    /// The context in which it was started is current, and it is not used any more.
    pub(super) unsafe fn end(&self, _: &Current) {
        // SAFETY: `start` has made the handle, and the caller promises that this is its last use.
        _ = unsafe { result::destroy_handle(self.0) };
    }
}
