#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gt::probes::ice_stun(data));
