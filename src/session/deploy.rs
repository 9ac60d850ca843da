//! The program itself on another machine: sent once per build, found again by the hash of its content.

use std::path::Path;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::outside;
use crate::progress::Progress;
use crate::remote::{self, Machine};

/// Held while the program is brought to a home folder that several machines have.
static SHARED: Mutex<()> = Mutex::new(());

/// The program on a machine.
pub struct Deployed {
    pub path: String,
    /// The machine is this computer.
    pub here: bool,
}

/// Makes sure that the program `binary` is on `machine`.
pub fn deploy(machine: &dyn Machine, binary: &Path, progress: &dyn Progress) -> Result<Deployed> {
    let reading = |e: std::io::Error| {
        Error::io(format!("reading the worker {}", binary.display()), &e)
            .hint("OUTLIER_WORKER names the program to send; without it this program sends itself")
    };
    let mut hash = Sha256::new();
    let mut file = outside::open(binary).map_err(reading)?;
    std::io::copy(&mut file, &mut hash).map_err(reading)?;
    let path = format!("~/.outlier/bin/{}/outlier", &format!("{:x}", hash.finalize())[..16]);
    // Jobs of a cluster have one home folder: one of them gets the program.
    let shared = machine.keeper().is_some();
    let _one = shared.then(|| SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    // The name is given once the whole of it has arrived and been verified.
    let first = remote::output(machine, &format!("test -x {path} && echo there || echo missing; {}", remote::WHO))?;
    let (there, who) = first.split_once('\n').unwrap_or((&first, ""));
    let here = machine.is_here() || remote::identity().is(who);
    if there.trim() != "there" {
        remote::upload(machine, binary, &path, progress)?;
    }
    let tried = remote::again(progress, || remote::finish(machine, &format!("{path} --version")))?;
    let expected = format!("outlier {}", env!("CARGO_PKG_VERSION"));
    let said = tried.out.trim();
    if tried.code != 0 {
        let message = format!("{}: this program does not run there: {}", machine.name(), tried.complaint());
        return Err(Error::new(Kind::Unsupported, message)
            .hint("let OUTLIER_WORKER name a build for that system, made there with `cargo build --release`"));
    }
    if said != expected {
        return Err(Error::new(
            Kind::VersionMismatch,
            format!("the worker says \"{said}\", this program is \"{expected}\""),
        )
        .hint("build the worker that OUTLIER_WORKER names from the same sources as this program"));
    }
    Ok(Deployed { path, here })
}
