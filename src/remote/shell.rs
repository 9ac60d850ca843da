//! A plain `/bin/sh` on a machine, for any login shell and any startup messages.
//!
//! The login shell gets one line that every shell reads alike, and that replaces it by `/bin/sh`.
//! This prints an unguessable mark on both its outputs and then reads one line: the command. Output
//! before the mark is not the command's. Another mark reports its end and exit code.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use memchr::memmem;
use ssh2::{Channel, Session};

use super::failure::{Failure, Source};
use super::pump::{PIECE, Pending, done, ready, wait};
use super::{Output, quoted};
use crate::error::{Error, Result};
use crate::outside;

/// A login shell has started `/bin/sh` within this time, including its startup files.
const STARTUP: Duration = Duration::from_secs(60);
/// After this time without a mark the line is also written to its standard input: startup files may
/// have started another shell, or may have consumed it.
const AGAIN: Duration = Duration::from_secs(3);
/// Time that the machine has to report the exit code after closing a command.
const CLOSING: Duration = Duration::from_secs(5);
/// Bytes of a login shell's output that are kept for a message.
const KEPT: usize = 4096;

/// The way to start a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// As `ssh HOST COMMAND`.
    Command,
    /// The same, but the login shell is started once more as at a login, so that it reads its
    /// profile.
    Login,
}

/// A new random mark.
fn mark() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// The line that replaces any shell by one that prints `mark` and runs its input. A shell that
/// echoes its commands does not print the mark by that.
fn hello(mark: &str) -> String {
    let (begin, end) = mark.split_at(mark.len() / 2);
    format!(
        "exec /bin/sh -c 'echo {begin}\"\"{end} >&2; echo {begin}\"\"{end}; IFS= read -r l; eval \"$(printf %b \"$l\")\"'"
    )
}

/// The line that starts a login shell that runs `line`. csh takes no command as a login shell.
fn at_login(line: &str) -> String {
    let script = r#"h=$(printf %b "$1"); case "$SHELL" in *csh) exec "$SHELL" -c "test -r ~/.login && source ~/.login; $h";;
        *) exec "${SHELL:-/bin/sh}" -l -c "$h";; esac"#;
    let script = script.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("exec /bin/sh -c '{script}' sh '{}'", encoded(line))
}

/// Encodes a text for `printf %b`, in characters that every shell passes on unchanged within single
/// quotes.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" _./:=,@+-".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("\\0{byte:03o}") }).collect()
}

/// A `/bin/sh` that waits for its command.
pub(super) struct Shell {
    channel: Channel,
    /// The mark on its stderr before the command's output.
    mark: String,
    /// Unprocessed stderr.
    errors: Vec<u8>,
}

/// Starts a shell on a new channel, and makes the session non-blocking. `name` is for messages.
///
/// # Errors
/// The machine cannot be reached, its login shell starts no other program, or that takes too long.
pub(super) fn start(session: &Session, mut channel: Channel, entry: Entry, name: &str) -> Result<Shell> {
    let lost = |doing, source: Source| Error::of(Failure::Connection { machine: name.to_string(), doing, source });
    let mut marks = VecDeque::from([mark()]);
    let mut pending = Pending::default();
    let line = match entry {
        Entry::Command => hello(&marks[0]),
        Entry::Login => at_login(&hello(&marks[0])),
    };
    channel.exec(&line).map_err(|e| lost("starting a shell", e.into()))?;
    session.set_blocking(false);
    let (begin, mut asked) = (Instant::now(), Instant::now());
    let (mut out, mut errors, mut buffer) = (Vec::new(), Vec::new(), vec![0; PIECE]);
    loop {
        let mut step = || -> io::Result<bool> {
            let mut moved = !channel.eof() && pending.write(&mut channel)?;
            for (stream, said) in [(0, &mut out), (1, &mut errors)] {
                if let Some(count @ 1..) = ready(channel.stream(stream).read(&mut buffer))? {
                    said.extend_from_slice(&buffer[..count]);
                    // Only the end of a long output is kept. The marks are in it.
                    said.drain(..said.len().saturating_sub(PIECE));
                    moved = true;
                }
            }
            Ok(moved)
        };
        let moved = step().map_err(|e| lost("the connection broke", e.into()))?;
        // Only after the last line nothing is left that would be taken for a command.
        let newest = marks.back().expect("there is one");
        if memmem::find(&out, format!("{newest}\n").as_bytes()).is_some() {
            return Ok(Shell { mark: newest.clone(), channel, errors });
        }
        if !moved && channel.eof() {
            return Err(ended(session, channel, name, &out, &errors));
        }
        if begin.elapsed() > STARTUP {
            let (machine, last_word) = (name.to_string(), last_word(&out, &errors));
            return Err(Error::of(Failure::ShellHangs { machine, time: STARTUP, last_word }));
        }
        if asked.elapsed() > AGAIN && pending.is_empty() {
            asked = Instant::now();
            marks.push_back(mark());
            pending.fill(format!("{}\n", hello(marks.back().expect("just added"))).as_bytes());
        }
        if !moved {
            wait(session, None);
        }
    }
}

/// Why a login shell ended without starting another: it runs no commands, or the machine ended it.
fn ended(session: &Session, channel: Channel, name: &str, out: &[u8], errors: &[u8]) -> Error {
    let (machine, last_word) = (name.to_string(), last_word(out, errors));
    Error::of(match end(session, channel) {
        Ok(code) => Failure::ShellStartsNothing { machine, code, last_word },
        Err(reason) => Failure::ShellEnded { machine, reason, last_word },
    })
}

/// The last line of a shell's output for a message, preferably of stderr.
fn last_word(out: &[u8], errors: &[u8]) -> String {
    let last = |said: &[u8]| {
        let text = String::from_utf8_lossy(&said[said.len().saturating_sub(KEPT)..]).into_owned();
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(outside::complaint)
    };
    last(errors)
        .or_else(|| last(out))
        .map_or_else(|| "; it said nothing".to_string(), |line| format!("; it said: {line}"))
}

/// The exit code of a channel, or why there is none.
fn end(session: &Session, mut channel: Channel) -> std::result::Result<i32, String> {
    let until = Instant::now() + CLOSING;
    let mut closed = || -> io::Result<bool> { Ok(done(channel.close())? && done(channel.wait_close())?) };
    while Instant::now() < until && !closed().map_err(|e| e.to_string())? {
        wait(session, None);
    }
    match channel.exit_signal().ok().and_then(|signal| signal.exit_signal) {
        Some(signal) => Err(format!("signal {signal}")),
        None => channel.exit_status().map_err(|e| e.to_string()),
    }
}

impl Shell {
    /// Runs `command` with `input` on its stdin, until it ends or `output` returns false. Returns
    /// its exit code, or 128 plus the signal that ended it.
    pub(super) fn run(
        self,
        session: &Session,
        command: &str,
        input: &mut dyn Read,
        output: &mut dyn FnMut(Output) -> bool,
    ) -> io::Result<i32> {
        let Self { mut channel, mark: begin, errors } = self;
        let last = mark();
        let line = encoded(&format!("/bin/sh -c {} && c=0 || c=$?; echo {last}$c >&2; echo {last}$c", quoted(command)));
        let mut input = io::Cursor::new(format!("{line}\n")).chain(input);
        let (mut out, mut err) = (Said::after(None, &last), Said::after(Some(&begin), &last));
        let heard = |yes: bool| if yes { Ok(()) } else { Err(io::Error::other("nobody listens any more")) };
        heard(err.take(&errors, &mut |bytes| output(Output::Err(bytes))))?;
        let mut buffer = vec![0; PIECE];
        let mut pending = Pending::default();
        let (mut exhausted, mut eof_sent) = (false, false);
        while !(out.code.is_some() && err.code.is_some()) {
            let mut moved = false;
            if pending.is_empty() && !exhausted {
                let count = input.read(&mut buffer)?;
                exhausted = count == 0;
                pending.fill(&buffer[..count]);
            }
            // A command that has ended does not read its input.
            if !channel.eof() {
                moved |= pending.write(&mut channel)?;
            }
            if exhausted && pending.is_empty() && !eof_sent {
                eof_sent = done(channel.send_eof())?;
            }
            if let Some(count @ 1..) = ready(channel.read(&mut buffer))? {
                heard(out.take(&buffer[..count], &mut |bytes| output(Output::Out(bytes))))?;
                moved = true;
            }
            if let Some(count @ 1..) = ready(channel.stderr().read(&mut buffer))? {
                heard(err.take(&buffer[..count], &mut |bytes| output(Output::Err(bytes))))?;
                moved = true;
            }
            if !moved && channel.eof() {
                break;
            }
            if !moved {
                wait(session, None);
            }
        }
        match out.code {
            Some(code) => Ok(code),
            None => {
                let how = end(session, channel).map_or_else(|why| why, |code| format!("exit code {code}"));
                Err(io::Error::other(format!("the shell there ended before its command did ({how})")))
            }
        }
    }

    /// Replaces the shell by `command`, whose stdin and stdout are those of the channel.
    pub(super) fn become_command(self, session: &Session, command: &str) -> io::Result<Channel> {
        let Self { mut channel, .. } = self;
        let line = encoded(&format!("exec /bin/sh -c {}", quoted(command)));
        let mut pending = Pending::default();
        pending.fill(format!("{line}\n").as_bytes());
        let until = Instant::now() + STARTUP;
        while !pending.is_empty() {
            if !pending.write(&mut channel)? {
                wait(session, None);
            }
            if Instant::now() > until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the shell there takes no command"));
            }
        }
        Ok(channel)
    }
}

/// One output of a command, between its marks.
struct Said {
    /// The mark before it, until it has occurred.
    begin: Option<Vec<u8>>,
    last: Vec<u8>,
    /// A possible beginning of a mark.
    held: Vec<u8>,
    code: Option<i32>,
}

impl Said {
    fn after(begin: Option<&str>, last: &str) -> Self {
        let begin = begin.map(|mark| format!("{mark}\n").into_bytes());
        Self { begin, last: last.as_bytes().to_vec(), held: Vec::new(), code: None }
    }

    /// Passes the command's output on. False if nobody wants it.
    fn take(&mut self, bytes: &[u8], pass: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        // Output after the end belongs to processes that the command has left running.
        if self.code.is_some() {
            return true;
        }
        self.held.extend_from_slice(bytes);
        if let Some(begin) = &self.begin {
            let Some(at) = memmem::find(&self.held, begin) else {
                let keep = begin.len() - 1;
                self.held.drain(..self.held.len().saturating_sub(keep));
                return true;
            };
            self.held.drain(..at + begin.len());
            self.begin = None;
        }
        let end = match memmem::find(&self.held, &self.last) {
            Some(at) => {
                let number = &self.held[at + self.last.len()..];
                let number = number.iter().position(|byte| *byte == b'\n').map(|end| &number[..end]);
                self.code = number.and_then(|number| std::str::from_utf8(number).ok()?.trim().parse().ok());
                at
            }
            None => self.held.len() - begun(&self.held, &self.last),
        };
        let rest = self.held.split_off(end);
        let said = std::mem::replace(&mut self.held, rest);
        said.is_empty() || pass(&said)
    }
}

/// Number of bytes at the end of `said` that are the beginning of `mark`.
fn begun(said: &[u8], mark: &[u8]) -> usize {
    (1..mark.len().min(said.len() + 1)).rev().find(|count| said.ends_with(&mark[..*count])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn said(begin: Option<&str>, pieces: &[&str]) -> (String, Option<i32>) {
        let (mut said, mut passed) = (Said::after(begin, "LAST"), Vec::new());
        for piece in pieces {
            assert!(said.take(piece.as_bytes(), &mut |bytes| {
                passed.extend_from_slice(bytes);
                true
            }));
        }
        (String::from_utf8(passed).unwrap(), said.code)
    }

    #[test]
    fn what_is_not_the_commands_is_left_out() {
        let of = |text: &str, code| (text.to_string(), code);
        assert_eq!(said(None, &["out\nLAST0\n"]), of("out\n", Some(0)));
        assert_eq!(said(None, &["no end of lineLA", "ST", "12", "7\n", "behind it"]), of("no end of line", Some(127)));
        assert_eq!(said(None, &["LAS", "LASTLY", "\nx"]), of("LAS", None));
        assert_eq!(said(None, &["LA", "x"]), of("LAx", None));
        assert_eq!(said(Some("GO"), &["Welcome! G", "O\nout", "LAST1\n"]), of("out", Some(1)));
        assert_eq!(said(Some("GO"), &["GOnoise", "more", "GO\n"]), of("", None));
    }

    #[test]
    fn a_command_passes_every_quoting_unharmed() {
        let command = "printf '%s|' \"a  b\" 'c'\\''d' '!x' '%b\\n' \"$((1 + 1))\"\nprintf ü; exit 7";
        let line = encoded(command);
        assert!(!line.contains(['\'', '"', '!', '$', '\n', '%']), "{line}");
        let script = format!("{}\n{line}\n", hello("0123456789abcdef"));
        let mut child = Command::new("/bin/sh");
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // A shell may read ahead: the command follows the mark, as on a machine.
        let (first, rest) = script.split_once('\n').unwrap();
        io::Write::write_all(&mut input, format!("{first}\n").as_bytes()).unwrap();
        let mut begin = [0; 17];
        child.stdout.as_mut().unwrap().read_exact(&mut begin).unwrap();
        io::Write::write_all(&mut input, rest.as_bytes()).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(begin, *b"0123456789abcdef\n");
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), "a  b|c'd|!x|%b\\n|2|ü");
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(7), &b"0123456789abcdef\n"[..]));
    }
}
