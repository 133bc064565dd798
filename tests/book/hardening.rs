//! The page on hardening: each of its sentences names the tests that hold it, and they are there.

use std::fs;

use super::root;

/// The parts of a page that are prose: paragraphs, and the items of lists.
fn prose(page: &str) -> Vec<String> {
    let outside: String = page.split("```").step_by(2).collect();
    let mut parts = vec![String::new()];
    for line in outside.lines() {
        let is_apart = line.is_empty() || line.starts_with('#') || line.starts_with("- ");
        if is_apart {
            parts.push(String::new());
        }
        if !line.starts_with('#') {
            let part = parts.last_mut().unwrap();
            part.push_str(line.strip_prefix("- ").unwrap_or(line));
            part.push(' ');
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// What is wrong with a page: sentences that name no test, and names that no test has.
fn faults(page: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for part in prose(page) {
        // What leads to a block of code claims nothing.
        if part.trim().ends_with(':') {
            continue;
        }
        let mut rest = part.as_str();
        while let Some((sentence, behind)) = rest.split_once("<!-- test: ") {
            let (names, behind) = behind.split_once(" -->").expect("a comment that ends");
            let sentence = sentence.trim();
            if !sentence.ends_with('.') || sentence.contains(". ") {
                faults.push(format!("is not one sentence: {sentence}"));
            }
            faults.extend(names.split(", ").filter_map(missing));
            rest = behind;
        }
        if !rest.trim().is_empty() {
            faults.push(format!("names no test: {}", rest.trim()));
        }
    }
    faults
}

/// What is wrong with a name such as `tests/strict.rs::heads_have_limits`.
fn missing(name: &str) -> Option<String> {
    let (file, function) = name.split_once("::")?;
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    let is_test = |at: usize| {
        let before = &text[..at];
        // The attributes stand right above; proptest writes them inside its block.
        let above: Vec<&str> = before.lines().rev().take(5).collect();
        above.iter().any(|line| line.contains("test]"))
    };
    let found = text.find(&format!("fn {function}("));
    (!found.is_some_and(is_test)).then(|| format!("there is no test {name}"))
}

#[test]
fn every_sentence_of_the_page_is_held_by_a_test() {
    let page = fs::read_to_string(root().join("docs/hardening.md")).unwrap();
    let faults = faults(&page);
    assert!(faults.is_empty(), "docs/hardening.md:\n{}", faults.join("\n"));
    assert!(page.matches("<!-- test: ").count() > 40);
}

#[test]
fn a_sentence_without_a_test_is_found() {
    let held = "<!-- test: tests/strict.rs::heads_have_limits -->";
    let is_good = |page: &str| faults(page).is_empty();
    assert!(is_good(&format!("# A\n\nIt holds. {held}\n\n- So does that. {held}\n")));
    assert!(is_good("Like this:\n\n```yaml\na: b. C.\n```\n"));
    for bad in [
        "It holds.".to_owned(),
        format!("It holds. {held} And more."),
        format!("- It holds. So does that. {held}\n"),
        "It holds. <!-- test: tests/strict.rs::no_such_test -->".to_owned(),
        "It holds. <!-- test: tests/book/hardening.rs::faults -->".to_owned(),
        "It holds. <!-- test: tests/none.rs::heads_have_limits -->".to_owned(),
    ] {
        assert!(!is_good(&bad), "{bad}");
    }
}
