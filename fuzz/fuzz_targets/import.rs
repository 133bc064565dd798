//! Any text is manifests or is refused, and what they become is a configuration, the same each time.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use splitway::import::{Source, import};

fuzz_target!(|text: &str| {
    let sources = [Source { name: "fuzz.yaml".into(), text: text.into() }];
    let imported = import(&sources);
    assert_eq!(imported, import(&sources));
    if let Ok(imported) = imported
        && let Some(text) = imported.text
    {
        splitway::config::parse(Path::new("fuzz.yaml"), &text)
            .expect("what is written is accepted");
    }
});
