//! GGUF files by their names: which of them belong together, and which one is meant.

use crate::error::{Error, Result};
use crate::hub::failure::Failure;
use crate::hub::names::is_file_path;
use crate::outside::shown;

pub(crate) const ENDING: &str = ".gguf";
/// The prefix of files that turn images into embeddings, which lie beside the language model.
const PROJECTOR: &str = "mmproj";
/// The largest number of parts of a model.
const MAX_PARTS: usize = 4096;
/// Digits of a part's number, and of the number of parts.
const DIGITS: usize = 5;
/// The largest number of files that a message lists.
const LISTED: usize = 12;

/// True if a name is that of a GGUF file.
pub(crate) fn is_gguf(name: &str) -> bool {
    name.len() > ENDING.len() && name.to_ascii_lowercase().ends_with(ENDING)
}

fn file(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, file)| file)
}

/// The name without its ending, and without the number of its part; that number, and how many parts
/// there are.
fn stem(name: &str) -> (&str, Option<(usize, usize)>) {
    let stem = name.get(..name.len().saturating_sub(ENDING.len())).unwrap_or(name);
    let part = || {
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (whole, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        let [number, count] = [number, count].map(|text| text.parse::<usize>().ok().filter(|_| is_number(text)));
        let (number, count) = (number?, count?);
        ((1..=count).contains(&number) && count <= MAX_PARTS).then_some((whole, (number, count)))
    };
    part().map_or((stem, None), |(whole, part)| (whole, Some(part)))
}

/// The names of all parts of the model of which `name` is one, in their order: itself, if its name
/// has no number of a part.
pub(crate) fn parts(name: &str) -> Vec<String> {
    match stem(name) {
        (whole, Some((_, count))) => {
            let ending = &name[name.len() - ENDING.len()..];
            (1..=count).map(|number| format!("{whole}-{number:05}-of-{count:05}{ending}")).collect()
        }
        (_, None) => vec![name.to_string()],
    }
}

/// The language models among files: single ones, and the first parts of others; sorted.
pub(crate) fn models(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let is_model = |name: &String| {
        is_gguf(name)
            && is_file_path(name)
            && !file(name).to_ascii_lowercase().starts_with(PROJECTOR)
            && stem(name).1.is_none_or(|(number, _)| number == 1)
    };
    let mut models: Vec<String> = names.into_iter().filter(is_model).collect();
    models.sort();
    models
}

/// What a model is told apart by from others of its repository: mostly its type, such as `Q4_K_M`.
fn tag(name: &str) -> &str {
    let (stem, _) = stem(file(name));
    stem.rsplit_once(['-', '.']).map_or(stem, |(_, tag)| tag)
}

/// True if `wanted` is a name of this model: its path, its file, or the end of its name.
fn is_wanted(name: &str, wanted: &str) -> bool {
    let wanted = wanted.to_ascii_lowercase();
    let (path, file) = (name.to_ascii_lowercase(), file(name).to_ascii_lowercase());
    let (stem, _) = stem(&file);
    let ends = stem.strip_suffix(&*wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', '.', '_']));
    !wanted.is_empty() && (path == wanted || file == wanted || ends)
}

/// The model that `wanted` names among these, with all of its parts.
///
/// # Errors
/// `not_found` if there is none, or if there are several.
pub(crate) fn chosen(told: &str, models: &[String], wanted: &str) -> Result<Vec<String>> {
    // A part of a model means the model.
    let first = parts(wanted).swap_remove(0);
    let found: Vec<&String> = models.iter().filter(|name| is_wanted(name, &first)).collect();
    let exact = found.iter().find(|name| **name == &first);
    match (exact.or(found.first().filter(|_| found.len() == 1)), models) {
        (Some(name), _) => Ok(parts(name)),
        (None, []) => Err(Error::of(Failure::NoGguf { told: told.to_string() })),
        (None, _) if found.is_empty() => {
            let (told, wanted) = (told.to_string(), shown(wanted));
            Err(Error::of(Failure::NoGgufCalled { told, wanted, listed: listed(models) }))
        }
        (None, _) => {
            let found: Vec<String> = found.iter().map(|name| name.to_string()).collect();
            let (told, wanted, count) = (told.to_string(), shown(wanted), found.len());
            Err(Error::of(Failure::AmbiguousGguf { told, wanted, count, listed: listed(&found) }))
        }
    }
}

/// Tells the user that a model was not named, and which file it is.
pub(crate) fn only(told: &str, name: &str) -> String {
    format!("{told}: {} is read, the only model in it", shown(name))
}

/// How to name one of several models.
pub(crate) fn listed(models: &[String]) -> String {
    let mut names: Vec<String> = models.iter().take(LISTED).map(|name| shown(name)).collect();
    if models.len() > LISTED {
        names.push(format!("{} more", models.len() - LISTED));
    }
    format!("name the one that is meant; there are {}", names.join(", "))
}

/// How to name one of the models among these files, which are those of a repository of the hub or
/// of a folder; None if there are none.
pub(crate) fn to_name(repository: Option<&str>, names: &[&str]) -> Option<String> {
    let models = models(names.iter().map(|name| name.to_string()));
    let first = models.first()?;
    let Some(id) = repository else { return Some(listed(&models)) };
    let is_told_apart = |tag: &&str| models.iter().filter(|name| is_wanted(name, tag)).count() == 1;
    let by_type = models.iter().map(|name| tag(name)).find(is_told_apart);
    let by_type = by_type.map(|tag| format!("by its type, load_model(\"{id}:{}\"), or ", shown(tag)));
    Some(format!(
        "a GGUF file is read {}by its name, load_model(\"{id}/{}\"): {}; or load the model they were made from, whose id the model card \
         names",
        by_type.unwrap_or_default(),
        shown(first),
        listed(&models)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_model_are_those_of_its_name() {
        assert_eq!(parts("a/m-00002-of-00002.gguf"), ["a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf"]);
        for single in
            ["m.gguf", "m-00003-of-00002.gguf", "m-1-of-2.gguf", "m-00000-of-00002.gguf", "m-99999-of-99999.gguf"]
        {
            assert_eq!(parts(single), [single]);
        }
    }

    #[test]
    fn a_model_is_found_by_its_type_its_file_and_its_path() {
        let names = [
            "README.md",
            "mmproj-F16.gguf",
            "m-Q4_0.gguf",
            "m-Q8_0.gguf",
            "m.IQ4_XS.gguf",
            "BF16/m-BF16-00002-of-00002.gguf",
            "BF16/m-BF16-00001-of-00002.gguf",
        ];
        let models = models(names.map(str::to_string));
        assert_eq!(models, ["BF16/m-BF16-00001-of-00002.gguf", "m-Q4_0.gguf", "m-Q8_0.gguf", "m.IQ4_XS.gguf"]);
        let both = ["BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"];
        for (wanted, found) in [
            ("Q8_0", &["m-Q8_0.gguf"][..]),
            ("q8_0", &["m-Q8_0.gguf"]),
            ("m-Q4_0.gguf", &["m-Q4_0.gguf"]),
            ("IQ4_XS", &["m.IQ4_XS.gguf"]),
            ("bf16", &both),
            ("BF16/m-BF16-00002-of-00002.gguf", &both),
        ] {
            assert_eq!(chosen("model", &models, wanted).unwrap(), found, "{wanted}");
        }
        let none = chosen("model", &models, "Q5_0").unwrap_err();
        assert_eq!(none.message, "model: it has no GGUF file \"Q5_0\"");
        assert!(none.hint.unwrap().contains("m-Q8_0.gguf"));
        let hint = |names: &[&str]| to_name(Some("a/b"), names).unwrap();
        assert!(hint(&["x-Q4_0.gguf", "y-Q4_0.gguf", "x-Q8_0.gguf"]).contains("load_model(\"a/b:Q8_0\")"));
        // A type that names both files would only be refused again.
        let both = hint(&["x-Q8_0.gguf", "y-Q8_0.gguf"]);
        assert!(both.contains("read by its name, load_model(\"a/b/x-Q8_0.gguf\")"), "{both}");
        let two = chosen("model", &["a-x-Q8_0.gguf", "b-x-Q8_0.gguf"].map(str::to_string), "Q8_0").unwrap_err();
        assert!(two.message.contains("2 of its GGUF files are called \"Q8_0\""), "{}", two.message);
    }
}
