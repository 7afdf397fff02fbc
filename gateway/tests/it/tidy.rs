//! House rules as tests: sizes, dependency directions, bans and samples.
//!
//! Each rule reads the source files as text. A rule with exceptions names them
//! in a list, each with its reason, so that an exception shows in a review.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::source::{Source, functions};

/// Hard limit on the lines of one Rust file.
const FILE_LINES: usize = 600;
/// Hard limit on the lines of one function, its signature included.
const FUNCTION_LINES: usize = 70;
/// The same in tests, where a function may be mostly a table of cases.
const TEST_FUNCTION_LINES: usize = 120;
/// Hard limit on an inline test module; longer ones move to `tests.rs`.
const INLINE_TEST_LINES: usize = 100;

/// Who may depend on whom among our own crates; everything else is forbidden.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("policy", &[]),
    ("proto", &[]),
    ("cluster", &["policy", "proto"]),
    ("gateway", &["cluster", "policy"]),
    ("loadtest", &[]),
];

/// Crates that `policy` must not know: it is pure. (serde's derives are fine on
/// values that others store; formats are not.)
const NOT_IN_POLICY: &[&str] = &[
    "tokio",
    "pingora",
    "pingora-core",
    "pingora-proxy",
    "serde_json",
    "tracing",
    "rusqlite",
    "hyper",
    "http",
    "axum",
    "rand",
];

/// Functions that are one table and nothing else: file, name, what the table holds.
const TABLES: &[(&str, &str, &str)] = &[(
    "gateway/src/edge/head/tests.rs",
    "bad",
    "heads and what is wrong with them",
)];

/// File and folder names that say nothing.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "common", "manager", "helper", "helpers", "handler", "handlers", "misc",
    "types",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_path_buf()
}

/// Every Rust file of our crates, product and tests.
fn rust_files() -> Vec<Source> {
    let mut files = Vec::new();
    for (krate, _) in DIRECTIONS {
        collect(&root().join(krate), &mut files);
    }
    assert!(
        files.len() > 10,
        "the walk found {} files only",
        files.len()
    );
    files.sort();
    files
        .into_iter()
        .map(|path| Source::read(&root(), &path))
        .collect()
}

/// Rust files of the product: no tests of any kind.
fn product_files() -> Vec<Source> {
    rust_files()
        .into_iter()
        .filter(|source| !source.is_test())
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            // `gen` is what `proto/tests/bootstrap.rs` makes.
            let skipped = matches!(name, "target" | "node_modules" | ".cache" | "gen");
            if !skipped && !name.starts_with('.') {
                collect(&path, files);
            }
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
}

/// Fails with every finding at once.
fn none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Lines of product code that contain one of `needles`, less the files that may.
fn uses(needles: &[&str], allowed: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in product_files() {
        if allowed
            .iter()
            .any(|(path, _reason)| source.path.starts_with(path))
        {
            continue;
        }
        for (number, line) in source.product_lines() {
            if let Some(needle) = needles.iter().find(|needle| line.contains(**needle)) {
                findings.push(format!("{}:{number}: {needle}", source.path));
            }
        }
    }
    findings
}

#[test]
fn files_are_short() {
    let findings = rust_files()
        .iter()
        .filter(|source| source.lines().count() > FILE_LINES)
        .map(|source| format!("{}: {} lines", source.path, source.lines().count()))
        .collect();
    none("a file has at most 600 lines", findings);
}

#[test]
fn functions_are_short() {
    let mut findings = Vec::new();
    for source in rust_files() {
        for function in functions(&source.code) {
            let table = TABLES
                .iter()
                .any(|(path, name, _reason)| source.path == *path && function.name == *name);
            let limit = if source.is_test() {
                TEST_FUNCTION_LINES
            } else {
                FUNCTION_LINES
            };
            if function.lines > limit && !table {
                let (name, lines) = (&function.name, function.lines);
                findings.push(format!(
                    "{}:{}: fn {name}: {lines} lines",
                    source.path, function.line
                ));
            }
        }
    }
    none("a function has at most 70 lines", findings);
}

#[test]
fn inline_tests_are_short() {
    let findings = rust_files()
        .iter()
        .filter(|source| source.inline_test_lines() > INLINE_TEST_LINES)
        .map(|source| format!("{}: {} lines", source.path, source.inline_test_lines()))
        .collect();
    none("tests over 100 lines stand in a sibling tests.rs", findings);
}

#[test]
fn modules_are_folders_with_mod_rs() {
    let mut findings = Vec::new();
    for source in rust_files() {
        let path = root().join(&source.path);
        if path.with_extension("").is_dir() && !source.path.ends_with("mod.rs") {
            findings.push(source.path.clone());
        }
    }
    none(
        "a module with files of its own is foo/mod.rs, not foo.rs beside foo/",
        findings,
    );
}

#[test]
fn names_say_something() {
    let mut findings = Vec::new();
    for source in rust_files() {
        let path = Path::new(&source.path).with_extension("");
        for part in path
            .components()
            .filter_map(|part| part.as_os_str().to_str())
        {
            if EMPTY_NAMES.contains(&part) {
                findings.push(source.path.clone());
            }
        }
    }
    none(
        "no file is called utils, common, manager, helper, handler, types or misc",
        findings,
    );
}

#[test]
fn product_code_does_not_unwrap() {
    none("no unwrap() outside tests", uses(&[".unwrap()"], &[]));
}

#[test]
fn accessors_have_no_get_prefix() {
    let mut findings = Vec::new();
    let pingora = "gateway/src/edge/stream.rs"; // implements Pingora's traits
    for source in product_files()
        .iter()
        .filter(|source| source.path != pingora)
    {
        for function in functions(&source.code)
            .iter()
            .filter(|f| f.name.starts_with("get_"))
        {
            findings.push(format!(
                "{}:{}: fn {}",
                source.path, function.line, function.name
            ));
        }
    }
    none("no get_ prefix", findings);
}

#[test]
fn nothing_is_unbounded_or_read_write_locked() {
    let findings = uses(
        &[
            "RwLock",
            "unbounded_channel",
            "mpsc::channel()",
            "unbounded(",
        ],
        &[],
    );
    none("bounded channels and no RwLock", findings);
}

#[test]
fn environment_is_read_in_few_places() {
    let allowed = [
        ("gateway/src/config/", "resolves env. references"),
        ("gateway/src/main.rs", "the command line and its variables"),
        ("gateway/src/startup/", "wiring"),
        ("gateway/src/telemetry/mod.rs", "the filter of the log"),
        ("loadtest/", "a tool of its own"),
        ("cluster/examples/", "tools of the load tests"),
    ];
    none(
        "std::env is read in configuration and at the start only",
        uses(&["std::env", "env::var(", "env::vars("], &allowed),
    );
}

#[test]
fn policy_reads_no_clock_and_does_no_io() {
    let needles = [
        "SystemTime",
        "Instant::now",
        "std::fs",
        "std::net",
        "async fn",
        "std::thread",
        "println!",
    ];
    let findings = uses(
        &needles,
        &[
            ("cluster/", ""),
            ("gateway/", ""),
            ("loadtest/", ""),
            ("proto/", ""),
        ],
    );
    none("policy is pure: same inputs, same verdict", findings);
}

#[test]
fn wall_clock_is_read_in_one_place() {
    let allowed = [
        ("gateway/src/clock.rs", "the system clock"),
        ("loadtest/", "stamps in answers of the mock provider"),
    ];
    none(
        "only clock.rs reads the wall clock",
        uses(&["SystemTime::now"], &allowed),
    );
}

#[test]
fn sql_stays_in_the_store() {
    let needles = ["rusqlite", "SELECT ", "INSERT INTO"];
    none(
        "SQL lives in cluster/src/store only",
        uses(&needles, &[("cluster/src/store", "the store")]),
    );
}

#[test]
fn libraries_do_not_print() {
    let allowed = [
        (
            "gateway/src/main.rs",
            "prints the findings of check and the schema",
        ),
        ("gateway/src/startup/", "says why the node does not start"),
        ("loadtest/", "a command line tool"),
    ];
    none(
        "libraries log through tracing",
        uses(&["println!", "eprintln!", "dbg!("], &allowed),
    );
}

#[test]
fn nothing_is_left_for_later() {
    let mut findings = Vec::new();
    for source in rust_files()
        .iter()
        .filter(|source| !source.path.ends_with("it/tidy.rs"))
    {
        for (number, line) in source.lines().enumerate() {
            if ["TODO", "FIXME", "XXX"]
                .iter()
                .any(|word| line.contains(word))
            {
                findings.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none("no TODO, FIXME or XXX", findings);
}

#[test]
fn every_module_says_what_it_promises() {
    let findings = product_files()
        .iter()
        .filter(|source| source.path != "gateway/src/main.rs" || source.lines().count() > 10)
        .filter(|source| {
            !source
                .lines()
                .next()
                .is_some_and(|line| line.starts_with("//!"))
        })
        .map(|source| source.path.clone())
        .collect();
    none("a file opens with a //! header", findings);
}

#[test]
fn tests_do_not_sleep() {
    let allowed = [
        (
            "gateway/tests/it/harness/wait.rs",
            "the one polling loop, with a deadline",
        ),
        (
            "gateway/tests/it/harness/fault.rs",
            "a slow network is what it makes",
        ),
        ("gateway/tests/it/tidy.rs", "names what it forbids"),
    ];
    let mut findings = Vec::new();
    for source in rust_files() {
        if allowed.iter().any(|(path, _reason)| source.path == *path) {
            continue;
        }
        for (number, line) in source.test_lines() {
            if line.contains("thread::sleep(") || line.contains("time::sleep(") {
                findings.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    none("tests wait for a condition, never for a time", findings);
}

#[test]
fn main_and_the_request_phases_stay_thin() {
    let main = fs::read_to_string(root().join("gateway/src/main.rs")).expect("main.rs");
    assert!(
        main.lines().count() < 150,
        "main.rs: arguments, then the library"
    );
}

/// `[dependencies]` and `[dev-dependencies]` of one manifest: name -> section.
fn dependencies(krate: &str) -> BTreeMap<String, String> {
    let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
    let mut section = String::new();
    let mut found = BTreeMap::new();
    for line in manifest.lines() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_string();
        } else if section.ends_with("dependencies")
            && let Some(name) = line
                .split(['=', '.', ' '])
                .next()
                .filter(|name| !name.is_empty())
        {
            found.insert(name.to_string(), section.clone());
        }
    }
    found
}

#[test]
fn crates_depend_in_one_direction() {
    let mut findings = Vec::new();
    for (krate, allowed) in DIRECTIONS {
        for (name, section) in dependencies(krate) {
            let ours = DIRECTIONS.iter().any(|(other, _)| *other == name);
            if ours && !allowed.contains(&name.as_str()) {
                findings.push(format!("{krate} -> {name} in [{section}]"));
            }
            let normal = section == "dependencies";
            if *krate == "policy" && normal && NOT_IN_POLICY.contains(&name.as_str()) {
                findings.push(format!("policy -> {name}: policy is pure"));
            }
            if *krate == "cluster" && name.starts_with("pingora") {
                findings.push(format!("cluster -> {name}: HTTP belongs to the gateway"));
            }
        }
    }
    none(
        "gateway -> cluster -> {policy, proto}, gateway -> policy, nothing else",
        findings,
    );
}

/// What runs under simulation: time, chance and messages are handed in.
const SANS_IO: &[&str] = &[
    "cluster/src/cell/",
    "cluster/src/core/",
    "cluster/src/enforcement/",
    "cluster/src/leader",
    "cluster/src/membership/",
    "cluster/src/message/",
    "cluster/src/replication/",
];

#[test]
fn the_core_of_the_cluster_does_no_io() {
    let needles = [
        "tokio",
        "Instant",
        "SystemTime",
        "std::fs",
        "std::thread",
        "TcpStream",
        "UdpSocket",
        "rand::rng(",
        "async fn",
        "HashMap::new",
        "HashSet::new",
    ];
    let allowed = [("cluster/src/cell/slots.rs", "looked up, never walked")];
    let findings = uses(&needles, &allowed);
    let inside = |finding: &String| SANS_IO.iter().any(|folder| finding.starts_with(folder));
    none(
        "the same inputs and the same seed give the same outputs",
        findings.into_iter().filter(inside).collect(),
    );
    for folder in SANS_IO {
        let path = root().join(folder);
        let file = path.with_extension("rs");
        assert!(path.exists() || file.exists(), "{folder} is there");
    }
}

#[test]
fn crates_forbid_unsafe_code() {
    for (krate, _) in DIRECTIONS {
        let manifest =
            fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{krate} keeps the workspace's lints"
        );
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    assert!(
        workspace.contains("unsafe_code = \"forbid\""),
        "unsafe code is forbidden"
    );
}

#[test]
fn sample_configurations_are_valid() {
    let folder = root().join("conf");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).expect("conf/") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let output = std::process::Command::new(crate::harness::tyr_binary())
                .args(["check", "--conf"])
                .arg(&path)
                .output()
                .expect("tyr check runs");
            let errors = String::from_utf8_lossy(&output.stderr);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{}: {text}{errors}",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "conf/ holds samples");
}

#[test]
fn workspace_has_no_secret_and_no_address_of_a_registry() {
    let lock = root().join("gateway/tests/sdk/js/package-lock.json");
    let text = fs::read_to_string(lock).expect("the lock file");
    assert!(
        !text.contains("\"resolved\""),
        "the lock file names versions and checksums, not hosts"
    );
}
