//! Parses addresses of machines: `user@host:port`, `ssh://user@host:port`, IPv6 addresses with and
//! without brackets, and aliases of `~/.ssh/config`.

use std::fmt;
use std::net::Ipv6Addr;

use super::failure::Failure;
use crate::error::{Error, Result};

/// The address of a machine. Missing parts are those of `~/.ssh/config`, or ssh's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub user: Option<String>,
    /// A name, an address, or an alias; IPv6 without brackets.
    pub host: String,
    pub port: Option<u16>,
}

const SCHEME: &str = "ssh://";

/// True for a word that no command takes for an option or for several words.
pub(super) fn is_plain(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('-') && word.chars().all(|c| c.is_alphanumeric() || "._-:%@+".contains(c))
}

/// True for an IPv6 address, with or without a zone.
fn is_ipv6(text: &str) -> bool {
    text.split('%').next().unwrap_or_default().parse::<Ipv6Addr>().is_ok()
}

impl Target {
    /// # Errors
    /// An invalid address; the hint shows the form.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::of(Failure::NoAddress(text.to_string()));
        let word = text.trim();
        let word = match word.split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest.strip_suffix('/').unwrap_or(rest),
            _ => word,
        };
        let (user, place) = match word.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_string()), place),
            None => (None, word),
        };
        // A user name has no colon, and the text after it may be a password.
        if user.as_deref().is_some_and(|user| user.contains(':')) {
            return Err(Error::of(Failure::PasswordInAddress));
        }
        if word.split_whitespace().nth(1).is_some() {
            return Err(Error::of(Failure::CommandAsAddress(text.to_string())));
        }
        let number = |port: &str| match port.parse() {
            Ok(port) if port != 0 => Ok(Some(port)),
            _ => Err(bad()),
        };
        let (host, port) = match (place.strip_prefix('['), place.split_once(':')) {
            (Some(inner), _) => {
                let (host, rest) = inner.split_once(']').ok_or_else(bad)?;
                let port = if rest.is_empty() { None } else { number(rest.strip_prefix(':').ok_or_else(bad)?)? };
                (host, port)
            }
            (None, Some((host, port))) if !port.contains(':') => (host, number(port)?),
            (None, Some(_)) if !is_ipv6(place) => {
                return Err(Error::of(Failure::Ipv6WithPort(text.to_string())));
            }
            (None, _) => (place, None),
        };
        if user.as_deref().is_some_and(|user| !is_plain(user)) || !is_plain(host) {
            return Err(bad());
        }
        Ok(Self { user, host: host.to_string(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_named_as_people_write_them() {
        let of = |user: Option<&str>, host: &str, port: Option<u16>| {
            Some(Target { user: user.map(str::to_string), host: host.to_string(), port })
        };
        for (text, expected) in [
            ("a.b", of(None, "a.b", None)),
            (" me@a.b ", of(Some("me"), "a.b", None)),
            ("me@a.b:2222", of(Some("me"), "a.b", Some(2222))),
            ("me@corp@a.b:2222", of(Some("me@corp"), "a.b", Some(2222))),
            ("ssh://me@a.b:2222", of(Some("me"), "a.b", Some(2222))),
            ("ssh://a.b/", of(None, "a.b", None)),
            ("SSH://a.b:2222", of(None, "a.b", Some(2222))),
            ("ssh://me@[::1]:2222/", of(Some("me"), "::1", Some(2222))),
            ("::1", of(None, "::1", None)),
            ("me@::1", of(Some("me"), "::1", None)),
            ("[::1]", of(None, "::1", None)),
            ("[::1]:2222", of(None, "::1", Some(2222))),
            ("me@[2001:db8::7]:2222", of(Some("me"), "2001:db8::7", Some(2222))),
            ("fe80::1%eth0", of(None, "fe80::1%eth0", None)),
            ("2001:db8:0:0:0:0:0:1:2222", None),
            ("", None),
            ("me@", None),
            ("@a", None),
            ("a:b", None),
            ("a:", None),
            ("a:0", None),
            ("a:70000", None),
            ("[::1", None),
            ("[::1]2222", None),
            ("-oProxyCommand=x", None),
            ("a b", None),
            ("a;b", None),
            ("ssh://a/b", None),
        ] {
            assert_eq!(Target::parse(text).ok(), expected, "{text}");
        }
        let hint = Target::parse("2001:db8:0:0:0:0:0:1:2222").unwrap_err().hint.unwrap();
        assert!(hint.contains("[ADDRESS]:PORT"), "{hint}");
        let hint = Target::parse("ssh root@10.0.0.7 -p 2222").unwrap_err().hint.unwrap();
        assert!(hint.contains("write host: \"me@a.b:2222\""), "{hint}");
    }

    #[test]
    fn a_password_in_an_address_is_not_taken_for_a_name_and_not_shown() {
        for text in ["me:swordfish@a.b", "ssh://me:swordfish@a.b:2222"] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.message.contains("with a password in it") && !error.message.contains("swordfish"), "{error}");
        }
    }

    #[test]
    fn a_name_reads_back_as_what_it_was() {
        for text in ["a", "me@a", "me@a:22", "me@[::1]:22", "::1", "me@::1"] {
            assert_eq!(Target::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Target::parse("ssh://me@[::1]:22/").unwrap().to_string(), "me@[::1]:22");
    }
}
