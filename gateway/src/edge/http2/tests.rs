//! Floods and farewells in raw frames, against the edge around a real proxy.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::tests::Edge;
use super::super::{EdgeBounds, PREFACE};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method GET`, `:scheme http`, `:path /`, `:authority a`.
const REQUEST: &[u8] = &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The payload of the GOAWAY that ends the connection, if one does.
fn goaway(mut answer: &[u8]) -> Option<&[u8]> {
    while answer.len() >= 9 {
        let length = u32::from_be_bytes([0, answer[0], answer[1], answer[2]]) as usize;
        let payload = answer.get(9..9 + length)?;
        if answer[3] == GOAWAY {
            return Some(payload);
        }
        answer = &answer[9 + length..];
    }
    None
}

/// Sends frames until the edge ends the connection; how many bytes it took and
/// the error code it gave.
async fn flood(edge: &Edge, piece: impl Fn(u32) -> Vec<u8>) -> (usize, u32) {
    let (client, task) = edge.connect();
    let (mut read, mut write) = tokio::io::split(client);
    let reader = tokio::spawn(async move {
        let mut answer = Vec::new();
        // A connection that is cut may end in an error; what came counts.
        let _ = read.read_to_end(&mut answer).await;
        answer
    });
    write.write_all(PREFACE).await.unwrap();
    write.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut sent = 0;
    let mut round = 0;
    while sent < 256 << 20 && !task.is_finished() {
        let bytes = piece(round);
        if write.write_all(&bytes).await.is_err() {
            break;
        }
        sent += bytes.len();
        round += 1;
    }
    task.await.unwrap();
    drop(write);
    let answer = reader.await.unwrap();
    let payload = goaway(&answer).expect("the end is announced");
    let code = u32::from_be_bytes(payload[4..8].try_into().unwrap());
    assert_eq!(edge.open(), 0);
    (sent, code)
}

const ENHANCE_YOUR_CALM: u32 = 0xb;

#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let edge = Edge::new(EdgeBounds::default());
    let (sent, code) = flood(&edge, |round| {
        // Many resets in one read, as an attacker packs them.
        (0..100)
            .flat_map(|n| {
                let stream = (round * 100 + n) * 2 + 1;
                let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, REQUEST);
                bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
                bytes
            })
            .collect()
    })
    .await;
    assert_eq!(code, ENHANCE_YOUR_CALM);
    assert!(sent < 1 << 20, "{sent} bytes");
    assert!(edge.served() < 1000, "{} requests", edge.served());
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let edge = Edge::new(EdgeBounds::default());
    for size in [0, 16_000] {
        let (sent, code) = flood(&edge, |round| {
            let mut bytes = match round {
                0 => frame(HEADERS, END_STREAM, 1, REQUEST),
                _ => Vec::new(),
            };
            bytes.extend(frame(CONTINUATION, 0, 1, &vec![0x82; size]));
            bytes
        })
        .await;
        assert_ne!(code, 0);
        assert!(sent < 1 << 20, "{sent} bytes of pieces of {size}");
    }
    assert_eq!(edge.served(), 0);
}

/// Reads frames until one of `kind` without ACK; its stream and payload.
async fn next_of(
    read: &mut (impl tokio::io::AsyncRead + Unpin),
    kind: u8,
) -> Option<(u32, Vec<u8>)> {
    loop {
        let mut head = [0; 9];
        read.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        read.read_exact(&mut payload).await.ok()?;
        let acked = matches!(head[3], PING | SETTINGS) && head[4] & ACK != 0;
        if head[3] == kind && !acked {
            let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
            return Some((stream, payload));
        }
    }
}

fn last_stream(goaway: &[u8]) -> u32 {
    u32::from_be_bytes(goaway[..4].try_into().unwrap())
}

#[tokio::test]
async fn leaving_says_goaway_and_finishes_what_was_begun() {
    let edge = Edge::new(EdgeBounds::default());
    let (client, task) = edge.connect();
    let (mut read, mut write) = tokio::io::split(client);
    // `:method POST` and the rest of `REQUEST`; its body stays open.
    let post = [&[0x83], &REQUEST[1..]].concat();
    let mut hello = PREFACE.to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    hello.extend(frame(HEADERS, END_HEADERS, 1, &post));
    write.write_all(&hello).await.unwrap();
    while edge.served() == 0 {
        tokio::task::yield_now().await;
    }
    edge.leave();
    let (_, first) = next_of(&mut read, GOAWAY).await.unwrap();
    assert_eq!(last_stream(&first), (1 << 31) - 1, "a warning at first");
    let (_, ping) = next_of(&mut read, PING).await.unwrap();
    // A stream that crossed the warning is served too.
    let mut crossed = frame(HEADERS, END_HEADERS | END_STREAM, 3, REQUEST);
    crossed.extend(frame(PING, ACK, 0, &ping));
    write.write_all(&crossed).await.unwrap();
    let (_, second) = next_of(&mut read, GOAWAY).await.unwrap();
    assert_eq!(
        last_stream(&second),
        3,
        "then the last stream that is served"
    );
    let mut late = frame(HEADERS, END_HEADERS | END_STREAM, 5, REQUEST);
    late.extend(frame(DATA, END_STREAM, 1, b"body"));
    write.write_all(&late).await.unwrap();
    let mut bodies = Vec::new();
    while let Some((stream, payload)) = next_of(&mut read, DATA).await {
        if !payload.is_empty() {
            bodies.push((stream, String::from_utf8(payload).unwrap()));
        }
    }
    bodies.sort();
    let (one, three) = ("POST http://a/ body", "GET http://a/ ");
    assert_eq!(bodies, [(1, one.to_owned()), (3, three.to_owned())]);
    drop(write);
    task.await.unwrap();
    assert_eq!((edge.served(), edge.open()), (2, 0));
}
