//! Fields of records in a script that is not run: a field that a known record does not have.
//!
//! What a primitive gives is known, and so are the variables that are declared once, with such a
//! value, and are not changed. Everything else is left to the run.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTFlags, ASTNode, Expr, FnCallExpr, Position, Stmt};

use crate::host::reference;
use crate::host::values::shapes::{Given, Shape, given_by};
use crate::suggest;

/// Methods that change a map. A variable on which one is called has fields of the script's own.
const CHANGING: [&str; 7] = ["set", "mixin", "fill_with", "remove", "clear", "drain", "retain"];

/// A field that a record does not have.
pub(super) struct Missing {
    pub position: Position,
    pub message: String,
    pub hint: String,
}

/// The missing fields of a script. `own` are the names of its functions.
pub(super) fn missing(ast: &AST, own: &BTreeSet<&str>) -> Vec<Missing> {
    let mut fields = Fields { own, variables: BTreeMap::new(), found: Vec::new(), quiet: true };
    let once = declared_once(ast);
    // A variable may be declared with the field of another one.
    for _ in 0..ROUNDS {
        let before = fields.variables.len();
        ast.walk(&mut |path: &[ASTNode]| {
            match path.last() {
                Some(ASTNode::Stmt(Stmt::Var(var, ..))) if once.contains(var.0.name.as_str()) => {
                    if let Some(given) = fields.of(&var.1) {
                        fields.variables.insert(var.0.name.to_string(), given);
                    }
                }
                Some(ASTNode::Stmt(Stmt::For(each, _))) if once.contains(each.0.name.as_str()) => {
                    if let Some(Given::List(item)) = fields.of(&each.2.expr) {
                        fields.variables.insert(each.0.name.to_string(), Given::One(item));
                    }
                }
                _ => (),
            }
            true
        });
        if fields.variables.len() == before {
            break;
        }
    }
    fields.quiet = false;
    ast.walk(&mut |path: &[ASTNode]| {
        // Inner parts of a chain begin with a property, of which nothing is known by itself.
        if let Some(ASTNode::Expr(expr @ (Expr::Dot(..) | Expr::Index(..)))) = path.last() {
            fields.of(expr);
        }
        true
    });
    let mut seen = BTreeSet::new();
    fields.found.retain(|missing| seen.insert((missing.position, missing.message.clone())));
    fields.found
}

/// How deep declarations may refer to each other.
const ROUNDS: usize = 8;

/// Names that are declared once in the whole file, and whose value nothing changes.
fn declared_once(ast: &AST) -> BTreeSet<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut changed = BTreeSet::new();
    let mut count = |name: &str| *times.entry(name.to_string()).or_default() += 1;
    ast.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(var, ..))) => count(&var.0.name),
            Some(ASTNode::Stmt(Stmt::For(each, _))) => {
                count(&each.0.name);
                each.1.iter().for_each(|counter| count(&counter.name));
            }
            Some(ASTNode::Stmt(Stmt::TryCatch(caught, _))) => {
                if let Expr::Variable(name, ..) = &caught.expr {
                    count(name.1.as_str());
                }
            }
            Some(ASTNode::Stmt(Stmt::Assignment(assignment))) => {
                changed.extend(base(&assignment.1.lhs).map(str::to_string));
            }
            Some(ASTNode::Expr(Expr::Dot(chain, ..))) => {
                let call = match &chain.rhs {
                    Expr::MethodCall(call, _) => Some(call),
                    Expr::Dot(rest, ..) | Expr::Index(rest, ..) => match &rest.lhs {
                        Expr::MethodCall(call, _) => Some(call),
                        _ => None,
                    },
                    _ => None,
                };
                if call.is_some_and(|call| CHANGING.contains(&call.name.as_str())) {
                    changed.extend(base(&chain.lhs).map(str::to_string));
                }
            }
            _ => (),
        }
        true
    });
    for function in ast.iter_functions() {
        function.params.iter().for_each(|name| *times.entry(name.to_string()).or_default() += 1);
    }
    times.into_iter().filter(|(name, times)| *times == 1 && !changed.contains(name)).map(|(name, _)| name).collect()
}

/// The variable at the begin of a chain of fields and items.
fn base(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Variable(name, ..) => Some(name.1.as_str()),
        Expr::Dot(chain, ..) | Expr::Index(chain, ..) => base(&chain.lhs),
        _ => None,
    }
}

struct Fields<'a> {
    own: &'a BTreeSet<&'a str>,
    variables: BTreeMap<String, Given>,
    found: Vec<Missing>,
    /// True while variables are collected.
    quiet: bool,
}

impl Fields<'_> {
    /// What an expression gives, if that is known.
    fn of(&mut self, expr: &Expr) -> Option<Given> {
        match expr {
            Expr::Variable(name, ..) if name.2.is_empty() => self.variables.get(name.1.as_str()).copied(),
            Expr::FnCall(call, _) => self.of_call(call),
            Expr::Dot(chain, ..) => {
                let begin = self.of(&chain.lhs);
                self.behind(begin, &chain.rhs)
            }
            Expr::Index(chain, flags, _) => {
                let begin = self.of(&chain.lhs);
                self.item(begin, &chain.rhs, *flags)
            }
            _ => None,
        }
    }

    fn of_call(&self, call: &FnCallExpr) -> Option<Given> {
        let name = call.name.as_str();
        if !call.namespace.is_empty() || self.own.contains(name) {
            return None;
        }
        given_by(reference::find(name)?)
    }

    /// What the rest of a chain gives behind a point.
    fn behind(&mut self, before: Option<Given>, rest: &Expr) -> Option<Given> {
        match rest {
            Expr::Property(property, position) => self.field(before, property.2.as_str(), *position),
            Expr::MethodCall(call, _) => self.of_call(call),
            Expr::Dot(chain, ..) => {
                let here = self.behind(before, &chain.lhs);
                self.behind(here, &chain.rhs)
            }
            Expr::Index(chain, flags, _) => {
                let here = self.behind(before, &chain.lhs);
                self.item(here, &chain.rhs, *flags)
            }
            _ => None,
        }
    }

    /// What the rest of a chain gives behind `[`: the index, and what follows it.
    fn item(&mut self, list: Option<Given>, rest: &Expr, flags: ASTFlags) -> Option<Given> {
        let of_list = |index: &Expr| match (list, index) {
            (Some(Given::List(item)), index) if !matches!(index, Expr::StringConstant(..)) => Some(Given::One(item)),
            _ => None,
        };
        if flags.contains(ASTFlags::BREAK) {
            return of_list(rest);
        }
        match rest {
            Expr::Dot(chain, ..) => {
                let item = of_list(&chain.lhs);
                self.behind(item, &chain.rhs)
            }
            Expr::Index(chain, flags, _) => {
                let item = of_list(&chain.lhs);
                self.item(item, &chain.rhs, *flags)
            }
            index => of_list(index),
        }
    }

    fn field(&mut self, of: Option<Given>, name: &str, position: Position) -> Option<Given> {
        let Given::One(_) = of? else { return None };
        let shape: &Shape = of?.shape()?;
        if let Some(given) = shape.field(name) {
            return given;
        }
        if !self.quiet {
            let message = format!("{} has no field `{name}`", shape.name);
            let hint = suggest::hint(name, shape.fields.iter().map(|(field, _)| *field));
            self.found.push(Missing { position, message, hint });
        }
        None
    }
}
