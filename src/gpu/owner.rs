//! Identifies the process that owns a machine, so that a later process can check whether it still
//! runs.
//!
//! Computers and containers may share a ledger. A process on another one cannot be seen from here,
//! and counts as alive.

use crate::remote::{Identity, identity};

/// A process, its computer, and its start time, because ids are reused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its form in the ledger: id, start, and the four words of the identity, with `-` for unknown
    /// ones.
    text: String,
}

/// The state of a process, as far as it can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Runs,
    Dead,
    /// It is on another computer or container, or its computer is unknown.
    Foreign,
}

impl Owner {
    pub fn this_process() -> Self {
        Self::of(std::process::id())
    }

    fn of(pid: u32) -> Self {
        let Identity { host, machine, boot, namespace } = identity();
        let words = [&pid.to_string(), &started(pid).unwrap_or_default(), host, machine, boot, namespace];
        let word = |word: &&String| if word.is_empty() { "-".to_string() } else { word.to_string() };
        Self { text: words.iter().map(word).collect::<Vec<_>>().join(" ") }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn parse(text: &str) -> Self {
        Self { text: text.to_string() }
    }

    /// Its process id, start time and computer.
    fn parts(&self) -> Option<(u32, &str, Identity)> {
        let words: Vec<&str> = self.text.split(' ').collect();
        let &[pid, start, host, machine, boot, namespace] = words.as_slice() else { return None };
        let word = |word: &str| if word == "-" { String::new() } else { word.to_string() };
        let identity =
            Identity { host: word(host), machine: word(machine), boot: word(boot), namespace: word(namespace) };
        Some((pid.parse().ok().filter(|pid| *pid > 0)?, start, identity))
    }

    pub fn life(&self) -> Life {
        let Some((pid, start, theirs)) = self.parts() else { return Life::Foreign };
        match identity() {
            here if here.sees(&theirs) => {
                match exists(pid) && started(pid).is_none_or(|now| now == start || start == "-") {
                    true => Life::Runs,
                    false => Life::Dead,
                }
            }
            here if here.was(&theirs) => Life::Dead,
            _ => Life::Foreign,
        }
    }

    pub fn is_dead(&self) -> bool {
        self.life() == Life::Dead
    }

    /// For people: `process 17 on HOST`.
    pub fn place(&self) -> String {
        match self.parts() {
            Some((pid, _, identity)) if !identity.host.is_empty() => format!("process {pid} on {}", identity.host),
            _ => "an unknown process".to_string(),
        }
    }
}

fn exists(pid: u32) -> bool {
    // SAFETY: signal 0 only checks whether the process exists.
    let answer = unsafe { libc::kill(pid as libc::pid_t, 0) };
    // A process without permission for signals exists.
    answer == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Clock ticks from the start of the system to the start of the process; None if unknown.
fn started(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets, which may contain anything. The start is the 22nd
    // field.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_string)
}

#[cfg(test)]
impl Owner {
    /// A process of this computer that has ended.
    pub fn dead() -> Self {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let owner = Self::of(child.id());
        child.wait().unwrap();
        owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_a_dead_one_is_dead() {
        let here = Owner::this_process();
        assert_eq!(Owner::parse(here.text()).life(), Life::Runs);
        assert_eq!(Owner::dead().life(), Life::Dead);
        let mut words: Vec<&str> = here.text().split(' ').collect();
        words[1] = "1";
        assert_eq!(Owner::parse(&words.join(" ")).life(), Life::Dead, "another process has its id now");
    }

    #[test]
    fn what_cannot_be_seen_from_here_is_not_dead() {
        let here = Owner::dead();
        let words: Vec<&str> = here.text().split(' ').collect();
        for (word, value) in [(2, "other"), (3, "other"), (5, "pid:[4026539999]"), (5, "-")] {
            let mut words = words.clone();
            words[word] = value;
            assert_eq!(Owner::parse(&words.join(" ")).life(), Life::Foreign, "{value}");
        }
        for text in ["", "0 gone", "17 0b1946c1-5c2b-4ba2-a4dd-6fd1c7a7b1a4-99"] {
            assert_eq!(Owner::parse(text).life(), Life::Foreign, "{text}");
        }
    }

    #[test]
    fn one_of_another_user_exists() {
        assert!(exists(1) && !exists(i32::MAX as u32));
    }
}
