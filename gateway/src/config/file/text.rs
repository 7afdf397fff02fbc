//! Values that are written as text but mean more: lengths of time, sizes,
//! periods, money, secrets, addresses.
//!
//! Promise: each has a pattern in the schema, so a document that the schema
//! accepts parses; each is shown as it was written, except secrets.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use policy::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::moment;

pub(crate) const DURATION: &str = "^[0-9]{1,9}(ms|s|m|h|d)$";
pub(crate) const SIZE: &str = "^[0-9]{1,9}(B|KiB|MiB|GiB)?$";
pub(crate) const EVERY: &str = "^[1-9][0-9]{0,7}(s|m|h|d|w|M|Q|Y)$";
pub(crate) const NAME: &str = "^[!-~]([ -~]{0,126}[!-~])?$";
pub(crate) const MODEL_NAME: &str = "^[!-~]{1,200}$";
pub(crate) const PROVIDER_NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";
pub(crate) const SHA256: &str = "^[0-9a-fA-F]{64}$";
pub(crate) const HEADER: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$";
pub(crate) const MOMENT: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$";

/// What money calls itself when it is read, so that a format which keeps the
/// text of numbers gives that.
pub(crate) const MONEY: &str = "Money";

/// What to write where one of the patterns above does not match.
pub(crate) fn expectation(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        DURATION => "a length of time such as `250ms`, `30s`, `5m` or `1h`",
        SIZE => "a size such as `512KiB` or `32MiB`",
        EVERY => "a period such as `30s`, `1m`, `1h`, `1d`, `1w`, `1M`, `1Q` or `1Y`",
        NAME => "1 to 128 printable ASCII characters without a space at either end",
        MODEL_NAME => "1 to 200 printable ASCII characters without spaces",
        PROVIDER_NAME => {
            "1 to 63 letters, digits, `.`, `_` or `-`, starting with a letter or digit"
        }
        SHA256 => "the SHA-256 of the key as 64 hexadecimal digits",
        HEADER => "the name of an HTTP header",
        MOMENT => "a time such as `2027-01-31T18:00:00Z`",
        _ => return None,
    })
}

/// Number and unit of `30s`.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// A length of time: `250ms`, `30s`, `5m`, `1h`, `2d`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Length {
    text: String,
    value: Duration,
}

impl Length {
    /// Reads `30s`; `None` when it is not a length of time.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let value = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3_600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        Some(Length {
            text: text.to_owned(),
            value,
        })
    }

    /// The length itself.
    pub fn get(&self) -> Duration {
        self.value
    }

    pub(super) fn seconds(seconds: u64) -> Self {
        Length {
            text: format!("{seconds}s"),
            value: Duration::from_secs(seconds),
        }
    }

    pub(super) fn millis(millis: u64) -> Self {
        Length {
            text: format!("{millis}ms"),
            value: Duration::from_millis(millis),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A number of bytes: `32MiB`, `512KiB`, `1000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    text: String,
    bytes: u64,
}

impl Size {
    /// Reads `32MiB`; `None` when it is not a size.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split(text)?;
        let scale = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        Some(Size {
            text: text.to_owned(),
            bytes: number.checked_mul(scale)?,
        })
    }

    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn kib(kib: u64) -> Self {
        Size {
            text: format!("{kib}KiB"),
            bytes: kib << 10,
        }
    }

    pub(super) fn mib(mib: u64) -> Self {
        Size {
            text: format!("{mib}MiB"),
            bytes: mib << 20,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Unit of an `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EveryUnit {
    /// `s`
    Second,
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`
    Day,
    /// `w`
    Week,
    /// `M`
    Month,
    /// `Q`
    Quarter,
    /// `Y`
    Year,
}

/// The period of a limit: `1m`, `1d`, `1M`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Every {
    text: String,
    /// How many of the unit, at least 1.
    pub count: u64,
    /// Of what.
    pub unit: EveryUnit,
}

impl Every {
    /// Reads `1m`; `None` when it is not a period.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = split(text)?;
        let unit = match unit {
            "s" => EveryUnit::Second,
            "m" => EveryUnit::Minute,
            "h" => EveryUnit::Hour,
            "d" => EveryUnit::Day,
            "w" => EveryUnit::Week,
            "M" => EveryUnit::Month,
            "Q" => EveryUnit::Quarter,
            "Y" => EveryUnit::Year,
            _ => return None,
        };
        (count > 0).then(|| Every {
            text: text.to_owned(),
            count,
            unit,
        })
    }

    /// As a fixed length; `None` for months, quarters and years.
    pub fn length(&self) -> Option<Duration> {
        let seconds = match self.unit {
            EveryUnit::Second => 1,
            EveryUnit::Minute => 60,
            EveryUnit::Hour => 3_600,
            EveryUnit::Day => 86_400,
            EveryUnit::Week => 604_800,
            EveryUnit::Month | EveryUnit::Quarter | EveryUnit::Year => return None,
        };
        self.count.checked_mul(seconds).map(Duration::from_secs)
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A point in time as it was written: `2027-01-31T18:00:00Z`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment(pub String);

impl Moment {
    /// That time as text.
    pub fn of(at: Timestamp) -> Self {
        Moment(at.to_rfc3339())
    }

    /// The time itself; `None` when the calendar has none such, or it is
    /// before 1970. A leap second counts as the first of the next minute; less
    /// than a millisecond is left out.
    pub fn at(&self) -> Option<Timestamp> {
        moment::parse(&self.0)
    }
}

/// US dollars as they were written, number or text; read exactly when resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Money(pub String);

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret, or a reference to one (`env.NAME`, `file.PATH`). Shown as `***`,
/// a reference as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub String);

impl SecretText {
    fn shown(&self) -> &str {
        if is_reference(&self.0) {
            &self.0
        } else {
            "***"
        }
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// An address, URL or path, or a reference to one (`env.NAME`, `file.PATH`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressText(pub String);

/// A label of a file, text or number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RevisionLabel(pub String);

impl RevisionLabel {
    /// The number, where the label is one: it can be compared with another's.
    pub fn number(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

/// Whether a text is `env.…` or `file.…`.
pub(crate) fn is_reference(text: &str) -> bool {
    text.starts_with("env.") || text.starts_with("file.")
}

// === serde and schema, the same for all ===

macro_rules! parsed_text {
    ($type:ident, $expected:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $type::parse(&text)
                    .ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&text), &$expected))
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text)
            }
        }
    };
}

macro_rules! plain_text {
    ($type:ident) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map($type)
            }
        }
    };
}

macro_rules! inline_schema {
    ($type:ident, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

parsed_text!(Length, "a length of time");
parsed_text!(Size, "a size");
parsed_text!(Every, "a period");
plain_text!(Moment);
plain_text!(SecretText);
plain_text!(AddressText);
plain_text!(RevisionLabel);

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A text, or a number where the format has no text of it.
        struct Scalar;

        impl<'de> Visitor<'de> for Scalar {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of US dollars")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                scalar: D,
            ) -> Result<Money, D::Error> {
                scalar.deserialize_any(self)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Money, E> {
                Ok(Money(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, whole: u64) -> Result<Money, E> {
                Ok(Money(whole.to_string()))
            }

            fn visit_i64<E: Error>(self, whole: i64) -> Result<Money, E> {
                Ok(Money(whole.to_string()))
            }

            /// A number of a JSON body. Its shortest text is what was written,
            /// up to 15 digits; who needs more writes a text.
            fn visit_f64<E: Error>(self, number: f64) -> Result<Money, E> {
                Ok(Money(number.to_string()))
            }
        }

        deserializer.deserialize_newtype_struct(MONEY, Scalar)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

inline_schema!(Length, {"type": "string", "pattern": DURATION});
inline_schema!(Size, {"type": ["string", "integer"], "pattern": SIZE, "minimum": 0, "maximum": 999_999_999_u64});
inline_schema!(Every, {"type": "string", "pattern": EVERY});
inline_schema!(Moment, {"type": "string", "pattern": MOMENT});
inline_schema!(Money, {"type": ["string", "number"]});
inline_schema!(SecretText, {"type": "string", "minLength": 1});
inline_schema!(AddressText, {"type": "string", "minLength": 1});
inline_schema!(RevisionLabel, {"type": ["string", "integer"], "minLength": 1, "minimum": 0});
