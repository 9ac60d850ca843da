//! A machine over SSH. Whoever it is must prove it: its host key is known beforehand, or nothing is said to it.

use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ssh_key::{HashAlg, PublicKey};
use ssh2::{CheckResult, KnownHostFileKind, Session};

use super::this::is_own_address;
use super::{Listener, Machine, pump, quoted, trust};
use crate::error::{Error, Kind, Result};

/// Pauses before a machine is greeted again that took the connection and closed it: its sshd lets in so many at a time.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];
/// One that is silent for longer is not greeted again.
const QUICK: Duration = Duration::from_secs(2);

/// How we prove who we are.
#[derive(Clone, Debug)]
pub enum Key {
    File(PathBuf),
    /// Whatever the agent at `SSH_AUTH_SOCK` holds.
    Agent,
}

/// How the machine proves who it is.
#[derive(Clone, Debug)]
pub enum HostKey {
    /// One of these, as `ssh-keygen -lf` prints them: `SHA256:…`. Whoever made the machine has told them.
    Fingerprints(Vec<String>),
    /// One that the user has vouched for, and that is the one named here as well, in the file named here as well.
    Known { fingerprint: Option<String>, known_hosts: Option<PathBuf> },
}

#[derive(Clone, Debug)]
pub struct Login {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: Key,
    pub host_key: HostKey,
    pub timeout: Duration,
}

/// What `ssh` needs to trust a machine as we do.
pub struct KnownHost {
    pub line: String,
    /// Such as `ssh-ed25519`.
    pub algorithm: String,
}

/// Each command has a connection of its own: there is no state to lose, and threads do not wait for each other.
pub struct Ssh {
    login: Login,
    /// Whether it was on this computer when it was reached first.
    here: OnceLock<bool>,
}

/// A word of an address that no command takes for an option or for more than one word.
fn is_plain(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('-') && word.chars().all(|c| c.is_alphanumeric() || "._-:[]%@+".contains(c))
}

/// `user@host:port`; the user is `root` and the port 22 where they are left out.
pub fn parse_target(text: &str) -> Result<(String, String, u16)> {
    let bad =
        || Error::bad_argument(format!("\"{text}\" is not an SSH address")).hint("write user@host or user@host:port");
    let (user, place) = text.split_once('@').unwrap_or(("root", text));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
        None => (place, 22),
    };
    if !is_plain(user) || !is_plain(host) {
        return Err(bad());
    }
    Ok((user.to_string(), host.to_string(), port))
}

impl Ssh {
    pub fn new(login: Login) -> Self {
        Self { login, here: OnceLock::new() }
    }

    fn lost(&self, what: &str, error: impl std::fmt::Display) -> Error {
        Error::new(Kind::Lost, format!("{}: {what}: {error}", self.name()))
            .hint("is the machine running, and its sshd reachable from here?")
    }

    fn connect(&self) -> Result<Session> {
        let Login { user, host, key, timeout, .. } = &self.login;
        if !is_plain(user) || !is_plain(host) {
            return Err(Error::bad_argument(format!("{:?} is not an SSH address", self.name())));
        }
        let mut pauses = PAUSES.into_iter();
        let session = loop {
            let stream = self.reach()?;
            let mut session = Session::new().map_err(|e| self.lost("starting SSH", e))?;
            session.set_timeout(timeout.as_millis() as u32);
            session.set_tcp_stream(stream);
            let begin = Instant::now();
            match (session.handshake(), pauses.next()) {
                (Ok(()), _) => break session,
                (Err(_), Some(pause)) if begin.elapsed() < QUICK => std::thread::sleep(pause),
                (Err(error), _) => return Err(self.lost("starting SSH", error)),
            }
        };
        self.check_host(&session)?;
        let authenticated = match key {
            Key::File(file) => session.userauth_pubkey_file(user, None, file, None),
            Key::Agent => session.userauth_agent(user),
        };
        authenticated.map_err(|e| self.refused(&e))?;
        // What a command takes is its own affair.
        session.set_timeout(0);
        Ok(session)
    }

    /// Whether it is this computer that answers at the other end, or one of its containers.
    fn is_own(stream: &TcpStream) -> bool {
        let (Ok(peer), Ok(own)) = (stream.peer_addr(), stream.local_addr()) else { return true };
        peer.ip() == own.ip() || is_own_address(peer.ip())
    }

    fn reach(&self) -> Result<TcpStream> {
        let Login { host, port, timeout, .. } = &self.login;
        let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|e| self.lost("looking up its address", e))?;
        let mut failure = None;
        let stream = addresses
            .into_iter()
            .find_map(|address| TcpStream::connect_timeout(&address, *timeout).map_err(|e| failure = Some(e)).ok());
        let Some(stream) = stream else {
            let failure = failure.unwrap_or_else(|| std::io::Error::other("the host has no address"));
            let error = self.lost("connecting", &failure);
            let late = failure.kind() == std::io::ErrorKind::TimedOut;
            return Err(if late { Error { kind: Kind::Timeout, ..error } } else { error });
        };
        keep_alive(&stream);
        let _ = stream.set_nodelay(true);
        // Whoever rules over a name must not send commands here that were meant for elsewhere.
        let here = Self::is_own(&stream);
        if *self.here.get_or_init(|| here) != here {
            return Err(self.lost("connecting", "its name leads to another computer than before"));
        }
        Ok(stream)
    }

    fn refused(&self, error: &ssh2::Error) -> Error {
        let Login { user, key, .. } = &self.login;
        let (what, hint) = match key {
            Key::File(file) if !file.exists() => {
                (format!("the key {} does not exist", file.display()), "give `key`, the file of a private key")
            }
            Key::File(file) => (
                format!("the key {} is not accepted for {user}: {}", file.display(), error.message()),
                "add its public line to ~/.ssh/authorized_keys there; a key with a passphrase needs ssh-agent (leave `key` out)",
            ),
            Key::Agent => (
                format!("no key of the SSH agent is accepted for {user}: {}", error.message()),
                "run `ssh-add`, or give `key`, the file of a private key",
            ),
        };
        Error::new(Kind::Auth, format!("{}: {what}", self.name())).hint(hint)
    }

    fn check_host(&self, session: &Session) -> Result<()> {
        let Login { host, port, host_key, .. } = &self.login;
        let (key, _) = session.host_key().ok_or_else(|| self.lost("starting SSH", "it has no host key"))?;
        let found = PublicKey::from_bytes(key).map_err(|e| self.lost("reading its host key", e))?;
        let found = found.fingerprint(HashAlg::Sha256).to_string();
        let wrong = |expected: &str, hint: &str| {
            let message = format!("{}: its host key is {found}, expected {expected}", self.name());
            Err(Error::new(Kind::Auth, message).hint(hint))
        };
        let another = "this is not the machine that was created, or somebody is in between: nothing was sent to it";
        let (fingerprint, file) = match host_key {
            HostKey::Fingerprints(known) if known.contains(&found) => return Ok(()),
            HostKey::Fingerprints(known) => return wrong(&known.join(" or "), another),
            HostKey::Known { fingerprint, known_hosts } => (fingerprint, known_hosts),
        };
        if let Some(fingerprint) = fingerprint.as_ref().filter(|fingerprint| **fingerprint != found) {
            return wrong(fingerprint, another);
        }
        let mut stands = None;
        if let Some(file) = file {
            stands = self.stands_in(session, key, file)?;
            if stands != Some(true) {
                return wrong(
                    &format!("one that stands in {}", file.display()),
                    "log in once with ssh and compare the fingerprint",
                );
            }
        }
        // What a script names is trusted for that only where no script can have named it.
        let noted = !trust::is_scripted() && (fingerprint.is_some() || stands.is_some());
        if noted || trust::is_named(host, *port, &found) {
            return Ok(());
        }
        let file = trust::known_hosts();
        match self.stands_in(session, key, &file)? {
            Some(true) => Ok(()),
            Some(false) => wrong(
                &format!("another one by {}", file.display()),
                "if the machine was installed anew: `ssh-keygen -R HOST`, then log in once with ssh; else somebody is in between",
            ),
            None => wrong(
                &format!("one that stands in {}", file.display()),
                "log in once with ssh and compare the fingerprint; or name it yourself: `outlier run --host-key SHA256:… SCRIPT`. \
                 What a script names is not trusted for that",
            ),
        }
    }

    /// Whether `file` knows this host by this key; None when it does not know the host.
    fn stands_in(&self, session: &Session, key: &[u8], file: &Path) -> Result<Option<bool>> {
        let mut hosts = session.known_hosts().map_err(|e| self.lost("starting SSH", e))?;
        // Without the file nobody is known.
        let _ = hosts.read_file(file, KnownHostFileKind::OpenSSH);
        Ok(match hosts.check_port(&self.login.host, self.login.port, key) {
            CheckResult::Match => Some(true),
            CheckResult::Mismatch => Some(false),
            _ => None,
        })
    }

    /// The machine's host key, after it has proved itself, as a line for `known_hosts`.
    pub fn known_host(&self) -> Result<KnownHost> {
        let session = self.connect()?;
        let missing = || self.lost("starting SSH", "it has no host key");
        let (key, _) = session.host_key().ok_or_else(missing)?;
        let key = PublicKey::from_bytes(key).map_err(|e| self.lost("reading its host key", e))?;
        let text = key.to_openssh().map_err(|e| self.lost("reading its host key", e))?;
        let line = format!("[{}]:{} {text}", self.login.host, self.login.port);
        // ssh writes the address of port 22 without brackets.
        let line = if self.login.port == 22 { format!("{} {text}", self.login.host) } else { line };
        Ok(KnownHost { line, algorithm: key.algorithm().to_string() })
    }

    fn start(&self, session: &Session, command: &str) -> Result<ssh2::Channel> {
        let failed = |e: ssh2::Error| self.lost("starting a command", e);
        let mut channel = session.channel_session().map_err(failed)?;
        channel.exec(&format!("/bin/sh -c {}", quoted(command))).map_err(failed)?;
        session.set_blocking(false);
        Ok(channel)
    }
}

impl Machine for Ssh {
    fn name(&self) -> String {
        format!("{}@{}:{}", self.login.user, self.login.host, self.login.port)
    }

    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32> {
        let session = self.connect()?;
        let channel = self.start(&session, command)?;
        let mut refused = None;
        let code = pump::exec(&session, channel, input, &mut |piece| {
            output(piece).map_err(|error| refused = Some(error)).is_ok()
        });
        match refused {
            Some(error) => Err(error),
            None => code.map_err(|e| self.lost("the connection broke", e)),
        }
    }

    fn is_here(&self) -> bool {
        // Not reached yet, it is where its name leads.
        let resolved = || {
            let addresses = (self.login.host.as_str(), self.login.port).to_socket_addrs();
            addresses.is_ok_and(|mut addresses| addresses.any(|address| is_own_address(address.ip())))
        };
        self.here.get().copied().unwrap_or_else(resolved)
    }

    fn open(&self, command: &str) -> Result<UnixStream> {
        let session = self.connect()?;
        let channel = self.start(&session, command)?;
        let opening = |e: std::io::Error| Error::io("opening a stream", &e);
        let (ours, theirs) = UnixStream::pair().map_err(opening)?;
        theirs.set_nonblocking(true).map_err(opening)?;
        std::thread::spawn(move || pump::bridge(&session, channel, theirs));
        Ok(ours)
    }
}

/// The system notices within about twenty seconds that the other side is gone.
fn keep_alive(stream: &TcpStream) {
    let settings = [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        #[cfg(target_os = "linux")]
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 5),
        #[cfg(target_os = "linux")]
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 5),
        #[cfg(target_os = "linux")]
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
        #[cfg(target_os = "linux")]
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 20_000),
    ];
    for (level, name, value) in settings {
        let value: libc::c_int = value;
        // SAFETY: a valid descriptor and a pointer to an int of the length given.
        unsafe {
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(stream.as_raw_fd(), level, name, (&raw const value).cast(), length);
        }
    }
}
