//! Tests of `route`.

use super::*;

#[track_caller]
fn check(method: Method, path: &str, version: bool, target: Target, shape: Shape) {
    let mut headers = HeaderMap::new();
    if version {
        headers.insert("anthropic-version", http::HeaderValue::from_static("x"));
    }
    assert_eq!(
        route(&method, path, &headers),
        Route { target, shape },
        "{method} {path}"
    );
}

#[test]
#[rustfmt::skip]
fn paths() {
    use Endpoint::{ChatCompletions, CountTokens, Messages};
    use Shape::{Anthropic, OpenAi};
    let post = || Method::POST;
    let get = || Method::GET;
    check(post(), "/v1/chat/completions", false, Target::Call(ChatCompletions), OpenAi);
    check(post(), "/openai/v1/chat/completions", false, Target::Call(ChatCompletions), OpenAi);
    check(post(), "/v1/chat/completions", true, Target::Call(ChatCompletions), OpenAi);
    check(post(), "/v1/messages", false, Target::Call(Messages), Anthropic);
    check(post(), "/anthropic/v1/messages/count_tokens", false, Target::Call(CountTokens), Anthropic);
    check(get(), "/v1/models", false, Target::Models, OpenAi);
    check(get(), "/v1/models", true, Target::Models, Anthropic);
    check(get(), "/anthropic/v1/models", false, Target::Models, Anthropic);
    check(get(), "/v1/models/openai%2Fgpt-4o", false, Target::Model("openai/gpt-4o".into()), OpenAi);
    check(get(), "/v1/models/openai/gpt-4o", false, Target::Model("openai/gpt-4o".into()), OpenAi);
    check(get(), "/v1/usage", false, Target::Usage, OpenAi);
    check(Method::HEAD, "/anthropic/v1/usage", false, Target::Usage, Anthropic);
    check(post(), "/v1/usage", false, Target::WrongMethod { allow: "GET, HEAD" }, OpenAi);
    check(Method::HEAD, "/anthropic", false, Target::Root, Anthropic);
    check(get(), "/v1/messages", false, Target::WrongMethod { allow: "POST" }, Anthropic);
    check(post(), "/v1/models", false, Target::WrongMethod { allow: "GET, HEAD" }, OpenAi);
    check(get(), "/anthropic/x", false, Target::Unknown, Anthropic);
}

#[test]
fn a_path_that_would_need_normalising_names_nothing() {
    for path in [
        "/v1/models/",
        "//v1/models",
        "/v1/models/%zz",
        "/v1%2fmodels",
        "/v1/chat/completions/",
        "/openaiv1/models",
        "/v1/models;x",
    ] {
        check(Method::GET, path, false, Target::Unknown, Shape::OpenAi);
    }
}
