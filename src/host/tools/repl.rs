//! An interactive session: lines are evaluated, values are shown, and the input can be saved as a
//! script.
//!
//! Variables are in a scope, and functions in a growing syntax tree. This file does not use a
//! terminal.

use std::collections::BTreeMap;
use std::sync::Arc;

use rhai::{AST, ASTNode, Dynamic, Engine, Expr, LexError, ParseErrorType, Scope, Stmt};

use crate::disk;
use crate::error::{Error, Result};
use crate::home;
use crate::host::diagnostics::diagnostic::Diagnostic;
use crate::host::interpreter;
use crate::host::language::parsing;
use crate::host::language::stdlib;
use crate::host::primitives::machines;
use crate::host::primitives::script::show::{MOST_SHOWN, cut, pretty, shortened};
use crate::host::reference;
use crate::host::run::context::Context;
use crate::host::run::modules;
use crate::host::values::gpu::Gpu;
use crate::host::values::handles;
use crate::host::values::readable::{Readable, short};
use crate::terminal;
use crate::words::{counted, listed};

/// The name of the session in messages.
const NAME: &str = "repl";

pub struct Repl {
    engine: Engine,
    context: Arc<Context>,
    scope: Scope<'static>,
    /// Functions so far.
    functions: AST,
    /// Modules so far: their local names and paths.
    modules: BTreeMap<String, String>,
    /// The input that ran without an error, as script code.
    said: Vec<String>,
}

/// The result of an input.
pub enum Outcome {
    /// Text to show.
    Shown(String),
    Failed(Box<Diagnostic>),
    /// The end of the session, with a message.
    Quit(String),
}

/// Commands, as `:help` shows them.
const COMMANDS: &[(&str, &str)] = &[
    (":help", "this; help does, too"),
    ("?NAME", "what a primitive or a module does, with its options and an example"),
    (":vars", "the variables so far"),
    (":gpus", "the machines of this session"),
    (":save FILE", "write the session as a script that runs"),
    (":detach", "leave, and leave the machines running"),
    (":quit", "leave, and give back what is not to be kept; quit, exit and Ctrl-D do, too"),
];

impl Repl {
    pub fn new(context: Arc<Context>) -> Self {
        let engine = interpreter::engine(&context);
        Self {
            engine,
            context,
            scope: Scope::new(),
            functions: AST::empty(),
            modules: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// Puts a running machine into scope as `gpu`, and its loaded models as `models`.
    pub fn attach(&mut self, id: &str) -> Result<String> {
        let gpu = machines::provision::attach(&self.context, id)?;
        let models = machines::models(&self.context, &gpu)?;
        let named = |model: &Dynamic| handles::handle_json(model).map(|json| short(&json));
        let names: Vec<String> = models.iter().filter_map(named).collect();
        let text = match names.is_empty() {
            true => "no model is loaded there yet".to_string(),
            false => {
                let lines =
                    names.iter().enumerate().map(|(i, name)| format!("  models[{i}]: {}", cut(name, MOST_SHOWN)));
                format!("loaded there:\n{}", lines.collect::<Vec<_>>().join("\n"))
            }
        };
        self.said.push(format!("let gpu = attach_gpu({id:?});"));
        self.said.push("let models = gpu.models();".to_string());
        self.scope.push("gpu", gpu.clone());
        self.scope.push("models", models);
        Ok(format!("attached to {}\n{text}", short(&gpu.json())))
    }

    /// True if an input is incomplete.
    pub fn is_open(&self, input: &str) -> bool {
        if input.trim_start().starts_with([':', '?']) {
            return false;
        }
        if input.trim_end().ends_with('\\') {
            return true;
        }
        match parsing::parse(&self.engine, input) {
            Ok(_) => false,
            Err(error) => match error.err_type() {
                ParseErrorType::UnexpectedEOF => true,
                ParseErrorType::BadInput(LexError::UnterminatedString) => input.matches('`').count() % 2 == 1,
                // The missing token would be after the end.
                ParseErrorType::MissingToken(..)
                | ParseErrorType::MissingSymbol(_)
                | ParseErrorType::ExprExpected(_) => {
                    let lines = input.lines().count();
                    let last = input.lines().next_back().unwrap_or_default().trim_end().chars().count();
                    let position = error.position();
                    position.is_none()
                        || position.line().is_some_and(|line| {
                            line > lines || (line == lines && position.position().unwrap_or(0) > last)
                        })
                }
                _ => false,
            },
        }
    }

    /// Runs one input: a command, a question or script code.
    pub fn run(&mut self, input: &str) -> Outcome {
        let text = input.trim();
        if let Some(name) = text.strip_prefix('?') {
            let name = name.trim();
            return shown(reference::for_reading(if name.is_empty() { None } else { Some(name) }));
        }
        match text.strip_prefix(':').map(str::to_string).or_else(|| self.bare_command(text)) {
            Some(command) => self.command(&command),
            None => self.evaluate(&text.replace("\\\n", "\n")),
        }
    }

    /// The command for a word without its colon, as in other prompts: `quit`, `exit()`, `help
    /// load_model`.
    fn bare_command(&self, text: &str) -> Option<String> {
        let text = text.trim_end_matches(';').trim_end();
        let (word, rest) = text.split_once([' ', '(']).unwrap_or((text, ""));
        let argument = rest.trim_end_matches(')').trim().trim_matches('"');
        let own = self.scope.contains(word) || self.functions.iter_functions().any(|function| function.name == word);
        match word {
            "quit" | "exit" | "help" | "vars" if own => None,
            "vars" if argument.is_empty() => Some(word.to_string()),
            "quit" | "exit" if argument.is_empty() || argument.parse::<i64>().is_ok() => Some(word.to_string()),
            "help" if argument.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':') => {
                Some(format!("help {argument}").trim_end().to_string())
            }
            _ => None,
        }
    }

    fn command(&mut self, command: &str) -> Outcome {
        let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
        match word {
            "help" | "h" if !rest.trim().is_empty() => shown(reference::for_reading(Some(rest.trim()))),
            "help" | "h" => {
                let line = |(name, what): &(&str, &str)| listed(&format!("  {name}"), 15, what, terminal::width());
                let lines: Vec<_> = COMMANDS.iter().map(line).collect();
                let more = "Anything else is script. A value without `;` behind it is shown. Tab completes, Ctrl-C ends the call, \
                    two empty lines end an input that is not finished.";
                Outcome::Shown(format!("{}\n{more}", lines.join("\n")))
            }
            "vars" => Outcome::Shown(self.variables()),
            "gpus" => Outcome::Shown(self.machines()),
            "save" => shown(self.save(rest.trim())),
            "quit" | "q" | "exit" => Outcome::Quit(String::new()),
            "detach" => {
                let left = self.context.fleet.leave();
                self.context.fleet.forget();
                Outcome::Quit(if left.is_empty() {
                    "there is no machine to leave".to_string()
                } else {
                    left.join("\n")
                })
            }
            other => {
                let names = COMMANDS.iter().filter_map(|(name, _)| name.strip_prefix(':')?.split(' ').next());
                let error = Error::bad_argument(format!("no command `:{other}`"));
                shown(Err(error.hint(crate::suggest::hint(other, names))))
            }
        }
    }

    fn evaluate(&mut self, text: &str) -> Outcome {
        if text.is_empty() {
            return Outcome::Shown(String::new());
        }
        self.context.used.again();
        let ast = match parsing::parse_in(&self.engine, &self.scope, text) {
            Ok(ast) => ast,
            Err(error) => return Outcome::Failed(Box::new(Diagnostic::from_parse(&error, NAME, text))),
        };
        let mut whole = self.functions.merge(&ast);
        whole.set_source(NAME);
        let outcome = self.engine.eval_ast_with_scope::<Dynamic>(&mut self.scope, &whole);
        // All input stays defined, as in a script that ran so far.
        self.functions = whole;
        self.functions.clear_statements();
        match outcome {
            Ok(value) => {
                self.keep_modules(&ast);
                let shows = !value.is_unit() && !text.ends_with(';');
                let is_expression = parsing::is_expression(&self.engine, text);
                self.said.push(match (shows && is_expression, text.ends_with(';')) {
                    (true, _) => format!("show({text});"),
                    (false, true) => text.to_string(),
                    (false, false) => format!("{text};"),
                });
                let mut shown = if shows { pretty(&value) } else { String::new() };
                if shows && shortened(&value) {
                    let more = "in short: a field shows more by its name, such as found.features; print(value) shows all fields";
                    shown = format!("{shown}\n{more}");
                }
                let notes = shadowed(&ast).into_iter().chain((!shown.is_empty()).then_some(shown));
                Outcome::Shown(notes.collect::<Vec<_>>().join("\n"))
            }
            Err(error) => Outcome::Failed(Box::new(Diagnostic::from_runtime_with(*error, NAME, Some(text)))),
        }
    }

    /// Keeps an input's imports, because the language forgets modules with the text that imports
    /// them.
    fn keep_modules(&mut self, ast: &AST) {
        let mut imports = Vec::new();
        ast.walk(&mut |path: &[ASTNode]| {
            if let [ASTNode::Stmt(Stmt::Import(import, position))] = path {
                imports.push((import.0.clone(), import.1.name.to_string(), *position));
            }
            true
        });
        for (path, alias, position) in imports.into_iter().filter(|(_, alias, _)| !alias.is_empty()) {
            let path = match path {
                Expr::StringConstant(path, _) => path.to_string(),
                Expr::Variable(name, ..) => self.scope.get_value::<String>(&name.1).unwrap_or_default(),
                _ => continue,
            };
            // It was imported already, and is found again.
            if let Ok(module) = self.engine.module_resolver().resolve(&self.engine, Some(NAME), &path, position) {
                self.engine.register_static_module(&alias, module);
                let from = modules::taken(NAME, &path).map_or(path, |file| stdlib::place(&file));
                self.modules.insert(alias, from);
            }
        }
    }

    /// The name of a value's type, as scripts know it.
    fn type_name(&self, value: &Dynamic) -> &str {
        match value.type_name() {
            "i64" => "int",
            "f64" => "float",
            name => self.engine.map_type_name(name),
        }
    }

    fn variables(&self) -> String {
        let mut rows: Vec<String> = Vec::new();
        for (name, _, value) in self.scope.iter() {
            rows.retain(|row| !row.starts_with(&format!("  {name:<16} ")));
            let text = handles::handle_json(&value).map_or_else(|| value.to_string(), |json| short(&json));
            rows.push(format!("  {name:<16} {:<12} {}", self.type_name(&value), cut(&text, MOST_SHOWN - 32)));
        }
        let functions = self.functions.iter_functions().filter(|function| !function.name.contains('$'));
        rows.extend(functions.map(|f| format!("  {:<16} function     ({})", f.name, f.params.join(", "))));
        rows.extend(self.modules.iter().map(|(name, from)| format!("  {name:<16} module       {from}")));
        if rows.is_empty() { "no variables yet".to_string() } else { rows.join("\n") }
    }

    fn machines(&self) -> String {
        let gpus: Vec<String> = self
            .scope
            .iter()
            .filter_map(|(name, _, value)| {
                let gpu = value.try_cast::<Gpu>()?;
                Some(format!("  {name:<16} {}", short(&gpu.json())))
            })
            .collect();
        match gpus.is_empty() {
            true => "this machine only; `let gpu = provision_gpu(#{ … })` gets another one".to_string(),
            false => gpus.join("\n"),
        }
    }

    /// Saves the session as a script.
    fn save(&self, file: &str) -> Result<String> {
        if file.is_empty() {
            return Err(Error::bad_argument(":save needs the name of a file").hint(":save my_experiment.rhai"));
        }
        let path = match file.ends_with(".rhai") {
            true => file.to_string(),
            false => format!("{file}.rhai"),
        };
        let text = format!("//! A session of `outlier repl`, saved.\n\n{}\n", self.said.join("\n"));
        disk::write(&home::expanded(&path), text.as_bytes())?;
        Ok(format!("{path}: {}; `outlier run {path}` runs this", counted(self.said.len(), "statement")))
    }

    /// Completions of `line`: the start of the word, and the words that begin so.
    pub fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let start =
            line.rfind(|c| !is_word(c)).map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
        let (before, word) = line.split_at(start);
        let mut words: Vec<String> = Vec::new();
        let line_start = before.trim_start();
        if line_start == ":" {
            words.extend(
                COMMANDS.iter().filter_map(|(name, _)| name.strip_prefix(':')?.split(' ').next()).map(String::from),
            );
        } else if let Some(primitive) = open_options(before) {
            words.extend(primitive.keys().map(|key| format!("{key}: ")));
        } else if let Some(owner) = before.strip_suffix('.') {
            words.extend(self.fields(owner));
            let methods = reference::all().filter(|p| p.arities().first().is_some_and(|least| *least > 0));
            words.extend(methods.map(|primitive| format!("{}(", primitive.name)));
        } else {
            let call = if line_start == "?" { "" } else { "(" };
            words.extend(reference::all().map(|primitive| format!("{}{call}", primitive.name)));
            words.extend(self.scope.iter().map(|(name, ..)| name.to_string()));
            words.extend(["let ", "for ", "if ", "import ", "print(", "fn "].map(String::from));
        }
        words.retain(|known| known.starts_with(word) && known.len() > word.len());
        words.sort();
        words.dedup();
        (start, words)
    }

    /// Fields of the variable at the end of `text`.
    fn fields(&self, text: &str) -> Vec<String> {
        let start = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        let Some(value) = text.get(start..).and_then(|name| self.scope.get(name)) else { return Vec::new() };
        match handles::as_json(value).ok() {
            Some(serde_json::Value::Object(map)) => map.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }
}

/// A line for every primitive whose name an input redefines.
fn shadowed(ast: &AST) -> Vec<String> {
    let mut lines = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let [ASTNode::Stmt(Stmt::Var(var, ..))] = path
            && reference::find(&var.0.name).is_some()
        {
            lines.push(format!(
                "`{0}` is a primitive, too: `{0}` alone is now this value, {0}(…) still calls it",
                var.0.name
            ));
        }
        true
    });
    for function in ast.iter_functions() {
        if reference::find(function.name).is_some_and(|primitive| primitive.arities().contains(&function.params.len()))
        {
            lines.push(format!("{}(…) now calls this function, and the primitive no longer", function.name));
        }
    }
    lines
}

fn shown(text: Result<String>) -> Outcome {
    match text {
        Ok(text) => Outcome::Shown(text.trim_end().to_string()),
        Err(error) => Outcome::Failed(Box::new(Diagnostic::from_error(error))),
    }
}

/// The primitive whose option map is open at the end of `text` and expects a key.
fn open_options(text: &str) -> Option<&'static reference::Primitive> {
    let open = text.rfind("#{")?;
    let inside = &text[open + 2..];
    let expects_key = inside.trim_end().is_empty() || inside.trim_end().ends_with(',');
    if !expects_key || inside.contains('}') {
        return None;
    }
    let call = text[..open].rfind('(')?;
    let name = text[..call].rsplit(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    reference::find(name)
}
