//! Every primitive with senseless values for its options and arguments. Both are read from the
//! documentation that the program writes, so new options are fuzzed at once.

use std::path::Path;
use std::sync::OnceLock;

use crate::chance::Chance;
use crate::process::Start;
use crate::workshop::{TEXT, TRAINED, Workshop, copy, link, write};

/// Values as Rhai writes them.
pub const VALUES: &[&str] = &[
    "0.0/0.0",
    "1.0/0.0",
    "-1.0/0.0",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "0.5",
    "-0.5",
    "-0.0",
    "1e300",
    "-1e300",
    "1e-300",
    "1e-45",
    "1e18",
    "1e19",
    "1e38",
    "1.0e39",
    "0.9999999999",
    "3.5",
    "9223372036854775807",
    "-9223372036854775807 - 1",
    "4294967296",
    "4294967295",
    "2147483648",
    "1000000000000",
    "65536",
    "1000000",
    "()",
    "true",
    "false",
    "\"\"",
    "\"x\"",
    "\"\\0\"",
    "\"../../x\"",
    "\"/etc/passwd\"",
    "\"9999999999999GB\"",
    "\"18446744073709551616\"",
    "\"1e999\"",
    "\"-5GB\"",
    "\"0\"",
    "\"NaNGB\"",
    "\".\"",
    "\"..\"",
    "\"-x\"",
    "\"a\\nb\"",
    "\"\\u{202e}\"",
    "\"🎉\"",
    "[]",
    "[[]]",
    "[[[]]]",
    "[0.0/0.0]",
    "[1e39]",
    "[-1]",
    "[1, 2, 3]",
    "[0]",
    "[\"x\"]",
    "[()]",
    "[#{}]",
    "[1.0, 2.0]",
    "[[1.0], []]",
    "[3.0, 3.0000001]",
    "[6.0, 6.0, 6.0]",
    "[1e-40]",
    "#{}",
    "#{ a: 1 }",
    "#{ a: 0.0/0.0 }",
    "blob(4)",
    "'c'",
    "|x| x",
    "|| 1",
    "1..3",
    "model",
    "tokens",
    "acts",
    "found",
    "stored",
    "index",
    "gpu",
    "acts.heat_map()",
    "Fn(\"print\")",
    "timestamp()",
    "[\"a\", 1, []]",
    "[1..3]",
    "\"a\".repeat(3000)",
    "parallel([1], |x| x)",
    "found.features",
    "acts.norms",
];

const BEFORE: &str = r#"
let model = load_model("m");
let tokens = load_tokens(#{ ids: [[5, 6, 7, 8], [9, 10, 11, 12], [1, 2, 3, 4]] });
let acts = model.extract_layernorms(tokens, #{ logits: true, thresholds: [1.0] });
let found = acts.detect_outliers(#{ magnitude_threshold: 3.0 });
let stored = load_results("first");
let index = acts.threshold_index();
let gpu = provision_gpu();
"#;

/// Options without which a primitive looks at no other.
const NEEDED: &[(&str, &[(&str, &str)])] = &[
    ("load_tokens", &[("text", "\"t.txt\""), ("model", "model"), ("num_sequences", "2"), ("sequence_length", "8")]),
    ("save_results", &[("activations", "acts"), ("found", "found")]),
    ("bootstrap_ci", &[("n_resamples", "20")]),
    ("sweep_criteria", &[("n_resamples", "20")]),
    ("sequences_needed", &[("n_resamples", "20")]),
    ("perplexity", &[("n_resamples", "20")]),
    ("provision_gpu", &[("provider", "\"local\""), ("patience_minutes", "0.01")]),
];

/// What ends the process, speaks to the network, or only exists in tests.
const LEFT_OUT: &[&str] = &["run_command", "attach_gpu"];

/// Calls of one script.
const CALLS: usize = 12;
/// What may wait for a time that was asked for.
const WAITING: &[&str] = &["minutes", "stagger", "hours", "sleep", "host", "provider"];

struct Primitive {
    name: String,
    /// Names and types of the arguments of each form.
    forms: Vec<Vec<(String, String)>>,
    /// Names and types.
    options: Vec<(String, String)>,
}

fn primitives(documentation: &str) -> Vec<Primitive> {
    let section = |section: &str| {
        let name = section.lines().next()?.trim().to_string();
        let code = section.split("```rhai\n").nth(1)?.split("```").next()?;
        let form = |line: &str| {
            let inside = line.split_once('(')?.1.rsplit_once(") ->")?.0.to_string();
            let argument = |part: &str| {
                part.split_once(": ").map(|(name, kind)| (name.trim_end_matches('?').to_string(), kind.to_string()))
            };
            Some(inside.split(", ").filter_map(argument).collect())
        };
        let row = |line: &str| {
            let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
            Some((
                name.to_string(),
                rest.trim_start_matches([' ', '|']).split(" | ").next()?.trim_end_matches('\\').to_string(),
            ))
        };
        let rows = section.lines().filter_map(row);
        Some(Primitive { options: rows.collect(), forms: code.lines().filter_map(form).collect(), name })
    };
    let mut all: Vec<_> = documentation.split("\n### ").skip(1).filter_map(section).collect();
    all.retain(|primitive| !primitive.forms.is_empty() && !LEFT_OUT.contains(&primitive.name.as_str()));
    assert!(all.len() > 30, "the documentation has another shape");
    all
}

fn parsed(workshop: &Workshop) -> &'static [Primitive] {
    static ALL: OnceLock<Vec<Primitive>> = OnceLock::new();
    ALL.get_or_init(|| primitives(&workshop.documentation))
}

pub fn options(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let primitives = parsed(workshop);
    link(&workshop.model(TRAINED), &folder.join("m"));
    copy(&workshop.project().join("results"), &folder.join("results"));
    write(folder.join("t.txt"), TEXT.repeat(40));
    let mut text = BEFORE.to_string();
    // Several calls, each of which may fail without ending the script: starting the program is most of the work.
    for _ in 0..CALLS {
        let call = call(chosen(primitives, chance), chance);
        text += &format!("try {{ let r = {call}; print(type_of(r)); }} catch (e) {{ print(e); }}\n");
        // It is waited for, and so the last.
        if WAITING.iter().any(|word| call.contains(word)) {
            write(folder.join("s.rhai"), &text);
            return Start::of(&["run", "s.rhai"]).interrupted(6.0);
        }
    }
    write(folder.join("s.rhai"), &text);
    Start::of(&["run", "s.rhai"])
}

/// As many options as a primitive has, so many calls it gets.
fn chosen<'a>(primitives: &'a [Primitive], chance: &mut Chance) -> &'a Primitive {
    let all: Vec<&Primitive> =
        primitives.iter().flat_map(|primitive| vec![primitive; 2 + primitive.options.len()]).collect();
    let &chosen = chance.pick(&all);
    chosen
}

/// A value, of the type that is expected more often than not.
fn value(kind: &str, chance: &mut Chance) -> &'static str {
    let fits: fn(&str) -> bool = match kind.split([' ', '|']).next().unwrap_or_default() {
        _ if chance.one_in(3) => |_| true,
        "int" => |value| value.trim_start_matches('-').chars().all(|c| c.is_ascii_digit() || c == ' ' || c == '-'),
        "float" | "number" => {
            |value| value.starts_with(|c: char| c.is_ascii_digit() || c == '-') && !value.contains("..")
        }
        "bytes" => |value| value.starts_with('"') || value.starts_with(|c: char| c.is_ascii_digit() || c == '-'),
        "bool" => |value| ["true", "false"].contains(&value),
        "array" => |value| value.starts_with('['),
        "map" => |value| value.starts_with("#{"),
        "string" => |value| value.starts_with('"'),
        _ => |_| true,
    };
    let fitting: Vec<&'static str> = VALUES.iter().copied().filter(|value| fits(value)).collect();
    let &chosen = chance.pick(&fitting);
    chosen
}

fn call(primitive: &Primitive, chance: &mut Chance) -> String {
    let form = chance.pick(&primitive.forms).clone();
    let spoilt = if primitive.options.is_empty() || chance.one_in(4) { Some(chance.below(form.len())) } else { None };
    let argument = |(at, (name, kind)): (usize, &(String, String))| match kind.as_str() {
        _ if spoilt == Some(at) => value(kind, chance).to_string(),
        "map" if ["options", "declared"].contains(&name.as_str()) => option_map(primitive, chance),
        "model" | "tokens" | "gpu" | "index" => kind.clone(),
        "activations" => "acts".to_string(),
        "results" => "stored".to_string(),
        "string" => (*chance.pick(&[
            "\"x\"",
            "\"m\"",
            "\"results/x.csv\"",
            "\"olmoe\"",
            "\"first\"",
            "\"csv\"",
            "\"holm\"",
            "\"1h\"",
        ]))
        .to_string(),
        "function" => (*chance.pick(&["|x| x", "|| 1", "|x| 1 / 0", "|x| parallel([x], |y| y)"])).to_string(),
        "int" => (*chance.pick(&["1", "20", "-1", "0"])).to_string(),
        "number" | "float" => (*chance.pick(&["0.5", "3.0", "0.0/0.0", "-1.0", "1e18"])).to_string(),
        "array" => (*chance.pick(&[
            "[1.0, 2.0, 3.0]",
            "[[1.0, 2.0], [2.0, 5.0]]",
            "[1, 2, 3]",
            "[0.1, 0.5]",
            "[#{ a: 1 }]",
            "[\"a\", \"b\"]",
        ]))
        .to_string(),
        _ => (*chance.pick(&["found", "1", "acts.heat_map()", "#{ a: [1] }"])).to_string(),
    };
    let arguments: Vec<String> = form.iter().enumerate().map(argument).collect();
    format!("{}({})", primitive.name, arguments.join(", "))
}

fn option_map(primitive: &Primitive, chance: &mut Chance) -> String {
    let needed = NEEDED.iter().find(|(name, _)| *name == primitive.name).map_or(&[][..], |(_, needed)| needed);
    let mut options: Vec<(String, String)> =
        needed.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    if primitive.name == "provision_gpu" && !chance.one_in(4) {
        let provider = chance.pick(&["\"ssh\", host: \"user@127.0.0.1:1\"", "\"slurm\"", "\"runpod\"", "\"local\""]);
        options[0].1 = provider.to_string();
    }
    if !primitive.options.is_empty() {
        for _ in 0..*chance.pick(&[1, 1, 1, 2, 3]) {
            let (name, kind) = chance.pick(&primitive.options).clone();
            let value = value(&kind, chance).to_string();
            // Names of hosts would be looked up in the network.
            let value = if name == "host" {
                chance
                    .pick(&["\"\"", "\"@\"", "\"127.0.0.1:99999\"", "\":\"", "\"u@127.0.0.1:0\"", "7", "\"-oX\""])
                    .to_string()
            } else {
                value
            };
            options.retain(|(known, _)| *known != name);
            options.push((name, value));
        }
    }
    format!("#{{ {} }}", options.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", "))
}
