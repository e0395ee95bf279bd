//! Reading a whole regular file once, and nothing that is not one.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::Read;
use std::path::Path;

use super::error::{OPEN, Reason};

/// The bytes of the regular file at `path`, at most `limit` of them.
///
/// A link to a regular file is followed. A pipe, a device or a folder is refused
/// before it is opened, since opening some devices does something.
pub(super) fn whole_file(path: &Path, limit: u64) -> Result<Vec<u8>, Reason> {
    let opening = |error| Reason::from_io(error, OPEN);
    require_regular(&std::fs::metadata(path).map_err(opening)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Should a pipe have taken its place meanwhile, this does not wait for it.
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    let file = options.open(path).map_err(opening)?;
    let metadata = file.metadata().map_err(opening)?;
    require_regular(&metadata)?;
    read_exactly(file, metadata.len(), limit)
}

fn read_exactly(file: File, bytes: u64, limit: u64) -> Result<Vec<u8>, Reason> {
    if bytes > limit {
        return Err(Reason::TooLarge { bytes, limit });
    }
    let size = usize::try_from(bytes).map_err(|_| Reason::NoMemory { bytes })?;
    let mut content = Vec::new();
    content.try_reserve_exact(size).map_err(|_| Reason::NoMemory { bytes })?;
    // One byte more than there should be, to see whether it grows.
    let mut reader = file.take(bytes.saturating_add(1));
    reader.read_to_end(&mut content).map_err(|error| Reason::from_io(error, "read"))?;
    if content.len() != size {
        return Err(Reason::Changed);
    }
    Ok(content)
}

fn require_regular(metadata: &Metadata) -> Result<(), Reason> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(Reason::NotRegular { kind: kind(metadata.file_type()) }),
    }
}

/// What a thing that is not a regular file is, in words.
pub(super) fn kind(file_type: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if file_type.is_fifo() {
            return "a pipe";
        }
        if file_type.is_socket() {
            return "a socket";
        }
        if file_type.is_block_device() || file_type.is_char_device() {
            return "a device";
        }
    }
    if file_type.is_dir() { "a folder" } else { "something else" }
}
