//! Emulated GPUs for machines that have none: a C++ compiler makes a driver and a cuBLAS of this
//! CPU and the project's own kernels.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::project::repository;

const COMPILER: [&str; 8] =
    ["-std=c++17", "-O3", "-march=native", "-Wall", "-Werror", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"];
const DRIVER: &str = "libcuda.so.1";
pub const CUBLAS: &str = "libcublas.so.13";

/// Puts the libraries of the emulated GPU into `folder`, for a loader that looks there.
pub fn emulate(folder: &Path) {
    for library in [DRIVER, CUBLAS] {
        std::fs::copy(libraries().join(library), folder.join(library)).unwrap();
    }
}

/// The driver alone, as an image has it that brings no cuBLAS.
pub fn emulate_driver(folder: &Path) {
    emulate(folder);
    std::fs::remove_file(folder.join(CUBLAS)).unwrap();
}

/// The folder of both libraries, beside the program under test: made once of the same sources for the same kind of processor.
fn libraries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let name = format!("emulated-gpu-{}", &hash()[..16]);
        let folder = Path::new(env!("CARGO_BIN_EXE_outlier")).with_file_name(name);
        if !folder.exists() {
            let part = folder.with_extension(std::process::id().to_string());
            std::fs::create_dir_all(&part).unwrap();
            make(&part);
            // Another process may have been quicker.
            if std::fs::rename(&part, &folder).is_err() {
                assert!(folder.exists(), "{}", folder.display());
                std::fs::remove_dir_all(&part).unwrap();
            }
        }
        folder
    })
}

fn make(folder: &Path) {
    let sources = repository().join("tests/emulated_gpu");
    let build = |source: &str, library: &str, more: &[&str]| {
        let mut command = Command::new("c++");
        command.args(COMPILER).arg("-o").arg(folder.join(library)).arg(sources.join(source)).args(more);
        let output = command.output().expect("a C++ compiler: sh .ci/packages tests installs one");
        assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    };
    build("driver.cc", DRIVER, &["-Wl,-Bsymbolic", "-Wl,-soname,libcuda.so.1"]);
    let driver = folder.join(DRIVER).display().to_string();
    build("cublas.cc", CUBLAS, &[&driver, "-Wl,-soname,libcublas.so.13"]);
}

/// Of all that the libraries are made from, and of what this processor can do.
fn hash() -> String {
    let mut hash = Sha256::new();
    COMPILER.iter().for_each(|option| hash.update(option));
    for folder in ["tests/emulated_gpu", "src/cuda/kernels"] {
        let entries = std::fs::read_dir(repository().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_none_or(|kind| kind != "rs")).collect();
        files.sort();
        files.iter().for_each(|file| hash.update(std::fs::read(file).unwrap()));
    }
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = processor.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    hash.update(features.unwrap_or_default());
    format!("{:x}", hash.finalize())
}
