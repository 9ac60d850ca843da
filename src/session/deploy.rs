//! Installs the program on another machine: it is sent once per build, and identified by the hash
//! of its content.

use std::path::Path;
use std::sync::Mutex;

use sha2::{Digest, Sha256};

use super::failure::Failure;
use crate::error::{Error, Result};
use crate::outside;
use crate::progress::{Event, Progress};
use crate::remote::{self, Machine};

/// Held while the program is sent to a home folder that several machines share.
static SHARED: Mutex<()> = Mutex::new(());

/// The program on a machine.
pub struct Deployed {
    pub path: String,
    /// True if the machine is this computer.
    pub here: bool,
}

/// Looks for a folder from which programs can be started: in the home folder, or one that only its
/// user can write to. Prints for each whether it has the program, can have it, or cannot start
/// programs, and the identity of the machine.
const LOOK: &str = r#"
try() {
    [ -x "$1/$build/outlier" ] && { echo "there $1"; return 0; }
    probe="$1/probe.$$"
    printf '#!/bin/sh\nexit 0\n' > "$probe" && chmod 700 "$probe" || { rm -f "$probe"; echo "open $1"; return 0; }
    "$probe"; code=$?
    rm -f "$probe"
    [ "$code" = 126 ] && { echo "closed $1"; return 1; }
    echo "open $1"
}
{ mkdir -p "$HOME/.outlier/bin"; try "$HOME/.outlier/bin"; } 2>/dev/null || for above in /var/tmp /tmp; do
    folder="$above/outlier-$(id -u)"
    mkdir -m 700 "$folder" 2>/dev/null
    [ -d "$folder" ] && [ ! -L "$folder" ] && [ -O "$folder" ] && chmod 700 "$folder" || continue
    try "$folder" 2>/dev/null && break
done
"#;
/// The usual folder of the program in a home folder.
const USUAL: &str = "~/.outlier/bin";

/// The location of the program on a machine.
struct Place {
    path: String,
    there: bool,
    /// The output of `WHO`.
    who: String,
}

fn place(machine: &dyn Machine, build: &str, progress: &dyn Progress) -> Result<Place> {
    let said = remote::output(machine, &format!("build={build}\n{LOOK}\necho end\n{}\ntrue", remote::WHO))?;
    let (found, who) = said.split_once("end\n").unwrap_or((&said, ""));
    let mut closed = Vec::new();
    for (index, line) in found.lines().enumerate() {
        let (state, folder) = line.split_once(' ').unwrap_or((line, ""));
        if state == "closed" {
            closed.push(folder);
            continue;
        }
        let folder = if index == 0 { USUAL } else { folder };
        if let Some(home) = closed.first() {
            let text = format!(
                "{}: no program can be started in {home} (mounted noexec); this one goes to {folder} instead",
                machine.name()
            );
            progress.event(Event::Warning(text));
        }
        let path = format!("{folder}/{build}/outlier");
        return Ok(Place { path, there: state == "there", who: who.to_string() });
    }
    let folders = closed.into_iter().map(str::to_string).collect();
    Err(Error::of(Failure::NoExec { machine: machine.name(), folders }))
}

/// Makes sure that the program `binary` is on `machine`.
pub fn deploy(machine: &dyn Machine, binary: &Path, progress: &dyn Progress) -> Result<Deployed> {
    let reading = |e: std::io::Error| {
        Error::io(format!("reading the worker {}", binary.display()), &e)
            .or_hint("OUTLIER_WORKER names the program to send; without it this program sends itself")
    };
    let mut hash = Sha256::new();
    let mut file = outside::open(binary).map_err(reading)?;
    std::io::copy(&mut file, &mut hash).map_err(reading)?;
    let build = &format!("{:x}", hash.finalize())[..16];
    // Jobs of a cluster share a home folder, so that one of them sends the program.
    let shared = machine.keeper().is_some();
    let _one = shared.then(|| SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    let Place { path, there, who } = place(machine, build, progress)?;
    let here = machine.is_here() || remote::identity().is(&who);
    // The file is renamed after the whole of it has arrived and been verified.
    if !there {
        remote::upload(machine, binary, &path, progress)?;
    }
    let tried = remote::again(progress, || remote::finish(machine, &format!("{path} --version")))?;
    let expected = format!("outlier {}", env!("CARGO_PKG_VERSION"));
    let said = tried.out.trim();
    if tried.code != 0 {
        let (machine, complaint) = (machine.name(), tried.complaint().to_string());
        return Err(Error::of(Failure::DoesNotRun { machine, complaint }));
    }
    if said != expected {
        return Err(Error::of(Failure::OtherBuild { said: said.to_string(), expected }));
    }
    Ok(Deployed { path, here })
}
