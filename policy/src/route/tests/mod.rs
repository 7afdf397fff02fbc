use std::sync::Arc;

use super::*;
use crate::testing::NOW;

mod percents;
mod regions;
mod rules;

use crate::model::{CredentialRef, Model, Provider, ProviderId};
use crate::price::Price;
use crate::snapshot::BaseParts;
use crate::token_ratio::TokenRatio;
use crate::virtual_key::{AllowList, Grant, KeyHash};

/// Providers: 0 azure, 1 openai, 2 claude (Anthropic's dialect).
/// Models: 0 azure/gpt, 1 openai/gpt, 2 openai/mini, 3 claude/sonnet,
/// 4 claude/gpt, 5 openai/org/free.
fn parts() -> BaseParts {
    let provider = |name: &str, dialect| Provider {
        name: name.into(),
        dialect,
        credentials: Vec::new(),
        max_retries: 2,
        region: None,
        scope: None,
    };
    let model = |provider, name: &str, max_output_tokens| Model {
        name: name.into(),
        provider: ProviderId(provider),
        upstream_name: name.into(),
        price: Price::FREE,
        max_output_tokens,
        estimate: Arc::new(TokenRatio::new()),
        scope: None,
    };
    BaseParts {
        providers: vec![
            provider("azure", Dialect::OpenAi),
            provider("openai", Dialect::OpenAi),
            provider("claude", Dialect::Anthropic),
        ],
        models: vec![
            model(0, "gpt", Some(100)),
            model(1, "gpt", Some(200)),
            model(1, "mini", None),
            model(2, "sonnet", Some(50)),
            model(2, "gpt", None),
            model(1, "org/free", None),
        ],
        aliases: vec![("fast".into(), vec![ModelId(3), ModelId(2), ModelId(0)])],
        ..BaseParts::default()
    }
}

fn snapshot() -> Snapshot {
    Snapshot::new(7, parts(), [key(&[])])
}

/// A request without headers, parameters or user.
fn call(model: &str, dialect: Dialect, random: u64) -> Call<'_> {
    Call {
        model,
        request_type: "chat",
        dialect,
        headers: &[],
        params: &[],
        user: None,
        user_scope: None,
        random,
        now: NOW,
    }
}

/// The providers' names, by their index.
const NAMES: [&str; 3] = ["azure", "openai", "claude"];

/// A key with grants of (provider, models, weight).
fn key(grants: &[(u16, &[&str], u32)]) -> VirtualKey {
    let grant = |(provider, models, weight): &(u16, &[&str], u32)| Grant {
        provider: NAMES[usize::from(*provider)].into(),
        models: names(models),
        weight: *weight,
        scope: None,
    };
    VirtualKey {
        name: "demo".into(),
        hash: KeyHash::of(b"sk-demo"),
        retiring: Vec::new(),
        team: None,
        customer: None,
        grants: grants.iter().map(grant).collect(),
        scope: None,
        active: true,
        not_before: None,
        expires_at: None,
    }
}

fn names(names: &[&str]) -> AllowList {
    AllowList::from_names(names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
}

const ALL: &[&str] = &["*"];

#[test]
fn routes() {
    use Dialect::{Anthropic, OpenAi};
    use RouteRefusal::{ModelNotAllowed, NoCompatibleProvider};
    let all: &[(u16, &[&str], u32)] = &[(0, ALL, 1), (1, ALL, 3), (2, ALL, 1)];
    // A bare name: weighted, the rest as fallbacks, this dialect only.
    check(all, "gpt", OpenAi, 0, Ok(&[0, 1]));
    check(all, "gpt", OpenAi, 1, Ok(&[1, 0]));
    check(all, "gpt", OpenAi, 3, Ok(&[1, 0]));
    check(all, "gpt", OpenAi, 4, Ok(&[0, 1]));
    check(all, "gpt", Anthropic, 9, Ok(&[4]));
    check(&[(0, ALL, 0), (1, ALL, 1)], "gpt", OpenAi, 5, Ok(&[1, 0]));
    check(&[(0, ALL, 0), (1, ALL, 0)], "gpt", OpenAi, 5, Ok(&[0, 1]));
    check(&[(1, ALL, 1)], "gpt", OpenAi, 5, Ok(&[1]));
    // One provider by name; model names may contain slashes.
    check(all, "azure/gpt", OpenAi, 1, Ok(&[0]));
    check(all, "org/free", OpenAi, 1, Ok(&[5]));
    check(all, "openai/org/free", OpenAi, 1, Ok(&[5]));
    check(all, "claude/gpt", OpenAi, 1, Err(NoCompatibleProvider));
    check(&[(1, ALL, 1)], "azure/gpt", OpenAi, 1, Err(ModelNotAllowed));
}

#[test]
fn refusals_and_aliases() {
    use Dialect::{Anthropic, OpenAi};
    use RouteRefusal::{ModelNotAllowed, NoCompatibleProvider, UnknownModel};
    let all: &[(u16, &[&str], u32)] = &[(0, ALL, 1), (1, ALL, 3), (2, ALL, 1)];
    // An alias: its order, what is not allowed is skipped.
    check(all, "fast", OpenAi, 1, Ok(&[2, 0]));
    check(all, "fast", Anthropic, 1, Ok(&[3]));
    check(&[(0, ALL, 1)], "fast", OpenAi, 1, Ok(&[0]));
    check(
        &[(0, ALL, 1)],
        "fast",
        Anthropic,
        1,
        Err(NoCompatibleProvider),
    );
    check(
        &[(0, &["other"], 1)],
        "fast",
        OpenAi,
        1,
        Err(ModelNotAllowed),
    );
    // The allow-list goes first, then the dialect.
    check(all, "sonnet", OpenAi, 1, Err(NoCompatibleProvider));
    check(
        &[(2, &["gpt"], 1)],
        "sonnet",
        OpenAi,
        1,
        Err(ModelNotAllowed),
    );
    check(&[(1, &["mini"], 1)], "gpt", OpenAi, 1, Err(ModelNotAllowed));
    check(&[], "gpt", OpenAi, 1, Err(ModelNotAllowed));
    // Two grants of one provider add up.
    check(
        &[(1, &["mini"], 1), (1, &["gpt"], 1)],
        "gpt",
        OpenAi,
        1,
        Ok(&[1]),
    );
    // Names compare exactly.
    for unknown in [
        "GPT",
        "gpt ",
        "",
        "/",
        "openai/",
        "/gpt",
        "openai/sonnet",
        "*",
    ] {
        check(all, unknown, OpenAi, 1, Err(UnknownModel));
    }
}

#[track_caller]
fn check(
    grants: &[(u16, &[&str], u32)],
    requested: &str,
    dialect: Dialect,
    random: u64,
    expected: Result<&[u32], RouteRefusal>,
) {
    let found = route(&snapshot(), &key(grants), &call(requested, dialect, random));
    let expected = expected.map(|ids| Routed {
        choices: ids.iter().map(|id| Choice::of(ModelId(*id))).collect(),
        trace: Vec::new(),
        skipped: Vec::new(),
    });
    assert_eq!(found, expected, "{requested}");
}

#[test]
fn credentials_are_drawn_by_weight_and_tried_once() {
    let credential_of = |name: &str, weight, models: &[&str]| CredentialRef {
        name: name.into(),
        weight,
        models: names(models),
    };
    let provider = Provider {
        name: "openai".into(),
        dialect: Dialect::OpenAi,
        credentials: vec![
            credential_of("a", 1, ALL),
            credential_of("b", 2, ALL),
            credential_of("c", 5, &["gpt"]),
            credential_of("spare", 0, &["mini"]),
        ],
        max_retries: 2,
        region: None,
        scope: None,
    };
    let draw = |model, tried: &[usize], random| credential(&provider, model, None, tried, random);
    let drawn: Vec<_> = (0..8)
        .map(|random| draw("gpt", &[], random).unwrap())
        .collect();
    assert_eq!(drawn, [0, 1, 1, 2, 2, 2, 2, 2]);
    assert_eq!(draw("mini", &[], 3), Some(0));
    assert_eq!(draw("gpt", &[2], 1), Some(1));
    assert_eq!(draw("mini", &[0, 1], 7), Some(3));
    assert_eq!(draw("gpt", &[2, 1, 0], 7), Some(2));
    let only_gpt = Provider {
        credentials: provider.credentials[2..3].to_vec(),
        ..provider.clone()
    };
    assert_eq!(credential(&only_gpt, "mini", None, &[], 0), None);
    assert_eq!(credential(&only_gpt, "gpt", None, &[0], 9), Some(0));
    // A pinned one stands alone, without weight and when it was tried.
    let pinned = |name, model| credential(&provider, model, Some(name), &[1, 3], 6);
    assert_eq!(pinned("b", "gpt"), Some(1));
    assert_eq!(pinned("spare", "mini"), Some(3));
    assert_eq!(pinned("spare", "gpt"), None);
    assert_eq!(pinned("none", "gpt"), None);
}

#[test]
fn visible_models_are_sorted_and_allowed() {
    let shown = |grants: &[(u16, &[&str], u32)]| -> Vec<(String, String, Option<u64>)> {
        visible_models(&snapshot(), &key(grants))
            .into_iter()
            .map(|model| {
                (
                    model.name,
                    model.owned_by.to_string(),
                    model.max_output_tokens,
                )
            })
            .collect()
    };
    let row = |name: &str, owner: &str, most| (name.to_owned(), owner.to_owned(), most);
    assert_eq!(shown(&[]), []);
    assert_eq!(
        shown(&[(0, ALL, 1), (1, &["gpt", "mini"], 1)]),
        [
            row("fast", "openai,azure", Some(100)),
            row("gpt", "azure,openai", Some(200)),
            row("mini", "openai", None),
        ]
    );
    assert_eq!(shown(&[(2, &["gpt"], 1)]), [row("gpt", "claude", None)]);
}
