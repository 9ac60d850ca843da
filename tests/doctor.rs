//! Tests of `outlier doctor` and `device: "cuda"` on machines without a driver, with one that
//! refuses, and with one that has GPUs. A C compiler makes the driver here, with the functions and
//! numbers of NVIDIA's.

use std::path::Path;
use std::process::Command;

use crate::project::program;

/// A driver that answers `cuInit` with `INIT` and describes `COUNT` devices.
const DRIVER: &str = r#"
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return device < 40 ? 101 : 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Imaginary 24", length); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 6 : attribute == 16 ? 84 : -1;
  return 0;
}
int cuGetErrorName(int code, const char **name) {
  *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH";
  return 0;
}
"#;

fn driver(folder: &Path, init: u32, count: u32) {
    let source = folder.join("driver.c");
    std::fs::write(&source, DRIVER).unwrap();
    let (init, count) = (format!("-DINIT={init}"), format!("-DCOUNT={count}"));
    let to = folder.join("libcuda.so.1");
    let done = Command::new("cc").args(["-shared", "-fPIC", &init, &count, "-o"]).arg(to).arg(source).status().unwrap();
    assert!(done.success());
}

/// The program's output on a machine whose libraries are in `folder`.
fn doctor(folder: &Path) -> String {
    let mut command = Command::new(program());
    let output = command.arg("doctor").env("LD_LIBRARY_PATH", folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What loading a model on `device` answers there.
fn loading(folder: &Path, device: &str) -> String {
    let script = folder.join("load.rhai");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/shakespeare-olmoe");
    std::fs::write(&script, format!("load_model(\"{model}\", #{{ device: \"{device}\" }});")).unwrap();
    let mut command = Command::new(program());
    let output = command.arg("run").arg(script).current_dir(folder).env("LD_LIBRARY_PATH", folder).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn gpus_are_described_by_their_driver() {
    let folder = folder();
    driver(folder.path(), 0, 2);
    let report = doctor(folder.path());
    assert!(report.contains("NVIDIA, CUDA 12.8"), "{report}");
    for name in ["cuda:0", "cuda:1"] {
        let line = report.lines().find(|line| line.starts_with(name)).expect("a line per GPU");
        assert!(line.ends_with("Imaginary 24, 25.8 GB, compute capability 8.6, 84 multiprocessors"), "{line}");
    }
    let answer = loading(folder.path(), "cuda:2");
    assert!(answer.contains("there is no cuda:2") && answer.contains("2 GPUs, cuda:0 to cuda:1"), "{answer}");
    let answer = loading(folder.path(), "cuda:1");
    assert!(answer.contains("libcublas.so is not found"), "{answer}");
}

#[test]
fn a_driver_that_sees_no_gpu_or_refuses_says_so() {
    let folder = folder();
    driver(folder.path(), 100, 0);
    for text in [doctor(folder.path()), loading(folder.path(), "cuda")] {
        assert!(text.contains("sees no GPU (CUDA_ERROR_NO_DEVICE)") && text.contains("--gres=gpu:1"), "{text}");
    }
    driver(folder.path(), 803, 0);
    let report = doctor(folder.path());
    assert!(report.contains("cuInit gives error 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"), "{report}");
}

#[test]
fn a_library_that_is_no_driver_is_told_from_none() {
    let folder = folder();
    std::fs::write(folder.path().join("libcuda.so.1"), "not a library").unwrap();
    let report = doctor(folder.path());
    assert!(report.contains("NVIDIA's driver is not installed") && report.contains("--gpus all"), "{report}");
    assert!(report.contains("\"cpu\" and \"auto\": the processor"), "{report}");
}

#[test]
fn a_device_that_is_none_is_a_mistake() {
    let folder = folder();
    for name in ["gpu", "cuda:x", "CPU"] {
        let answer = loading(folder.path(), name);
        assert!(answer.contains(&format!("device \"{name}\" is unknown")), "{answer}");
        assert!(answer.contains("\"cuda\", \"cuda:N\" or \"cuda:N,M\""), "{answer}");
    }
}
