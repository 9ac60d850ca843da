//! The files of a model in a folder of this machine.
//!
//! Nothing is memory-mapped, so resident memory is what was asked for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use super::direct::Direct;
use super::shards::{self, INDEX, SINGLE};
#[cfg(target_os = "linux")]
use super::source::FileRange;
use super::source::{Announcement, ByteSource, SourceFile, Tag};
use crate::error::{Error, Result};
use crate::outside;

/// Bytes of a small file: several times those of the largest tokenizers.
const MAX_SMALL: u64 = 128 << 20;

pub struct Folder {
    path: PathBuf,
    opened: OnceLock<Opened>,
}

struct Opened {
    described: Vec<SourceFile>,
    files: Vec<File>,
    #[cfg(target_os = "linux")]
    direct: Direct,
}

impl Folder {
    /// Files are opened when they are first asked for.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), opened: OnceLock::new() }
    }

    fn names(&self) -> Result<Vec<String>> {
        if let Some(index) = self.small(INDEX)? {
            return shards::names(&index, &self.place());
        }
        if self.path.join(SINGLE).exists() {
            return Ok(vec![SINGLE.to_string()]);
        }
        Err(Error::not_found(format!("{}: neither {SINGLE} nor {INDEX}", self.path.display()))
            .hint("a model folder holds config.json and safetensors weights"))
    }

    fn opened(&self) -> Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let (mut described, mut files) = (Vec::<SourceFile>::new(), Vec::new());
        for name in self.names()? {
            let reading = format!("reading {}", self.path.join(&name).display());
            let file = outside::open(&self.path.join(&name));
            let file = file.map_err(|e| Error::io(&reading, &e).hint("download the missing file"))?;
            let bytes = file.metadata().map_err(|e| Error::io(&reading, &e))?.len();
            described.push(SourceFile { name, bytes, announced_sha256: None });
            files.push(file);
        }
        let opened = Opened {
            #[cfg(target_os = "linux")]
            direct: Direct::open(
                described.iter().map(|file| self.path.join(&file.name)),
                described.iter().map(|file| file.bytes).sum(),
            ),
            described,
            files,
        };
        Ok(self.opened.get_or_init(|| opened))
    }
}

impl ByteSource for Folder {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        match outside::read(&path, MAX_SMALL) {
            Ok(data) => Ok(Some(data)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("reading {}", path.display()), &e)),
        }
    }

    fn files(&self) -> Result<&[SourceFile]> {
        Ok(&self.opened()?.described)
    }

    fn read(&self, file: usize, mut offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        let opened = self.opened()?;
        #[cfg(target_os = "linux")]
        while let filled @ 1.. = opened.direct.read(file, offset, buffer) {
            (offset, buffer) = (offset + filled as u64, &mut buffer[filled..]);
        }
        opened.files[file].read_exact_at(buffer, offset).map_err(|e| {
            let path = self.path.join(&opened.described[file].name);
            Error::io(format!("reading {}", path.display()), &e).hint("was the file changed during the run?")
        })
    }

    /// Pieces so small that gaps between them do not matter are asked for at once: read one after the other, each would wait
    /// for the disk by itself. Others keep the disk busy as they are.
    fn expect(&self, _: Tag, announcement: Announcement) {
        #[cfg(target_os = "linux")]
        if let (1.., Ok(Opened { files, .. })) = (announcement.max_gap, self.opened()) {
            use std::os::fd::AsRawFd;
            for FileRange { file, range } in &announcement.ranges {
                let (begin, length) = (range.start as i64, (range.end - range.start) as i64);
                // SAFETY: advice on an open file; where it is refused, nothing is lost but time.
                unsafe { libc::posix_fadvise(files[*file].as_raw_fd(), begin, length, libc::POSIX_FADV_WILLNEED) };
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = announcement;
    }

    fn forget(&self, _: &[Tag]) {}
}
