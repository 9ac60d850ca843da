//! The machines that scripts hold: this one, another one, and a simulated one. What differs between
//! them is here and nowhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::outgoing::look_at_models;
use crate::error::{Error, Result};
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::run::stage::{Part, Stage};
use crate::host::values::gpu::Held;
use crate::remote::{self, HereGrouped, Listener, Machine, SyncReport};
use crate::session::{Lent, Session};

/// This machine.
pub(super) struct This(pub Arc<dyn Session>);

/// Another machine, or this one under an address.
pub(super) struct Other(pub Arc<Lent>);

/// A simulated machine in a dry run or a test, with this machine's session.
pub(super) struct Simulated {
    pub part: Arc<Part>,
    pub stage: Arc<Stage>,
    pub here: Arc<dyn Session>,
}

/// The error of `what`, which copies files to and from other machines.
fn files_are_here<T>(what: &str) -> Result<T> {
    Err(Error::bad_argument(format!("{what}: this machine is where the files are already"))
        .hint("it is for machines of provider \"ssh\", \"slurm\" or \"runpod\""))
}

/// A script may run commands on this machine only if the user allows it.
fn may_run_here(context: &Context) -> Result<()> {
    match context.bounds.commands_here {
        true => Ok(()),
        false => Err(Error::bad_argument("run_command: commands do not run on this machine")
            .hint("`outlier run --allow-commands SCRIPT` lets them; on other machines they always may")),
    }
}

impl Held for This {
    fn session(&self) -> Arc<dyn Session> {
        self.0.clone()
    }

    fn json(&self) -> Value {
        json!({ "name": "local", "id": "local", "provider": "local", "gpu": "", "price": 0.0, "cost": 0.0 })
    }

    fn results(&self, context: &Context) -> PathBuf {
        context.results()
    }

    fn sync(&self, _: &Context, _: &[String], _: &[String]) -> Result<SyncReport> {
        files_are_here("sync")
    }

    fn upload(&self, _: &Context, _: &str, _: &str) -> Result<()> {
        files_are_here("upload")
    }

    fn download(&self, _: &Context, _: &str, _: &str) -> Result<()> {
        files_are_here("download")
    }

    fn run(&self, context: &Context, command: &str, output: &mut Listener) -> Result<i32> {
        may_run_here(context)?;
        HereGrouped.run(command, &mut std::io::empty(), output)
    }

    fn end(&self, _: &Context) -> Result<()> {
        Ok(())
    }
}

impl Other {
    /// Checks a path there, if the machine may be this computer.
    fn confined(&self, context: &Context, what: &str, path: &str) -> Result<()> {
        match context.bounds.commands_here {
            true => Ok(()),
            false => self.0.confined(what, path),
        }
    }
}

impl Held for Other {
    fn session(&self) -> Arc<dyn Session> {
        self.0.clone()
    }

    fn json(&self) -> Value {
        let label = &self.0.label;
        json!({
            "name": label.name, "id": label.id, "provider": label.provider.short(), "gpu": label.gpu,
            "price": label.price, "cost": self.0.cost(), "keep_running": label.keep_running,
        })
    }

    /// On the machine, the project is the folder of the work.
    fn results(&self, _: &Context) -> PathBuf {
        PathBuf::from("results")
    }

    fn sync(&self, context: &Context, up: &[String], down: &[String]) -> Result<SyncReport> {
        let progress = context.progress();
        look_at_models(context, up, &*progress);
        let replaces = |file: &Path| places::may_replace(context, file);
        self.0.sync(&context.root, [up, down], context.bounds.commands_here, &replaces, &*progress)
    }

    fn upload(&self, context: &Context, from: &str, to: &str) -> Result<()> {
        self.confined(context, "upload", to)?;
        let machine = self.0.machine()?;
        remote::upload(
            machine,
            &remote::to_send("upload", &context.root, from)?,
            &self.0.path(to),
            &*context.progress(),
        )
    }

    fn download(&self, context: &Context, from: &str, to: &str) -> Result<()> {
        self.confined(context, "download", from)?;
        let machine = self.0.machine()?;
        let file = remote::to_receive("download", &context.root, to)?;
        let replaces = places::may_replace(context, &file);
        remote::download(machine, &self.0.path(from), &file, replaces, &*context.progress())
    }

    fn run(&self, context: &Context, command: &str, output: &mut Listener) -> Result<i32> {
        if self.0.is_here() {
            may_run_here(context)?;
        }
        let line = self.0.in_project(&format!("{{ {command}\n}}"));
        self.0.machine()?.run(&line, &mut std::io::empty(), output)
    }

    fn end(&self, context: &Context) -> Result<()> {
        context.fleet.end(&self.0)
    }
}

impl Held for Simulated {
    fn session(&self) -> Arc<dyn Session> {
        self.stage.session(&self.part, &self.here)
    }

    fn json(&self) -> Value {
        self.stage.json(&self.part)
    }

    fn results(&self, context: &Context) -> PathBuf {
        context.results()
    }

    fn sync(&self, _: &Context, up: &[String], down: &[String]) -> Result<SyncReport> {
        down.iter().for_each(|path| self.stage.writes(Path::new(path)));
        self.stage.does(format!("sync with {}: {} up, {} down", self.part.id, up.join(" "), down.join(" ")));
        Ok(SyncReport::default())
    }

    fn upload(&self, _: &Context, from: &str, to: &str) -> Result<()> {
        self.stage.does(format!("upload {from} to {to}, {}", self.part.id));
        Ok(())
    }

    fn download(&self, _: &Context, from: &str, to: &str) -> Result<()> {
        self.stage.writes(Path::new(to));
        self.stage.does(format!("download {from} to {to}, {}", self.part.id));
        Ok(())
    }

    fn run(&self, _: &Context, command: &str, _: &mut Listener) -> Result<i32> {
        self.stage.does(format!("on {}: {command}", self.part.id));
        Ok(0)
    }

    fn end(&self, context: &Context) -> Result<()> {
        context.may_fail("terminate")?;
        self.stage.end(&self.part);
        Ok(())
    }
}
