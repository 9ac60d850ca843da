//! The user's own machines, over SSH: nothing is rented or charged. A worker is started and ended
//! there, in a folder of its own in `~/.outlier/w`, and the ledger has a row for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::bounded::{Limits, text_of, within};
use super::failure::Failure;
use super::id::ProviderId;
use super::patience::Patience;
use super::provider::{Description, Offer, PREFIX, Provider, Reached, SshAddress, State, Want};
use super::way::Way;
use crate::error::{Error, Result};
use crate::remote::{HereGrouped, HostKey, Login, Machine, Ssh, SshTarget, quoted};

/// The name of this computer, which is used without an SSH server.
const HERE: &str = "localhost";
/// A machine that does not answer within this time is not available.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time limits of a command, with the time to connect.
const COMMAND: Limits =
    Limits { whole: Duration::from_secs(90), at_work: Duration::from_secs(20), last: Duration::from_secs(20) };

/// Prints the names of running workers: the process in the folder runs, and belongs to the folder.
const AT_WORK: &str = r#"at_work() {
    pid=$(cat "$1/pid" 2>/dev/null)
    case "$pid" in ''|*[!0-9]*) return 1;; esac
    kill -0 "$pid" 2>/dev/null || return 1
    line=$({ tr '\0' ' ' < "/proc/$pid/cmdline" || ps -o args= -p "$pid"; } 2>/dev/null)
    case "$line " in *" worker "*"/$1 "*) return 0;; esac
    return 1
}
cd "$HOME/.outlier/w" 2>/dev/null || exit 0
"#;

/// The identity of a user's own machine: its address and login, and the verified host key
/// `fingerprint`.
///
/// # Errors
/// An invalid address.
pub fn id_of(target: &SshTarget, fingerprint: Option<String>) -> Result<ProviderId> {
    Way::new(&SshTarget { fingerprint, known_hosts: None, ..target.clone() }).map(ProviderId::Own)
}

/// The login of a machine; None for this computer. It is trusted by the host key that the user
/// accepted when the machine was first used.
///
/// # Errors
/// The errors of `~/.ssh/config`.
pub fn login(way: &Way) -> Result<Option<Login>> {
    let target = way.target();
    if target.host == HERE {
        return Ok(None);
    }
    let mut login = SshTarget { fingerprint: None, ..target.clone() }.login(CONNECT_TIMEOUT)?;
    if let Some(fingerprint) = target.fingerprint {
        login.host_key = HostKey::Fingerprints(vec![fingerprint]);
    }
    Ok(Some(login))
}

pub struct Own {
    id: ProviderId,
    machine: Arc<dyn Machine>,
}

impl Own {
    /// The machine at the end of this way. It is not contacted yet.
    ///
    /// # Errors
    /// As `login`.
    pub fn new(way: Way) -> Result<Self> {
        let machine: Arc<dyn Machine> = match login(&way)? {
            None => Arc::new(HereGrouped),
            Some(login) => Arc::new(Ssh::new(login)),
        };
        Ok(Self { id: ProviderId::Own(way), machine })
    }

    fn ask(&self, command: &str) -> Result<String> {
        let command = format!("{AT_WORK}{command}");
        text_of(&*self.machine, within(&COMMAND, &self.machine, &command, "", "a look for workers")?)
    }
}

/// Workers are identified by name, because several may run on one machine.
impl Provider for Own {
    fn id(&self) -> &ProviderId {
        &self.id
    }

    fn patience(&self) -> Patience {
        // A worker ends within this time after it was told to.
        Patience { poll: Duration::from_millis(500), end: Duration::from_secs(60), ..Patience::default() }
    }

    fn offers(&self, _: &Want) -> Result<Vec<Offer>> {
        Err(Error::of(Failure::NothingToRent))
    }

    fn create(&self, _: &str, _: &Offer, _: &Want, _: &str) -> Result<Description> {
        Err(Error::of(Failure::NothingToRent))
    }

    fn describe(&self, id: &str) -> Result<Option<Description>> {
        Ok(self.list()?.into_iter().find(|worker| worker.name == id))
    }

    fn list(&self) -> Result<Vec<Description>> {
        let said =
            self.ask(&format!("for worker in {PREFIX}*; do at_work \"$worker\" && echo \"$worker\"; done; true"))?;
        let worker = |name: &str| Description {
            id: name.to_string(),
            name: name.to_string(),
            state: State::Running,
            gpu: String::new(),
            price: 0.0,
            ssh: None,
            created: String::new(),
            why: String::new(),
        };
        Ok(said.lines().map(str::trim).filter(|name| name.starts_with(PREFIX)).map(worker).collect())
    }

    fn terminate(&self, id: &str) -> Result<()> {
        self.ask(&format!("worker={}; at_work \"$worker\" && kill -TERM \"$pid\"; true", quoted(id))).map(|_| ())
    }

    fn logs(&self, id: &str) -> Result<String> {
        self.ask(&format!("cat {}/worker.log", quoted(id)))
    }

    fn reach(&self, _: &Description, _: &Path) -> Result<Option<Reached>> {
        Ok(Some(Reached { machine: self.machine.clone(), ssh: None, fingerprints: Vec::new() }))
    }

    fn again(&self, _: &SshAddress, _: &Path, _: &[String]) -> Result<Arc<dyn Machine>> {
        Ok(self.machine.clone())
    }

    /// The machine stays, because it belongs to the user.
    fn give_back_command(&self, _: &str) -> Option<String> {
        None
    }
}
