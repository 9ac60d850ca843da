//! A machine as a value of scripts.

use std::sync::Arc;

use serde_json::{Value, json};

use super::readable::Readable;
use crate::error::{Error, Result};
use crate::host::run::stage::{Part, Stage};
use crate::session::{Lent, Session};

/// A machine of a script: another one, or this one.
#[derive(Clone)]
pub(crate) struct Gpu(pub Arc<Held>);

/// The kind of machine.
pub(crate) enum Held {
    Here(Arc<dyn Session>),
    Lent(Arc<Lent>),
    /// A simulated machine in a dry run or a test, with this machine's session.
    Played(Arc<Part>, Arc<Stage>, Arc<dyn Session>),
}

impl Gpu {
    /// The session that runs its work.
    pub(crate) fn session(&self) -> Arc<dyn Session> {
        match &*self.0 {
            Held::Here(session) => session.clone(),
            Held::Lent(lent) => lent.clone(),
            Held::Played(part, stage, here) => stage.session(part, here),
        }
    }

    /// The machine, for an operation `what` that only other machines have.
    ///
    /// # Errors
    /// `bad_argument` if it is this machine, or is simulated.
    pub(crate) fn lent(&self, what: &str) -> Result<&Lent> {
        match &*self.0 {
            Held::Lent(lent) => Ok(lent),
            _ => Err(Error::bad_argument(format!("{what}: this machine is where the files are already"))
                .hint("it is for machines of provider \"ssh\", \"slurm\" or \"runpod\"")),
        }
    }
}

impl Readable for Gpu {
    const NAME: &'static str = "gpu";
    fn json(&self) -> Value {
        match &*self.0 {
            Held::Here(_) => {
                json!({ "name": "local", "id": "local", "provider": "local", "gpu": "", "price": 0.0, "cost": 0.0 })
            }
            Held::Lent(lent) => {
                let label = &lent.label;
                json!({
                    "name": label.name, "id": label.id, "provider": label.provider.short(), "gpu": label.gpu,
                    "price": label.price, "cost": lent.cost(), "keep_running": label.keep_running,
                })
            }
            Held::Played(part, stage, _) => stage.json(part),
        }
    }
    fn field(&self, name: &str) -> Option<Value> {
        self.json().get(name).cloned()
    }
}
