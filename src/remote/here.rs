//! This machine, as one that commands run on.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use super::{Listener, Machine, Output};
use crate::error::{Error, Result};
use crate::threads;

/// Commands run by `/bin/sh`.
#[derive(Default)]
pub struct Here;

fn shell(line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]);
    command
}

impl Machine for Here {
    fn name(&self) -> String {
        "this machine".to_string()
    }

    fn run(&self, command: &str, input: &mut (dyn Read + Send), output: &mut Listener) -> Result<i32> {
        let running = |e: std::io::Error| Error::io("running a command", &e);
        let mut child = shell(command);
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().map_err(running)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let heard = std::thread::scope(|scope| {
            let feed = move || {
                let mut stdin = stdin.expect("piped");
                // A command that does not read its input has its reasons.
                let _ = std::io::copy(input, &mut stdin).and_then(|_| stdin.flush());
            };
            let (sender, pieces) = channel();
            let errors = sender.clone();
            let hear = move || pass_on(stdout.expect("piped"), |piece| sender.send((true, piece)).is_ok());
            let hear_errors = move || pass_on(stderr.expect("piped"), |piece| errors.send((false, piece)).is_ok());
            let started = threads::start_in(scope, hear)
                .and_then(|_| threads::start_in(scope, hear_errors))
                .and_then(|_| threads::start_in(scope, feed));
            if let Err(error) = started {
                let _ = child.kill();
                return Err(Error::no_thread("a command", &error));
            }
            let mut pieces = pieces.into_iter();
            let heard =
                pieces.try_for_each(|(out, piece)| output(if out { Output::Out(&piece) } else { Output::Err(&piece) }));
            if heard.is_err() {
                let _ = child.kill();
            }
            heard
        });
        let status = child.wait().map_err(running)?;
        heard?;
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    fn is_here(&self) -> bool {
        true
    }

    fn open(&self, command: &str) -> Result<UnixStream> {
        let opening = |e: std::io::Error| Error::io("starting a command", &e);
        let (ours, theirs) = UnixStream::pair().map_err(opening)?;
        let (input, output): (OwnedFd, OwnedFd) = (theirs.try_clone().map_err(opening)?.into(), theirs.into());
        let mut child = shell(command);
        let mut child = child.stdin(input).stdout(output).stderr(Stdio::null()).spawn().map_err(opening)?;
        // Without one it is a zombie until this process ends, and nothing else.
        let _ = threads::start(move || child.wait());
        Ok(ours)
    }
}

fn pass_on(mut from: impl Read, mut send: impl FnMut(Vec<u8>) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !send(buffer[..count].to_vec()) {
            return;
        }
    }
}
