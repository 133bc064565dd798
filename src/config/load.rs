//! From a file to a checked configuration, or all of its faults.

use std::io::Read;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::fault::{Fault, Faults};
use super::node::{self, FILE_BYTES_MAX};
use super::section::{Reader, Value};
use super::types::Config;
use super::validate::validate;

/// A configuration and the hash of the text it came from.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Tells texts apart; see [`content_hash`].
    pub hash: u64,
}

/// Reads and checks the file at `path`.
///
/// # Errors
/// Every fault found.
pub fn load(path: &Path) -> Result<Loaded, Faults> {
    let text = read(path)?;
    let hash = xxh3_64(text.as_bytes());
    parse(path, &text).map(|config| Loaded { config, hash })
}

/// The hash of the file's content; times and links do not matter. `None` when it cannot be read.
#[must_use]
pub fn content_hash(path: &Path) -> Option<u64> {
    read(path).ok().map(|text| xxh3_64(text.as_bytes()))
}

/// Checks `text`, which came from `path`.
///
/// # Errors
/// Every fault found.
pub fn parse(path: &Path, text: &str) -> Result<Config, Faults> {
    let tree = node::read(text).map_err(|(place, message)| {
        let fault = Fault { place, field: String::new(), message };
        Faults::new(path, vec![fault])
    })?;
    let mut reader = Reader::default();
    let config = Config::read(&tree, &mut reader);
    let mut faults = reader.faults;
    if let Some(config) = config {
        faults.extend(validate(&config));
        if faults.is_empty() {
            return Ok(config);
        }
    }
    Err(Faults::new(path, faults))
}

fn read(path: &Path) -> Result<String, Faults> {
    let fault = |message: String| Faults::whole(path, message);
    let metadata = std::fs::metadata(path)
        .map_err(|error| fault(format!("cannot be read: {error}; check the path")))?;
    if metadata.is_dir() {
        return Err(fault("is a directory; name a YAML file in it".into()));
    }
    let file = std::fs::File::open(path)
        .map_err(|error| fault(format!("cannot be read: {error}; check its permissions")))?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(format!("cannot be read: {error}")))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(fault("is larger than 1 MiB; split the services over several gateways".into()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        fault(format!("is not UTF-8 (line {line}); save it as UTF-8"))
    })
}
