//! Files of known hosts, read as OpenSSH reads them: patterns, hashed names and markers. Invalid
//! lines are skipped.

use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::wildcard::one_fits_host;
use crate::outside;

/// The largest file of known hosts in bytes.
const MOST: u64 = 64 << 20;
const PORT: u16 = 22;
/// First bytes of a binary list of revoked keys.
const KRL: &[u8] = b"SSHKRL\n\0";

/// Types of host keys and the names by which they are requested, best first. Unknown hosts are
/// asked in this order.
const KINDS: &[(&str, &str)] = &[
    ("ssh-ed25519", "ssh-ed25519"),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"),
    ("ssh-rsa", "rsa-sha2-512,rsa-sha2-256,ssh-rsa"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Key,
    /// A key of a certificate authority.
    Authority,
    /// A revoked key.
    Revoked,
}

struct Line {
    mark: Mark,
    names: String,
    kind: String,
    key: Vec<u8>,
    file: PathBuf,
    number: usize,
}

/// The entries for a host and the key that it has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Known,
    /// The host has other known keys; the file and line of one of them.
    Other(PathBuf, usize),
    Unknown,
    /// The key is revoked.
    Revoked(PathBuf, usize),
}

/// The names by which a host is looked up.
#[derive(Clone, Debug)]
pub struct Looked {
    pub host: String,
    pub port: u16,
    /// `HostKeyAlias` of `~/.ssh/config`, which replaces host and port.
    pub alias: Option<String>,
}

impl Looked {
    fn name(&self) -> String {
        match (&self.alias, self.port) {
            (Some(alias), _) => alias.to_lowercase(),
            (None, PORT) => self.host.to_lowercase(),
            (None, port) => format!("[{}]:{port}", self.host.to_lowercase()),
        }
    }

    /// A key for a host at the usual port is valid at other ports as well.
    fn at_the_usual_port(&self) -> Option<String> {
        (self.alias.is_none() && self.port != PORT).then(|| self.host.to_lowercase())
    }

    /// The key as a line for a file of known hosts.
    pub fn line(&self, key: &[u8]) -> String {
        format!("{} {} {}", self.name(), kind(key), Base64::encode_string(key))
    }
}

/// The type at the beginning of a key in SSH's format, such as `ssh-ed25519`.
pub(super) fn kind(key: &[u8]) -> String {
    let length = key.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let name = key.get(4..).and_then(|rest| rest.get(..length)).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// Lines of files of known hosts.
pub(super) struct Hosts(Vec<Line>);

impl Hosts {
    /// Reads `files`. A missing file has no lines.
    pub(super) fn read(files: &[PathBuf]) -> Self {
        let mut lines = Vec::new();
        for file in files {
            let Ok(bytes) = outside::read(file, MOST) else { continue };
            let text = String::from_utf8_lossy(&bytes);
            lines.extend(text.lines().enumerate().filter_map(|(number, text)| line(text, file, number + 1)));
        }
        Self(lines)
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(move |line| line.is_of(name))
    }

    pub(super) fn standing(&self, looked: &Looked, key: &[u8]) -> Standing {
        let name = looked.name();
        let usual = looked.at_the_usual_port();
        let named = || self.of(&name).chain(usual.iter().flat_map(|name| self.of(name)));
        if let Some(line) = named().find(|line| line.mark == Mark::Revoked && line.key == key) {
            return Standing::Revoked(line.file.clone(), line.number);
        }
        let mut keys = self.of(&name).filter(|line| line.mark == Mark::Key).peekable();
        let other = keys.peek().map(|line| Standing::Other(line.file.clone(), line.number));
        if keys.any(|line| line.key == key) {
            return Standing::Known;
        }
        let at_usual = || usual.iter().flat_map(|name| self.of(name));
        match other {
            Some(other) => other,
            None if at_usual().any(|line| line.mark == Mark::Key && line.key == key) => Standing::Known,
            None => Standing::Unknown,
        }
    }

    /// Algorithms of host keys in the order of request, one per type, those of known keys first.
    pub(super) fn algorithms(&self, looked: &Looked) -> Vec<&'static str> {
        let mut known: Vec<&str> = Vec::new();
        for name in [Some(looked.name()), looked.at_the_usual_port()].into_iter().flatten() {
            if known.is_empty() {
                known.extend(self.of(&name).filter(|line| line.mark == Mark::Key).map(|line| line.kind.as_str()));
            }
        }
        let is_known = |kind: &str| known.contains(&kind);
        let first = KINDS.iter().filter(|(kind, _)| is_known(kind));
        let rest = KINDS.iter().filter(|(kind, _)| !is_known(kind));
        first.chain(rest).map(|(_, names)| *names).collect()
    }

    /// True if there is a certificate authority for this host.
    pub(super) fn has_authority(&self, looked: &Looked) -> bool {
        self.of(&looked.name()).any(|line| line.mark == Mark::Authority)
    }
}

/// The line on which a key stands in a file of revoked keys, with one public key per line.
///
/// # Errors
/// The reason for which the file says nothing. As in `ssh`, no key is accepted then.
pub(super) fn revoked(file: &Path, key: &[u8]) -> Result<Option<usize>, String> {
    let bytes = outside::read(file, MOST).map_err(|e| e.to_string())?;
    if bytes.starts_with(KRL) {
        return Err("it is a list in the binary form of `ssh-keygen -k`, which this program does not read".to_string());
    }
    let text = String::from_utf8_lossy(&bytes);
    // Options and comments may stand around the key.
    let is_key = |text: &str| {
        let mut words = text.split_whitespace();
        !text.trim_start().starts_with('#')
            && words.any(|word| Base64::decode_vec(word).is_ok_and(|found| found == key))
    };
    Ok(text.lines().position(is_key).map(|line| line + 1))
}

impl Line {
    fn is_of(&self, name: &str) -> bool {
        match self.names.strip_prefix("|1|") {
            Some(hashed) => is_hash_of(hashed, name),
            None => one_fits_host(self.names.split(','), name),
        }
    }
}

/// True if `SALT|HASH`, in base64, is the output of ssh-keygen -H for `name`.
fn is_hash_of(hashed: &str, name: &str) -> bool {
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    let (Ok(salt), Ok(hash)) = (Base64::decode_vec(salt), Base64::decode_vec(hash)) else { return false };
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(&salt) else { return false };
    mac.update(name.as_bytes());
    mac.verify_slice(&hash).is_ok()
}

/// None for a comment, and for an invalid line.
fn line(text: &str, file: &Path, number: usize) -> Option<Line> {
    let mut words = text.split_whitespace().peekable();
    let mark = match *words.peek()? {
        word if word.starts_with('#') => return None,
        "@cert-authority" => Mark::Authority,
        "@revoked" => Mark::Revoked,
        word if word.starts_with('@') => return None,
        _ => Mark::Key,
    };
    if mark != Mark::Key {
        words.next();
    }
    let (names, announced, key) = (words.next()?.to_string(), words.next()?, words.next()?);
    let key = Base64::decode_vec(key).ok()?;
    let kind = kind(&key);
    (kind == announced).then(|| Line { mark, names, kind, key, file: file.to_path_buf(), number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str, content: u8) -> Vec<u8> {
        [&(kind.len() as u32).to_be_bytes()[..], kind.as_bytes(), &[content; 40]].concat()
    }

    fn text(kind: &str, content: u8) -> String {
        format!("{kind} {}", Base64::encode_string(&key(kind, content)))
    }

    fn looked(host: &str, port: u16) -> Looked {
        Looked { host: host.to_string(), port, alias: None }
    }

    fn hosts(lines: &[String]) -> (tempfile::TempDir, Hosts) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        std::fs::write(&file, lines.join("\n")).unwrap();
        let hosts = Hosts::read(&[folder.path().join("none"), file]);
        (folder, hosts)
    }

    #[test]
    fn lines_that_cannot_be_read_are_passed_over() {
        let ed = |content| text("ssh-ed25519", content);
        let lines = [
            "somehost".to_string(),
            "1.2.3.4 1024 35 1234567".to_string(),
            "# a comment".to_string(),
            format!("a ssh-rsa {}", ed(1).split_once(' ').unwrap().1),
            "a ssh-ed25519 ====".to_string(),
            format!("@unknown a {}", ed(1)),
            String::new(),
            format!("a {} a comment behind it", ed(1)),
        ];
        let (_folder, hosts) = hosts(&lines);
        assert_eq!(hosts.0.len(), 1);
        assert_eq!(hosts.standing(&looked("A", 22), &key("ssh-ed25519", 1)), Standing::Known);
        assert!(matches!(hosts.standing(&looked("a", 22), &key("ssh-ed25519", 2)), Standing::Other(_, 8)));
        assert_eq!(hosts.standing(&looked("b", 22), &key("ssh-ed25519", 1)), Standing::Unknown);
    }

    #[test]
    fn names_are_patterns_with_ports_and_may_be_hashed() {
        let hash = |name: &str| {
            let salt = [7; 20];
            let mut mac = Hmac::<Sha1>::new_from_slice(&salt).unwrap();
            mac.update(name.as_bytes());
            let hash = mac.finalize().into_bytes();
            format!("|1|{}|{}", Base64::encode_string(&salt), Base64::encode_string(&hash))
        };
        let lines = [
            format!("*.org,!bad.org {}", text("ssh-ed25519", 1)),
            format!("[c]:2222,c2 {}", text("ssh-ed25519", 2)),
            format!("{} {}", hash("[::1]:44"), text("ssh-rsa", 3)),
            format!("d {}", text("ssh-rsa", 4)),
        ];
        let (_folder, hosts) = hosts(&lines);
        let is_known = |host: &str, port, kind: &str, content| {
            hosts.standing(&looked(host, port), &key(kind, content)) == Standing::Known
        };
        assert!(is_known("a.org", 22, "ssh-ed25519", 1) && !is_known("bad.org", 22, "ssh-ed25519", 1));
        assert!(is_known("c", 2222, "ssh-ed25519", 2) && !is_known("c", 22, "ssh-ed25519", 2));
        assert!(is_known("::1", 44, "ssh-rsa", 3) && !is_known("::1", 22, "ssh-rsa", 3));
        // As in ssh, keys at the usual port are valid at others.
        assert!(is_known("d", 99, "ssh-rsa", 4) && !is_known("d", 99, "ssh-rsa", 5));
        let alias = Looked { alias: Some("D".to_string()), ..looked("x", 99) };
        assert_eq!(hosts.standing(&alias, &key("ssh-rsa", 4)), Standing::Known);
        assert_eq!(alias.line(&key("ssh-rsa", 4)), format!("d {}", text("ssh-rsa", 4)));
    }

    #[test]
    fn marks_are_obeyed() {
        let lines = [
            format!("a {}", text("ssh-ed25519", 1)),
            format!("@revoked * {}", text("ssh-ed25519", 1)),
            format!("@cert-authority b {}", text("ssh-ed25519", 2)),
        ];
        let (_folder, hosts) = hosts(&lines);
        assert!(matches!(hosts.standing(&looked("a", 22), &key("ssh-ed25519", 1)), Standing::Revoked(_, 2)));
        assert_eq!(hosts.standing(&looked("b", 22), &key("ssh-ed25519", 2)), Standing::Unknown);
        assert!(hosts.has_authority(&looked("b", 22)) && !hosts.has_authority(&looked("a", 22)));
    }

    #[test]
    fn keys_in_a_file_of_revoked_ones_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("revoked");
        let of = |kind: &str, content| revoked(&file, &key(kind, content));
        assert!(of("ssh-ed25519", 1).is_err(), "a missing file");
        let lines = [format!("# {}", text("ssh-ed25519", 2)), format!("\t{} old", text("ssh-ed25519", 1)), "x".into()];
        std::fs::write(&file, lines.join("\r\n")).unwrap();
        assert_eq!((of("ssh-ed25519", 1), of("ssh-ed25519", 2)), (Ok(Some(2)), Ok(None)));
        std::fs::write(&file, b"SSHKRL\n\0\0\0\0\x01").unwrap();
        assert!(of("ssh-ed25519", 2).is_err_and(|said| said.contains("ssh-keygen -k")));
    }

    #[test]
    fn known_kinds_are_asked_for_first() {
        let lines = [format!("a {}", text("ssh-rsa", 1)), format!("b {}", text("ecdsa-sha2-nistp384", 1))];
        let (_folder, hosts) = hosts(&lines);
        let first = |host: &str, port| hosts.algorithms(&looked(host, port))[0];
        assert!(first("a", 22).starts_with("rsa-sha2-512") && first("a", 2222).starts_with("rsa-sha2-512"));
        assert_eq!((first("b", 22), first("c", 22)), ("ecdsa-sha2-nistp384", "ssh-ed25519"));
        assert_eq!(hosts.algorithms(&looked("a", 22)).len(), KINDS.len());
    }
}
