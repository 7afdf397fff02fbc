use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proto::Message;

use super::*;
use crate::data_dir::NodeKey;
use crate::entity::{Change, Entity};
use crate::message::{BATCH_CELLS, Revocation, WireCell};
use crate::origin::Origin;

const NEWEST: u8 = 2;

/// What the other side reads of `frames`, byte by byte, and how many frames of the wire it took.
fn through(frames: Vec<Frame>, protocol: u8) -> (Vec<Frame>, usize) {
    let (mut outbound, mut inbound) = (Outbound::new(protocol), Inbound::default());
    let mut read = Vec::new();
    let mut count = 0;
    for frame in frames {
        for written in outbound.write(frame) {
            count += 1;
            let bytes = written.encode_to_vec();
            assert!(bytes.len() <= FRAME_BYTES);
            let arrived = wire::Frame::decode(bytes.as_slice()).unwrap();
            read.push(inbound.read(arrived).unwrap().unwrap());
        }
    }
    (read, count)
}

fn cell(counter: &str, ver: u64) -> WireCell {
    WireCell {
        counter: counter.into(),
        epoch: -3,
        ver,
        used: ver * 10,
        held: 7,
        expires_at: Timestamp(99),
    }
}

fn batch(cells: Vec<WireCell>) -> CellBatch {
    let to_ver = cells.last().map_or(5, |cell| cell.ver);
    CellBatch {
        origin: Origin {
            node: NodeKey(1),
            boot: 2,
        },
        from_ver: 0,
        to_ver,
        head: to_ver,
        cells,
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé/:]{0,12}"
}

fn origin() -> impl Strategy<Value = Origin> {
    (any::<u128>(), any::<u64>()).prop_map(|(node, boot)| Origin {
        node: NodeKey(node),
        boot,
    })
}

fn seen() -> impl Strategy<Value = Vec<(Origin, u64)>> {
    vec((origin(), any::<u64>()), 0..5)
}

fn hello() -> impl Strategy<Value = Hello> {
    let texts = (text(), text(), text(), text(), text());
    let numbers = (any::<u8>(), any::<u8>(), any::<u64>(), any::<u16>());
    (origin(), texts, numbers).prop_map(|(origin, texts, numbers)| Hello {
        origin,
        name: texts.0,
        cluster: texts.1,
        region: texts.2,
        zone: texts.3,
        build: texts.4,
        proto_min: numbers.0,
        proto_max: numbers.1,
        caps: numbers.2,
        grpc_port: numbers.3,
    })
}

fn cells() -> impl Strategy<Value = CellBatch> {
    let numbers = any::<(i64, u64, u64, u64, u64)>();
    let cells = vec((text(), numbers), 0..20);
    (origin(), any::<(u64, u64, u64)>(), cells).prop_map(|(origin, vers, cells)| CellBatch {
        origin,
        from_ver: vers.0,
        to_ver: vers.1,
        head: vers.2,
        cells: cells
            .into_iter()
            .map(|(counter, (epoch, ver, used, held, expires))| WireCell {
                counter: counter.into(),
                epoch,
                ver,
                used,
                held,
                expires_at: Timestamp(expires),
            })
            .collect(),
    })
}

fn entity() -> impl Strategy<Value = Entity> {
    let body = option::of("[a-z{}]{0,9}");
    (text(), text(), any::<u64>(), body, any::<u64>()).prop_map(
        |(kind, name, revision, body, changed_at)| Entity {
            kind,
            name,
            revision,
            body: body.map(Box::from),
            changed_at: Timestamp(changed_at),
        },
    )
}

fn revocation() -> impl Strategy<Value = Revocation> {
    let texts = (text(), text(), text(), text(), text(), text());
    let views = (option::of(text()), option::of(text()));
    (any::<u64>(), texts, views).prop_map(|(at, texts, views)| Revocation {
        hash: texts.0,
        change: Change {
            at: Timestamp(at),
            actor: texts.1,
            peer: texts.2,
            action: texts.3,
            kind: texts.4,
            name: texts.5,
            before: views.0,
            after: views.1,
        },
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let numbers = any::<(u64, [u8; 32], u64)>();
    let body = vec(any::<u8>(), 0..50);
    (text(), text(), numbers, body).prop_map(|(task, scope, numbers, body)| Outcome {
        task,
        scope,
        term: numbers.0,
        hash: numbers.1,
        at: Timestamp(numbers.2),
        body: body.into(),
    })
}

fn mark() -> impl Strategy<Value = ConfigurationMark> {
    let parts = vec((text(), any::<[u8; 32]>()), 0..MOST_PARTS);
    (any::<[u8; 32]>(), any::<Option<u64>>(), parts).prop_map(|(hash, revision, parts)| {
        ConfigurationMark {
            hash,
            revision,
            parts,
        }
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let id = || any::<u128>().prop_map(MessageId);
    let time = || any::<u64>().prop_map(Duration::from_nanos);
    let entities = (id(), any::<u64>(), vec(entity(), 0..4));
    prop_oneof![
        hello().prop_map(Frame::Hello),
        seen().prop_map(Frame::Digest),
        Just(Frame::CaughtUp),
        cells().prop_map(Frame::Cells),
        seen().prop_map(Frame::Ack),
        entities.prop_map(|(id, after, entities)| Frame::Entities(EntityBatch {
            id,
            after,
            entities
        })),
        any::<u64>().prop_map(|after| Frame::EntitiesWanted { after }),
        (id(), vec(revocation(), 0..4))
            .prop_map(|(id, revocations)| Frame::Revocations { id, revocations }),
        id().prop_map(Frame::Received),
        any::<u64>().prop_map(|revision| Frame::Applied { revision }),
        outcome().prop_map(Frame::Outcome),
        (any::<u64>(), time()).prop_map(|(number, sent)| Frame::Ping { number, sent }),
        (any::<u64>(), time(), any::<u64>()).prop_map(|(number, echoed, wall)| Frame::Pong {
            number,
            echoed,
            wall: Timestamp(wall)
        }),
        origin().prop_map(|about| Frame::Suspect { about }),
        (origin(), any::<bool>()).prop_map(|(about, gone)| Frame::Verdict { about, gone }),
        Just(Frame::Drain),
        any::<bool>().prop_map(|away| Frame::StoreAway { away }),
        mark().prop_map(Frame::Configuration),
    ]
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were(frames in vec(frame(), 0..6)) {
        let (read, _) = through(frames.clone(), NEWEST);
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn arbitrary_bytes_never_panic(frames in vec(vec(any::<u8>(), 0..200), 0..6)) {
        let mut inbound = Inbound::default();
        for bytes in frames {
            if let Ok(frame) = wire::Frame::decode(bytes.as_slice()) {
                let _ = inbound.read(frame);
            }
        }
    }

    /// Nearly right ones reach further than arbitrary ones.
    #[test]
    fn damaged_frames_never_panic(
        frames in vec(frame(), 1..4),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (mut outbound, mut inbound) = (Outbound::new(NEWEST), Inbound::default());
        for written in frames.into_iter().flat_map(|frame| outbound.write(frame)) {
            let mut bytes = written.encode_to_vec();
            for (at, value) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            if let Ok(frame) = wire::Frame::decode(bytes.as_slice()) {
                let _ = inbound.read(frame);
            }
        }
    }
}

#[test]
fn a_frame_of_a_newer_node_is_skipped() {
    // Field 200 with two bytes in it, which no body has.
    let bytes = [0xc2, 0x0c, 0x02, 0x08, 0x01];
    let frame = wire::Frame::decode(bytes.as_slice()).unwrap();
    assert_eq!(Inbound::default().read(frame), Ok(None));
}

#[test]
fn a_counters_text_is_sent_once() {
    let long = "key:".repeat(100);
    let (mut outbound, mut inbound) = (Outbound::new(NEWEST), Inbound::default());
    let mut sizes = Vec::new();
    for ver in 1..=2 {
        let frames = outbound.write(Frame::Cells(batch(vec![
            cell(&long, ver),
            cell(&long, ver),
        ])));
        let [frame] = frames.try_into().unwrap();
        sizes.push(frame.encoded_len());
        let read = inbound.read(frame).unwrap().unwrap();
        let expected = batch(vec![cell(&long, ver), cell(&long, ver)]);
        assert_eq!(read, Frame::Cells(expected));
    }
    assert!(sizes[0] > 400 && sizes[1] < 100, "{sizes:?}");
}

#[test]
fn texts_begin_anew_when_there_are_too_many() {
    let names = 3 * cells::MOST_TEXTS / 2;
    let batches: Vec<_> = (0..names)
        .collect::<Vec<_>>()
        .chunks(BATCH_CELLS)
        .map(|numbers| {
            let cells = numbers.iter().map(|number| cell(&number.to_string(), 1));
            Frame::Cells(batch(cells.collect()))
        })
        .collect();
    let (read, _) = through(batches.clone(), NEWEST);
    assert_eq!(read, batches);
}

#[test]
fn texts_begin_anew_when_they_are_too_long() {
    let long = "x".repeat(4_000);
    let batches: Vec<_> = (0..20)
        .map(|number: u64| {
            let name = |at: u64| format!("{number}/{at}/{long}");
            let cells = (1..=200).map(|at| cell(&name(at), at));
            Frame::Cells(batch(cells.collect()))
        })
        .collect();
    let (read, _) = through(batches.clone(), NEWEST);
    assert_eq!(read, batches);
}

#[test]
fn a_large_batch_goes_in_parts_that_follow_each_other() {
    let long = "x".repeat(3_000);
    let cells: Vec<_> = (1..=BATCH_CELLS as u64)
        .map(|ver| cell(&format!("{long}{ver}"), ver))
        .collect();
    let whole = CellBatch {
        to_ver: 5_000,
        head: 9_000,
        ..batch(cells.clone())
    };
    let (parts, count) = through(vec![Frame::Cells(whole)], NEWEST);
    assert!(count > 3);
    let mut up_to = 0;
    let mut got: Vec<WireCell> = Vec::new();
    for part in parts {
        let Frame::Cells(part) = part else { panic!() };
        assert_eq!(part.from_ver, up_to);
        assert_eq!(part.head, 9_000);
        up_to = part.to_ver;
        got.extend(part.cells);
        assert!(got.last().unwrap().ver <= up_to);
    }
    assert_eq!(up_to, 5_000);
    assert_eq!(got, cells);
}

#[test]
fn no_part_but_the_last_claims_as_much_as_the_batch() {
    let long = "x".repeat(3_000);
    let cells = |from: u64| -> Vec<_> {
        let vers = (1..=BATCH_CELLS as u64).map(|at| (at, from * at));
        vers.map(|(at, ver)| cell(&format!("{long}{at}"), ver))
            .collect()
    };
    // Of cells beyond the head, and of cells without a version.
    for (from_ver, to_ver, from) in [(0, 700, 1), (700, 700, 1), (0, 0, 0), (9, 9, 0)] {
        let whole = CellBatch {
            from_ver,
            to_ver,
            head: 700,
            ..batch(cells(from))
        };
        let (parts, count) = through(vec![Frame::Cells(whole)], NEWEST);
        assert!(count > 3, "{from_ver} {to_ver} {from}");
        let mut up_to = from_ver;
        for (at, part) in parts.into_iter().enumerate() {
            let Frame::Cells(part) = part else { panic!() };
            assert_eq!(part.from_ver, up_to);
            up_to = part.to_ver;
            let is_last = at + 1 == count;
            assert!(is_last || from_ver == to_ver || up_to < to_ver);
        }
        assert_eq!(up_to, to_ver);
    }
}

#[test]
fn an_older_protocol_has_no_holds() {
    let (read, _) = through(vec![Frame::Cells(batch(vec![cell("a", 1)]))], 1);
    let [Frame::Cells(read)] = read.as_slice() else {
        panic!()
    };
    assert_eq!((read.cells[0].used, read.cells[0].held), (10, 0));
}

#[test]
fn the_largest_outcome_fits_a_frame_and_a_larger_one_is_refused() {
    let outcome = |length: usize| Outcome {
        task: "t".repeat(100),
        scope: "s".repeat(100),
        term: u64::MAX,
        hash: [1; 32],
        at: Timestamp(u64::MAX),
        body: Arc::from(vec![0; length]),
    };
    let largest = Frame::Outcome(outcome(OUTCOME_BYTES));
    assert_eq!(through(vec![largest.clone()], NEWEST).0, [largest]);
    let [larger] = Outbound::new(NEWEST)
        .write(Frame::Outcome(outcome(OUTCOME_BYTES + 1)))
        .try_into()
        .unwrap();
    let refused = Inbound::default().read(larger);
    assert_eq!(refused, Err(FrameError::Length("outcome")));
}

/// A batch with one text and one cell, as `change` makes it.
fn read_of(change: impl FnOnce(&mut wire::CellBatch)) -> Result<Option<Frame>, FrameError> {
    let [frame] = Outbound::new(NEWEST)
        .write(Frame::Cells(batch(vec![cell("a", 1)])))
        .try_into()
        .unwrap();
    let Some(Body::Cells(mut cells)) = frame.body else {
        panic!()
    };
    change(&mut cells);
    let body = Some(Body::Cells(cells));
    Inbound::default().read(wire::Frame { body })
}

#[test]
fn what_no_node_would_send_is_refused() {
    assert!(read_of(|_| ()).is_ok());
    let refused = |change: fn(&mut wire::CellBatch)| read_of(change).unwrap_err();
    assert_eq!(
        refused(|batch| batch.origin = None),
        FrameError::Missing("origin")
    );
    assert_eq!(
        refused(|batch| batch.origin.as_mut().unwrap().node.push(0)),
        FrameError::Length("node")
    );
    assert_eq!(
        refused(|batch| batch.cells = vec![batch.cells[0]; BATCH_CELLS + 1]),
        FrameError::Many("cells")
    );
    assert_eq!(
        refused(|batch| batch.cells[0].counter = 1),
        FrameError::UnknownText
    );
    assert_eq!(
        refused(|batch| batch.texts[0].number = cells::MOST_TEXTS as u32),
        FrameError::Range("number of a counter")
    );
    assert_eq!(
        refused(|batch| {
            let text = "x".repeat(cells::LONGEST_TEXT);
            let text = |number| wire::CounterText {
                number,
                text: text.clone(),
            };
            batch.texts = (0..4_096).map(text).collect();
        }),
        FrameError::Many("texts of counters")
    );
}

#[test]
fn a_text_that_is_too_long_is_neither_sent_nor_taken() {
    let long = "x".repeat(cells::LONGEST_TEXT + 1);
    let sent = batch(vec![cell(&long, 1), cell("a", 2)]);
    let (read, _) = through(vec![Frame::Cells(sent)], NEWEST);
    let Frame::Cells(read) = &read[0] else {
        panic!("{read:?}");
    };
    assert_eq!((read.to_ver, &read.cells[..]), (2, &[cell("a", 2)][..]));
    let forged = wire::CellBatch {
        origin: Some(origin_to(read.origin)),
        texts: vec![wire::CounterText {
            number: 0,
            text: long,
        }],
        ..wire::CellBatch::default()
    };
    let frame = wire::Frame {
        body: Some(Body::Cells(forged)),
    };
    let refused = Inbound::default().read(frame);
    assert_eq!(refused, Err(FrameError::Length("text of a counter")));
}

#[test]
fn what_is_small_on_the_wire_and_large_in_memory_is_weighed_and_bounded() {
    let read = |body| {
        let frame = wire::Frame { body: Some(body) };
        let bytes = frame.encode_to_vec();
        (bytes.len(), weight(&frame), Inbound::default().read(frame))
    };
    let entities = |number| {
        Body::Entities(wire::EntityBatch {
            id: vec![0; 16],
            entities: vec![wire::Entity::default(); number],
            ..wire::EntityBatch::default()
        })
    };
    let (bytes, weight, sound) = read(entities(MOST_ITEMS));
    assert!(bytes < 4 * MOST_ITEMS && weight > ITEM_BYTES * MOST_ITEMS);
    assert!(size_of::<Entity>() <= ITEM_BYTES && size_of::<(Origin, u64)>() <= ITEM_BYTES);
    assert!(size_of::<Revocation>() <= 2 * ITEM_BYTES);
    assert!(sound.is_ok());
    let too_many = |body, what| assert_eq!(read(body).2, Err(FrameError::Many(what)));
    too_many(entities(MOST_ITEMS + 1), "entities");
    let seen = vec![wire::Seen::default(); MOST_ITEMS + 1];
    too_many(Body::Digest(wire::Digest { seen }), "origins");
    let revocations = |number, before| wire::Revocations {
        id: vec![0; 16],
        revocations: vec![
            wire::Revocation {
                change: Some(wire::Change {
                    before,
                    ..wire::Change::default()
                }),
                ..wire::Revocation::default()
            };
            number
        ],
    };
    let many = revocations(MOST_REVOCATIONS + 1, None);
    too_many(Body::Revocations(many), "revocations");
    let long = revocations(1, Some("x".repeat(values::CHANGE_BYTES + 1)));
    let (.., refused) = read(Body::Revocations(long));
    assert_eq!(refused, Err(FrameError::Length("change")));
}
