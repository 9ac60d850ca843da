//! The kernels as the program carries them: PTX, a text which the driver translates for its GPU when one is opened. `make ptx` makes
//! it of `kernels/*.cu` with NVIDIA's compiler, and a test compares.

use std::ffi::CStr;

macro_rules! file {
    ($name:literal) => {
        match CStr::from_bytes_with_nul(concat!(include_str!(concat!("ptx/", $name, ".ptx")), "\0").as_bytes()) {
            Ok(text) => ($name, text),
            Err(_) => panic!("PTX holds no NUL"),
        }
    };
}

/// The PTX of every file of kernels, by its name.
pub(super) const FILES: [(&str, &CStr); 6] =
    [file!("attention"), file!("delta"), file!("elementwise"), file!("experts"), file!("norm"), file!("tap")];

/// Names of the kernels in a file of PTX.
pub(super) fn kernels(file: &'static CStr) -> impl Iterator<Item = &'static str> {
    let text = file.to_str().expect("PTX is ASCII");
    text.split(".visible .entry ").skip(1).filter_map(|entry| entry.split('(').next())
}
