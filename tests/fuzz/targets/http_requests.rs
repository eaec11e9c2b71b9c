#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gt::probes::http_requests(data));
