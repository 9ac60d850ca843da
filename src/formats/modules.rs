//! Lists of modules in settings: names, patterns behind `re:`, and names with `*` for anything.

use std::collections::HashSet;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// Patterns of one list at most; releases have a dozen.
const MAX_PATTERNS: usize = 1 << 10;
/// Bytes of a compiled pattern.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// What stands before the names of a language model in a larger one.
const NESTED: [&str; 3] = ["model.language_model.", "language_model.model.", "language_model."];

/// Entries of lists that mean modules.
#[derive(Clone, Debug, Default)]
pub(super) struct Modules {
    names: HashSet<String>,
    patterns: Vec<Regex>,
}

impl Modules {
    /// Those of a list; patterns beyond those that a release could have, and what is no pattern,
    /// mean nothing.
    pub(super) fn of<'v>(values: impl IntoIterator<Item = &'v Value>) -> Self {
        let mut modules = Self::default();
        for entry in values.into_iter().filter_map(Value::as_str) {
            let pattern = match entry.strip_prefix("re:") {
                // From the beginning of the name, as Python's `match`.
                Some(pattern) => format!("^(?:{pattern})"),
                None if entry.contains('*') => {
                    format!("^{}$", entry.split('*').map(regex::escape).collect::<Vec<_>>().join(".*"))
                }
                None => {
                    modules.names.insert(entry.to_string());
                    continue;
                }
            };
            if modules.patterns.len() < MAX_PATTERNS {
                modules.patterns.extend(RegexBuilder::new(&pattern).size_limit(MAX_PATTERN_BYTES).build());
            }
        }
        modules
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// Whether an entry is this name.
    pub(super) fn names(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether an entry means the module: by its name, by the beginning or the end of it, whole
    /// parts only ("gate" is a router, and no `gate_proj`), or by a pattern. Larger models call it
    /// otherwise than the language model in them.
    pub(super) fn mean(&self, module: &str) -> bool {
        !self.is_empty()
            && spellings(module).iter().any(|module| {
                parts(module).any(|part| self.names.contains(part))
                    || self.patterns.iter().any(|pattern| pattern.is_match(module))
            })
    }
}

/// A module's name by itself, and as larger models write it.
pub(super) fn spellings(module: &str) -> Vec<String> {
    let inner = module.strip_prefix("model.").unwrap_or(module);
    let nested = NESTED.iter().map(|prefix| format!("{prefix}{inner}"));
    [module.to_string()].into_iter().chain(nested).collect()
}

/// The name, and every beginning and end of it that is cut at a dot.
pub(super) fn parts(module: &str) -> impl Iterator<Item = &str> {
    let dots = || module.match_indices('.').map(|(at, _)| at);
    let ends = dots().map(|at| &module[at + 1..]);
    [module].into_iter().chain(dots().map(|at| &module[..at])).chain(ends)
}
