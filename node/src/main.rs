//! x
#[allow(dead_code)]
mod ingest;
#[allow(dead_code)]
mod mqtt;
fn main() {}
