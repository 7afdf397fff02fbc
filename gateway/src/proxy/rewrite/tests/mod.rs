use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod prompt;

const DEPTH: usize = 64;

fn chat(body: &str) -> Result<RequestFacts<'_>, BodyProblem> {
    read_facts(body.as_bytes(), Endpoint::ChatCompletions, DEPTH)
}

fn sent(body: &str, endpoint: Endpoint, model: &str, ask_usage: bool) -> String {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let facts = read_facts(&body, endpoint, DEPTH).expect("a good body");
    let out = upstream_body(&body, &facts, model, ask_usage, None);
    String::from_utf8(out.to_vec()).expect("still UTF-8")
}

#[test]
fn reads_what_a_chat_request_asks_for() {
    let body = r#" {"messages":[{"role":"user","content":"hi \"model\": 1"}], "model" : "gpt-4o",
        "stream":true,"max_tokens":10,"max_completion_tokens":20,"n":3,"best_of":9,
        "stream_options":{"include_usage":true},"unknown":{"model":"x"}} "#;
    let facts = chat(body).expect("a good body");
    assert_eq!(facts.model, "gpt-4o");
    assert!(matches!(facts.model, Cow::Borrowed(_)));
    assert!(facts.stream && facts.include_usage);
    assert_eq!(facts.max_output_tokens, Some(20));
    assert_eq!(facts.choices_n, 3);
    assert!(facts.prompt_bytes > 100 && facts.prompt_bytes < body.len() as u64);
    assert_eq!(&body[facts.model_span.clone()], "\"gpt-4o\"");
    assert!(!facts.usage_is_ours(true));
    assert_eq!(facts.clone().into_owned(), facts);
}

#[test]
fn absent_null_and_negative_are_no_bound() {
    for value in ["null", "-1", "-99999999999999999999"] {
        let facts = read_facts(
            format!(r#"{{"model":"m","max_tokens":{value},"stream":null,"n":null}}"#).as_bytes(),
            Endpoint::Messages,
            DEPTH,
        )
        .map(RequestFacts::into_owned)
        .expect("a good body");
        assert_eq!(facts.max_output_tokens, None);
        assert!(!facts.stream);
        assert_eq!(facts.choices_n, 1);
    }
    let huge = chat(r#"{"model":"m","max_tokens":99999999999999999999,"n":0}"#).expect("good");
    assert_eq!(huge.max_output_tokens, Some(u64::MAX));
    assert_eq!(huge.choices_n, 1);
}

#[test]
fn each_endpoint_reads_its_own_fields() {
    let body = r#"{"model":"m","stream":true,"max_tokens":1,"max_completion_tokens":2,
        "max_output_tokens":3,"n":4,"best_of":5}"#;
    let read = |endpoint| {
        let facts = read_facts(body.as_bytes(), endpoint, DEPTH).expect("a good body");
        (facts.stream, facts.max_output_tokens, facts.choices_n)
    };
    assert_eq!(read(Endpoint::ChatCompletions), (true, Some(2), 4));
    assert_eq!(read(Endpoint::Completions), (true, Some(1), 5));
    assert_eq!(read(Endpoint::Responses), (true, Some(3), 1));
    assert_eq!(read(Endpoint::Messages), (true, Some(1), 1));
    assert_eq!(read(Endpoint::Embeddings), (false, None, 1));
    assert_eq!(read(Endpoint::CountTokens), (false, None, 1));
    // What means nothing to an endpoint is not judged.
    let odd = br#"{"model":"m","stream":"yes","max_tokens":"many","n":[],"stream_options":7}"#;
    assert!(read_facts(odd, Endpoint::Embeddings, DEPTH).is_ok());
}

#[test]
fn refusals_name_the_field() {
    let wrong = |body: &str| match chat(body).expect_err("must be refused") {
        BodyProblem::WrongType { field, .. } => field,
        other => panic!("{body}: {other:?}"),
    };
    assert_eq!(wrong(r#"{"model":7}"#), "model");
    assert_eq!(wrong(r#"{"model":null}"#), "model");
    assert_eq!(wrong(r#"{"model":["a"]}"#), "model");
    assert_eq!(wrong(r#"{"model":"\ud800"}"#), "model");
    assert_eq!(wrong(r#"{"model":"m","stream":"true"}"#), "stream");
    assert_eq!(wrong(r#"{"model":"m","stream":1}"#), "stream");
    assert_eq!(wrong(r#"{"model":"m","max_tokens":"5"}"#), "max_tokens");
    assert_eq!(wrong(r#"{"model":"m","max_tokens":1.5}"#), "max_tokens");
    assert_eq!(wrong(r#"{"model":"m","n":{}}"#), "n");
    let options = wrong(r#"{"model":"m","stream_options":[]}"#);
    assert_eq!(options, "stream_options");
    let flag = wrong(r#"{"model":"m","stream_options":{"include_usage":1}}"#);
    assert_eq!(flag, "stream_options.include_usage");
    assert_eq!(chat("{}"), Err(BodyProblem::MissingModel));
    assert_eq!(chat(r#"{"model":""}"#), Err(BodyProblem::MissingModel));
    assert_eq!(BodyProblem::MissingModel.param(), Some("model"));
}

#[test]
fn duplicates_are_refused_even_when_spelled_with_escapes() {
    let twice = |body: &str| match chat(body).expect_err("must be refused") {
        problem @ BodyProblem::DuplicateField { field } => {
            assert_eq!(problem.param(), Some(field));
            field
        }
        other => panic!("{body}: {other:?}"),
    };
    for field in KNOWN {
        assert_eq!(
            twice(&format!(r#"{{"{field}":1,"a":2,"{field}":1}}"#)),
            field
        );
    }
    assert_eq!(twice(r#"{"model":"a","mod\u0065l":"b"}"#), "model");
    let flags = r#"{"model":"m","stream_options":{"include_usage":true,"include_usage":false}}"#;
    assert_eq!(twice(flags), "stream_options.include_usage");
    // Fields that the gateway does not read are the upstream's business.
    assert!(chat(r#"{"model":"m","x":1,"x":2,"y":{"model":1,"model":2}}"#).is_ok());
}

#[test]
fn the_whole_body_must_be_one_json_object() {
    let broken = [
        "",
        "   ",
        "{",
        r#"{"model":"m""#,
        r#"{"model":"m"} x"#,
        r#"{"model":"m"}{}"#,
        r#"{"model":"m",}"#,
        r#"{"model":"m","a":tru}"#,
        r#"{"model":"m","a":01}"#,
        r#"{"model":"m","a":"\x"}"#,
        "{\"model\":\"m\",\"a\":\"\n\"}",
        "\u{feff}{\"model\":\"m\"}",
        "[1",
    ];
    for body in broken {
        let problem = chat(body).expect_err(body);
        assert!(matches!(problem, BodyProblem::NotJson { .. }), "{body}");
        assert_eq!(problem.param(), None);
    }
    for body in ["[]", r#"["m",true]"#, "\"model\"", "1", " null "] {
        assert_eq!(chat(body), Err(BodyProblem::NotAnObject), "{body}");
    }
    let latin1 = b"{\"model\":\"m\",\"a\":\"\xe9\"}";
    let refused = read_facts(latin1, Endpoint::ChatCompletions, DEPTH);
    assert_eq!(refused, Err(BodyProblem::NotUtf8));
}

#[test]
fn nesting_is_bounded_without_recursion() {
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"model":"m","text":"[[[[\"[[[[\\","a":{open}{close}}}"#)
    };
    let limit = BodyProblem::TooDeep { limit: 5 };
    let read = |body: &str| {
        read_facts(body.as_bytes(), Endpoint::Messages, 5).map(|facts| facts.choices_n)
    };
    assert_eq!(read(&nested(4)), Ok(1));
    assert_eq!(read(&nested(5)), Err(limit.clone()));
    assert_eq!(read(&nested(1_000_000)), Err(limit));
    assert!(read_facts(nested(900).as_bytes(), Endpoint::Messages, 1_000).is_ok());
}

#[test]
fn nothing_to_change_is_no_copy() {
    let body = Bytes::from_static(br#"{"model":"a","stream":true}"#);
    let facts = read_facts(&body, Endpoint::Messages, DEPTH).expect("a good body");
    assert_eq!(
        upstream_body(&body, &facts, "a", true, None).as_ptr(),
        body.as_ptr()
    );
    let facts = read_facts(&body, Endpoint::ChatCompletions, DEPTH).expect("a good body");
    assert_eq!(
        upstream_body(&body, &facts, "a", false, None).as_ptr(),
        body.as_ptr()
    );
}

#[test]
fn only_the_model_value_is_spliced() {
    let body = r#"{ "a":{"model":"x"},  "model" :  "gpt\u002d4o" , "b":1.50e1 }"#;
    let out = sent(body, Endpoint::Messages, "up/stream \"1\"\n", true);
    let expected = r#"{ "a":{"model":"x"},  "model" :  "up/stream \"1\"\u000a" , "b":1.50e1 }"#;
    assert_eq!(out, expected);
    // Escapes in the client's spelling of the same name stay.
    assert_eq!(sent(body, Endpoint::Messages, "gpt-4o", true), body);
    assert_eq!(chat(body).expect("a good body").model, "gpt-4o");
}

#[test]
fn usage_is_asked_for_in_every_shape_of_stream_options() {
    let cases = [
        (
            r#"{"model":"m","stream":true} "#,
            r#"{"model":"M","stream":true,"stream_options":{"include_usage":true}} "#,
        ),
        (
            r#"{"stream_options":{ },"stream":true,"model":"m"}"#,
            r#"{"stream_options":{ "include_usage":true},"stream":true,"model":"M"}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"x":{}}}"#,
            r#"{"model":"M","stream":true,"stream_options":{"x":{},"include_usage":true}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage": false ,"x":1}}"#,
            r#"{"model":"M","stream":true,"stream_options":{"include_usage": true ,"x":1}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":null}}"#,
            r#"{"model":"M","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":null}"#,
            r#"{"model":"M","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"model":"M","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ];
    for (body, expected) in cases {
        for endpoint in [Endpoint::ChatCompletions, Endpoint::Completions] {
            assert_eq!(sent(body, endpoint, "M", true), expected);
            let facts = read_facts(body.as_bytes(), endpoint, DEPTH).expect("a good body");
            assert_eq!(facts.usage_is_ours(true), !facts.include_usage);
            assert!(!facts.usage_is_ours(false));
        }
        let model_only = body.replace("\"m\"", "\"M\"");
        assert_eq!(
            sent(body, Endpoint::ChatCompletions, "M", false),
            model_only
        );
        if !body.contains("stream_options") {
            assert_eq!(sent(body, Endpoint::Responses, "M", true), model_only);
        }
        let unary = body.replace("\"stream\":true", "\"stream\":false");
        let expected = unary.replace("\"m\"", "\"M\"");
        assert_eq!(sent(&unary, Endpoint::ChatCompletions, "M", true), expected);
    }
}

/// Any JSON value that serde_json round-trips.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_options() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        Just(None),
        Just(Some(Value::Null)),
        Just(Some(json!({}))),
        any_value().prop_map(|value| Some(json!({ "x": value }))),
        prop::option::of(any::<bool>()).prop_map(|on| Some(json!({"include_usage": on, "z": 1}))),
    ]
}

proptest! {
    #[test]
    fn the_copy_differs_only_in_its_splices(
        others in prop::collection::btree_map("x.{0,6}", any_value(), 0..5),
        names in (".{1,12}", ".{1,12}"),
        options in any_options(),
        stream in any::<bool>(),
        pretty in any::<bool>(),
    ) {
        let mut object: serde_json::Map<String, Value> = others.into_iter().collect();
        object.insert("model".into(), names.0.clone().into());
        object.insert("stream".into(), stream.into());
        if let Some(options) = &options {
            object.insert("stream_options".into(), options.clone());
        }
        let mut value = Value::Object(object);
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let body = Bytes::from(text.expect("serialises"));
        let facts = read_facts(&body, Endpoint::ChatCompletions, DEPTH).expect("a good body");
        prop_assert_eq!(&facts.model, &names.0);
        let out = upstream_body(&body, &facts, &names.1, true, None);

        // The same value, except for the two fields.
        value["model"] = names.1.clone().into();
        if stream {
            if value.get("stream_options").is_none_or(Value::is_null) {
                value["stream_options"] = json!({});
            }
            value["stream_options"]["include_usage"] = true.into();
        }
        let parsed: Value = serde_json::from_slice(&out).expect("still JSON");
        prop_assert_eq!(parsed, value);

        // The same bytes around the model, and no more than one other splice.
        let span = facts.model_span.clone();
        let literal = fields::json_string(&names.1);
        let literal = if names.0 == names.1 { &body[span.clone()] } else { literal.as_bytes() };
        let expected = [&body[..span.start], literal, &body[span.end..]].concat();
        let same_start = expected.iter().zip(&out).take_while(|(a, b)| a == b).count();
        let same_end = expected.iter().rev().zip(out.iter().rev()).take_while(|(a, b)| a == b).count();
        prop_assert!(same_start + same_end + 5 >= expected.len());
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_facts(&body, Endpoint::ChatCompletions, DEPTH);
    }

    #[test]
    fn any_json_like_text_is_judged_without_a_panic(
        body in r#"([{}\[\],:"\\ ]|"model"|"stream_options"|null|true|1|é){0,40}"#,
    ) {
        for endpoint in Endpoint::ALL {
            let facts = read_facts(body.as_bytes(), endpoint, DEPTH);
            if let Ok(facts) = facts {
                let body = Bytes::copy_from_slice(body.as_bytes());
                upstream_body(&body, &facts, "other", true, None);
            }
        }
    }
}
