//! Rust files as the house rules see them: with comments, strings and the
//! bodies of tests told apart from product code, without a full parser.

use std::fs;
use std::path::Path;

/// One file of the repository.
pub struct Source {
    /// Path from the root of the repository, with `/`.
    pub path: String,
    /// The file as written.
    pub text: String,
    /// The same length and lines, with comments, strings and characters blanked.
    pub code: String,
}

impl Source {
    /// Reads `path`, named relative to `root`.
    pub fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a readable source file");
        let relative = path.strip_prefix(root).expect("a path below the root");
        let code = blank(&text);
        Self {
            path: relative.to_string_lossy().replace('\\', "/"),
            text,
            code,
        }
    }

    /// True for a file that holds only tests or what tests use.
    pub fn is_test(&self) -> bool {
        self.path.contains("/tests/")
            || self.path.ends_with("tests.rs")
            || self.path.ends_with("/testing.rs")
            || self.path.contains("/benches/")
    }

    /// The lines as written.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }

    /// Line numbers (from 1) and code of everything outside `#[cfg(test)]`.
    pub fn product_lines(&self) -> Vec<(usize, &str)> {
        let marks = self.test_marks();
        self.code
            .lines()
            .enumerate()
            .filter(|(i, _)| !marks[*i])
            .map(|(i, l)| (i + 1, l))
            .collect()
    }

    /// Line numbers (from 1) and code of tests: whole test files, or inline modules.
    pub fn test_lines(&self) -> Vec<(usize, &str)> {
        let marks = self.test_marks();
        let whole = self.is_test();
        self.code
            .lines()
            .enumerate()
            .filter(|(i, _)| whole || marks[*i])
            .map(|(i, l)| (i + 1, l))
            .collect()
    }

    /// How many lines stand inside `#[cfg(test)] mod … { … }`.
    pub fn inline_test_lines(&self) -> usize {
        self.test_marks().iter().filter(|marked| **marked).count()
    }

    /// For each line: does it belong to an item under `#[cfg(test)]`?
    fn test_marks(&self) -> Vec<bool> {
        let lines: Vec<&str> = self.code.lines().collect();
        let mut marks = vec![false; lines.len()];
        let mut at = 0;
        while at < lines.len() {
            if lines[at].trim_start().starts_with("#[cfg(test)]") {
                let end = item_end(&lines, at);
                marks[at..=end].fill(true);
                at = end;
            }
            at += 1;
        }
        marks
    }
}

/// The last line of the item that starts at `start`: its closing brace, or its `;`.
fn item_end(lines: &[&str], start: usize) -> usize {
    let mut depth = 0usize;
    for (number, line) in lines.iter().enumerate().skip(start) {
        for letter in line.chars() {
            match letter {
                '{' => depth += 1,
                '}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return number;
                    }
                }
                ';' if depth == 0 => return number,
                _ => {}
            }
        }
    }
    lines.len() - 1
}

/// One function with a body.
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its `fn`, from 1.
    pub line: usize,
    /// Lines from `fn` to its closing brace, both counted.
    pub lines: usize,
}

/// Every function with a body in blanked code, nested ones too.
pub fn functions(code: &str) -> Vec<Function> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(at) = function_keyword(line) else {
            continue;
        };
        let name: String = line[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if name.is_empty() {
            continue; // a type such as `fn(u32)`
        }
        let mut rest: Vec<&str> = vec![&line[at..]];
        rest.extend(&lines[number + 1..]);
        let end = item_end(&rest, 0);
        found.push(Function {
            name,
            line: number + 1,
            lines: end + 1,
        });
    }
    found
}

/// Where `fn ` stands as a word of its own.
fn function_keyword(line: &str) -> Option<usize> {
    let at = line.find("fn ")?;
    let before = line[..at].chars().next_back();
    before
        .is_none_or(|letter| letter == ' ' || letter == '(')
        .then_some(at)
}

/// Blanks comments, strings and character literals, keeping every line break.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole characters were blanked")
}

/// The end of the comment or literal that starts at `at`; `at` when none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => at + block_comment(rest),
        [b'"', ..] => at + quoted(rest),
        [b'r', b'"' | b'#', ..] if !word_before => at + raw_string(rest),
        [b'b', b'r', b'"' | b'#', ..] if !word_before => at + 1 + raw_string(&rest[1..]),
        [b'\'', b'\\', ..] => {
            at + 2
                + rest[2..]
                    .iter()
                    .skip(1)
                    .position(|b| *b == b'\'')
                    .map_or(1, |p| p + 2)
        }
        [b'\'', ..] => at + character(rest),
        _ => at,
    }
}

/// Length of a plain character literal; 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(8)]);
    let mut letters = text.char_indices();
    letters.next();
    match letters.next() {
        Some((length, '\'')) => length + 2,
        _ => 0,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of `r"…"` or `r#"…"#`; 0 when it is a raw identifier.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let body = &rest[2 + hashes..];
    body.windows(close.len())
        .position(|window| window == close)
        .map_or(rest.len(), |found| 2 + hashes + found + close.len())
}
