//! Damage to JSON values by their structure, to bytes by their position, and to Rhai by its tokens;
//! and unexpected values.
//!
//! What JSON cannot hold (NaN, numbers too large for a float, values nested thousands deep) stands in values as text behind
//! `MARK` and is written raw by `text`.

use serde_json::{Map, Value, json};

use super::chance::Chance;

pub const MARK: char = '\u{1}';
/// How deep a value is nested that a parser with recursion may not survive.
pub const DEPTHS: &[usize] = &[130, 5_000, 200_000];

const INTEGERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    3,
    5,
    7,
    63,
    64,
    65,
    255,
    256,
    65_535,
    65_536,
    1 << 20,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    1 << 40,
    1 << 48,
    1 << 53,
    1 << 60,
    1 << 62,
    i64::MAX - 1,
    i64::MAX,
    i64::MIN,
    -1 << 31,
];
const FLOATS: &[f64] = &[
    0.0,
    -0.0,
    0.5,
    -0.5,
    1e-320,
    1e-300,
    1e-45,
    1e38,
    3.5e38,
    1e300,
    -1e300,
    1e308,
    1e18,
    1e19,
    0.999_999_999_9,
    -1e18,
];
const RAW: &[&str] =
    &["NaN", "1e999", "-1e999", "1e-999", "-0", "0.1e1", "1E5", "01", "Infinity", "tru", "[", "{", "\"", "\"\\ud800\""];
pub const TEXTS: &[&str] = &[
    "",
    "x",
    " ",
    ".",
    "..",
    "../x",
    "../../../../../../proc/x",
    "/proc/x",
    "/etc/passwd",
    "/dev/zero",
    "/dev/full",
    "~",
    "-",
    "--",
    "-x",
    "\0",
    "x\0y",
    "a\nb",
    "\r\n",
    "\u{1b}[31m",
    "\u{202e}",
    "\u{feff}",
    "é",
    "🎉",
    "NaN",
    "inf",
    "-1",
    "1e999",
    "%s%n",
    "$(id)",
    "`id`",
    "'",
    "\"",
    "\\",
    "C:\\x",
    "%2e%2e%2fx",
    "null",
    "true",
    "[]",
    "{}",
    "f32",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    ".env",
    ".git/config",
    "9999999999999GB",
    "-5GB",
    "NaNGB",
    "0",
    "18446744073709551616",
    "\u{2044}etc",
];

/// A value that does not belong where it is put.
pub fn weird(chance: &mut Chance) -> Value {
    match chance.below(12) {
        0..=3 => json!(chance.pick(INTEGERS)),
        4 => json!(chance.pick(&[u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1])),
        5 => json!(chance.pick(FLOATS)),
        6 => chance.pick(&[Value::Null, json!(true), json!(false), json!([]), json!({})]).clone(),
        7 => chance
            .pick(&[
                json!([1]),
                json!([[]]),
                json!([null]),
                json!({ "a": 1 }),
                json!([0.5, "x", {}]),
                json!({ "": "" }),
            ])
            .clone(),
        8 if chance.one_in(4) => json!(format!("{MARK}deep{}{}", chance.pick(&['[', '{']), chance.pick(DEPTHS))),
        8 => json!(format!("{MARK}{}", chance.pick(RAW))),
        9 if chance.one_in(3) => json!("a".repeat(*chance.pick(&[300, 5_000, 100_000]))),
        9 if chance.one_in(3) => Value::Array(vec![weird_number(chance); *chance.pick(&[2, 1_000, 100_000])]),
        _ => json!(chance.pick(TEXTS)),
    }
}

/// An integer or float at a limit of some type, or beyond what makes sense.
pub fn weird_number(chance: &mut Chance) -> Value {
    if chance.one_in(3) { json!(chance.pick(FLOATS)) } else { json!(chance.pick(INTEGERS)) }
}

/// The value with one to three changes.
pub fn structure(mut value: Value, chance: &mut Chance) -> Value {
    for _ in 0..*chance.pick(&[1, 1, 1, 2, 3]) {
        change(&mut value, chance);
    }
    value
}

/// Walks down at random and changes what it comes to.
fn change(value: &mut Value, chance: &mut Chance) {
    let deeper = !chance.one_in(8);
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let index = chance.below(map.len());
            change(map.values_mut().nth(index).expect("counted"), chance);
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let index = chance.below(list.len());
            change(&mut list[index], chance);
        }
        Value::Object(map) => change_map(map, chance),
        Value::Array(list) => change_list(list, chance),
        leaf => change_leaf(leaf, chance),
    }
}

fn change_map(map: &mut Map<String, Value>, chance: &mut Chance) {
    let keys: Vec<String> = map.keys().cloned().collect();
    if keys.is_empty() || chance.one_in(8) {
        map.insert(chance.pick(TEXTS).to_string(), weird(chance));
        return;
    }
    let (key, other) = (chance.pick(&keys).clone(), chance.pick(&keys).clone());
    match chance.below(5) {
        0 => drop(map.remove(&key)),
        1 => {
            let held = map.remove(&key).expect("listed");
            map.insert(format!("{key}{}", chance.pick(&["_", "x", " ", "\0", "\u{202e}"])), held);
        }
        2 => {
            let held = map[&key].clone();
            map.insert(other, held);
        }
        3 => drop(map.insert(key, weird(chance))),
        _ => {
            let (one, two) = (map[&key].clone(), map[&other].clone());
            map.insert(key, two);
            map.insert(other, one);
        }
    }
}

fn change_list(list: &mut Vec<Value>, chance: &mut Chance) {
    let index = chance.below(list.len());
    match chance.below(6) {
        0 if !list.is_empty() => drop(list.remove(index)),
        1 if !list.is_empty() => list.insert(index, list[index].clone()),
        2 => chance.shuffle(list),
        3 => list.truncate(index),
        4 if !list.is_empty() => *list = copies(&list[index], *chance.pick(&[0, 1, 2, 1_000, 100_000])),
        _ => list.insert(index, weird(chance)),
    }
}

fn change_leaf(leaf: &mut Value, chance: &mut Chance) {
    let by_type = chance.one_in(2);
    *leaf = match leaf {
        Value::Number(number) if by_type => {
            let value = number.as_f64().unwrap_or_default();
            match (chance.below(6), number.as_i64()) {
                (0, Some(whole)) => json!(whole.wrapping_add(1)),
                (1, Some(whole)) => json!(whole.wrapping_sub(1)),
                (2, Some(whole)) => json!(whole.wrapping_mul(*chance.pick(&[2, 3, -1, 1 << 32]))),
                (3, _) => json!(value + 0.5),
                (4, _) => json!(number.to_string()),
                _ => weird_number(chance),
            }
        }
        Value::String(text) if by_type => match chance.below(5) {
            0 => json!(format!("{text}x")),
            1 => json!(text.chars().skip(1).collect::<String>()),
            2 => json!(text.to_uppercase()),
            3 => json!(text.repeat(50)),
            _ => json!([text]),
        },
        Value::Bool(value) if by_type => json!(!*value),
        _ => weird(chance),
    };
}

/// The value as JSON, with what stands behind marks written raw.
pub fn text(value: &Value) -> String {
    let mut rest = value.to_string();
    let mut text = String::new();
    while let Some(at) = rest.find("\"\\u0001") {
        let end = at + 7 + closing(&rest[at + 7..]);
        text.push_str(&rest[..at]);
        let marked: String = serde_json::from_str(&rest[at..=end]).unwrap_or_default();
        text.push_str(&raw(marked.trim_start_matches(MARK)));
        rest = rest.split_off(end + 1);
    }
    text + rest.as_str()
}

/// Where the string ends whose inside begins here.
fn closing(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    end.unwrap_or(text.len() - 1)
}

/// Kind and depth of a nested value that stands behind the mark.
pub fn deep(marked: &str) -> Option<(char, usize)> {
    let rest = marked.strip_prefix("deep")?;
    let kind = rest.chars().next()?;
    Some((kind, rest[kind.len_utf8()..].parse().ok()?))
}

fn raw(marked: &str) -> String {
    match deep(marked) {
        Some(('[', depth)) => format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
        Some((_, depth)) => format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)),
        None => marked.to_string(),
    }
}

/// JSON that is damaged by structure mostly, by bytes now and then.
pub fn json_bytes(value: &Value, chance: &mut Chance) -> Vec<u8> {
    match chance.below(7) {
        0 => {
            let whole = value.to_string().into_bytes();
            let end = whole.len();
            bytes(whole, 0..end, chance)
        }
        _ => text(&structure(value.clone(), chance)).into_bytes(),
    }
}

/// The bytes with one to eight changes that begin within `range`.
pub fn bytes(mut data: Vec<u8>, range: std::ops::Range<usize>, chance: &mut Chance) -> Vec<u8> {
    for _ in 0..*chance.pick(&[1, 1, 2, 4, 8]) {
        let end = range.end.min(data.len());
        if end <= range.start {
            return data;
        }
        let at = range.start + chance.below(end - range.start);
        let size = data.len();
        let until = |count: usize| (at + count).min(size);
        match chance.below(8) {
            0 => data[at] ^= 1 << chance.below(8),
            1 => data[at] = chance.below(256) as u8,
            2 => {
                let fill = *chance.pick(&[0u8, 0xff, 0x7f, 0x80, 0x01]);
                let end = until(*chance.pick(&[1, 4, 8]));
                data[at..end].fill(fill);
            }
            3 => drop(data.drain(at..until(*chance.pick(&[1, 2, 8, 100])))),
            4 => {
                let added = {
                    let count = *chance.pick(&[1, 3, 8]);
                    chance.bytes(count)
                };
                data.splice(at..at, added);
            }
            5 if chance.one_in(3) => data.truncate(at),
            5 => {
                let value = chance.pick(INTEGERS).to_le_bytes();
                let end = until(*chance.pick(&[4, 8]));
                data[at..end].copy_from_slice(&value[..end - at]);
            }
            _ => {
                let from = chance.below(data.len());
                let copied = data[from..(from + *chance.pick(&[1, 4, 16])).min(data.len())].to_vec();
                let end = until(copied.len());
                data.splice(at..end, copied);
            }
        }
    }
    data
}

/// Rhai cut into tokens; together they are the text.
pub fn tokens(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        let start = at;
        let first = characters[at];
        at += 1;
        let take = |at: &mut usize, keep: &dyn Fn(char) -> bool| {
            while *at < characters.len() && keep(characters[*at]) {
                *at += 1;
            }
        };
        match first {
            '"' | '`' => {
                while at < characters.len() && characters[at] != first {
                    at += 1 + (characters[at] == '\\') as usize;
                }
                at = (at + 1).min(characters.len());
            }
            '/' if characters.get(at) == Some(&'/') => take(&mut at, &|c| c != '\n'),
            c if c.is_alphabetic() || c == '_' => take(&mut at, &|c| c.is_alphanumeric() || c == '_'),
            c if c.is_ascii_digit() => take(&mut at, &|c| c.is_alphanumeric() || c == '_'),
            c if c.is_whitespace() => take(&mut at, &char::is_whitespace),
            '#' if characters.get(at) == Some(&'{') => at += 1,
            _ => (),
        }
        tokens.push(characters[start..at].iter().collect());
    }
    tokens
}

/// So many copies of a value, but no more than make a file of a few megabytes: memory is the program's to waste here.
fn copies(value: &Value, count: usize) -> Vec<Value> {
    const MOST: usize = 4 << 20;
    vec![value.clone(); count.min(MOST / value.to_string().len().max(1))]
}
