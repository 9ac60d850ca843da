//! The user who runs this program, and `~` in paths. A shell expands `~` at the beginning of a
//! word, but neither in a script nor after `--flag=`.

use std::path::{Path, PathBuf};

/// Replaces a leading `~` or `~/` by the user's home folder. Any other path is returned unchanged.
/// A file of the project that is called `~` is `./~`.
pub fn expanded(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(below), Some(home)) if below.as_os_str().is_empty() => home,
        (Ok(below), Some(home)) => home.join(below),
        _ => path.to_path_buf(),
    }
}

/// Returns the id of the user who runs this program.
pub fn own_user() -> u32 {
    // SAFETY: the call has no effect and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leading_tilde_is_the_home_folder() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(expanded("~"), home);
        assert_eq!(expanded("~/a/b"), home.join("a/b"));
        for path in ["", "a", "./~", "a/~/b", "~a", "~a/b", "/~", "/a"] {
            assert_eq!(expanded(path), Path::new(path), "{path}");
        }
    }
}
