//! The primitives, which are the functions through which scripts access the outside world. There is
//! one folder per group of areas and one file per area, each with a `register`.

/// An example that begins with a record.
macro_rules! acts {
    ($rest:literal) => {
        concat!(
            "let model = load_model(\"examples/shakespeare-olmoe\");\n",
            "let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12]] });\n",
            "let acts = model.extract_layernorms(tokens, #{ logits: true });\n",
            $rest
        )
    };
}

pub(crate) mod machines;
pub(crate) mod models;
pub(crate) mod results;
pub(crate) mod script;
pub(crate) mod statistics;
