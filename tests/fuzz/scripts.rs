//! Broken scripts: the project's scripts and the examples of the documentation, with tokens
//! removed, exchanged and inserted; and programs that exhaust the limits of a script.

use std::path::Path;

use crate::chance::Chance;
use crate::mutate;
use crate::options::VALUES;
use crate::process::Start;
use crate::workshop::{TEXT, Workshop, copy, link, write};

/// Longer than this no script may run; it is looked at between two steps.
const MINUTES: &str = "0.12";

const GREEDY: &[&str] = &[
    "let a = []; loop { a.push(a); }",
    "let a = \"x\"; loop { a += a; }",
    "let m = #{}; loop { let n = #{}; n.m = m; m = n; }",
    "fn f(x) { f(x + 1) } f(0)",
    "fn f(n) { if n == 0 { 1 } else { [f(n - 1), f(n - 1)] } } print(f(24))",
    "let v = []; for i in 0..60000 { v = [v]; } print(v)",
    "let v = []; for i in 0..60000 { v = [v]; } print(v.to_json())",
    "let v = #{}; for i in 0..60000 { v = #{ a: v }; } write_json(\"results/x.json\", v)",
    "let v = []; for i in 0..5000 { v = [v]; } assert_eq(v, v)",
    "let v = []; for i in 0..60000 { v = [v]; } table([#{ a: v }])",
    "fn g(n) { parallel([n], |x| if x == 0 { 0 } else { g(x - 1) }) } print(g(60))",
    "parallel(0..100000, |x| x)",
    "let l = []; for i in 0..3000 { l.push(i); } parallel(l, #{ max: 3000 }, |x| x)",
    "let s = \"\"; for i in 0..100000 { s += \"[\"; } write_text(\"results/x.txt\", s)",
    "for i in 0..9223372036854775807 { }",
    "let b = blob(9223372036854775807);",
    "let b = blob(4000000000); print(b.len())",
    "let l = []; l.pad(9223372036854775807, 0);",
    "let s = \"a\"; s.pad(9223372036854775807, 'b');",
    "let l = [1]; loop { l = l + l; }",
    "let f = |x| x; for i in 0..100000 { let g = f; f = |x| g.call(x); } f.call(1)",
    "import \"zz_fuzz\" as z;",
    "print(\"x\".repeat(9223372036854775807))",
    "sleep(1e300)",
    "sleep(9223372036854775807)",
    "sleep(0.0/0.0)",
    "sleep(-1)",
    "throw #{ a: #{ b: [] } };",
    "throw ();",
    "exit(99999)",
    "exit()",
    "let x = 9223372036854775807; x += 1;",
    "print(-9223372036854775808 / -1)",
    "print(1 << 9999)",
    "print(1 >> -1)",
    "print(2 ** 9999)",
    "print((-9223372036854775807 - 1).abs())",
    "print(9223372036854775807.to_string(99))",
    "print([1,2,3].extract(-9223372036854775807, 9))",
    "let a = [1,2,3]; a.splice(0, 9223372036854775807, []); print(a.chunks(0))",
    "print(\"abc\".sub_string(-9, 9223372036854775807))",
    "print(range(0, 9223372036854775807, 1).len())",
    "print(range(0, 10, 0).len())",
    "for x in range(0, 9223372036854775807, -1) { }",
    "print(\"🎉\".to_blob().to_json())",
    "print(parse_int(\"99999999999999999999\"))",
    "print(timestamp() - timestamp() - 1e300)",
    "print(timestamp() + 1e300)",
    "print(timestamp() - 1e300)",
    "print(log(1e999))",
    "print(1.0.to_int())",
    "print((1e300).to_int())",
];

pub fn scripts(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    link(&workshop.project().join("examples"), &folder.join("examples"));
    link(&workshop.project().join("scripts"), &folder.join("scripts"));
    link(&workshop.project().join("stdlib"), &folder.join("stdlib"));
    copy(&workshop.project().join("results"), &folder.join("results"));
    write(folder.join("corpus.txt"), TEXT.repeat(100));
    let (path, text) = match chance.below(12) {
        0 => ("zz_fuzz.rhai".to_string(), chance.pick(GREEDY).to_string()),
        1 => ("zz_fuzz.rhai".to_string(), nested(chance)),
        _ => {
            let (place, text) = chance.pick(&workshop.scripts);
            let beside = place.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
            (format!("{beside}zz_fuzz.rhai"), damaged(workshop, text, chance))
        }
    };
    write(folder.join(&path), &text);
    let mut words: Vec<&str> = if chance.one_in(4) { vec!["--quiet"] } else { vec![] };
    words.extend(*chance.pick(&[
        &["run"][..],
        &["run"],
        &["run"],
        &["run", "--dry-run"],
        &["check"],
        &["plan"],
        &["test"],
    ]));
    if words.contains(&"run") {
        words.extend(["--max-minutes", MINUTES]);
    }
    words.push(&path);
    if words.contains(&"run") && text.contains("args(") {
        words.extend(*chance.pick(&[
            &["--miniature"][..],
            &[],
            &["--help"],
            &["--text", "corpus.txt"],
            &["--models", "01"],
            &["--x", "1"],
        ]));
    }
    let start = Start::of(&words);
    // What a script waits for, or makes very often, is ended as its user would.
    if words.contains(&"run") && !["sleep", "stagger"].iter().any(|word| text.contains(word)) {
        start
    } else {
        start.interrupted(6.0)
    }
}

/// Syntax nested deeper than a parser may follow.
fn nested(chance: &mut Chance) -> String {
    let depth = *chance.pick(&[100, 300, 10_000, 200_000]);
    match chance.below(7) {
        0 => format!("print({}1{})", "(".repeat(depth), ")".repeat(depth)),
        1 => format!("print({}{})", "[".repeat(depth), "]".repeat(depth)),
        2 => format!("{}{}", "{".repeat(depth), "}".repeat(depth)),
        3 => format!("{} 1 {}", "if true {".repeat(depth), "}".repeat(depth)),
        4 => format!("print(1{})", " + 1".repeat(depth)),
        5 => format!("let x = {}1;", "-".repeat(depth)),
        _ => format!("switch 1 {{ {} }}", (0..depth).map(|n| format!("{n} => {n},")).collect::<String>()),
    }
}

fn damaged(workshop: &Workshop, text: &str, chance: &mut Chance) -> String {
    let mut tokens = mutate::tokens(text);
    for _ in 0..*chance.pick(&[1, 1, 2, 3, 6]) {
        if tokens.is_empty() {
            break;
        }
        let at = chance.below(tokens.len());
        let begins = |wanted: fn(char) -> bool| -> Vec<usize> {
            let fits = |token: &String| token.chars().next().is_some_and(wanted);
            (0..tokens.len()).filter(|index| fits(&tokens[*index])).collect()
        };
        match chance.below(10) {
            0 => drop(tokens.remove(at)),
            1 => {
                let copied = chance.pick(&tokens).clone();
                tokens.insert(at, copied);
            }
            2 => {
                let other = chance.below(tokens.len());
                tokens.swap(at, other);
            }
            3..=5 => {
                let places = begins(|c| c == '"' || c == '`' || c.is_ascii_digit());
                if !places.is_empty() {
                    tokens[*chance.pick(&places)] = chance.pick(VALUES).to_string();
                }
            }
            6 | 7 => {
                let places = begins(|c| c.is_ascii_lowercase() || c == '_');
                if !places.is_empty() {
                    let foreign = mutate::tokens(&chance.pick(&workshop.scripts).1);
                    let name =
                        if chance.one_in(3) { chance.pick(VALUES).to_string() } else { chance.pick(&foreign).clone() };
                    tokens[*chance.pick(&places)] = name;
                }
            }
            8 => {
                let foreign = mutate::tokens(&chance.pick(&workshop.scripts).1);
                let from = chance.below(foreign.len());
                let piece = foreign[from..(from + chance.below(40)).min(foreign.len())].to_vec();
                tokens.splice(at..at, piece);
            }
            _ => tokens.truncate(at),
        }
    }
    tokens.concat()
}
