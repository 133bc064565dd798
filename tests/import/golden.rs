//! What manifests become, to the letter: the file and every finding. `SPLITWAY_BLESS=1` writes them anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use splitway::config;
use splitway::import::finding::Grade;
use splitway::import::{Source, import};

fn manifests() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/golden");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    found.sort();
    assert!(found.len() >= 5);
    found
}

fn source(path: &Path) -> Source {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    Source { name, text: std::fs::read_to_string(path).unwrap() }
}

#[test]
fn files_and_findings_are_as_agreed() {
    for path in manifests() {
        let imported = import(&[source(&path)]).unwrap();
        let mut found = String::new();
        for finding in &imported.findings {
            writeln!(found, "{}: {finding}", finding.grade.as_str()).unwrap();
        }
        let file = imported.text.unwrap();
        // What the file says of itself are the findings again.
        let body: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
        let found = format!("{found}\n{}\n", body.join("\n"));
        let agreed = path.with_extension("expected");
        if std::env::var_os("SPLITWAY_BLESS").is_some() {
            std::fs::write(&agreed, &found).unwrap();
        }
        let agreed = std::fs::read_to_string(&agreed).unwrap_or_default();
        assert!(agreed == found, "{} has become\n{found}", path.display());
    }
}

/// The pages show manifests, what is said of them, and the file that they become.
#[test]
fn each_way_over_is_as_its_page_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let pages = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_way = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("from-");
    let mut count = 0;
    for path in pages.filter(is_way) {
        let page = std::fs::read_to_string(&path).unwrap();
        let block = |kind: &str, nth: usize| {
            let start = format!("```{kind}\n");
            let block = page.split(&*start).nth(nth + 1).unwrap();
            block.split("```").next().unwrap().to_owned()
        };
        let imported =
            import(&[Source { name: "api.yaml".into(), text: block("yaml", 0) }]).unwrap();
        let notable = imported.findings.iter().filter(|one| one.grade != Grade::Exact);
        let said: String =
            notable.map(|finding| format!("{}: {finding}\n", finding.grade.as_str())).collect();
        assert_eq!(block("text", 0), said, "{}", path.display());
        let file = imported.text.unwrap();
        let body = file.lines().filter(|line| !line.starts_with('#'));
        let body: String = body.map(|line| format!("{line}\n")).collect();
        assert_eq!(block("yaml", 1), body, "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 6);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is taken from manifests or put into them: it is refused, or becomes a file that is one,
    /// and the same one again.
    #[test]
    fn maimed_manifests_are_refused_or_become_a_file(
        which in 0..100_usize,
        cuts in prop::collection::vec((0..1_000_usize, 0..8_usize), 1..6),
    ) {
        let manifests = manifests();
        let source = source(&manifests[which % manifests.len()]);
        let mut lines: Vec<String> = source.text.lines().map(str::to_owned).collect();
        for (at, how) in cuts {
            if lines.len() < 2 {
                break;
            }
            let at = at % lines.len();
            match how {
                0 => { lines.remove(at); }
                1 => { let line = lines[at].clone(); lines.insert(at, line); }
                2 => lines.truncate(at.max(1)),
                3 => lines[at] = lines[at].replace(['1', '2', '5'], "99999999999"),
                4 => lines[at] = lines[at].replace(['/', 'a'], "*"),
                5 => lines[at] = lines[at].replace(": ", ": [1, { x: y }] # "),
                6 => lines[at] = lines[at].replace("name", "mane"),
                _ => lines[at].insert_str(0, "  "),
            }
        }
        let maimed = [Source { name: source.name, text: lines.join("\n") }];
        let first = import(&maimed);
        prop_assert_eq!(&first, &import(&maimed));
        if let Ok(imported) = first && let Some(text) = imported.text {
            prop_assert!(config::parse(Path::new("imported.yaml"), &text).is_ok(), "{}", text);
        }
    }
}
