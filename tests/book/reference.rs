//! The two references of the book, written from what the program itself declares.

use std::fmt::Write;

use serde_json::Value as Json;
use splitway::metrics::table::FAMILIES;

/// Every metric family.
pub fn metrics() -> String {
    let mut page = "# Metrics\n\nAt `http://ADMIN/metrics`, in the text format of Prometheus. \
         `app` is the service, `track` one of its tracks. Durations are seconds, shares 0 to 1. \
         This page is generated from `src/metrics/table.rs`.\n\n\
         | name | kind | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for family in FAMILIES {
        let labels = family.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>();
        let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(" ") };
        let (name, kind) = (family.name, family.kind.as_str());
        writeln!(page, "| `{name}` | {kind} | {labels} | {} |", family.help).unwrap();
    }
    page
}

/// Every key of the configuration.
pub fn configuration() -> String {
    let schema = splitway::cli::schema::document();
    let mut page = "# Configuration\n\nOne YAML file, at most 1 MiB; every fault is shown at once \
         with line, field and remedy (`splitway check`). `splitway schema` prints the same as a JSON \
         Schema for editors; `config/reference.yaml` has every key in its place with its default. \
         A **bold** key is required. Durations are `250ms`, `5s`, `10m`, `2h`, `30d`; sizes `64KiB`, \
         `10MiB`; percentages have up to two decimals. Unknown keys are faults. This page is \
         generated from `src/config/`.\n"
        .to_owned();
    section(&schema, "", &mut page);
    page
}

/// A section and, behind it, those below it.
fn section(schema: &Json, path: &str, page: &mut String) {
    let title = if path.is_empty() { "The file" } else { path };
    writeln!(page, "\n## {title}\n\n{}\n", text(&schema["description"])).unwrap();
    page.push_str("| key | takes | meaning |\n|---|---|---|\n");
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
    let mut below = Vec::new();
    for (key, value) in schema["properties"].as_object().unwrap() {
        let key_text =
            if required.contains(&&**key) { format!("**`{key}`**") } else { format!("`{key}`") };
        let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let mut inner = None;
        let takes = takes(value, &at, &mut inner);
        let meaning = inner.as_ref().map_or(&value["description"], |_| &value["description"]);
        writeln!(page, "| {key_text} | {takes} | {} |", text(meaning)).unwrap();
        below.extend(inner);
    }
    for (at, schema) in below {
        section(schema, &at, page);
    }
}

/// What a value may be; a section that it holds goes to `inner` with its place.
fn takes<'s>(value: &'s Json, at: &str, inner: &mut Option<(String, &'s Json)>) -> String {
    if value["properties"].is_object() {
        let Some(_) = value.get("description") else {
            let keys = value["properties"].as_object().unwrap().keys();
            return keys.map(|key| format!("`{{ {key}: … }}`")).collect::<Vec<_>>().join(", ");
        };
        inner.get_or_insert((at.to_owned(), value));
        return format!("[section](#{})", anchor(&inner.as_ref().unwrap().0));
    }
    let choices = |list: &'s Json, inner: &mut Option<_>| {
        let mut all: Vec<String> = Vec::new();
        for one in list.as_array().unwrap() {
            let one = takes(one, at, inner);
            if !all.contains(&one) {
                all.push(one);
            }
        }
        all.join(", or ")
    };
    for list in ["oneOf", "anyOf"] {
        if value[list].is_array() {
            return choices(&value[list], inner);
        }
    }
    if let Some(list) = value["enum"].as_array() {
        // `off` may also be written as false, which is what YAML makes of a bare `off`.
        let words = list.iter().filter(|word| !word.is_boolean());
        return words.map(|word| format!("`{}`", text(word))).collect::<Vec<_>>().join(", ");
    }
    if let Some(word) = value.get("const") {
        return format!("`{}`", text(word));
    }
    if value["items"].is_object() {
        return format!("list of {}", takes(&value["items"], &format!("{at}[]"), inner));
    }
    if value["additionalProperties"].is_object() {
        let each = takes(&value["additionalProperties"], &format!("{at}.NAME"), inner);
        return format!("names, each with {each}");
    }
    let bounds = || match (value["minimum"].as_f64(), value["maximum"].as_f64()) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("a number from {least}"),
        _ => "a number".to_owned(),
    };
    match (&value["type"], value["pattern"].as_str()) {
        (_, Some(pattern)) if pattern.contains("ms|s|m") => "duration".into(),
        (_, Some(pattern)) if pattern.contains("KiB") => "size".into(),
        (_, Some(pattern)) if pattern.starts_with("^https?") => "URL".into(),
        (_, Some(pattern)) if pattern.contains("[1-5][0-9][0-9]") => "a status, or a range".into(),
        (_, Some(pattern)) if pattern.contains(":[0-9]") => "HOST:PORT".into(),
        (_, Some("\\{")) => "a template".into(),
        (Json::String(kind), _) if kind == "boolean" => "`true`, `false`".into(),
        (Json::String(kind), _) if kind == "integer" || kind == "number" => {
            if value["multipleOf"] == 0.01 { format!("percent, {}", bounds()) } else { bounds() }
        }
        _ if value["format"] == "regex" => "a regular expression".into(),
        _ => "text".into(),
    }
}

/// The anchor that a heading gets.
pub fn anchor(heading: &str) -> String {
    let kept = |char: char| char.is_alphanumeric() || char == '-' || char == '_' || char == ' ';
    heading.to_lowercase().chars().filter(|&char| kept(char)).collect::<String>().replace(' ', "-")
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace('|', "\\|")
}
