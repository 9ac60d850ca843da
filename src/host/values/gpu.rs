//! A machine as a value of scripts.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::readable::Readable;
use crate::error::Result;
use crate::host::run::context::Context;
use crate::remote::{Listener, SyncReport};
use crate::session::Session;

/// A machine of a script.
#[derive(Clone)]
pub(crate) struct Gpu(Arc<dyn Held>);

/// What a script does with a machine. Names are checked before, and paths are those of the script.
pub(crate) trait Held: Send + Sync {
    /// The session that runs its work.
    fn session(&self) -> Arc<dyn Session>;

    /// The fields that scripts read.
    fn json(&self) -> Value;

    /// The folder of the project's results there.
    fn results(&self, context: &Context) -> PathBuf;

    /// Copies files and folders of the project there and back.
    ///
    /// # Errors
    /// Also `bad_argument` if it is this machine.
    fn sync(&self, context: &Context, up: &[String], down: &[String]) -> Result<SyncReport>;

    /// Copies one file there.
    ///
    /// # Errors
    /// As `sync`.
    fn upload(&self, context: &Context, from: &str, to: &str) -> Result<()>;

    /// Copies one file from there.
    ///
    /// # Errors
    /// As `sync`.
    fn download(&self, context: &Context, from: &str, to: &str) -> Result<()>;

    /// Runs a shell command in the project's folder there, and returns its exit code.
    ///
    /// # Errors
    /// Also `bad_argument` if no command may run there.
    fn run(&self, context: &Context, command: &str, output: &mut Listener) -> Result<i32>;

    /// Gives it back, if it is not this machine.
    fn end(&self, context: &Context) -> Result<()>;
}

impl Gpu {
    pub(crate) fn new(machine: impl Held + 'static) -> Self {
        Self(Arc::new(machine))
    }

    pub(crate) fn machine(&self) -> &dyn Held {
        &*self.0
    }
}

impl Readable for Gpu {
    const NAME: &'static str = "gpu";
    fn json(&self) -> Value {
        self.0.json()
    }
    fn field(&self, name: &str) -> Option<Value> {
        self.json().get(name).cloned()
    }
}
