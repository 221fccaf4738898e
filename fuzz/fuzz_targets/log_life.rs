//! See `decoders::log_life`.
#![no_main]

#[path = "../decoders.rs"]
mod decoders;

// A sixth of its time was the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::log_life(data));
