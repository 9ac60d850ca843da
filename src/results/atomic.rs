//! Files appear whole or not at all: written beside their final place, flushed, then renamed.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `data` to `path`, creating its folder.
pub fn write(path: &Path, data: &[u8]) -> Result<()> {
    let file = create(path)?;
    let writing = || format!("writing {}", path.display());
    file.as_file().write_all(data).map_err(|e| Error::io(writing(), &e).hint("is the disk full?"))?;
    publish(file, path)
}

/// A hidden file in the folder of `path`, deleted unless published.
pub fn create(path: &Path) -> Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::io(format!("creating {}", folder.display()), &e))?;
    tempfile::Builder::new()
        .prefix(".partial-")
        .tempfile_in(folder)
        .map_err(|e| Error::io(format!("writing in {}", folder.display()), &e).hint("is the folder writable?"))
}

/// Gives a finished file its name.
pub fn publish(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    file.as_file().sync_all().map_err(|e| Error::io(writing(), &e).hint("is the disk full?"))?;
    let file = file.persist(path).map_err(|e| Error::io(writing(), &e.error))?;
    // Temporary files are private; results are for everyone the folder is for.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    drop(file);
    Ok(())
}
