//! A GPU that is opened for computing: its memory, its two streams and its kernels.
//!
//! All threads share one compute stream. A second stream copies, so that the weights of the next
//! layer arrive while this layer computes. A thread that copies waits for its copies before it
//! hands the arrays on. Weights for several GPUs are read once and copied to each.

use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::driver::result;

use super::account::Account;
use super::cublas::Blas;
use super::driver_context::{Current, DriverContext, Stream, failed, out_of_memory};
use super::kernels::{Arg, Grid, Kernels, Name};
use super::staging::{Event, StagingBuffer};
use super::timeline::{Amount, Timeline};
use crate::error::Result;

/// The fraction 1 / RESERVE_DIVISOR of the free memory stays free, for the driver and cuBLAS.
const RESERVE_DIVISOR: usize = 20;

/// A GPU that is opened for computing.
pub struct Context {
    driver: DriverContext,
    blas: Mutex<Blas>,
    kernels: Kernels,
    uploads: Mutex<(Vec<StagingBuffer>, usize)>,
    /// Pairs of pinned staging buffers (double buffering) that no thread is using.
    idle: Mutex<Vec<[StagingBuffer; 2]>>,
    /// The position of the compute stream at the last call of `throttle`.
    throttle: Mutex<Option<Event>>,
    account: Mutex<Account>,
    timeline: Option<Timeline>,
}

// SAFETY: any thread may use and free the driver's objects while their context is current on it,
// and `enter` makes it current.
unsafe impl Send for Context {}
// SAFETY: as for `Send`, and several threads may do so at once. A cuBLAS handle is not thread-safe
// and is behind a lock.
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
        let account = Mutex::new(Account { limit: free - free / RESERVE_DIVISOR, ..Account::default() });
        let (uploads, idle, throttle) = (Mutex::new((Vec::new(), 0)), Mutex::new(Vec::new()), Mutex::new(None));
        let timeline = Timeline::if_requested(&current)?;
        drop(current);
        Ok(Arc::new(Self { driver, blas, kernels, uploads, idle, throttle, account, timeline }))
    }

    /// Makes this context current on the calling thread, until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Current<'_>> {
        self.driver.enter()
    }

    pub(super) fn blas(&self) -> MutexGuard<'_, Blas> {
        self.blas.lock().expect("no panic under this lock")
    }

    pub(super) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().expect("no panic under this lock")
    }

    /// Pairs of pinned staging buffers that no thread is using.
    pub(super) fn idle(&self) -> MutexGuard<'_, Vec<[StagingBuffer; 2]>> {
        self.idle.lock().expect("no panic under this lock")
    }

    pub(super) fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }

    /// Puts `work` on a stream of this context, which is current. If a timeline was requested,
    /// events before and after the work record its time.
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

    /// Marks the beginning of layer `layer` in the timeline.
    pub fn mark_layer(&self, layer: usize) -> Result<()> {
        if self.timeline.is_none() {
            return Ok(());
        }
        self.timed(&self.enter()?, Stream::Compute, &format!("layer {layer}"), Amount::Uncounted, || Ok(()))
    }

    /// Lowers the limit of GPU memory in use to `bytes`. It is never raised.
    pub fn limit(&self, bytes: usize) {
        let mut account = self.account();
        account.limit = account.limit.min(bytes);
    }

    /// Keeps `bytes` of the limit for weights, and resets the peak.
    ///
    /// # Errors
    /// `oom` if `bytes` is not below the limit.
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

    /// The peak of GPU memory in use since `reserve`, in bytes.
    pub fn peak(&self) -> usize {
        self.account().peak
    }

    /// True if an allocation was refused since the last call.
    pub fn take_oom_flag(&self) -> bool {
        std::mem::take(&mut self.account().full)
    }

    /// Puts a kernel on a stream.
    ///
    /// # Safety
    /// `args` are the arguments of this kernel in its order. Every address is memory of this GPU
    /// with at least as many elements as the kernel accesses, used and freed on `stream`.
    pub(super) unsafe fn launch(&self, stream: Stream, name: Name, grid: Grid, args: &[Arg]) -> Result<()> {
        let current = self.enter()?;
        self.timed(&current, stream, name.1, Amount::Uncounted, || {
            // SAFETY: `open` loaded the kernels into this context, and the caller promises the
            // rest.
            unsafe { self.kernels.launch(&current, stream, name, grid, args) }
        })
    }

    /// The pinned buffers for uploads of up to `UPLOAD_BYTES`, and the index of the next one to
    /// use.
    pub(super) fn uploads(&self) -> MutexGuard<'_, (Vec<StagingBuffer>, usize)> {
        self.uploads.lock().expect("no panic under this lock")
    }

    /// Waits for the work that the calling thread has put on the copy stream.
    pub(super) fn wait_for_copies(&self) -> Result<()> {
        let current = self.enter()?;
        let event = Event::new(&current)?;
        event.record(&current, Stream::Copy)?;
        event.wait()
    }

    /// Waits until the compute stream has reached its position at the last call. The host thereby
    /// runs ahead of the GPU by one step at most, and memory that is freed in stream order becomes
    /// free soon.
    pub fn throttle(&self) -> Result<()> {
        let current = self.enter()?;
        let now = Event::new(&current)?;
        now.record(&current, Stream::Compute)?;
        match self.throttle.lock().expect("no panic under this lock").replace(now) {
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
        self.throttle.get_mut().expect("no panic under this lock").take();
        self.idle.get_mut().expect("no panic under this lock").clear();
        self.uploads.get_mut().expect("no panic under this lock").0.clear();
        // SAFETY: both streams are idle and nobody uses them any more, because every buffer holds a
        // reference to this context.
        unsafe {
            self.blas.get_mut().expect("no panic under this lock").end(&current);
            self.kernels.unload(&current);
        }
        drop(current);
        // SAFETY: all objects of this context have been released, and only `self` can enter it.
        unsafe { self.driver.release() };
    }
}
