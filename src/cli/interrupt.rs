//! Ctrl-C once: stop at the next safe point. Twice: now.

use std::sync::atomic::Ordering;

use crate::progress::INTERRUPTED;
use crate::terminal;

pub fn install() {
    // Fails only when a handler exists already, which is then ours.
    let _ = ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(super::INTERRUPTED.into());
        }
        terminal::note("\ninterrupted: stopping after this layer; press Ctrl-C again to stop now");
    });
}
