//! A folder of `*.yaml` is one document.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::{References, check, load};

/// Writes the files, loads the folder, and shows what is wrong, file names
/// without the folder.
fn judge(files: &[(&str, &str)]) -> String {
    let folder = TempDir::new().expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    judge_path(folder.path())
}

fn judge_path(path: &Path) -> String {
    let problems = match load(path) {
        Ok(document) => check(&document, References::Skip).err().unwrap_or_default(),
        Err(problems) => problems,
    };
    super::lines(&problems).replace(&format!("{}/", path.display()), "")
}

const OPENAI: &str = "\
version: 1
providers: [{name: openai, kind: openai, base_url: https://a.example, keys: [{name: k, value: x}]}]
models: [{name: gpt, provider: openai, price: free}]
";

#[test]
fn lists_are_joined() {
    let keys = "virtual_keys: [{name: a, value: sk-tyr-0123456789, providers: [{name: openai}]}]\n";
    assert_eq!(judge(&[("a.yaml", keys), ("b.yaml", OPENAI)]), "");
    // Each file may say its version; files of other names are left alone.
    let more = "version: 1\nmodels: [{name: more, provider: openai, price: free}]\n";
    let files = [
        ("a.yaml", OPENAI),
        ("b.yaml", more),
        (".c.yaml", "?"),
        ("d.yml", "?"),
    ];
    assert_eq!(judge(&files), "");
}

#[test]
fn twice_names_both_places() {
    let twin = "\n\nproviders:\n- {name: openai, kind: openai, base_url: https://b.example, keys: [{name: k, value: x}]}\n";
    assert_eq!(
        judge(&[("a.yaml", OPENAI), ("b.yaml", twin)]),
        "b.yaml:4: providers[0].name: provider 'openai' is already defined at a.yaml:2"
    );
    assert_eq!(
        judge(&[
            ("a.yaml", "version: 1\nserver: {}\n"),
            ("b.yaml", "\nserver: {}\nversion: 2\n")
        ]),
        "b.yaml:2: server: `server` already stands in a.yaml:2\n\
         b.yaml:3: version: `version` already stands in a.yaml:1"
    );
}

#[test]
fn every_file_is_judged() {
    assert_eq!(
        judge(&[
            ("a.yaml", "version: 1\nversion: 1\n"),
            ("b.yaml", ""),
            ("c.yaml", "a: [\n")
        ]),
        "a.yaml:2: version: `version` stands twice in one mapping, first in line 1\n\
         b.yaml:1: document: the file is empty\n\
         c.yaml:2: a[0]: not valid YAML: while parsing a node, did not find expected node content"
    );
    assert_eq!(
        judge(&[
            ("a.yaml", OPENAI),
            (
                "b.yaml",
                "models:\n- {name: m, provider: openai, price: 1}\n"
            )
        ]),
        "b.yaml:2: models[0].price: expected `free` or `catalogue` or a mapping, found `1`"
    );
}

#[test]
fn what_cannot_be_read() {
    let folder = TempDir::new().expect("a folder");
    let shown = folder.path().display().to_string();
    let problems = load(folder.path()).expect_err("it is empty");
    assert_eq!(
        super::lines(&problems),
        format!("{shown}:0: document: cannot be read: the folder has no *.yaml file")
    );
    let absent = folder.path().join("absent.yaml");
    let problems = load(&absent).expect_err("it is absent");
    assert_eq!(
        super::lines(&problems),
        format!(
            "{shown}/absent.yaml:0: document: cannot be read: No such file or directory (os error 2)"
        )
    );
    fs::write(folder.path().join("a.yaml"), b"version: \xff\n").expect("a file");
    assert_eq!(
        judge_path(folder.path()),
        "a.yaml:0: document: cannot be read: not UTF-8"
    );
}
