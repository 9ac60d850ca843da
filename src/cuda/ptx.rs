//! The compiled kernels inside the program, as PTX: text that the driver compiles for its GPU when
//! it is opened. `make ptx` makes it from `kernels/*.cu` with NVIDIA's compiler, and a test
//! compares them.

use std::ffi::CStr;

macro_rules! file {
    ($name:literal) => {
        match CStr::from_bytes_with_nul(concat!(include_str!(concat!("ptx/", $name, ".ptx")), "\0").as_bytes()) {
            Ok(text) => ($name, text),
            Err(_) => panic!("PTX holds no NUL"),
        }
    };
}

/// Name and PTX of every file of kernels.
pub(super) const FILES: [(&str, &CStr); 8] = [
    file!("attention"),
    file!("codes"),
    file!("delta"),
    file!("elementwise"),
    file!("experts"),
    file!("mamba"),
    file!("norm"),
    file!("tap"),
];

/// Names of the kernels in a PTX file.
pub(super) fn kernels(file: &'static CStr) -> impl Iterator<Item = &'static str> {
    let text = file.to_str().expect("PTX is ASCII");
    text.split(".visible .entry ").skip(1).filter_map(|entry| entry.split('(').next())
}
