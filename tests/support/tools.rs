//! Programs that are not ours. A machine without one skips its test, saying so, unless
//! `SPLITWAY_REQUIRE_TOOLS` is set, as it is in CI.

use std::path::PathBuf;
use std::process::Command;

/// The program `name`, if it is installed.
pub fn program(name: &str, package: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&paths).map(|path| path.join(name)).find(|path| path.is_file());
    required(found, name, package)
}

/// A Python that can import `module`.
pub fn python_with(module: &str) -> Option<PathBuf> {
    let python = program("python3", "python3")?;
    let check = format!("import {module}");
    let works =
        Command::new(&python).args(["-c", &check]).output().is_ok_and(|out| out.status.success());
    required(works.then_some(python), module, module)
}

fn required(found: Option<PathBuf>, name: &str, package: &str) -> Option<PathBuf> {
    if found.is_none() {
        let is_required = std::env::var_os("SPLITWAY_REQUIRE_TOOLS").is_some();
        assert!(!is_required, "{name} is required here; install {package}");
        eprintln!("skipped: {name} is not installed (package {package})");
    }
    found
}
