//! Checks of names from a hub or a script before they become parts of a path: characters, form and
//! length.

use std::path::{Component, Path};

/// The longest path and the longest part of it in bytes, as file systems allow them.
const PATH: usize = 1024;
const PART: usize = 255;

/// Digits of a hash as git and the hub write it.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A commit of a repository: 40 hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// The path of a file inside a repository: relative and of ordinary parts only, so that it cannot
/// leave a folder.
pub(super) fn is_file_path(path: &str) -> bool {
    let ordinary = |part: &str| {
        let one = Path::new(part).components().eq([Component::Normal(part.as_ref())]);
        one && part.len() <= PART && !part.chars().any(|c| c.is_control() || c == '\\')
    };
    path.len() <= PATH && path.split('/').all(ordinary)
}

/// A branch, tag, commit or reference such as `refs/pr/1`. It becomes a file name in the cache.
pub(super) fn is_revision(text: &str) -> bool {
    text.len() <= PART && is_file_path(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_where_they_belong() {
        for good in ["config.json", "data/CC-MAIN-2024-10/train-00000-of-00001.parquet", ".gitattributes", "a b/ü"] {
            assert!(is_file_path(good), "{good}");
        }
        let long = "x".repeat(256);
        for bad in ["", ".", "..", "/etc/passwd", "a/../b", "a//b", "a/", "./a", "a\nb", "a\u{1b}[0m", "a\\b", &long] {
            assert!(!is_file_path(bad), "{bad}");
        }
        assert!(is_revision("refs/pr/1") && is_revision("v1.0") && !is_revision("../../x") && !is_revision(""));
        assert!(is_commit(&"0a".repeat(20)) && !is_commit(&"0A".repeat(20)) && !is_commit("main"));
    }
}
