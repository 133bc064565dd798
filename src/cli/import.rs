//! `splitway import`: manifests of others as one Splitway file.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::import::finding::{Finding, Grade};
use crate::import::{FILE_BYTES_MAX, Source, import};

use super::{BAD_INPUT, DONE, FAILED, complain, print, print_json};

/// Differences are listed: the file is written, and is not quite the same.
const DIFFERS: u8 = 3;
/// Something has no counterpart, and nothing was written.
const UNSUPPORTED: u8 = 4;
/// Most files of folders.
const FILES_MAX: usize = 1_000;

/// Make a Splitway file of Kubernetes, Istio, Gateway API, ingress-nginx, Argo Rollouts or Flagger
/// manifests.
#[derive(Debug, Args)]
pub struct Import {
    /// Manifests, folders of them, or `-` for standard input; what refers to each other goes together
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the file goes; omitted: standard output. An existing one is not overwritten
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the file even where something has no counterpart and is left out
    #[arg(long)]
    allow_partial: bool,
    /// Print file and findings as JSON
    #[arg(long)]
    json: bool,
}

impl Import {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let sources = match sources(&self.files) {
            Ok(sources) => sources,
            Err(message) => return refuse(&message),
        };
        let imported = match import(&sources) {
            Ok(imported) => imported,
            Err(faults) => {
                for fault in &faults {
                    complain(&format!("splitway: {fault}"));
                }
                return BAD_INPUT;
            }
        };
        let grade = imported.grade();
        let Some(text) = imported.text.as_deref() else {
            imported.findings.iter().for_each(tell);
            return refuse(
                "these manifests split no traffic: no VirtualService, HTTPRoute, Ingress, Rollout or Canary, no Service with two Deployments",
            );
        };
        let is_withheld = grade == Grade::Unsupported && !self.allow_partial;
        if self.json {
            let findings = imported.findings.iter().map(|finding| {
                json!({
                    "grade": finding.grade.as_str(),
                    "file": finding.origin.file,
                    "line": finding.origin.place.line,
                    "object": finding.origin.object,
                    "path": finding.origin.path,
                    "message": finding.message,
                })
            });
            let findings: Vec<_> = findings.collect();
            let shown = (!is_withheld).then_some(text);
            print_json(&json!({ "file": shown, "findings": findings }));
        } else {
            imported.findings.iter().filter(|finding| finding.grade != Grade::Exact).for_each(tell);
        }
        if is_withheld {
            complain("splitway: nothing written; --allow-partial writes the rest");
            return UNSUPPORTED;
        }
        match &self.out {
            Some(path) => {
                if let Err(error) = write_new(path, text) {
                    complain(&format!("splitway: {}: {error}", path.display()));
                    return FAILED;
                }
            }
            None if !self.json => print(text),
            None => {}
        }
        match grade {
            Grade::Exact => DONE,
            Grade::Differs => DIFFERS,
            Grade::Unsupported => UNSUPPORTED,
        }
    }
}

fn refuse(message: &str) -> u8 {
    complain(&format!("splitway: {message}"));
    BAD_INPUT
}

fn tell(finding: &Finding) {
    complain(&format!("{}: {finding}", finding.grade.as_str()));
}

/// Writes a file that was not there.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(text.as_bytes())
}

/// All files by name; of folders those that are YAML, in the order of their names.
fn sources(files: &[PathBuf]) -> Result<Vec<Source>, String> {
    let mut found = Vec::new();
    for file in files {
        if file.as_os_str() == "-" {
            found.push(read("-", &mut std::io::stdin().lock())?);
        } else if file.is_dir() {
            let listed =
                std::fs::read_dir(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let mut inside: Vec<PathBuf> =
                listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
            inside.retain(|path| {
                path.extension().is_some_and(|end| end == "yaml" || end == "yml") && path.is_file()
            });
            inside.sort();
            if inside.is_empty() {
                return Err(format!("{} holds no .yaml", file.display()));
            }
            for path in inside {
                found.push(open(&path)?);
            }
        } else {
            found.push(open(file)?);
        }
        if found.len() > FILES_MAX {
            return Err(format!(
                "these are more than {FILES_MAX} files; import one service at a time"
            ));
        }
    }
    Ok(found)
}

fn open(path: &Path) -> Result<Source, String> {
    let name = path.display().to_string();
    let mut file = std::fs::File::open(path).map_err(|error| format!("{name}: {error}"))?;
    read(&name, &mut file)
}

fn read(name: &str, from: &mut impl Read) -> Result<Source, String> {
    let mut text = String::new();
    // One byte more shows that there is more.
    let most = FILE_BYTES_MAX as u64 + 1;
    from.take(most).read_to_string(&mut text).map_err(|error| format!("{name}: {error}"))?;
    Ok(Source { name: name.to_owned(), text })
}
