//! Any text is a configuration, or has faults that say where.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(faults) = splitway::config::parse(Path::new("fuzz.yaml"), text) {
        let told = faults.to_string();
        assert!(
            !told.is_empty() && told.lines().all(|line| line.starts_with("fuzz.yaml")),
            "{told}"
        );
    }
});
