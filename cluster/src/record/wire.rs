//! The JSON form of the policy types inside a record.
//!
//! `policy` knows no serialisation, so its values are spelled out here. Field names are part of the
//! file format: add new ones with a default, never rename.

use policy::{Charge, NanoUsd, Timestamp, Usage};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) mod nano_usd {
    use super::*;

    pub(in crate::record) fn serialize<S: Serializer>(
        value: &NanoUsd,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.0)
    }

    pub(in crate::record) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<NanoUsd, D::Error> {
        u64::deserialize(deserializer).map(NanoUsd)
    }
}

pub(super) mod timestamp {
    use super::*;

    pub(in crate::record) fn serialize<S: Serializer>(
        value: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(value.0)
    }

    pub(in crate::record) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Timestamp, D::Error> {
        u64::deserialize(deserializer).map(Timestamp)
    }
}

pub(super) mod usage {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Usage")]
    struct Buckets {
        #[serde(default)]
        input: u64,
        #[serde(default)]
        cache_read: u64,
        #[serde(default)]
        cache_write: u64,
        #[serde(default)]
        cache_write_1h: u64,
        #[serde(default)]
        output: u64,
        #[serde(default)]
        reasoning: u64,
    }

    pub(in crate::record) fn serialize<S: Serializer>(
        value: &Usage,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Buckets::serialize(value, serializer)
    }

    pub(in crate::record) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Usage, D::Error> {
        Buckets::deserialize(deserializer)
    }
}

pub(in crate::record) mod charges {
    use super::*;

    #[derive(Serialize)]
    struct Addition<'a> {
        counter: &'a str,
        epoch: i64,
        amount: u64,
        expires_at_ms: u64,
    }

    #[derive(Deserialize)]
    struct OwnedAddition {
        counter: String,
        epoch: i64,
        amount: u64,
        expires_at_ms: u64,
    }

    pub(in crate::record) fn serialize<S: Serializer>(
        value: &[Charge],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter().map(|charge| Addition {
            counter: &charge.counter,
            epoch: charge.epoch,
            amount: charge.amount,
            expires_at_ms: charge.expires_at.0,
        }))
    }

    pub(in crate::record) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Charge>, D::Error> {
        let additions = Vec::<OwnedAddition>::deserialize(deserializer)?;
        Ok(additions
            .into_iter()
            .map(|addition| Charge {
                counter: addition.counter.into(),
                epoch: addition.epoch,
                amount: addition.amount,
                expires_at: Timestamp(addition.expires_at_ms),
            })
            .collect())
    }
}
