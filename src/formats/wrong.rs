//! What is wrong with one of the tensors that hold a weight.

/// One of the tensors that hold a weight together, and what is wrong with it.
#[derive(Debug, PartialEq)]
pub struct Wrong {
    /// Its ending.
    pub piece: &'static str,
    /// What follows its name in a sentence.
    pub problem: String,
}

impl Wrong {
    pub fn new(piece: &'static str, problem: impl Into<String>) -> Self {
        Self { piece, problem: problem.into() }
    }
}
