//! What scripts can call: the one source of the documentation in the terminal, of docs/reference.md, of the definitions
//! for editors, of completion, of suggestions, and of the option names that the primitives themselves accept.
//!
//! One file per area, a table of values of one shape. Every example runs as a test.

mod engine;
mod findings;
mod machines;
mod results;
mod script;
mod testing;
mod text;

use std::sync::OnceLock;

pub use text::{definitions, for_reading, markdown};

/// One key of an option map.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    pub key: &'static str,
    /// A type, or the words that can be chosen from: `"f32" | "bf16"`.
    pub kind: &'static str,
    /// What holds when it is left out; "" where it must be given, or where nothing holds.
    pub default: &'static str,
    pub meaning: &'static str,
}

/// `key`, `kind`, `default`, `meaning` of an option.
const fn opt(key: &'static str, kind: &'static str, default: &'static str, meaning: &'static str) -> Opt {
    Opt { key, kind, default, meaning }
}

impl Opt {
    /// The words that can be chosen from, where that is all there is.
    pub fn choices(&self) -> Vec<&'static str> {
        let words: Option<Vec<_>> =
            self.kind.split(" | ").map(|word| word.strip_prefix('"')?.strip_suffix('"')).collect();
        words.unwrap_or_default()
    }
}

/// A function that scripts can call.
#[derive(Clone, Copy, Debug)]
pub struct Primitive {
    pub name: &'static str,
    /// `name(parameter: type, parameter?: type) -> type`; a first parameter also reads as a method's owner.
    pub signatures: &'static [&'static str],
    pub summary: &'static str,
    pub options: &'static [Opt],
    /// A script that runs as it stands, in a folder that holds `examples/`.
    pub example: &'static str,
}

impl Primitive {
    /// Names of option keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.options.iter().map(|option| option.key)
    }

    /// Numbers of arguments that it can be called with, the owner of a method counted, ascending.
    pub fn arities(&self) -> Vec<usize> {
        let mut arities: Vec<usize> = self.signatures.iter().flat_map(|signature| arities(signature)).collect();
        arities.sort_unstable();
        arities.dedup();
        arities
    }
}

/// Parameters of a signature: name, type, and whether it can be left out.
pub fn parameters(signature: &str) -> Vec<(&str, &str, bool)> {
    let inner = signature.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map_or("", |(inner, _)| inner);
    fn parameter(text: &str) -> (&str, &str, bool) {
        let (name, kind) = text.split_once(": ").unwrap_or((text, "any"));
        (name.trim_end_matches('?'), kind, name.ends_with('?'))
    }
    inner.split(", ").filter(|text| !text.is_empty()).map(parameter).collect()
}

fn arities(signature: &str) -> std::ops::RangeInclusive<usize> {
    let all = parameters(signature);
    let optional = all.iter().filter(|(.., optional)| *optional).count();
    all.len() - optional..=all.len()
}

/// A group of primitives.
pub struct Area {
    pub title: &'static str,
    pub about: &'static str,
    pub primitives: &'static [Primitive],
}

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

/// The options of a function; none where it is not known.
pub fn options(function: &str) -> &'static [Opt] {
    find(function).map_or(&[], |primitive| primitive.options)
}

/// Functions of the language itself, by name and number of arguments.
pub fn language() -> &'static [(String, usize)] {
    static NAMES: OnceLock<Vec<(String, usize)>> = OnceLock::new();
    NAMES.get_or_init(|| super::names::of(&rhai::Engine::new()))
}

/// Names that can be called: ours first.
pub fn names() -> impl Iterator<Item = &'static str> + Clone {
    let word = |name: &&str| name.starts_with(|c: char| c.is_ascii_alphabetic());
    all().map(|primitive| primitive.name).chain(language().iter().map(|(name, _)| name.as_str()).filter(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_tell_how_many_arguments() {
        assert_eq!(parameters("f(a: int, b?: map) -> any"), [("a", "int", false), ("b", "map", true)]);
        assert_eq!(arities("f(a: int, b?: map) -> any"), 1..=2);
        assert_eq!(arities("f() -> any"), 0..=0);
        assert_eq!(Opt { kind: "\"a\" | \"b\"", ..opt("", "", "", "") }.choices(), ["a", "b"]);
        assert!(opt("k", "int", "", "").choices().is_empty());
    }

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
