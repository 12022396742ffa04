//! x
#[allow(dead_code)]
mod ingest;
fn main() {}
