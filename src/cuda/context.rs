//! A GPU at work: its memory, its two streams and its kernels.
//!
//! All threads share one stream that computes; another copies, so that the next weights arrive while this layer computes.
//! Whoever copies waits until what was copied is complete before it passes it on. Weights that several GPUs need are read once
//! and copied to each.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard};

use cudarc::cublas::sys::cublasHandle_t;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdeviceptr, CUstream};

use super::memory::{Account, Buffer};
use super::ptx;
use super::staging::{Event, Half, Pinned};
use super::timeline::{Amount, Timeline};
use crate::error::{Error, Kind, Result};
use crate::memory::PAGE;

/// Threads of a block; the kernels that sum are written for it.
pub const THREADS: u32 = 256;
/// Most blocks of an elementwise kernel, whose threads then take several numbers each.
const MOST_BLOCKS: u64 = 1 << 14;
/// Bytes of each piece that is uploaded for the computing stream.
const UPLOAD_BYTES: usize = 1 << 20;
/// One part in so many of the free memory stays free, for the driver and cuBLAS.
const UNTOUCHED: usize = 20;
/// Pieces in flight.
const UPLOADS: usize = 8;

/// Which stream work is put on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stream {
    Compute,
    Copy,
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum Arg {
    Address(u64),
    U32(u32),
    U64(u64),
    F32(f32),
}

impl Arg {
    pub fn size(value: usize) -> Self {
        Self::U32(u32::try_from(value).expect("a dimension below 2^32"))
    }

    pub fn count(value: usize) -> Self {
        Self::U64(value as u64)
    }
}

/// A GPU that computes.
pub struct Context {
    context: sys::CUcontext,
    device: sys::CUdevice,
    compute: CUstream,
    copy: CUstream,
    blas: Mutex<Blas>,
    modules: Vec<sys::CUmodule>,
    kernels: HashMap<&'static str, sys::CUfunction>,
    uploads: Mutex<(Vec<Half>, usize)>,
    /// Pairs of pinned halves that no thread is using.
    idle: Mutex<Vec<[Half; 2]>>,
    /// Where the computing stream was when `pace` was last called.
    pace: Mutex<Option<Event>>,
    account: Mutex<Account>,
    pub(super) timeline: Option<Timeline>,
}

/// cuBLAS's handle, for one thread at a time.
pub(super) struct Blas(pub(super) cublasHandle_t);

// SAFETY: the driver's objects may be used from any thread whose current context is theirs; `enter` sees to that, and the
// cuBLAS handle is behind a lock.
unsafe impl Send for Context {}
unsafe impl Sync for Context {}
unsafe impl Send for Blas {}

/// An error of the driver in words.
pub(super) fn failed(what: &str, error: DriverError) -> Error {
    let name = error.error_name().map_or("unknown error".into(), CStr::to_string_lossy).into_owned();
    match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => out_of_memory(format!("{what}: the GPU's memory is full")),
        _ => Error::new(Kind::Unsupported, format!("CUDA: {what}: {name}"))
            .hint("outlier doctor says what CUDA there is; device: \"cpu\" works everywhere"),
    }
}

fn out_of_memory(problem: String) -> Error {
    Error::new(Kind::Oom, problem).hint("fewer or shorter sequences, a smaller memory_budget, or a larger GPU")
}

impl Context {
    /// Opens GPU `index`, which `super::gpu` has found.
    pub fn open(index: usize) -> Result<Arc<Self>> {
        let opening = |error| failed(&format!("opening cuda:{index}"), error);
        // SAFETY: the device is one the driver counts; what is made is freed when this is dropped.
        unsafe {
            result::init().map_err(opening)?;
            let device = result::device::get(index as c_int).map_err(opening)?;
            let context = result::primary_ctx::retain(device).map_err(opening)?;
            result::ctx::set_current(context).map_err(opening)?;
            keep_freed_memory(device).map_err(opening)?;
            let stream = || result::stream::create(result::stream::StreamKind::NonBlocking).map_err(opening);
            let (compute, copy) = (stream()?, stream()?);
            let (mut modules, mut kernels) = (Vec::new(), HashMap::new());
            for text in ptx::FILES {
                let module = result::module::load_data(text.as_ptr().cast()).map_err(opening)?;
                modules.push(module);
                for name in ptx::kernels(text) {
                    let symbol = CString::new(name).expect("no NUL");
                    kernels.insert(name, result::module::get_function(module, symbol).map_err(opening)?);
                }
            }
            let blas = Mutex::new(Blas(super::blas::handle(compute)?));
            let (free, _) = result::mem_get_info().map_err(opening)?;
            let account = Mutex::new(Account { limit: free - free / UNTOUCHED, ..Account::default() });
            let (uploads, idle, pace) = (Mutex::new((Vec::new(), 0)), Mutex::new(Vec::new()), Mutex::new(None));
            let timeline = Timeline::wanted(compute)?;
            let context =
                Self { context, device, compute, copy, blas, modules, kernels, uploads, idle, pace, account, timeline };
            Ok(Arc::new(context))
        }
    }

    /// Makes this context the calling thread's.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| failed("entering its context", error))
    }

    pub(super) fn blas(&self) -> MutexGuard<'_, Blas> {
        self.blas.lock().expect("no panic under this lock")
    }

    pub(super) fn stream(&self, stream: Stream) -> CUstream {
        match stream {
            Stream::Compute => self.compute,
            Stream::Copy => self.copy,
        }
    }

    pub(super) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().expect("no panic under this lock")
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

    /// Memory with anything in it, in the order of `stream`.
    ///
    /// # Errors
    /// Of kind `oom` when the GPU or the limit has no room for it.
    pub fn allocate(self: &Arc<Self>, bytes: usize, stream: Stream) -> Result<Buffer> {
        self.enter()?;
        let booked = self.account().book(bytes, stream);
        booked.map_err(|limit| out_of_memory(format!("the GPU's memory is full: {limit} bytes are allowed")))?;
        // SAFETY: the stream is this context's; what is allocated is freed by `Buffer`.
        let address = unsafe { result::malloc_async(self.stream(stream), bytes.max(1)) };
        let address = address.map_err(|error| {
            let mut account = self.account();
            *account.of(stream) -= bytes;
            account.full = true;
            failed(&format!("allocating {bytes} bytes"), error)
        })?;
        Ok(Buffer::new(self.clone(), address, bytes, stream))
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
        let kernel = self.kernels[name];
        let pointer = |arg: &Arg| -> *mut c_void {
            match arg {
                Arg::Address(value) | Arg::U64(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::U32(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            }
        };
        let mut pointers: Vec<*mut c_void> = args.iter().map(pointer).collect();
        // SAFETY: `args` are what the kernel takes, in its order; the driver copies them before it returns. Buffers are freed
        // in the order of the stream.
        self.timed(stream, name, Amount::Uncounted, || {
            let (grid, block) = ((blocks.0, blocks.1, 1), (threads, 1, 1));
            let launched = unsafe { result::launch_kernel(kernel, grid, block, 0, self.stream(stream), &mut pointers) };
            launched.map_err(|error| failed(&format!("kernel {name}"), error))
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
                half.send(0..piece.len(), to + (i * UPLOAD_BYTES) as u64, self.compute)
            })?;
        }
        Ok(())
    }

    /// Waits for what the calling thread has put on the copying stream.
    pub fn settle(&self) -> Result<()> {
        self.enter()?;
        let event = Event::new()?;
        event.record(self.copy)?;
        event.wait()
    }

    /// Waits for what was on the computing stream at the last call: the host prepares one step while the GPU does another, and
    /// memory that is freed on the stream is soon free indeed.
    pub fn pace(&self) -> Result<()> {
        self.enter()?;
        let now = Event::new()?;
        now.record(self.compute)?;
        match self.pace.lock().expect("no panic under this lock").replace(now) {
            Some(before) => before.wait(),
            None => Ok(()),
        }
    }

    /// Waits for both streams. In the current context.
    pub(super) fn finish(&self) -> Result<()> {
        for stream in [self.compute, self.copy] {
            // SAFETY: the streams are this context's.
            unsafe { result::stream::synchronize(stream) }.map_err(|error| failed("waiting for the GPU", error))?;
        }
        Ok(())
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
            unsafe { result::memcpy_dtod_async(to, from, bytes, self.compute) }
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

/// Memory on the copying stream of each of `contexts`, with the same bytes in all: `fill` gets an offset and where to put what
/// is there, once for every piece: `phase` bytes (below `PAGE`) behind the beginning of a page. Complete when this returns.
pub fn receive(
    contexts: &[&Arc<Context>],
    bytes: usize,
    phase: usize,
    mut fill: impl FnMut(usize, &mut [u8]) -> Result<()>,
) -> Result<Vec<Buffer>> {
    let buffers = contexts.iter().map(|context| context.allocate(bytes, Stream::Copy)).collect::<Result<Vec<_>>>()?;
    // Where it is kept.
    contexts[0].enter()?;
    let idle = &contexts[0].idle;
    let mut halves = match idle.lock().expect("no panic under this lock").pop() {
        Some(halves) => halves,
        None => [Half::new(Pinned::BYTES + PAGE)?, Half::new(Pinned::BYTES + PAGE)?],
    };
    for (i, start) in (0..bytes).step_by(Pinned::BYTES).enumerate() {
        let length = Pinned::BYTES.min(bytes - start);
        let half = &mut halves[i % 2];
        half.wait()?;
        fill(start, &mut half.bytes()[phase..phase + length])?;
        for (context, buffer) in contexts.iter().zip(&buffers) {
            context.enter()?;
            context.timed(Stream::Copy, "to the GPU", Amount::Bytes(length), || {
                half.send(phase..phase + length, buffer.address() + start as u64, context.copy)
            })?;
        }
    }
    halves.iter_mut().try_for_each(Half::wait)?;
    idle.lock().expect("no panic under this lock").push(halves);
    Ok(buffers)
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
            _ = cudarc::cublas::result::destroy_handle(self.blas().0);
            for module in &self.modules {
                _ = result::module::unload(*module);
            }
            _ = result::stream::destroy(self.compute);
            _ = result::stream::destroy(self.copy);
            _ = result::primary_ctx::release(self.device);
        }
    }
}

/// The driver keeps memory that is freed for what is allocated next.
///
/// # Safety
/// The device's context is current.
unsafe fn keep_freed_memory(device: sys::CUdevice) -> std::result::Result<(), DriverError> {
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    unsafe {
        let pool = result::device::get_default_mem_pool(device)?;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut all).cast())
    }
}
