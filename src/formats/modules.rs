//! Lists of modules in settings: names, patterns after `re:`, and names in which `*` stands for
//! anything.

use std::collections::HashSet;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// The largest number of patterns that one list may have. Releases have a dozen.
const MAX_PATTERNS: usize = 1 << 10;
/// The largest size of a compiled pattern in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Prefixes of the names of a language model inside a larger model.
const NESTED: [&str; 3] = ["model.language_model.", "language_model.model.", "language_model."];

/// Entries of a list that mean modules.
#[derive(Clone, Debug, Default)]
pub(super) struct Modules {
    names: HashSet<String>,
    patterns: Vec<Regex>,
}

impl Modules {
    /// Reads the entries of a list. Patterns that cannot be compiled, and those after the first
    /// `MAX_PATTERNS`, match nothing.
    pub(super) fn of<'v>(values: impl IntoIterator<Item = &'v Value>) -> Self {
        let mut modules = Self::default();
        for entry in values.into_iter().filter_map(Value::as_str) {
            let pattern = match entry.strip_prefix("re:") {
                // A pattern matches from the beginning of the name, as Python's `match` does.
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

    /// Whether an entry means the module: by its name, by its beginning or end in whole parts
    /// ("gate" is a router and does not mean `gate_proj`), or by a pattern. The names of a language
    /// model inside a larger model are tried too.
    pub(super) fn mean(&self, module: &str) -> bool {
        !self.is_empty()
            && spellings(module).iter().any(|module| {
                parts(module).any(|part| self.names.contains(part))
                    || self.patterns.iter().any(|pattern| pattern.is_match(module))
            })
    }
}

/// The name of a module by itself, and the names that larger models give it.
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
