//! The kernels, loaded by the driver of a GPU.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::driver_context::{Current, Stream, failed};
use super::ptx;
use crate::error::{Result, fault};

/// Threads per block. The kernels with reductions are written for this number.
pub(super) const THREADS: u32 = 256;

/// An argument of a kernel in the driver's representation.
#[derive(Clone, Copy)]
pub(super) enum Arg {
    Address(u64),
    U32(u32),
    U64(u64),
    F32(f32),
}

/// The launch grid: the number of blocks in two dimensions, and of threads per block.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub(super) blocks: (u32, u32),
    pub(super) threads: u32,
}

/// The full name of a kernel: the file in `kernels/` that contains it, and its name there.
pub(super) type Name = (&'static str, &'static str);

/// All kernels, loaded into one context.
pub(super) struct Kernels {
    modules: Vec<sys::CUmodule>,
    functions: HashMap<Name, sys::CUfunction>,
}

impl Kernels {
    /// Loads all kernels into the current context.
    pub(super) fn load(_: &Current) -> std::result::Result<Self, DriverError> {
        let (mut modules, mut functions) = (Vec::new(), HashMap::new());
        for (file, text) in ptx::FILES {
            // SAFETY: the text ends with NUL, and the module lives until `unload`.
            let module = unsafe { result::module::load_data(text.as_ptr().cast()) }?;
            modules.push(module);
            for name in ptx::kernels(text) {
                let symbol = CString::new(name).expect("no NUL");
                // SAFETY: the module was just loaded.
                functions.insert((file, name), unsafe { result::module::get_function(module, symbol) }?);
            }
        }
        Ok(Self { modules, functions })
    }

    /// Puts a kernel on a stream.
    ///
    /// # Safety
    /// The kernels were loaded into the current context. `args` are the arguments of this kernel in
    /// its order. Every address is memory of this GPU with at least as many elements as the kernel
    /// accesses, used and freed on `stream`.
    pub(super) unsafe fn launch(
        &self,
        current: &Current,
        stream: Stream,
        name: Name,
        grid: Grid,
        args: &[Arg],
    ) -> Result<()> {
        let Some(function) = self.functions.get(&name) else {
            fault!("{} has no kernel {}", name.0, name.1);
        };
        let pointer = |arg: &Arg| -> *mut c_void {
            match arg {
                Arg::Address(value) | Arg::U64(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::U32(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            }
        };
        let mut pointers: Vec<*mut c_void> = args.iter().map(pointer).collect();
        let (blocks, threads) = ((grid.blocks.0, grid.blocks.1, 1), (grid.threads, 1, 1));
        // SAFETY: the caller promises the arguments, which the driver copies before it returns.
        let launched =
            unsafe { result::launch_kernel(*function, blocks, threads, 0, current.stream(stream), &mut pointers) };
        launched.map_err(|error| failed(&format!("kernel {}", name.1), error))
    }

    /// # Safety
    /// No kernel is running, and none is started afterwards.
    pub(super) unsafe fn unload(&self, _: &Current) {
        for module in &self.modules {
            // SAFETY: `load` loaded the module, and the caller promises that nothing uses it.
            _ = unsafe { result::module::unload(*module) };
        }
    }
}
