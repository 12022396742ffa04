#![no_main]

tidegate_fuzz::target!("v3_packet");
