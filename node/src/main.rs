//! Only for this branch.
#![allow(dead_code)]
mod mqtt;
fn main() {}
