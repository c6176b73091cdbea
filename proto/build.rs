//! Compiles the `.proto` files beside it, without a protoc of the system's.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/ottla/broker/v1/broker.proto"], ["proto"])?;
    let mut prost = tonic_prost_build::Config::new();
    // Records are slices of the buffer they came in.
    prost.bytes(["."]);
    tonic_prost_build::configure().build_transport(false).compile_fds_with_config(files, prost)?;
    Ok(())
}
