//! The cuBLAS library, opened at run time.

use cudarc::cublas::result::{self, CublasError};
use cudarc::cublas::sys::{self, cublasHandle_t};

use super::driver_context::{Current, Stream};
use super::library;
use crate::error::{Error, Kind, Result};

pub(super) fn failed(what: &str, error: CublasError) -> Error {
    let message = format!("cuBLAS: {what}: {:?}", error.0);
    match error.0 {
        sys::cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE => Error::internal(message),
        _ => Error::new(Kind::Unsupported, message)
            .hint("outlier doctor says what CUDA there is; device: \"cpu\" works everywhere"),
    }
}

/// True if cuBLAS can be opened, from the loader's path or from the usual folders of toolkits and
/// PyTorch.
pub(super) fn is_available() -> bool {
    static SEARCH: std::sync::Once = std::sync::Once::new();
    // SAFETY: opening the library runs only its own initialisers.
    let opens = || unsafe { sys::is_culib_present() };
    if opens() {
        return true;
    }
    SEARCH.call_once(library::load_cublas);
    opens()
}

/// The cuBLAS handle of a context, for one thread at a time.
pub(super) struct Blas(pub(super) cublasHandle_t);

// SAFETY: cuBLAS allows any thread to use a handle, one at a time, while the handle's context is
// current.
unsafe impl Send for Blas {}

impl Blas {
    /// Creates a handle in the current context that works on its compute stream.
    pub(super) fn start(current: &Current) -> Result<Self> {
        let starting = |error| failed("starting", error);
        let handle = result::create_handle().map_err(starting)?;
        // SAFETY: the handle was just created in the context of this stream. The stream outlives
        // the handle, because `end` is called before the stream is destroyed.
        unsafe { result::set_stream(handle, current.stream(Stream::Compute).cast()) }.map_err(starting)?;
        Ok(Self(handle))
    }

    /// # Safety
    /// The context of the handle is current, and the handle is not used any more.
    pub(super) unsafe fn end(&self, _: &Current) {
        // SAFETY: `start` created the handle, and the caller promises that this is its last use.
        _ = unsafe { result::destroy_handle(self.0) };
    }
}
