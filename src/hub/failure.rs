//! What can go wrong with the hub, its cache and the files of a model, with the words for it.
//! Refusals of the hub have a file of their own (`refusal.rs`), and so have formats of texts.

use std::path::PathBuf;

use super::http::refusal::{self, Refusal};
use crate::error::{self, Error, Kind};
use crate::plain::plain;

/// The hint for an answer that makes no sense.
const IS_IT_A_HUB: &str = "is HF_ENDPOINT the address of a hub, and one you trust?";
/// What to do about a page or a message that was saved in place of a file: mostly why somebody
/// could not have it.
pub const REFUSED: &str = "was the answer of a server saved in place of the file? fetch it again, with `hf download` for instance, and with a \
                       token (HF_TOKEN) where access to the model is granted to some";
/// The longest names and places in a message, in characters.
const SHOWN: usize = 200;
const SHOWN_PLACE: usize = 400;

/// `doing` is, for example, `model "owner/name": fetching FILE from the hub`, and `place` a folder
/// or the name of a repository.
#[derive(Debug)]
pub enum Failure {
    Refused {
        doing: String,
        refusal: Refusal,
    },
    BadEndpoint(String),
    Client(reqwest::Error),
    NoAnswer,
    Unasked(tokio::task::JoinError),
    /// An answer that no hub gives.
    BadAnswer {
        doing: String,
        problem: String,
    },
    NoRanges {
        doing: String,
    },
    Changed {
        doing: String,
    },
    /// A file of this computer was written while it was read.
    ChangedHere(PathBuf),
    /// The bytes have another hash than the hub announces.
    OtherHash {
        doing: String,
        kind: &'static str,
        found: String,
        announced: String,
        hint: String,
    },
    NoFilePath {
        place: String,
        name: String,
    },
    NoRevisionName {
        place: String,
        revision: String,
    },
    /// Neither a folder nor an id.
    NoModel {
        id: String,
        hint: String,
    },
    /// A folder has one state, and no others to choose from.
    RevisionOfFolder {
        id: String,
        revision: String,
    },
    NoDatasetId {
        id: String,
        hint: String,
    },
    /// An option that would be part of a path leads out of the dataset.
    LeadsOut {
        option: &'static str,
        path: String,
    },
    NoTextFiles {
        place: String,
        config: String,
    },
    NoSplit {
        place: String,
        config: String,
        split: String,
    },

    NoCacheFolder,
    NotInCache(PathBuf),
    /// The link of a file in the cache leads to no blob.
    AstrayInCache {
        name: String,
        file: PathBuf,
    },
    DamagedInCache {
        name: String,
        problem: String,
        blob: PathBuf,
        folder: PathBuf,
    },

    TooLarge {
        what: String,
        bytes: u64,
        most: u64,
    },
    NoWeights {
        place: String,
        /// The names of files that would hold them.
        wanted: [&'static str; 3],
    },
    /// Models are in folders of a place, and none in itself.
    OnlyBelow {
        place: String,
        folders: String,
        last: String,
    },
    BadIndex {
        index: String,
        problem: String,
    },
    /// An index names this as a file, and it is none.
    Astray {
        index: String,
        name: String,
        what: &'static str,
    },
    NoIndex {
        place: String,
        found: String,
        single: &'static str,
        index: &'static str,
    },
    OtherFormat {
        message: String,
        hint: String,
    },
    /// A file whose name has other capitals than that of `missing`.
    Capitals {
        place: String,
        found: String,
        missing: String,
        right: &'static str,
    },
    OnlyIndex {
        place: String,
        index: String,
        named: String,
    },
    Adapter {
        place: String,
        /// Its kind and the file that says it.
        kind: String,
        base: String,
    },
    NoConfig {
        place: String,
        weights: String,
    },
    FileForFolder {
        path: String,
        what: String,
        folder: PathBuf,
    },
    /// A file has something else in it than its place says.
    FileInstead {
        file: String,
        what: String,
        /// What it should be, as in "not a PyTorch file".
        not: &'static str,
        advice: String,
    },
    OldPytorch {
        file: String,
    },
    /// A server has refused the file, and its answer was saved under the name.
    AnswerInstead {
        file: String,
        says: String,
    },
    AnnexPointer {
        file: String,
    },
    LfsPointer {
        file: String,
        /// The length of the file that it leads to, if it says so.
        bytes: Option<u64>,
    },
    /// Nothing in a place is a GGUF file of a language model.
    NoGguf {
        told: String,
    },
    NoGgufCalled {
        told: String,
        wanted: String,
        /// How to name one.
        listed: String,
    },
    /// Several files have the name that was asked for.
    AmbiguousGguf {
        told: String,
        wanted: String,
        count: usize,
        listed: String,
    },
    SeveralGguf {
        folder: PathBuf,
        count: usize,
        listed: String,
        first: String,
    },
}

/// The error for a refusal.
pub(super) fn refused(doing: &str, refusal: Refusal) -> Error {
    Error::of(Failure::Refused { doing: doing.to_string(), refusal })
}

impl error::Failure for Failure {
    fn told(&self) -> Error {
        let io = |message: String| Error::new(Kind::Io, message);
        let missing = |message: String| Error::not_found(message);
        match self {
            Self::Refused { doing, refusal } => refusal::told(doing, refusal),
            Self::BadEndpoint(text) => Error::bad_argument(format!("HF_ENDPOINT is \"{text}\""))
                .hint("it is a URL such as https://huggingface.co"),
            Self::Client(source) => io(format!("starting the hub client: {source}")),
            Self::NoAnswer => io("a request to the hub ended without an answer".to_string()),
            Self::Unasked(source) => io(format!("asking the hub: {source}")),
            Self::BadAnswer { doing, problem } => io(format!("{doing}: {problem}")).hint(IS_IT_A_HUB),
            Self::NoRanges { doing } => io(format!("{doing}: the server does not serve ranges of a file"))
                .hint("a proxy may stand between; try another network, or put the files into a folder"),
            Self::Changed { doing } => {
                Error::corrupt(format!("{doing}: the file has changed on the hub while it was read"))
                    .hint("run again; give `revision` a commit to read the same files every time")
            }
            Self::ChangedHere(path) => {
                Error::corrupt(format!("reading {}: the file was changed while it was read", path.display()))
                    .hint("run again when nothing writes to it; what was read is partly of another version")
            }
            Self::OtherHash { doing, kind, found, announced, hint } => {
                Error::corrupt(format!("{doing}: the bytes have the {kind} {found}, the hub announces {announced}"))
                    .hint(hint)
            }
            Self::NoFilePath { place, name } => {
                let name = plain(name, SHOWN);
                Error::bad_argument(format!("{place}: \"{name}\" is not the path of a file in a repository"))
                    .hint("such a path is relative and looks like data/train.parquet")
            }
            Self::NoRevisionName { place, revision } => {
                Error::bad_argument(format!("{place}: \"{}\" is not the name of a revision", plain(revision, SHOWN)))
                    .hint("give a branch, a tag or a commit of 40 hexadecimal digits")
            }
            Self::NoModel { id, hint } => {
                missing(format!("model \"{}\": no such folder, and not a hub id", plain(id, SHOWN))).hint(hint)
            }
            Self::RevisionOfFolder { id, revision } => {
                Error::bad_argument(format!("model \"{id}\" is here, and no revision \"{revision}\" of it is known"))
                    .hint("`revision` chooses among the states of a model on the hub: leave it out")
            }
            Self::NoDatasetId { id, hint } => {
                Error::bad_argument(format!("load_tokens: dataset \"{}\" is not a hub id", plain(id, SHOWN))).hint(hint)
            }
            Self::LeadsOut { option, path } => Error::bad_argument(format!(
                "load_tokens: {option} \"{}\" leads out of the dataset",
                plain(path, SHOWN)
            ))
            .hint("give it as the dataset's page on the hub shows it"),
            Self::NoTextFiles { place, config } => {
                missing(format!("{place}: no Parquet, JSON or CSV files of a config \"{config}\""))
                    .hint("name a file of the dataset with `file`, such as file: \"data/x.parquet\"")
            }
            Self::NoSplit { place, config, split } => {
                missing(format!("{place}: config \"{config}\" has no split \"{split}\""))
                    .hint("name a file of the dataset with `file`")
            }
            Self::NoCacheFolder => {
                io("there is no folder for the cache of models".to_string()).hint("set HF_HOME or HOME to a folder")
            }
            Self::NotInCache(folder) => missing(format!("{}: not a cache folder", folder.display())),
            Self::AstrayInCache { name, file } => {
                missing(format!("{name} is not in the cache: the link in its place leads to no blob of this model"))
                    .hint(format!("remove {}, and have it fetched again", file.display()))
            }
            Self::DamagedInCache { name, problem, blob, folder } => {
                Error::corrupt(format!("{name} in the cache is damaged: {problem}")).hint(format!(
                    "remove {}, and have it fetched again; what was changed on purpose can be loaded as the folder {}",
                    blob.display(),
                    folder.display()
                ))
            }
            Self::TooLarge { what, bytes, most } => Error::corrupt(format!(
                "{what}: {bytes} bytes, more than the {} MB that such a file may have",
                most >> 20
            ))
            .hint("is it what its name says? weights belong into safetensors files"),
            Self::NoWeights { place, wanted: [single, index, other] } => {
                missing(format!("{place}: neither {single} nor {index}, and no {other}"))
                    .hint("a model folder holds config.json and safetensors weights")
            }
            Self::OnlyBelow { place, folders, last } => {
                missing(format!("{place}: no model, but there is one {folders}"))
                    .hint(format!("name that folder: {:?}", plain(&format!("{place}/{last}"), SHOWN_PLACE)))
            }
            Self::BadIndex { index, problem } => Error::corrupt(format!("reading {index}: {problem}")).hint(
                "is this model complete? correct the file there, or fetch it again from where the model came from",
            ),
            Self::Astray { index, name, what } => Error::corrupt(format!(
                "reading {index}: `{}` is not a file of this model: it {what}",
                plain(name, SHOWN)
            ))
            .hint("correct `weight_map` in it: names begin at its folder, such as model-00001-of-00002.safetensors"),
            Self::NoIndex { place, found, single, index } if found.starts_with("consolidated.") => {
                missing(format!("{place}: {found}, but neither {single} nor {index}")).hint(
                    "its authors' own code reads it, with names of tensors of its own: take the files in the layout of \
                     transformers from the same release, or convert it with their script",
                )
            }
            Self::NoIndex { place, found, single, index } => {
                missing(format!("{place}: {found}, but neither {single} nor {index}")).hint(format!(
                    "fetch {index}, which says that these files belong together; a single file of weights must be \
                     called {single}"
                ))
            }
            Self::OtherFormat { message, hint } => Error::unsupported(message.clone()).hint(hint),
            Self::Capitals { place, found, missing: no, right } => missing(format!("{place}: {found}, but {no}"))
                .hint(format!("capitals matter in names of files: call it {right}")),
            Self::OnlyIndex { place, index, named } => {
                missing(format!("{place}: {index} names {named} of weights, and none of them is there")).hint(
                    "it says where weights are and holds none: fetch the files that it names, with `hf download` for \
                     instance, or name the place that has them",
                )
            }
            Self::Adapter { place, kind, base } => {
                Error::unsupported(format!("{place}: an adapter ({kind}) for the model{base}, not a model by itself"))
                    .hint(
                        "merge it into its model in Python, with peft: \
                         AutoPeftModelForCausalLM.from_pretrained(ADAPTER).merge_and_unload().save_pretrained(FOLDER), \
                         and load that folder; or load the model without it",
                    )
            }
            Self::NoConfig { place, weights } => missing(format!("{place}: config.json is missing beside {weights}"))
                .hint(
                    "it says what model the weights are of: fetch it from where they came from, or write it with \
                     save_pretrained",
                ),
            Self::FileForFolder { path, what, folder } => {
                let folder = folder.display();
                missing(format!("model \"{path}\": {what}, not the folder of a model"))
                    .hint(format!("give the folder it is in, with config.json: load_model(\"{folder}\")"))
            }
            Self::FileInstead { file, what, not, advice } => {
                Error::unsupported(format!("reading {file}: {what}, {not}")).hint(advice)
            }
            Self::OldPytorch { file } => Error::unsupported(format!(
                "reading {file}: a PyTorch file of before version 1.6, which is no archive and is not read"
            ))
            .hint(
                "write it anew in Python: torch.save(torch.load(FILE, weights_only=True), FILE); or use the model's \
                 release in safetensors",
            ),
            Self::AnswerInstead { file, says } => {
                Error::unsupported(format!("reading {file}: the answer of a server, which {says}")).hint(REFUSED)
            }
            Self::AnnexPointer { file } => {
                missing(format!("reading {file}: a git-annex pointer to the file, which has not been fetched"))
                    .hint("run `git annex get` where it was cloned")
            }
            Self::LfsPointer { file, bytes } => {
                let bytes = bytes.map_or(String::new(), |bytes| format!(" of {bytes} bytes"));
                missing(format!("reading {file}: a Git LFS pointer to the file{bytes}, which has not been fetched"))
                    .hint(
                        "run `git lfs install` and `git lfs pull` where it was cloned, or fetch the file itself, with \
                     `hf download` for instance",
                    )
            }
            Self::NoGguf { told } => missing(format!("{told}: it has no GGUF file of a language model"))
                .hint("name a repository that has one, or the model in safetensors"),
            Self::NoGgufCalled { told, wanted, listed } => {
                missing(format!("{told}: it has no GGUF file \"{wanted}\"")).hint(listed)
            }
            Self::AmbiguousGguf { told, wanted, count, listed } => {
                missing(format!("{told}: {count} of its GGUF files are called \"{wanted}\"")).hint(listed)
            }
            Self::SeveralGguf { folder, count, listed, first } => {
                missing(format!("{}: it has {count} models in GGUF files", folder.display()))
                    .hint(format!("{listed}: load_model(\"{first}\")"))
            }
        }
    }

    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(source) => Some(source),
            Self::Unasked(source) => Some(source),
            _ => None,
        }
    }
}
