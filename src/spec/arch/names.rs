//! The names of a checkpoint's tensors, as far as the spec of a model depends on them.

use crate::formats::Headers;
use crate::spec::{Ends, HEAD, TensorSpec};

/// What the spec depends on beyond the config: which tensors the checkpoint at hand has, under
/// their names in the whole model.
pub trait Names {
    /// Whether the checkpoint holds a tensor of this name.
    fn has(&self, tensor: &str) -> bool;

    /// What headers of files say of the tensors, and where the files are; none where there is a
    /// config alone.
    fn headers(&self) -> Option<(&dyn Headers, &str)>;

    /// Embedding and head. Where the config ties them, a head of its own counts nevertheless, and
    /// serves as the embedding where that is missing: transformers ties what is not in the files,
    /// and only that.
    fn ends(&self, tied: bool, embedding: TensorSpec) -> Ends {
        self.ends_called(tied, embedding, HEAD)
    }

    /// As `ends`, with another name for the head.
    fn ends_called(&self, tied: bool, embedding: TensorSpec, head: &str) -> Ends {
        let head = TensorSpec::new(head, embedding.shape.clone());
        let (embedding, head) = match (tied, self.has(&head.name), self.has(&embedding.name)) {
            (true, true, false) => (head.clone(), head),
            (true, false, _) => (embedding.clone(), embedding),
            _ => (embedding, head),
        };
        Ends { embedding, head, tied }
    }
}

/// Names as released, for plans made from `config.json` alone. No release has a head beside the
/// embedding it is tied to.
pub struct Released;

impl Names for Released {
    fn has(&self, tensor: &str) -> bool {
        tensor != HEAD
    }

    fn headers(&self) -> Option<(&dyn Headers, &str)> {
        None
    }
}
