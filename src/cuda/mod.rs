//! GPUs of this machine by CUDA. No library is linked: the program also starts without a driver or
//! a GPU, and an error then says what is missing.

mod account;
mod array;
mod blas;
mod context;
mod cublas;
mod declare;
mod driver;
mod driver_context;
mod heads;
mod kernels;
mod launch;
mod library;
mod memory;
mod ptx;
#[cfg(test)]
mod signatures;
mod staging;
pub mod table;
mod timeline;
mod trace;

pub use array::{Array, Element};
pub use blas::{Precision, gemm};
pub use context::Context;
pub use driver::{Driver, Gpu, Missing};
pub use heads::{HeadSizes, Heads, Operands};
pub use launch::Indices;
pub use trace::write_timeline;

use crate::error::{Error, Result};

/// The oldest compute capability for which the kernels are compiled, that of the A100. `.ci/ptx`
/// has the same number.
const OLDEST: (u32, u32) = (8, 0);

/// Checks that GPU `index` of this machine can compute.
///
/// # Errors
/// `bad_argument` or `unsupported` with the problem: the driver, the device, its compute
/// capability, or cuBLAS.
pub fn check_usable(index: usize) -> Result<()> {
    let Gpu { name, compute_capability: (major, minor), .. } = gpu(index)?;
    if (major, minor) < OLDEST {
        let problem = format!("cuda:{index} ({name}) has compute capability {major}.{minor}");
        return Err(Error::unsupported(problem)
            .hint(format!("the kernels need {}.{}: an A100, A10, RTX 30 or newer", OLDEST.0, OLDEST.1)));
    }
    check_cublas()
}

/// Checks that cuBLAS can be opened. It comes with a CUDA toolkit and with PyTorch.
fn check_cublas() -> Result<()> {
    if cublas::is_available() {
        return Ok(());
    }
    let problem = "no CUDA: the library libcublas.so is not found";
    Err(Error::unsupported(problem).hint(
        "install it (apt install libcublas-13-0, or pip install nvidia-cublas) or put its folder on LD_LIBRARY_PATH: docs/gpu.md",
    ))
}

/// The GPUs in a device name: [1] for "cuda:1", [0, 2] for "cuda:0,2". None for another kind of
/// name, and if a GPU is named twice.
pub fn indices(name: &str) -> Option<Vec<usize>> {
    let indices: Vec<usize> = name.strip_prefix("cuda:")?.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let twice = indices.iter().enumerate().any(|(i, index)| indices[..i].contains(index));
    (!twice).then_some(indices)
}

/// Checks that `name` is a valid device name, on any machine.
///
/// # Errors
/// `bad_argument` if it is not.
pub fn check_name(name: &str) -> Result<()> {
    match ["cpu", "auto", "cuda"].contains(&name) || indices(name).is_some() {
        true => Ok(()),
        false => Err(Error::bad_argument(format!("device \"{name}\" is unknown"))
            .hint("device is \"auto\", \"cpu\", \"cuda\", \"cuda:N\" or \"cuda:N,M\"")),
    }
}

fn driver() -> Result<Driver> {
    Driver::open().map_err(|missing| {
        let (problem, hint) = missing.explained();
        Error::unsupported(format!("no CUDA: {problem}")).hint(hint)
    })
}

/// True if NVIDIA's driver is installed, even if it does not work.
pub fn has_driver() -> bool {
    !matches!(Driver::open(), Err(Missing::Library(_)))
}

/// The device name of some GPUs, which `indices` parses. No GPUs are "cpu".
pub fn name(gpus: &[usize]) -> String {
    match gpus {
        [] => "cpu".to_string(),
        gpus => format!("cuda:{}", gpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")),
    }
}

/// All GPUs of this machine that can compute.
///
/// # Errors
/// The problem with the first GPU, if none can compute.
pub fn all() -> Result<Vec<usize>> {
    let found: Vec<usize> = (0..driver()?.gpus.len()).filter(|index| check_usable(*index).is_ok()).collect();
    match found.is_empty() {
        true => check_usable(0).map(|()| found),
        false => Ok(found),
    }
}

/// GPU `index` of this machine.
///
/// # Errors
/// A message about the library, driver or device that is missing.
pub fn gpu(index: usize) -> Result<Gpu> {
    let driver = driver()?;
    let count = driver.gpus.len();
    driver.gpus.into_iter().nth(index).ok_or_else(|| {
        let there = match count {
            0 => "this machine has no GPU: use device: \"cpu\" or \"auto\"".to_string(),
            1 => "this machine has one GPU, cuda:0".to_string(),
            count => format!("this machine has {count} GPUs, cuda:0 to cuda:{}", count - 1),
        };
        Error::bad_argument(format!("there is no cuda:{index}")).hint(there)
    })
}

#[cfg(test)]
mod tests {
    use super::{indices, name};

    #[test]
    fn names_of_gpus() {
        assert_eq!(["cuda:0", "cuda:3", "cuda:2,0"].map(indices), [Some(vec![0]), Some(vec![3]), Some(vec![2, 0])]);
        let others = ["cpu", "cuda", "cuda:", "cuda:x", "cuda1", "cuda:0,", "cuda:1,1", "gpu", ""];
        assert!(others.iter().all(|name| indices(name).is_none()));
        assert_eq!([&[][..], &[1], &[0, 2]].map(name), ["cpu", "cuda:1", "cuda:0,2"]);
    }
}
