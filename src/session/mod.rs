//! Where work runs: one plain request, one plain reply. Scripts do not see which machine answered.

mod answer;
mod attach;
mod calls;
mod checkpoints;
mod confined;
mod deploy;
mod failure;
mod fleet;
mod guardian;
mod label;
mod lent;
mod line;
mod local;
mod no_gpu;
mod op;
mod own;
mod place;
mod planned;
mod project_folder;
mod provision;
mod pulse;
mod remote;
mod reply_size;
mod request;
mod watched;
mod wire;
mod worker;

pub use attach::{Starter, attach, start};
pub use deploy::deploy;
pub use failure::Failure;
pub use fleet::{Ending, Fleet};
pub use guardian::{AtEnd, Inherited, guard};
pub use label::Label;
pub use lent::{Lent, Terms};
pub use local::Local;
pub use planned::{Planned, Step};
pub use provision::Provision;
pub use pulse::{Limits, seconds};
pub use remote::Remote;
pub use reply_size::full_activations_bytes;
pub use request::{
    DecodeIds, EncodeTexts, EstimateWork, Extract, Load, LoadTokens, Loaded, MakeMiniature, Request, Serve,
};
pub use wire::Status;
pub use worker::work;

use std::path::Path;

use crate::error::Result;
use crate::progress::Progress;
use crate::record::LoadArgs;

/// A place where requests of every type are carried out.
pub trait Session:
    Serve<Load>
    + Serve<LoadTokens>
    + Serve<EncodeTexts>
    + Serve<DecodeIds>
    + Serve<Extract>
    + Serve<EstimateWork>
    + Serve<MakeMiniature>
    + Send
    + Sync
{
    /// The models that clients have opened here by `Load`, in that order.
    fn loaded(&self) -> Result<Vec<LoadArgs>> {
        Ok(Vec::new())
    }

    /// Copies the file `path`, which a call has written relative to the project there, to the same
    /// place in `root`. It has at most `most` bytes. If calls run in this process, it is there
    /// already.
    fn fetch(&self, _root: &Path, _path: &str, _most: u64, _progress: &dyn Progress) -> Result<()> {
        Ok(())
    }

    /// The name of the machine on which calls run; None for this one.
    fn machine(&self) -> Option<&str> {
        None
    }

    /// Rejects a path of a script that leaves the project's folder there, for the primitive `what`,
    /// if the machine is this computer under another name.
    fn confined(&self, _what: &str, _path: &str) -> Result<()> {
        Ok(())
    }
}

impl dyn Session {
    /// Carries out a request, and returns the reply that its type names.
    pub fn call<R: Request>(&self, request: R, progress: &dyn Progress) -> Result<R::Reply>
    where
        Self: Serve<R>,
    {
        self.serve(request, progress)
    }
}
