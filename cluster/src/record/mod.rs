//! What one finished request used and cost, as it is kept for ever.
//!
//! A [`UsageRecord`] is a plain value: the gateway fills it once when a request is settled, the
//! journal writes it to a file, the store keeps it. Nobody changes it on the way. Its `request_id`
//! is the identity: the same record handed over twice is counted once.

mod json;
mod wire;

use std::fmt;
use std::str::FromStr;

use policy::{Charge, NanoUsd, Timestamp, Usage};
use serde::{Deserialize, Serialize};

pub(crate) use self::json::{append as append_json, append_charges};

/// Longest free text kept per field, in bytes. Some fields repeat what a client sent, and a client
/// may send a model name of many megabytes; the queue counts records, so each must be small.
const FIELD_BYTES: usize = 512;

/// One settled request: who asked, what served it, what it used, what was charged for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// UUID v7 in text form: unique, and in order of time.
    pub request_id: String,
    /// Name of the virtual key, never its value.
    pub key: String,
    pub team: Option<String>,
    pub customer: Option<String>,
    /// Who asked, as the client or its token said.
    pub user: Option<String>,
    /// Name of the routing rule that chose the target, when one did.
    pub rule: Option<String>,
    /// The model's name as the client wrote it.
    pub model_requested: String,
    /// The model that answered, when one did.
    pub model_served: Option<String>,
    pub provider: Option<String>,
    /// Name of the provider credential, never its value.
    pub credential: Option<String>,
    pub endpoint: String,
    pub stream: bool,
    /// Tokens, in disjoint buckets.
    #[serde(with = "wire::usage")]
    pub usage: Usage,
    /// Nano-dollars.
    #[serde(with = "wire::nano_usd", rename = "cost_nano_usd")]
    pub cost: NanoUsd,
    /// Where `usage` comes from.
    pub basis: Basis,
    /// HTTP status that the client saw.
    pub status: u16,
    #[serde(with = "wire::timestamp", rename = "started_at_ms")]
    pub started_at: Timestamp,
    /// Milliseconds from the start to the first byte for the client; absent when none was sent.
    pub first_byte_ms: Option<u64>,
    /// Milliseconds from the start to the end.
    pub duration_ms: u64,
    /// Upstream attempts made.
    pub attempts: u32,
    pub end: EndReason,
    /// The provider's own id of the request, for its support desk.
    pub upstream_request_id: Option<String>,
    /// What this request adds to settled counters. Applied exactly once, with the record itself.
    #[serde(with = "wire::charges")]
    pub charges: Vec<Charge>,
}

/// How the usage of a record is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The provider reported it.
    Reported,
    /// The answer ended early: estimated from what was relayed.
    PartialEstimate,
    /// Nothing was used.
    None,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The whole answer reached the client.
    Success,
    /// Refused by policy or as malformed; nothing was sent upstream.
    Refused,
    /// The upstream failed, or answered with an error.
    UpstreamError,
    /// The client left before the end.
    ClientGone,
    /// A time limit ran out.
    Timeout,
    /// Cut because the node shut down.
    Shutdown,
    /// A fault of ours.
    Panic,
}

impl UsageRecord {
    /// Cuts free text to what a record may carry, so that a full queue has a known size.
    pub(crate) fn bounded(mut self) -> Self {
        for field in [
            &mut self.request_id,
            &mut self.key,
            &mut self.model_requested,
            &mut self.endpoint,
        ] {
            cut(field);
        }
        let optional = [
            &mut self.team,
            &mut self.customer,
            &mut self.user,
            &mut self.rule,
            &mut self.model_served,
            &mut self.provider,
            &mut self.credential,
            &mut self.upstream_request_id,
        ];
        optional.into_iter().flatten().for_each(cut);
        self
    }
}

fn cut(text: &mut String) {
    if text.len() > FIELD_BYTES {
        text.truncate(text.floor_char_boundary(FIELD_BYTES));
        text.shrink_to_fit();
    }
}

/// The inverse of [`append_charges`].
pub(crate) fn charges_from_json(text: &str) -> Result<Vec<Charge>, serde_json::Error> {
    wire::charges::deserialize(&mut serde_json::Deserializer::from_str(text))
}

/// A stored word that names no variant of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{word}' is not a known {kind}")]
pub struct UnknownWord {
    kind: &'static str,
    word: String,
}

// === impl Basis ===

impl Basis {
    /// The word used in files, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::PartialEstimate => "partial_estimate",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Basis {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        [Self::Reported, Self::PartialEstimate, Self::None]
            .into_iter()
            .find(|basis| basis.as_str() == word)
            .ok_or_else(|| UnknownWord {
                kind: "basis",
                word: word.to_owned(),
            })
    }
}

// === impl EndReason ===

impl EndReason {
    /// Every variant, for tables of metrics and for parsing.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Refused,
        Self::UpstreamError,
        Self::ClientGone,
        Self::Timeout,
        Self::Shutdown,
        Self::Panic,
    ];

    /// The word used in files, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Refused => "refused",
            Self::UpstreamError => "upstream_error",
            Self::ClientGone => "client_gone",
            Self::Timeout => "timeout",
            Self::Shutdown => "shutdown",
            Self::Panic => "panic",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EndReason {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|end| end.as_str() == word)
            .ok_or_else(|| UnknownWord {
                kind: "end reason",
                word: word.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_the_json_form() {
        for end in EndReason::ALL {
            let json = serde_json::to_string(&end).unwrap();
            assert_eq!(json, format!("\"{end}\""));
            assert_eq!(end.as_str().parse(), Ok(end));
        }
        for basis in [Basis::Reported, Basis::PartialEstimate, Basis::None] {
            let json = serde_json::to_string(&basis).unwrap();
            assert_eq!(json, format!("\"{basis}\""));
            assert_eq!(basis.as_str().parse(), Ok(basis));
        }
        assert!("later".parse::<Basis>().is_err());
    }

    #[test]
    fn free_text_is_cut_at_a_character() {
        let mut record = crate::testing::record(1);
        record.model_requested = "é".repeat(FIELD_BYTES);
        record.team = Some("x".repeat(FIELD_BYTES + 1));
        let record = record.bounded();
        assert_eq!(record.model_requested.len(), FIELD_BYTES);
        assert_eq!(record.team.map(|team| team.len()), Some(FIELD_BYTES));
    }

    #[test]
    fn a_record_survives_its_json_form() {
        let record = crate::testing::record(7);
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(
            serde_json::from_str::<UsageRecord>(&json).unwrap(),
            record,
            "{json}"
        );
        let mut charges = Vec::new();
        append_charges(&record.charges, &mut charges);
        let charges = String::from_utf8(charges).unwrap();
        assert_eq!(charges_from_json(&charges).unwrap(), record.charges);
    }
}
