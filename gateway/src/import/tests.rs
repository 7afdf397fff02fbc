//! Imports of whole files: what comes out, and that nothing gets lost.
//!
//! `UPDATE_EXPECT=1` writes the expected files anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value as Json;

use super::source::{self, Node, Value};
use super::{Format, Imported, import};

const FILES: &[(Format, &str)] = &[
    (Format::Bifrost, "bifrost_governance.json"),
    (Format::Bifrost, "bifrost_old.json"),
    (Format::LiteLlm, "litellm_router.yaml"),
    (Format::LiteLlm, "litellm_small.yaml"),
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/import")
        .join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(golden(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn imported(format: Format, text: &str) -> Imported {
    import(format, text).unwrap_or_else(|error| panic!("{error}"))
}

fn notes(imported: &Imported) -> String {
    let mut lines = String::new();
    for note in &imported.notes {
        writeln!(lines, "{}: {}", note.path, note.why).expect("a text takes it");
    }
    lines
}

#[test]
fn whole_files() {
    for (format, name) in FILES {
        let result = imported(*format, &read(name));
        let again = imported(*format, &read(name));
        assert_eq!(
            (&again.yaml, &again.notes),
            (&result.yaml, &result.notes),
            "{name}"
        );
        for (end, found) in [("yaml", result.yaml.clone()), ("notes", notes(&result))] {
            let stem = name.split('.').next().unwrap_or(name);
            let path = golden(&format!("expected/{stem}.{end}"));
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(&path, &found).expect("the folder is writable");
            }
            let expected = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(found, expected, "{}", path.display());
        }
    }
}

#[test]
fn results_are_accepted() {
    for (format, name) in FILES {
        let result = imported(*format, &read(name));
        let problems: Vec<String> = result.problems.iter().map(ToString::to_string).collect();
        assert!(
            problems.is_empty(),
            "{name}: {}\n{}",
            problems.join("\n"),
            result.yaml
        );
    }
}

#[test]
fn no_secret_is_shown() {
    for (format, name) in FILES {
        let result = imported(*format, &read(name));
        let shown = format!("{}{}", result.yaml, notes(&result));
        for word in ["literal", "fake-key-of-nobody"] {
            let hits: Vec<&str> = shown.lines().filter(|line| line.contains(word)).collect();
            assert!(hits.is_empty(), "{name}: {hits:?}");
        }
    }
}

/// Every value at all of a file.
fn leaves<'a>(node: &'a Node, found: &mut Vec<&'a Node>) {
    match &node.value {
        Value::List(items) if !items.is_empty() => {
            items.iter().for_each(|item| leaves(item, found));
        }
        Value::Map(entries) if !entries.is_empty() => {
            entries.iter().for_each(|(_, item)| leaves(item, found));
        }
        _ => found.push(node),
    }
}

fn is_noted(result: &Imported, path: &str) -> bool {
    result.notes.iter().any(|note| {
        path.strip_prefix(note.path.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// A tree as JSON, with the value at `changed` replaced by another one.
fn rewritten(node: &Node, changed: &str) -> Json {
    let hit = node.at.path() == changed;
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value != hit),
        Value::Number(text) if hit => Json::String(format!("{text}7")),
        Value::Number(text) => serde_json::from_str(text).unwrap_or(Json::String(text.clone())),
        Value::Text(text) if hit => Json::String(format!("{text}x")),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) if items.is_empty() && hit => Json::from(vec!["new"]),
        Value::List(items) => items.iter().map(|item| rewritten(item, changed)).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, item)| (key.clone(), rewritten(item, changed)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// What need not change anything: ids are only for references within the
/// source, the address of its schema is for editors, the share of one that is
/// alone is all, and a reference has its value elsewhere.
fn says_nothing(path: &str, all: &[&Node]) -> bool {
    let twin = |next: &str| {
        let (list, _) = path.rsplit_once('[').unwrap_or((path, ""));
        all.iter()
            .any(|leaf| leaf.at.path().starts_with(&format!("{list}[{next}]")))
    };
    let alone = path.ends_with("[0].weight") && !twin("1");
    let reference = path.ends_with(".value.value") || path.ends_with(".value.from_env");
    path == "$schema" || path.ends_with(".id") || alone || reference
}

/// Each value either changes the result when it is another one, or it is named
/// in a note.
#[test]
fn nothing_is_dropped_in_silence() {
    let mut seen = 0;
    for (format, name) in FILES {
        let text = read(name);
        let tree = match format {
            Format::Bifrost => source::json(&text),
            Format::LiteLlm => source::yaml(&text),
        };
        let tree = tree.expect("it was read before");
        let whole = imported(*format, &rewritten(&tree, "nowhere").to_string());
        let mut all = Vec::new();
        leaves(&tree, &mut all);
        let mut lost = Vec::new();
        for leaf in &all {
            let path = leaf.at.path();
            seen += 1;
            if says_nothing(path, &all) || is_noted(&whole, path) {
                continue;
            }
            let other = imported(*format, &rewritten(&tree, path).to_string());
            if other.yaml == whole.yaml && other.notes == whole.notes {
                lost.push(path.to_owned());
            }
        }
        assert!(lost.is_empty(), "{name}:\n{}", lost.join("\n"));
    }
    assert!(seen > 200, "{seen}");
}

#[test]
fn other_texts_are_refused() {
    for (format, text) in [
        (Format::Bifrost, "{"),
        (Format::Bifrost, "[]"),
        (Format::Bifrost, "model_list: []"),
        (Format::LiteLlm, "- a"),
        (Format::LiteLlm, "a: [b"),
        (Format::LiteLlm, "a: 1\na: 2"),
        (Format::LiteLlm, "a: 1\n---\nb: 2"),
        (Format::LiteLlm, "a: &a [*a]"),
    ] {
        assert!(import(format, text).is_err(), "{text}");
    }
}

/// Aliases of aliases: a small text must not become a large tree.
#[test]
fn aliases_do_not_multiply_without_end() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = level - 1;
        let list = vec![format!("*a{below}"); 10].join(", ");
        writeln!(text, "a{level}: &a{level} [{list}]").expect("a text takes it");
    }
    let error = import(Format::LiteLlm, &text).expect_err("it is too large");
    assert!(error.to_string().contains("more than"), "{error}");
}

#[test]
fn empty_files_are_empty_configurations() {
    for (format, text) in [
        (Format::Bifrost, "{}"),
        (Format::LiteLlm, "{}"),
        (Format::LiteLlm, ""),
    ] {
        let result = imported(format, text);
        assert!(result.problems.is_empty(), "{:?}", result.problems);
    }
}

proptest! {
    /// Names with anything in them never break the written YAML.
    #[test]
    fn any_name_is_written_so_that_it_reads_back(name in "\\PC{1,40}", about in "\\PC{0,40}\n?\\PC{0,9}") {
        let source = serde_json::json!({"governance": {"customers": [
            {"id": "c", "name": name, "description": about},
            {"id": "d", "name": name},
        ]}});
        let result = imported(Format::Bifrost, &source.to_string());
        prop_assert!(result.problems.is_empty(), "{:?}\n{}", result.problems, result.yaml);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}", yaml in "[a-z:&*<\\[\\]{} \n-]{0,80}") {
        let _ = import(Format::Bifrost, &text);
        let _ = import(Format::LiteLlm, &text);
        let _ = import(Format::LiteLlm, &yaml);
    }
}
