//! The script host: a Rhai engine whose primitives turn option maps into plain requests and records into readable values.
//!
//! One file per area of script-visible functions. Scripts reach the world through these primitives only.

mod claims;
mod context;
mod diagnostic;
mod extract;
mod figures;
mod files;
mod flags;
mod flow;
mod logs;
mod machines;
mod modules;
mod options;
mod perplexity;
mod problem;
mod show;
mod statistics;
mod stored;
mod sweeps;
mod tokens;
mod values;

pub use context::{Context, Watch};
pub use diagnostic::Diagnostic;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rhai::{AST, ASTNode, Dynamic, Engine, Expr, Scope, Stmt, Token};

/// Deep enough for honest recursion, shallow enough to end a runaway before the stack does.
const MAX_CALL_LEVELS: usize = 128;
/// After Ctrl-C a script may run so long: enough to catch the interruption of a primitive and say what is done.
const GRACE: Duration = Duration::from_secs(1);

/// An engine with every primitive registered.
pub fn engine(context: &Arc<Context>) -> Engine {
    let mut engine = Engine::new();
    engine.set_max_call_levels(MAX_CALL_LEVELS).set_max_expr_depths(256, 256).set_fail_on_invalid_map_property(true);
    // Reserved by Rhai without a use of its own: `sync` is the natural name of a primitive, `default` of a flag's value.
    #[allow(deprecated)] // the hook is marked volatile, not going away
    engine.on_parse_token(|token, _, _| match token {
        Token::Reserved(word) if matches!(&**word, "sync" | "default") => Token::Identifier(word),
        token => token,
    });
    let noticed = OnceLock::new();
    engine.on_progress(move |_| {
        let over = || noticed.get_or_init(Instant::now).elapsed() > GRACE;
        (crate::progress::interrupt_requested() && over()).then(|| Dynamic::from("interrupted"))
    });
    engine.on_print(|text| println!("{text}"));
    engine.on_debug(|text, source, position| eprintln!("{}{position:?}: {text}", source.unwrap_or_default()));
    engine.set_module_resolver(modules::Modules::new(context.root.clone()));
    values::register(&mut engine);
    extract::register(&mut engine, context);
    tokens::register(&mut engine, context);
    machines::register(&mut engine, context);
    statistics::register(&mut engine);
    sweeps::register(&mut engine);
    claims::register(&mut engine);
    perplexity::register(&mut engine, context);
    figures::register(&mut engine, context);
    files::register(&mut engine, context);
    stored::register(&mut engine, context);
    flags::register(&mut engine, context);
    flow::register(&mut engine, context);
    logs::register(&mut engine, context);
    show::register(&mut engine, context);
    engine
}

/// Compiles and runs a script file.
pub fn run(engine: &Engine, context: &Arc<Context>) -> Result<(), Box<Diagnostic>> {
    let path = context.script.clone();
    let source = std::fs::read_to_string(&path).map_err(|e| {
        let message = format!("reading {}: {e}", path.display());
        Diagnostic::usage(message, "give the path of a script, such as scripts/quickstart.rhai")
    })?;
    let name = path.display().to_string();
    let mut ast: AST = engine.compile(&source).map_err(|e| Diagnostic::from_parse(&e, &name, &source))?;
    ast.set_source(name.as_str());
    if !context.flags.is_empty() && !calls_args(&ast) {
        let message = format!("{name} takes no flags, {:?} given", context.flags[0]);
        return Err(Box::new(Diagnostic::usage(message, "a script declares its flags with args(#{ name: default })")));
    }
    let outcome = engine.run_ast_with_scope(&mut Scope::new(), &ast);
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
