//! "Did you mean …": finds the known name that is nearest to an unknown one.

/// Words with a smaller Jaro-Winkler similarity (0 to 1) are not suggested.
const NEAR: f64 = 0.75;

/// Among many unrelated names this similarity is required, and short words may differ in few
/// letters only.
const CLOSE: f64 = 0.88;
/// The greatest length of a word for which similarity is not enough: "fp16" is as similar to "bf16"
/// as a misspelling is.
const SHORT: usize = 6;
/// The least length of a word that is looked for within others.
const LEAST_PART: usize = 3;
/// The greatest number of names that are suggested at once.
const MOST_OFFERED: usize = 6;

/// Longer words are never compared, because the time grows with the product of two lengths.
const LONGEST: usize = 64;

/// Returns the nearest known name, if it is near enough for a likely misspelling.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    within(NEAR, word, known)
}

/// Returns the nearest of many names that are mostly unrelated to the word.
pub fn close<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    within(CLOSE, word, known)
}

/// The greatest edit distance of a misspelling.
const SLIPS: usize = 2;

/// Returns the known name of which a word of few letters is a misspelling, for names that are all
/// similar. Of several equally near names it returns the first.
pub fn misspelt<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().nth(LONGEST).is_some() {
        return None;
    }
    let word = word.to_lowercase();
    let slips = known.into_iter().map(|name| (strsim::osa_distance(&word, &name.to_lowercase()), name));
    // In a short word, so many edits lead to a different word.
    let likely = |(slips, name): &(usize, &str)| *slips <= SLIPS.min(name.len() / 3);
    slips.filter(likely).min_by_key(|(slips, _)| *slips).map(|(_, name)| name)
}

fn within<'a>(least: f64, word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let is_short = |word: &str| word.chars().nth(LONGEST).is_none();
    if !is_short(word) {
        return None;
    }
    let word = word.to_lowercase();
    let length = word.chars().count();
    // One edit is accepted in a word of up to five letters, and two in one of six.
    let little = |name: &str| length > SHORT || strsim::osa_distance(&word, name) <= (length / 3).max(1);
    known
        .into_iter()
        .filter(|name| is_short(name))
        .map(|name| (name.to_lowercase(), name))
        .map(|(lower, name)| (strsim::jaro_winkler(&word, &lower), little(&lower), name))
        .filter(|(likeness, little, _)| *likeness >= least && *little)
        .map(|(likeness, _, name)| (likeness, name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Returns the names that contain the word: as one or more of the parts that `_` or `-` joins, or
/// as the beginning.
pub fn containing<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let plain = |name: &str| name.trim_start_matches('-').to_lowercase().replace('-', "_");
    let word = plain(word);
    if word.chars().count() < LEAST_PART {
        return Vec::new();
    }
    let part = |name: &str| {
        let name = plain(name);
        name != word && (name.starts_with(&word) || format!("_{name}_").contains(&format!("_{word}_")))
    };
    known.into_iter().filter(|name| part(name)).collect()
}

/// Returns "did you mean …?" with the name that contains the word or of which it is a misspelling,
/// or with several such names.
pub fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    let offered = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        match &names[..] {
            [one] => format!("did you mean {one}?"),
            [all @ .., last] => format!("did you mean {} or {last}?", all.join(", ")),
            [] => String::new(),
        }
    };
    let near = nearest(word, known.clone());
    let parts = containing(word, known);
    match (parts.len(), near) {
        // A misspelling in one or two letters is likelier than the beginning of a longer name.
        (_, Some(near)) if strsim::osa_distance(word, near) <= 2 => Some(offered(&[near])),
        (1..=MOST_OFFERED, _) => Some(offered(&parts)),
        (_, near) => near.map(|near| offered(&[near])),
    }
}

/// Returns a hint with the likely names, or else all names.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match meant(word, known.clone()) {
        Some(meant) => meant,
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
        // Short words are similar by chance.
        assert_eq!(super::nearest("fp16", ["f32", "bf16"]), None);
        assert_eq!(super::nearest("sum", ["some", "sin"]), None);
        assert_eq!(super::nearest("bf61", ["f32", "bf16"]), Some("bf16"));
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

    #[test]
    fn parts_of_names_find_all_of_them() {
        let known = ["load_model", "load_tokens", "load_results", "upload", "magnitude_threshold", "thresholds"];
        assert_eq!(super::hint("load", known), "did you mean `load_model`, `load_tokens` or `load_results`?");
        assert_eq!(super::hint("magnitude", known), "did you mean `magnitude_threshold`?");
        assert_eq!(super::hint("threshold", known[..5].iter().copied()), "did you mean `magnitude_threshold`?");
        assert_eq!(super::hint("threshold", known), "did you mean `thresholds`?");
        assert_eq!(super::hint("load_modle", known), "did you mean `load_model`?");
        assert_eq!(super::hint("--threshold", ["--magnitude-threshold"]), "did you mean `--magnitude-threshold`?");
        assert!(super::containing("lo", known).is_empty());
    }
}
