//! Handles Ctrl-C: the first stops the work at the next safe point, and the second ends the program
//! at once.

use std::sync::atomic::Ordering;

use crate::exit::Exit;
use crate::progress::INTERRUPTED;
use crate::terminal;

/// The signals that ask the program to stop.
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Returns whether the parent process has made this program ignore a signal: `nohup` does, and a
/// shell does for background work.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: the call only queries, and an all-zero action is a valid buffer for the result.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

fn ignore(signal: libc::c_int) {
    // SAFETY: no handler of this program is involved.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

pub(super) fn install() {
    let ignored = SIGNALS.into_iter().filter(|signal| is_ignored(*signal)).collect::<Vec<_>>();
    // This fails only if a handler exists already, which is then the one of this program.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(Exit::Interrupted.code().into());
        }
        // A terminal that takes nothing must not keep the second one from being heard.
        let told = || {
            terminal::note(
                "\ninterrupted: stopping; a pass through a model ends after its layer; press Ctrl-C again to stop now",
            )
        };
        let _ = std::thread::Builder::new().spawn(told);
    });
    ignored.into_iter().for_each(ignore);
    // A file that exceeds the size limit gives an error where it is written, and must not end the
    // program.
    ignore(libc::SIGXFSZ);
}
