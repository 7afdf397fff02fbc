use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    max_head: 2048,
    max_headers: 10,
    max_uri: 256,
};

fn judge(bytes: &[u8]) -> HeadVerdict {
    HeadJudge::new(LIMITS, true).judge(bytes)
}

fn refused(fault: HeadFault) -> HeadVerdict {
    HeadVerdict::Refuse(fault)
}

/// Heads that are accepted, without what follows them.
fn good() -> Vec<Vec<u8>> {
    [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /v1/messages?beta=true HTTP/1.1\r\nhost: tyr.example:8080\r\ncontent-length: 5\r\n\r\n",
        "POST /v1/x HTTP/1.1\r\nHOST:[::1]:80\r\nTransfer-Encoding: Chunked \r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
        "OPTIONS /v1/x HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Tab:\ta\tb\r\nX-Latin: caf\u{e9}\r\n\r\n",
        "PRIX /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\ncontent-length: 2\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .chain([
        // Exactly at each bound.
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(255)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-A: b\r\n".repeat(9)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "v".repeat(2048 - 32)).into_bytes(),
    ])
    .collect()
}

/// Heads that are refused, and why.
fn bad() -> Vec<(HeadFault, Vec<u8>)> {
    use HeadFault::*;
    let table: &[(HeadFault, &str)] = &[
        // Two lengths: the classics CL.TE and TE.CL in both orders.
        (
            TwoLengths,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        ),
        (
            TwoLengths,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nContent-Length: 6\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\ncontent-length: 7\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6, 6\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +6\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x6\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        ),
        (
            ContentLength,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
        ),
        (
            TransferEncoding,
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            HeaderValue,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n",
        ),
        // A body that ends with the connection.
        (
            NoLength,
            "POST / HTTP/1.0\r\n\r\nGET /second HTTP/1.1\r\n\r\n",
        ),
        // Lines.
        (BareLineFeed, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        (BareLineFeed, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
        (BareLineFeed, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        (BareLineFeed, "GET / HTTP/1.1\n\n"),
        (BareLineFeed, "\nGET / HTTP/1.1\r\n\r\n"),
        (
            HeaderValue,
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 5\r\n\r\n",
        ),
        (HeaderValue, "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n"),
        (HeaderValue, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        (
            HeaderValue,
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{7f}b\r\n\r\n",
        ),
        (
            FoldedHeader,
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        ),
        (
            FoldedHeader,
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tTransfer-Encoding: chunked\r\n\r\n",
        ),
        (FoldedHeader, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
        // Names.
        (
            HeaderName,
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        ),
        (HeaderName, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (HeaderName, "GET / HTTP/1.1\r\nHost: a\r\nNoColon\r\n\r\n"),
        (HeaderName, "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
        (HeaderName, "GET / HTTP/1.1\r\nHost: a\r\nX\0Y: x\r\n\r\n"),
        (HeaderName, "GET / HTTP/1.1\r\nHost: a\r\nX\rY: x\r\n\r\n"),
        (HeaderName, "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: x\r\n\r\n"),
        (
            Underscore,
            "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n",
        ),
        // Host.
        (Host, "GET / HTTP/1.1\r\n\r\n"),
        (Host, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (Host, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
        (Host, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (Host, "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n"),
        (Host, "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
        (Host, "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
        (Host, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
        // Request lines and targets.
        (Connect, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
        (Target, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Target, "GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Target, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Target, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Target, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Target, "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Target, "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Target, "GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Target, "GET  HTTP/1.1\r\nHost: a\r\n\r\n"),
        (RequestLine, "GET /\r\n\r\n"),
        (RequestLine, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (RequestLine, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (RequestLine, "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (RequestLine, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (RequestLine, "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        (RequestLine, "GET / http/1.1\r\nHost: a\r\n\r\n"),
        (RequestLine, "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}"),
        (Version, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (Version, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (Version, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
        (Version, "GET / HTTP/1.1x\r\nHost: a\r\n\r\n"),
        // Changes of protocol before anyone agreed to them.
        (
            Upgrade,
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /second HTTP/1.1\r\n\r\n",
        ),
        (
            Upgrade,
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, websocket\r\n\r\n",
        ),
    ];
    let mut all: Vec<_> = table
        .iter()
        .map(|(fault, text)| (*fault, text.as_bytes().to_vec()))
        .collect();
    all.extend([
        (
            UriTooLong,
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(256)).into_bytes(),
        ),
        (UriTooLong, format!("GET /{}", "u".repeat(300)).into_bytes()),
        (
            TooManyHeaders,
            format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(10)).into_bytes(),
        ),
        (
            TooLarge,
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
                "v".repeat(2049 - 32)
            )
            .into_bytes(),
        ),
        (
            TooLarge,
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "v".repeat(4000)).into_bytes(),
        ),
    ]);
    all
}

#[test]
fn sound_heads_pass_and_the_body_is_left_alone() {
    for head in good() {
        let whole = HeadVerdict::Http1 {
            head_len: head.len(),
        };
        assert_eq!(judge(&head), whole, "{}", head.escape_ascii());
        let mut with_body = head.clone();
        with_body.extend_from_slice(b"\n\0 GET / HTTP/1.1\r\n\r\n");
        assert_eq!(judge(&with_body), whole, "{}", head.escape_ascii());
    }
}

#[test]
fn ambiguous_and_oversized_heads_are_refused() {
    for (fault, head) in bad() {
        assert_eq!(judge(&head), refused(fault), "{}", head.escape_ascii());
    }
}

#[test]
fn a_head_is_incomplete_until_its_last_byte() {
    for head in good() {
        for end in 0..head.len() {
            assert_eq!(judge(&head[..end]), HeadVerdict::Incomplete, "{end}");
        }
    }
}

#[test]
fn the_verdict_does_not_depend_on_how_the_bytes_arrive() {
    for head in good()
        .into_iter()
        .chain(bad().into_iter().map(|(_, head)| head))
    {
        let whole = judge(&head);
        for split in 0..=head.len() {
            let mut judge = HeadJudge::new(LIMITS, true);
            let early = judge.judge(&head[..split]);
            let verdict = match early {
                HeadVerdict::Incomplete => judge.judge(&head),
                verdict => verdict,
            };
            assert_eq!(verdict, whole, "split at {split}: {}", head.escape_ascii());
        }
        let mut judge = HeadJudge::new(LIMITS, true);
        let by_byte = (0..=head.len())
            .map(|end| judge.judge(&head[..end]))
            .find(|verdict| *verdict != HeadVerdict::Incomplete);
        assert_eq!(
            by_byte,
            Some(whole),
            "byte by byte: {}",
            head.escape_ascii()
        );
    }
}

#[test]
fn the_preface_is_known_at_the_start_of_a_plain_connection_only() {
    assert_eq!(judge(PREFACE), HeadVerdict::Preface);
    for end in 0..PREFACE.len() {
        assert_eq!(judge(&PREFACE[..end]), HeadVerdict::Incomplete);
    }
    let mut later = HeadJudge::new(LIMITS, false);
    assert_eq!(later.judge(PREFACE), refused(HeadFault::Version));
}

#[test]
fn the_shape_follows_the_path_or_the_version_header() {
    for (bytes, shape) in [
        ("POST /anthropic/v1/messages HTTP/1.1\r\n", Shape::Anthropic),
        ("GET /anthropic", Shape::Anthropic),
        ("GET /anthropic?x=1 HTTP/1.1\r\n", Shape::Anthropic),
        ("GET /anthropical HTTP/1.1\r\n", Shape::OpenAi),
        (
            "GET /v1/models HTTP/1.1\r\nHost: a\r\nAnthropic-Version: 2023-06-01\r\n",
            Shape::Anthropic,
        ),
        (
            "GET /v1/models HTTP/1.1\nanthropic-version : 1\n",
            Shape::Anthropic,
        ),
        (
            "GET /v1/models HTTP/1.1\r\nX: anthropic-version\r\n",
            Shape::OpenAi,
        ),
        ("POST /v1/messages HTTP/1.1\r\n", Shape::Anthropic),
        ("", Shape::OpenAi),
        ("\0\0\0", Shape::OpenAi),
    ] {
        assert_eq!(shape_of(bytes.as_bytes()), shape, "{bytes:?}");
    }
}

#[test]
fn every_fault_has_its_status() {
    assert_eq!(HeadFault::TooSlow.status(), 408);
    assert_eq!(HeadFault::TooLarge.status(), 431);
    assert_eq!(HeadFault::TooManyHeaders.status(), 431);
    assert_eq!(HeadFault::UriTooLong.status(), 414);
    assert_eq!(HeadFault::Connect.status(), 405);
    assert_eq!(HeadFault::TwoLengths.status(), 400);
    assert_eq!(HeadFault::Underscore.status(), 400);
}

/// Bytes that are often nearly a head.
fn nearly_http() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"Host: a\r\n".to_vec()),
        Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        Just(b"Content-Length: 1\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b" ".to_vec()),
        Just(b":".to_vec()),
        Just(PREFACE[..20].to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_bytes_get_one_verdict_however_they_are_split(
        bytes in nearly_http(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
    ) {
        let whole = judge(&bytes);
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let mut judge = HeadJudge::new(LIMITS, true);
        let split = ends
            .into_iter()
            .map(|end| judge.judge(&bytes[..end]))
            .find(|verdict| *verdict != HeadVerdict::Incomplete)
            .unwrap_or(HeadVerdict::Incomplete);
        prop_assert_eq!(split, whole);
        if let HeadVerdict::Http1 { head_len } = whole {
            prop_assert!(bytes[..head_len].ends_with(b"\r\n\r\n"));
        }
        let _ = shape_of(&bytes);
    }
}
