//! `outlier gpus ssh`: a shell on a machine, by the client of OpenSSH, with the verified host key
//! of the machine.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::gpu::ledger::Entry;
use crate::gpu::{ProviderId, SshAddress, Way, own, slurm};
use crate::remote::{Key, Login, Ssh, Target};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Replaces this program by a shell on the machine, or by `command` there.
pub(super) fn open(id: &str, entry: &Entry, command: &[String]) -> Result<Exit> {
    match &entry.provider {
        ProviderId::Slurm(way) => in_job(entry, way.as_ref(), command),
        ProviderId::Own(way) => match own::login(way)? {
            Some(login) => through(entry, way, login, command, command.is_empty()),
            None => Err(Error::bad_argument(format!("{id} is this computer")).hint("there is a shell here already")),
        },
        ProviderId::RunPod | ProviderId::Unknown(_) => at_address(id, entry, command),
    }
}

/// Opens a shell on a machine by the address and the host keys that its provider has given.
fn at_address(id: &str, entry: &Entry, command: &[String]) -> Result<Exit> {
    let (Some(address), Some(key)) = (&entry.ssh, &entry.key_file) else {
        return Err(Error::new(Kind::NotFound, format!("{id} has not been reached over SSH")));
    };
    let SshAddress { user, host, port } = address;
    let login = Login::made(user, host, *port, key.clone(), entry.fingerprints.clone(), CONNECT_TIMEOUT)?;
    let line = Ssh::new(login).known_host(None)?;
    let known = key.with_file_name(format!("{}.known_hosts", entry.name));
    disk::write(&known, format!("{}\n", line.line).as_bytes())?;
    let mut client = client(&known, &line.algorithm);
    client.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(key).args(["-p", &port.to_string()]);
    replace(client.arg(format!("{user}@{host}")).args(command), "is the OpenSSH client installed?")
}

/// Opens a shell in a Slurm job, as a step that is started here or on the login node.
fn in_job(entry: &Entry, way: Option<&Way>, command: &[String]) -> Result<Exit> {
    let job = entry.id.as_deref().ok_or_else(|| {
        Error::new(Kind::NotFound, format!("{} has no job yet", entry.name)).hint("`outlier gpus` tells how far it is")
    })?;
    let Some(way) = way else {
        return replace(
            &mut slurm::step::here(job, command),
            "is `srun` on the path? `module load slurm` where needed",
        );
    };
    through(entry, way, slurm::login(way)?, &[slurm::step::there(job, command)], command.is_empty())
}

/// Opens a shell on a machine that the user's own SSH settings reach, or runs `words` there as a
/// command.
fn through(entry: &Entry, way: &Way, login: Login, words: &[String], terminal: bool) -> Result<Exit> {
    let key = match &login.key {
        Key::File(file) => Some(file.clone()),
        Key::Usual(_) => None,
    };
    // ssh looks for this name, whichever name the machine has.
    let line = Ssh::new(login).known_host(Some(&entry.name))?;
    let known = PathBuf::from("results/.keys").join(format!("{}.known_hosts", entry.name));
    disk::write(&known, format!("{}\n", line.line).as_bytes())?;
    let mut client = client(&known, &line.algorithm);
    client.args(["-o", &format!("HostKeyAlias={}", entry.name)]);
    if let Some(key) = key {
        client.args(["-o", "IdentitiesOnly=yes", "-i"]).arg(key);
    }
    let target = Target::parse(way.host())?;
    if let Some(port) = target.port {
        client.args(["-p", &port.to_string()]);
    }
    if let Some(user) = &target.user {
        client.args(["-l", user]);
    }
    client.arg(if terminal { "-t" } else { "-T" }).arg(&target.host).args(words);
    replace(&mut client, "is the OpenSSH client installed?")
}

/// Replaces this process by another program.
fn replace(program: &mut Command, hint: &str) -> Result<Exit> {
    let error = program.exec();
    Err(Error::io(format!("starting {}", program.get_program().display()), &error).or_hint(hint))
}

/// The client of OpenSSH, which trusts only the key in `known`.
fn client(known: &Path, algorithm: &str) -> Command {
    let mut ssh = Command::new("ssh");
    // A key of type ssh-rsa is used with newer signature algorithms.
    let algorithms = if algorithm == "ssh-rsa" { "rsa-sha2-512,rsa-sha2-256,ssh-rsa" } else { algorithm };
    for option in [
        format!("UserKnownHostsFile={}", known.display()),
        "GlobalKnownHostsFile=/dev/null".to_string(),
        "StrictHostKeyChecking=yes".to_string(),
        format!("HostKeyAlgorithms={algorithms}"),
    ] {
        ssh.args(["-o", &option]);
    }
    ssh
}
