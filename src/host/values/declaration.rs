//! What is said of a function that scripts can call: its signatures, its meaning, its options.
//! Documentation, completion, suggestions and the checks of scripts are made from it.

pub use crate::record::option::Opt;

/// A function that scripts can call.
#[derive(Clone, Copy, Debug)]
pub struct Primitive {
    pub name: &'static str,
    /// `name(parameter: type, parameter?: type) -> type`. A first parameter may also be the owner
    /// of a method.
    pub signatures: &'static [&'static str],
    pub summary: &'static str,
    pub options: &'static [Opt],
    /// A script that runs as it is, in a folder with `examples/`.
    pub example: &'static str,
}

impl Primitive {
    /// Names of option keys.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.options.iter().map(|option| option.key)
    }

    /// Possible numbers of arguments, including the owner of a method, ascending.
    pub fn arities(&self) -> Vec<usize> {
        let mut arities: Vec<usize> = self.signatures.iter().flat_map(|signature| arities(signature)).collect();
        arities.sort_unstable();
        arities.dedup();
        arities
    }
}

/// Parameters of a signature: name, type, and whether it is optional.
pub(crate) fn parameters(signature: &str) -> Vec<(&str, &str, bool)> {
    let inner = signature.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map_or("", |(inner, _)| inner);
    fn parameter(text: &str) -> (&str, &str, bool) {
        let (name, kind) = text.split_once(": ").unwrap_or((text, "any"));
        (name.trim_end_matches('?'), kind, name.ends_with('?'))
    }
    inner.split(", ").filter(|text| !text.is_empty()).map(parameter).collect()
}

/// Possible numbers of arguments of a signature.
pub(crate) fn arities(signature: &str) -> std::ops::RangeInclusive<usize> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_tell_how_many_arguments() {
        assert_eq!(parameters("f(a: int, b?: map) -> any"), [("a", "int", false), ("b", "map", true)]);
        assert_eq!(arities("f(a: int, b?: map) -> any"), 1..=2);
        assert_eq!(arities("f() -> any"), 0..=0);
    }
}
