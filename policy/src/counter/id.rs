//! The identity of a counter and its stable text, a key of the database.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::sliding;
use crate::scope::{ScopeKind, Unit};
use crate::time::Timestamp;
use crate::window::{Period, WindowKind};

/// What makes two limits share a count. Amount, enforcement and order are no
/// part of it, so an edited amount keeps what was used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterId {
    /// The kind of entity.
    pub scope: ScopeKind,
    /// Its name.
    pub entity: Arc<str>,
    /// What is counted.
    pub unit: Unit,
    /// The window's length; `None` for requests in flight.
    pub period: Option<Period>,
    /// How the window moves.
    pub window: WindowKind,
    /// Tells limits apart that agree in all the rest.
    pub name: Option<Arc<str>>,
    /// Grows with each reset: a new generation counts from zero.
    pub generation: u32,
}

/// A text that `CounterId` does not write; whoever stored it was of another
/// version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the name of a counter")]
pub struct CounterIdError(pub String);

// === impl CounterId ===

impl CounterId {
    /// The same limit before any reset: what the admin API calls it.
    #[must_use]
    pub fn without_generation(&self) -> Self {
        Self {
            generation: 0,
            ..self.clone()
        }
    }

    /// The period or sub-window of `now`; 0 for requests in flight.
    #[must_use]
    pub fn epoch(&self, now: Timestamp) -> i64 {
        match (self.length(), self.window) {
            (None, _) => 0,
            (Some(period), WindowKind::Sliding | WindowKind::Smooth) => {
                sliding::index_of(now, sliding::sub_window_ms(period.longest()))
            }
            (Some(period), WindowKind::Fixed | WindowKind::Calendar) => period.epoch(now),
        }
    }

    /// When what was counted in `epoch` no longer counts; `None` for requests
    /// in flight, which no time ends.
    #[must_use]
    pub fn expires_at(&self, epoch: i64) -> Option<Timestamp> {
        let period = self.length()?;
        Some(match self.window {
            WindowKind::Sliding | WindowKind::Smooth => {
                sliding::leaves_at(epoch, sliding::sub_window_ms(period.longest()))
            }
            WindowKind::Fixed | WindowKind::Calendar => period.end(epoch),
        })
    }

    /// The window's length; `None` where only requests in flight count.
    pub(super) fn length(&self) -> Option<Period> {
        self.period.filter(|_| self.unit != Unit::Concurrent)
    }
}

/// Stands for the window's length where there is none.
const NO_PERIOD: &str = "-";

/// `virtual_key/demo/requests/1m/sliding`, with `#` and the generation if that
/// is not 0, and the name after one more slash if there is one; `%`, `/` and control characters in names are
/// percent-encoded.
impl fmt::Display for CounterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/", self.scope, escape(&self.entity), self.unit)?;
        match &self.period {
            Some(period) => f.write_str(&period.key_text())?,
            None => f.write_str(NO_PERIOD)?,
        }
        write!(f, "/{}", self.window)?;
        if self.generation > 0 {
            write!(f, "#{}", self.generation)?;
        }
        match &self.name {
            Some(name) => write!(f, "/{}", escape(name)),
            None => Ok(()),
        }
    }
}

impl FromStr for CounterId {
    type Err = CounterIdError;

    fn from_str(text: &str) -> Result<Self, CounterIdError> {
        read(text).ok_or_else(|| CounterIdError(text.to_owned()))
    }
}

fn read(text: &str) -> Option<CounterId> {
    let mut parts = text.split('/');
    let scope = ScopeKind::parse(parts.next()?)?;
    let entity = unescape(parts.next()?)?.into();
    let unit = Unit::parse(parts.next()?)?;
    let period = match parts.next()? {
        NO_PERIOD => None,
        period => Some(period.parse().ok()?),
    };
    let (window, generation) = window_and_generation(parts.next()?)?;
    let id = CounterId {
        scope,
        entity,
        unit,
        period,
        window,
        generation,
        name: match parts.next() {
            None => None,
            Some(name) => Some(unescape(name)?.into()),
        },
    };
    parts.next().is_none().then_some(id)
}

/// `sliding` or `sliding#2`; each has one spelling only.
fn window_and_generation(text: &str) -> Option<(WindowKind, u32)> {
    let Some((window, digits)) = text.split_once('#') else {
        return Some((WindowKind::parse(text)?, 0));
    };
    let plain = digits.starts_with(|first: char| matches!(first, '1'..='9'));
    let generation = digits.parse().ok().filter(|_| plain)?;
    Some((WindowKind::parse(window)?, generation))
}

fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for char in name.chars() {
        if char == '%' || char == '/' || char.is_ascii_control() {
            escaped.push_str(&format!("%{:02X}", u32::from(char)));
        } else {
            escaped.push(char);
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut name = pieces.next()?.to_owned();
    for piece in pieces {
        let code = u8::from_str_radix(piece.get(..2)?, 16).ok()?;
        if !code.is_ascii() {
            return None;
        }
        name.push(char::from(code));
        name.push_str(&piece[2..]);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts() {
        check("virtual_key/demo/requests/1m/sliding", "demo", None);
        check(
            "virtual_key/demo/requests/1m/sliding/burst",
            "demo",
            Some("burst"),
        );
        check(
            "virtual_key/a%2Fb%25/requests/1m/sliding/x%0Ay",
            "a/b%",
            Some("x\ny"),
        );
        check("virtual_key//requests/1m/sliding/", "", Some(""));
        check("virtual_key/ключ/requests/1m/sliding", "ключ", None);
    }

    #[track_caller]
    fn check(text: &str, entity: &str, name: Option<&str>) {
        let id = CounterId {
            scope: ScopeKind::VirtualKey,
            entity: entity.into(),
            unit: Unit::Requests,
            period: Some("1m".parse().unwrap()),
            window: WindowKind::Sliding,
            name: name.map(Into::into),
            generation: 0,
        };
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
    }

    #[test]
    fn foreign_texts_are_refused() {
        for text in [
            "",
            "virtual_key/demo",
            "key/demo/requests/1m/sliding",
            "virtual_key/demo/requests/1x/sliding",
            "virtual_key/demo/requests/1m/sliding/a/b",
            "virtual_key/demo/requests/1m/sliding#",
            "virtual_key/demo/requests/1m/sliding#0",
            "virtual_key/demo/requests/1m/sliding#02",
            "virtual_key/demo/requests/1m/sliding#+2",
            "virtual_key/demo/requests/1m/sliding#4294967296",
            "virtual_key/demo/requests/1m/sliding#1#1",
            "virtual_key/de%2/requests/1m/sliding",
            "virtual_key/de%é/requests/1m/sliding",
            "virtual_key/de%FF/requests/1m/sliding",
        ] {
            assert_eq!(text.parse::<CounterId>(), Err(CounterIdError(text.into())));
        }
    }

    proptest! {
        #[test]
        fn text_reads_back(entity in ".*", name in proptest::option::of(".*"), start in 1_u8..13, generation: u32) {
            for period in [None, Some(Period::Quarter { fiscal_start: start }), Some(Period::Day)] {
                let id = CounterId {
                    scope: ScopeKind::Team,
                    entity: entity.as_str().into(),
                    unit: Unit::Usd,
                    period,
                    window: WindowKind::Calendar,
                    name: name.as_deref().map(Into::into),
                    generation,
                };
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }
}
