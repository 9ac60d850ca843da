//! A GPU at work: its memory, its two streams and its kernels.
//!
//! All threads share one stream that computes; another copies, so that the next weights arrive while this layer computes.
//! Whoever copies waits until what was copied is complete before it passes it on. Weights that several GPUs need are read once
//! and copied to each.

use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::result;

use super::account::Account;
use super::cublas::Blas;
use super::driver_context::{Current, DriverContext, Stream, failed, out_of_memory};
use super::kernels::{Arg, Grid, Kernels, Name};
use super::staging::{Event, Half};
use super::timeline::{Amount, Timeline};
use crate::error::Result;

/// One part in so many of the free memory stays free, for the driver and cuBLAS.
const UNTOUCHED: usize = 20;

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

// SAFETY: the driver's objects may be used and freed by any thread whose current context is theirs, which `enter` sees to.
unsafe impl Send for Context {}
// SAFETY: as for `Send`, and by several threads at once; the cuBLAS handle, which may not, is behind a lock.
unsafe impl Sync for Context {}

impl Context {
    /// Opens GPU `index`, which `super::gpu` has found.
    pub fn open(index: usize) -> Result<Arc<Self>> {
        let opening = |error| failed(&format!("opening cuda:{index}"), error);
        let driver = DriverContext::open(index).map_err(opening)?;
        let current = driver.enter()?;
        let kernels = Kernels::load(&current).map_err(opening)?;
        let blas = Mutex::new(Blas::start(&current)?);
        let (free, _) = result::mem_get_info().map_err(opening)?;
        let account = Mutex::new(Account { limit: free - free / UNTOUCHED, ..Account::default() });
        let (uploads, idle, pace) = (Mutex::new((Vec::new(), 0)), Mutex::new(Vec::new()), Mutex::new(None));
        let timeline = Timeline::wanted(&current)?;
        drop(current);
        Ok(Arc::new(Self { driver, blas, kernels, uploads, idle, pace, account, timeline }))
    }

    /// Makes this context the calling thread's, for as long as the guard lives.
    pub(super) fn enter(&self) -> Result<Current<'_>> {
        self.driver.enter()
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

    /// Puts `work` on a stream of this context, which is current, between marks where somebody wants to know when it was done.
    pub(super) fn timed(
        &self,
        current: &Current,
        stream: Stream,
        what: &str,
        amount: Amount,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        match &self.timeline {
            None => work(),
            Some(timeline) => timeline.timed(current, stream, what, amount, work),
        }
    }

    /// Marks where layer `layer` begins.
    pub fn begins(&self, layer: usize) -> Result<()> {
        if self.timeline.is_none() {
            return Ok(());
        }
        self.timed(&self.enter()?, Stream::Compute, &format!("layer {layer}"), Amount::Uncounted, || Ok(()))
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

    /// Puts a kernel on a stream.
    ///
    /// # Safety
    /// `args` are what this kernel takes, in its order, and at every address is memory of this GPU that has as many numbers as
    /// the kernel meets, and is used and freed in the order of `stream`.
    pub(super) unsafe fn launch(&self, stream: Stream, name: Name, grid: Grid, args: &[Arg]) -> Result<()> {
        let current = self.enter()?;
        self.timed(&current, stream, name.1, Amount::Uncounted, || {
            // SAFETY: `open` has loaded the kernels into this context; the caller promises the rest.
            unsafe { self.kernels.launch(&current, stream, name, grid, args) }
        })
    }

    /// The pinned memory from which pieces of `UPLOAD_BYTES` are uploaded, and the piece whose turn it is.
    pub(super) fn uploads(&self) -> MutexGuard<'_, (Vec<Half>, usize)> {
        self.uploads.lock().expect("no panic under this lock")
    }

    /// Waits for what the calling thread has put on the copying stream.
    pub(super) fn settle(&self) -> Result<()> {
        let current = self.enter()?;
        let event = Event::new(&current)?;
        event.record(&current, Stream::Copy)?;
        event.wait()
    }

    /// Waits for what was on the computing stream at the last call: the host prepares one step while the GPU does another, and
    /// memory that is freed on the stream is soon free indeed.
    pub fn pace(&self) -> Result<()> {
        let current = self.enter()?;
        let now = Event::new(&current)?;
        now.record(&current, Stream::Compute)?;
        match self.pace.lock().expect("no panic under this lock").replace(now) {
            Some(before) => before.wait(),
            None => Ok(()),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let Ok(current) = self.driver.enter() else { return };
        _ = current.finish();
        self.timeline.take();
        self.pace.get_mut().expect("no panic under this lock").take();
        self.idle.get_mut().expect("no panic under this lock").clear();
        self.uploads.get_mut().expect("no panic under this lock").0.clear();
        // SAFETY: the streams have come to their ends and nobody uses them any more: every buffer holds this context.
        unsafe {
            self.blas.get_mut().expect("no panic under this lock").end(&current);
            self.kernels.unload(&current);
        }
        drop(current);
        // SAFETY: all that was made in this context is gone, and only `self` enters it.
        unsafe { self.driver.release() };
    }
}
