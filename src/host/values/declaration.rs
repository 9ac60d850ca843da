//! What is said of a function that scripts can call: its signatures, its meaning, its options.
//! Documentation, completion, suggestions and the checks of scripts are made from it.

/// A key of an option map.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    pub key: &'static str,
    pub(crate) kind: fn() -> String,
    pub(crate) default: Default,
    pub meaning: &'static str,
}

/// The value of an option that is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Default {
    /// An expression of the language, made from the value that the program uses.
    Value(fn() -> String),
    /// The same for a value that is put in place of nothing after the options are read.
    Later(fn() -> String),
    /// Words for a default that depends on something else.
    Words(&'static str),
}

impl Opt {
    /// A type, or the possible words: `"f32" | "bf16"`.
    pub fn kind(&self) -> String {
        (self.kind)()
    }

    /// The default; "" if the option is required, or has none.
    pub fn default(&self) -> String {
        match self.default {
            Default::Value(text) | Default::Later(text) => text(),
            Default::Words(words) => words.to_string(),
        }
    }

    /// The possible words, if the option has no other values.
    pub fn choices(&self) -> Vec<String> {
        let kind = self.kind();
        let words: Option<Vec<_>> =
            kind.split(" | ").map(|word| Some(word.strip_prefix('"')?.strip_suffix('"')?.to_string())).collect();
        words.unwrap_or_default()
    }
}

/// The largest number of options of a function.
const MOST_OPTIONS: usize = 40;

/// Options, in the order of the documentation. It can be put together from parts at compile time.
#[derive(Clone, Copy)]
pub(crate) struct List {
    options: [Opt; MOST_OPTIONS],
    len: usize,
}

/// A part of a list: an option, or all options of another list.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    One(Opt),
    All(&'static [Opt]),
}

impl Part {
    /// `included` in place of `option`, if there is one.
    pub(crate) const fn of(included: Option<&'static [Opt]>, option: Opt) -> Self {
        match included {
            Some(options) => Self::All(options),
            None => Self::One(option),
        }
    }
}

impl List {
    pub(crate) const fn of(parts: &[Part]) -> Self {
        const NONE: Opt = Opt { key: "", kind: String::new, default: Default::Words(""), meaning: "" };
        let mut list = Self { options: [NONE; MOST_OPTIONS], len: 0 };
        let mut part = 0;
        while part < parts.len() {
            match parts[part] {
                Part::One(option) => list.push(option),
                Part::All(options) => {
                    let mut at = 0;
                    while at < options.len() {
                        list.push(options[at]);
                        at += 1;
                    }
                }
            }
            part += 1;
        }
        list
    }

    const fn push(&mut self, option: Opt) {
        self.options[self.len] = option;
        self.len += 1;
    }

    pub(crate) const fn as_slice(&self) -> &[Opt] {
        self.options.split_at(self.len).0
    }
}

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

    #[test]
    fn lists_are_put_together_in_order() {
        const fn opt(key: &'static str) -> Opt {
            Opt { key, kind: || "\"a\" | \"b\"".to_string(), default: Default::Words("a"), meaning: "" }
        }
        const INNER: &[Opt] = &[opt("x"), opt("y")];
        let list = List::of(&[Part::of(Some(INNER), opt("no")), Part::of(None, opt("z"))]);
        assert_eq!(list.as_slice().iter().map(|option| option.key).collect::<Vec<_>>(), ["x", "y", "z"]);
        assert_eq!(list.as_slice()[0].choices(), ["a", "b"]);
        assert!(Opt { kind: || "int".to_string(), ..opt("n") }.choices().is_empty());
    }
}
