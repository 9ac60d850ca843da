//! The descriptions of all primitives: the source of the documentation in the terminal, of
//! docs/reference.md, of the definitions for editors, of completion, of suggestions, and of the
//! option names that primitives accept.
//!
//! There is one file per area, with a table. Every example runs as a test.

mod engine;
mod findings;
mod machines;
mod primitive;
mod results;
mod script;
mod testing;
mod text;

use std::sync::OnceLock;

pub use primitive::{Area, Opt, Primitive};
pub use text::{definitions, for_reading, markdown};

use crate::host::language::names;

/// All areas, in the order of an experiment.
pub const AREAS: &[Area] = &[
    engine::AREA,
    results::STATISTICS,
    results::STORED,
    findings::LOOKING,
    findings::CLAIMS,
    findings::FIGURES,
    findings::FILES,
    machines::AREA,
    script::FLOW,
    script::SHOW,
    testing::AREA,
];

pub fn all() -> impl Iterator<Item = &'static Primitive> + Clone {
    AREAS.iter().flat_map(|area| area.primitives)
}

pub fn find(name: &str) -> Option<&'static Primitive> {
    all().find(|primitive| primitive.name == name)
}

/// The options of a function; empty if it is unknown.
pub fn options(function: &str) -> &'static [Opt] {
    find(function).map_or(&[], |primitive| primitive.options)
}

/// Functions of the language itself, by name and number of arguments.
pub fn language() -> &'static [(String, usize)] {
    static NAMES: OnceLock<Vec<(String, usize)>> = OnceLock::new();
    NAMES.get_or_init(|| names::of(&rhai::Engine::new()))
}

/// All callable names, with the primitives first.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    let word = |name: &&str| name.starts_with(|c: char| c.is_ascii_alphabetic());
    all().map(|primitive| primitive.name).chain(language().iter().map(|(name, _)| name.as_str()).filter(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_words_are_whole() {
        let mut seen = std::collections::BTreeSet::new();
        for primitive in all() {
            assert!(seen.insert(primitive.name), "{} stands twice", primitive.name);
            assert!(primitive.summary.ends_with('.'), "{}: a summary is sentences", primitive.name);
            assert!(!primitive.example.trim().is_empty(), "{} has no example", primitive.name);
            for signature in primitive.signatures {
                assert!(signature.starts_with(&format!("{}(", primitive.name)), "{signature}");
                assert!(signature.contains(" -> "), "{signature}");
            }
            for option in primitive.options {
                assert!(!option.meaning.is_empty() && !option.kind.is_empty(), "{}: {}", primitive.name, option.key);
            }
        }
    }
}
