//! The names that scripts give to caught errors. Reading a variable of any other name costs nothing
//! more.

use std::cell::Cell;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rhai::{Identifier, Token};

/// All names that a text of this process has between `catch (` and `)`.
static NAMES: RwLock<Vec<Identifier>> = RwLock::new(Vec::new());
/// True if there is one.
static ANY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Number of tokens of `catch (` that were just parsed.
    static SEEN: Cell<u8> = const { Cell::new(0) };
}

/// Notes the next token of a text.
pub(super) fn note(token: &Token) {
    let seen = match (SEEN.get(), token) {
        (_, Token::Catch) => 1,
        (1, Token::LeftParen) => 2,
        (2, Token::Identifier(name)) => {
            let mut names = NAMES.write().expect("no panic under this lock");
            if !names.iter().any(|known| known == &**name) {
                names.push((**name).clone());
                ANY.store(true, Ordering::Relaxed);
            }
            0
        }
        _ => 0,
    };
    SEEN.set(seen);
}

/// True if some text of this process catches errors under this name.
pub(crate) fn is_name(name: &str) -> bool {
    ANY.load(Ordering::Relaxed) && NAMES.read().expect("no panic under this lock").iter().any(|caught| caught == name)
}
