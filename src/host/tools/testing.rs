//! Tests in scripts, each in its own simulated environment: machines are simulated, failures can be
//! set up, and time is a number. `outlier test` runs every `test_…` function of the files
//! `*_test.rhai`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rhai::{Dynamic, Scope};

use crate::host::diagnostics::diagnostic::Diagnostic;
use crate::host::interpreter;
use crate::host::language::bounds::Allowed;
use crate::host::language::syntax;
use crate::host::run::context::{Context, Watch};
use crate::host::scripts;
use crate::progress::interrupt_requested;

/// The prefix of tests.
const TEST: &str = "test_";
/// The result of one test.
pub struct Outcome {
    pub name: String,
    pub seconds: f64,
    /// The failure, with the output of the script.
    pub failure: Option<String>,
}

/// Runs every test of a file, each in its own environment below `scratch`.
pub fn run_file(
    file: &Path,
    scratch: &Path,
    watch: &Arc<dyn Watch>,
    allowed: &Allowed,
    chosen: &dyn Fn(&str) -> bool,
) -> std::result::Result<Vec<Outcome>, Box<Diagnostic>> {
    let name = file.display().to_string();
    let source = scripts::read(file)?;
    let world = || -> Arc<Context> {
        clear(scratch);
        let mut context = Context::new(PathBuf::new(), file.to_path_buf(), Vec::new(), watch.clone());
        context.bounds.allowed = allowed.clone();
        Arc::new(context.played(scratch.to_path_buf()))
    };
    let parser = interpreter::engine(&world());
    let mut ast = syntax::compiled(&parser, &source).map_err(|e| Diagnostic::from_parse(&e, &name, &source))?;
    ast.set_source(name.as_str());
    let mut tests: Vec<String> = ast
        .iter_functions()
        .filter(|function| function.name.starts_with(TEST) && function.params.is_empty() && chosen(function.name))
        .map(|function| function.name.to_string())
        .collect();
    // In the order of the file.
    tests.sort_by_key(|test| source.find(&format!("fn {test}")));
    let one = |test: String| {
        if interrupt_requested() {
            return Outcome { name: test, seconds: 0.0, failure: Some("error: interrupted".to_string()) };
        }
        let context = world();
        let engine = interpreter::engine(&context);
        let start = std::time::Instant::now();
        let call = || engine.call_fn::<Dynamic>(&mut Scope::new(), &ast, &test, ());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        let failure = match outcome {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(Diagnostic::from_runtime(*error, &name).to_string()),
            Err(_) => Some("error: a primitive panicked; this is a fault of the program".to_string()),
        };
        context.ended_well();
        let said = context.stage.as_ref().map(|stage| stage.output()).unwrap_or_default();
        let failure = failure.map(|failure| if said.is_empty() { failure } else { format!("{said}{failure}") });
        Outcome { name: test, seconds: start.elapsed().as_secs_f64(), failure }
    };
    Ok(tests.into_iter().map(one).collect())
}

/// Removes the results and logs of the previous test. Miniature models stay.
fn clear(scratch: &Path) {
    for folder in ["results", "logs"] {
        for entry in std::fs::read_dir(scratch.join(folder)).into_iter().flatten().flatten() {
            if entry.file_name() != "miniature_models" {
                let path = entry.path();
                let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
        }
    }
}
