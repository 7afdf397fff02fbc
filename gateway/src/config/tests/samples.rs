//! The files of `conf/`.

use std::path::{Path, PathBuf};

use super::super::{References, check, load, schema, schema_text};
use super::{lines, variables};

fn conf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conf")
        .join(name)
}

/// `UPDATE_EXPECT=1` writes it anew.
#[test]
fn the_schema_is_committed() {
    let path = conf("tyr.schema.json");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, schema_text()).expect("conf/ is writable");
    }
    let committed = std::fs::read_to_string(&path).expect("conf/tyr.schema.json is there");
    assert_eq!(committed, schema_text(), "run again with UPDATE_EXPECT=1");
}

#[test]
fn the_samples_are_right() {
    let environment = variables(&[
        ("OPENAI_API_KEY", "sk-one"),
        ("ANTHROPIC_API_KEY", "sk-two"),
        ("TYR_ADMIN_TOKEN", "admin-token-of-the-test"),
        ("TYR_DEMO_KEY", "sk-tyr-demo-of-the-test"),
        (
            "TYR_CLUSTER_SECRET",
            "a-secret-of-the-test-with-32-characters",
        ),
        (
            "TYR_ENCRYPTION_KEY",
            "a-key-of-the-test-with-32-characters-too",
        ),
        (
            "TYR_POSTGRES_URL",
            "postgres://tyr:secret@db.example:5432/tyr",
        ),
    ]);
    for name in [
        "tyr.yaml",
        "quickstart.yaml",
        "minimal.yaml",
        "cluster.yaml",
    ] {
        let document = load(&conf(name)).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
        for references in [References::Skip, References::Resolve(&environment)] {
            let warnings = check(&document, references)
                .unwrap_or_else(|problems| panic!("{}", lines(&problems)));
            assert_eq!(lines(&warnings), "", "{name}");
        }
    }
}

#[test]
fn the_quickstart_needs_no_environment() {
    let document = load(&conf("quickstart.yaml")).expect("it is right");
    check(&document, References::Resolve(&variables(&[]))).expect("it refers to nothing");
}

/// Each field of the schema is in the reference, by its own name.
#[test]
fn the_reference_is_complete() {
    let reference = std::fs::read_to_string(conf("README.md")).expect("conf/README.md is there");
    let words: std::collections::BTreeSet<&str> = reference
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .collect();
    let mut fields = Vec::new();
    names_of_fields(&schema(), &mut fields);
    assert!(fields.len() > 100, "{}", fields.len());
    for field in fields {
        assert!(words.contains(field.as_str()), "{field}");
    }
}

fn names_of_fields(schema: &serde_json::Value, names: &mut Vec<String>) {
    if let Some(fields) = schema["properties"].as_object() {
        names.extend(fields.keys().cloned());
    }
    match schema {
        serde_json::Value::Object(parts) => {
            parts.values().for_each(|part| names_of_fields(part, names));
        }
        serde_json::Value::Array(parts) => {
            parts.iter().for_each(|part| names_of_fields(part, names));
        }
        _ => {}
    }
}
