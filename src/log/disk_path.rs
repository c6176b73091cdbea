//! Which paths a [`Disk`](super::disk::Disk) accepts: relative, plain parts between `/`, nothing that leaves the data directory.

use std::io;

/// Checks a file's path: at least one part, none of them empty, `.` or `..`, no NUL.
///
/// # Errors
/// `InvalidInput`, naming the path.
pub(super) fn check_file(path: &str) -> io::Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.split('/').all(plain) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a plain relative path: {path:?}")))
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
