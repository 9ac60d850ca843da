//! NVIDIA's driver, opened at run time, and its devices. Names and numbers are those of the CUDA
//! driver API.

use std::ffi::{CStr, c_char, c_int, c_void};

/// The driver's library. It is installed with the driver, not with a CUDA toolkit.
const LIBRARY: &CStr = c"libcuda.so.1";

/// Members of `CUdevice_attribute`.
const MULTIPROCESSORS: c_int = 16;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: c_int = 100;

/// A working driver and its devices.
#[derive(Clone, Debug)]
pub struct Driver {
    /// The newest CUDA version that the driver supports, for example (13, 0).
    pub version: (u32, u32),
    pub gpus: Vec<Gpu>,
}

/// A GPU as the driver describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    pub name: String,
    /// Size of its memory in bytes.
    pub memory: u64,
    /// The compute capability, for example (9, 0) for Hopper.
    pub compute_capability: (u32, u32),
    pub multiprocessors: u32,
}

/// The reason why CUDA is not available.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// The driver's library cannot be loaded. The text is the loader's message.
    Library(String),
    /// The library lacks a function.
    Function(&'static str),
    /// A function of the driver failed with this code and name.
    Failed { function: &'static str, code: i32, name: String },
}

impl Missing {
    /// The problem, and a hint on how to solve it.
    pub fn explained(&self) -> (String, &'static str) {
        match self {
            Missing::Library(why) => {
                // A missing library is the usual case, and the loader's message would add nothing
                // to it.
                let is_nowhere = why.starts_with("libcuda.so.1:") && why.contains("No such file");
                let why = if is_nowhere { String::new() } else { format!(" ({why})") };
                (
                    format!("NVIDIA's driver is not installed{why}"),
                    "install the GPU's driver; a container gets it from its host (docker run --gpus all)",
                )
            }
            Missing::Function(name) => {
                (format!("libcuda.so.1 has no function {name}"), "install a current driver of the GPU")
            }
            Missing::Failed { code: NO_DEVICE, name, .. } => (
                format!("the driver is installed but sees no GPU ({name})"),
                "look at nvidia-smi and CUDA_VISIBLE_DEVICES; on a cluster ask for a GPU (--gres=gpu:1)",
            ),
            Missing::Failed { function, code, name } => (
                format!("the driver refuses to work: {function} gives error {code} ({name})"),
                "look at nvidia-smi; after an update of the driver the machine may need a restart",
            ),
        }
    }
}

/// The opened library. It is never closed, because the driver runs threads of its own.
struct Library(*mut c_void);

impl Library {
    fn open() -> Result<Self, Missing> {
        // SAFETY: the name is a C string, and the loader runs only the library's own initialisers.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            // SAFETY: after a failure dlerror returns a message, which is valid until this thread's
            // next call of the loader.
            let why = unsafe { text(libc::dlerror()) };
            return Err(Missing::Library(why));
        }
        Ok(Self(library))
    }

    /// The function called `name`.
    ///
    /// # Safety
    /// `F` is the type of that function, an `extern "C" fn`.
    unsafe fn function<F: Copy>(&self, name: &'static CStr) -> Result<F, Missing> {
        assert_eq!(size_of::<F>(), size_of::<*mut c_void>(), "a pointer to a function");
        // SAFETY: the library is open and the name is a C string.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if address.is_null() {
            return Err(Missing::Function(name.to_str().expect("ASCII")));
        }
        // SAFETY: both are pointers of one size, and the caller promises that the function has this
        // type.
        Ok(unsafe { std::mem::transmute_copy(&address) })
    }

    fn check(&self, function: &'static str, code: c_int) -> Result<(), Missing> {
        if code == 0 {
            return Ok(());
        }
        let mut name = std::ptr::null();
        // SAFETY: this is the signature of cuGetErrorName, which leaves the pointer unchanged or
        // points it to a constant string.
        let name = unsafe {
            let describe: extern "C" fn(c_int, *mut *const c_char) -> c_int = self.function(c"cuGetErrorName")?;
            describe(code, &mut name);
            text(name)
        };
        Err(Missing::Failed { function, code, name })
    }
}

/// The text of a C string, or "unknown" for a null pointer.
///
/// # Safety
/// `from` is null or points to a C string.
unsafe fn text(from: *const c_char) -> String {
    match from.is_null() {
        true => "unknown".to_string(),
        // SAFETY: the caller promises that a pointer that is not null points to a C string.
        false => unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned(),
    }
}

impl Driver {
    /// Loads and initialises the driver and lists its devices. It creates no context, so it takes
    /// no GPU memory.
    pub fn open() -> Result<Self, Missing> {
        let library = Library::open()?;
        type Number = extern "C" fn(*mut c_int) -> c_int;
        type OfDevice = extern "C" fn(*mut c_int, c_int) -> c_int;
        type Attribute = extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
        type Name = extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
        type Memory = extern "C" fn(*mut usize, c_int) -> c_int;
        type Functions = (extern "C" fn(u32) -> c_int, Number, Number, OfDevice, Attribute, Name, Memory);
        // SAFETY: these are the signatures of the driver API.
        let (init, version, count, get, attribute, name, memory): Functions = unsafe {
            (
                library.function(c"cuInit")?,
                library.function(c"cuDriverGetVersion")?,
                library.function(c"cuDeviceGetCount")?,
                library.function(c"cuDeviceGet")?,
                library.function(c"cuDeviceGetAttribute")?,
                library.function(c"cuDeviceGetName")?,
                library.function(c"cuDeviceTotalMem_v2")?,
            )
        };
        library.check("cuInit", init(0))?;
        let (mut number, mut devices) = (0, 0);
        library.check("cuDriverGetVersion", version(&mut number))?;
        library.check("cuDeviceGetCount", count(&mut devices))?;
        let describe = |ordinal| {
            let (mut device, mut bytes, mut label) = (0, 0usize, [0 as c_char; 256]);
            library.check("cuDeviceGet", get(&mut device, ordinal))?;
            library.check("cuDeviceTotalMem", memory(&mut bytes, device))?;
            library.check("cuDeviceGetName", name(label.as_mut_ptr(), label.len() as c_int - 1, device))?;
            let number = |which| {
                let mut value = 0;
                library.check("cuDeviceGetAttribute", attribute(&mut value, which, device))?;
                Ok(value as u32)
            };
            Ok(Gpu {
                // SAFETY: the driver ends the name with NUL, and was not allowed to write the last
                // byte.
                name: unsafe { text(label.as_ptr()) },
                memory: bytes as u64,
                compute_capability: (number(CAPABILITY_MAJOR)?, number(CAPABILITY_MINOR)?),
                multiprocessors: number(MULTIPROCESSORS)?,
            })
        };
        let gpus = (0..devices).map(describe).collect::<Result<_, Missing>>()?;
        Ok(Self { version: ((number / 1000) as u32, (number % 1000 / 10) as u32), gpus })
    }
}
