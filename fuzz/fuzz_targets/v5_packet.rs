#![no_main]

tidegate_fuzz::target!("v5_packet");
