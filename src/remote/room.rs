//! Whether what is sent fits on a machine, before the first byte of it travels.

use super::{Machine, finish, quoted};
use crate::disk::human_size;
use crate::error::{Error, Kind, Result};

/// Less is not worth a question.
const LEAST: u64 = 1 << 20;

/// Looks whether `bytes` more fit into `folder` on the machine; the nearest folder above it counts where it is not there yet.
/// A machine that does not tell is believed to have room.
///
/// # Errors
/// Less is free; `what` is for the message.
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
            let message = format!(
                "{}: the disk is full, {what} does not fit: it takes {}, {} are free",
                machine.name(),
                human_size(bytes),
                human_size(free)
            );
            Err(Error::new(Kind::Io, message)
                .hint("ask for a larger disk (`disk_gb`), or remove files there with run_command"))
        }
        _ => Ok(()),
    }
}

/// Bytes that are free by the answer of `df -Pk`: the number ahead of the share in percent on its last line.
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
