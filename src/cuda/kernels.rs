//! The kernels of a GPU: loaded by the driver, and started by name.

use std::collections::HashMap;
use std::ffi::{CString, c_void};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUstream};

use super::driver_context::failed;
use super::ptx;
use crate::error::Result;

/// Threads of a block; the kernels that sum are written for it.
pub const THREADS: u32 = 256;

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

/// All kernels of the program, in the context in which they were loaded.
pub(super) struct Kernels {
    modules: Vec<sys::CUmodule>,
    functions: HashMap<&'static str, sys::CUfunction>,
}

impl Kernels {
    /// Loads them into the current context.
    pub(super) fn load() -> std::result::Result<Self, DriverError> {
        let (mut modules, mut functions) = (Vec::new(), HashMap::new());
        for text in ptx::FILES {
            // SAFETY: the text ends with a NUL, and the module lives until `unload`.
            let module = unsafe { result::module::load_data(text.as_ptr().cast()) }?;
            modules.push(module);
            for name in ptx::kernels(text) {
                let symbol = CString::new(name).expect("no NUL");
                // SAFETY: the module was just loaded.
                functions.insert(name, unsafe { result::module::get_function(module, symbol) }?);
            }
        }
        Ok(Self { modules, functions })
    }

    /// Puts kernel `name` on a stream, in `blocks` of `threads`. In the context in which it was loaded.
    pub(super) fn launch(
        &self,
        stream: CUstream,
        name: &'static str,
        blocks: (u32, u32),
        threads: u32,
        args: &[Arg],
    ) -> Result<()> {
        let pointer = |arg: &Arg| -> *mut c_void {
            match arg {
                Arg::Address(value) | Arg::U64(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::U32(value) => std::ptr::from_ref(value).cast_mut().cast(),
                Arg::F32(value) => std::ptr::from_ref(value).cast_mut().cast(),
            }
        };
        let mut pointers: Vec<*mut c_void> = args.iter().map(pointer).collect();
        let (grid, block) = ((blocks.0, blocks.1, 1), (threads, 1, 1));
        // SAFETY: `args` are what the kernel takes, in its order; the driver copies them before it returns. Buffers are freed
        // in the order of the stream.
        let launched = unsafe { result::launch_kernel(self.functions[name], grid, block, 0, stream, &mut pointers) };
        launched.map_err(|error| failed(&format!("kernel {name}"), error))
    }

    /// # Safety
    /// The context in which they were loaded is current, and no kernel is at work there or started any more.
    pub(super) unsafe fn unload(&self) {
        for module in &self.modules {
            _ = unsafe { result::module::unload(*module) };
        }
    }
}
