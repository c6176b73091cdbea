//! One partition's append-only log, and the `Disk` seam under it.

pub mod disk;
#[cfg(test)]
mod disk_contract_tests;
mod disk_path;
pub mod mem_disk;
