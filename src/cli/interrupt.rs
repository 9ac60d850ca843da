//! Ctrl-C once: stop at the next safe point. Twice: now.

use std::sync::atomic::Ordering;

use super::exit;
use crate::progress::INTERRUPTED;
use crate::terminal;

/// Signals that ask the program to stop.
const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Whether whoever started this program wants it to ignore a signal: `nohup` does, and a shell for work in the background.
fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: only asks; the all-zero action is a valid place for the answer.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

fn ignore(signal: libc::c_int) {
    // SAFETY: no handler of ours is involved.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

pub fn install() {
    let ignored = SIGNALS.into_iter().filter(|signal| is_ignored(*signal)).collect::<Vec<_>>();
    // Fails only when a handler exists already, which is then ours.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(exit::INTERRUPTED.into());
        }
        // A terminal that takes nothing must not keep the second one from being heard.
        let told = || {
            terminal::note("\ninterrupted: stopping, a model after its layer at work; press Ctrl-C again to stop now")
        };
        let _ = std::thread::Builder::new().spawn(told);
    });
    ignored.into_iter().for_each(ignore);
    // A file that may not grow further is an error where it is written, and no end of the program.
    ignore(libc::SIGXFSZ);
}
