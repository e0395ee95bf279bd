//! A card as its vendor's driver has it: functions, a context, words for errors.
//!
//! CUDA's driver functions and HIP's are the same but for their names and how a card is made
//! current; `cuda` and `hip` hold what differs.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::null_mut;

use modgrad_graph::Result;

use crate::driver::{Address, Description};
use crate::library::{failed, functions};

functions! {
    /// Addresses are numbers; contexts, streams, modules and functions are pointers.
    struct Functions {
        driver_version: fn(*mut i32) = "cuDriverGetVersion" | "hipDriverGetVersion",
        count: fn(*mut i32) = "cuDeviceGetCount" | "hipGetDeviceCount",
        device_name: fn(*mut c_char, i32, i32) = "cuDeviceGetName" | "hipDeviceGetName",
        total_memory: fn(*mut usize, i32) = "cuDeviceTotalMem_v2" | "hipDeviceTotalMem",
        memory: fn(*mut usize, *mut usize) = "cuMemGetInfo_v2" | "hipMemGetInfo",
        allocate: fn(*mut Address, usize) = "cuMemAlloc_v2" | "hipMalloc",
        free: fn(Address) = "cuMemFree_v2" | "hipFree",
        copy_in: fn(Address, *const c_void, usize, *mut c_void)
            = "cuMemcpyHtoDAsync_v2" | "hipMemcpyHtoDAsync",
        copy_out: fn(*mut c_void, Address, usize, *mut c_void)
            = "cuMemcpyDtoHAsync_v2" | "hipMemcpyDtoHAsync",
        copy: fn(Address, Address, usize, *mut c_void)
            = "cuMemcpyDtoDAsync_v2" | "hipMemcpyDtoDAsync",
        set: fn(Address, u8, usize, *mut c_void) = "cuMemsetD8Async" | "hipMemsetD8Async",
        host_allocate: fn(*mut *mut c_void, usize, u32) = "cuMemHostAlloc" | "hipHostMalloc",
        host_free: fn(*mut c_void) = "cuMemFreeHost" | "hipHostFree",
        new_stream: fn(*mut *mut c_void, u32) = "cuStreamCreate" | "hipStreamCreateWithFlags",
        end_stream: fn(*mut c_void) = "cuStreamDestroy_v2" | "hipStreamDestroy",
        query: fn(*mut c_void) = "cuStreamQuery" | "hipStreamQuery",
        load: fn(*mut *mut c_void, *const c_void) = "cuModuleLoadData" | "hipModuleLoadData",
        function: fn(*mut *mut c_void, *mut c_void, *const c_char)
            = "cuModuleGetFunction" | "hipModuleGetFunction",
        launch: fn(
            *mut c_void,
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
            u32,
            *mut c_void,
            *const *const c_void,
            *const *const c_void,
        ) = "cuLaunchKernel" | "hipModuleLaunchKernel",
    }
}

/// How a card is made a thread's own.
pub(crate) enum Current {
    Context {
        set: unsafe extern "C" fn(*mut c_void) -> i32,
        release: unsafe extern "C" fn(i32) -> i32,
        /// Null until it is retained.
        context: *mut c_void,
    },
    Ordinal {
        set: unsafe extern "C" fn(i32) -> i32,
        ordinal: i32,
    },
}

/// The words of an error's number.
pub(crate) enum Words {
    Written(unsafe extern "C" fn(i32, *mut *const c_char) -> i32),
    Returned(unsafe extern "C" fn(i32) -> *const c_char),
}

/// What `cuda` and `hip` find out about a card, and its context.
pub(crate) struct Card {
    pub(crate) functions: Functions,
    pub(crate) words: Words,
    pub(crate) current: Current,
    pub(crate) flag: &'static str,
    pub(crate) ordinal: i32,
    pub(crate) architecture: String,
    pub(crate) driver_version: String,
}

impl Card {
    pub(crate) fn check(&self, what: &str, status: i32) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        Err(failed(format!("--device {}: {what} failed: {}", self.flag, self.say(status))))
    }

    fn say(&self, status: i32) -> String {
        let words = match self.words {
            Words::Written(write) => {
                let mut words = std::ptr::null();
                // SAFETY: it writes one pointer, or leaves it.
                unsafe { write(status, &mut words) };
                words
            }
            // SAFETY: it takes any number.
            Words::Returned(get) => unsafe { get(status) },
        };
        if words.is_null() {
            return format!("error {status}");
        }
        // SAFETY: the library's own constant string.
        let words = unsafe { CStr::from_ptr(words) }.to_string_lossy();
        format!("{words} (error {status})")
    }

    pub(crate) fn enter(&self) -> Result<()> {
        let status = match self.current {
            // SAFETY: the context is one that was retained.
            Current::Context { set, context, .. } => unsafe { set(context) },
            // SAFETY: the ordinal is one that was counted.
            Current::Ordinal { set, ordinal } => unsafe { set(ordinal) },
        };
        self.check("making the card current", status)
    }

    fn name(&self) -> String {
        let mut name = [0 as c_char; 256];
        // SAFETY: it writes at most 256 bytes, a 0 among them.
        unsafe { (self.functions.device_name)(name.as_mut_ptr(), 256, self.ordinal) };
        // SAFETY: the array ends with 0 whatever was written before.
        unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned()
    }

    /// (free, total) bytes.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two sizes.
        unsafe { (self.functions.memory)(&mut free, &mut total) };
        (free as u64, total as u64)
    }

    /// Leaves the context to the end of the process.
    pub(crate) fn abandon(&mut self) {
        if let Current::Context { context, .. } = &mut self.current {
            *context = null_mut();
        }
    }

    pub(crate) fn describe(&self) -> Result<Description> {
        self.enter()?;
        let (free, total) = self.memory();
        Ok(Description {
            name: self.name(),
            architecture: self.architecture.clone(),
            versions: vec![("driver".to_owned(), self.driver_version.clone())],
            memory: (total, free),
        })
    }
}

impl Drop for Card {
    /// Other users of the card in this process hold its context on their own.
    fn drop(&mut self) {
        if let Current::Context { set, release, context } = self.current
            && !context.is_null()
        {
            // SAFETY: it was retained once; no context is current after this.
            unsafe {
                set(null_mut());
                release(self.ordinal);
            }
        }
    }
}
