//! The hub's refusals, distinguished by status and headers, and their meaning for the user.
//!
//! Order of checks: huggingface_hub, `utils/_http.py`.

use reqwest::header::HeaderMap;

use crate::error::{Error, Kind};
use crate::hub::environment;
use crate::plain::plain;

/// The largest number of characters of the hub's message that are shown.
const WORDS: usize = 300;

#[derive(Debug)]
pub enum Refusal {
    /// The hub rejects the token, with this message.
    BadToken(String),
    /// A private repository looks like a missing one to users without access.
    NoRepository,
    NoAccess,
    /// The hub refuses with this status and message.
    Refused(u16, String),
    NoRevision(Option<String>),
    NoFile,
    /// The message of the last answer.
    RateLimited(String),
    /// `HF_HUB_OFFLINE` or a similar variable is set, and the file is not cached.
    Offline,
    Other(String),
}

impl Refusal {
    /// The meaning of an answer with this status, to a request with a token if `with_token`.
    pub(crate) fn of(status: u16, headers: &HeaderMap, with_token: bool) -> Self {
        let header =
            |name: &str| plain(headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default(), WORDS);
        let (message, code, request) = (header("X-Error-Message"), header("X-Error-Code"), header("X-Request-Id"));
        match (status, code.as_str()) {
            (_, "RevisionNotFound") => Self::NoRevision(None),
            (_, "EntryNotFound") => Self::NoFile,
            (_, "GatedRepo") => Self::NoAccess,
            (_, "RepoNotFound") => Self::NoRepository,
            // Without a token, the answers for private and for missing repositories are the same.
            (401, _) if with_token && !message.is_empty() => Self::BadToken(message),
            (401, _) => Self::NoRepository,
            (403, _) if message.is_empty() => Self::NoAccess,
            (404, _) => Self::NoFile,
            (400..=499, _) if !message.is_empty() => Self::Refused(status, message),
            _ => Self::Other(match (message.as_str(), request.as_str()) {
                ("", "") => format!("status {status}"),
                ("", request) => format!("status {status} (request {request})"),
                (message, _) => format!("status {status}: {message}"),
            }),
        }
    }
}

/// The error for a refusal. `doing` is, for example, `model "owner/name": fetching FILE from the
/// hub`.
pub(crate) fn told(doing: &str, refusal: &Refusal) -> Error {
    let auth = |problem: &str| Error::new(Kind::Auth, format!("{doing}: {problem}"));
    let missing = |problem: &str| Error::not_found(format!("{doing}: {problem}"));
    let io = |problem: &str| Error::new(Kind::Io, format!("{doing}: {problem}"));
    let kind = if doing.starts_with("dataset") { "dataset" } else { "model" };
    let withheld = || Error::new(Kind::Auth, format!("{doing}: {}", environment::UNCOVERED)).hint(environment::COVER);
    match refusal {
        Refusal::NoRepository | Refusal::NoAccess if environment::withholds() => withheld(),
        Refusal::BadToken(said) => auth(&format!("the token is not valid: the hub says \"{said}\""))
            .hint(format!("set HF_TOKEN to a valid token, or unset it: public {kind}s need none")),
        Refusal::NoRepository => missing(&format!("no such {kind}, or it is private"))
            .hint(format!("check the id; for a private {kind} set HF_TOKEN")),
        Refusal::NoAccess => auth("access refused")
            .hint(format!("accept the {kind}'s terms on the hub and set HF_TOKEN to a token that may read it")),
        Refusal::Refused(403, said) => auth(&format!("access refused: the hub says \"{said}\"")).hint(format!(
            "look at what the {kind}'s page on the hub asks for, and at what HF_TOKEN may do, in the hub's settings of access tokens"
        )),
        Refusal::Refused(status, said) => {
            Error::new(Kind::Service, format!("{doing}: status {status}: the hub says \"{said}\""))
                .hint(format!("look at the {kind}'s page on the hub"))
        }
        Refusal::NoRevision(name) => {
            missing(&name.as_ref().map_or("no such revision".into(), |n| format!("no revision \"{n}\"")))
                .hint(format!("give a branch, tag or commit of this {kind}, or leave `revision` out"))
        }
        Refusal::NoFile => missing(&format!("the {kind} has no such file")).hint(match kind {
            "dataset" => "the files of a dataset are listed on its page on the hub, under \"Files\"",
            _ => "only safetensors and PyTorch files (pytorch_model.bin) can be read; look for a converted copy of this model",
        }),
        Refusal::RateLimited(said) => io(&format!("the hub asks again and again to wait ({said})"))
            .hint("wait a few minutes, or set HF_TOKEN for higher limits"),
        Refusal::Offline => missing(&format!("{} is set and the file is not in the cache", environment::offline_by()))
            .hint(format!("unset {}, or download it before going offline", environment::offline_by())),
        Refusal::Other(problem) => {
            let other = if kind == "model" { "model that is already in a folder" } else { "text file" };
            io(problem).hint(format!("is the network reachable? a {other} can be given by its path"))
        }
    }
}
