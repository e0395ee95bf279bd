//! Compiled kernels on disk, so that each is compiled once a machine.
//!
//! An entry's name is the SHA-256 of all that it was made from; its first 32 bytes are the
//! SHA-256 of the rest, so that a torn or corrupt one is known and made again.

use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::{env, fs, process};

/// The entry of something made from `parts`.
pub struct Entry {
    path: Option<PathBuf>,
}

impl Entry {
    /// `parts` are the source, options, architecture and the compiler's version.
    pub fn of(parts: &[&str]) -> Entry {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Entry { path: folder().map(|folder| folder.join(name)) }
    }

    /// What was stored, if it is whole.
    pub fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path.as_ref()?).ok()?;
        if bytes.len() < 32 {
            return None;
        }
        let content = bytes.split_off(32);
        (Sha256::digest(&content).as_slice() == bytes.as_slice()).then_some(content)
    }

    /// Stores `content`. A cache that can't be written costs time, not the run.
    pub fn write(&self, content: &[u8]) {
        let Some(path) = &self.path else { return };
        let Some(folder) = path.parent() else { return };
        let unfinished = folder.join(format!(
            "{}.{}.{:?}",
            path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default(),
            process::id(),
            std::thread::current().id(),
        ));
        let mut bytes = Sha256::digest(content).to_vec();
        bytes.extend_from_slice(content);
        let written = fs::create_dir_all(folder)
            .and_then(|()| fs::write(&unfinished, bytes))
            .and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            fs::remove_file(&unfinished).ok();
        }
    }
}

/// `MODGRAD_CACHE`, or `modgrad/kernels` in the user's cache folder.
pub fn folder() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("MODGRAD_CACHE") {
        return Some(folder);
    }
    let user = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(user.join("modgrad").join("kernels"))
}
