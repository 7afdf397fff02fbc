//! Fields that a JSON body has twice.
//!
//! Promise: none is read by its last value in silence, as JSON's parsers do:
//! who reviewed the body may have read the first.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::PointerProblem;

/// Most problems that are told of one body.
const MOST: usize = 20;

/// Every field that stands twice in one object, at whatever depth. Empty also
/// for a body that is no JSON: whoever parses it says so.
pub(super) fn fields(body: &[u8]) -> Vec<PointerProblem> {
    let mut finder = Finder::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    match finder.deserialize(&mut json) {
        Ok(()) => finder.found,
        Err(_) => Vec::new(),
    }
}

#[derive(Default)]
struct Finder {
    /// Of the value that is looked at.
    pointer: String,
    found: Vec<PointerProblem>,
}

// === impl Finder ===

impl Finder {
    /// Looks at what stands one step down.
    fn below<T>(&mut self, step: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer
            .push_str(&step.replace('~', "~0").replace('/', "~1"));
        let looked = look(self);
        self.pointer.truncate(length);
        looked
    }

    fn report(&mut self) {
        let known = self.found.iter();
        let mut known = known.map(|problem| problem.pointer.as_str());
        if self.found.len() < MOST && known.all(|pointer| pointer != self.pointer) {
            self.found.push(PointerProblem {
                pointer: self.pointer.clone(),
                message: "stands twice: leave one of them out".to_owned(),
            });
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Finder {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Finder {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        let mut next = |finder: &mut Finder| {
            let step = index.to_string();
            index += 1;
            finder.below(&step, |finder| items.next_element_seed(finder))
        };
        while next(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            self.below(&name, |finder| {
                if seen.contains(&name) {
                    finder.report();
                }
                fields.next_value_seed(finder)
            })?;
            seen.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(body: &str) -> Vec<String> {
        let found = fields(body.as_bytes()).into_iter();
        found.map(|problem| problem.pointer).collect()
    }

    #[test]
    fn a_field_that_stands_twice_is_found_at_any_depth() {
        let cases: [(&str, &[&str]); 8] = [
            (r#"{"a": 1, "b": {"a": [null, true, -1, 1.5, "a"]}}"#, &[]),
            (r#"[{"a": 1}, {"a": 1}]"#, &[]),
            (r#"{"a": 1, "b": 2, "a": 1, "a": 1}"#, &["/a"]),
            (r#"{"a": {"b": 1, "b": 2}, "a": 1}"#, &["/a/b", "/a"]),
            (r#"{"a": [0, {"b": {}, "b": []}]}"#, &["/a/1/b"]),
            (r#"{"x/y~": {"": 1, "": 2}}"#, &["/x~1y~0/"]),
            (r#"{"a": 1, "\u0061": 2}"#, &["/a"]),
            (r#"{"a": 1, "a": 2"#, &[]),
        ];
        for (body, expected) in cases {
            assert_eq!(pointers(body), expected, "{body}");
        }
    }

    #[test]
    fn an_answer_stays_short() {
        let twice: Vec<String> = (0..99).map(|n| format!(r#""{n}": 0, "{n}": 0"#)).collect();
        let found = pointers(&format!("{{{}}}", twice.join(", ")));
        assert_eq!(found.len(), MOST);
        // Deeper than a parser goes: told by who parses it.
        assert!(pointers(&"[".repeat(100_000)).is_empty());
    }
}
