//! What can go wrong with sessions on other machines, with the words for it.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{self, Error, Kind};

/// What to do about an impossible answer, for which a retry would not help.
const NOT_OURS: &str = "the machine does not run this program as it was sent there: end it and take another one";
const KEPT: &str = "run the script again: finished work is kept";
const GUARDIANS: &str = "guardians start workers: `outlier worker serve`";

#[derive(Debug)]
pub enum Failure {
    /// A connection broke while it did this.
    Connection {
        doing: &'static str,
        source: std::io::Error,
    },
    /// The other side has closed the connection, perhaps while this was done.
    Closed {
        doing: Option<&'static str>,
    },
    NoConnection,
    /// A worker has not answered in this time.
    Silent(Duration),
    /// A worker that had a call has given no sign of life.
    NoSignOfLife,
    /// Nothing has moved between here and a machine.
    StandsStill {
        machine: String,
        time: Duration,
    },
    NotReached {
        machine: String,
        time: Duration,
        reason: String,
    },
    /// A machine has ended, for this reason.
    Ended {
        machine: String,
        reason: String,
    },
    /// The input of a command on a machine has not arrived there.
    InputLost {
        machine: String,
        source: std::io::Error,
    },
    FrameTooLong(u64),
    FrameCutOff,
    FrameUnreadable(rmp_serde::decode::Error),
    FrameNotWritten(rmp_serde::encode::Error),
    OtherProtocol {
        version: String,
        protocol: String,
        ours: u32,
    },
    NoGreeting(String),

    AnswerUnreadable(rmp_serde::decode::Error),
    AnswerTooLong {
        bytes: u64,
        most: usize,
    },
    OutputTooLong {
        machine: String,
        most: u64,
    },
    /// Another answer came than was asked for.
    OtherAnswer {
        asked: &'static str,
        came: &'static str,
    },
    /// The answer to another call.
    OtherCall,
    /// A reply does not answer the request, for this reason.
    WrongReply(String),
    TooManyModels(usize),
    TooManyEvents(u64),
    /// Bytes of text in the events of one call.
    TooMuchText(usize),

    ResultTooLong {
        bytes: usize,
    },
    IdTooLong {
        most: usize,
    },
    TooManyCalls {
        most: usize,
    },
    /// A worker has died several times at the same call.
    DiedOften {
        deaths: u64,
        died: String,
    },
    /// A request of a client makes no sense.
    Senseless(&'static str),
    WrongTokens(String),
    Panicked(&'static str),

    FolderIsLink(PathBuf),
    /// Everybody may replace what is in the folder above.
    FolderOpen {
        folder: PathBuf,
        above: PathBuf,
    },
    NoFile(PathBuf),
    OtherUser {
        path: PathBuf,
        uid: u32,
    },
    AlreadyServed(PathBuf),
    GivesBack(String),
    NotInherited(i32),
    DescriptorsNotThree,
    NotAPage,
    WorkerEnded {
        at_once: bool,
        last_words: Option<String>,
    },

    /// Programs cannot be started in these folders.
    NoExec {
        machine: String,
        folders: Vec<String>,
    },
    DoesNotRun {
        machine: String,
        complaint: String,
    },
    OtherBuild {
        said: String,
        expected: String,
    },
    /// Money would be spent on a GPU that does not compute.
    NoGpu {
        machine: String,
        problem: String,
        hint: String,
    },
    GivenBack(String),
    OverBudget {
        name: String,
        cost: f64,
        max_cost: f64,
    },
    TimeOver(String),
    ToldToStop {
        machine: String,
        reason: Option<String>,
    },
    NotRunning,
    WorkerGone {
        id: String,
        worker: String,
    },
    UnknownMachine(String),
    NotReady {
        id: String,
        stage: &'static str,
    },
    NoHost,
    ModelUnknown,
    RecordTooLarge {
        num_sequences: usize,
        values: f64,
    },

    LineBreak {
        primitive: String,
        name: String,
    },
    LinksUnknown {
        primitive: String,
        complaint: String,
    },
    LeadsOut {
        primitive: String,
        name: String,
        machine: String,
    },
}

impl error::Failure for Failure {
    fn told(&self) -> Error {
        let lost = |message: String| Error::new(Kind::Lost, message);
        let late = |message: String| Error::new(Kind::Timeout, message);
        let untrue = |message: String| Error::corrupt(message).hint(NOT_OURS);
        let wrong = |message: String| Error::bad_argument(message);
        let refused = |message: String| Error::new(Kind::Io, message);
        match self {
            Self::Connection { doing, source } => lost(format!("{doing}: {source}")),
            Self::Closed { doing: Some(doing) } => lost(format!("{doing}: the connection broke")),
            Self::Closed { doing: None } => lost("the connection broke".to_string()),
            Self::NoConnection => lost("no connection was opened".to_string()),
            Self::Silent(time) => late(format!("the worker does not answer: nothing for {:.0} s", time.as_secs_f64()))
                .hint(
                    "is the machine overloaded? run the script again, or take another machine: finished work is kept",
                ),
            Self::NoSignOfLife => late("no sign of life".to_string()),
            Self::StandsStill { machine, time } => {
                late(format!("{machine}: nothing has moved for {} s", time.as_secs())).hint(KEPT)
            }
            Self::NotReached { machine, time, reason } => {
                lost(format!("{machine}: not reached for {} s: {reason}", time.as_secs())).hint(
                    "is the machine still there (`outlier gpus --all`)? run the script again: finished work is kept",
                )
            }
            Self::Ended { machine, reason } => lost(format!("{machine}: {reason}")).hint(KEPT),
            Self::InputLost { machine, source } => lost(format!("{machine}: {source}")),
            Self::FrameTooLong(bytes) => lost(format!("receiving: a frame of {bytes} bytes")),
            Self::FrameCutOff => lost("receiving: cut off in a frame".to_string()),
            Self::FrameUnreadable(source) => lost(format!("receiving: {source}")),
            Self::FrameNotWritten(source) => Error::internal(format!("encoding a message: {source}")),
            Self::OtherProtocol { version, protocol, ours } => {
                let own = env!("CARGO_PKG_VERSION");
                let message = format!(
                    "the worker is version {version} (protocol {protocol}), this program {own} (protocol {ours})"
                );
                Error::new(Kind::VersionMismatch, message).hint(
                    "end it with `outlier gpus terminate ID` and provision again; OUTLIER_WORKER must name a worker of \
                     this version",
                )
            }
            Self::NoGreeting(line) => lost(format!("expected the greeting of a worker, got {line:?}")).hint(
                "what it says instead is the reason: log in there and look; its log is `worker.log` below ~/.outlier/w",
            ),

            Self::AnswerUnreadable(source) => untrue(format!("an answer that is none: {source}")),
            Self::AnswerTooLong { bytes, most } => {
                untrue(format!("an answer of {bytes} bytes, where at most {most} were asked for"))
            }
            Self::OutputTooLong { machine, most } => {
                untrue(format!("{machine}: more than the {most} bytes that were asked for"))
            }
            Self::OtherAnswer { asked, came } => untrue(format!("{asked} was asked for, {came} came")),
            Self::OtherCall => untrue("the answer to a call that was not made here".to_string()),
            Self::WrongReply(what) => untrue(format!("what came is no answer to what was asked: {what}")),
            Self::TooManyModels(count) => untrue(format!("{count} models are said to be loaded")),
            Self::TooManyEvents(count) => untrue(format!("{count} events of one call")),
            Self::TooMuchText(bytes) => untrue(format!("{bytes} bytes of text in the events of one call")),

            Self::ResultTooLong { bytes } => {
                Error::unsupported(format!("the result has {bytes} bytes, more than can be sent"))
                    .hint("ask for less at a time: fewer sequences")
            }
            Self::IdTooLong { most } => wrong(format!("the id of a call has at most {most} bytes")),
            Self::TooManyCalls { most } => {
                Error::new(Kind::Service, format!("the worker has {most} calls at work, and takes no more"))
                    .hint("do fewer things at a time: `max` of `parallel`")
            }
            Self::DiedOften { deaths, died } => {
                let message = format!("the worker died {deaths} times in a row at this: {died}");
                // Another machine of the same kind would also lack memory. Other causes may be this
                // machine's fault.
                match died.contains("memory") {
                    true => Error::new(Kind::Oom, message).hint(
                        "lower `memory_budget`, or take a machine with more memory; what it had done is in its \
                         checkpoint, if it has one",
                    ),
                    false => lost(message).hint(
                        "`outlier gpus logs ID` tells what the worker said last; what it had done is in its \
                         checkpoint, if it has one",
                    ),
                }
            }
            Self::Senseless(what) => wrong(what.to_string()),
            Self::WrongTokens(what) => {
                wrong(format!("the tokens that were sent are not what they are said to be: {what}"))
                    .hint("the client does not run this program as it was: load the tokens again")
            }
            Self::Panicked(what) => Error::internal(format!("{what} panicked")),

            Self::FolderIsLink(folder) => wrong(format!("{} is a link, or no folder", folder.display()))
                .hint("a worker's folder is one of its own: name another one"),
            Self::FolderOpen { folder, above } => {
                refused(format!("{}: everybody may replace what is in {}", folder.display(), above.display()))
                    .hint("`chmod o-w` that folder, or name another one")
            }
            Self::NoFile(path) => refused(format!("{} is no file", path.display())).hint("remove it"),
            Self::OtherUser { path, uid } => refused(format!("{} belongs to another user (uid {uid})", path.display()))
                .hint("a worker trusts only what its own user has made: remove it, or name another folder"),
            Self::AlreadyServed(folder) => {
                wrong(format!("another worker serves {} already", folder.display())).hint("attach to it")
            }
            Self::GivesBack(note) => lost(format!("the worker has ended and gives the machine back: {note}"))
                .hint("take another machine: finished work is kept"),
            Self::NotInherited(descriptor) => {
                wrong(format!("descriptor {descriptor} was not inherited")).hint(GUARDIANS)
            }
            Self::DescriptorsNotThree => wrong("descriptors of a guardian are three".to_string()),
            Self::NotAPage => wrong("what was inherited is not the memory of a guardian".to_string()).hint(GUARDIANS),
            Self::WorkerEnded { at_once, last_words } => {
                let what = if *at_once { "ended at once" } else { "does not listen" };
                lost(format!("the worker {what}: {}", last_words.as_deref().unwrap_or("it said nothing")))
            }

            Self::NoExec { machine, folders } => {
                let folders = folders.join(", ");
                Error::unsupported(format!("{machine}: no program can be started in {folders} (mounted noexec)")).hint(
                    "ask those who run the machine for a folder that programs may be started in, such as /var/tmp",
                )
            }
            Self::DoesNotRun { machine, complaint } => {
                Error::unsupported(format!("{machine}: this program does not run there: {complaint}"))
                    .hint("let OUTLIER_WORKER name a build for that system, made there with `cargo build --release`")
            }
            Self::OtherBuild { said, expected } => {
                Error::new(Kind::VersionMismatch, format!("the worker says \"{said}\", this program is \"{expected}\""))
                    .hint("build the worker that OUTLIER_WORKER names from the same sources as this program")
            }
            Self::NoGpu { machine, problem, hint } => Error::unsupported(format!(
                "{machine}: no GPU computes there: {problem}"
            ))
            .hint(format!(
                "leave `image` out, whose default has all that is needed, or take another machine; on this one: {hint}"
            )),
            Self::GivenBack(name) => lost(format!("{name} has been given back")).hint("provision another one"),
            Self::OverBudget { name, cost, max_cost } => {
                let message = format!("{name} has cost ${cost:.2}, `max_cost` is ${max_cost:.2}");
                Error::new(Kind::OverBudget, message).hint(
                    "finished work is kept and a checkpoint where one was asked for: raise `max_cost` and run again",
                )
            }
            Self::TimeOver(name) => lost(format!("{name}: its time is over")),
            Self::ToldToStop { machine, reason } => {
                let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
                lost(format!("{machine}: its worker was told to stop{reason}"))
                    .hint("its time was over, or somebody else ended it: run the script again, finished work is kept")
            }
            Self::NotRunning => lost("it does not run any more".to_string()),
            Self::WorkerGone { id, worker } => lost(format!("{id}: its worker {worker} does not run any more"))
                .hint("its time was over, or somebody ended it: provision it again"),
            Self::UnknownMachine(id) => Error::not_found(format!("this project has no machine \"{id}\""))
                .hint("`outlier gpus` lists its machines"),
            Self::NotReady { id, stage } => {
                lost(format!("{id} cannot be attached to: it is {stage}")).hint("`outlier gpus` tells how far it is")
            }
            Self::NoHost => {
                wrong("provision_gpu: provider \"ssh\" needs `host`".to_string()).hint("host: \"user@machine:22\"")
            }
            Self::ModelUnknown => Error::not_found("the model of this checkpoint is not known"),
            Self::RecordTooLarge { num_sequences, values } => {
                wrong(format!("a record of {num_sequences} sequences of this model has {values:.0e} values"))
                    .hint("take fewer sequences: what is recorded of each is kept in memory")
            }

            Self::LineBreak { primitive, name } => {
                wrong(format!("{primitive}: {name:?} has a line break in it")).hint("rename the file")
            }
            Self::LinksUnknown { primitive, complaint } => {
                wrong(format!("{primitive}: where names lead there cannot be told: {complaint}"))
                    .hint("is `readlink` on the path there?")
            }
            Self::LeadsOut { primitive, name, machine } => wrong(format!(
                "{primitive}: {name:?} leads out of the project's folder on {machine}, which is this computer"
            ))
            .hint(
                "remove the link there; `outlier run --allow-commands SCRIPT` lets scripts reach all of this computer",
            ),
        }
    }

    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection { source, .. } | Self::InputLost { source, .. } => Some(source),
            Self::FrameUnreadable(source) | Self::AnswerUnreadable(source) => Some(source),
            Self::FrameNotWritten(source) => Some(source),
            _ => None,
        }
    }
}
