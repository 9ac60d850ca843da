//! Checks the free space on a machine before anything is sent.

use super::failure::Failure;
use super::{Machine, finish, quoted};
use crate::error::{Error, Result};

/// Smaller files are sent without a check.
const LEAST: u64 = 1 << 20;

/// Checks that `folder` on the machine has `bytes` of free space. If it does not exist yet, its
/// nearest existing ancestor counts. A machine that does not report its space is assumed to have
/// enough.
///
/// # Errors
/// If less is free. The message names the data by `what`.
pub fn check(machine: &dyn Machine, folder: &str, bytes: u64, what: &str) -> Result<()> {
    if bytes < LEAST {
        return Ok(());
    }
    let ask = format!(
        "d={}; while [ ! -d \"$d\" ] && [ \"$d\" != / ] && [ \"$d\" != . ]; do d=$(dirname -- \"$d\"); done; df -Pk -- \"$d\"",
        quoted(folder)
    );
    match free(&finish(machine, &ask)?.out) {
        Some(free) if free < bytes => {
            let (machine, what) = (machine.name(), what.to_string());
            Err(Error::of(Failure::NoRoom { machine, what, needed: bytes, free }))
        }
        _ => Ok(()),
    }
}

/// Free bytes in the output of `df -Pk`: the number before the percentage in its last line.
fn free(said: &str) -> Option<u64> {
    let words: Vec<&str> = said.lines().last()?.split_whitespace().collect();
    let is_share = |word: &str| word.strip_suffix('%').is_some_and(|number| number.parse::<u32>().is_ok());
    let at = words.iter().position(|word| is_share(word))?;
    Some(words[at.checked_sub(1)?].parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_df_says_is_understood() {
        let head = "Filesystem 1024-blocks Used Available Capacity Mounted on\n";
        for (line, expected) in [
            ("/dev/sda1 100 40 60 40% /", Some(60 << 10)),
            ("//server/a b 100 40 60 40% /mnt/x 9% y", Some(60 << 10)),
            ("none 0 0 0 - /proc", None),
            ("", None),
        ] {
            assert_eq!(free(&format!("{head}{line}")), expected, "{line}");
        }
    }
}
