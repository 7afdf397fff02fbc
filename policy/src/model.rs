//! Providers and models as the configuration resolved them.

use std::sync::Arc;

use crate::price::Price;
use crate::scope::Scope;
use crate::token_ratio::TokenRatio;
use crate::virtual_key::AllowList;

/// The wire protocol of a provider or an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

/// Index of a provider in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(pub u16);

/// Index of a model in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub u32);

/// An LLM vendor.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// What it speaks.
    pub dialect: Dialect,
    /// Its credentials; the secrets themselves live with the upstream, at the
    /// same index.
    pub credentials: Vec<CredentialRef>,
    /// Extra attempts after the first.
    pub max_retries: u32,
    /// Where it is; `None` = of no region.
    pub region: Option<Arc<str>>,
    /// Its limits; their entity is its name.
    pub scope: Option<Arc<Scope>>,
}

/// A credential without its secret.
#[derive(Clone, Debug)]
pub struct CredentialRef {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// Share of the requests among its siblings.
    pub weight: u32,
    /// Models it may be used for.
    pub models: AllowList,
}

/// A model of one provider.
#[derive(Clone, Debug)]
pub struct Model {
    /// The name clients use.
    pub name: Arc<str>,
    /// Who serves it.
    pub provider: ProviderId,
    /// The name on the wire.
    pub upstream_name: Arc<str>,
    /// What it costs.
    pub price: Price,
    /// The longest answer, in tokens.
    pub max_output_tokens: Option<u64>,
    /// Tokens per byte of prompt, learnt as answers come in; shared by every
    /// snapshot that has this model.
    pub estimate: Arc<TokenRatio>,
    /// Its limits at this provider; their entity is `provider/name`.
    pub scope: Option<Arc<Scope>>,
}
