//! The folders of NVIDIA's libraries that are not on the loader's path: those of CUDA toolkits and
//! of PyTorch.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The folder that contains toolkits, and Python environments, whose libraries are in
/// `lib/python3.*/site-packages`.
const TOOLKITS: &str = "/usr/local";
const ENVIRONMENTS: [&str; 4] = ["/usr", "/usr/local", "/opt/conda", "/opt/venv"];

/// Loads cuBLAS from the first folder that has it. Afterwards the loader finds it by its name.
pub(super) fn load_cublas() {
    // cuBLAS depends on cublasLt, and may not find it by itself.
    let load = |folder: &PathBuf| {
        ["libcublasLt.so.", "libcublas.so."].map(|name| library(folder, name).is_some_and(|path| open(&path)))[1]
    };
    folders().iter().find(|folder| load(folder));
}

/// Folders that may contain cuBLAS.
fn folders() -> Vec<PathBuf> {
    let toolkits = inside(Path::new(TOOLKITS))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"cuda")));
    let mut folders: Vec<PathBuf> = toolkits.map(|toolkit| toolkit.join("lib64")).collect();
    let own = ["CUDA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    for environment in own.chain(ENVIRONMENTS.map(PathBuf::from)) {
        folders.push(environment.join("lib64"));
        let is_python = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"python"));
        for python in inside(&environment.join("lib")).into_iter().filter(is_python) {
            for packages in ["site-packages/nvidia", "dist-packages/nvidia"] {
                folders.extend(inside(&python.join(packages)).into_iter().map(|package| package.join("lib")));
            }
        }
    }
    folders
}

/// The entries of a folder in descending order of names, so that the newest version comes first.
/// Empty if the folder does not exist.
fn inside(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.reverse();
    paths
}

/// The file in `folder` whose name begins with `name`, which a version follows.
fn library(folder: &Path, name: &str) -> Option<PathBuf> {
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|file| file.as_bytes().starts_with(name.as_bytes()));
    inside(folder).into_iter().find(is_it)
}

/// Opens a library for the whole process; it is never closed.
fn open(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the path is a C string, and the loader runs only the library's own initialisers.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    !library.is_null()
}
