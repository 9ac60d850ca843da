//! Other spellings of a repository on the hub than its id, such as its address in a browser. None
//! of them is taken for the id, but the message names what was meant.

use super::environment;
use super::http::resolve::{Address, RepositoryKind};
use super::names::is_revision;

/// Names of the hub in addresses.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];
/// What stands behind a repository in its address, in front of a revision.
const WITHIN: [&str; 5] = ["tree", "blob", "resolve", "raw", "commit"];

/// A repository that is not called by its id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Meant {
    pub id: String,
    /// Where it is named and is not the usual one.
    pub revision: Option<String>,
}

impl Meant {
    /// What to write instead, with the options that `id` goes with.
    pub(super) fn told(&self) -> String {
        match &self.revision {
            None => format!("the id of it on the hub is {:?}", self.id),
            Some(revision) => {
                format!("the id of it on the hub is {:?}, and `revision: {revision:?}` names the revision", self.id)
            }
        }
    }
}

/// The repository that `text` means: "https://huggingface.co/owner/name/tree/v1",
/// "hf.co/owner/name", "hf://datasets/owner/name", "owner/name@v1". `None` for an id itself, and
/// for what means none.
pub(super) fn meant(kind: RepositoryKind, text: &str) -> Option<Meant> {
    let (scheme, rest) =
        text.trim().split_once("://").map_or((None, text.trim()), |(scheme, rest)| (Some(scheme), rest));
    let (scheme, rest) = rest.strip_prefix("git@hf.co:").map_or((scheme, rest), |path| (Some("hf"), path));
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let endpoint = environment::endpoint();
    let own = endpoint.split_once("://").map_or("", |(_, host)| host);
    let is_hub = |host: &str| HOSTS.contains(&host.to_ascii_lowercase().as_str()) || host == own;
    let has_host = parts.first().is_some_and(|host| is_hub(host));
    if has_host {
        parts.remove(0);
    } else if scheme.is_some_and(|scheme| scheme != "hf") {
        return None;
    }
    // What has neither the hub's name nor a scheme in front is a folder more likely.
    let is_address = has_host || scheme.is_some();
    if !is_address && (parts.len() > 2 || rest.starts_with(['/', '.', '~']) || rest.ends_with('/')) {
        return None;
    }
    let of_kind = if kind == RepositoryKind::Dataset { "datasets" } else { "models" };
    if is_address && parts.len() > 1 && parts[0] == of_kind {
        parts.remove(0);
    }
    let within = parts.iter().skip(1).position(|part| WITHIN.contains(part)).map_or(parts.len(), |at| at + 1);
    let mut revision = parts.get(within + 1).copied();
    let mut id = parts[..within.min(2)].join("/");
    if let Some((name, tag)) = id.clone().split_once('@') {
        (id, revision) = (name.to_string(), path.split_once('@').and(path.split(['@', '/']).find(|part| *part == tag)));
    }
    let id = id.strip_suffix(".git").unwrap_or(&id).to_string();
    let revision = revision.filter(|revision| *revision != "main" && is_revision(revision)).map(str::to_string);
    Address::new(kind, &id).filter(|address| address.id != text)?;
    Some(Meant { id, revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_hub_means_the_id_in_it() {
        for (text, id, revision) in [
            ("https://huggingface.co/gpt2", "gpt2", None),
            ("https://huggingface.co/gpt2/tree/main", "gpt2", None),
            ("http://www.huggingface.co/a/b/", "a/b", None),
            ("https://huggingface.co/a/b/blob/main/config.json?download=true", "a/b", None),
            ("https://huggingface.co/a/b/tree/v1.0", "a/b", Some("v1.0")),
            ("HuggingFace.co/a/b#files", "a/b", None),
            ("hf.co/a/b.git", "a/b", None),
            ("hf://a/b", "a/b", None),
            ("hf://models/a/b", "a/b", None),
            ("git@hf.co:a/b", "a/b", None),
            ("a/b@v2", "a/b", Some("v2")),
            ("gpt2@v2", "gpt2", Some("v2")),
            (" a/b ", "a/b", None),
        ] {
            let expected = Meant { id: id.to_string(), revision: revision.map(str::to_string) };
            assert_eq!(meant(RepositoryKind::Model, text), Some(expected), "{text}");
        }
        for text in [
            "a/b",
            "a/b/",
            "models/a",
            "models/a/",
            "datasets/a",
            "./a/b",
            "gpt2",
            "a/b/c",
            "https://example.org/a/b",
            "/a/b/c",
            "../a",
            "https://huggingface.co",
            "",
            "a b",
        ] {
            assert_eq!(meant(RepositoryKind::Model, text), None, "{text}");
        }
        let dataset = meant(RepositoryKind::Dataset, "https://huggingface.co/datasets/a/b/viewer").unwrap();
        assert_eq!(dataset, Meant { id: "a/b".to_string(), revision: None });
    }
}
