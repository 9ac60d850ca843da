//! "Did you mean …": the nearest of some known names to one that was not found.

/// Words further apart than this (0 to 1, Jaro-Winkler) are not offered.
const NEAR: f64 = 0.75;

/// Among many unrelated names only those so near are.
const CLOSE: f64 = 0.88;

/// Nobody misspells longer words, and the time to compare two grows with the product of their lengths.
const LONGEST: usize = 64;

/// The nearest known name, if one is near enough to be a likely misspelling.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    within(NEAR, word, known)
}

/// The nearest of many names of which most have nothing to do with the word.
pub fn close<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    within(CLOSE, word, known)
}

/// Letters by which a misspelling differs from its word.
const SLIPS: usize = 2;

/// The word that a name of few letters is a misspelling of: for names that all look alike. Of several that are as near, the first.
pub fn misspelt<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().nth(LONGEST).is_some() {
        return None;
    }
    let word = word.to_lowercase();
    let slips = known.into_iter().map(|name| (strsim::osa_distance(&word, &name.to_lowercase()), name));
    // In a short word that many are another word.
    let likely = |(slips, name): &(usize, &str)| *slips <= SLIPS.min(name.len() / 3);
    slips.filter(likely).min_by_key(|(slips, _)| *slips).map(|(_, name)| name)
}

fn within<'a>(least: f64, word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_short = |word: &str| word.chars().nth(LONGEST).is_none();
    if !is_short(word) {
        return None;
    }
    let word = word.to_lowercase();
    known
        .into_iter()
        .filter(|name| is_short(name))
        .map(|name| (strsim::jaro_winkler(&word, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= least)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A hint: the nearest name when there is one, else all of them.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let all: Vec<_> = known.into_iter().map(|name| format!("`{name}`")).collect();
            format!("known are {}", all.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn misspellings_find_their_word() {
        let known = ["magnitude_threshold", "min_layer_percentage", "scope"];
        assert_eq!(super::nearest("magnitude_treshold", known), Some("magnitude_threshold"));
        assert_eq!(super::nearest("scop", known), Some("scope"));
        assert_eq!(super::nearest("zebra", known), None);
        let long = "a".repeat(65);
        assert_eq!(super::nearest(&long, [long.as_str()]), None);
        let names = ["llama", "gpt2", "qwen3", "qwen3_moe"];
        assert_eq!(super::misspelt("lama", names), Some("llama"));
        assert_eq!(super::misspelt("Qwen3-MoE", names), Some("qwen3_moe"));
        assert_eq!(super::misspelt("qwne3", names), Some("qwen3"));
        assert_eq!(super::misspelt("bert", names), None);
        assert_eq!(super::misspelt("mixtral", names), None);
        assert!(super::hint("zebra", known).contains("`scope`"));
    }
}
