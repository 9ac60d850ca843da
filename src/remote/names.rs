//! The project's files that may be sent, and the names that a machine may give to files here.
//!
//! Files that may never be sent are never accepted either. A machine, or a script that has made a
//! file there, must not replace files that people and this program run, trust or keep secret.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::failure::Failure;
use crate::error::{Error, Result};
use crate::secret::secret_name;

/// Never sent by `sync`, in addition to secrets: outputs of machines and of builds.
const NEVER_SENT: &[&str] = &["results", "target"];
/// Folders of the project whose files are run.
const RUN: &[&str] = &["stdlib", "scripts", "target", "src", "node_modules"];
/// Files that tools run or obey when they are called in their folder: these names, alone or with a
/// suffix after a point (`rust-toolchain.toml`, `Makefile.am`).
const RECIPES: &[&str] = &[
    "makefile",
    "gnumakefile",
    "bsdmakefile",
    "justfile",
    "rakefile",
    "gemfile",
    "dockerfile",
    "containerfile",
    "vagrantfile",
    "jenkinsfile",
    "procfile",
    "pipfile",
    "brewfile",
    "cargo",
    "rust-toolchain",
    "rustfmt",
    "clippy",
    "cmakelists",
    "cmakepresets",
    "meson",
    "sconstruct",
    "sconscript",
    "wscript",
    "package.json",
    "package.json5",
    "package.yaml",
    "package-lock",
    "npm-shrinkwrap",
    "pnpm-lock",
    "pnpm-workspace",
    "yarn",
    "deno",
    "tsconfig",
    "pyproject",
    "setup.cfg",
    "tox",
    "pytest",
    "poetry",
    "uv.lock",
    "uv.toml",
    "conftest",
    "requirements",
    "environment.yml",
    "environment.yaml",
    "compose",
    "docker-compose",
    "go.mod",
    "go.sum",
    "go.work",
    "pom",
    "build.xml",
    "build.bazel",
    "workspace.bazel",
    "configure",
    "gradlew",
    "mvnw",
    "flake.lock",
    "taskfile",
];
/// Suffixes of those that indicate data, which nobody runs.
const DATA: &[&str] =
    &["csv", "tsv", "parquet", "safetensors", "npy", "npz", "png", "svg", "pdf", "html", "md", "log", "stats"];
/// Endings of programs and of files that interpreters, shells and build tools run.
const PROGRAMS: &[&str] = &[
    "rhai", "rs", "py", "pyw", "pyc", "sh", "bash", "zsh", "fish", "ksh", "csh", "pl", "pm", "rb", "lua", "tcl", "php",
    "js", "mjs", "cjs", "ts", "mts", "cts", "mk", "mak", "cmake", "ninja", "gradle", "kts", "nix", "bzl", "bazel",
    "just", "bat", "cmd", "ps1", "exe", "com", "dll", "so", "dylib", "jar", "class", "wasm", "desktop", "service",
    "timer",
];

/// True for the ledger of rented machines, including SQLite's files next to it. Only this program
/// writes it.
fn is_ledger(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.starts_with("gpus.sqlite")
}

/// Rejects a path of a script that leaves the project, for the primitive `verb`. A leading `~` is
/// the home folder, here and there.
pub fn inside(verb: &str, path: &str) -> Result<()> {
    match path == "~" || path.starts_with("~/") {
        true => Err(outside(verb, path)),
        false => is_below(verb, path),
    }
}

fn outside(verb: &str, path: &str) -> Error {
    Error::of(Failure::OutsideProject { verb: verb.to_string(), path: path.to_string() })
}

/// The same for a name in a listing, in which `~` is an ordinary character.
fn is_below(verb: &str, name: &str) -> Result<()> {
    let mut parts = parts(Path::new(name)).peekable();
    let none = parts.peek().is_none();
    if none || parts.any(|part| !matches!(part, Component::Normal(_))) { Err(outside(verb, name)) } else { Ok(()) }
}

fn parts(path: &Path) -> impl Iterator<Item = Component<'_>> {
    path.components().filter(|part| !matches!(part, Component::CurDir))
}

/// True if `sync` leaves this path of the project out.
pub(super) fn stays(path: &Path) -> bool {
    secret_name(path) || is_ledger(path) || path.iter().any(|part| NEVER_SENT.iter().any(|never| part == *never))
}

/// True if a machine may write a file of this name here.
fn is_accepted(path: &Path) -> bool {
    let lower = |part: &OsStr| part.to_string_lossy().to_lowercase();
    let names: Vec<String> = parts(path).map(|part| lower(part.as_os_str())).collect();
    let plain = |name: &String| !name.starts_with('.') && !name.chars().any(|c| c.is_control() || c == '\\');
    let is_run = RUN.contains(&names[0].as_str()) && names.len() > 1;
    let last = names.last().expect("a path inside the project has a name");
    let is_script = is_program(last) || is_recipe(last) || (names.len() == 1 && RUN.contains(&last.as_str()));
    names.iter().all(plain) && !is_run && !is_script && !secret_name(path) && !is_ledger(path)
}

/// True if a file of this lower-case name is a program. The name of a shared library may have a
/// suffix (`libx.so.1`).
fn is_program(name: &str) -> bool {
    let mut endings = name.split('.').skip(1);
    let last = name.rsplit_once('.').map(|(_, ending)| ending);
    last.is_some_and(|ending| PROGRAMS.contains(&ending)) || endings.any(|ending| ending == "so")
}

fn is_recipe(name: &str) -> bool {
    let is = |recipe: &str| name.strip_prefix(recipe).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let is_data = name.rsplit_once('.').is_some_and(|(_, ending)| DATA.contains(&ending));
    !is_data && RECIPES.iter().any(|recipe| is(recipe))
}

/// Rejects a name that a machine may not give to a file of the project.
pub fn accepted(verb: &str, path: &str) -> Result<()> {
    is_below(verb, path)?;
    if is_accepted(Path::new(path)) {
        return Ok(());
    }
    let shown: String = path.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    Err(Error::of(Failure::NotAccepted { verb: verb.to_string(), path: shown }))
}

/// True if `name` matches `pattern`, or is below it. `*` matches any characters of one name.
pub(super) fn asked_for(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<_>, Vec<_>) = (parts(Path::new(pattern)).collect(), Path::new(name).iter().collect());
    let text = |part: &OsStr| part.to_string_lossy().into_owned();
    name.len() >= pattern.len()
        && pattern.iter().zip(&name).all(|(pattern, name)| matches(&text(pattern.as_os_str()), &text(name)))
}

/// Matches with `*` for any characters.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    true
}

/// The project's folder without links. An empty `root` is the current folder.
pub(super) fn project(root: &Path) -> Result<PathBuf> {
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    fs::canonicalize(root).map_err(|e| Error::io(format!("reading {}", root.display()), &e))
}

/// The error for a link that leaves the project, for the primitive `verb`.
pub(super) fn leads_out(verb: &str, name: &str) -> Error {
    Error::of(Failure::LinkLeadsOut { verb: verb.to_string(), name: name.to_string() })
}

/// The error for an existing file that may not be replaced, for the primitive `verb`.
pub(super) fn stays_as_it_is(verb: &str, name: &str) -> Error {
    Error::of(Failure::StaysAsItIs { verb: verb.to_string(), name: name.to_string() })
}

fn secret(verb: &str, name: &str) -> Error {
    Error::of(Failure::Secret { verb: verb.to_string(), name: name.to_string() })
}

/// Rejects a name that leaves the project or is that of a secret.
pub fn sendable(verb: &str, name: &str) -> Result<()> {
    is_below(verb, name)?;
    let path = Path::new(name);
    if secret_name(path) || is_ledger(path) { Err(secret(verb, name)) } else { Ok(()) }
}

/// The file of the project that may be sent as `name`. Links are judged by their targets.
pub fn to_send(verb: &str, root: &Path, name: &str) -> Result<PathBuf> {
    sendable(verb, name)?;
    let path = root.join(name);
    let real = fs::canonicalize(&path).map_err(|e| Error::io(format!("reading {}", path.display()), &e))?;
    let project = project(root)?;
    let within = real.strip_prefix(&project).map_err(|_| leads_out(verb, name))?;
    if secret_name(within) || is_ledger(within) { Err(secret(verb, name)) } else { Ok(real) }
}

/// The path to write a received file `name` of the project to; its folder is created. Links are
/// judged by their targets.
pub fn to_receive(verb: &str, root: &Path, name: &str) -> Result<PathBuf> {
    accepted(verb, name)?;
    let project = project(root)?;
    let path = project.join(parts(Path::new(name)).collect::<PathBuf>());
    let folder = path.parent().unwrap_or(&project);
    let there = folder.ancestors().find(|folder| fs::symlink_metadata(folder).is_ok()).unwrap_or(&project);
    let reading = |e: std::io::Error| Error::io(format!("reading {}", there.display()), &e);
    let real = fs::canonicalize(there).map_err(reading)?;
    let missing = path.strip_prefix(there).map_err(|_| leads_out(verb, name))?;
    let real = real.strip_prefix(&project).map_err(|_| leads_out(verb, name))?.join(missing);
    accepted(verb, &real.to_string_lossy())?;
    fs::create_dir_all(folder).map_err(|e| Error::io(format!("creating {}", folder.display()), &e))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_characters() {
        assert!(
            matches("*.rhai", "sweep.rhai")
                && matches("0*_*", "01_olmoe")
                && matches("*", "")
                && matches("a*b*b", "abb")
        );
        assert!(
            !matches("*.rhai", "sweep.rs") && !matches("a*b", "a") && !matches("ab", "abc") && !matches("a*bb", "ab")
        );
    }

    #[test]
    fn only_what_was_asked_for_is_asked_for() {
        assert!(
            asked_for("results", "results/a/b")
                && asked_for("./results/*.json", "results/a.json")
                && asked_for("a", "a")
        );
        assert!(!asked_for("results", "resultsx/a") && !asked_for("results/a", "results") && !asked_for("a/*", "b/c"));
    }

    #[test]
    fn nothing_leads_out_of_the_project() {
        for path in ["../x", "/etc/passwd", "a/../../b", "", ".", "~", "~/x", "~/../x"] {
            assert!(inside("sync", path).is_err(), "{path}");
        }
        assert!(inside("sync", "./scripts/a.rhai").is_ok());
        // Files whose names begin with it.
        for path in ["./~/x", "~x/y", "a/~"] {
            assert!(inside("sync", path).is_ok(), "{path}");
        }
        for name in [".env", "sub/.env", ".git/config", "results/x", "keys/id_ed25519", "a.pem", "target/x"] {
            assert!(stays(Path::new(name)), "{name}");
        }
        assert!(!stays(Path::new("scripts/identity.rhai")));
    }

    #[test]
    fn what_is_run_or_secret_here_is_not_accepted() {
        for name in [
            ".env",
            "a/.git/config",
            "stdlib/deploy.rhai",
            "./stdlib/published.json",
            "STDLIB/x",
            "scripts/x",
            "stdlib",
            "x.rhai",
            "Makefile",
            "a/Cargo.toml",
            "target/release/outlier",
            ".bashrc",
            "results/.keys/1",
            "results/gpus.sqlite",
            "results/gpus.sqlite-wal",
            "id_rsa",
            "rust-toolchain",
            "rust-toolchain.toml",
            "a/Rust-Toolchain.TOML",
            "src/main.rs",
            "src/data.json",
            "results/x/run.sh",
            "models/m/modeling.py",
            "CMakeLists.txt",
            "cmake/a.cmake",
            "package.json",
            "node_modules/x/index.json",
            "rules.mk",
            "setup.cfg",
            "tox.ini",
            "requirements.txt",
            "docker-compose.yml",
            "lib/libx.so.1",
            "a\nb",
            "a\\b",
            "../x",
            "/x",
        ] {
            assert!(accepted("sync", name).is_err(), "{name}");
        }
        for name in [
            "results/a/b.json",
            "logs/x.log",
            "e.txt",
            "figures/a.png",
            "-delete",
            "a b",
            "results/a/activations.stats",
            "results/x/package.csv",
            "results/setup/final_analysis_results.json",
            "a.svg",
            "t.parquet",
            "m/model.safetensors",
            "m/tokenizer_config.json",
            "results/a/features.csv",
            "report.html",
            "out.gz",
            "a.pt",
        ] {
            assert!(accepted("sync", name).is_ok(), "{name}");
        }
    }
}
