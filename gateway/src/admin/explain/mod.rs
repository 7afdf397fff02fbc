//! `POST /api/explain`: what would happen to a request.
//!
//! Promise: the decision is made by the functions that decide on the path of a
//! request, on the configuration and the counts of this moment; nothing is
//! sent, taken or counted.

mod answer;

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use answer::{
    ChoiceShown, DemandShown, Explanation, JudgedLimit, KeyShown, RefusalShown, RuleShown,
    SkippedShown,
};

pub(crate) use super::standing::{amount, dollars};

use super::Shared;
use super::answer::Failure;
use super::entities::{parse, problem};

/// The request that is asked about.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The name of the virtual key.
    pub key: String,
    /// The model as a client would name it.
    pub model: String,
    /// Its path, such as `/v1/chat/completions`, or its name, such as
    /// `messages`; default: `chat_completions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Headers that routing rules look at.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Query parameters that routing rules look at.
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// Most tokens of an answer, as the request's body would say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// Bytes of text of the prompt; default: none.
    #[serde(default)]
    pub prompt_bytes: u64,
    /// Answers asked for at once (`n`); default: 1.
    #[serde(default = "one")]
    pub answers: u64,
    /// The end user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether the answer would be a stream.
    #[serde(default)]
    pub stream: bool,
}

pub(super) async fn run(
    State(shared): State<Shared>,
    body: Bytes,
) -> Result<Json<Explanation>, Failure> {
    let mut question: Question = parse(&body)?;
    if let Some(user) = &question.user {
        let name = crate::users::possible(user);
        let name = name.map_err(|wrong| problem("/user", &wrong.to_string()))?;
        question.user = Some(name.as_ref().to_owned());
    }
    let live = shared.state.live.load_full();
    let now = shared.state.clock.now();
    crate::proxy::explain(&live, &shared.state.predictor, &question, now)
        .map(Json)
        .map_err(|message| problem("/endpoint", &message))
}

fn one() -> u64 {
    1
}
