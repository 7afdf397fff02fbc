//! The text of a body's strings, up to a bound.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// What was read of a body.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The strings, each with a line end.
    pub text: String,
    /// Bytes of strings beyond the bound.
    pub rest_bytes: u64,
    /// Numbers and words; a prompt may come as token numbers.
    pub scalars: u64,
}

/// Reads at most `most` bytes of text; `None` for a body that is nested too
/// deep for this reader.
pub(super) fn read(body: &[u8], most: usize) -> Option<Text> {
    let mut text = Text::default();
    let mut json = serde_json::Deserializer::from_slice(body);
    let reader = Reader {
        text: &mut text,
        most,
    };
    json.deserialize_any(reader).ok()?;
    Some(text)
}

struct Reader<'a> {
    text: &'a mut Text,
    most: usize,
}

impl Reader<'_> {
    fn again(&mut self) -> Reader<'_> {
        Reader {
            text: self.text,
            most: self.most,
        }
    }

    fn take(&mut self, string: &str) {
        let room = self.most.saturating_sub(self.text.text.len());
        let mut end = room.min(string.len());
        while !string.is_char_boundary(end) {
            end -= 1;
        }
        self.text.rest_bytes += (string.len() - end) as u64;
        if end > 0 {
            self.text.text.push_str(&string[..end]);
            self.text.text.push('\n');
        }
    }

    fn scalar<E>(&mut self) -> Result<(), E> {
        self.text.scalars += 1;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E: Error>(mut self, string: &str) -> Result<(), E> {
        self.take(string);
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: Error>(mut self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: Error>(mut self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.scalar()
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key_seed(self.again())?.is_some() {
            fields.next_value_seed(self.again())?;
        }
        Ok(())
    }
}
