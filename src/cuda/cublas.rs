//! cuBLAS, which is opened at run time.

use cudarc::cublas::result::{self, CublasError};
use cudarc::cublas::sys::{self, cublasHandle_t};
use cudarc::driver::sys::CUstream;

use super::library;
use crate::error::{Error, Kind, Result};

pub(super) fn failed(what: &str, error: CublasError) -> Error {
    Error::new(Kind::Unsupported, format!("cuBLAS: {what}: {:?}", error.0))
        .hint("outlier doctor says what CUDA there is; device: \"cpu\" works everywhere")
}

/// Whether the library can be opened: from the loader's path, or from where toolkits and PyTorch keep it.
pub fn is_here() -> bool {
    static SEARCH: std::sync::Once = std::sync::Once::new();
    // SAFETY: opening the library runs its own initialisation only.
    let opens = || unsafe { sys::is_culib_present() };
    if opens() {
        return true;
    }
    SEARCH.call_once(library::load_cublas);
    opens()
}

/// The handle of a context, for one thread at a time.
pub(super) struct Blas(pub(super) cublasHandle_t);

// SAFETY: the handle may be used from any thread whose current context is its own.
unsafe impl Send for Blas {}

impl Blas {
    /// Of the current context, on one of its streams.
    pub(super) fn start(stream: CUstream) -> Result<Self> {
        let starting = |error| failed("starting", error);
        let handle = result::create_handle().map_err(starting)?;
        // SAFETY: the handle was just made, the stream is of the current context.
        unsafe { result::set_stream(handle, stream.cast()) }.map_err(starting)?;
        Ok(Self(handle))
    }

    /// # Safety
    /// The context in which it was started is current, and it is not used any more.
    pub(super) unsafe fn end(&self) {
        _ = unsafe { result::destroy_handle(self.0) };
    }
}
