//! The exit codes of all commands: the one table of them, and of the kinds of errors that lead to
//! each. docs/exit_codes.md is compared with it.

use std::process::ExitCode;

use crate::error::Kind;

/// The way in which a command ends. The number is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what was asked.
    Done = 0,
    /// A script, or a word of the command line that the command itself understands, is wrong; or
    /// `check` has found a problem, or a test has failed.
    Wrong = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Something that the command needs is missing or has failed: a model, results, a machine, a
    /// file, or the output.
    Failed = 3,
    /// A rented machine is, or may be, alive that should have ended.
    Leaked = 4,
    /// The program itself is at fault. Rust ends with the same code after a panic.
    Fault = 101,
    /// The user or the system has stopped the command: 128 + SIGINT, as shells report it.
    Interrupted = 130,
}

impl Exit {
    pub const ALL: [Self; 7] =
        [Self::Done, Self::Wrong, Self::Usage, Self::Failed, Self::Leaked, Self::Fault, Self::Interrupted];

    /// The end of a command or a script with an error of this kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::BadArgument => Self::Wrong,
            Kind::NotFound
            | Kind::Corrupt
            | Kind::Unsupported
            | Kind::NonFinite
            | Kind::Oom
            | Kind::Auth
            | Kind::NoCapacity
            | Kind::NoFunds
            | Kind::OverBudget
            | Kind::Timeout
            | Kind::Lost
            | Kind::VersionMismatch
            | Kind::Service
            | Kind::Io => Self::Failed,
            Kind::Interrupted => Self::Interrupted,
            Kind::Internal => Self::Fault,
        }
    }

    /// The number that the system gets.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The meaning in a few words.
    fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Wrong => "script error",
            Self::Usage => "bad usage",
            Self::Failed => "a model, a machine or output failed",
            Self::Leaked => "a machine is left",
            Self::Fault => "the program is at fault",
            Self::Interrupted => "interrupted",
        }
    }

    /// All codes in one sentence, for the help of the program.
    pub fn in_short() -> String {
        let codes = Self::ALL.map(|exit| format!("{} {}", exit.code(), exit.meaning()));
        format!("Exit codes: {}.", codes.join(", "))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../docs/exit_codes.md");

    /// The cells of the rows of a table whose head is `head`.
    fn rows(head: &str) -> Vec<Vec<&str>> {
        let table = PAGE.split_once(head).unwrap_or_else(|| panic!("no table {head}")).1;
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
    }

    #[test]
    fn the_page_has_every_code_and_no_other() {
        let codes: Vec<u8> = rows("| code | meaning |").iter().map(|row| row[0].parse().unwrap()).collect();
        assert_eq!(codes, Exit::ALL.map(Exit::code));
        for exit in Exit::ALL {
            assert!(PAGE.contains(&format!("\n**{}** ", exit.code())), "{exit:?} is explained");
        }
    }

    #[test]
    fn the_page_says_which_kind_of_error_leads_to_which_code() {
        let rows = rows("| kind of error | code |");
        let told: Vec<(&str, &str)> = rows.iter().map(|row| (row[0].trim_matches('`'), row[1])).collect();
        let codes = Kind::names().map(|name| (name, Exit::of(Kind::from_name(name).unwrap()).code().to_string()));
        let codes: Vec<(&str, String)> = codes.collect();
        assert_eq!(told, codes.iter().map(|(name, code)| (*name, code.as_str())).collect::<Vec<_>>());
    }
}
