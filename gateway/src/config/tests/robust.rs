//! No text makes the reader panic.

use proptest::prelude::*;

use super::judge;

const SAMPLE: &str = include_str!("../../../../conf/tyr.yaml");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn truncated(at in 0..SAMPLE.len()) {
        let end = (0..=at).rev().find(|end| SAMPLE.is_char_boundary(*end)).unwrap_or(0);
        judge(&SAMPLE[..end]);
    }

    #[test]
    fn mutated(edits in prop::collection::vec((0..SAMPLE.len(), "[-a-z0-9:,\\[\\]{}\"'&*!|>#%@ \\n\\t.]{0,3}", 0_usize..4), 1..6)) {
        let mut text: Vec<char> = SAMPLE.chars().collect();
        for (at, insert, remove) in edits {
            let at = at.min(text.len());
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        judge(&text.into_iter().collect::<String>());
    }

    #[test]
    fn anything(text in "\\PC{0,200}") {
        judge(&text);
    }
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("version: {}{}", "[".repeat(70), "]".repeat(70));
    assert!(judge(&text).contains("nested deeper than 64 levels"));
    // The parser has a limit of its own, which a flood of brackets meets first.
    let text = format!("version: {}", "[".repeat(100_000));
    assert!(judge(&text).contains("not valid YAML"));
}

#[test]
fn a_million_aliases_are_not_expanded() {
    let mut text = "a: &a [x]\n".to_owned();
    for _ in 0..30 {
        text.push_str("b: [*a, *a, *a, *a, *a, *a, *a, *a]\n");
    }
    assert!(judge(&text).contains("aliases"));
}
