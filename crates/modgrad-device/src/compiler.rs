//! The vendors' run-time compilers, NVRTC and hiprtc, which have the same functions.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null;

use modgrad_graph::Result;

use crate::cache::Entry;
use crate::library::{Library, failed, functions};
use crate::source::Source;

functions! {
    /// A program is a pointer, its results are copied into the caller's bytes.
    struct Functions {
        version: fn(*mut i32, *mut i32) = "nvrtcVersion" | "hiprtcVersion",
        create: fn(
            *mut *mut c_void,
            *const c_char,
            *const c_char,
            i32,
            *const *const c_char,
            *const *const c_char,
        ) = "nvrtcCreateProgram" | "hiprtcCreateProgram",
        compile: fn(*mut c_void, i32, *const *const c_char)
            = "nvrtcCompileProgram" | "hiprtcCompileProgram",
        log_size: fn(*mut c_void, *mut usize)
            = "nvrtcGetProgramLogSize" | "hiprtcGetProgramLogSize",
        log: fn(*mut c_void, *mut c_char) = "nvrtcGetProgramLog" | "hiprtcGetProgramLog",
        code_size: fn(*mut c_void, *mut usize) = "nvrtcGetCUBINSize" | "hiprtcGetCodeSize",
        code: fn(*mut c_void, *mut c_char) = "nvrtcGetCUBIN" | "hiprtcGetCode",
        destroy: fn(*mut *mut c_void) = "nvrtcDestroyProgram" | "hiprtcDestroyProgram",
    }
}

/// A run-time compiler, for one architecture.
pub(crate) struct Compiler {
    functions: Functions,
    /// As "NVRTC" and "12.9".
    pub(crate) name: &'static str,
    pub(crate) version: (i32, i32),
    architecture: String,
}

impl Compiler {
    pub(crate) fn new(library: &Library, cuda: bool, architecture: &str) -> Result<Compiler> {
        let name = if cuda { "NVRTC" } else { "hiprtc" };
        let functions = Functions::load(library, cuda)?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the function writes two ints.
        if unsafe { (functions.version)(&mut major, &mut minor) } != 0 {
            return Err(failed(format!("{name} ({}) does not start", library.name())));
        }
        let compiler = Compiler {
            functions,
            name,
            version: (major, minor),
            architecture: architecture.to_owned(),
        };
        if cuda {
            compiler.check_architecture(library)?;
        }
        Ok(compiler)
    }

    /// NVRTC lists the architectures that it knows.
    fn check_architecture(&self, library: &Library) -> Result<()> {
        let Ok(count) =
            library.function::<unsafe extern "C" fn(*mut i32) -> i32>("nvrtcGetNumSupportedArchs")
        else {
            return Ok(());
        };
        let list =
            library.function::<unsafe extern "C" fn(*mut i32) -> i32>("nvrtcGetSupportedArchs")?;
        let mut known = 0;
        // SAFETY: it writes one int.
        unsafe { count(&mut known) };
        let mut all = vec![0; known.max(0) as usize];
        // SAFETY: it writes as many ints as it has just said.
        unsafe { list(all.as_mut_ptr()) };
        let ours = self.architecture.trim_start_matches("sm_");
        if all.is_empty() || all.iter().any(|number| number.to_string() == ours) {
            return Ok(());
        }
        let (least, most) = (all.first().unwrap_or(&0), all.last().unwrap_or(&0));
        Err(failed(format!(
            "the card is {}, and NVRTC {}.{} compiles for sm_{least} to sm_{most}; \
             hint: install another NVRTC (pip install nvidia-cuda-nvrtc-cu12 or -cu13)",
            self.architecture, self.version.0, self.version.1
        )))
    }

    /// The machine code of a source, from the cache or compiled now.
    pub(crate) fn code(&self, source: &Source) -> Result<Vec<u8>> {
        let text = source.whole();
        let options =
            [format!("--gpu-architecture={}", self.architecture), "--std=c++17".to_owned()];
        let version = format!("{} {}.{}", self.name, self.version.0, self.version.1);
        let entry = Entry::of(&[&text, &options.join(" "), &self.architecture, &version]);
        if let Some(code) = entry.read() {
            return Ok(code);
        }
        let code = self.compile(source.name, &text, &options)?;
        entry.write(&code);
        Ok(code)
    }

    fn compile(&self, name: &str, text: &str, options: &[String]) -> Result<Vec<u8>> {
        let plain = |text: &str| CString::new(text).unwrap_or_default();
        let (text, file) = (plain(text), plain(&format!("{name}.hip")));
        let options: Vec<CString> = options.iter().map(|option| plain(option)).collect();
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        let broken = |call: &str, status| {
            failed(format!("{}: `{call}` failed with status {status}", self.name))
        };
        let Functions { create, compile, code_size, code, destroy, .. } = &self.functions;
        // SAFETY: the strings end with 0 and outlive the call; no headers are given.
        let status =
            unsafe { create(&mut program, text.as_ptr(), file.as_ptr(), 0, null(), null()) };
        if status != 0 {
            return Err(broken("create", status));
        }
        // SAFETY: `program` is a new program, `options` are as many strings as is said.
        let status = unsafe { compile(program, options.len() as i32, options.as_ptr()) };
        let result = if status != 0 {
            Err(failed(format!(
                "kernels/{name}.hip does not compile for {} with {} {}.{}: {}",
                self.architecture,
                self.name,
                self.version.0,
                self.version.1,
                self.first_error(program)
            )))
        } else {
            let mut size = 0;
            // SAFETY: the program is compiled; one size is written.
            match unsafe { code_size(program, &mut size) } {
                0 => {
                    let mut bytes = vec![0u8; size];
                    // SAFETY: `bytes` is of the size that was asked for just now.
                    match unsafe { code(program, bytes.as_mut_ptr().cast()) } {
                        0 => Ok(bytes),
                        status => Err(broken("code", status)),
                    }
                }
                status => Err(broken("code size", status)),
            }
        };
        // SAFETY: it is not used after this.
        unsafe { destroy(&mut program) };
        result
    }

    /// The first line of the log that tells of an error.
    fn first_error(&self, program: *mut c_void) -> String {
        let mut size = 0;
        // SAFETY: the program is alive; one size is written.
        unsafe { (self.functions.log_size)(program, &mut size) };
        let mut log = vec![0u8; size + 1];
        // SAFETY: `log` has room for what was announced, and ends with 0.
        unsafe { (self.functions.log)(program, log.as_mut_ptr().cast()) };
        let text = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
        let line = text.lines().find(|line| line.contains("error")).or(text.lines().next());
        line.unwrap_or("it says nothing").trim().to_owned()
    }
}
