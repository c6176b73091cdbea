//! One partition's append-only log, and the `Disk` seam under it.

pub mod disk;
