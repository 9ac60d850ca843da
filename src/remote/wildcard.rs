//! Patterns as in OpenSSH's `known_hosts` and `~/.ssh/config`.

/// True if `text` matches `pattern`, in which `*` matches any characters and `?` one.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    // The last star, and the characters that it matches so far.
    let (mut at, mut read, mut star) = (0, 0, None);
    while read < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((begin, taken)) = star else { return false };
                star = Some((begin, taken + 1));
                (at, read) = (begin + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// As `one_fits`, ignoring case, as in host names.
pub(super) fn one_fits_host<'a>(patterns: impl Iterator<Item = &'a str>, host: &str) -> bool {
    let patterns: Vec<String> = patterns.map(str::to_lowercase).collect();
    one_fits(patterns.iter().map(String::as_str), &host.to_lowercase())
}

/// True if one of `patterns` matches `text` and none that begins with `!` does.
pub(super) fn one_fits<'a>(patterns: impl Iterator<Item = &'a str>, text: &str) -> bool {
    let mut any = false;
    for pattern in patterns.map(str::trim).filter(|pattern| !pattern.is_empty()) {
        match pattern.strip_prefix('!') {
            Some(pattern) if fits(pattern, text) => return false,
            Some(_) => (),
            None => any |= fits(pattern, text),
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_fit() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("10.0.?.7", "10.0.3.7", true),
            ("10.0.?.7", "10.0.33.7", false),
            ("Host", "Host", true),
            ("Host", "host", false),
            ("a*b*c", "axbxbc", true),
            ("a*b*c", "axbx", false),
            ("[a]:*", "[a]:2222", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
        let fits = |patterns: &str, text| one_fits(patterns.split(','), text);
        assert!(one_fits_host(["*.EXAMPLE", "!b.example"].into_iter(), "A.example"));
        assert!(!one_fits_host(["*.EXAMPLE", "!b.example"].into_iter(), "B.example"));
        assert!(fits("*.a,!x.a", "y.a") && !fits("*.a,!x.a", "x.a") && !fits("!x.a", "y.a") && !fits("", "y.a"));
    }
}
