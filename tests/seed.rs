//! The founding manifests, where they are at hand: what they route, the example routes too.

use std::path::Path;

#[test]
fn the_header_rules_of_the_manifests_are_those_of_the_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/seed");
    let example = include_str!("../config/canary.yaml");
    let manifests =
        ["istio-weighted-and-canary-header.yaml", "istio-beta-users.yaml", "istio-geographic.yaml"];
    for (manifest, header) in manifests.into_iter().zip(["canary", "x-user-group", "x-region"]) {
        let Ok(text) = std::fs::read_to_string(folder.join(manifest)) else {
            eprintln!("skipped: {manifest} is not at hand");
            continue;
        };
        let after = &text[text.find(&format!("{header}:")).unwrap()..];
        let exact = after.lines().find_map(|line| line.trim().strip_prefix("exact: ")).unwrap();
        let value = exact.trim_matches('"');
        let quoted = example.contains(&format!("{header}: \"{value}\""));
        assert!(quoted || example.contains(&format!("{header}: {value} ")), "{manifest}");
    }
}
