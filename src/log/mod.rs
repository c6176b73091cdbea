//! One partition's append-only log, and the `Disk` seam under it.

pub mod disk;
mod disk_args;
#[cfg(test)]
mod disk_contract_tests;
pub mod mem_disk;
pub mod mmap;
