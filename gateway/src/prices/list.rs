//! What is kept of a price list, and how a model finds its price in it.

use std::collections::{BTreeMap, BTreeSet};

use policy::{PerMillion, Price, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::litellm;

/// Largest list as it is published, in bytes.
pub(super) const RAW_MAX: usize = 16 << 20;

/// Largest list as it is kept and told to other nodes, in bytes.
pub(super) const REDUCED_MAX: usize = cluster::OUTCOME_BYTES;

/// Longest name of a model or vendor, in bytes.
pub(super) const NAME_MAX: usize = 256;

/// The form that [`PriceList::to_bytes`] writes.
const FORM: u32 = 1;

/// Why a text is no list of prices; what was known before stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Not an object of models.
    #[error("it is no JSON object of models: {0}")]
    NotAList(String),
    /// None of its models has a price.
    #[error("no model in it has a price per token")]
    Empty,
    /// More than 4 MiB of prices.
    #[error("what is of use in it is larger than 4 MiB")]
    TooLarge,
    /// Written by a version that keeps lists in another form.
    #[error("it is kept in form {0}, which this version does not read")]
    OtherForm(u32),
}

/// One model of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Who sells it, by the list's word.
    pub vendor: Box<str>,
    /// What it costs.
    pub price: Price,
    /// The longest answer, in tokens.
    pub max_output_tokens: Option<u64>,
}

/// A model that is to have its price from the list.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name in the list, where the configuration says it.
    pub catalogue_name: Option<&'a str>,
    /// The provider's name.
    pub provider: &'a str,
    /// What the provider speaks.
    pub dialect: policy::Dialect,
    /// The name that is sent to the provider.
    pub upstream_name: &'a str,
}

/// Prices by the names of a list. The default knows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceList {
    models: BTreeMap<Box<str>, Listed>,
    vendors: BTreeSet<Box<str>>,
    source: [u8; 32],
    etag: Option<String>,
    fetched_at: Timestamp,
}

/// [`PriceList`] on disk and between nodes. Fields are added, never renamed.
#[derive(Deserialize, Serialize)]
struct Kept {
    form: u32,
    source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    fetched_at: u64,
    models: BTreeMap<Box<str>, KeptModel>,
}

#[derive(Deserialize, Serialize)]
struct KeptModel {
    vendor: Box<str>,
    /// Nano-dollars per million tokens: input, cache read, cache write, cache
    /// write for an hour, output, reasoning.
    price: [u64; 6],
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u64>,
}

// === impl PriceList ===

impl PriceList {
    /// Reads a list as it was published at `source` at `fetched_at`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn published(
        raw: &[u8],
        source: [u8; 32],
        etag: Option<String>,
        fetched_at: Timestamp,
    ) -> Result<Self, ListError> {
        let list = Self::new(litellm::read(raw)?, source, etag, fetched_at);
        match list.to_bytes().len() <= REDUCED_MAX {
            true => Ok(list),
            false => Err(ListError::TooLarge),
        }
    }

    fn new(
        models: BTreeMap<Box<str>, Listed>,
        source: [u8; 32],
        etag: Option<String>,
        fetched_at: Timestamp,
    ) -> Self {
        let vendors = models.values().map(|listed| listed.vendor.clone());
        Self {
            vendors: vendors.collect(),
            models,
            source,
            etag,
            fetched_at,
        }
    }

    /// Reads what [`PriceList::to_bytes`] wrote.
    ///
    /// # Errors
    /// Why it is nothing of the kind.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ListError> {
        if bytes.len() > REDUCED_MAX {
            return Err(ListError::TooLarge);
        }
        let kept: Kept = serde_json::from_slice(bytes)
            .map_err(|error| ListError::NotAList(error.to_string()))?;
        if kept.form != FORM {
            return Err(ListError::OtherForm(kept.form));
        }
        let mut source = [0; 32];
        hex::decode_to_slice(&kept.source, &mut source)
            .map_err(|error| ListError::NotAList(error.to_string()))?;
        let models = kept.models.into_iter();
        let models: BTreeMap<Box<str>, Listed> = models
            .map(|(name, model)| (name, Listed::from(model)))
            .filter(|(_, listed)| listed.price.is_known())
            .collect();
        if models.is_empty() {
            return Err(ListError::Empty);
        }
        let fetched_at = Timestamp(kept.fetched_at);
        Ok(Self::new(models, source, kept.etag, fetched_at))
    }

    /// As it is kept on disk and told to other nodes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let models = self.models.iter();
        let kept = Kept {
            form: FORM,
            source: hex::encode(self.source),
            etag: self.etag.clone(),
            fetched_at: self.fetched_at.0,
            models: models
                .map(|(name, listed)| (name.clone(), KeptModel::from(listed)))
                .collect(),
        };
        serde_json::to_vec(&kept).expect("texts and numbers under text keys are JSON")
    }

    /// The same, found unchanged at `fetched_at`.
    pub fn seen_again(&self, fetched_at: Timestamp) -> Self {
        Self {
            fetched_at,
            ..self.clone()
        }
    }

    /// How many models have a price.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether no list was ever read.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// When it was last found to be what the source says.
    pub fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }

    /// Whether another list of the same source is an older one.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        other.is_of(&self.source) && self.fetched_at > other.fetched_at && !self.is_empty()
    }

    /// What the server named this version of it, if it came from `source`.
    pub fn etag_of(&self, source: &[u8; 32]) -> Option<&str> {
        self.etag.as_deref().filter(|_| self.is_of(source))
    }

    /// Whether it came from there.
    pub fn is_of(&self, source: &[u8; 32]) -> bool {
        !self.is_empty() && self.source == *source
    }

    /// What the list says of a model: under the name that the configuration
    /// gives, else under `provider/model`, else under the model's name if the
    /// vendor is right. The vendor is the provider's name where the list knows
    /// that as one, else whose protocol it speaks.
    pub fn find(&self, wanted: &Wanted<'_>) -> Option<&Listed> {
        if let Some(name) = wanted.catalogue_name {
            return self.models.get(name);
        }
        let (provider, model) = (wanted.provider, wanted.upstream_name);
        let by_vendor = |vendor: &str| self.models.get(format!("{vendor}/{model}").as_str());
        if let Some(listed) = by_vendor(provider) {
            return Some(listed);
        }
        let vendor = match (self.vendors.contains(provider), wanted.dialect) {
            (true, _) => provider,
            (false, policy::Dialect::OpenAi) => "openai",
            (false, policy::Dialect::Anthropic) => "anthropic",
        };
        let bare = self.models.get(model);
        bare.filter(|listed| listed.is_of(vendor))
            .or_else(|| by_vendor(vendor).filter(|listed| listed.is_of(vendor)))
    }
}

/// A name for a source: lists of the same one share it.
pub(super) fn name_of(source: &str) -> [u8; 32] {
    Sha256::digest(source.as_bytes()).into()
}

// === impl Listed ===

impl Listed {
    /// Whether this vendor sells it. Completions of OpenAI's older kind are
    /// listed under a name of their own.
    fn is_of(&self, vendor: &str) -> bool {
        *self.vendor == *vendor || (vendor == "openai" && *self.vendor == *"text-completion-openai")
    }
}

impl From<KeptModel> for Listed {
    fn from(model: KeptModel) -> Self {
        let [
            input,
            cache_read,
            cache_write,
            cache_write_1h,
            output,
            reasoning,
        ] = model.price.map(PerMillion);
        Self {
            vendor: model.vendor,
            price: Price {
                input,
                cache_read,
                cache_write,
                cache_write_1h,
                output,
                reasoning,
            },
            max_output_tokens: model.max_output_tokens,
        }
    }
}

impl From<&Listed> for KeptModel {
    fn from(listed: &Listed) -> Self {
        let price = &listed.price;
        let all = [
            price.input,
            price.cache_read,
            price.cache_write,
            price.cache_write_1h,
            price.output,
            price.reasoning,
        ];
        Self {
            vendor: listed.vendor.clone(),
            price: all.map(|amount| amount.0),
            max_output_tokens: listed.max_output_tokens,
        }
    }
}
