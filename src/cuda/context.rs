//! A GPU at work: its memory, its two streams and its kernels.
//!
//! All threads share one stream that computes; another copies, so that the next weights arrive while this layer computes.
//! Whoever copies waits until what was copied is complete before it passes it on. Weights that several GPUs need are read once
//! and copied to each.

use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::result;
use cudarc::driver::sys::{CUdeviceptr, CUstream};

use super::account::Account;
use super::cublas::Blas;
use super::driver_context::{DriverContext, Stream, failed, out_of_memory};
use super::kernels::{Arg, Kernels, THREADS};
use super::staging::{Event, Half};
use super::timeline::{Amount, Timeline};
use crate::error::Result;

/// Most blocks of an elementwise kernel, whose threads then take several numbers each.
const MOST_BLOCKS: u64 = 1 << 14;
/// Bytes of each piece that is uploaded for the computing stream.
const UPLOAD_BYTES: usize = 1 << 20;
/// One part in so many of the free memory stays free, for the driver and cuBLAS.
const UNTOUCHED: usize = 20;
/// Pieces in flight.
const UPLOADS: usize = 8;

/// A GPU that computes.
pub struct Context {
    driver: DriverContext,
    blas: Mutex<Blas>,
    kernels: Kernels,
    uploads: Mutex<(Vec<Half>, usize)>,
    /// Pairs of pinned halves that no thread is using.
    idle: Mutex<Vec<[Half; 2]>>,
    /// Where the computing stream was when `pace` was last called.
    pace: Mutex<Option<Event>>,
    account: Mutex<Account>,
    timeline: Option<Timeline>,
}

// SAFETY: the driver's objects may be used from any thread whose current context is theirs; `enter` sees to that, and the
// cuBLAS handle is behind a lock.
unsafe impl Send for Context {}
unsafe impl Sync for Context {}

impl Context {
    /// Opens GPU `index`, which `super::gpu` has found.
    pub fn open(index: usize) -> Result<Arc<Self>> {
        let opening = |error| failed(&format!("opening cuda:{index}"), error);
        let driver = DriverContext::open(index).map_err(opening)?;
        let compute = driver.stream(Stream::Compute);
        let kernels = Kernels::load().map_err(opening)?;
        let blas = Mutex::new(Blas::start(compute)?);
        let (free, _) = result::mem_get_info().map_err(opening)?;
        let account = Mutex::new(Account { limit: free - free / UNTOUCHED, ..Account::default() });
        let (uploads, idle, pace) = (Mutex::new((Vec::new(), 0)), Mutex::new(Vec::new()), Mutex::new(None));
        let timeline = Timeline::wanted(compute)?;
        Ok(Arc::new(Self { driver, blas, kernels, uploads, idle, pace, account, timeline }))
    }

    /// Makes this context the calling thread's.
    pub(super) fn enter(&self) -> Result<()> {
        self.driver.enter()
    }

    pub(super) fn stream(&self, stream: Stream) -> CUstream {
        self.driver.stream(stream)
    }

    pub(super) fn blas(&self) -> MutexGuard<'_, Blas> {
        self.blas.lock().expect("no panic under this lock")
    }

    pub(super) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().expect("no panic under this lock")
    }

    /// Pairs of pinned halves that no thread is using.
    pub(super) fn idle(&self) -> MutexGuard<'_, Vec<[Half; 2]>> {
        self.idle.lock().expect("no panic under this lock")
    }

    pub(super) fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }

    /// Puts `work` on a stream, between marks where somebody wants to know when it was done.
    pub(super) fn timed(
        &self,
        stream: Stream,
        what: &str,
        amount: Amount,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        match &self.timeline {
            None => work(),
            Some(timeline) => timeline.timed(&self.driver, stream, what, amount, work),
        }
    }

    /// Marks where layer `layer` begins.
    pub fn begins(&self, layer: usize) -> Result<()> {
        if self.timeline.is_none() {
            return Ok(());
        }
        self.enter()?;
        self.timed(Stream::Compute, &format!("layer {layer}"), Amount::Uncounted, || Ok(()))
    }

    /// Refuses to use more than `bytes` of GPU memory from now on, nor more than there are.
    pub fn limit(&self, bytes: usize) {
        let mut account = self.account();
        account.limit = account.limit.min(bytes);
    }

    /// Keeps `bytes` for weights, in use or not.
    ///
    /// # Errors
    /// Of kind `oom` when they are more than may be used.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        let mut account = self.account();
        account.reserved = bytes;
        account.peak = account.weights + account.work;
        if bytes < account.limit {
            return Ok(());
        }
        let problem = format!("{bytes} bytes of weights at once are more than the {} allowed", account.limit);
        Err(out_of_memory(problem)
            .hint("chunk_layers: 1 keeps the least; or allow more by max_vram, or take a larger GPU"))
    }

    /// The most bytes of GPU memory that were in use at once, since `reserve`.
    pub fn peak(&self) -> usize {
        self.account().peak
    }

    /// Whether something has been refused since the last call.
    pub fn was_full(&self) -> bool {
        std::mem::take(&mut self.account().full)
    }

    /// Starts kernel `name` in `blocks` of `threads`.
    pub fn launch(
        &self,
        stream: Stream,
        name: &'static str,
        blocks: (u32, u32),
        threads: u32,
        args: &[Arg],
    ) -> Result<()> {
        self.enter()?;
        self.timed(stream, name, Amount::Uncounted, || {
            self.kernels.launch(self.stream(stream), name, blocks, threads, args)
        })
    }

    /// Starts a kernel that meets `count` numbers, as many threads as are useful.
    pub fn each(&self, stream: Stream, name: &'static str, count: usize, args: &[Arg]) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        let blocks = (count as u64).div_ceil(THREADS as u64).min(MOST_BLOCKS);
        self.launch(stream, name, (blocks as u32, 1), THREADS, args)
    }

    /// Copies `bytes` to `to` in the order of the computing stream, without waiting for it.
    pub fn upload(&self, to: CUdeviceptr, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        let mut uploads = self.uploads.lock().expect("no panic under this lock");
        for (i, piece) in bytes.chunks(UPLOAD_BYTES).enumerate() {
            let (halves, next) = &mut *uploads;
            if halves.len() < UPLOADS {
                halves.push(Half::new(UPLOAD_BYTES)?);
            }
            let half = &mut halves[*next];
            *next = (*next + 1) % UPLOADS;
            half.wait()?;
            half.bytes()[..piece.len()].copy_from_slice(piece);
            self.timed(Stream::Compute, "to the GPU", Amount::Bytes(piece.len()), || {
                half.send(0..piece.len(), to + (i * UPLOAD_BYTES) as u64, self.stream(Stream::Compute))
            })?;
        }
        Ok(())
    }

    /// Waits for what the calling thread has put on the copying stream.
    pub fn settle(&self) -> Result<()> {
        self.enter()?;
        let event = Event::new()?;
        event.record(self.stream(Stream::Copy))?;
        event.wait()
    }

    /// Waits for what was on the computing stream at the last call: the host prepares one step while the GPU does another, and
    /// memory that is freed on the stream is soon free indeed.
    pub fn pace(&self) -> Result<()> {
        self.enter()?;
        let now = Event::new()?;
        now.record(self.stream(Stream::Compute))?;
        match self.pace.lock().expect("no panic under this lock").replace(now) {
            Some(before) => before.wait(),
            None => Ok(()),
        }
    }

    /// Waits for both streams. In the current context.
    pub(super) fn finish(&self) -> Result<()> {
        self.driver.finish()
    }

    /// Copies from `from` once the stream has done what is before it.
    pub fn download(&self, stream: Stream, from: CUdeviceptr, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        let copying = |error| failed("copying from the GPU", error);
        self.timed(stream, "from the GPU", Amount::Bytes(bytes.len()), || {
            // SAFETY: `from` has as many bytes; the copy is complete before this returns.
            unsafe { result::memcpy_dtoh_async(bytes, from, self.stream(stream)) }.map_err(copying)
        })?;
        // SAFETY: the stream is this context's.
        unsafe { result::stream::synchronize(self.stream(stream)) }.map_err(copying)
    }

    /// Copies within the GPU.
    pub fn copy(&self, from: CUdeviceptr, to: CUdeviceptr, bytes: usize) -> Result<()> {
        self.enter()?;
        self.timed(Stream::Compute, "within the GPU", Amount::Bytes(bytes), || {
            // SAFETY: the caller's arrays have as many bytes, and do not overlap.
            unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream(Stream::Compute)) }
                .map_err(|error| failed("copying on the GPU", error))
        })
    }

    /// Makes `bytes` bytes zero.
    pub fn clear(&self, stream: Stream, at: CUdeviceptr, value: u8, bytes: usize) -> Result<()> {
        self.enter()?;
        self.timed(stream, "clear", Amount::Bytes(bytes), || {
            // SAFETY: the caller's buffer has as many bytes.
            unsafe { result::memset_d8_async(at, value, bytes, self.stream(stream)) }
                .map_err(|error| failed("clearing GPU memory", error))
        })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: nothing uses the streams any more: every buffer holds this context.
        unsafe {
            _ = self.finish();
            self.timeline.take();
            self.pace.get_mut().expect("no panic under this lock").take();
            self.idle.get_mut().expect("no panic under this lock").clear();
            self.uploads.get_mut().expect("no panic under this lock").0.clear();
            self.blas().end();
            self.kernels.unload();
            self.driver.release();
        }
    }
}
