//! The error type of the whole program.
//!
//! The `kind` is for scripts that handle errors, the `message` names verb, object and place, and
//! the `hint` tells the user what to do. Only `cli` prints errors.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The greatest number of characters of a message.
const LONGEST_MESSAGE: usize = 4000;

pub type Result<T> = std::result::Result<T, Error>;

/// The kinds of errors that scripts can distinguish. `Kind::name` gives their spelling in scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// An argument or option makes no sense.
    BadArgument,
    /// A file, tensor, model or field does not exist.
    NotFound,
    /// A file is damaged, truncated or not what its name says.
    Corrupt,
    /// The model or a setting of it is outside what the engine computes exactly.
    Unsupported,
    /// Weights or activations hold NaN or infinity where a number must be.
    NonFinite,
    /// The memory budget is too small for a single sequence.
    Oom,
    /// The hub or a provider refused the credentials.
    Auth,
    /// No machine that fits is free, or none at this price.
    NoCapacity,
    /// The account cannot pay for the machine.
    NoFunds,
    /// A cost cap was reached or would be.
    OverBudget,
    /// Something did not answer in time.
    Timeout,
    /// A machine or the connection to it is gone.
    Lost,
    /// The program on a machine speaks another version of the protocol.
    VersionMismatch,
    /// A request was answered by a service with an error of its own.
    Service,
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The operating system refused: disk full, no permission.
    Io,
    /// The program itself is at fault.
    Internal,
}

impl Kind {
    const ALL: [Self; 17] = [
        Self::BadArgument,
        Self::NotFound,
        Self::Corrupt,
        Self::Unsupported,
        Self::NonFinite,
        Self::Oom,
        Self::Auth,
        Self::NoCapacity,
        Self::NoFunds,
        Self::OverBudget,
        Self::Timeout,
        Self::Lost,
        Self::VersionMismatch,
        Self::Service,
        Self::Interrupted,
        Self::Io,
        Self::Internal,
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        Self::ALL.into_iter().map(Self::name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::BadArgument => "bad_argument",
            Kind::NotFound => "not_found",
            Kind::Corrupt => "corrupt",
            Kind::Unsupported => "unsupported",
            Kind::NonFinite => "non_finite",
            Kind::Oom => "oom",
            Kind::Auth => "auth",
            Kind::NoCapacity => "no_capacity",
            Kind::NoFunds => "no_funds",
            Kind::OverBudget => "over_budget",
            Kind::Timeout => "timeout",
            Kind::Lost => "lost",
            Kind::VersionMismatch => "version_mismatch",
            Kind::Service => "service",
            Kind::Interrupted => "interrupted",
            Kind::Io => "io",
            Kind::Internal => "internal",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
    /// What has happened, as data. It is not sent to other machines.
    #[serde(skip)]
    pub cause: Option<Cause>,
}

/// A failure as data. A room has an enum of those that it meets, and the words for all of them are
/// in one place.
pub trait Failure: Any + fmt::Debug + Send + Sync {
    /// The error for scripts and users.
    fn told(&self) -> Error;

    /// The error of a library or of the system that is behind it.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None
    }
}

/// What is behind an error.
#[derive(Clone, Debug)]
pub enum Cause {
    Failure(Arc<dyn Failure>),
    System(Arc<std::io::Error>),
}

/// Errors are compared by what they say.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.message, &self.hint) == (other.kind, &other.message, &other.hint)
    }
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: bounded(message.into()), hint: None, cause: None }
    }

    /// Returns whether memory was exhausted.
    pub fn is_oom(&self) -> bool {
        self.kind == Kind::Oom
    }

    pub fn bad_argument(message: impl Into<String>) -> Self {
        Self::new(Kind::BadArgument, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// A fault of the program itself, whatever its input.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
            .hint("this is a fault of the program: please report it, with the script and the model")
    }

    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// An operating-system error during the operation `what` ("reading FILE", "writing FILE").
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Io,
        };
        let same = error.raw_os_error().map_or_else(|| error.kind().into(), std::io::Error::from_raw_os_error);
        let cause = Some(Cause::System(Arc::new(same)));
        let told = Self { cause, ..Self::new(kind, format!("{what}: {error}")) };
        match error.raw_os_error().and_then(too_many_open) {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }

    /// The hint of an error of the system, where it has no better one of its own.
    pub fn or_hint(self, hint: impl Into<String>) -> Self {
        if self.hint.is_some() { self } else { self.hint(hint) }
    }

    /// A thread for `what` could not be started.
    pub fn no_thread(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Kind::Io, format!("starting a thread for {what}: {error}")).hint(
            "the system starts no more for this user: look at `ulimit -u`, and at the limit of processes of a container",
        )
    }

    /// The error of a failure, which it keeps.
    pub fn of(failure: impl Failure) -> Self {
        let told = failure.told();
        Self { cause: Some(Cause::Failure(Arc::new(failure))), ..told }
    }

    /// The failure behind the error, if it is one of the type `F`.
    pub fn failure<F: Failure>(&self) -> Option<&F> {
        match &self.cause {
            Some(Cause::Failure(failure)) => (&**failure as &dyn Any).downcast_ref(),
            Some(Cause::System(_)) | None => None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(bounded(hint.into()));
        self
    }

    /// Prefixes the message with the place of the error, so that the outermost is first: "loading
    /// model X: reading Y: …".
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        self.message = bounded(format!("{place}: {}", self.message));
        self
    }
}

/// What to do where the system opens no more files, which is no fault of the file.
fn too_many_open(error: i32) -> Option<String> {
    // SAFETY: the all-zero value is valid, and the call fills it.
    let limit = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        (libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0).then_some(limit.rlim_cur)
    };
    match (error, limit) {
        (libc::EMFILE, Some(limit)) => Some(format!(
            "this program may have {limit} files open at a time, which is too few: raise it before it starts, \
             `ulimit -n 1024`, or let fewer machines and threads work at a time"
        )),
        (libc::EMFILE | libc::ENFILE, _) => {
            Some("the system opens no more files: end programs that have many open, or raise `ulimit -n`".to_string())
        }
        _ => None,
    }
}

/// Returns from a function with an error that is a fault of the program. The arguments are those of
/// `format!`.
macro_rules! fault {
    ($($message:tt)*) => {
        return Err($crate::error::Error::internal(format!($($message)*)))
    };
}
pub(crate) use fault;

/// Shortens a message that is too long because of the names that it quotes.
fn bounded(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.cause.as_ref()? {
            Cause::Failure(failure) => failure.source(),
            Cause::System(error) => Some(&**error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[derive(Debug)]
    enum Weather {
        Rain { hours: u32, source: fmt::Error },
    }

    impl Failure for Weather {
        fn told(&self) -> Error {
            let Self::Rain { hours, .. } = self;
            Error::new(Kind::Lost, format!("it rains for {hours} h")).hint("take a coat")
        }

        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            let Self::Rain { source, .. } = self;
            Some(source)
        }
    }

    #[test]
    fn a_failure_is_an_error_that_still_has_its_fields_and_its_source() {
        let error = Error::of(Weather::Rain { hours: 3, source: fmt::Error }).context("outside");
        assert_eq!((error.kind, error.message.as_str()), (Kind::Lost, "outside: it rains for 3 h"));
        assert_eq!(error.hint.as_deref(), Some("take a coat"));
        assert!(matches!(error.failure(), Some(Weather::Rain { hours: 3, .. })));
        assert!(error.source().is_some_and(|source| source.is::<fmt::Error>()));
        assert!(Error::interrupted().failure::<Weather>().is_none());
    }

    #[test]
    fn what_is_behind_an_error_is_not_sent_and_does_not_tell_errors_apart() {
        let error = Error::of(Weather::Rain { hours: 3, source: fmt::Error });
        let sent = serde_json::to_string(&error).unwrap();
        assert_eq!(sent, r#"{"kind":"Lost","message":"it rains for 3 h","hint":"take a coat"}"#);
        let received: Error = serde_json::from_str(&sent).unwrap();
        assert!(received == error && received.source().is_none());
    }

    #[test]
    fn an_error_of_the_system_keeps_it() {
        let missing = std::fs::File::open("/nowhere/at/all").unwrap_err();
        let error = Error::io("reading it", &missing);
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).unwrap();
        assert_eq!((error.kind, source.kind()), (Kind::NotFound, std::io::ErrorKind::NotFound));
    }
}
