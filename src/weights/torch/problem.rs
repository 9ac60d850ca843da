//! The reasons why a PyTorch file is rejected.

use crate::error::Error;

#[derive(Debug, PartialEq)]
pub(super) enum Problem {
    /// It is not the output of `torch.save`: truncated, changed, or malicious.
    Damaged(String),
    /// The pickle needs something other than tensors, such as a function call.
    Foreign(String),
    /// A valid file of an unsupported kind.
    Unsupported(String),
}

pub(super) type Outcome<T> = std::result::Result<T, Problem>;

const AGAIN: &str = "the file is damaged or incomplete; download it again";
const TENSORS_ONLY: &str = "load no such file in Python unless you trust whoever made it; a file of weights needs tensors only: look for \
                            this model's release in safetensors, or have its state dict saved by itself, with \
                            torch.save(model.state_dict(), FILE)";
const CONVERT: &str = "convert it in Python, with AutoModelForCausalLM.from_pretrained(SOURCE).save_pretrained(FOLDER), which writes \
                       safetensors; or look for a copy of this model that has them";

impl Problem {
    /// The error of the file at `path`.
    pub(super) fn of(self, path: &str) -> Error {
        match self {
            Self::Damaged(what) => Error::corrupt(format!("reading {path}: {what}")).hint(AGAIN),
            Self::Foreign(what) => Error::unsupported(format!(
                "reading {path}: its pickle asks for {what}, which no tensor needs; nothing of it was run"
            ))
            .hint(TENSORS_ONLY),
            Self::Unsupported(what) => Error::unsupported(format!("reading {path}: {what}")).hint(CONVERT),
        }
    }
}

pub(super) fn damaged<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Problem::Damaged(what.into()))
}

pub(super) fn foreign<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Problem::Foreign(what.into()))
}

pub(super) fn unsupported<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Problem::Unsupported(what.into()))
}
