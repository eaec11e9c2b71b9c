#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gt::fuzz::outbound_options(data));
