//! Vendors' libraries, found when they are asked for and never linked.
//!
//! Looked for in the folders of `MODGRAD_LIBRARIES`, then by the names that the system's
//! loader knows, then in the folders that Python gives (those of NVIDIA's packages).
//!
//! This is libloading rather than cudarc: cudarc panics where a library is absent, looks
//! only where the loader does, and knows NVIDIA alone, while some thirty functions, nearly
//! the same on both sides, are all that is needed.

use std::ffi::c_void;
use std::path::PathBuf;
use std::{env, fs};

use modgrad_graph::{Error, Result};

/// A loaded library, which stays loaded.
pub(crate) struct Library {
    library: &'static libloading::Library,
    name: String,
}

/// What to say where none of `names` is found.
pub(crate) struct Wanted<'a> {
    /// In order of preference.
    pub names: &'a [String],
    /// What needs it.
    pub device: &'a str,
    /// What it is and where it comes from.
    pub hint: &'a str,
}

impl Library {
    /// Opens the first of the names that is somewhere.
    pub(crate) fn open(wanted: &Wanted<'_>, folders: &[PathBuf]) -> Result<Library> {
        let set = env::var_os("MODGRAD_LIBRARIES").unwrap_or_default();
        let (set, given) = (search(env::split_paths(&set)), search(folders.iter().cloned()));
        let mut refused = None;
        for name in wanted.names {
            let within = |folders: &[PathBuf]| -> Vec<PathBuf> {
                let paths = folders.iter().map(|folder| folder.join(name));
                paths.filter(|path| path.is_file()).collect()
            };
            for path in [within(&set), vec![PathBuf::from(name)], within(&given)].concat() {
                // SAFETY: a vendor's library may be initialised by loading it; that is its use.
                match unsafe { libloading::Library::new(&path) } {
                    Ok(library) => {
                        let library = Box::leak(Box::new(library));
                        return Ok(Library { library, name: path.display().to_string() });
                    }
                    // The loader's own word on a file that is there but does not load.
                    Err(error) if path.is_absolute() => refused = Some(error.to_string()),
                    Err(_) => {}
                }
            }
        }
        let found = match refused {
            Some(reason) => format!("does not load ({})", first_line(&reason)),
            None => "is not here".to_owned(),
        };
        let name = wanted.names.first().map_or("", String::as_str);
        Err(failed(format!("--device {}: {name} {found}; hint: {}", wanted.device, wanted.hint)))
    }

    /// The function `symbol`, as the type that the caller knows it to have.
    pub(crate) fn function<T: Copy>(&self, symbol: &str) -> Result<T> {
        assert_eq!(size_of::<T>(), size_of::<*const c_void>());
        // SAFETY: only the address is taken; its type is the caller's promise.
        let address = unsafe { self.library.get::<T>(symbol.as_bytes()) };
        let symbol_missing = || {
            failed(format!(
                "{} has no `{symbol}`: it is too old or too new for this version of modgrad; \
                 hint: update it",
                self.name
            ))
        };
        address.map(|symbol| *symbol).map_err(|_| symbol_missing())
    }

    /// Whether it has a function.
    pub(crate) fn has(&self, symbol: &str) -> bool {
        // SAFETY: only its presence is looked at.
        unsafe { self.library.get::<*const c_void>(symbol.as_bytes()) }.is_ok()
    }

    /// Where it was found.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Folders, and the `lib` folders below each of theirs: NVIDIA's packages have one each.
fn search(folders: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut below: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path().join("lib")))
            .filter(|path| path.is_dir())
            .collect();
        below.sort();
        all.push(folder);
        all.append(&mut below);
    }
    all
}

pub(crate) fn failed(message: String) -> Error {
    Error::Device { message }
}

pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// A table of functions with their names on either side.
macro_rules! functions {
    (
        $(#[$about:meta])*
        struct $table:ident {
            $($field:ident: fn($($argument:ty),* $(,)?) = $cuda:literal | $hip:literal,)*
        }
    ) => {
        $(#[$about])*
        #[allow(dead_code)] // A table has what either vendor needs.
        pub(crate) struct $table {
            $(pub(crate) $field: unsafe extern "C" fn($($argument),*) -> i32,)*
        }

        impl $table {
            pub(crate) fn load(
                library: &$crate::library::Library,
                cuda: bool,
            ) -> ::modgrad_graph::Result<$table> {
                Ok($table {
                    $($field: library.function(if cuda { $cuda } else { $hip })?,)*
                })
            }
        }
    };
}
pub(crate) use functions;
