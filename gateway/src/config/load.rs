//! From a path to a typed document.
//!
//! Promise: one file, or all `*.yaml` of a folder as if they were one; a
//! section that stands in two of them is an error naming both places. Either
//! everything fits and there is a document, or every problem found is
//! returned.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::file::File;
use super::problem::{FieldPath, Problem};
use super::reference::{Environment, Written, written};
use super::tree::{Entry, Node, Value, parse};
use super::validate::validate;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Sections whose items may be spread over several files.
const LISTS: [&str; 6] = [
    "providers",
    "models",
    "customers",
    "teams",
    "virtual_keys",
    "routing_rules",
];

/// A configuration as written: typed, and with the place of every field.
#[derive(Clone)]
pub struct Document {
    /// The typed content.
    pub file: File,
    pub(super) tree: Node,
    /// Unknown fields, left out of the above so that its meaning can be judged
    /// in the same run; a document with any is refused.
    pub(super) pending: Vec<Problem>,
}

impl Document {
    /// A problem with the field at `path`.
    pub(super) fn problem(&self, path: &FieldPath, message: impl Into<String>) -> Problem {
        self.tree.problem(path, message)
    }

    /// The files that references of the document point to, as they are opened.
    pub(super) fn referenced(&self, environment: &Environment) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        self.tree.for_each_text(&mut |text| {
            if let Ok(Written::File(path)) = written(text) {
                found.insert(environment.locate(path));
            }
        });
        found
    }

    /// Whether the field at `path` was written.
    pub(super) fn has(&self, path: &FieldPath) -> bool {
        self.tree.has(path)
    }

    /// `file:line` of the field at `path`, or the entity of the API there.
    pub(super) fn place(&self, path: &FieldPath) -> String {
        match self.tree.place(path) {
            (entity, 0) => entity.display().to_string(),
            (file, line) => format!("{}:{line}", file.display()),
        }
    }

    /// Whether the field at `path` is of an entity that the API made.
    pub(super) fn is_of_api(&self, path: &FieldPath) -> bool {
        self.tree.place(path).1 == 0
    }
}

/// The tree holds secrets as they were written and is left out.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Reads and types the file, or the folder's `*.yaml`, at `path`. References
/// are not read.
pub fn load(path: &Path) -> Result<Document, Vec<Problem>> {
    let files = sources(path).map_err(|error| vec![unreadable(path, &error)])?;
    if files.is_empty() {
        let none = io::Error::other("the folder has no *.yaml file");
        return Err(vec![unreadable(path, &none)]);
    }
    let mut texts = Vec::with_capacity(files.len());
    let mut problems = Vec::new();
    for file in files {
        match read(&file) {
            Ok(text) => texts.push((file, text)),
            Err(error) => problems.push(unreadable(&file, &error)),
        }
    }
    match parse_all(&texts) {
        Ok(_) if !problems.is_empty() => Err(problems),
        Ok(document) => Ok(document),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

/// Types texts that stand for files of these names.
pub fn parse_all(texts: &[(PathBuf, String)]) -> Result<Document, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut roots = Vec::new();
    for (file, text) in texts {
        let file: Arc<Path> = Arc::from(file.as_path());
        match parse(&file, text) {
            Ok(root) => roots.push(root),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut tree = merge(roots)?;
    let verdict = validate(&tree);
    let pending = verdict.problems;
    match verdict.unknown {
        None => return Err(pending),
        Some(unknown) => unknown.iter().for_each(|path| tree.remove(path)),
    }
    match File::deserialize(&tree) {
        Ok(file) => Ok(Document {
            file,
            tree,
            pending,
        }),
        Err(error) => {
            let (file, line) = error
                .place
                .unwrap_or_else(|| (tree.file.to_path_buf(), tree.line));
            Err(vec![Problem {
                file,
                line,
                path: String::new(),
                message: error.message,
            }])
        }
    }
}

/// The file itself, or the folder's `*.yaml` by name. A link to a file counts,
/// as mounted config maps are made of them.
pub(super) fn sources(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let yaml = file
            .extension()
            .is_some_and(|extension| extension == "yaml");
        let hidden = file
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if yaml && !hidden && fs::metadata(&file)?.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// A fingerprint of all the files' names and contents.
pub(super) fn fingerprint<'a>(files: impl Iterator<Item = &'a Path>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in files {
        let content = match bytes(file) {
            Ok(content) => content,
            Err(error) => error.kind().to_string().into_bytes(),
        };
        let name = file.as_os_str().as_encoded_bytes();
        for part in [name, content.as_slice()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}

/// A file's content, when it is not absurdly large.
pub(super) fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(file)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_FILE {
        return Err(io::Error::other("larger than 64 MiB"));
    }
    fs::read(file)
}

fn read(file: &Path) -> io::Result<String> {
    String::from_utf8(bytes(file)?).map_err(|_| io::Error::other("not UTF-8"))
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem {
        file: path.to_path_buf(),
        line: 0,
        path: String::new(),
        message: format!("cannot be read: {error}"),
    }
}

/// Joins the files' documents into one.
fn merge(roots: Vec<Node>) -> Result<Node, Vec<Problem>> {
    let mut roots = roots.into_iter();
    let Some(mut merged) = roots.next() else {
        return Err(Vec::new());
    };
    let mut problems = Vec::new();
    for root in roots {
        let Value::Map(entries) = root.value else {
            let path = FieldPath::root();
            problems.push(root.problem(&path, "expected a mapping of sections"));
            continue;
        };
        for entry in entries {
            if let Err(problem) = join(&mut merged, entry) {
                problems.push(problem);
            }
        }
    }
    if problems.is_empty() {
        Ok(merged)
    } else {
        Err(problems)
    }
}

/// Adds one section of a further file.
fn join(merged: &mut Node, entry: Entry) -> Result<(), Problem> {
    let Value::Map(sections) = &mut merged.value else {
        let path = FieldPath::root();
        return Err(merged.problem(&path, "expected a mapping of sections"));
    };
    let Some(earlier) = sections.iter_mut().find(|known| known.key == entry.key) else {
        sections.push(entry);
        return Ok(());
    };
    match (&mut earlier.node.value, entry.node.value) {
        (Value::List(items), Value::List(more)) if LISTS.contains(&entry.key.as_str()) => {
            items.extend(more);
            Ok(())
        }
        // Each file may say which format it is written in.
        (Value::Number(one), Value::Number(other)) if entry.key == "version" && *one == other => {
            Ok(())
        }
        _ => Err(Problem {
            file: entry.node.file.to_path_buf(),
            line: entry.line,
            message: format!(
                "`{}` already stands in {}:{}",
                entry.key,
                earlier.node.file.display(),
                earlier.line
            ),
            path: entry.key,
        }),
    }
}
