//! A machine over SSH. Whoever it is must prove it: its host key is known beforehand, or nothing is said to it.

use std::io::Read;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use ssh_key::{HashAlg, PublicKey};
use ssh2::{CheckResult, KnownHostFileKind, Session};

use super::{Machine, Output, pump, quoted};
use crate::error::{Error, Kind, Result};

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
    /// One of these, as `ssh-keygen -lf` prints them: `SHA256:…`.
    Fingerprints(Vec<String>),
    /// A file in the format of `~/.ssh/known_hosts`.
    KnownHosts(PathBuf),
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
    let plain = |word: &str| !word.is_empty() && !word.starts_with('-') && !word.contains(char::is_whitespace);
    if !plain(user) || !plain(host) {
        return Err(bad());
    }
    Ok((user.to_string(), host.to_string(), port))
}

impl Ssh {
    pub fn new(login: Login) -> Self {
        Self { login }
    }

    fn lost(&self, what: &str, error: impl std::fmt::Display) -> Error {
        Error::new(Kind::Lost, format!("{}: {what}: {error}", self.name()))
            .hint("is the machine running, and its sshd reachable from here?")
    }

    fn connect(&self) -> Result<Session> {
        let Login { user, host, port, key, timeout, .. } = &self.login;
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
        let mut session = Session::new().map_err(|e| self.lost("starting SSH", e))?;
        session.set_timeout(timeout.as_millis() as u32);
        session.set_tcp_stream(stream);
        session.handshake().map_err(|e| self.lost("starting SSH", e))?;
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
        match host_key {
            HostKey::Fingerprints(known) if known.contains(&found) => Ok(()),
            HostKey::Fingerprints(known) => wrong(
                &known.join(" or "),
                "this is not the machine that was created, or somebody is in between: nothing was sent to it",
            ),
            HostKey::KnownHosts(file) => {
                let mut hosts = session.known_hosts().map_err(|e| self.lost("starting SSH", e))?;
                // Without the file nobody is known.
                let _ = hosts.read_file(file, KnownHostFileKind::OpenSSH);
                match hosts.check_port(host, *port, key) {
                    CheckResult::Match => Ok(()),
                    CheckResult::Mismatch => wrong(
                        &format!("another one by {}", file.display()),
                        "if the machine was installed anew: `ssh-keygen -R HOST`, then log in once with ssh; else somebody is in between",
                    ),
                    _ => wrong(
                        &format!("one that stands in {}", file.display()),
                        "log in once with ssh and compare the fingerprint, or give `fingerprint`",
                    ),
                }
            }
        }
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

    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut dyn FnMut(Output)) -> Result<i32> {
        let session = self.connect()?;
        let channel = self.start(&session, command)?;
        pump::exec(&session, channel, input, output).map_err(|e| self.lost("the connection broke", e))
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
