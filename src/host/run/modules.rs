//! Resolves `import "name"`: next to the importing script, in the project's `stdlib/`, then in the
//! program itself.
//!
//! A file on disk has precedence over the embedded module of the same name.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;

use rhai::{Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared};

use super::imports::Within;
use super::places;
use crate::error::Error;
use crate::host::language::parsing;
use crate::host::language::problem::as_map;
use crate::host::language::script_text::regular_text;
use crate::host::language::stdlib;
use crate::host::language::syntax;
use crate::secret::secret_name;

/// The file of each import, by importing file and path, for messages.
static RESOLVED: Mutex<BTreeMap<(String, String), String>> = Mutex::new(BTreeMap::new());

pub(crate) struct Modules {
    root: PathBuf,
    cache: Mutex<BTreeMap<String, Shared<Module>>>,
}

impl Modules {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, cache: Mutex::default() }
    }

    /// Name for messages, and text.
    pub(crate) fn find(&self, importer: Option<&str>, path: &str) -> Option<(String, String)> {
        self.look(importer, path).ok().flatten()
    }

    /// The same.
    ///
    /// # Errors
    /// If there is a file that cannot be a module.
    fn look(&self, importer: Option<&str>, path: &str) -> io::Result<Option<(String, String)>> {
        // Normalised, so that a file has one name.
        let plain: PathBuf = Path::new(path).components().filter(|part| !matches!(part, Component::CurDir)).collect();
        let file = format!("{}.rhai", plain.display());
        let beside = importer.and_then(|importer| Path::new(importer).parent()).map(|folder| folder.join(&file));
        let stdlib = self.root.join("stdlib").join(&file);
        for candidate in beside.into_iter().chain([stdlib]) {
            match self.text(importer, &candidate) {
                Ok(text) => return Ok(Some((candidate.display().to_string(), text))),
                Err(error) => match error.kind() {
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => (),
                    kind => return Err(io::Error::new(kind, format!("{}: {error}", candidate.display()))),
                },
            }
        }
        Ok(stdlib::module(path).map(|text| (stdlib::file(path), text.to_string())))
    }

    /// The text of a module. A link is checked by its target before anything is read or shown: it
    /// must be a file `*.rhai` of the project or of the importing script's folder that does not
    /// have the name of a secret, and that no script can have written.
    fn text(&self, importer: Option<&str>, file: &Path) -> io::Result<String> {
        let refused = |why: &str| Err(io::Error::new(ErrorKind::PermissionDenied, why));
        let whole = |folder: &Path| Path::new(".").join(folder).canonicalize().ok();
        let target = file.canonicalize()?;
        let beside = importer.and_then(|importer| Path::new(importer).parent());
        let mut homes = [Some(self.root.as_path()), beside].into_iter().flatten().filter_map(whole);
        let Some(inside) = homes.find_map(|home| target.strip_prefix(home).ok().map(Path::to_path_buf)) else {
            return refused("it leads out of the project");
        };
        if secret_name(&inside) || target.extension().is_none_or(|end| end != "rhai") {
            return refused("it leads to a file that is no module");
        }
        let written = |folder: &str| whole(&self.root.join(folder)).is_some_and(|folder| target.starts_with(folder));
        if places::FOLDERS.into_iter().any(written) {
            return refused("scripts write there");
        }
        regular_text(&target)
    }
}

/// Names of the functions of an embedded module.
pub(crate) fn functions(module: &str) -> Vec<String> {
    functions_of(&stdlib::file(module))
}

/// Names of the functions of a module, by its file's name in messages.
pub(crate) fn functions_of(file: &str) -> Vec<String> {
    let ast = source(file).and_then(|text| parsing::parse(&syntax::engine(), &text).ok());
    ast.iter().flat_map(rhai::AST::iter_functions).map(|function| function.name.to_string()).collect()
}

/// The file that the import of `path` in the file `importer` has used.
pub(crate) fn taken(importer: &str, path: &str) -> Option<String> {
    let resolved = RESOLVED.lock().expect("no panic under this lock");
    resolved.get(&(importer.to_string(), path.to_string())).cloned()
}

/// The file that was used for the module of this name, by any importer.
pub(crate) fn file_of(module: &str) -> Option<String> {
    let resolved = RESOLVED.lock().expect("no panic under this lock");
    let named = |path: &str| path.rsplit('/').next() == Some(module);
    resolved.iter().find(|((_, path), _)| named(path)).map(|(_, file)| file.clone())
}

/// The text of a script file or embedded module, by its name in messages.
pub(crate) fn source(file: &str) -> Option<String> {
    match stdlib::is_embedded(file) {
        true => stdlib::source(file).map(str::to_string),
        false => regular_text(Path::new(file)).ok(),
    }
}

impl ModuleResolver for Modules {
    fn resolve(
        &self,
        engine: &Engine,
        importer: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<Shared<Module>, Box<EvalAltResult>> {
        if path.split(['/', '\\']).any(|part| part == "..") || Path::new(path).is_absolute() {
            let error = Error::bad_argument(format!("import \"{path}\" leads out of the project"))
                .hint("modules are looked for beside the script, in stdlib/ and in the program");
            let error = as_map(&error);
            return Err(Box::new(EvalAltResult::ErrorRuntime(error.into(), position)));
        }
        let not_found = || Box::new(EvalAltResult::ErrorModuleNotFound(path.to_string(), position));
        let unreadable = |error: io::Error| {
            let hint = match error.kind() {
                ErrorKind::Other => "cut it into several modules",
                ErrorKind::InvalidData => "save it as UTF-8",
                _ => "modules are files NAME.rhai of the project, and none of results/ and logs/",
            };
            let error = Error::bad_argument(format!("import \"{path}\": {error}")).hint(hint);
            Box::new(EvalAltResult::ErrorRuntime(as_map(&error).into(), position))
        };
        let (name, text) = self.look(importer, path).map_err(unreadable)?.ok_or_else(not_found)?;
        let key = (importer.unwrap_or_default().to_string(), path.to_string());
        RESOLVED.lock().expect("no panic under this lock").insert(key, name.clone());
        if let Some(module) = self.cache.lock().expect("no panic under this lock").get(&name) {
            return Ok(module.clone());
        }
        let _within = Within::begin(&name, position)?;
        let in_module = |error| Box::new(EvalAltResult::ErrorInModule(path.to_string(), error, position));
        let mut ast = syntax::compiled(engine, &text).map_err(|e| in_module(e.into()))?;
        ast.set_source(name.as_str());
        let module = Module::eval_ast_as_new(Scope::new(), &ast, engine).map_err(in_module)?;
        let module: Shared<Module> = module.into();
        self.cache.lock().expect("no panic under this lock").insert(name, module.clone());
        Ok(module)
    }
}
