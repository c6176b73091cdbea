//! Which arguments a [`Disk`](super::disk::Disk) accepts: relative paths of plain parts that stay in the data directory, and positions
//! that a file can have.

use std::io::{self, ErrorKind};

/// Checks a file's path: at least one part, none of them empty, `.` or `..`, no NUL.
///
/// # Errors
/// `InvalidInput`, naming the path.
pub(super) fn check_file(path: &str) -> io::Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.split('/').all(plain) {
        Ok(())
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, format!("not a plain relative path: {path:?}")))
    }
}

/// Checks a directory's path: as for a file, or `""`, which is the data directory itself.
///
/// # Errors
/// `InvalidInput`, naming the path.
pub(super) fn check_dir(path: &str) -> io::Result<()> {
    if path.is_empty() { Ok(()) } else { check_file(path) }
}

/// A path's parent directory (`""` at the top) and its last part.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The end of `pos..pos+len`.
///
/// # Errors
/// `InvalidInput` if no file can be that long.
pub(super) fn end_of(pos: u64, len: u64) -> io::Result<u64> {
    pos.checked_add(len).filter(|&end| i64::try_from(end).is_ok()).ok_or_else(|| ErrorKind::InvalidInput.into())
}

/// A length in memory as a length in a file.
pub(super) fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits u64")
}
