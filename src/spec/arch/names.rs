//! The names of a checkpoint's tensors, as far as the spec of a model depends on them.

use crate::formats::Headers;
use crate::spec::{Ends, HEAD, TensorSpec};

/// The facts beyond the config that the spec depends on: which tensors the checkpoint has, under
/// their names in the whole model.
pub trait Names {
    /// Whether the checkpoint holds a tensor of this name.
    fn has(&self, tensor: &str) -> bool;

    /// The headers of the files and the place of the files, or None if there is a config alone.
    fn headers(&self) -> Option<(&dyn Headers, &str)>;

    /// The embedding and the head. A stored head is used even if the config ties it, and it also
    /// serves as the embedding if that is missing: transformers ties only tensors that are not in
    /// the files.
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

/// Names as released, for plans made from `config.json` alone. No release has both an embedding and
/// a head that is tied to it.
pub struct Released;

impl Names for Released {
    fn has(&self, tensor: &str) -> bool {
        tensor != HEAD
    }

    fn headers(&self) -> Option<(&dyn Headers, &str)> {
        None
    }
}
