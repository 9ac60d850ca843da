//! What stands in a place is another kind of thing than is expected there, or changes while it is
//! read: the files of a model, of texts and of ids, those of `ssh`, `.env`, and what `sync` meets.

use std::ffi::CString;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::chance::Chance;
use crate::mutate;
use crate::process::Start;
use crate::workshop::{TEXT, TRAINED, Workshop, copy, write};

/// How long a file goes on changing.
const CHANGING: Duration = Duration::from_millis(1500);

/// Puts something strange at a path where nothing is, if there can be anything.
fn strange(path: &Path, chance: &mut Chance) {
    let pipe = || {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends with NUL.
        match unsafe { libc::mkfifo(path.as_ptr(), 0o600) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    let _ = match chance.below(8) {
        0 => pipe(),
        // The socket stays when its listener is gone. Paths of sockets are short.
        1 => UnixListener::bind(path).map(drop).or_else(|_| pipe()),
        2 => fs::create_dir(path),
        3 => fs::write(path, ""),
        4 => File::create(path).and_then(|file| file.set_len(1 << chance.below(42))),
        5 => symlink(path.file_name().unwrap(), path),
        6 => symlink(chance.pick(&["none", ".", "..", "/", "../project", "/dev/zero", "/dev/full", "/dev/tty"]), path),
        _ => {
            let places = ["/proc/self/mem", "/proc/self/maps", "/proc/kmsg", "/proc/self/fd/0", "/sys/kernel/notes"];
            symlink(chance.pick(&places), path)
        }
    };
}

/// Changes a file for a while: it grows, shrinks, is written anew, or exchanged for something else.
fn changing(path: PathBuf, mut chance: Chance) -> Vec<String> {
    let (begin, data) = (Instant::now(), fs::read(&path).unwrap_or_default());
    while begin.elapsed() < CHANGING {
        let open = || File::options().write(true).open(&path);
        let _ = match chance.below(5) {
            0 => open().and_then(|file| file.set_len(chance.below(2 * data.len() + 1) as u64)),
            1 => open().and_then(|file| file.write_all_at(&chance.bytes(64), chance.below(data.len() + 1) as u64)),
            2 => fs::write(&path, &data),
            3 => fs::remove_file(&path),
            _ => {
                let _ = fs::remove_file(&path);
                strange(&path, &mut chance);
                fs::remove_file(&path).or_else(|_| fs::remove_dir(&path))
            }
        };
        std::thread::sleep(Duration::from_millis(chance.below(30) as u64));
    }
    let _ = fs::remove_file(&path);
    Vec::new()
}

pub fn places(workshop: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let model = *chance.pick(&["olmoe", "llama", TRAINED]);
    copy(&workshop.model(model), &folder.join("m"));
    write(folder.join("t.txt"), TEXT.repeat(200));
    write(folder.join("ids.json"), "[[1, 2, 3], [4, 5, 6]]");
    let mut files: Vec<PathBuf> =
        crate::names(&folder.join("m")).iter().map(|name| folder.join("m").join(name)).collect();
    files.sort();
    files.extend([folder.join("t.txt"), folder.join("ids.json")]);
    let tokens = match model == TRAINED && chance.one_in(2) {
        true => "load_tokens(#{ text: \"t.txt\", model: model, num_sequences: 2, sequence_length: 6 })",
        false => "load_tokens(#{ ids: \"ids.json\" })",
    };
    let text = format!("let model = load_model(\"m\");\nprint(model.extract_layernorms({tokens}).norms.len());\n");
    write(folder.join("s.rhai"), text);
    let (path, start) = (chance.pick(&files).clone(), Start::of(&["run", "s.rhai"]));
    match chance.below(4) {
        0 => start,
        1 | 2 => {
            fs::remove_file(&path).unwrap();
            strange(&path, chance);
            start
        }
        _ => {
            let chance = Chance::of(chance.word(), "changing", 0);
            Start { meanwhile: Some(Box::new(move || changing(path, chance))), ..start }
        }
    }
}

/// Lines of `~/.ssh/config`. The programs in them leave a file if they run.
const CONFIG: &[&str] = &[
    "Host *",
    "Host 127.0.0.1 !127.*",
    "Host",
    "Match all",
    "Match exec \"touch pwned\"",
    "Match host=* exec=\"touch pwned\"",
    "Match originalhost 127.0.0.1 !user nobody",
    "Match",
    "  HostName 127.0.0.1",
    "  HostName -oProxyCommand=touch",
    "  HostName $(touch pwned)",
    "  HostName `touch pwned`;%h",
    "  Port 9",
    "  Port 99999999999999999999",
    "  Port -1",
    "  User \"$(touch pwned)\"",
    "  User root",
    "  IdentityFile ~/.ssh/id_%h_%p_%r_%%_${HOME}_${NONE}",
    "  IdentityFile ~/.ssh",
    "  IdentityFile /dev/zero",
    "  IdentityAgent ~/.ssh/pipe",
    "  IdentitiesOnly yes",
    "  ProxyCommand touch pwned",
    "  ProxyCommand ssh -W %h:%p -oProxyCommand=touch",
    "  ProxyCommand none",
    "  ProxyJump 127.0.0.1",
    "  ProxyJump 127.0.0.1,127.0.0.1:9,me@127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1,127.0.0.1",
    "  ProxyJump -oProxyCommand=touch",
    "  ProxyJump none",
    "  KnownHostsCommand /usr/bin/touch pwned",
    "  LocalCommand touch pwned",
    "  PermitLocalCommand yes",
    "  UserKnownHostsFile ~/.ssh/known_hosts /dev/zero ~/.ssh/pipe none",
    "  GlobalKnownHostsFile /proc/self/mem",
    "  RevokedHostKeys ~/.ssh/known_hosts",
    "  RevokedHostKeys /dev/zero",
    "  HostKeyAlias a,b|1|c",
    "  Include config",
    "  Include ~/.ssh/*",
    "  Include /proc/*/* ~/.ssh/pipe",
    "  Include [a",
    "  Include \"~/.ssh/con*\" config config",
];
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
const KNOWN: &[&str] = &[
    "127.0.0.1",
    "[127.0.0.1]:9",
    "@revoked *",
    "@cert-authority *",
    "@none *",
    "|1|AAAA|AAAA",
    "|1||",
    "*a*a*a*a",
    "!*,*",
    "#",
];

/// The files of `ssh`, damaged, for a machine that does not answer.
/// The text with this computer in place of other addresses that it names: a changed digit makes one
/// of those, and a connection there is waited for.
fn on_this_computer(text: &[u8]) -> Vec<u8> {
    let is_of_address = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let leads_away = |part: &[u8]| {
        let address = std::str::from_utf8(part).ok().and_then(|part| part.parse::<Ipv4Addr>().ok());
        address.is_some_and(|address| !address.is_loopback())
    };
    let parts = text.chunk_by(|a, b| is_of_address(a) == is_of_address(b));
    parts.map(|part| if leads_away(part) { &b"127.0.0.1"[..] } else { part }).collect::<Vec<_>>().concat()
}

pub fn ssh(_: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let home = folder.join("home/.ssh");
    fs::create_dir_all(&home).unwrap();
    let lines = |chance: &mut Chance, line: &mut dyn FnMut(&mut Chance) -> String| {
        let text: Vec<String> = (0..chance.below(12)).map(|_| line(chance)).collect();
        let separator = *chance.pick(&["\n", "\n", "\r\n", "\n\n\0"]);
        let text = text.join(separator).into_bytes();
        let end = text.len();
        if chance.one_in(3) { mutate::bytes(text, 0..end, chance) } else { text }
    };
    let config = lines(chance, &mut |chance| match chance.one_in(40) {
        true => format!("  User {}", "x".repeat(*chance.pick(&[1 << 10, 1 << 19, 10 << 20]))),
        false => chance.pick(CONFIG).to_string(),
    });
    let config = on_this_computer(&config);
    let known = lines(chance, &mut |chance| match chance.one_in(40) {
        true => format!("{} {KEY}", "*a,".repeat(*chance.pick(&[1 << 10, 3 << 20]))),
        false => format!("{} {KEY}", chance.pick(KNOWN)),
    });
    let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n", KEY.repeat(3));
    for (name, data) in [("config", config), ("known_hosts", known), ("id_ed25519", key.into_bytes())] {
        let path = home.join(name);
        if chance.one_in(10) {
            strange(&path, chance);
            continue;
        }
        write(&path, data);
        let mode = *chance.pick(&[0o600, 0o600, 0o600, 0o644, 0o666]);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let host = *chance.pick(&["127.0.0.1", "me@127.0.0.1:9", "[::1]:9", "ssh://127.0.0.1:9/"]);
    let text = format!(
        "try {{ provision_gpu(#{{ provider: \"ssh\", host: \"{host}\", patience_minutes: 0.01 }}); }} catch (e) {{ print(e.kind); }}\n"
    );
    write(folder.join("s.rhai"), text);
    Start { may_write: vec!["home", "results", "logs", "hf", "cache"], ..Start::of(&["run", "s.rhai"]) }
}

pub fn dotenv(_: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    let path = folder.join(".env");
    let line = |chance: &mut Chance| {
        let name =
            *chance.pick(&["HF_TOKEN", "RUNPOD_API_KEY", "HF_ENDPOINT", "OUTLIER_RUNPOD_URL", "PATH", "", "\0", "é"]);
        let before = *chance.pick(&["", "export ", "export\t", "\u{feff}", "# ", "  "]);
        let value = *chance.pick(&[
            "x",
            "\"x",
            "'x' y",
            "\"\"",
            "$(touch pwned)",
            "a b",
            "=",
            "\u{1b}[31m",
            "${HOME}",
            "\u{202e}x",
        ]);
        format!("{before}{name}={value}{}", chance.pick(&["", " # said", "\r", "\0"]))
    };
    match chance.below(6) {
        0 => strange(&path, chance),
        1 => write(&path, "HF_TOKEN=x\n".repeat(*chance.pick(&[5_000, 6_000, 10_000_000]))),
        _ => {
            let text: String = (0..chance.below(9)).map(|_| line(chance) + "\n").collect();
            let end = text.len();
            write(&path, if chance.one_in(3) { mutate::bytes(text.into(), 0..end, chance) } else { text.into() });
            fs::set_permissions(&path, fs::Permissions::from_mode(*chance.pick(&[0o600, 0o644, 0o666, 0o400])))
                .unwrap();
        }
    }
    write(folder.join("s.rhai"), "try { load_model(\"lab/none\"); } catch (e) { print(e.kind); }\n");
    Start { may_write: vec!["home", "results", "logs", "hf", "cache"], ..Start::of(&["run", "s.rhai"]) }
}

/// Names that are awkward in lists, commands and terminals.
const NAMES: &[&str] = &[
    "a b",
    "-rf",
    "--",
    "'",
    "\"",
    "$(touch pwned)",
    "`touch pwned`",
    "a\nb",
    "a\n./out/b",
    "\u{1b}[31m",
    "\\",
    "*",
    "?",
    "[a]",
    "~",
    "#",
    "A.txt",
    "a.txt",
    ".hidden",
    "x.part",
    ".env",
    "run.sh",
    "\u{202e}txt",
    "é",
];

/// A folder of awkward names, links and things that are no files.
fn mess(folder: &Path, chance: &mut Chance) {
    let _ = fs::create_dir_all(folder);
    for _ in 0..1 + chance.below(6) {
        let path = folder.join(chance.pick(NAMES));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match chance.below(6) {
            0 => strange(&path, chance),
            1 => mess(&path, chance),
            _ => drop(fs::write(&path, chance.bytes(20))),
        }
    }
    if chance.one_in(4) {
        let _ = fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "x");
    }
}

/// Sends and fetches folders that are a mess, and change meanwhile.
pub fn sync(_: &Workshop, folder: &Path, chance: &mut Chance) -> Start {
    mess(&folder.join("data"), chance);
    let [up, down] = [(); 2].map(|()| {
        *chance.pick(&["data", "data/*", "./data/a*", "out", "out/*", "*", "-rf", "data/../out", "~", "out/a\\nb"])
    });
    let text = format!(
        "let gpu = provision_gpu(#{{ provider: \"ssh\", host: \"localhost\", patience_minutes: 0.05, lease_minutes: 0.2 }});\n\
         for turn in 0..3 {{\n    try {{ gpu.sync(#{{ up: [\"data\"] }}); }} catch (e) {{ print(e.kind); }}\n    \
         try {{ gpu.sync(#{{ up: [\"{up}\"], down: [\"{down}\"] }}); }} catch (e) {{ print(e.kind); }}\n    sleep(0.1);\n}}\n"
    );
    write(folder.join("s.rhai"), text);
    let (mut other, projects, own) =
        (Chance::of(chance.word(), "there", 0), folder.join("home/.outlier/projects"), folder.join("data"));
    let meanwhile = move || {
        let begin = Instant::now();
        while begin.elapsed() < CHANGING {
            for name in crate::names(&projects) {
                mess(&projects.join(name).join("out"), &mut other);
            }
            mess(&own, &mut other);
            std::thread::sleep(Duration::from_millis(50));
        }
        Vec::new()
    };
    Start {
        leaves_processes: true,
        may_write: vec!["home", "results", "logs", "hf", "cache", "data", "out"],
        meanwhile: Some(Box::new(meanwhile)),
        ..Start::of(&["run", "s.rhai"])
    }
}
