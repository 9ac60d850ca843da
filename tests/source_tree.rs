//! The source as a graph: the files of a room and their imports of each other, as the text has
//! them.

use std::collections::{BTreeMap, BTreeSet};

/// The segments of one path, such as `["crate", "spec", "Model"]`; `*` for a glob.
type Segments = Vec<String>;

/// A file of `src/` as a module.
pub struct Module {
    /// Relative to the repository.
    pub path: String,
    /// Its text without comments, strings and tests.
    code: String,
}

/// All modules of `src/`, by their path from the crate on.
pub struct Tree(BTreeMap<Segments, Module>);

impl Tree {
    /// `files`: paths relative to the repository, and texts.
    pub fn new<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let module = |(path, text): (&'a str, &'a str)| {
            let below = path.strip_prefix("src/")?.strip_suffix(".rs")?;
            let below = below.strip_suffix("/mod").unwrap_or(below);
            let name: Segments = below.split('/').map(str::to_string).collect();
            let outside_rooms = name.len() == 1 && matches!(name[0].as_str(), "lib" | "main");
            (!outside_rooms).then(|| (name, Module { path: path.to_string(), code: code_of(text) }))
        };
        Self(files.filter_map(module).collect())
    }

    /// The circles of imports, each as the files that are on it. A file that only hands on what a file below it
    /// defines (`pub use`) imports nothing by that; whoever takes such a name imports the file that defines it.
    pub fn circles(&self) -> Vec<Vec<&str>> {
        let imports: BTreeMap<&Segments, BTreeSet<&Segments>> =
            self.0.keys().map(|module| (module, self.imports(module))).collect();
        let reached: BTreeMap<&Segments, BTreeSet<&Segments>> =
            imports.keys().map(|module| (*module, reached(module, &imports))).collect();
        let mut told = BTreeSet::new();
        let mut circles = Vec::new();
        for module in self.0.keys().filter(|module| reached[*module].contains(*module)) {
            let both_ways = |other: &&&Segments| reached[module].contains(**other) && reached[**other].contains(module);
            let circle: Vec<&Segments> = imports.keys().filter(both_ways).copied().collect();
            if told.insert(circle.clone()) {
                circles.push(circle.into_iter().map(|module| self.0[module].path.as_str()).collect());
            }
        }
        circles
    }

    /// All imports between files of one room, as the paths of the importing and of the imported file.
    pub fn all_imports(&self) -> Vec<(&str, &str)> {
        let of = |module| self.imports(module).into_iter().map(move |to| (module, to));
        let imports = self.0.keys().flat_map(of);
        imports.map(|(from, to)| (self.0[from].path.as_str(), self.0[to].path.as_str())).collect()
    }

    /// The modules of its own room from which `module` imports.
    fn imports(&self, module: &Segments) -> BTreeSet<&Segments> {
        let code = &self.0[module].code;
        let handed_on: Vec<_> = public_uses(code).map(|start| start..use_tree(code, start).1).collect();
        let mut imported = BTreeSet::new();
        for start in path_starts(code).filter(|start| !handed_on.iter().any(|range| range.contains(start))) {
            for segments in use_tree(code, start).0 {
                let target = self.absolute(module, &segments).and_then(|path| self.defining(&path, 0));
                imported.extend(target.filter(|target| *target != module && target[0] == module[0]));
            }
        }
        imported
    }

    /// A path from the crate on, where it leads to a module of the crate.
    fn absolute(&self, module: &Segments, path: &[String]) -> Option<Segments> {
        let ups = path.iter().take_while(|segment| *segment == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module, &path[1..]].concat()),
            "super" => Some([module.get(..module.len().checked_sub(ups)?)?, &path[ups..]].concat()),
            child => {
                let below = [&module[..], &[child.to_string()]].concat();
                self.0.contains_key(&below).then(|| [module, path].concat())
            }
        }
    }

    /// The module that defines what `path` names.
    fn defining(&self, path: &[String], depth: usize) -> Option<&Segments> {
        let length = (1..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        let (module, at) = self.0.get_key_value(&path[..length])?;
        let Some(name) = path.get(length).filter(|name| *name != "*" && *name != "self") else { return Some(module) };
        if depth > 8 || defines(&at.code, name) {
            return Some(module);
        }
        let handed_on: Vec<Segments> = public_uses(&at.code)
            .flat_map(|start| use_tree(&at.code, start).0)
            .filter_map(|path| self.absolute(module, &path))
            .collect();
        let by_name = handed_on.iter().find(|path| path.last() == Some(name));
        let by_glob = || {
            let globs = handed_on.iter().filter(|path| path.last().is_some_and(|last| last == "*"));
            globs
                .map(|path| [&path[..path.len() - 1], std::slice::from_ref(name)].concat())
                .find(|path| self.defining(path, depth + 1).is_some_and(|module| defines(&self.0[module].code, name)))
        };
        let path = by_name.cloned().or_else(by_glob);
        path.and_then(|path| self.defining(&path, depth + 1)).or(Some(module))
    }
}

/// The modules to which imports lead from `from`, step by step.
fn reached<'a>(from: &'a Segments, imports: &BTreeMap<&'a Segments, BTreeSet<&'a Segments>>) -> BTreeSet<&'a Segments> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        next.extend(imports[module].iter().filter(|to| reached.insert(**to)));
    }
    reached
}

/// A text without strings, comments and the tests at its end.
fn code_of(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let mut outside = String::new();
        let (mut quoted, mut escaped, mut before) = (false, false, ' ');
        for c in line.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' if before != '\'' => quoted = !quoted,
                '/' if !quoted && before == '/' => {
                    outside.pop();
                    break;
                }
                c if !quoted => outside.push(c),
                _ => (),
            }
            before = c;
        }
        outside
    });
    let code = lines.collect::<Vec<_>>().join("\n");
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_string()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a text defines an item of this name.
fn defines(code: &str, name: &str) -> bool {
    let kinds = ["fn", "struct", "enum", "trait", "type", "const", "static", "union", "mod", "macro_rules!"];
    code.match_indices(name).any(|(at, _)| {
        let alone = !code[at + name.len()..].starts_with(is_word);
        let before = code[..at].trim_end();
        alone && before.len() < at && kinds.iter().any(|kind| before.ends_with(kind))
    })
}

/// Where the paths of `pub use`, `pub(super) use` and the like begin.
fn public_uses(code: &str) -> impl Iterator<Item = usize> {
    code.match_indices("use ").filter_map(|(at, word)| {
        let before = code[..at].trim_end();
        let before = before.strip_suffix(')').map_or(before, |before| &before[..before.rfind('(').unwrap_or(0)]);
        before.ends_with("pub").then_some(at + word.len())
    })
}

/// Where paths begin: a word before `::` that no other path goes on with.
fn path_starts(code: &str) -> impl Iterator<Item = usize> {
    code.match_indices("::").filter_map(|(at, _)| {
        let word = code[..at].chars().rev().take_while(|c| is_word(*c)).map(char::len_utf8).sum::<usize>();
        let start = at - word;
        (word > 0 && !code[..start].ends_with("::")).then_some(start)
    })
}

/// The paths of a tree such as `a::{b, c::d}`, and where it ends.
fn use_tree(code: &str, start: usize) -> (Vec<Segments>, usize) {
    let mut at = start;
    let mut segments = Segments::new();
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        let word: String = match code[at..].starts_with('*') {
            true => "*".into(),
            false => code[at..].chars().take_while(|c| is_word(*c)).collect(),
        };
        if word.is_empty() {
            break;
        }
        at += word.len();
        segments.push(word);
        if !code[at..].starts_with("::") {
            return (vec![segments], at);
        }
        at += 2;
    }
    if !code[at..].starts_with('{') {
        return (vec![segments], at);
    }
    at += 1;
    let mut all = Vec::new();
    while !code[at..].trim_start().starts_with('}') {
        let (below, end) = use_tree(code, at);
        all.extend(below.into_iter().map(|path| [&segments[..], &path[..]].concat()));
        // What stands behind a name: a comma, or another name for it.
        let rest = code[end..].find([',', '}']).unwrap_or(code.len() - end);
        at = end + rest + usize::from(code[end + rest..].starts_with(','));
        if at >= code.len() {
            break;
        }
    }
    (all, at + code[at..].find('}').map_or(0, |brace| brace + 1))
}

#[test]
fn circles_are_found_through_groups_and_through_names_that_are_handed_on() {
    let tree = |files: &[(&'static str, &'static str)]| {
        let tree = Tree::new(files.iter().copied());
        tree.circles().into_iter().map(|circle| circle.join(" ")).collect::<Vec<_>>()
    };
    let (a, b, c) = ("src/room/a.rs", "src/room/b.rs", "src/room/c.rs");
    assert_eq!(tree(&[(a, "use super::b::{X, Y};"), (b, "pub struct X; pub struct Y;")]), [""; 0]);
    assert_eq!(tree(&[(a, "use super::b::X;"), (b, "fn f() { super::a::g() }")]), ["src/room/a.rs src/room/b.rs"]);
    let long = [(a, "use super::{b::{self, X}, Z};"), (b, "use crate::room::c::Y as Other;"), (c, "use super::a;")];
    assert_eq!(tree(&long), ["src/room/a.rs src/room/b.rs src/room/c.rs"]);
    // The room's own file hands on what `b` defines: that is no import, and taking it from there is one of `b`.
    let room = ("src/room/mod.rs", "mod a;\nmod b;\npub use b::{X, Z};\npub const N: u32 = 1;");
    assert_eq!(
        tree(&[room, (a, "use super::X;"), (b, "pub struct X; use super::a::Y;")]),
        ["src/room/a.rs src/room/b.rs"]
    );
    assert_eq!(tree(&[room, (a, "use super::{N, X};"), (b, "pub struct X; pub struct Z;")]), [""; 0]);
    let uses = ("src/room/mod.rs", "mod a;\npub const N: u32 = 1;\nfn f() { a::g() }");
    assert_eq!(tree(&[uses, (a, "use super::N;")]), ["src/room/mod.rs src/room/a.rs"]);
    // Comments, texts, tests and other rooms are none.
    let tests = "pub struct X;\n#[cfg(test)]\nmod tests {\n    use super::super::a::Y;\n}";
    assert_eq!(tree(&[(a, "use super::b::X;"), (b, tests)]), [""; 0]);
    assert_eq!(tree(&[(a, "use super::b::X;"), (b, "// super::a::Y\nconst T: &str = \"super::a::Y\";")]), [""; 0]);
    assert_eq!(tree(&[(a, "use crate::other::c;"), ("src/other/c.rs", "use crate::room::a;")]), [""; 0]);
}
