//! Replacing a file so that at every moment the old one or the new one is whole.
//!
//! A temporary file in the same folder, written, flushed to the disk, renamed
//! over the old one, and the folder flushed. After an error nothing is retried
//! on the same file: an fsync that failed once may succeed the second time
//! without having written anything (Rebello et al., 2020).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::Reason;
use super::read;
use crate::random;

/// Bytes between two fault points of a write.
const CHUNK: usize = 1 << 20;
/// A temporary file that nobody has locked is a dead writer's, once it is older
/// than it takes to create and lock one.
const STALE: Duration = Duration::from_secs(60);

/// Where a save can fail; tests make it fail there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before the temporary file is made.
    Create,
    /// Before each stretch of bytes.
    Write,
    /// Before the file is flushed to the disk.
    Sync,
    /// Before it takes the old one's place.
    Rename,
    /// Before the folder is flushed: the new file is in place.
    SyncFolder,
}

/// Called before each step; what it returns in error is the step's outcome.
pub type Before<'a> = &'a mut dyn FnMut(Step) -> io::Result<()>;

/// Puts a file holding `parts` in the place of `path`.
///
/// A symbolic link at `path` is replaced, not followed.
pub(super) fn replace(path: &Path, parts: &[&[u8]], before: Before<'_>) -> Result<(), Reason> {
    let name = path.file_name().ok_or(Reason::NoName)?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // A rename would put a file where a device or pipe was.
    if let Ok(metadata) = std::fs::symlink_metadata(path)
        && !metadata.is_file()
        && !metadata.is_symlink()
    {
        return Err(Reason::NotRegular { kind: read::kind(metadata.file_type()) });
    }
    remove_stale(folder, &name.to_string_lossy());
    let mut temporary = Temporary::create(folder, &name.to_string_lossy(), before)?;
    temporary.write(parts, before)?;
    before(Step::Rename)
        .and_then(|()| std::fs::rename(&temporary.path, path))
        .map_err(|error| Reason::from_io(error, "put the new file in place of"))?;
    temporary.renamed = true;
    before(Step::SyncFolder)
        .and_then(|()| sync_folder(folder))
        .map_err(|error| Reason::from_io(error, "flush the folder of"))
}

/// A file that is removed unless it is renamed.
struct Temporary {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Temporary {
    fn create(folder: &Path, name: &str, before: Before<'_>) -> Result<Self, Reason> {
        let creating = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Reason::NoFolder,
            _ => Reason::from_io(error, "save"),
        };
        before(Step::Create).map_err(creating)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.custom_flags(libc::O_NOFOLLOW);
        }
        let unique = random::from_system().map_err(|error| Reason::Io {
            doing: "name a temporary file for",
            error: io::Error::other(error),
        })?;
        let path = folder.join(temporary_name(name, unique));
        let file = options.open(&path).map_err(creating)?;
        let temporary = Temporary { path, file, renamed: false };
        // Says that this file's writer lives. A file system without locks has
        // no stale files removed either.
        temporary.file.try_lock().ok();
        Ok(temporary)
    }

    fn write(&mut self, parts: &[&[u8]], before: Before<'_>) -> Result<(), Reason> {
        for chunk in parts.iter().flat_map(|part| part.chunks(CHUNK)) {
            before(Step::Write)
                .and_then(|()| self.file.write_all(chunk))
                .map_err(|error| Reason::from_io(error, "write"))?;
        }
        before(Step::Sync)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| Reason::from_io(error, "flush"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // The save has failed already; a second error adds nothing to it.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

fn temporary_name(name: &str, unique: u64) -> String {
    format!("{}{unique:016x}.tmp", temporary_prefix(name))
}

/// Names may be 255 bytes long, so a long one is not repeated in full.
fn temporary_prefix(name: &str) -> String {
    format!(".{}.", name.chars().take(40).collect::<String>())
}

/// Removes what killed writers of the same file left behind.
fn remove_stale(folder: &Path, name: &str) {
    let prefix = temporary_prefix(name);
    let length = temporary_name(name, 0).len();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let found = entry.file_name();
        let Some(found) = found.to_str() else {
            continue;
        };
        if found.len() != length || !found.starts_with(&prefix) || !found.ends_with(".tmp") {
            continue;
        }
        let old = entry.metadata().is_ok_and(|metadata| {
            let age = metadata.modified().ok().and_then(|time| time.elapsed().ok());
            metadata.is_file() && age.is_some_and(|age| age > STALE)
        });
        let dead = old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if dead {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened as a file.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}
