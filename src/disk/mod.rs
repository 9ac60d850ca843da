//! Files on disk: atomic writes, a check of the free space, and locks between processes.

mod lock;
mod space;
mod write;

pub use lock::{Lock, LockMode, is_same_file, try_lock};
pub use space::{check_free_space, human_size};
pub use write::{create, publish, remove_left_over, rename, sync_folder, temporary_prefix, write, write_secret_once};
