//! Tests of the names of machines as users write them, the keys that they have, and the host keys
//! in their known_hosts, with real OpenSSH servers and home folders that only the program under
//! test sees.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::project::{Outcome, Project, stripped};
use crate::sshd::Sshd;

/// The contents of a user's `~/.ssh`.
struct User {
    home: TempDir,
    project: Project,
}

impl User {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".ssh")).unwrap();
        Self { home, project: Project::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(".ssh").join(name)
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    /// A private key, under a name.
    fn key(&self, name: &str, from: &Path) -> &Self {
        self.file(name, &fs::read_to_string(from).unwrap())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.project.command(words);
        command.env("HOME", self.home.path()).env_remove("SSH_AUTH_SOCK");
        command
    }

    /// The outcome of `provision_gpu` with these options.
    fn provisions(&self, options: &str) -> Outcome {
        self.provisions_with(options, &[])
    }

    /// The same, with options of `outlier run`. The program that is sent claims to be another
    /// version, so the message about it comes from the machine, after the login, and nothing large
    /// is transferred.
    fn provisions_with(&self, options: &str, words: &[&str]) -> Outcome {
        let other = "#!/bin/sh\necho outlier 0.0.1 in $OUTLIER_TEST_NAME\n";
        self.project.file("other", other);
        fs::set_permissions(self.project.path("other"), fs::Permissions::from_mode(0o755)).unwrap();
        self.project.file("script.rhai", format!("provision_gpu(#{{ provider: \"ssh\", {options} }});"));
        let words = [&["run"], words, &["script.rhai"]].concat();
        let outcome = Outcome::of(self.command(&words).env("OUTLIER_WORKER", "other").output().unwrap());
        assert!([1, 3].contains(&outcome.code), "{}", outcome.stderr);
        outcome
    }

    #[track_caller]
    fn gets_in(&self, options: &str, name: &str) {
        let outcome = self.provisions(options);
        let said = format!("the worker says \"outlier 0.0.1 in {name}\"");
        assert!(outcome.stderr.contains(&said), "{options}: {}", outcome.stderr);
    }

    #[track_caller]
    fn is_refused(&self, options: &str, message: &str) {
        let outcome = self.provisions(options);
        assert!(outcome.stderr.contains(message), "expected {message:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("the worker says"), "{}", outcome.stderr);
    }
}

fn user_name() -> String {
    String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap().trim().to_string()
}

/// A server that says its name, on both loopback addresses.
fn server(name: &str) -> Sshd {
    let mut sshd = Sshd::for_client(&[("OUTLIER_TEST_NAME", name)]);
    sshd.line("ListenAddress ::1".to_string());
    sshd
}

/// A line of known_hosts.
fn known(host: &str, sshd: &Sshd, key: &str) -> String {
    let public = fs::read_to_string(sshd.path(&format!("{key}.pub"))).unwrap();
    format!("{host} {}\n", public.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn options(sshd: &Sshd) -> String {
    format!("host: \"{}\", key: \"{}\"", sshd.target(), sshd.key_file().display())
}

#[test]
fn a_server_with_three_host_keys_is_known_by_any() {
    let mut sshd = server("three");
    sshd.three_host_keys().up();
    let (options, place) = (options(&sshd), format!("[127.0.0.1]:{}", sshd.port));
    for key in ["host", "host_ecdsa", "host_rsa"] {
        let user = User::new();
        user.file("known_hosts", &known(&place, &sshd, key)).gets_in(&options, "three");
        // One fingerprint on the command line does as well, whichever key it is of, and so does the whole line.
        let line = sshd.fingerprint_line_of(key);
        let fingerprint = line.split(' ').nth(1).unwrap();
        for word in [fingerprint, &line, &format!("127.0.0.1={line}")] {
            let outcome = User::new().provisions_with(&options, &["--host-key", word]);
            assert!(outcome.stderr.contains("the worker says"), "{word}: {}", outcome.stderr);
        }
        // What a script names must be right, in the same spellings, and is not trusted for that.
        user.gets_in(&format!("{options}, fingerprint: \"{line}\""), "three");
        User::new().is_refused(&format!("{options}, fingerprint: \"{line}\""), "its host key is SHA256:");
    }
    // Of several that are known, the one that a script names.
    let user = User::new();
    let all: String = ["host", "host_ecdsa", "host_rsa"].map(|key| known(&place, &sshd, key)).concat();
    user.file("known_hosts", &all);
    user.gets_in(&format!("{options}, fingerprint: \"{}\"", sshd.fingerprint_line_of("host_rsa")), "three");
    user.project.file("own", known(&place, &sshd, "host_ecdsa"));
    user.gets_in(&format!("{options}, known_hosts: \"own\""), "three");
    // A key of a kind that it does not have any more.
    let user = User::new();
    let stranger = server("stranger");
    stranger.make_key("rsa", "rsa");
    user.file("known_hosts", &known(&place, &stranger, "rsa"));
    user.is_refused(&options, "expected another one by");
    user.is_refused(&format!("{options}, fingerprint: \"SHA256:short\""), "is not the fingerprint of a host key");
}

#[test]
fn known_hosts_are_read_as_ssh_reads_them() {
    let mut sshd = server("known");
    sshd.three_host_keys().up();
    let (options, place) = (options(&sshd), format!("[127.0.0.1]:{}", sshd.port));
    let junk = "somehost\n1.2.3.4 1024 35 1234567\n[127.0.0.1 ssh-rsa\n# comment\n\n@nobody x y z\n";
    let user = User::new();
    let knows = |text: &str| user.file("known_hosts", text).gets_in(&options, "known");
    let refuses = |text: &str, message: &str| user.file("known_hosts", text).is_refused(&options, message);
    knows(&format!("{junk}{}", known(&place, &sshd, "host_ecdsa")));
    knows(&known("[127.0.0.*]:*", &sshd, "host_rsa"));
    knows(&known("10.0.0.1,[127.?.0.1]:*", &sshd, "host_rsa"));
    // What is known at the usual port is known at every port.
    knows(&known("127.0.0.1", &sshd, "host_rsa"));
    user.file("known_hosts", &known(&place, &sshd, "host_rsa"));
    assert!(Command::new("ssh-keygen").arg("-Hf").arg(user.path("known_hosts")).output().unwrap().status.success());
    let hashed = fs::read_to_string(user.path("known_hosts")).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    knows(&hashed);
    refuses(&known(&format!("!{place},[127.*]:*"), &sshd, "host_rsa"), "expected one that stands in");
    let other = server("other");
    refuses(&known(&place, &other, "host"), "expected another one by");
    let revoked = format!("{}@revoked * {}", known(&place, &sshd, "host"), known("", &sshd, "host").trim_start());
    refuses(&revoked, "known_hosts, line 2, marks as revoked");
    refuses(&format!("@cert-authority {}", known(&place, &other, "host")), "a @cert-authority stands there");
    refuses("", "expected one that stands in");
    fs::remove_file(user.path("known_hosts")).unwrap();
    user.is_refused(&options, "expected one that stands in");
}

#[test]
pub fn machines_are_called_by_their_names_in_the_users_config() {
    let (mut gate, mut inner) = (server("gate"), server("inner"));
    gate.up();
    inner.up();
    let user = User::new();
    user.key("gate key", &gate.key_file()).key("id_inner", &inner.key_file());
    user.file("known_gate", &known(&format!("[127.0.0.1]:{}", gate.port), &gate, "host"));
    user.file("known_hosts", &known(&format!("[::1]:{}", inner.port), &inner, "host"));
    let me = user_name();
    let home = user.home.path().display();
    let config = format!(
        "Include more/*.conf\n\
         Host door-*\n  HostName 127.0.0.1\n  User {me}\n  IdentityFile \"~/.ssh/gate key\"\n  UserKnownHostsFile ~/.ssh/known_gate\n\
         Host inner\n  HostName=::1\n  Port {}\n  User {me}\n  ProxyJump {me}@door-1\n\
         Host older\n  HostName ::1\n  Port {}\n  User {me}\n  ProxyCommand ssh -q -W %h:%p door-1\n\
         Host circle\n  ProxyJump circle\n\
         Host special\n  ProxyCommand corkscrew proxy 80 %h %p\n\
         Match exec \"touch {home}/made\"\n  User nobody\n\
         Host *\n  IdentityFile %d/.ssh/id_%n\n  IdentityFile ~/.ssh/id_inner\n",
        inner.port, inner.port
    );
    fs::create_dir(user.path("more")).unwrap();
    user.file("more/ports.conf", &format!("Host door-1\n Port {}\n", gate.port)).file("config", &config);
    user.gets_in("host: \"door-1\"", "gate");
    user.gets_in("host: \"inner\"", "inner");
    user.gets_in("host: \"ssh://inner/\"", "inner");
    user.gets_in("host: \"older\"", "inner");
    user.gets_in(&format!("host: \"{me}@[::1]:{}\"", inner.port), "inner");
    user.gets_in(
        &format!("host: \"{me}@inner\", key: \"~/.ssh/id_inner\", known_hosts: \"~/.ssh/known_hosts\""),
        "inner",
    );
    user.is_refused("host: \"circle\"", "machines on the way");
    user.is_refused("host: \"special\"", "reaches it through a ProxyCommand, which this program does not run");
    let outcome = user.provisions("host: \"inner\"");
    assert!(outcome.stderr.contains("`Match exec` cannot be judged here"), "{}", outcome.stderr);
    assert!(!user.home.path().join("made").exists(), "nothing was started for it");
    // Who is on the way must be known as well.
    user.file("known_gate", "").is_refused("host: \"inner\"", &format!("@127.0.0.1:{}: its host key is", gate.port));
    // The machine is known by its own name.
    let alias = format!("Host cluster\n HostName ::1\n Port {}\n User {me}\n HostKeyAlias the-cluster\n", inner.port);
    user.file("config", &format!("{alias} IdentityFile ~/.ssh/id_inner\n"));
    user.is_refused("host: \"cluster\"", "expected one that stands in");
    user.file("known_hosts", &known("the-cluster", &inner, "host")).gets_in("host: \"cluster\"", "inner");
    user.file("config", "Host clu*\n Port x\n").is_refused("host: \"cluster\"", "config, line 2: Port is x");
    fs::set_permissions(user.path("config"), fs::Permissions::from_mode(0o666)).unwrap();
    user.is_refused("host: \"cluster\"", "others may write to it");
}

#[test]
fn addresses_are_understood_in_every_spelling() {
    let mut sshd = server("six");
    sshd.up();
    let user = User::new();
    let place = |host: &str| known(&format!("[{host}]:{}", sshd.port), &sshd, "host");
    user.file("known_hosts", &[place("::1"), place("127.0.0.1")].concat());
    user.file("config", &format!("Host ::1 127.0.0.1\n Port {}\n", sshd.port)).key("id_ed25519", &sshd.key_file());
    let (me, port) = (user_name(), sshd.port);
    for host in [
        format!("{me}@[::1]:{port}"),
        format!("[::1]:{port}"),
        "::1".to_string(),
        format!("{me}@::1"),
        "[::1]".to_string(),
        format!("ssh://{me}@[::1]:{port}"),
        format!("ssh://{me}@127.0.0.1:{port}/"),
        "127.0.0.1".to_string(),
    ] {
        user.gets_in(&format!("host: \"{host}\""), "six");
    }
    for host in ["::1:2222:x", "a:port", "-oProxyCommand=x", "a b", "ssh://a/b"] {
        user.project.file("script.rhai", format!("provision_gpu(#{{ provider: \"ssh\", host: \"{host}\" }});"));
        let outcome = Outcome::of(user.command(&["run", "script.rhai"]).output().unwrap()).ends(1);
        assert!(outcome.stderr.contains("is not an SSH address"), "{}", outcome.stderr);
    }
}

/// An SSH agent that ends with its value.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path, keys: &[PathBuf]) -> Self {
        let agent = Command::new("ssh-agent").arg("-D").arg("-a").arg(socket).stdout(Stdio::null()).spawn().unwrap();
        let mut agent = Self(agent);
        // The socket has its place before the agent listens at it: only one that takes a connection is ready.
        while UnixStream::connect(socket).is_err() {
            assert!(agent.0.try_wait().unwrap().is_none(), "ssh-agent has ended");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        for key in keys {
            let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", socket).output().unwrap();
            assert!(added.status.success(), "{added:?}");
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_keys_that_people_have_are_tried() {
    let (mut sshd, other) = (server("keys"), Sshd::prepare("", &[]));
    sshd.up();
    let options = format!("host: \"{}\"", sshd.target());
    let knowing = || {
        let user = User::new();
        user.file("known_hosts", &known(&format!("[127.0.0.1]:{}", sshd.port), &sshd, "host"));
        user
    };
    knowing().is_refused(&options, "there is no key to log in with");
    for (name, kind) in [("id_ed25519", "ed25519"), ("id_ecdsa", "ecdsa"), ("id_rsa", "rsa")] {
        let public = sshd.make_key(name, kind);
        fs::write(sshd.path("authorized_keys"), public).unwrap();
        let user = knowing();
        user.key(name, &sshd.path(name)).gets_in(&options, "keys");
        if name != "id_ed25519" {
            // One that is not taken does not end the search.
            other.make_key("stranger", "ed25519");
            user.key("id_ed25519", &other.path("stranger")).gets_in(&options, "keys");
        }
    }
    let user = knowing();
    user.key("id_ed25519", &other.path("stranger"));
    user.is_refused(&options, "no key is accepted for");
    user.is_refused(&options, "tried were");
    // Of an agent's keys any may be the one.
    let socket = user.path("agent");
    for name in ["stranger1", "stranger2"] {
        other.make_key(name, "ed25519");
    }
    let keys = [other.path("stranger1"), other.path("stranger2"), sshd.path("id_rsa")];
    let _agent = Agent::start(&socket, &keys);
    let config = format!("IdentityAgent {}\n", socket.display());
    user.file("config", &config).gets_in(&options, "keys");
    user.file("config", "IdentityAgent none\n").is_refused(&options, "no key is accepted for");
    // A key that is named and that the agent holds, as those with a passphrase are used.
    let public = fs::read_to_string(sshd.path("id_rsa.pub")).unwrap();
    user.file("work.pub", &public).file("config", &format!("{config}IdentityFile ~/.ssh/work\nIdentitiesOnly yes\n"));
    user.gets_in(&options, "keys");
    user.file("config", &format!("{config}IdentityFile ~/.ssh/id_ed25519\nIdentitiesOnly yes\n"));
    user.is_refused(&options, "id_ed25519");
}

#[test]
fn keys_that_only_the_agent_can_use_are_identities_too() {
    let (mut sshd, other) = (server("agent"), Sshd::prepare("", &[]));
    sshd.up();
    let options = format!("host: \"{}\"", sshd.target());
    let only = |user: &User, config: &str| {
        let agent = user.path("agent").display().to_string();
        user.file("config", &format!("Host *\n IdentitiesOnly yes\n IdentityAgent {agent}\n{config}"));
    };
    for (usual, kind) in [("id_ed25519", "ed25519"), ("id_ecdsa", "ecdsa"), ("id_rsa", "rsa")] {
        let user = User::new();
        user.file("known_hosts", &known(&format!("[127.0.0.1]:{}", sshd.port), &sshd, "host"));
        let public = sshd.make_key("plain", kind);
        fs::write(sshd.path("authorized_keys"), &public).unwrap();
        // So many others that a server closes the connection before it sees the right one.
        let others = (0..6).map(|i| format!("other{i}")).inspect(|name| drop(other.make_key(name, "ed25519")));
        let mut keys: Vec<PathBuf> = others.map(|name| other.path(&name)).collect();
        keys.push(sshd.path("plain"));
        let _agent = Agent::start(&user.path("agent"), &keys);
        user.key("locked", &sshd.path("plain"));
        let mut locking = Command::new("ssh-keygen");
        locking.args(["-q", "-p", "-P", "", "-N", "secret", "-f"]).arg(user.path("locked"));
        assert!(locking.status().unwrap().success());
        // The only half here is the private one, and has a passphrase.
        only(&user, " IdentityFile ~/.ssh/locked\n");
        user.gets_in(&options, "agent");
        // The only half here is the public one, by its own name or by that of the private one.
        user.file("hw.pub", &public);
        for name in ["hw.pub", "hw"] {
            only(&user, &format!(" IdentityFile ~/.ssh/{name}\n"));
            user.gets_in(&options, "agent");
        }
        // The usual names count as named.
        only(&user, "");
        user.file(&format!("{usual}.pub"), &public).gets_in(&options, "agent");
        user.key(usual, &user.path("locked")).gets_in(&options, "agent");
        fs::remove_file(user.path(&format!("{usual}.pub"))).unwrap();
        user.gets_in(&options, "agent");
        // Others do not.
        fs::remove_file(user.path(usual)).unwrap();
        user.is_refused(&options, "there is no key to log in with");
        user.key(usual, &other.path("other0"));
        user.is_refused(&options, &format!("tried were {}", user.path(usual).display()));
        let stranger = other.make_key("stranger", "ed25519");
        user.file("hw.pub", &stranger);
        only(&user, " IdentityFile ~/.ssh/hw.pub\n");
        let message =
            format!("no SSH agent holds the key whose public half is here as {}", user.path("hw.pub").display());
        user.is_refused(&options, &message);
    }
}

#[test]
fn the_users_config_is_read_as_ssh_reads_it() {
    let mut sshd = server("config");
    sshd.up();
    let user = User::new();
    user.file("known_hosts", &known(&format!("[127.0.0.1]:{}", sshd.port), &sshd, "host"));
    user.key("id_ed25519", &sshd.key_file());
    let settings = format!(" HostName 127.0.0.1\n Port {}\n User {}\n", sshd.port, user_name());
    fs::create_dir(user.path("config.d")).unwrap();
    user.file("config.d/10-lab", &format!("Host box\n{settings}")).file("config.d/old", "Host box\n Port 1\n");
    for config in [
        "Include ~/.ssh/config.d/[0-9]*\n".to_string(),
        "Include config.d/[!a-z]*\n".to_string(),
        format!("Match host=box\n{settings}"),
        format!("Match host other exec \"true\"\n Port 9\nHost box\n{settings}"),
        format!("Host Box\n Port 9\nHost box\n{settings}"),
    ] {
        let outcome = user.file("config", &config).provisions("host: \"box\"");
        assert!(
            outcome.stderr.contains("in config\"") && !outcome.stderr.contains("cannot be judged"),
            "{config}: {}",
            outcome.stderr
        );
    }
}

/// A name in the user's config does not let a script run commands on this computer.
#[test]
pub fn this_computer_is_this_computer_behind_an_alias_and_on_a_way_through_itself() {
    let mut sshd = server("here");
    sshd.up();
    let user = User::new();
    let place = |host: &str| known(&format!("[{host}]:{}", sshd.port), &sshd, "host");
    user.file("known_hosts", &[place("::1"), place("127.0.0.1"), place("localhost")].concat());
    user.key("id_ed25519", &sshd.key_file());
    let port = sshd.port;
    user.file(
        "config",
        &format!(
            "Host alias\n HostName localhost\n Port {port}\nHost six\n HostName ::1\n Port {port}\n\
             Host gate\n HostName 127.0.0.1\n Port {port}\nHost behind\n HostName 127.0.0.1\n Port {port}\n ProxyJump gate\n"
        ),
    );
    for host in ["alias", "six", "behind"] {
        user.project.file(
            "script.rhai",
            format!(
                "let gpu = provision_gpu(#{{ provider: \"ssh\", host: \"{host}\" }});\n\
                 try {{ gpu.run_command(\"touch $HOME/made\"); print(\"DONE\"); }} catch (e) {{ print(e.message); }}\n\
                 try {{ gpu.download(\"/etc/hostname\", \"x\"); print(\"DONE\"); }} catch (e) {{ print(e.message); }}"
            ),
        );
        let mut command = user.command(&["run", "script.rhai"]);
        let said = Outcome::of(command.env("OUTLIER_WORKER", stripped()).output().unwrap()).ok();
        assert!(said.contains("commands do not run on this machine"), "{host}: {said}");
        assert!(said.contains("is not inside the project") && !said.contains("DONE"), "{host}: {said}");
        assert!(!sshd.home().join("made").exists());
    }
}

#[test]
fn a_key_that_the_users_config_revokes_is_not_trusted() {
    let mut sshd = server("revoked");
    sshd.up();
    let (options, place) = (options(&sshd), format!("[127.0.0.1]:{}", sshd.port));
    let user = User::new();
    let known = known(&place, &sshd, "host");
    user.file("known_hosts", &known).gets_in(&options, "revoked");
    let revoked = |name: &str| format!("Host 127.0.0.1\n  RevokedHostKeys {name}\n");
    user.file("other", "# nothing yet\n").file("config", &revoked("~/.ssh/other")).gets_in(&options, "revoked");
    user.file("config", &revoked("none")).gets_in(&options, "revoked");
    let key = known.split_once(' ').unwrap().1;
    user.file("other", &format!("# lost\n{key}")).file("config", &revoked("~/.ssh/other"));
    user.is_refused(&options, "line 2, marks as revoked");
    // What cannot be read says nothing about a key, and so none is accepted.
    user.file("config", &revoked("~/.ssh/none")).is_refused(&options, "no host key is accepted");
    user.file("other", "SSHKRL\n\0").file("config", &revoked("~/.ssh/other"));
    user.is_refused(&options, "no host key is accepted");
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let mut sshd = server("open");
    sshd.up();
    let user = User::new();
    user.file("known_hosts", &known(&format!("[127.0.0.1]:{}", sshd.port), &sshd, "host"));
    let host = format!("host: \"{}\"", sshd.target());
    user.key("id_ed25519", &sshd.key_file());
    let mode = |mode| fs::set_permissions(user.path("id_ed25519"), fs::Permissions::from_mode(mode)).unwrap();
    for (bits, open) in [(0o600, false), (0o400, false), (0o640, true), (0o644, true), (0o602, true)] {
        mode(bits);
        match open {
            false => user.gets_in(&host, "open"),
            true => user.is_refused(&host, "others on this computer may read"),
        }
    }
    let named = format!("{host}, key: {:?}", user.path("id_ed25519").display().to_string());
    user.is_refused(&named, "others on this computer may read");
    mode(0o600);
    user.gets_in(&named, "open");
}
