//! `outlier check`: analyses scripts and their imports without running them, and reports certain
//! failures: missing functions, wrong numbers of arguments, unknown options and flags, undefined
//! variables.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rhai::{
    AST, ASTNode, Engine, Expr, FnCallExpr, Ident, OptimizationLevel, ParseError, ParseErrorType, Position, Stmt,
};

use super::check_fields::{self, Missing};
use crate::error::Error;
use crate::host::diagnostics::diagnostic::Diagnostic;
use crate::host::diagnostics::habits;
use crate::host::language::names;
use crate::host::language::parsing;
use crate::host::language::stdlib;
use crate::host::language::syntax;
use crate::host::reference::{self, Primitive};
use crate::host::run::modules::Modules;
use crate::host::scripts;
use crate::host::values::options::choice_hint;
use crate::suggest;
use crate::words::counted;

/// Methods of function pointers, with any number of arguments.
const POINTER: &[&str] = &["call", "curry"];
/// The largest number of reported mistakes in a script, and of those with a suggestion.
const MOST_FOUND: usize = 1000;
const MOST_SUGGESTED: usize = 100;
/// Function and number of its arguments.
type Signature = (String, usize);

/// Checks the scripts of a project.
pub struct Checker {
    engine: Engine,
    strict: Engine,
    modules: Modules,
    native: BTreeSet<Signature>,
    read: RefCell<BTreeMap<String, Rc<Text>>>,
}

/// A file that was read.
struct Text {
    name: String,
    source: String,
    ast: Result<AST, ParseError>,
    functions: BTreeSet<Signature>,
}

impl Checker {
    pub fn new(engine: Engine, project: PathBuf) -> Self {
        let native: BTreeSet<Signature> = names::of(&engine).into_iter().collect();
        let reader = |strict| {
            let mut engine = syntax::engine();
            engine.set_optimization_level(OptimizationLevel::None).set_strict_variables(strict);
            engine
        };
        let read = RefCell::default();
        Self { engine: reader(false), strict: reader(true), modules: Modules::new(project), native, read }
    }

    /// All problems of a script and of the files it imports.
    pub fn check(&self, script: &Path) -> Result<Vec<Diagnostic>, Box<Diagnostic>> {
        let source = scripts::read(script)?;
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        self.file(&script.display().to_string(), &source, &mut seen, &mut found);
        if found.len() >= MOST_FOUND {
            found.truncate(MOST_FOUND);
            let more = Error::bad_argument(format!("there are {MOST_FOUND} mistakes: the rest is not looked for"));
            found.push(Diagnostic::from_error(more.hint("mend these and check again")));
        }
        Ok(found)
    }

    /// Checks a file, then its imports. A wrong module does not stop the check.
    fn file(&self, name: &str, source: &str, seen: &mut BTreeSet<String>, found: &mut Vec<Diagnostic>) {
        if !seen.insert(name.to_string()) {
            return;
        }
        let text = self.text(name, source);
        let ast = match &text.ast {
            Ok(ast) => ast,
            Err(error) => {
                found.push(Diagnostic::from_parse(error, name, source));
                return;
            }
        };
        self.undefined(&text, found);
        let imports = self.imports(&text, ast, found);
        let mut calls = Vec::new();
        collect_calls(ast, &mut |call, position, method| calls.push((call.clone(), position, method)));
        let literals = Literals::of(ast);
        for (call, position, method) in &calls {
            if found.len() >= MOST_FOUND {
                return;
            }
            self.call(&text, &imports, &literals, call, *position, *method, found);
        }
        flags(&text, ast, found);
        let own: BTreeSet<&str> = text.functions.iter().map(|(name, _)| name.as_str()).collect();
        for Missing { position, message, hint } in check_fields::missing(ast, &own) {
            if found.len() < MOST_FOUND {
                found.push(Diagnostic::at(&text.name, position, &text.source, message, Some(hint)));
            }
        }
        for module in imports.values() {
            self.file(&module.name, &module.source, seen, found);
        }
    }

    fn text(&self, name: &str, source: &str) -> Rc<Text> {
        let known = self.read.borrow().get(name).filter(|text| text.source == source).cloned();
        known.unwrap_or_else(|| {
            let ast = parsing::parse(&self.engine, source);
            let functions = ast.iter().flat_map(AST::iter_functions);
            let functions = functions.map(|f| (f.name.to_string(), f.params.len())).collect();
            let text = Rc::new(Text { name: name.to_string(), source: source.to_string(), ast, functions });
            self.read.borrow_mut().insert(name.to_string(), text.clone());
            text
        })
    }

    /// Undefined variables and modules. The parser stops at the first one.
    fn undefined(&self, text: &Text, found: &mut Vec<Diagnostic>) {
        let Err(error) = parsing::parse(&self.strict, &text.source) else { return };
        let hint = match error.err_type() {
            ParseErrorType::VariableUndefined(name) => {
                let names = variables(text.ast.as_ref().ok());
                let near = suggest::nearest(name, names.iter().map(String::as_str).filter(|known| known != name));
                match (habits::of_variable(name, &text.source, error.position()), near) {
                    (Some(hint), _) => hint,
                    (None, Some(near)) => format!("did you mean `{near}`?"),
                    (None, None) => "functions see their parameters, and constants as global::NAME".to_string(),
                }
            }
            ParseErrorType::ModuleUndefined(name) => format!("import \"{name}\" as {name}; brings a module in"),
            _ => return,
        };
        let message = match error.err_type() {
            ParseErrorType::VariableUndefined(name) => format!("no variable `{name}`"),
            other => other.to_string(),
        };
        found.push(Diagnostic::at(&text.name, error.position(), &text.source, message, Some(hint)));
    }

    /// Modules by their local names, without those whose path is computed.
    fn imports(&self, text: &Text, ast: &AST, found: &mut Vec<Diagnostic>) -> BTreeMap<String, Rc<Text>> {
        let mut imports = BTreeMap::new();
        for (path, alias, position) in import_statements(ast) {
            match self.modules.find(Some(&text.name), &path) {
                Some((name, source)) => {
                    imports.insert(alias, self.text(&name, &source));
                }
                None => {
                    let hint = match suggest::nearest(&path, stdlib::modules()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "modules are looked for beside the script, in stdlib/ and in the program".to_string(),
                    };
                    let message = format!("no module \"{path}\"");
                    found.push(Diagnostic::at(&text.name, position, &text.source, message, Some(hint)));
                }
            }
        }
        imports
    }

    #[allow(clippy::too_many_arguments)] // the places of one walk
    fn call(
        &self,
        text: &Text,
        imports: &BTreeMap<String, Rc<Text>>,
        literals: &Literals,
        call: &FnCallExpr,
        position: Position,
        method: bool,
        found: &mut Vec<Diagnostic>,
    ) {
        let name = call.name.as_str();
        let word = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !name.contains('$');
        if call.op_token.is_some() || !word || POINTER.contains(&name) {
            return;
        }
        // Searching the nearest name is far more expensive than finding that a name is undefined.
        let suggests = found.len() < MOST_SUGGESTED;
        let mut tell = |position, message, hint| {
            found.push(Diagnostic::at(&text.name, position, &text.source, message, Some(hint)));
        };
        let arguments = call.args.len();
        if !call.namespace.is_empty() {
            let alias = call.namespace.root();
            // A module whose path is computed is unknown here.
            let Some(module) = imports.get(alias) else { return };
            if !module.functions.contains(&(name.to_string(), arguments)) && module.ast.is_ok() {
                let (message, hint) = unknown(&format!("{alias}::{name}"), name, arguments, &module.functions, alias);
                tell(position, message, hint);
            }
            return;
        }
        let own = text.functions.contains(&(name.to_string(), arguments));
        let native = self.native.contains(&(name.to_string(), arguments + method as usize));
        // A map may contain a function with this name.
        let held = method && literals.keys.contains(name);
        if !own && !native && !held {
            let (message, hint) = match suggests {
                true => {
                    let known: BTreeSet<Signature> = self.native.union(&text.functions).cloned().collect();
                    unknown(name, name, arguments + method as usize, &known, "")
                }
                false => {
                    (format!("no function `{name}` with so many arguments"), "`outlier doc` lists what there is".into())
                }
            };
            tell(position, message, hint);
        }
        let Some(primitive) = reference::find(name).filter(|primitive| !own && !primitive.options.is_empty()) else {
            return;
        };
        for argument in &call.args {
            let map = match argument {
                Expr::Map(map, _) => Some(&map.0[..]),
                Expr::Variable(variable, ..) => literals.maps.get(variable.1.as_str()).map(|map| &map[..]),
                _ => None,
            };
            for (key, value) in map.into_iter().flatten() {
                if let Some((position, message, hint)) = option(primitive, key, value) {
                    tell(position, message, hint);
                }
            }
        }
    }
}

/// The problem of an option, if there is one.
fn option(primitive: &Primitive, key: &Ident, value: &Expr) -> Option<(Position, String, String)> {
    let Some(option) = primitive.options.iter().find(|option| option.key == key.name.as_str()) else {
        let message = format!("{}: unknown option `{}`", primitive.name, key.name);
        return Some((key.pos, message, suggest::hint(&key.name, primitive.keys())));
    };
    let choices = option.choices();
    let Expr::StringConstant(word, position) = value else { return None };
    let wrong = !choices.is_empty() && !choices.iter().any(|choice| choice == word.as_str());
    wrong.then(|| {
        let message = format!("{}: `{}` is \"{word}\"", primitive.name, key.name);
        (*position, message, choice_hint(&key.name, word, choices.iter().map(String::as_str)))
    })
}

/// Message and hint for a function that does not exist with this number of arguments.
fn unknown(shown: &str, name: &str, arguments: usize, known: &BTreeSet<Signature>, module: &str) -> (String, String) {
    let types = vec!["any"; arguments].join(", ");
    let habit = habits::of_function(&format!("{name} ({types})")).filter(|_| module.is_empty());
    let arities: Vec<String> =
        known.iter().filter(|(other, _)| other == name).map(|(_, arity)| arity.to_string()).collect();
    if !arities.is_empty() {
        let message = format!("`{shown}` does not take {}", counted(arguments, "argument"));
        let hint = match reference::find(name) {
            _ if habit.is_some() => habit.unwrap_or_default().to_string(),
            Some(primitive) if module.is_empty() => format!("it is called as {}", primitive.signatures.join(" or ")),
            _ => format!("it takes {}", arities.join(" or ")),
        };
        return (message, hint);
    }
    let names = known.iter().map(|(other, _)| other.as_str()).filter(|other| !other.contains('$'));
    let hint = match suggest::nearest(name, names) {
        _ if habit.is_some() => habit.unwrap_or_default().to_string(),
        Some(near) => format!("did you mean `{near}`?"),
        None if module.is_empty() => "`outlier doc` lists what there is".to_string(),
        None => format!("`outlier doc {module}` lists the module's functions"),
    };
    (format!("no function `{shown}`"), hint)
}

/// Visits every call of a script. The flag is true for method syntax.
fn collect_calls(ast: &AST, on_call: &mut dyn FnMut(&FnCallExpr, Position, bool)) {
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, position)) | ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                on_call(call, *position, false)
            }
            Some(ASTNode::Expr(Expr::MethodCall(call, position))) => on_call(call, *position, true),
            _ => (),
        }
        true
    });
}

/// Path, alias and position of every import with a literal path.
pub fn import_statements(ast: &AST) -> Vec<(String, String, Position)> {
    let mut imports = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = path.last()
            && let Expr::StringConstant(path, position) = &import.0
        {
            let alias = import.1.name.to_string();
            let alias = if alias.is_empty() { path.to_string() } else { alias };
            imports.push((path.to_string(), alias, *position));
        }
        true
    });
    imports
}

/// Names of variables, constants and parameters.
fn variables(ast: Option<&AST>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let Some(ast) = ast else { return names };
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(var, ..))) => {
                names.insert(var.0.name.to_string());
            }
            Some(ASTNode::Stmt(Stmt::For(var, _))) => {
                names.insert(var.0.name.to_string());
            }
            _ => (),
        }
        true
    });
    names.extend(ast.iter_functions().flat_map(|f| f.params.iter().map(|name| name.to_string()).collect::<Vec<_>>()));
    names
}

/// Map literals.
struct Literals {
    /// Variables that are assigned once, to a map that is not modified.
    maps: BTreeMap<String, Vec<(Ident, Expr)>>,
    /// All keys.
    keys: BTreeSet<String>,
}

impl Literals {
    fn of(ast: &AST) -> Self {
        let (mut maps, mut keys) = (BTreeMap::<String, Vec<(Ident, Expr)>>::new(), BTreeSet::new());
        let mut not_once = BTreeSet::new();
        ast.walk(&mut |path: &[ASTNode]| {
            match path.last() {
                Some(ASTNode::Stmt(Stmt::Var(var, ..))) => {
                    let (name, value) = (var.0.name.to_string(), &var.1);
                    let literal = match value {
                        Expr::Map(map, _) => map.0.iter().cloned().collect(),
                        _ => Vec::new(),
                    };
                    if maps.insert(name.clone(), literal).is_some() {
                        not_once.insert(name);
                    }
                }
                Some(ASTNode::Expr(Expr::Map(map, _))) => {
                    keys.extend(map.0.iter().map(|(key, _)| key.name.to_string()))
                }
                Some(ASTNode::Expr(Expr::Property(property, _))) => {
                    keys.insert(property.2.to_string());
                }
                _ => (),
            }
            true
        });
        // A parameter with the same name is another variable.
        not_once.extend(ast.iter_functions().flat_map(|f| f.params.iter().map(|p| p.to_string()).collect::<Vec<_>>()));
        maps.retain(|name, _| !not_once.contains(name));
        Self { maps, keys }
    }
}

/// Flags that are declared and not used, or used and not declared.
fn flags(text: &Text, ast: &AST, found: &mut Vec<Diagnostic>) {
    let mut declared: Vec<(String, Vec<Ident>)> = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Stmt(Stmt::Var(var, ..))) = path.last()
            && let Expr::FnCall(call, _) = &var.1
            && call.name == "args"
            && let [Expr::Map(map, _)] = &call.args[..]
        {
            declared.push((var.0.name.to_string(), map.0.iter().map(|(key, _)| key.clone()).collect()));
        }
        true
    });
    for (variable, keys) in declared {
        // Each walk through the script takes time.
        if found.len() >= MOST_FOUND {
            return;
        }
        // In a function with a parameter of this name it is another variable.
        if ast.iter_functions().any(|f| f.params.contains(&variable.as_str()) && !f.name.contains('$')) {
            continue;
        }
        let (used, escapes) = uses(ast, &variable);
        let mut tell = |position, message: String, hint: String| {
            found.push(Diagnostic::at(&text.name, position, &text.source, message, Some(hint)));
        };
        for (name, position) in &used {
            if keys.iter().all(|key| key.name.as_str() != name) {
                let message = format!("flag `{name}` is not declared");
                tell(*position, message, suggest::hint(name, keys.iter().map(|key| key.name.as_str())));
            }
        }
        for key in keys.iter().filter(|key| !escapes && used.iter().all(|(name, _)| key.name.as_str() != name)) {
            let message = format!("flag `{}` is declared and not used", key.name);
            tell(key.pos, message, format!("use {variable}.{}, or leave the flag out", key.name));
        }
    }
}

/// Properties that are read from a variable, and whether it is passed on as a whole.
fn uses(ast: &AST, variable: &str) -> (Vec<(String, Position)>, bool) {
    let is_it = |expr: &Expr| matches!(expr, Expr::Variable(name, ..) if name.1.as_str() == variable);
    let (mut used, mut as_owner, mut everywhere) = (Vec::new(), 0, 0);
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Expr(Expr::Dot(dot, ..))) if is_it(&dot.lhs) => {
                let first = match &dot.rhs {
                    Expr::Dot(rest, ..) | Expr::Index(rest, ..) => &rest.lhs,
                    other => other,
                };
                if let Expr::Property(property, position) = first {
                    as_owner += 1;
                    used.push((property.2.to_string(), *position));
                }
            }
            Some(ASTNode::Expr(expr)) if is_it(expr) => everywhere += 1,
            _ => (),
        }
        true
    });
    (used, everywhere > as_owner)
}
