//! What a request may need of its limits, for each upstream choice.
//!
//! Promise: the same facts give the same demand, here and where the admin API
//! explains one; nothing is taken. A strict limit holds the most that the
//! request can use, an eventual one what it is likely to. State: none; what
//! models and answers taught is read from its owners.

use policy::{
    Candidate, Demand, Dialect, Model, ModelId, Predictor, Price, Snapshot, Tokens, Usage,
};

use super::tokenizer::PromptCount;
use crate::api::Endpoint;

/// Output that a request is first taken to have, for each answer.
pub(crate) const COLD_OUTPUT: u64 = 1024;

/// Longest answer of a model whose entry does not say (`max_output_tokens`).
pub(crate) const DEFAULT_MAX_OUTPUT: u64 = 131_072;

/// What is known of a request before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    /// What is called.
    pub endpoint: Endpoint,
    /// Bytes that stand for the prompt (`RequestFacts::prompt_bytes`).
    pub prompt_bytes: u64,
    /// The bound on each answer that the request states, in tokens.
    pub max_output_tokens: Option<u64>,
    /// Answers asked for at once, at least 1.
    pub answers: u64,
    /// The prompt, counted in OpenAI's vocabulary.
    pub counted: Option<PromptCount>,
}

impl Ask {
    /// Tokens of one answer at most.
    pub(crate) fn most_output(&self, model: &Model) -> u64 {
        if matches!(self.endpoint, Endpoint::Embeddings | Endpoint::CountTokens) {
            return 0;
        }
        let model_max = model.max_output_tokens.unwrap_or(DEFAULT_MAX_OUTPUT);
        self.max_output_tokens
            .map_or(model_max, |asked| asked.min(model_max))
    }

    /// Tokens that one answer is likely to have; `predicted` from earlier
    /// answers, if there were enough.
    pub(crate) fn likely_output(&self, model: &Model, predicted: Option<u64>) -> u64 {
        self.most_output(model)
            .min(predicted.unwrap_or(COLD_OUTPUT))
    }

    /// The prompt's tokens at most, as far as that can be known.
    fn strict_prompt(&self, model: &Model, dialect: Dialect) -> Tokens {
        match self.counted {
            Some(count) if dialect == Dialect::OpenAi => {
                let rest = model.estimate.estimate_strict(count.rest_bytes);
                Tokens(count.tokens).saturating_add(rest)
            }
            _ => model.estimate.estimate_strict(self.prompt_bytes),
        }
    }

    /// What the request may need of one model.
    pub(crate) fn demand(&self, model: &Model, dialect: Dialect, predicted: Option<u64>) -> Demand {
        let answers = self.answers.max(1);
        let mut demand = Demand {
            choices: answers,
            ..Demand::default()
        };
        // Counting tokens is free and takes nothing from a limit of tokens.
        if self.endpoint == Endpoint::CountTokens {
            return demand;
        }
        let prompt = model.estimate.estimate(self.prompt_bytes);
        let strict_prompt = self.strict_prompt(model, dialect);
        let usage = |prompt: Tokens, output: u64| Usage {
            input: prompt.0,
            output: output.saturating_mul(answers),
            ..Usage::default()
        };
        let likely = usage(prompt, self.likely_output(model, predicted));
        let most = usage(strict_prompt, self.most_output(model));
        let dearest = dearest(&model.price);
        demand.tokens = likely.limited();
        demand.cost = model.price.cost(&likely);
        demand.strict_tokens = most.limited();
        demand.strict_cost = dearest.cost(&most);
        demand.prompt_tokens = strict_prompt;
        demand.prompt_cost = dearest.cost(&usage(strict_prompt, 0));
        demand.output_price = dearest.output;
        demand
    }
}

/// One candidate for each of `models`, in their order, for the key named `key`.
pub(crate) fn candidates(
    snapshot: &Snapshot,
    predictor: &Predictor,
    key: &str,
    ask: &Ask,
    models: impl IntoIterator<Item = ModelId>,
) -> Vec<Candidate> {
    let candidate = |id: ModelId| {
        let model = snapshot.model(id);
        let dialect = snapshot.provider(model.provider).dialect;
        let predicted = predictor.predict(key, &model.name);
        Candidate {
            model: id,
            demand: ask.demand(model, dialect, predicted),
        }
    };
    models.into_iter().map(candidate).collect()
}

/// The most that a token of a prompt or of an answer can cost: a strict budget
/// holds for a prompt that is written to the dearest cache.
fn dearest(price: &Price) -> Price {
    let input = price.input.max(price.cache_write).max(price.cache_write_1h);
    let output = price.output.max(price.reasoning);
    Price {
        input,
        output,
        ..*price
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use policy::{NanoUsd, PerMillion, ProviderId, TokenRatio};

    use super::*;

    fn model() -> Model {
        Model {
            name: "m".into(),
            provider: ProviderId(0),
            upstream_name: "m".into(),
            price: Price {
                input: PerMillion(1_000_000),
                cache_write: PerMillion(2_000_000),
                output: PerMillion(4_000_000),
                reasoning: PerMillion(4_000_000),
                ..Price::default()
            },
            max_output_tokens: Some(5_000),
            estimate: Arc::new(TokenRatio::new()),
            scope: None,
        }
    }

    const ASK: Ask = Ask {
        endpoint: Endpoint::ChatCompletions,
        prompt_bytes: 400,
        max_output_tokens: None,
        answers: 2,
        counted: None,
    };

    #[test]
    fn an_eventual_limit_holds_the_likely_answer_and_a_strict_one_the_longest() {
        let demand = |ask: Ask, predicted| ask.demand(&model(), Dialect::OpenAi, predicted);
        let cold = demand(ASK, None);
        assert_eq!(cold.tokens, Tokens(100 + 2 * 1024));
        assert_eq!(cold.strict_tokens, Tokens(100 + 2 * 5_000));
        assert_eq!(cold.cost, NanoUsd(100 + 4 * 2 * 1024));
        assert_eq!(cold.prompt_cost, NanoUsd(200), "as if written to a cache");
        assert_eq!(demand(ASK, Some(30)).tokens, Tokens(160));
        assert_eq!(demand(ASK, Some(9_000)).tokens, Tokens(100 + 2 * 5_000));
        let bounded = Ask {
            max_output_tokens: Some(10),
            ..ASK
        };
        let bounded = demand(bounded, Some(30));
        assert_eq!(
            (bounded.tokens, bounded.strict_tokens),
            (Tokens(120), Tokens(120))
        );
    }

    #[test]
    fn a_count_replaces_the_strict_estimate_of_its_own_vocabulary() {
        let counted = Ask {
            counted: Some(PromptCount {
                tokens: 60,
                rest_bytes: 40,
            }),
            ..ASK
        };
        let prompt = |dialect| counted.demand(&model(), dialect, None).prompt_tokens;
        assert_eq!(prompt(Dialect::OpenAi), Tokens(70));
        assert_eq!(prompt(Dialect::Anthropic), Tokens(100));
    }

    #[test]
    fn some_calls_have_no_output_and_one_takes_nothing() {
        let of = |endpoint| {
            let ask = Ask { endpoint, ..ASK };
            ask.demand(&model(), Dialect::OpenAi, None)
        };
        assert_eq!(of(Endpoint::Embeddings).strict_tokens, Tokens(100));
        assert_eq!(of(Endpoint::CountTokens).strict_tokens, Tokens(0));
    }
}
