//! How far a stream has come, and whether it may end there.

use super::*;

#[test]
fn a_stream_is_finished_when_every_choice_is() {
    let finished = |choices: &[(u64, bool)]| {
        let mut meter = Meter::for_stream(Endpoint::ChatCompletions, false);
        for (index, done) in choices {
            let reason = if *done { "\"stop\"" } else { "null" };
            let event = format!(
                "data: {{\"choices\":[{{\"index\":{index},\"delta\":{{}},\"finish_reason\":{reason}}}]}}\n\n"
            );
            meter.on_events(Bytes::from(event));
        }
        meter.saw_finish()
    };
    assert!(!finished(&[]));
    assert!(!finished(&[(0, false)]));
    assert!(finished(&[(0, false), (0, true), (0, false)]));
    assert!(!finished(&[(0, false), (1, false), (0, true)]));
    assert!(finished(&[(0, false), (1, false), (1, true), (0, true)]));
    assert!(!finished(&[(0, true), (127, false)]));
    assert!(finished(&[(0, true), (127, true)]));
    // What cannot be followed is not taken for finished.
    for beyond in [128, 1 << 32, u64::MAX] {
        assert!(!finished(&[(0, true), (beyond, true)]));
    }
}

#[test]
fn a_responses_stream_tells_where_it_is() {
    let mut meter = Meter::for_stream(Endpoint::Responses, false);
    assert_eq!(meter.responses_position(), None);
    let mut send = |data: &str| {
        meter.on_events(Bytes::from(format!("data: {data}\n\n")));
        let (next, id) = meter.responses_position().expect("an event passed");
        (next, id.map(str::to_owned))
    };
    let created = |number: &str, id: &str| {
        format!(r#"{{"type":"response.created"{number},"response":{{"id":{id}}}}}"#)
    };
    assert_eq!(send(r#"{"type":"ping"}"#), (1, None));
    let id = Some("resp_\"1".to_owned());
    let first = created(r#","sequence_number":4"#, r#""resp_\"1""#);
    assert_eq!(send(&first), (5, id.clone()));
    // The first id stays, and numbers only rise.
    let second = created(r#","sequence_number":0"#, r#""resp_2""#);
    assert_eq!(send(&second), (6, id.clone()));
    let delta = r#"{"type":"response.output_text.delta","sequence_number":9,"delta":"x"}"#;
    assert_eq!(send(delta), (10, id.clone()));
    assert_eq!(send(r#"{"delta":"no number"}"#), (11, id.clone()));
    let last = r#"{"sequence_number":18446744073709551615}"#;
    assert_eq!(send(last), (u64::MAX, id));

    let mut meter = Meter::for_stream(Endpoint::Responses, false);
    meter.on_events(Bytes::from(golden("responses_stream.sse")));
    assert_eq!(meter.responses_position(), Some((10, Some("resp_67c9"))));
    let mut long = Meter::for_stream(Endpoint::Responses, false);
    let id = format!("\"{}\"", "x".repeat(300));
    long.on_events(Bytes::from(format!("data: {}\n\n", created("", &id))));
    assert_eq!(long.responses_position(), Some((1, None)));
    let mut chat = Meter::for_stream(Endpoint::ChatCompletions, false);
    chat.on_events(Bytes::from(golden("chat_stream.sse")));
    assert_eq!(chat.responses_position(), None);
}
