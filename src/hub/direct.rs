//! Large reads past the page cache, for weights that are not in it.
//!
//! A stream reads every byte once, so that a cache does nothing for it, and filling the cache costs more processor time than
//! the reading: the kernel takes a page for every 4 KiB, copies it, and drops others. What is cached already is left to
//! ordinary reads. So is all of a slow disk's model that fits in memory: there the next run gains more than this one loses.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libc::iovec;

use crate::memory::{self, PAGE};

/// Below this a read costs what its start costs, wherever it goes.
const SMALLEST: usize = 256 << 10;
/// Bytes per system call: less than the kernel's limit.
const LARGEST: usize = 1 << 30;
/// A disk is slow when a read, with others in flight, comes at less than so many bytes per second.
const SLOW: f64 = 100e6;
/// Time of reads from which on the pace is known.
const KNOWN: Duration = Duration::from_millis(200);

/// The files of one folder, for such reads.
pub struct Direct {
    /// None where the file system has nothing of the kind.
    files: Vec<Option<File>>,
    /// Its files and the memory of this machine are so that the page cache could keep them all.
    cacheable: bool,
    /// Bytes, and the time of the reads that brought them.
    pace: Mutex<(usize, Duration)>,
    /// Such a read has failed.
    refused: AtomicBool,
}

/// One page, where the bytes in front of a buffer and behind it go.
#[repr(align(4096))]
struct Page([u8; PAGE]);

impl Direct {
    /// For files that have so many bytes together.
    pub fn open(paths: impl Iterator<Item = PathBuf>, bytes: u64) -> Self {
        let cacheable = memory::total_and_available().is_some_and(|(_, available)| bytes <= available / 2);
        let open = |path| File::options().read(true).custom_flags(libc::O_DIRECT).open(path).ok();
        Self { files: paths.map(open).collect(), cacheable, pace: Mutex::default(), refused: AtomicBool::new(false) }
    }

    /// Reads from byte `offset` of a file on and says how many bytes of the buffer are filled now: none where an ordinary read is
    /// the better way, or the only one. The buffer has to lie to a page as the bytes do in the file.
    pub fn read(&self, file: usize, offset: u64, buffer: &mut [u8]) -> usize {
        let Some(file) = &self.files[file] else { return 0 };
        let length = buffer.len().min(LARGEST);
        let before = (offset % PAGE as u64) as usize;
        if length < SMALLEST
            || buffer.as_ptr() as usize % PAGE != before
            || self.refused.load(Ordering::Relaxed)
            || self.cacheable && self.slow()
            || cached(file, offset - before as u64, before + length)
        {
            return 0;
        }
        let start = Instant::now();
        let (mut first, mut last) = (Page([0; PAGE]), Page([0; PAGE]));
        // In the buffer: the end of a page, whole pages, the beginning of one.
        let head = (PAGE - before) % PAGE;
        let (whole, tail) = ((length - head) / PAGE * PAGE, (length - head) % PAGE);
        let part = |bytes: &mut [u8]| iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut parts = [part(&mut first.0), part(&mut buffer[head..head + whole]), part(&mut last.0)];
        let parts = &mut parts[usize::from(head == 0)..if tail == 0 { 2 } else { 3 }];
        // SAFETY: the parts are exclusively borrowed, of the lengths told, and do not overlap.
        let read = unsafe {
            libc::preadv(file.as_raw_fd(), parts.as_ptr(), parts.len() as i32, (offset - before as u64) as libc::off_t)
        };
        if read < 0 {
            // Of the file system, of the memory, of a place on the disk: an ordinary read works, or tells what is wrong.
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

/// Whether at least half of these bytes, from a page's beginning on, are in the page cache, as far as the kernel tells.
fn cached(file: &File, offset: u64, bytes: usize) -> bool {
    let mut pages = vec![0u8; bytes.div_ceil(PAGE)];
    // SAFETY: a new mapping, never read from and gone before this returns; the vector has a byte for each of its pages.
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

    /// Random bytes in a file, and the reader of it.
    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let mut bytes = vec![0; BYTES];
        rand_chacha::ChaCha8Rng::seed_from_u64(5).fill_bytes(&mut bytes);
        let mut file = File::create_new(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
        // However slow this disk is today.
        let direct = Direct { cacheable: false, ..Direct::open([path.clone()].into_iter(), BYTES as u64) };
        Fixture { _folder: folder, file: File::open(&path).unwrap(), bytes, direct }
    }

    impl Fixture {
        /// Drops the file from the page cache, and says whether these bytes are not in it now: a file system in memory keeps all.
        fn dropped(&self, from: usize, length: usize) -> bool {
            // SAFETY: advice on an open file.
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
            let from = rng.random_range(0..BYTES - SMALLEST);
            (from, rng.random_range(SMALLEST..=BYTES - from))
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
    fn ordinary_reads_are_left_what_they_do_better() {
        let mut fixture = fixture();
        fixture.direct.cacheable = true;
        let mut memory = vec![0u8; (1 << 20) + 2 * PAGE];
        let first = memory.as_ptr().align_offset(PAGE);
        fixture.dropped(0, BYTES);
        let mut filled =
            |from: usize, length, offset| fixture.direct.read(0, offset, &mut memory[first + from..][..length]);
        assert_eq!(filled(64, 1 << 20, 0), 0, "it lies otherwise in the file");
        assert_eq!(filled(0, SMALLEST - 1, 0), 0, "small");
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
