//! A model's files in a folder of this machine.
//!
//! Files are not memory-mapped, so that resident memory is only what was requested.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

#[cfg(target_os = "linux")]
use super::direct::Direct;
use super::folders;
use super::shards::{LAYOUTS, Layout, PYTORCH, SAFETENSORS, nothing};
#[cfg(target_os = "linux")]
use super::source::FileRange;
use super::source::{Announcement, ByteSource, SourceFile, Tag};
use super::weight_formats;
use crate::error::{Error, Kind, Result};
use crate::hub::cache::repository::small;
use crate::hub::failure::Failure;
use crate::hub::foreign;
use crate::outside;

pub(crate) struct Folder {
    path: PathBuf,
    /// None if there are no weights.
    opened: OnceLock<Option<Opened>>,
    note: OnceLock<String>,
    /// The weight files, if they were named.
    only: Option<Vec<String>>,
}

struct Opened {
    described: Vec<SourceFile>,
    files: Vec<File>,
    /// The lengths of the files and the times of their last changes, when they were opened.
    versions: Vec<Option<Version>>,
    #[cfg(target_os = "linux")]
    direct: Direct,
}

/// Length in bytes, and the time of the last change of the contents.
type Version = (u64, SystemTime);

fn version(file: &File) -> Option<Version> {
    let metadata = file.metadata().ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

impl Folder {
    /// Files are opened at their first use.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), opened: OnceLock::new(), note: OnceLock::new(), only: None }
    }

    /// A folder whose weights are in these files.
    pub(crate) fn of_files(path: &Path, names: Vec<String>) -> Self {
        Self { only: Some(names), ..Self::new(path) }
    }

    /// Adds a note for the user about the origin of the files.
    pub(crate) fn noting(self, note: Option<String>) -> Self {
        note.into_iter().for_each(|note| drop(self.note.set(note)));
        self
    }

    /// The files that transformers would read: safetensors before PyTorch files, and a single file
    /// before the files of an index.
    fn names(&self) -> Result<Option<Vec<String>>> {
        if self.only.is_some() {
            return Ok(self.only.clone());
        }
        for layout in &LAYOUTS {
            if let Some(names) = self.names_of(layout)? {
                return Ok(Some(names));
            }
        }
        let names = self.listing().unwrap_or_default();
        weight_formats::instead(&self.place(), None, &names, |name| self.small(name)).map_or(Ok(None), Err)
    }

    fn names_of(&self, layout: &Layout) -> Result<Option<Vec<String>>> {
        let single = self.path.join(layout.single);
        if single.is_file() {
            let index = self.small(layout.index).ok().flatten();
            let note = index.and_then(|index| layout.beside_single(&index, &self.place()));
            note.or_else(|| self.beside(layout.single)).into_iter().for_each(|note| drop(self.note.set(note)));
            return Ok(Some(vec![layout.single.to_string()]));
        }
        if let Some(index) = self.small(layout.index)? {
            self.beside(layout.index).into_iter().for_each(|note| drop(self.note.set(note)));
            let names = layout.names(&index, &self.place())?;
            if !names.iter().any(|name| self.path.join(name).symlink_metadata().is_ok()) {
                let (place, listed) = (self.place(), self.listing().unwrap_or_default());
                let small = |name: &str| self.small(name);
                return Err(weight_formats::only_index(&place, layout.index, names.len(), &listed, small));
            }
            return Ok(Some(names));
        }
        // Opening reports a link without a target, and a file that is not regular.
        let is_there = single.symlink_metadata().is_ok();
        Ok(is_there.then(|| vec![layout.single.to_string()]))
    }

    /// A note for the user if PyTorch files, which may differ, are next to the safetensors files
    /// `chosen`.
    fn beside(&self, chosen: &str) -> Option<String> {
        let is_safetensors = [SAFETENSORS.single, SAFETENSORS.index].contains(&chosen);
        let other = [PYTORCH.single, PYTORCH.index].into_iter().find(|name| self.path.join(name).is_file());
        let other = other.filter(|_| is_safetensors)?;
        Some(format!("{}: {chosen} is read and {other} is not: transformers chooses the same", self.place()))
    }

    fn found(&self) -> Result<Option<&Opened>> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened.as_ref());
        }
        let Some(names) = self.names()? else { return Ok(self.opened.get_or_init(|| None).as_ref()) };
        let (mut described, mut files) = (Vec::<SourceFile>::new(), Vec::new());
        for name in names {
            let path = self.path.join(&name);
            let unreadable = |e: std::io::Error| outside::unreadable(&path, &e, "download the missing file");
            let file = outside::open(&path).map_err(unreadable)?;
            let bytes = file.metadata().map_err(unreadable)?.len();
            described.push(SourceFile { name, bytes, announced_sha256: None });
            files.push(file);
        }
        let opened = Opened {
            #[cfg(target_os = "linux")]
            direct: Direct::open(&files, described.iter().map(|file| file.bytes).sum()),
            versions: files.iter().map(version).collect(),
            described,
            files,
        };
        Ok(self.opened.get_or_init(|| Some(opened)).as_ref())
    }

    fn opened(&self) -> Result<&Opened> {
        self.found()?.ok_or_else(|| nothing(&self.place(), &self.models_below()))
    }
}

impl ByteSource for Folder {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(name);
        let data = match small(&path) {
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            data => data?,
        };
        foreign::no_json(&path.display().to_string(), &data).map_or(Ok(Some(data)), Err)
    }

    fn weights(&self) -> Result<Option<&[SourceFile]>> {
        Ok(self.found()?.map(|opened| &opened.described[..]))
    }

    fn listing(&self) -> Option<Vec<String>> {
        let entries = std::fs::read_dir(&self.path).ok()?.flatten();
        Some(entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
    }

    fn models_below(&self) -> Vec<String> {
        folders::below(&self.path)
    }

    fn note(&self) -> Option<&str> {
        self.note.get().map(String::as_str)
    }

    fn read(&self, file: usize, mut offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        let opened = self.opened()?;
        #[cfg(target_os = "linux")]
        while let filled @ 1.. = opened.direct.read(file, offset, buffer) {
            (offset, buffer) = (offset + filled as u64, &mut buffer[filled..]);
        }
        opened.files[file].read_exact_at(buffer, offset).map_err(|e| {
            let path = self.path.join(&opened.described[file].name);
            Error::io(format!("reading {}", path.display()), &e).or_hint("was the file changed during the run?")
        })?;
        // A file that is written again meanwhile would be read in a mixture of two versions.
        match version(&opened.files[file]) == opened.versions[file] {
            true => Ok(()),
            false => Err(Error::of(Failure::ChangedHere(self.path.join(&opened.described[file].name)))),
        }
    }

    /// Pieces so small that the gaps between them do not matter are announced to the kernel,
    /// because each of them would otherwise wait for the disk. Larger pieces keep the disk busy by
    /// themselves.
    fn expect(&self, _: Tag, announcement: Announcement) {
        #[cfg(target_os = "linux")]
        if let (1.., Ok(Opened { files, .. })) = (announcement.max_gap, self.opened()) {
            use std::os::fd::AsRawFd;
            for FileRange { file, range } in &announcement.ranges {
                let (begin, length) = (range.start as i64, (range.end - range.start) as i64);
                // SAFETY: this is advice on an open file. A refusal costs only time.
                unsafe { libc::posix_fadvise(files[*file].as_raw_fd(), begin, length, libc::POSIX_FADV_WILLNEED) };
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = announcement;
    }

    fn forget(&self, _: &[Tag]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_again_while_it_is_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SAFETENSORS.single);
        std::fs::write(&path, "the first version").unwrap();
        let (source, mut buffer) = (Folder::new(folder.path()), [0; 9]);
        source.read(0, 4, &mut buffer[..5]).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"the other version", 0).unwrap();
        file.set_modified(SystemTime::now() + std::time::Duration::from_secs(5)).unwrap();
        let error = source.read(0, 0, &mut buffer).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt);
        assert!(error.message.contains("while it was read"), "{}", error.message);
    }
}
