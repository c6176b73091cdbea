//! The `ottla` binary: arguments to subcommand, nothing else.

fn main() {}
