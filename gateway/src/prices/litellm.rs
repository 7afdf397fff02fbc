//! `model_prices_and_context_window.json`, the list that most of the field
//! keeps its prices in.
//!
//! Promise: an entry is taken whole or not at all. One that has no price for
//! input, or none for an output that costs, or costs nothing at all, says
//! nothing that a request could be charged by.

use std::collections::BTreeMap;

use policy::Price;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::amount::per_token;
use super::list::{ListError, Listed, NAME_MAX};

/// Kinds of models whose answers are no tokens, and cost nothing by them.
const WITHOUT_OUTPUT: [&str; 3] = ["embedding", "rerank", "moderation"];

/// One entry, as far as it is of use. Numbers stay text.
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(default)]
    litellm_provider: Option<String>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(borrow, default)]
    input_cost_per_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output_cost_per_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output_cost_per_reasoning_token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cache_read_input_token_cost: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cache_creation_input_token_cost: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cache_creation_input_token_cost_above_1hr: Option<&'a RawValue>,
    #[serde(borrow, default)]
    max_output_tokens: Option<&'a RawValue>,
}

/// The models of the list that have a price, by their names there.
///
/// # Errors
/// It is no such list, or none of its entries has a price.
pub(super) fn read(raw: &[u8]) -> Result<BTreeMap<Box<str>, Listed>, ListError> {
    let text = std::str::from_utf8(raw).map_err(|_| ListError::NotUtf8)?;
    let entries: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| ListError::NotAList(error.to_string()))?;
    let listed = entries.into_iter().filter_map(|(name, entry)| {
        if name.is_empty() || name.len() > NAME_MAX {
            return None;
        }
        let entry: Entry<'_> = serde_json::from_str(entry.get()).ok()?;
        Some((name.into_boxed_str(), listed(&entry)?))
    });
    let listed: BTreeMap<Box<str>, Listed> = listed.collect();
    match listed.is_empty() {
        true => Err(ListError::Empty),
        false => Ok(listed),
    }
}

fn listed(entry: &Entry<'_>) -> Option<Listed> {
    let vendor = entry.litellm_provider.as_deref()?;
    if vendor.is_empty() || vendor.len() > NAME_MAX {
        return None;
    }
    // A price that cannot be read must not become the default of another.
    let read = |raw: Option<&RawValue>| match raw {
        None => Ok(None),
        Some(raw) => per_token(unquoted(raw)).map(Some).ok_or(()),
    };
    let input = read(entry.input_cost_per_token).ok()??;
    let free_output = entry
        .mode
        .as_deref()
        .is_some_and(|mode| WITHOUT_OUTPUT.contains(&mode));
    let output = match read(entry.output_cost_per_token).ok()? {
        Some(output) => output,
        None if free_output => policy::PerMillion(0),
        None => return None,
    };
    if input.0 == 0 && output.0 == 0 {
        return None;
    }
    let cache_read = read(entry.cache_read_input_token_cost).ok()?;
    let cache_write = read(entry.cache_creation_input_token_cost).ok()?;
    let cache_write = cache_write.unwrap_or(input);
    let cache_write_1h = read(entry.cache_creation_input_token_cost_above_1hr).ok()?;
    let reasoning = read(entry.output_cost_per_reasoning_token).ok()?;
    let most = entry.max_output_tokens.map(unquoted);
    Some(Listed {
        vendor: vendor.into(),
        price: Price {
            input,
            cache_read: cache_read.unwrap_or(input),
            cache_write,
            cache_write_1h: cache_write_1h.unwrap_or(cache_write),
            output,
            reasoning: reasoning.unwrap_or(output),
        },
        max_output_tokens: most
            .and_then(|text| text.parse().ok())
            .filter(|most| *most > 0),
    })
}

/// A number that somebody wrote as a text counts as that number.
fn unquoted(raw: &RawValue) -> &str {
    let text = raw.get();
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text)
}
