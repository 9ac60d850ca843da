//! What CUDA there is on this machine, and what stands in the way of it. Nothing is linked: the program starts where there is
//! neither driver nor GPU.

#[cfg(feature = "cuda")]
mod array;
#[cfg(feature = "cuda")]
mod blas;
#[cfg(feature = "cuda")]
mod context;
mod driver;
#[cfg(feature = "cuda")]
mod library;
#[cfg(feature = "cuda")]
mod memory;
#[cfg(feature = "cuda")]
mod staging;

#[cfg(feature = "cuda")]
pub use array::{Array, Element};
#[cfg(feature = "cuda")]
pub use blas::{Batch, Precision, Sizes, product, products};
#[cfg(feature = "cuda")]
pub use context::{Arg, Context, Stream, THREADS};
pub use driver::{Driver, Gpu, Missing};
#[cfg(feature = "cuda")]
pub use memory::Buffer;

use crate::error::{Error, Result};

/// The oldest GPUs that the kernels are compiled for: A100. `build.rs` says the same.
#[cfg(feature = "cuda")]
const OLDEST: (u32, u32) = (8, 0);

/// Whether GPU `index` of this machine can compute.
///
/// # Errors
/// With what is missing: the driver, the device, a newer device, or cuBLAS.
#[cfg(feature = "cuda")]
pub fn usable(index: usize) -> Result<()> {
    let Gpu { name, compute_capability: (major, minor), .. } = gpu(index)?;
    if (major, minor) < OLDEST {
        let problem = format!("cuda:{index} ({name}) has compute capability {major}.{minor}");
        return Err(Error::unsupported(problem)
            .hint(format!("the kernels need {}.{}: an A100, A10, RTX 30 or newer", OLDEST.0, OLDEST.1)));
    }
    products_here()
}

/// Whether cuBLAS, which multiplies matrices, can be opened; it comes with a CUDA toolkit, and with PyTorch.
#[cfg(feature = "cuda")]
fn products_here() -> Result<()> {
    if blas::is_here() {
        return Ok(());
    }
    let problem = "no CUDA: the library libcublas.so is not found";
    Err(Error::unsupported(problem).hint(
        "install it (apt install libcublas-13-0, or pip install nvidia-cublas) or put its folder on LD_LIBRARY_PATH: docs/gpu.md",
    ))
}

/// Which GPU `name` asks for: "cuda" is the first, "cuda:1" the second. None where it asks for something else.
pub fn index(name: &str) -> Option<usize> {
    match name.strip_prefix("cuda")? {
        "" => Some(0),
        rest => rest.strip_prefix(':')?.parse().ok(),
    }
}

/// GPU `index` of this machine, or an error that says which library, driver or device is missing.
pub fn gpu(index: usize) -> Result<Gpu> {
    let driver = Driver::open().map_err(|missing| {
        let (problem, hint) = missing.explained();
        Error::unsupported(format!("no CUDA: {problem}")).hint(hint)
    })?;
    let count = driver.gpus.len();
    driver.gpus.into_iter().nth(index).ok_or_else(|| {
        let there = match count {
            1 => "this machine has one GPU, cuda:0".to_string(),
            count => format!("this machine has {count} GPUs, cuda:0 to cuda:{}", count.saturating_sub(1)),
        };
        Error::bad_argument(format!("there is no cuda:{index}")).hint(there)
    })
}

#[cfg(test)]
mod tests {
    use super::index;

    #[test]
    fn names_of_gpus() {
        assert_eq!([index("cuda"), index("cuda:0"), index("cuda:3")], [Some(0), Some(0), Some(3)]);
        assert!(["cpu", "cuda:", "cuda:x", "cuda1", "gpu", ""].iter().all(|name| index(name).is_none()));
    }
}
