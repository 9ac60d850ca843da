//! The reference as text: for the terminal, as Markdown, and as definitions for editors.

use std::fmt::Write;

use super::{AREAS, find};
use crate::error::{Error, Result};
use crate::host::language::{parsing, stdlib, syntax};
use crate::host::values::declaration::{Opt, Primitive, arities, parameters};
use crate::host::values::shapes::{Given, fields_of, given_by, shapes};
use crate::suggest;
use crate::terminal;
use crate::words::{in_lines, listed};

/// Columns of a line, unless a terminal has fewer.
const WIDTH: usize = 100;

/// A function of a module for scripts, from its doc comment.
struct Described {
    name: String,
    parameters: Vec<String>,
    comment: String,
}

struct ModuleText {
    name: &'static str,
    about: String,
    functions: Vec<Described>,
}

/// The modules inside the program and their documented functions.
fn module_texts() -> Vec<ModuleText> {
    let engine = syntax::engine();
    let text = |(name, source): (&'static str, &'static str)| {
        let ast = parsing::parse(&engine, source).ok()?;
        let about = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
        let about = about.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let described = |function: rhai::ScriptFnMetadata| {
            let lines = function.comments.iter().flat_map(|comment| comment.lines());
            let comment = lines.map(|line| line.trim_start_matches('/').trim()).collect::<Vec<_>>().join(" ");
            Described {
                name: function.name.to_string(),
                parameters: function.params.iter().map(|name| name.to_string()).collect(),
                comment,
            }
        };
        let mut functions: Vec<_> =
            ast.iter_functions().map(described).filter(|function| !function.comment.is_empty()).collect();
        functions.sort_by(|a, b| (&a.name, a.parameters.len()).cmp(&(&b.name, b.parameters.len())));
        Some(ModuleText { name, about, functions })
    };
    stdlib::texts().filter_map(text).collect()
}

/// A summary of everything, or the full text of one primitive, area or module.
pub fn for_reading(name: Option<&str>) -> Result<String> {
    let Some(name) = name else { return Ok(overview()) };
    let name = name.trim_start_matches('?').trim_end_matches("()").trim();
    if let Some(primitive) = find(name) {
        return Ok(in_full(primitive));
    }
    let modules = module_texts();
    if let Some((module, function)) = name.split_once("::")
        && let Some(module) = modules.iter().find(|known| known.name == module)
    {
        let found: Vec<_> = module.functions.iter().filter(|known| known.name == function).collect();
        if !found.is_empty() {
            return Ok(found.into_iter().map(|f| module_function(module.name, f)).collect());
        }
        let names = module.functions.iter().map(|function| function.name.as_str());
        return Err(Error::not_found(format!("module \"{}\" has no documented function `{function}`", module.name))
            .hint(suggest::hint(function, names)));
    }
    if let Some(module) = modules.iter().find(|module| module.name == name) {
        let functions: String = module.functions.iter().map(|function| module_function(name, function)).collect();
        return Ok(format!("import \"{name}\" as {name};\n\n{}\n\n{functions}", in_lines(&module.about, columns())));
    }
    if super::language().iter().any(|(known, _)| known == name) {
        let message = format!("`{name}` is a function of the language itself");
        return Err(Error::not_found(message).hint("the Rhai book, rhai.rs/book, describes it"));
    }
    let known: Vec<&str> =
        super::all().map(|primitive| primitive.name).chain(modules.iter().map(|module| module.name)).collect();
    let hint = suggest::meant(name, known.iter().copied());
    Err(Error::not_found(format!("no primitive and no module \"{name}\""))
        .hint(hint.unwrap_or_else(|| "`outlier doc` lists them".to_string())))
}

fn overview() -> String {
    let mut text = String::new();
    for area in AREAS {
        let _ = writeln!(text, "{}\n", area.title);
        for primitive in area.primitives {
            let _ = writeln!(text, "{}", entry(primitive.name, 27, first_sentence(primitive.summary)));
        }
        text.push('\n');
    }
    text += "Modules\n\n";
    for module in module_texts() {
        let _ = writeln!(text, "{}", entry(module.name, 23, &module.about));
    }
    text + "\n`outlier doc NAME` tells more about one of them.\n"
}

/// Abbreviations that do not end a sentence.
const SHORTENED: &[&str] =
    &["e.g.", "i.e.", "cf.", "vs.", "approx.", "ca.", "Fig.", "Sec.", "Eq.", "No.", "resp.", "Dr."];
/// Abbreviations that may end a sentence.
const SHORTENED_LAST: &[&str] = &["al.", "etc."];

/// The first sentence of a text.
fn first_sentence(text: &str) -> &str {
    let marks = text.match_indices(['.', '?', '!']);
    for (at, mark) in marks.filter(|(at, _)| text[at + 1..].starts_with(char::is_whitespace)) {
        let before = text[..=at].trim_start();
        let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
        let initial = word.len() == 2 && word.starts_with(|c: char| c.is_ascii_uppercase());
        let goes_on =
            |after: &str| after.starts_with(|c: char| c.is_lowercase() || c.is_ascii_digit() || "([,;:".contains(c));
        let inside = SHORTENED.contains(&word)
            || initial
            || SHORTENED_LAST.contains(&word) && goes_on(text[at + 1..].trim_start());
        if mark != "." || !inside {
            return before;
        }
    }
    text.trim()
}

fn in_full(primitive: &Primitive) -> String {
    let mut text = String::new();
    for signature in primitive.signatures {
        let _ = writeln!(text, "{signature}");
    }
    let _ = writeln!(text, "\n{}", in_lines(primitive.summary, columns()));
    if !primitive.options.is_empty() {
        text += "\nOptions:\n";
        for option in primitive.options {
            let _ = writeln!(text, "{}", entry(option.key, 25, &meaning(option)));
        }
    }
    if let Some(given) = given_by(primitive) {
        text += "\nFields of what it gives:\n";
        for (path, names) in fields_of(given) {
            let path = if path.is_empty() { "it" } else { &path };
            let _ = writeln!(text, "{}", entry(path, 25, &names.join(", ")));
        }
    }
    let example = primitive.example.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
    let _ = writeln!(text, "\nExample:\n{example}");
    text
}

fn meaning(option: &Opt) -> String {
    let default = match option.default() {
        default if default.is_empty() => default,
        default => format!(", default {default}"),
    };
    format!("{} ({}{default})", option.meaning, option.kind())
}

fn module_function(module: &str, function: &Described) -> String {
    let parameters = function.parameters.join(", ");
    format!("{module}::{}({parameters})\n{}\n\n", function.name, listed("", 2, &function.comment, columns()))
}

/// A line of a list with its continuation lines.
fn entry(name: &str, column: usize, said: &str) -> String {
    listed(&format!("  {name}"), column, said, columns())
}

/// The width of lines for a reader.
fn columns() -> Option<usize> {
    Some(terminal::width().map_or(WIDTH, |width| width.min(WIDTH)))
}

/// docs/reference.md.
pub fn markdown() -> String {
    let mut text = String::from(
        "# What scripts can call\n\nWritten by `outlier doc --markdown`; change the declarations in `src/host/primitives/` instead. The language itself is \
         Rhai; its own functions are described in the Rhai book.\nEvery function also reads as a method of its first argument: \
         `load_model(gpu, id)` is `gpu.load_model(id)`.\n",
    );
    for area in AREAS {
        let _ = write!(text, "\n## {}\n\n{}\n", area.title, area.about);
        for primitive in area.primitives {
            let signatures = primitive.signatures.join("\n");
            let _ = write!(text, "\n### {}\n\n```rhai\n{signatures}\n```\n\n{}\n", primitive.name, primitive.summary);
            if !primitive.options.is_empty() {
                text += "\n| option | type | default | meaning |\n|---|---|---|---|\n";
            }
            for option in primitive.options {
                let escaped = |text: &str| text.replace('|', "\\|");
                let default = option.default();
                let default = if default.is_empty() { "–" } else { &default };
                let (key, kind, meaning) = (option.key, escaped(&option.kind()), escaped(option.meaning));
                let _ = writeln!(text, "| `{key}` | {kind} | {default} | {meaning} |");
            }
            if let Some((given, path)) = given_by(primitive).and_then(|given| Some((given.shape()?, given))) {
                let each = if matches!(path, Given::List(_)) { "each item is" } else { "it gives" };
                let _ = write!(text, "\nFields: {each} a record `{}` ([fields](#fields-of-records)).\n", given.name);
            }
            let _ = write!(text, "\n```rhai\n{}\n```\n", primitive.example);
        }
    }
    text += &fields_in_markdown();
    text += "\n## Modules\n\nInside the program; a file of the same name in the project's `stdlib/` replaces one.\n";
    for module in module_texts() {
        let _ = write!(text, "\n### import \"{}\"\n\n{}\n\n", module.name, module.about);
        for function in &module.functions {
            let parameters = function.parameters.join(", ");
            let _ = writeln!(text, "- `{}({parameters})`: {}", function.name, function.comment);
        }
    }
    text
}

/// The fields of all records, each with the records in it.
fn fields_in_markdown() -> String {
    let mut text = String::from(
        "\n## Fields of records\n\nA field that is a record itself has the name of that in brackets; `[]` is a list.\n\n| record | fields |\n|---|---|\n",
    );
    for shape in shapes().values() {
        let field = |(name, given): &(&str, Option<Given>)| match given {
            Some(Given::One(inner)) => format!("`{name}` ({inner})"),
            Some(Given::List(inner)) => format!("`{name}[]` ({inner})"),
            None => format!("`{name}`"),
        };
        let fields: Vec<String> = shape.fields.iter().map(field).collect();
        let _ = writeln!(text, "| {} | {} |", shape.name, fields.join(", "));
    }
    text
}

/// Definition files for editors: name and text.
pub fn definitions() -> Vec<(String, String)> {
    let mut text = String::from("module static;\n");
    for primitive in AREAS.iter().flat_map(|area| area.primitives) {
        for signature in primitive.signatures {
            for count in arities(signature) {
                text += &definition(primitive, signature, count);
            }
        }
    }
    let engine = syntax::engine();
    let language = engine.definitions().include_standard_packages(true);
    let mut files = vec![("outlier.d.rhai".to_string(), text), ("language.d.rhai".to_string(), language.single_file())];
    for module in module_texts() {
        let mut text = format!("module {};\n", module.name);
        for function in &module.functions {
            let parameters: Vec<_> = function.parameters.iter().map(|name| format!("{name}: ?")).collect();
            let _ = write!(text, "\n/// {}\nfn {}({});\n", function.comment, function.name, parameters.join(", "));
        }
        files.push((format!("{}.d.rhai", module.name), text));
    }
    files
}

/// `signature` with its required parameters and the first optional ones, `count` in all.
fn definition(primitive: &Primitive, signature: &str, count: usize) -> String {
    let all = parameters(signature);
    let mut leave_out = all.len() - count;
    let mut kept: Vec<String> = Vec::new();
    for (name, kind, optional) in all.iter().rev() {
        if *optional && leave_out > 0 {
            leave_out -= 1;
            continue;
        }
        let kind = match *kind {
            "any" => "?",
            "function" => "Fn",
            "number" => "float",
            other => other,
        };
        kept.push(format!("{name}: {kind}"));
    }
    kept.reverse();
    let mut text = format!("\n/// {}\n", primitive.summary);
    for option in primitive.options {
        let _ = writeln!(text, "/// - `{}`: {}", option.key, meaning(option));
    }
    let _ = writeln!(text, "///\n/// ```\n/// {}\n/// ```", primitive.example.replace('\n', "\n/// "));
    let returns = signature.rsplit_once(" -> ").map_or("?", |(_, returns)| returns);
    let returns = if returns == "any" { "?" } else { returns };
    let _ = writeln!(text, "fn {}({}) -> {returns};", primitive.name, kept.join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::first_sentence;

    #[test]
    fn sentences_end_where_they_end() {
        for (text, first) in [
            ("One. Two.", "One."),
            (
                "The criterion of Dettmers et al. (2022), as published. More.",
                "The criterion of Dettmers et al. (2022), as published.",
            ),
            ("As Dettmers et al. 2022 have it. More.", "As Dettmers et al. 2022 have it."),
            ("The features of Dettmers et al. More.", "The features of Dettmers et al."),
            ("A unit, e.g. Norms or blocks. More.", "A unit, e.g. Norms or blocks."),
            ("One or two, i.e. few, cf. Fig. 2. More.", "One or two, i.e. few, cf. Fig. 2."),
            ("From 0.5 to 1. More.", "From 0.5 to 1."),
            ("By J. Doe. More.", "By J. Doe."),
            ("Is it so? Yes.", "Is it so?"),
            ("`a.b` is read. `c` is not.", "`a.b` is read."),
            ("Counts (of norms, layers, etc.) by threshold. More.", "Counts (of norms, layers, etc.) by threshold."),
            ("No end", "No end"),
            ("", ""),
        ] {
            assert_eq!(first_sentence(text), first, "{text}");
        }
    }
}
