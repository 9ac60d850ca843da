//! Which process looks after a machine, told so that a later one can see whether it still runs.

/// A process: its id, and when it started, since ids come round again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    /// Boot of the system and clock ticks since then; empty where the system does not tell.
    started: String,
}

impl Owner {
    pub fn this_process() -> Self {
        let pid = std::process::id();
        Self { pid, started: started(pid) }
    }

    pub fn text(&self) -> String {
        format!("{} {}", self.pid, self.started)
    }

    pub fn parse(text: &str) -> Self {
        let (pid, started) = text.split_once(' ').unwrap_or((text, ""));
        Self { pid: pid.parse().unwrap_or(0), started: started.to_string() }
    }

    pub fn is_alive(&self) -> bool {
        // SAFETY: signal 0 only asks whether the process exists.
        let exists = self.pid != 0 && unsafe { libc::kill(self.pid as libc::pid_t, 0) } == 0;
        exists && started(self.pid) == self.started
    }
}

fn started(pid: u32) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field is the name in brackets, which may hold anything; the start is the 22nd.
    let ticks = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).unwrap_or_default();
    format!("{}-{ticks}", boot.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_again_and_a_dead_one_is_dead() {
        let here = Owner::this_process();
        assert!(Owner::parse(&here.text()).is_alive());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let other = Owner { pid: child.id(), started: started(child.id()) };
        child.wait().unwrap();
        assert!(!other.is_alive());
        let impostor = Owner { started: "another boot".to_string(), ..here };
        assert!(!impostor.is_alive());
    }
}
