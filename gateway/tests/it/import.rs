//! `tyr import`: the result on stdout, what is to be known on stderr.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::tyr_binary;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/import")
        .join(name)
}

fn tyr(arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new(tyr_binary());
    command.args(arguments).arg(file);
    command.output().expect("tyr runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn imported_files_are_accepted_by_check() {
    let folder = tempfile::tempdir().expect("a folder");
    for (format, stem, end) in [
        ("bifrost", "bifrost_governance", "json"),
        ("bifrost", "bifrost_old", "json"),
        ("litellm", "litellm_router", "yaml"),
        ("litellm", "litellm_small", "yaml"),
    ] {
        let output = tyr(&["import", format], &golden(&format!("{stem}.{end}")));
        assert!(output.status.success(), "{stem}: {output:?}");
        let expected = |end: &str| {
            let path = golden(&format!("expected/{stem}.{end}"));
            fs::read_to_string(path).expect("it is there")
        };
        assert_eq!(text(&output.stdout), expected("yaml"), "{stem}");
        assert_eq!(text(&output.stderr), expected("notes"), "{stem}");
        let file = folder.path().join(format!("{stem}.yaml"));
        fs::write(&file, &output.stdout).expect("it is written");
        let checked = tyr(&["check", "--conf"], &file);
        assert!(
            checked.status.success(),
            "{stem}: {}",
            text(&checked.stdout)
        );
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_prints_nothing() {
    let small = golden("litellm_small.yaml");
    for (format, file) in [("bifrost", small.clone()), ("litellm", golden("nothing"))] {
        let output = tyr(&["import", format], &file);
        assert!(!output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}
