//! The `ottla` binary: the allocator, and arguments to subcommand. Everything else is in the library.

use std::process::ExitCode;

/// Measured against glibc's: about three quarters of the broker's CPU, and memory that comes back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ottla::cli::run(std::env::args_os())
}
