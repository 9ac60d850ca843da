//! Compiles the kernels when the feature `cuda` is on: each `.cu` file to PTX, which the driver translates for its GPU. Needs
//! NVIDIA's compiler and no GPU.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest GPUs that the kernels run on: A100 and newer.
const ARCHITECTURE: &str = "-arch=compute_80";
/// Version of PTX that drivers for CUDA 12 read, too; the kernels use nothing newer.
const PTX_VERSION: &str = ".version 8.0";

fn main() {
    println!("cargo::rerun-if-changed=src/cuda/build.rs");
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=src/cuda/kernels");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    let compiler = compiler();
    let to = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut sources: Vec<_> = std::fs::read_dir("src/cuda/kernels").expect("in the package").flatten().collect();
    sources.sort_by_key(std::fs::DirEntry::path);
    for source in sources.iter().map(std::fs::DirEntry::path).filter(|path| path.extension().is_some_and(|e| e == "cu"))
    {
        compile(&compiler, &source, &to.join(source.with_extension("ptx").file_name().expect("a file")));
    }
}

/// In `CUDA_HOME`, where `make cuda-compiler` leaves it, or on the search path.
fn compiler() -> PathBuf {
    let homes = std::env::var_os("CUDA_HOME").into_iter().map(PathBuf::from);
    let places = homes.chain([PathBuf::from("target/cuda-compiler/nvidia/cu13"), PathBuf::from("/usr/local/cuda")]);
    let found = places.map(|home| home.join("bin/nvcc")).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from("nvcc"))
}

fn compile(compiler: &Path, source: &Path, to: &Path) {
    let mut command = Command::new(compiler);
    command.args(["-ptx", "-O3", ARCHITECTURE, "-o"]).arg(to).arg(source);
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "the feature `cuda` needs NVIDIA's compiler, and starting {} failed: {error}. `make cuda` fetches it and builds; or \
             set CUDA_HOME to a CUDA toolkit",
            compiler.display()
        )
    });
    assert!(output.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(to).expect("just written");
    let lowered = text.lines().map(|line| if line.starts_with(".version") { PTX_VERSION } else { line });
    std::fs::write(to, lowered.collect::<Vec<_>>().join("\n") + "\n").expect("just read");
}
