//! A machine over SSH. Its host key must be known in advance, or nothing is sent to it.

use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ssh_key::Fingerprint;
use ssh2::{ErrorCode, MethodType, Session};

use super::auth::authenticate;
use super::failure::{CONNECTING, Failure, Source};
use super::known_hosts::{Hosts, Looked, Standing, kind, revoked};
use super::login::{HostKey, Login};
use super::refused::Expected;
use super::shell::{self, Entry};
use super::this::is_own_address;
use super::{Listener, Machine, pump, trust};
use crate::error::{Error, Result};
use crate::progress::note;

/// Pauses before another attempt if a machine closes the connection at once: its sshd limits new
/// connections.
const PAUSES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];
/// If it took longer than this, there is no further attempt.
const QUICK: Duration = Duration::from_secs(2);
/// LIBSSH2_ERROR_KEX_FAILURE: it has no key of the requested type.
const NO_COMMON_KIND: ErrorCode = ErrorCode::Session(-5);

/// The data by which `ssh` trusts a machine as we do.
pub struct KnownHost {
    pub line: String,
    /// For example `ssh-ed25519`.
    pub algorithm: String,
}

/// A machine with a connection per command: there is no shared state, and threads do not wait for
/// each other.
pub struct Ssh {
    login: Login,
    /// The jump host.
    jump: Option<Box<Ssh>>,
    entry: Entry,
    /// Whether it was on this computer at the first connection.
    here: OnceLock<bool>,
    /// Its host key at the first connection.
    proved: OnceLock<String>,
    /// Set after the message about a changed key.
    told: OnceLock<()>,
}

/// The transport of a session.
enum Carrier {
    Direct(TcpStream),
    Through(UnixStream),
}

impl Ssh {
    pub fn new(login: Login) -> Self {
        let jump = login.jump.clone().map(|jump| Box::new(Self::new(*jump)));
        Self {
            login,
            jump,
            entry: Entry::Command,
            here: OnceLock::new(),
            proved: OnceLock::new(),
            told: OnceLock::new(),
        }
    }

    /// The same with the environment of a login, including the profile.
    pub fn with_profile(self) -> Self {
        Self { entry: Entry::Login, ..self }
    }

    fn lost(&self, doing: &'static str, source: impl Into<Source>) -> Error {
        Error::of(Failure::Connection { machine: self.name(), doing, source: source.into() })
    }

    fn connect(&self) -> Result<Session> {
        let hosts = Hosts::read(&self.login.known_hosts);
        let algorithms = hosts.algorithms(&self.login.looked);
        let mut session = self.greet(&algorithms.join(","))?;
        if let Err(refused) = self.check_host(&session, &hosts) {
            session = self.by_another_key(&session, &algorithms, &hosts).ok_or(refused)?;
        }
        if let Some((key, _)) = session.host_key() {
            let _ = self.proved.set(fingerprint(key));
        }
        authenticate(&session, &self.login, &self.name())?;
        Ok(session)
    }

    /// A machine may have several keys, and the named one need not be of the first requested type.
    fn by_another_key(&self, session: &Session, algorithms: &[&str], hosts: &Hosts) -> Option<Session> {
        let Login { port, host_key, .. } = &self.login;
        let named = match host_key {
            HostKey::Fingerprints(_) => true,
            HostKey::Known { fingerprint, known_hosts } => {
                fingerprint.is_some() || known_hosts.is_some() || trust::names_any(&self.login.names(), *port)
            }
        };
        let seen = session.host_key().map(|(key, _)| kind(key)).unwrap_or_default();
        let seen = if seen == "ssh-rsa" { "rsa-sha2-512" } else { seen.as_str() };
        let others = algorithms.iter().filter(|names| named && !names.split(',').any(|name| name == seen));
        others.into_iter().find_map(|names| {
            let session = self.greet(names).ok()?;
            self.check_host(&session, hosts).ok().map(|()| session)
        })
    }

    /// A session after the key exchange, with the first host key type that the machine supports.
    fn greet(&self, algorithms: &str) -> Result<Session> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let carrier = self.reach()?;
            let starting = |e: ssh2::Error| self.lost("starting SSH", e);
            let mut session = Session::new().map_err(starting)?;
            session.set_timeout(self.login.timeout.as_millis() as u32);
            session.method_pref(MethodType::HostKey, algorithms).map_err(starting)?;
            match carrier {
                Carrier::Direct(stream) => session.set_tcp_stream(stream),
                Carrier::Through(stream) => session.set_tcp_stream(stream),
            }
            let begin = Instant::now();
            match (session.handshake(), pauses.next()) {
                (Ok(()), _) => return Ok(session),
                (Err(error), Some(pause)) if begin.elapsed() < QUICK && error.code() != NO_COMMON_KIND => {
                    std::thread::sleep(pause);
                }
                (Err(error), _) => return Err(starting(error)),
            }
        }
    }

    /// True if this computer, or one of its containers, is the other end.
    fn is_own(stream: &TcpStream) -> bool {
        let (Ok(peer), Ok(own)) = (stream.peer_addr(), stream.local_addr()) else { return true };
        peer.ip() == own.ip() || is_own_address(peer.ip())
    }

    fn reach(&self) -> Result<Carrier> {
        let (carrier, here) = match &self.jump {
            Some(jump) => (Carrier::Through(self.led_on(jump)?), self.is_here_through(jump)),
            None => {
                let stream = self.reach_directly()?;
                let here = Self::is_own(&stream);
                (Carrier::Direct(stream), here)
            }
        };
        // A host name whose address changes must not redirect commands to this computer.
        if *self.here.get_or_init(|| here) != here {
            return Err(self.lost(CONNECTING, "its name leads to another computer than before"));
        }
        Ok(carrier)
    }

    fn reach_directly(&self) -> Result<TcpStream> {
        let Login { host, port, timeout, .. } = &self.login;
        let addresses = (host.as_str(), *port).to_socket_addrs().map_err(|e| self.lost("looking up its address", e))?;
        let mut failure = None;
        let stream = addresses
            .into_iter()
            .find_map(|address| TcpStream::connect_timeout(&address, *timeout).map_err(|e| failure = Some(e)).ok());
        let Some(stream) = stream else {
            let failure = failure.unwrap_or_else(|| std::io::Error::other("the host has no address"));
            return Err(self.lost(CONNECTING, failure));
        };
        keep_alive(&stream);
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// A stream that the jump host forwards to this machine.
    fn led_on(&self, jump: &Ssh) -> Result<UnixStream> {
        let Login { host, port, .. } = &self.login;
        let session = jump.connect().map_err(|e| e.context(format!("on the way to {}", self.name())))?;
        let channel = session
            .channel_direct_tcpip(host, *port, None)
            .map_err(|source| Error::of(Failure::NotLedOn { machine: self.name(), jump: jump.name(), source }))?;
        session.set_blocking(false);
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("opening a stream", &e))?;
        theirs.set_nonblocking(true).map_err(|e| Error::io("opening a stream", &e))?;
        std::thread::spawn(move || pump::bridge(&session, channel, theirs));
        Ok(ours)
    }

    /// Loopback is the jump host, and an own address is this computer, also through a jump host.
    fn is_here_through(&self, jump: &Ssh) -> bool {
        self.resolved().any(|address| is_own_address(address) && (jump.is_here() || !is_relative(address)))
    }

    fn resolved(&self) -> impl Iterator<Item = std::net::IpAddr> {
        let addresses = (self.login.host.as_str(), self.login.port).to_socket_addrs();
        addresses.into_iter().flatten().map(|address| address.ip())
    }

    fn check_host(&self, session: &Session, hosts: &Hosts) -> Result<()> {
        let Login { port, host_key, looked, .. } = &self.login;
        let (key, _) = session.host_key().ok_or_else(|| self.lost("starting SSH", "it has no host key"))?;
        let found = fingerprint(key);
        let wrong = |expected: Expected| {
            Err(Error::of(Failure::HostKey { machine: self.name(), found: found.clone(), expected }))
        };
        let standing = hosts.standing(looked, key);
        if let Standing::Revoked(file, line) = &standing {
            let (machine, file, line) = (self.name(), file.clone(), *line);
            return Err(Error::of(Failure::RevokedHostKey { machine, found, file, line }));
        }
        if let Some(file) = self.login.revoked.clone() {
            let (machine, found) = (self.name(), found.clone());
            match revoked(&file, key) {
                Ok(None) => (),
                Ok(Some(line)) => return Err(Error::of(Failure::RevokedHostKey { machine, found, file, line })),
                Err(problem) => return Err(Error::of(Failure::RevokedUnread { machine, file, problem })),
            }
        }
        let (fingerprint, file) = match host_key {
            HostKey::Fingerprints(known) if known.contains(&found) => return Ok(()),
            HostKey::Fingerprints(known) => return wrong(Expected::OneOf(known.clone())),
            HostKey::Known { fingerprint, known_hosts } => (fingerprint, known_hosts),
        };
        if let Some(fingerprint) = fingerprint.as_ref().filter(|fingerprint| **fingerprint != found) {
            return wrong(Expected::OneOf(vec![fingerprint.clone()]));
        }
        if let Some(file) = file
            && Hosts::read(std::slice::from_ref(file)).standing(looked, key) != Standing::Known
        {
            return wrong(Expected::InNamed(file.clone()));
        }
        // Host keys that a script names are trusted only where no script can have named them.
        let noted = !trust::is_scripted() && (fingerprint.is_some() || file.is_some());
        if noted || trust::is_named(&self.login.names(), *port, &found) {
            if let Standing::Other(file, line) = &standing {
                self.tell_changed(&found, file, *line);
            }
            return Ok(());
        }
        let files: Vec<String> = self.login.known_hosts.iter().map(|file| file.display().to_string()).collect();
        let first = files.first().cloned().unwrap_or_else(|| "a file of known hosts".to_string());
        match standing {
            Standing::Other(file, line) => wrong(Expected::AnotherBy { file, line }),
            Standing::Unknown if hosts.has_authority(looked) => wrong(Expected::BySignature(first)),
            Standing::Unknown => wrong(Expected::InKnown(first)),
            Standing::Known | Standing::Revoked(..) => Ok(()),
        }
    }

    /// Reports once that the user has named a key that differs from his files.
    fn tell_changed(&self, found: &str, file: &std::path::Path, line: usize) {
        if self.told.set(()).is_ok() {
            note(&format!(
                "{}: its host key is {found}, another one than {}, line {line}, has; it is trusted because you name it: \
                 `ssh-keygen -R HOST` removes the old one",
                self.name(),
                file.display()
            ));
        }
    }

    /// The fingerprint of its verified host key; None before the first connection.
    pub fn proved(&self) -> Option<String> {
        self.proved.get().cloned()
    }

    /// The verified host key as a line for `known_hosts`, under the name `called` if given.
    pub fn known_host(&self, called: Option<&str>) -> Result<KnownHost> {
        let session = self.connect()?;
        let (key, _) = session.host_key().ok_or_else(|| self.lost("starting SSH", "it has no host key"))?;
        let looked = Looked { alias: called.map(str::to_string), ..self.login.looked.clone() };
        Ok(KnownHost { line: looked.line(key), algorithm: kind(key) })
    }

    /// A non-blocking session with a shell.
    fn start(&self) -> Result<(Session, shell::Shell)> {
        let session = self.connect()?;
        let failed = |e: ssh2::Error| self.lost("starting a command", e);
        let channel = session.channel_session().map_err(failed)?;
        let shell = shell::start(&session, channel, self.entry, &self.name())?;
        Ok((session, shell))
    }
}

/// True if an address means a different machine on each machine.
fn is_relative(address: std::net::IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

/// As `ssh-keygen -lf` prints it.
fn fingerprint(key: &[u8]) -> String {
    Fingerprint::Sha256(Sha256::digest(key).into()).to_string()
}

impl Machine for Ssh {
    fn name(&self) -> String {
        format!("{}@{}:{}", self.login.user, self.login.host, self.login.port)
    }

    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32> {
        let (session, shell) = self.start()?;
        let mut refused = None;
        let code = shell
            .run(&session, command, input, &mut |piece| output(piece).map_err(|error| refused = Some(error)).is_ok());
        match refused {
            Some(error) => Err(error),
            None => code.map_err(|e| self.lost("the connection broke", e)),
        }
    }

    fn is_here(&self) -> bool {
        // Before the first connection it is judged by its name's address.
        let judged = || match &self.jump {
            Some(jump) => self.is_here_through(jump),
            None => self.resolved().any(is_own_address),
        };
        self.here.get().copied().unwrap_or_else(judged)
    }

    fn open(&self, command: &str) -> Result<UnixStream> {
        let (session, shell) = self.start()?;
        let opening = |e: std::io::Error| Error::io("opening a stream", &e);
        let (ours, theirs) = UnixStream::pair().map_err(opening)?;
        theirs.set_nonblocking(true).map_err(opening)?;
        let channel = shell.become_command(&session, command).map_err(|e| self.lost("starting a command", e))?;
        std::thread::spawn(move || pump::bridge(&session, channel, theirs));
        Ok(ours)
    }
}

/// The system then notices within about twenty seconds that the other side is gone.
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
        // SAFETY: a valid descriptor and a pointer to an int of this size.
        unsafe {
            let length = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(stream.as_raw_fd(), level, name, (&raw const value).cast(), length);
        }
    }
}
