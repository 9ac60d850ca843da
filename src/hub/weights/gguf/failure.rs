//! What can be wrong with a GGUF file, with the words for it.

use crate::error::{self, Error};

const AGAIN: &str = "the file is damaged or incomplete; download it again";
const ELSEWHERE: &str =
    "use the model that the file was made from, in safetensors; docs/quantised.md lists what is read of GGUF";

/// `place` is the name of the file in messages.
#[derive(Debug)]
pub(super) enum GgufFailure {
    /// The file does not agree with itself.
    Damaged { place: String, problem: String },
    /// The file is sound, and has what is not read.
    Unsupported { place: String, what: String },
}

impl error::Failure for GgufFailure {
    fn told(&self) -> Error {
        match self {
            Self::Damaged { place, problem } => Error::corrupt(format!("reading {place}: {problem}")).hint(AGAIN),
            Self::Unsupported { place, what } => Error::unsupported(format!("reading {place}: {what}")).hint(ELSEWHERE),
        }
    }
}
