//! `catalogue`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{AddressText, Length};

/// A list of prices that somebody else keeps, for models with
/// `price: catalogue`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceCatalogue {
    /// Where it is: a URL, or the path of a file. Its form is that of LiteLLM's
    /// `model_prices_and_context_window.json`.
    pub source: AddressText,
    /// How often it is fetched, by one node for the whole cluster.
    #[serde(default = "a_day")]
    pub every: Length,
    /// Whether the URL may be at a loopback or private address.
    #[serde(default)]
    pub allow_private_addresses: bool,
}

fn a_day() -> Length {
    Length::parse("24h").expect("`24h` is a length of time")
}
