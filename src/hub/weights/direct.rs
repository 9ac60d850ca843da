//! Large reads that bypass the page cache, for weights that are not in it.
//!
//! A pass reads every byte once and gains nothing from the cache, and filling the cache takes more
//! processor time than reading: the kernel allocates a page for every 4 KiB, copies it, and evicts
//! others. Cached data is left to ordinary reads. So is a model on a slow disk that fits in memory:
//! the next run gains more from the cache than this one loses.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libc::iovec;

use crate::memory::{self, LARGE, PAGE};

/// Bytes per system call, less than the kernel's limit.
const LONGEST: usize = 1 << 30;
/// A disk is slow if a read, with others in flight, has less than this many bytes per second.
const SLOW: f64 = 100e6;
/// Total time of reads after which the disk's rate is known.
const KNOWN: Duration = Duration::from_millis(200);

/// The files of one folder, opened for direct reads.
pub(crate) struct Direct {
    /// None if the file system does not support direct reads.
    files: Vec<Option<File>>,
    /// True if the page cache of this machine can hold all files.
    cacheable: bool,
    /// Total bytes of the reads and their total time.
    pace: Mutex<(usize, Duration)>,
    /// True if a direct read has failed.
    refused: AtomicBool,
}

/// One page, for the bytes before and after a buffer.
#[repr(align(4096))]
struct Page([u8; PAGE]);

impl Direct {
    /// Opens files once more, with `bytes` bytes in total. They are the same files, whatever has
    /// their names by now.
    pub(crate) fn open(files: &[File], bytes: u64) -> Self {
        let cacheable = memory::total_and_available().is_some_and(|(_, available)| bytes <= available / 2);
        let open = |file: &File| {
            let same = format!("/proc/self/fd/{}", file.as_raw_fd());
            File::options().read(true).custom_flags(libc::O_DIRECT).open(same).ok()
        };
        Self {
            files: files.iter().map(open).collect(),
            cacheable,
            pace: Mutex::default(),
            refused: AtomicBool::new(false),
        }
    }

    /// Reads from byte `offset` of a file and returns the number of bytes of the buffer that are
    /// filled. It is 0 if an ordinary read is better, or the only possible one. The buffer must
    /// have the same offset within a page as the bytes in the file.
    pub(crate) fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> usize {
        let Some(file) = &self.files[file] else { return 0 };
        let length = buffer.len().min(LONGEST);
        let before = (offset % PAGE as u64) as usize;
        if length < LARGE
            || buffer.as_ptr() as usize % PAGE != before
            || self.refused.load(Ordering::Relaxed)
            || self.cacheable && self.slow()
            || cached(file, offset - before as u64, before + length)
        {
            return 0;
        }
        let start = Instant::now();
        let (mut first, mut last) = (Page([0; PAGE]), Page([0; PAGE]));
        // The buffer consists of the end of a page, whole pages, and the beginning of one.
        let head = (PAGE - before) % PAGE;
        let (whole, tail) = ((length - head) / PAGE * PAGE, (length - head) % PAGE);
        let part = |bytes: &mut [u8]| iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut parts = [part(&mut first.0), part(&mut buffer[head..head + whole]), part(&mut last.0)];
        let parts = &mut parts[usize::from(head == 0)..if tail == 0 { 2 } else { 3 }];
        // SAFETY: the parts are exclusively borrowed, have these lengths, and do not overlap.
        let read = unsafe {
            libc::preadv(file.as_raw_fd(), parts.as_ptr(), parts.len() as i32, (offset - before as u64) as libc::off_t)
        };
        if read < 0 {
            // The file system, the memory or the disk may be the cause: an ordinary read succeeds,
            // or reports the error.
            self.refused.store(true, Ordering::Relaxed);
            return 0;
        }
        let filled = (read as usize).saturating_sub(before).min(length);
        buffer[..head].copy_from_slice(&first.0[before..before + head]);
        buffer[head + whole..length].copy_from_slice(&last.0[..tail]);
        let mut pace = self.pace.lock().expect("no panic under this lock");
        *pace = (pace.0 + filled, pace.1 + start.elapsed());
        filled
    }

    fn slow(&self) -> bool {
        let (bytes, time) = *self.pace.lock().expect("no panic under this lock");
        time > KNOWN && (bytes as f64) < SLOW * time.as_secs_f64()
    }
}

/// True if at least half of these bytes, from the beginning of a page on, are in the page cache, as
/// far as the kernel reports it.
fn cached(file: &File, offset: u64, bytes: usize) -> bool {
    let mut pages = vec![0u8; bytes.div_ceil(PAGE)];
    // SAFETY: this is a new mapping that is never accessed and is removed before this function
    // returns. The vector has a byte for each of its pages.
    let told = unsafe {
        let start =
            libc::mmap(null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), offset as libc::off_t);
        if start == libc::MAP_FAILED {
            return true;
        }
        let told = libc::mincore(start, bytes, pages.as_mut_ptr().cast());
        libc::munmap(start, bytes);
        told
    };
    told != 0 || 2 * pages.iter().filter(|page| *page & 1 == 1).count() >= pages.len()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use rand::{Rng, RngCore, SeedableRng};

    use super::*;

    const BYTES: usize = (3 << 20) + 1234;

    struct Fixture {
        _folder: tempfile::TempDir,
        file: File,
        bytes: Vec<u8>,
        direct: Direct,
    }

    /// A file of random bytes, and its reader.
    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut bytes = vec![0; BYTES];
        rand_chacha::ChaCha8Rng::seed_from_u64(5).fill_bytes(&mut bytes);
        let mut file = File::create_new(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        // The speed of this disk must not matter.
        let direct = Direct { cacheable: false, ..Direct::open(&[File::open(&path).unwrap()], BYTES as u64) };
        Fixture { _folder: folder, file: File::open(&path).unwrap(), bytes, direct }
    }

    impl Fixture {
        /// Evicts the file from the page cache. Returns true if these bytes are not in it now: a
        /// file system in memory keeps everything.
        fn dropped(&self, from: usize, length: usize) -> bool {
            // SAFETY: this is advice on an open file.
            unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            self.uncached(from, length)
        }

        fn uncached(&self, from: usize, length: usize) -> bool {
            let before = from % PAGE;
            self.direct.files[0].is_some() && !cached(&self.file, (from - before) as u64, before + length)
        }
    }

    #[test]
    fn what_is_not_cached_is_read_past_the_cache_to_the_byte() {
        let fixture = fixture();
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(6);
        let ends = [(0, BYTES), (0, 2 << 20), (PAGE, BYTES - PAGE), (1, BYTES - 1), (BYTES - 300_000, 300_000)];
        let random = (0..20).map(|_| {
            let from = rng.random_range(0..BYTES - LARGE);
            (from, rng.random_range(LARGE..=BYTES - from))
        });
        for (from, length) in ends.into_iter().chain(random) {
            let mut memory = vec![0u8; length + 3 * PAGE];
            let first = memory.as_ptr().align_offset(PAGE) + from % PAGE;
            let uncached = fixture.dropped(from, length);
            let filled = fixture.direct.read(0, from as u64, &mut memory[first..first + length]);
            assert_eq!(filled, if uncached { length } else { 0 }, "{length} bytes from {from}");
            assert!(memory[first..first + filled] == fixture.bytes[from..from + filled], "{length} bytes from {from}");
            assert!(
                memory[..first].iter().chain(&memory[first + length..]).all(|&byte| byte == 0),
                "beside the buffer"
            );
            assert!(!uncached || fixture.uncached(from, length), "nothing was cached");
        }
    }

    #[test]
    fn a_pipe_in_the_place_of_the_file_is_not_opened() {
        let fixture = fixture();
        let path = fixture._folder.path().join("model.safetensors");
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let again = Direct::open(std::slice::from_ref(&fixture.file), BYTES as u64);
        let is_regular = |file: &File| file.metadata().unwrap().len() == BYTES as u64;
        assert!(again.files[0].as_ref().is_none_or(is_regular));
    }

    #[test]
    fn ordinary_reads_are_left_what_they_do_better() {
        let mut fixture = fixture();
        fixture.direct.cacheable = true;
        let mut memory = vec![0u8; (1 << 20) + 2 * PAGE];
        let first = memory.as_ptr().align_offset(PAGE);
        fixture.dropped(0, BYTES);
        let mut filled =
            |from: usize, length, offset| fixture.direct.read(0, offset, &mut memory[first + from..][..length]);
        assert_eq!(filled(64, 1 << 20, 0), 0, "it lies otherwise in the file");
        assert_eq!(filled(0, LARGE - 1, 0), 0, "small");
        *fixture.direct.pace.lock().unwrap() = (99_000_000, Duration::from_secs(1));
        assert_eq!(filled(0, 1 << 20, 0), 0, "the next run gains from the cache");
        *fixture.direct.pace.lock().unwrap() = (0, Duration::ZERO);
        fixture.file.read_exact_at(&mut vec![0; BYTES], 0).unwrap();
        assert_eq!(filled(0, 1 << 20, 0), 0, "cached");
    }

    #[test]
    fn a_file_that_has_become_shorter_is_read_as_far_as_it_goes() {
        let fixture = fixture();
        let mut memory = vec![0u8; BYTES + 2 * PAGE];
        let first = memory.as_ptr().align_offset(PAGE);
        let path = fixture._folder.path().join("model.safetensors");
        File::options().write(true).open(path).unwrap().set_len(1_000_000).unwrap();
        let uncached = fixture.dropped(0, BYTES);
        let filled = fixture.direct.read(0, 0, &mut memory[first..first + BYTES]);
        assert_eq!(filled, if uncached { 1_000_000 } else { 0 });
        let end = fixture.direct.read(0, 1_000_000, &mut memory[first + 1_000_000..first + BYTES]);
        assert_eq!(end, 0, "an ordinary read tells what is wrong");
    }
}
