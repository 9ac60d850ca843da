//! Patterns as OpenSSH has them in `known_hosts` and `~/.ssh/config`.

/// Whether `text` fits `pattern`, in which `*` stands for any characters and `?` for one. Letters count as small ones.
pub fn fits(pattern: &str, text: &str) -> bool {
    let lower = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let (pattern, text) = (lower(pattern), lower(text));
    // Where the last star was, and what it has been taken to stand for so far.
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

/// Whether one of `patterns` fits `text` and none that begins with `!` does.
pub fn one_fits<'a>(patterns: impl Iterator<Item = &'a str>, text: &str) -> bool {
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
            ("Host", "hOST", true),
            ("a*b*c", "axbxbc", true),
            ("a*b*c", "axbx", false),
            ("[a]:*", "[a]:2222", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
        let fits = |patterns: &str, text| one_fits(patterns.split(','), text);
        assert!(fits("*.a,!x.a", "y.a") && !fits("*.a,!x.a", "x.a") && !fits("!x.a", "y.a") && !fits("", "y.a"));
    }
}
