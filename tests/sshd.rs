//! A real OpenSSH server on loopback, with its own host key, home folder and environment.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::project;

/// Everything that runs in a server's sessions has this in its environment, and so is found again.
const MARK: &str = "OUTLIER_TEST_SSHD";
const PROGRAM: &str = "/usr/sbin/sshd";

/// A port of loopback for a server that is started later: until it is dropped, nobody else is given it.
pub struct Port {
    pub number: u16,
    _held: OwnedFd,
}

impl Port {
    pub fn reserve() -> Self {
        let mut address = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
            sin_zero: [0; 8],
        };
        let (one, mut length) = (1 as libc::c_int, size_of_val(&address) as libc::socklen_t);
        // SAFETY: every pointer leads to a value that lives through the call and has the length given. It is bound and
        // does not listen, so that a server which allows to reuse the address can listen there.
        unsafe {
            let held = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0));
            let (fd, size) = (held.as_raw_fd(), size_of_val(&one) as libc::socklen_t);
            assert_eq!(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, (&raw const one).cast(), size), 0);
            assert_eq!(libc::bind(fd, (&raw const address).cast(), length), 0);
            assert_eq!(libc::getsockname(fd, (&raw mut address).cast(), &raw mut length), 0);
            Self { number: u16::from_be(address.sin_port), _held: held }
        }
    }
}

pub struct Sshd {
    folder: TempDir,
    pub port: u16,
    _reserved: Port,
    mark: String,
    environment: Vec<(String, String)>,
    /// More lines of its configuration.
    lines: Vec<String>,
    server: Option<Child>,
}

impl Sshd {
    /// A server that lets the key in `key_file` in.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, with more variables in its sessions.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        let mut sshd = Self::for_client(environment);
        sshd.up();
        sshd
    }

    /// The same, not started yet.
    pub fn for_client(environment: &[(&str, &str)]) -> Self {
        let sshd = Self::prepare("", environment);
        let public = sshd.make_key("client", "ed25519");
        fs::write(sshd.path("authorized_keys"), public).unwrap();
        sshd
    }

    /// One more line of the configuration, from the next start on.
    pub fn line(&mut self, line: String) -> &mut Self {
        self.lines.push(line);
        self
    }

    /// From the next start on it has host keys of three kinds: `host`, `host_ecdsa` and `host_rsa`.
    pub fn three_host_keys(&mut self) -> &mut Self {
        for kind in ["ecdsa", "rsa"] {
            self.make_key(&format!("host_{kind}"), kind);
            self.line(format!("HostKey {}", self.path(&format!("host_{kind}")).display()));
        }
        self
    }

    /// From the next start on this is the login shell of its users.
    pub fn login_shell(&mut self, shell: &str) -> &mut Self {
        let found = ["/usr/bin", "/bin"].iter().map(|folder| format!("{folder}/{shell}"));
        let found = found.into_iter().find(|path| Path::new(path).exists());
        let path = found.unwrap_or_else(|| panic!("{shell} is missing: `sh .ci/packages tests` installs it"));
        // As sshd starts a login shell.
        let script = format!("#!/bin/sh\nSHELL={path}; export SHELL\nexec {path} -c \"$SSH_ORIGINAL_COMMAND\"\n");
        fs::write(self.path("login_shell"), script).unwrap();
        fs::set_permissions(self.path("login_shell"), fs::Permissions::from_mode(0o755)).unwrap();
        self.line(format!("ForceCommand {}", self.path("login_shell").display()))
    }

    /// A file in the home folder of its users, with its folders.
    pub fn at_home(&self, name: &str, text: &str) -> &Self {
        let path = self.home().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A server, not started yet, for this line of `authorized_keys`, with more variables in its sessions.
    pub fn prepare(authorized: &str, environment: &[(&str, &str)]) -> Self {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: `sh .ci/packages tests` installs it");
        let folder = tempfile::Builder::new().prefix("sshd").tempdir().unwrap();
        let mark = format!("{:016x}", rand::random::<u64>());
        let reserved = Port::reserve();
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        let mut environment: Vec<(String, String)> =
            environment.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        if let Some(folder) = project::without_driver()
            && environment.iter().all(|(key, _)| key != "LD_LIBRARY_PATH")
        {
            environment.push(("LD_LIBRARY_PATH".to_string(), folder.display().to_string()));
        }
        environment.push((MARK.to_string(), mark.clone()));
        environment.push((project::MARK.to_string(), project::mark().to_string()));
        environment.push(("HOME".to_string(), home.display().to_string()));
        let (port, lines) = (reserved.number, Vec::new());
        let sshd = Self { folder, port, _reserved: reserved, mark, environment, lines, server: None };
        fs::write(sshd.path("authorized_keys"), format!("{authorized}\n")).unwrap();
        sshd.make_key("host", "ed25519");
        sshd
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// The private key that `start` lets in.
    pub fn key_file(&self) -> PathBuf {
        self.path("client")
    }

    /// `root@127.0.0.1:PORT`, with the user who runs the tests.
    pub fn target(&self) -> String {
        let user = Command::new("id").arg("-un").output().unwrap();
        format!("{}@127.0.0.1:{}", String::from_utf8(user.stdout).unwrap().trim(), self.port)
    }

    /// A key pair in OpenSSH's format; gives the public line.
    pub fn make_key(&self, name: &str, kind: &str) -> String {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        let made = Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(&path).status().unwrap();
        assert!(made.success());
        fs::read_to_string(path.with_extension("pub")).unwrap()
    }

    /// As `ssh-keygen -lf` prints it: `256 SHA256:… comment (ED25519)`.
    pub fn fingerprint_line(&self) -> String {
        self.fingerprint_line_of("host")
    }

    /// The same of another of its keys.
    pub fn fingerprint_line_of(&self, key: &str) -> String {
        let shown = Command::new("ssh-keygen").arg("-lf").arg(self.path(&format!("{key}.pub"))).output().unwrap();
        String::from_utf8(shown.stdout).unwrap().trim().to_string()
    }

    pub fn fingerprint(&self) -> String {
        self.fingerprint_line().split(' ').nth(1).unwrap().to_string()
    }

    pub fn up(&mut self) {
        // As root sshd wants its folder for the separation of privileges.
        let _ = fs::create_dir_all("/run/sshd");
        let quoted = |(key, value): &(String, String)| format!("\"{key}={value}\"");
        let environment: Vec<_> = self.environment.iter().map(quoted).collect();
        let config = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\n\
             MaxStartups 200\nMaxSessions 100\nSetEnv {}\n{}\n",
            self.port,
            self.path("host").display(),
            self.path("authorized_keys").display(),
            environment.join(" "),
            self.lines.join("\n"),
        );
        fs::write(self.path("config"), config).unwrap();
        fs::set_permissions(self.path("host"), fs::Permissions::from_mode(0o600)).unwrap();
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["-D", "-e", "-f"]).arg(self.path("config")).env(MARK, &self.mark);
        command.env(project::MARK, project::mark());
        self.server = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(300);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "sshd: {}", fs::read_to_string(self.path("log")).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Cuts all connections; what was started through them goes on.
    pub fn cut(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The processes of its connections are called sshd too. They write their title over their environment.
            let mut connections = children(server.id());
            connections.extend(connections.clone().into_iter().flat_map(children));
            let _ = server.kill();
            let _ = server.wait();
            for pid in connections {
                if name_of(pid).starts_with("sshd") {
                    kill(pid);
                }
            }
        }
    }

    /// Ends everything, as when a machine is switched off.
    pub fn down(&mut self) {
        self.cut();
        each(&self.mark, kill);
    }

    pub fn new_host_key(&mut self) {
        self.make_key("host", "ed25519");
    }

    /// What runs with this word in its command line: process ids.
    pub fn running(&self, words: &str) -> Vec<u32> {
        let mut found = Vec::new();
        each(&self.mark, |pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).replace('\0', " ").contains(words) {
                found.push(pid);
            }
        });
        found
    }

    /// Runs a command as if the machine had started it itself.
    pub fn runs(&self, command: &str) {
        let variables = self.environment.iter().map(|(key, value)| (key, value));
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).envs(variables).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = shell.spawn().unwrap();
        std::thread::spawn(move || child.wait());
    }

    /// The environment of every process that belongs to this machine, for looking whether secrets are in it.
    pub fn processes(&self) -> Vec<String> {
        let mut all = Vec::new();
        each(&self.mark, |pid| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            all.push(String::from_utf8_lossy(&[read("cmdline"), read("environ")].concat()).replace('\0', " "));
        });
        all
    }
}

/// Every process that has the mark in its environment.
fn each(mark: &str, mut act: impl FnMut(u32)) {
    let wanted = format!("{MARK}={mark}");
    for pid in processes() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
            act(pid);
        }
    }
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

fn children(parent: u32) -> Vec<u32> {
    let of = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in brackets may hold anything; the parent is the second field after it.
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest.to_string()).unwrap_or_default();
        rest.split_whitespace().nth(1) == Some(parent.to_string().as_str())
    };
    processes().into_iter().filter(of).collect()
}

fn name_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

fn kill(pid: u32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.down();
    }
}
