//! Numbers and bytes as people read them.

/// "1 file", "3 files": a number with what it counts, by the regular plural.
pub fn counted(count: usize, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {}", plural(one)),
    }
}

/// Two hexadecimal digits per byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The regular plural of the last word: "layer" is "layers", "pass" is "passes", "entry" is "entries", "analysis" is "analyses".
fn plural(one: &str) -> String {
    if let Some(begin) = one.strip_suffix("is") {
        return format!("{begin}es");
    }
    match one.strip_suffix('y') {
        Some(begin) if !begin.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{begin}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|end| one.ends_with(end)) => format!("{one}es"),
        _ => format!("{one}s"),
    }
}

/// A number with so many decimals, where what is rounded to nothing has no sign: "0.0" and never "-0.0".
pub fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|digit| matches!(digit, b'0' | b'.')) => rest.to_string(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_everything_else_is_not() {
        let said = [0, 1, 2].map(|count| counted(count, "feature"));
        assert_eq!(said, ["0 features", "1 feature", "2 features"]);
        let said = ["pass", "entry", "array", "index", "analysis"].map(|one| counted(2, one));
        assert_eq!(said, ["2 passes", "2 entries", "2 arrays", "2 indexes", "2 analyses"]);
    }

    #[test]
    fn nothing_has_no_sign() {
        let said = [-0.0, 0.0, -0.04, -0.05, -0.06, 1.25, -12.0].map(|value| rounded(value, 1));
        assert_eq!(said, ["0.0", "0.0", "0.0", "-0.1", "-0.1", "1.2", "-12.0"]);
        assert_eq!([rounded(f64::NAN, 2), rounded(-0.0, 0), rounded(f64::NEG_INFINITY, 1)], ["NaN", "0", "-inf"]);
    }
}
