//! `outlier doctor`: what this machine offers to the program, what of it is used, and what stands in the way.

use crate::cuda::{self, Driver, Gpu};
use crate::terminal;
use crate::words::{counted, listed};
use crate::{gemm, memory};

/// Bytes per GB, as vendors count them.
const GB: f64 = 1e9;

/// Prints a line per finding.
pub(super) fn doctor() {
    let line = |what: &str, finding: &str| terminal::line(listed(what, 12, finding, terminal::width()));
    line("program", &format!("outlier {}", env!("CARGO_PKG_VERSION")));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = counted(threads, "thread");
    let (f32, bf16) = gemm::vector_instructions();
    line("processor", &format!("{threads}; products in f32 use {f32}, in bf16 {bf16}"));
    if let Some((total, free)) = memory::total_and_available() {
        line("memory", &format!("{:.1} GB, {:.1} GB free", total as f64 / GB, free as f64 / GB));
    }
    match Driver::open() {
        Ok(driver) => {
            line("driver", &format!("NVIDIA, CUDA {}.{}", driver.version.0, driver.version.1));
            for (i, gpu) in driver.gpus.iter().enumerate() {
                line(&format!("cuda:{i}"), &described(gpu));
            }
            line("device", &devices());
        }
        Err(missing) => {
            let (problem, hint) = missing.explained();
            line("driver", &problem);
            line("", &format!("to change that: {hint}"));
            line("device", "\"cpu\" and \"auto\": the processor");
        }
    }
}

/// What the names of devices mean here.
fn devices() -> String {
    match cuda::all() {
        Ok(gpus) => format!("\"cuda\" and \"auto\": {}; \"cpu\": the processor", cuda::name(&gpus)),
        Err(error) => {
            let hint = error.hint.unwrap_or_default();
            format!("\"cpu\" and \"auto\": the processor. {}\n{:12}to change that: {hint}", error.message, "")
        }
    }
}

fn described(gpu: &Gpu) -> String {
    let Gpu { name, memory, compute_capability: (major, minor), multiprocessors } = gpu;
    let memory = *memory as f64 / GB;
    format!("{name}, {memory:.1} GB, compute capability {major}.{minor}, {multiprocessors} multiprocessors")
}
