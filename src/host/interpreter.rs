//! The interpreter: Rhai with all primitives and limits, and the run of a script file.

use std::sync::Arc;

use rhai::{AST, ASTNode, Engine, Expr, Scope, Stmt};

use super::diagnostics::caught;
use super::diagnostics::diagnostic::Diagnostic;
use super::language::{closures, growth, names, syntax, usage};
use super::primitives::machines;
use super::primitives::models::{extract, perplexity, texts, tokens};
use super::primitives::results::{exports, figures, files, reading, stored};
use super::primitives::script::{assertions, ending, flags, flow, logs, show};
use super::primitives::statistics::{cells, claims, detection, hits, index, lanes, measures, parts, sweeps};
use super::run::context::{Context, Watch};
use super::run::modules;
use super::scripts;
use super::values::{candidate, findings, handles, readable, sites};
use crate::progress::{Progress, Silent, interrupt_requested};
use crate::terminal;

/// An engine with all primitives registered.
pub fn engine(context: &Arc<Context>) -> Engine {
    let mut engine = syntax::engine();
    usage::enforce(&mut engine, &context.bounds, &context.used);
    growth::register(&mut engine);
    closures::register(&mut engine);
    caught::register(&mut engine);
    let c = context.clone();
    engine.on_print(move |text| c.prints(text));
    engine.on_debug(|text, source, position| {
        terminal::note(format!("{}{position:?}: {text}", source.unwrap_or_default()))
    });
    engine.set_module_resolver(modules::Modules::new(context.library.clone()));
    handles::register(&mut engine);
    findings::register(&mut engine);
    sites::register(&mut engine);
    candidate::register(&mut engine);
    extract::register(&mut engine, context);
    tokens::register(&mut engine, context);
    texts::register(&mut engine, context);
    machines::register(&mut engine, context);
    detection::register(&mut engine);
    measures::register(&mut engine);
    hits::register(&mut engine);
    lanes::register(&mut engine);
    index::register(&mut engine);
    parts::register(&mut engine);
    sweeps::register(&mut engine);
    claims::register(&mut engine);
    cells::register(&mut engine);
    perplexity::register(&mut engine, context);
    figures::register(&mut engine, context);
    files::register(&mut engine, context);
    exports::register(&mut engine, context);
    reading::register(&mut engine, context);
    stored::register(&mut engine, context);
    flags::register(&mut engine, context);
    flow::register(&mut engine, context);
    ending::register(&mut engine, context);
    logs::register(&mut engine, context);
    show::register(&mut engine, context);
    assertions::register(&mut engine, context);
    engine
}

/// Name and number of arguments of every primitive.
pub fn registered() -> Vec<(String, usize)> {
    struct Nobody;
    impl Watch for Nobody {
        fn progress(&self) -> Arc<dyn Progress> {
            Arc::new(Silent)
        }

        fn line(&self, _: &str) {}
    }
    let context = Context::new("".into(), "".into(), Vec::new(), Arc::new(Nobody));
    let mut names = names::registered(&engine(&Arc::new(context)));
    // Those are functions of the language that are replaced here.
    let of_the_language = |name: &str| {
        let replaced = [&growth::NAMES[..], &closures::NAMES, &readable::OF_MAPS, &["print", ending::NAME]];
        replaced.iter().any(|names| names.contains(&name))
    };
    names.retain(|(name, _)| !of_the_language(name));
    names
}

/// Compiles and runs a script file.
pub fn run(engine: &Engine, context: &Arc<Context>) -> Result<(), Box<Diagnostic>> {
    let source = scripts::read(&context.script)?;
    let name = context.script.display().to_string();
    let mut ast: AST = syntax::compiled(engine, &source).map_err(|e| Diagnostic::from_parse(&e, &name, &source))?;
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

/// True if the script, or anything it imports, may read flags.
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
