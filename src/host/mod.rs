//! The script host: a Rhai engine whose primitives turn option maps into plain requests and records into readable values.
//!
//! One file per area of script-visible functions. Scripts reach the world through these primitives only.

mod bounds;
pub mod check;
mod claims;
mod context;
pub mod deep;
mod diagnostic;
mod ending;
mod extract;
mod figures;
mod files;
mod flags;
mod flow;
pub mod grid;
mod growth;
mod habits;
mod hints;
mod index;
mod layout;
mod logs;
mod machines;
pub mod modules;
mod names;
mod options;
mod outgoing;
mod passes;
mod perplexity;
mod pieces;
mod places;
pub mod plan;
mod problem;
mod reads;
pub mod reference;
pub mod repl;
pub mod scripts;
mod show;
mod stage;
mod statistics;
mod stored;
mod sweeps;
pub mod testing;
mod tokens;
mod unsaved;
mod values;
mod weight;

pub use context::{Allowed, Bounds, Context, MAX_OPERATIONS, Watch};
pub use diagnostic::Diagnostic;
pub use flags::OF_RUN;
pub use options::{MAX_TIME, parse_bytes};

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use crate::error::Error;
use crate::outside;
use crate::progress::interrupt_requested;
use crate::terminal;
use rhai::{AST, ASTNode, Engine, Expr, OptimizationLevel, ParseError, Scope, Stmt, Token};

/// Longer texts, in bytes, are not simplified before they run.
const SIMPLIFIED: usize = 128 << 10;

/// An engine that reads scripts as they are written here, without any primitive.
fn syntax() -> Engine {
    let mut engine = Engine::new();
    bounds::sizes(&mut engine);
    engine.set_fail_on_invalid_map_property(true).set_optimization_level(OptimizationLevel::None);
    // A script is what is written in it.
    engine.disable_symbol("eval");
    // Reserved by Rhai without a use of its own: `sync` is the natural name of a primitive, `default` of a flag's value.
    #[allow(deprecated)] // the hook is marked volatile, not going away
    engine.on_parse_token(|token, _, _| match token {
        Token::Reserved(word) if matches!(&**word, "sync" | "default") => Token::Identifier(word),
        token => token,
    });
    engine
}

/// An engine with every primitive registered.
pub fn engine(context: &Arc<Context>) -> Engine {
    let mut engine = syntax();
    bounds::apply(&mut engine, context);
    growth::register(&mut engine);
    let c = context.clone();
    engine.on_print(move |text| c.prints(text));
    engine.on_debug(|text, source, position| {
        terminal::note(format!("{}{position:?}: {text}", source.unwrap_or_default()))
    });
    engine.set_module_resolver(modules::Modules::new(context.library.clone()));
    values::register(&mut engine);
    extract::register(&mut engine, context);
    tokens::register(&mut engine, context);
    machines::register(&mut engine, context);
    statistics::register(&mut engine);
    index::register(&mut engine);
    sweeps::register(&mut engine);
    claims::register(&mut engine);
    perplexity::register(&mut engine, context);
    figures::register(&mut engine, context);
    files::register(&mut engine, context);
    stored::register(&mut engine, context);
    flags::register(&mut engine, context);
    flow::register(&mut engine, context);
    ending::register(&mut engine, context);
    logs::register(&mut engine, context);
    show::register(&mut engine, context);
    testing::register(&mut engine, context);
    engine
}

/// Name and number of arguments of every primitive that scripts can call.
pub fn registered() -> Vec<(String, usize)> {
    struct Nobody;
    impl Watch for Nobody {
        fn progress(&self) -> Arc<dyn crate::progress::Progress> {
            Arc::new(crate::progress::Silent)
        }

        fn line(&self, _: &str) {}
    }
    let context = Context::new("".into(), "".into(), Vec::new(), Arc::new(Nobody));
    names::registered(&engine(&Arc::new(context)))
}

/// The text of a script file.
fn read(path: &Path) -> Result<String, Box<Diagnostic>> {
    text_of(path).map_err(|e| match e.kind() {
        // There is a script, and something is wrong with what it says.
        ErrorKind::InvalidData => Box::new(Diagnostic::from_error(
            Error::bad_argument(format!("reading {}: {e}", path.display()))
                .hint("save it as UTF-8; `iconv -f latin1 -t utf-8 OLD > NEW` turns a file in Latin-1 into one"),
        )),
        _ => {
            let message = format!("reading {}: {e}", path.display());
            let near = scripts::near(path).filter(|near| near != path);
            let hint = near.map_or("give the path of a script, such as scripts/quickstart.rhai".to_string(), |near| {
                format!("did you mean {}?", near.display())
            });
            Box::new(Diagnostic::usage(message, &hint))
        }
    })
}

/// The text of a script or module that is not too large for one, without a byte order mark.
fn text_of(path: &Path) -> std::io::Result<String> {
    text_in(std::fs::File::open(path)?)
}

/// The same, of a regular file only: nobody waits for a pipe.
fn regular_text(path: &Path) -> std::io::Result<String> {
    text_in(outside::open(path)?)
}

fn text_in(file: std::fs::File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(bounds::MAX_SCRIPT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bounds::MAX_SCRIPT {
        return Err(std::io::Error::other("a script may be 4 MiB long"));
    }
    let text = String::from_utf8(outside::without_bom(bytes)).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        std::io::Error::new(ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })?;
    Ok(without_interpreter(text))
}

/// A first line such as `#!/usr/bin/env -S outlier run` is for the system that starts the script. It stays as an empty line, so
/// that errors name the lines as an editor does.
fn without_interpreter(text: String) -> String {
    match (text.starts_with("#!"), text.find('\n')) {
        (true, Some(end)) => text[end..].to_string(),
        (true, None) => String::new(),
        (false, _) => text,
    }
}

/// A script as a tree of syntax.
fn compiled(engine: &Engine, text: &str) -> Result<AST, ParseError> {
    let ast = engine.compile(text)?;
    // The time that simplifying takes grows with the square of the length of a `switch`.
    Ok(match text.len() < SIMPLIFIED {
        true => engine.optimize_ast(&Scope::new(), ast, OptimizationLevel::Simple),
        false => ast,
    })
}

/// Compiles and runs a script file.
pub fn run(engine: &Engine, context: &Arc<Context>) -> Result<(), Box<Diagnostic>> {
    let source = read(&context.script)?;
    let name = context.script.display().to_string();
    let mut ast: AST = compiled(engine, &source).map_err(|e| Diagnostic::from_parse(&e, &name, &source))?;
    ast.set_source(name.as_str());
    if !context.flags.is_empty() && !calls_args(&ast) {
        let message = format!("{name} takes no flags, {:?} given", context.flags[0]);
        let hint = context.flags.iter().find_map(|word| flags::misplaced(word));
        let hint = hint.unwrap_or_else(|| "a script declares its flags with args(#{ name: default })".to_string());
        return Err(Box::new(Diagnostic::usage(message, &hint)));
    }
    let outcome = engine.run_ast_with_scope(&mut Scope::new(), &ast);
    if outcome.is_ok() && !context.failed() && !interrupt_requested() {
        context.ended_well();
    }
    outcome.map_err(|e| Box::new(Diagnostic::from_runtime(*e, &name)))
}

/// Whether the script, or anything it imports, may read flags.
fn calls_args(ast: &AST) -> bool {
    let mut found = false;
    ast.walk(&mut |nodes| {
        found |= match nodes.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _))) => call.name == "args",
            Some(ASTNode::Stmt(Stmt::Import(..))) => true,
            _ => false,
        };
        !found
    });
    found
}
