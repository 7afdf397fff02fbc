//! What of a body counts as prompt.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn counted(body: &str) -> u64 {
    chat(body).expect("a good body").prompt_bytes
}

fn counted_value(body: &Value) -> u64 {
    counted(&body.to_string())
}

/// Base64 of a file that starts with `head`, at least 60 KB long.
fn file(head: &str) -> String {
    format!("{head}{}", "Zm9v+/".repeat(10_000))
}

fn png() -> String {
    file("iVBORw0KGgoAAAAN")
}

/// A chat body with one part besides a text of ten bytes.
fn with_part(part: &Value) -> Value {
    let text = json!({"type": "text", "text": "0123456789"});
    json!({"model": "m", "messages": [{"role": "user", "content": [text, part]}]})
}

#[test]
fn text_counts_and_structure_does_not() {
    // model m, a, text, and four for each number or word.
    assert_eq!(
        counted(r#"{"model":"m","a":["text",1,-2.5e3,true,null]}"#),
        27
    );
    let token_numbers = json!({"model": "m", "prompt": vec![50_256; 1_000]});
    assert_eq!(counted_value(&token_numbers), 4_012);
}

#[test]
fn padding_neither_counts_nor_teaches() {
    let space = " ".repeat(200_000);
    let prompt = "some real words ".repeat(10);
    let plain = counted_value(&json!({"model": "m", "prompt": prompt}));
    for body in [
        format!(r#"{{"model":"m",{space}"prompt":"{prompt}"}}"#),
        format!("{space}{{\"model\":\n\t\r\"m\",\"prompt\":\"{prompt}\"{space}}}"),
    ] {
        assert_eq!(counted(&body), plain);
    }
    let inside = counted_value(&json!({"model": "m", "prompt": format!("{prompt}{space}")}));
    assert_eq!(inside, plain + 200_000 / 16);
    let escaped = format!(
        r#"{{"model":"m","prompt":"{prompt}{}"}}"#,
        r"\u0020".repeat(200_000)
    );
    assert_eq!(counted(&escaped), inside);
}

#[test]
fn a_callers_padding_leaves_other_callers_estimates_alone() {
    let ratio = policy::TokenRatio::new();
    let space = " ".repeat(200_000);
    for _ in 0..30 {
        let padded = counted(&format!(r#"{{"model":"m",{space}"prompt":"hi"}}"#));
        ratio.learn(padded, 9);
        let inside = counted_value(&json!({"model": "m", "prompt": space}));
        ratio.learn(inside, 200_000 / 64);
    }
    let honest = counted_value(&json!({"model": "m", "prompt": "word ".repeat(20_000)}));
    assert!(ratio.estimate(honest).0 > 20_000);
    assert!(ratio.estimate_strict(honest).0 >= 25_000);
}

#[test]
fn inlined_media_counts_by_its_kind() {
    let url = |mime: &str, data: &str| format!("data:{mime};base64,{data}");
    let (png, pdf) = (png(), file("JVBERi0xLjcK0000"));
    let wav = file("UklGRiQAAABXQVZF");
    for (part, most) in [
        (
            json!({"type": "image_url", "image_url": {"url": url("image/png", &png)}}),
            6_400,
        ),
        (
            json!({"type": "input_image", "image_url": url("image/png", &png)}),
            6_400,
        ),
        (
            json!({"type": "image", "source":
            {"type": "base64", "media_type": "image/png", "data": png}}),
            6_400,
        ),
        (
            json!({"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}}),
            6_400,
        ),
        (
            json!({"type": "file", "file": {"file_data": url("application/pdf", &pdf)}}),
            7_510,
        ),
        (
            json!({"type": "tool_result", "content": [{"type": "image", "source":
            {"data": file("/9j/4AAQSkZJRgAB"), "type": "base64"}}]}),
            6_400,
        ),
    ] {
        for body in [
            with_part(&part).to_string(),
            with_part(&part).to_string().replace('/', r"\/"),
            serde_json::to_string_pretty(&with_part(&part)).expect("serialises"),
        ] {
            let got = counted(&body);
            assert!((most..most + 250).contains(&got), "{got}: {}", &body[..200]);
        }
    }
    // What is small anyway counts as it is.
    let small = with_part(&json!({"image_url": {"url": url("image/png", "iVBORw0KGgo")}}));
    assert!(counted_value(&small) < 150);
}

/// Whatever it pretends to be, text counts in full.
#[test]
fn text_in_the_place_of_media_counts() {
    let text = "many words of prose ".repeat(3_000);
    let run = "A".repeat(4_096);
    let joined = format!("{}{}", &png()[..16], "many+words+of/prose/".repeat(3_000));
    let image = format!("data:image/png;base64,{}", png());
    let source = |kind: &str, data: &str| json!({"source": {"type": kind, "data": data}});
    for (part, least) in [
        (
            json!({"type": "text", "data": format!("{run}{text}{run}")}),
            68_000,
        ),
        (source("base64", &format!("{run}{text}{run}")), 68_000),
        (
            source("base64", &format!("{}{text}{}", png(), png())),
            160_000,
        ),
        (
            source("base64", &"many+words+of/prose/".repeat(3_000)),
            60_000,
        ),
        (source("text", &joined), 60_000),
        (
            json!({"source": {"data": joined, "media_type": "text/plain"}}),
            60_000,
        ),
        (
            json!({"source": {"type": "text", "a": {}, "data": joined}}),
            60_000,
        ),
        (
            json!({"source": {"data": joined, "type": "text", "z": {}}}),
            60_000,
        ),
        (
            json!({"source": {"data": joined, "z": []}, "type": "text"}),
            60_000,
        ),
        (
            json!({"url": format!("data:text/plain;base64,{}", "dGV4".repeat(15_000))}),
            60_000,
        ),
        (json!({"url": format!("data:text/plain,{text}")}), 60_000),
        (json!({"content": png()}), 60_000),
        (json!({"text": image}), 60_000),
        (json!({"type": "tool_use", "input": {"url": image}}), 60_000),
        (json!({"tool_calls": [{"content": {"url": image}}]}), 60_000),
    ] {
        let got = counted_value(&with_part(&part));
        assert!(got >= least, "{got}: {:.300}", part.to_string());
    }
    let spelled = with_part(&source("text", &joined)).to_string();
    let spelled = spelled.replace(r#""type":"text""#, r#""type":"t\u0065xt""#);
    assert!(counted(&spelled) >= 60_000);
    let schema = json!({"model": "m", "tools": [{"content": {"url": image}}]});
    assert!(counted_value(&schema) >= 60_000);
}

proptest! {
    /// The count does not depend on how a body is spelled.
    #[test]
    fn spelling_does_not_matter(value in any_value(), text in ".{0,300}") {
        let body = json!({"model": "m", "x": value, "prompt": text});
        let pretty = serde_json::to_string_pretty(&body).expect("serialises");
        prop_assert_eq!(counted_value(&body), counted(&pretty));
        let ascii: String = body.to_string().chars().map(|letter| match letter {
            ' '..='~' => letter.to_string(),
            _ => letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        }).collect();
        prop_assert_eq!(counted_value(&body), counted(&ascii));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Prose never counts as less than its length, spaces in runs apart.
    #[test]
    fn prose_counts_in_full(
        words in prop::collection::vec("[a-z]{1,9}", 2_000..4_000),
        name in prop::sample::select(vec!["url", "image_url", "data", "file_data"]),
        start in prop::sample::select(vec!["", "data:image/png;base64,", "data:image/png;base64,iVBORw0KGgoAAAAN"]),
    ) {
        let text = words.join(" ");
        let mut part = serde_json::Map::new();
        part.insert(name.to_owned(), format!("{start}{text}").into());
        let body = with_part(&part.into());
        prop_assert!(counted_value(&body) >= text.len() as u64);
    }
}
