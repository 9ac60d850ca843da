//! The modules that a thread is importing. Circular imports are rejected, and a module whose import
//! has side effects is reported once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Mutex;

use rhai::{EvalAltResult, Position};

use crate::error::Error;
use crate::host::language::problem::as_map;

/// The largest depth of nested imports.
const MAX_WITHIN: usize = 32;

/// Modules that were reported to have side effects when they are imported.
static ACTING: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

thread_local! {
    /// The modules that this thread is importing, outermost first.
    static WITHIN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// The report about the module that is being imported, if there is one, at the first `deed` of its
/// import.
pub(crate) fn first_deed(deed: &str) -> Option<String> {
    let file = WITHIN.with_borrow(|within| within.last().cloned())?;
    let is_first = ACTING.lock().expect("no panic under this lock").insert(file.clone());
    is_first.then(|| {
        format!(
            "importing {file} runs what stands outside of its functions, {deed} first: put that into `if is_main() {{ … }}`"
        )
    })
}

/// A module is being imported while this value lives.
pub(crate) struct Within(());

impl Within {
    /// # Errors
    /// If the module is being imported already, or too many are.
    pub(crate) fn begin(name: &str, position: Position) -> Result<Self, Box<EvalAltResult>> {
        WITHIN.with_borrow_mut(|within| {
            let error = if let Some(first) = within.iter().position(|other| other == name) {
                let circle: Vec<&str> = within[first..].iter().map(String::as_str).chain([name]).collect();
                Error::bad_argument(format!("modules import each other in a circle: {}", circle.join(" imports ")))
                    .hint("put what both need into a third module")
            } else if within.len() >= MAX_WITHIN {
                Error::bad_argument(format!("{MAX_WITHIN} modules import each other in a row"))
                    .hint("import what is needed where it is needed")
            } else {
                within.push(name.to_string());
                return Ok(Self(()));
            };
            Err(Box::new(EvalAltResult::ErrorRuntime(as_map(&error).into(), position)))
        })
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        WITHIN.with_borrow_mut(|within| drop(within.pop()));
    }
}
