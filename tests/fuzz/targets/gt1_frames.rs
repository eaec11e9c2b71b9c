#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gt::fuzz::gt1_frames(data));
