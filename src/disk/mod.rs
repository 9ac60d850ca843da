//! Files on disk: written whole or not at all, read within bounds, held by one process at a time.

mod lock;
mod room;
mod write;

pub use lock::{Hold, Lock, is_at, is_ours};
pub use room::{check_room, size};
pub use write::{create, left_over, publish, rename, sweep, sync_folder, write, write_secret_once};
