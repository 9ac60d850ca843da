//! `args(#{ … })`: a script declares its flags with defaults and help, and the user's arguments are
//! parsed by type.
//!
//! The default determines the type: `false` is a switch, a number or string takes one value, an
//! array takes all following values. The flag of `dry_run` is `--dry-run`. `--help` prints the
//! declaration and ends the run.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, EvalAltResult, Map, Position};

use crate::error::{Error, Result};
use crate::host::language::problem::{ScriptResult, as_map, thrown};
use crate::host::run::context::Context;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::options::Options;
use crate::suggest;
use crate::terminal;
use crate::words::listed;

/// Flags of `outlier run`, which precede the script.
pub const OF_RUN: [&str; 7] =
    ["--allow-commands", "--allow-read", "--allow-write", "--host-key", "--max-steps", "--max-minutes", "--max-memory"];

/// The hint for a flag of `outlier run` among the flags of a script.
pub(crate) fn misplaced(word: &str) -> Option<String> {
    let name = word.split('=').next().unwrap_or_default();
    let known = OF_RUN.contains(&name);
    known.then(|| {
        format!("`{name}` is a flag of `outlier run`: write it before the script, `outlier run {name} … SCRIPT`")
    })
}

struct Flag {
    key: String,
    default: Dynamic,
    help: String,
}

impl Flag {
    fn spelling(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }
}

pub(crate) const ARGS: Declared<NoOptions> = Declared::new(
    "args",
    &["args(declared: map) -> map"],
    "Declares the flags of the script and reads what the user gave. A default tells the type: false is a switch, a \
     number or string takes one value, an array all that follow. Each flag is a default, or #{ default, help }.",
    r#"let flags = args(#{
    threshold: #{ default: 6.0, help: "|x| from which a value is a hit" },
    quick: false,
});
print(if flags.quick { 0.0 } else { flags.threshold });"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    engine.register_fn(ARGS.name(), move |declared: Map| -> ScriptResult<Map> {
        c.acts("args");
        let flags = thrown(declaration(declared))?;
        if c.flags.iter().any(|word| word == "--help" || word == "-h") {
            terminal::out(help(&c.script.display().to_string(), &flags, terminal::width()));
            return Err(Box::new(EvalAltResult::Exit(Dynamic::UNIT, Position::NONE)));
        }
        match parse(&flags, &c.flags) {
            Ok(values) => Ok(values),
            Err(mut error) => {
                let help = || format!("`outlier run {} --help` lists the flags", c.script.display());
                error.hint.get_or_insert_with(help);
                let mut map = as_map(&error);
                map.insert("kind".into(), "usage".into());
                Err(Box::new(EvalAltResult::ErrorRuntime(map.into(), Position::NONE)))
            }
        }
    });
}

fn declaration(declared: Map) -> Result<Vec<Flag>> {
    let flag = |(key, value): (rhai::Identifier, Dynamic)| {
        let key = key.to_string();
        match value.clone().try_cast::<Map>() {
            None => Ok(Flag { key, default: value, help: String::new() }),
            Some(map) => {
                let o = Options::new("args", map.clone(), &["default", "help"])?;
                let default = map.get("default").cloned().unwrap_or(Dynamic::UNIT);
                Ok(Flag { key, default, help: o.string("help")?.unwrap_or_default() })
            }
        }
    };
    declared.into_iter().map(flag).collect()
}

fn help(script: &str, flags: &[Flag], width: Option<usize>) -> String {
    let mut text = format!("Usage: outlier run {script} [flags]\n\nFlags:\n");
    for flag in flags {
        let default = match flag.default.to_string().as_str() {
            _ if flag.default.is_unit() || flag.default.is_bool() => String::new(),
            // An omitted flag has no value.
            "" | "[]" => String::new(),
            default => format!(" [default: {default}]"),
        };
        let value = match () {
            _ if flag.default.is_bool() => String::new(),
            _ if flag.default.is_array() => " VALUE...".to_string(),
            _ => " VALUE".to_string(),
        };
        let name = format!("  {}{value}", flag.spelling());
        text += &format!("{}\n", listed(&name, 31, &format!("{}{default}", flag.help), width));
    }
    text
}

fn parse(flags: &[Flag], words: &[String]) -> Result<Map> {
    let mut values: Map = flags.iter().map(|flag| (flag.key.as_str().into(), flag.default.clone())).collect();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (word.as_str(), None),
        };
        let Some(flag) = flags.iter().find(|flag| flag.spelling() == name) else {
            let known: Vec<String> = flags.iter().map(Flag::spelling).collect();
            let problem = if name.starts_with('-') { "unknown flag" } else { "unexpected argument" };
            let hint = || suggest::hint(name, known.iter().map(String::as_str));
            return Err(Error::bad_argument(format!("{problem} `{name}`")).hint(misplaced(name).unwrap_or_else(hint)));
        };
        let is_value = |word: &&String| !word.starts_with("--");
        let value: Dynamic = if flag.default.is_bool() {
            match attached.as_deref() {
                None | Some("true") => true.into(),
                Some("false") => false.into(),
                Some(other) => {
                    return Err(Error::bad_argument(format!(
                        "{name} is a switch, `{other}` is neither true nor false"
                    )));
                }
            }
        } else if flag.default.is_array() {
            let mut list: Array =
                attached.iter().flat_map(|list| list.split(',')).map(|text| text.to_string().into()).collect();
            while let Some(value) = words.next_if(is_value) {
                list.push(value.clone().into());
            }
            if list.is_empty() {
                return Err(Error::bad_argument(format!("{name} needs at least one value")));
            }
            list.into()
        } else {
            let Some(text) = attached.or_else(|| words.next_if(is_value).cloned()) else {
                return Err(Error::bad_argument(format!("{name} needs a value")));
            };
            scalar(name, &flag.default, text)?
        };
        values.insert(flag.key.as_str().into(), value);
    }
    Ok(values)
}

/// Parses `text` as a value of the default's type.
fn scalar(name: &str, default: &Dynamic, text: String) -> Result<Dynamic> {
    let bad = |expected: &str| Error::bad_argument(format!("{name} is `{text}`, expected {expected}"));
    if default.is_int() {
        return text.parse::<i64>().map(Into::into).map_err(|_| bad("a whole number"));
    }
    if default.is_float() {
        return text.parse::<f64>().map(Into::into).map_err(|_| bad("a number"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Vec<Flag> {
        let mut declared = Map::new();
        declared.insert("models".into(), Array::new().into());
        declared.insert("dry_run".into(), false.into());
        declared.insert("magnitude".into(), 6.0.into());
        declaration(declared).unwrap()
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_string).collect()
    }

    #[test]
    fn values_have_the_type_of_their_default() {
        let values = parse(&flags(), &words("--models 01 03 --dry-run --magnitude=7")).unwrap();
        assert_eq!(values["models"].clone().into_typed_array::<String>().unwrap(), ["01", "03"]);
        assert!(values["dry_run"].as_bool().unwrap());
        assert_eq!(values["magnitude"].as_float().unwrap(), 7.0);
    }

    #[test]
    fn unknown_flags_are_errors_with_a_suggestion() {
        let error = parse(&flags(), &words("--model 01")).unwrap_err();
        assert_eq!(error.hint.unwrap(), "did you mean `--models`?");
        assert!(parse(&flags(), &words("--magnitude tall")).unwrap_err().message.contains("expected a number"));
        assert!(parse(&flags(), &words("03")).unwrap_err().message.contains("unexpected argument"));
    }
}
