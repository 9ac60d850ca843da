//! The kernels as the program carries them: PTX, a text which the driver translates for its GPU when one is opened. `make ptx` makes
//! it of `kernels/*.cu` with NVIDIA's compiler, and a test compares.

use std::ffi::CStr;

macro_rules! file {
    ($name:literal) => {
        match CStr::from_bytes_with_nul(concat!(include_str!(concat!("ptx/", $name, ".ptx")), "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => panic!("PTX holds no NUL"),
        }
    };
}

/// The PTX of every file of kernels.
pub(super) const FILES: [&CStr; 6] =
    [file!("attention"), file!("delta"), file!("elementwise"), file!("experts"), file!("norm"), file!("tap")];

/// Names of the kernels in a file of PTX.
pub(super) fn kernels(file: &'static CStr) -> impl Iterator<Item = &'static str> {
    let text = file.to_str().expect("PTX is ASCII");
    text.split(".visible .entry ").skip(1).filter_map(|entry| entry.split('(').next())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{FILES, kernels};

    #[test]
    fn the_program_carries_the_kernels_of_every_file() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda/kernels");
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let sources = entries.filter(|path| path.extension().is_some_and(|extension| extension == "cu"));
        let text: String = sources.map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let declared = text.split("extern \"C\" __global__ void ").skip(1).filter_map(|rest| rest.split('(').next());
        // One is a macro, whose names stand where it is used.
        let used = text.split("\nDELTA_RULE(").skip(1).filter_map(|rest| rest.split(',').next());
        let written: BTreeSet<&str> = declared.filter(|name| *name != "name").chain(used).collect();
        let carried: BTreeSet<&str> = FILES.into_iter().flat_map(kernels).collect();
        assert_eq!(carried, written);
        assert!(carried.contains("row_norm") && carried.contains("delta_rule_128"), "{carried:?}");
    }
}
