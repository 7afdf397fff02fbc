use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::transport::keys::KeyError;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const START: Duration = Duration::from_secs(1);

fn secret(number: u8) -> Vec<u8> {
    vec![number; 32]
}

fn keys(cluster: &str, secrets: &[Vec<u8>]) -> Keys {
    Keys::new(cluster, secrets, &[]).unwrap()
}

fn origin(node: u128, boot: u64) -> Origin {
    let node = NodeKey(node);
    Origin { node, boot }
}

fn sealer(keys: &Keys) -> Sealer {
    Sealer::new(keys.clone(), origin(7, 70))
}

fn opener(keys: &Keys) -> Opener {
    Opener::new(keys.clone(), origin(1, 10))
}

fn open_at_start(opener: &mut Opener, bytes: &[u8]) -> Result<Opened, OpenError> {
    opener.open(SOURCE, bytes, START)
}

#[test]
fn what_was_sealed_opens_and_names_its_sender() {
    let keys = keys("tyr", &[secret(1)]);
    let bytes = sealer(&keys).datagram(b"hello");
    assert_eq!(bytes.len(), b"hello".len() + OVERHEAD);
    assert!(!bytes.windows(5).any(|window| window == b"hello"));
    let opened = open_at_start(&mut opener(&keys), &bytes).unwrap();
    assert_eq!(opened.content, b"hello");
    assert_eq!(opened.sender, origin(7, 70));
    assert_eq!(opened.number, 1);
}

#[test]
fn a_changed_or_shortened_message_is_refused() {
    let keys = keys("tyr", &[secret(1)]);
    let bytes = sealer(&keys).datagram(b"hello");
    let mut opener = opener(&keys);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(open_at_start(&mut opener, &changed).is_err(), "byte {at}");
    }
    for length in 0..bytes.len() {
        let refused = open_at_start(&mut opener, &bytes[..length]);
        assert!(refused.is_err(), "{length} bytes");
    }
    // The refused ones have not used up the number of the right one.
    assert!(opener.open(SOURCE, &bytes, START * 2).is_ok());
}

#[test]
fn a_message_of_another_cluster_or_purpose_or_secret_is_refused() {
    let ours = keys("tyr", &[secret(1)]);
    let mut opener = opener(&ours);
    let foreign = sealer(&keys("other", &[secret(1)])).datagram(b"x");
    assert_eq!(
        open_at_start(&mut opener, &foreign),
        Err(OpenError::NotAuthentic)
    );
    let (exchange, _) = sealer(&ours).seal(Purpose::Exchange, &[], b"x");
    assert_eq!(
        open_at_start(&mut opener, &exchange),
        Err(OpenError::NotAuthentic)
    );
    let unknown = sealer(&keys("tyr", &[secret(2)])).datagram(b"x");
    assert_eq!(
        open_at_start(&mut opener, &unknown),
        Err(OpenError::UnknownKey)
    );
}

#[test]
fn a_bound_message_opens_only_with_what_it_is_bound_to() {
    let keys = keys("tyr", &[secret(1)]);
    let (bytes, _) = sealer(&keys).seal(Purpose::Exchange, b"challenge", b"x");
    assert!(open(&keys, Purpose::Exchange, b"challenge", &bytes).is_ok());
    let other = open(&keys, Purpose::Exchange, b"challengf", &bytes);
    assert_eq!(other, Err(OpenError::NotAuthentic));
}

#[test]
fn a_message_is_taken_once_in_any_order() {
    let keys = keys("tyr", &[secret(1)]);
    let (sealer, mut opener) = (sealer(&keys), opener(&keys));
    let mut messages: Vec<_> = (0..500).map(|_| sealer.datagram(b"x")).collect();
    messages.reverse();
    for bytes in &messages {
        assert!(open_at_start(&mut opener, bytes).is_ok());
    }
    for (second, bytes) in (2..).zip(&messages) {
        let again = opener.open(SOURCE, bytes, START * second);
        assert_eq!(again, Err(OpenError::Replayed));
    }
}

#[test]
fn a_message_far_behind_the_newest_is_refused() {
    let keys = keys("tyr", &[secret(1)]);
    let (sealer, mut opener) = (sealer(&keys), opener(&keys));
    let first = sealer.datagram(b"x");
    let second = sealer.datagram(b"x");
    for _ in 0..replay::WINDOW - 2 {
        sealer.datagram(b"lost");
    }
    let newest = sealer.datagram(b"x");
    assert!(open_at_start(&mut opener, &newest).is_ok());
    assert_eq!(
        open_at_start(&mut opener, &first),
        Err(OpenError::Replayed),
        "a window behind"
    );
    assert!(open_at_start(&mut opener, &second).is_ok(), "just within");
}

#[test]
fn an_earlier_boot_of_a_sender_is_refused() {
    let keys = keys("tyr", &[secret(1)]);
    let mut opener = opener(&keys);
    let old = Sealer::new(keys.clone(), origin(7, 70));
    let new = Sealer::new(keys.clone(), origin(7, 71));
    let (early, late) = (old.datagram(b"x"), old.datagram(b"x"));
    assert!(open_at_start(&mut opener, &early).is_ok());
    let fresh = new.datagram(b"x");
    assert!(open_at_start(&mut opener, &fresh).is_ok());
    assert_eq!(
        open_at_start(&mut opener, &late),
        Err(OpenError::EarlierBoot)
    );
}

#[test]
fn own_messages_are_refused() {
    let keys = keys("tyr", &[secret(1)]);
    let bytes = Sealer::new(keys.clone(), origin(1, 10)).datagram(b"x");
    assert_eq!(
        open_at_start(&mut opener(&keys), &bytes),
        Err(OpenError::Own)
    );
}

#[test]
fn a_secret_is_rotated_by_adding_using_and_removing_it() {
    let (old, new) = (secret(1), secret(2));
    let [a, b] = [(), ()].map(|()| keys("tyr", std::slice::from_ref(&old)));
    let c = keys("tyr", std::slice::from_ref(&new)); // has only the new one
    let (from_a, from_b) = (
        Sealer::new(a.clone(), origin(7, 70)),
        Sealer::new(b.clone(), origin(8, 80)),
    );
    let talk = |sealer: &Sealer, keys: &Keys| {
        open(keys, Purpose::Datagram, &[], &sealer.datagram(b"x")).map(|opened| opened.content)
    };
    assert_eq!(talk(&from_a, &c), Err(OpenError::UnknownKey));
    a.replace(&[old.clone(), new.clone()]).unwrap(); // added at one, the other does not have it yet
    assert!(talk(&from_a, &b).is_ok() && talk(&from_b, &a).is_ok());
    b.replace(&[old.clone(), new.clone()]).unwrap();
    a.replace(&[new.clone(), old.clone()]).unwrap(); // used at one
    assert!(talk(&from_a, &b).is_ok() && talk(&from_b, &a).is_ok());
    assert!(talk(&from_a, &c).is_ok());
    b.replace(&[new.clone(), old.clone()]).unwrap();
    a.replace(std::slice::from_ref(&new)).unwrap(); // removed at one
    assert!(talk(&from_a, &b).is_ok() && talk(&from_b, &a).is_ok());
    assert!(talk(&from_b, &c).is_ok());
    let stale = sealer(&keys("tyr", &[old])).datagram(b"x");
    let refused = open(&a, Purpose::Datagram, &[], &stale);
    assert_eq!(refused, Err(OpenError::UnknownKey));
}

#[test]
fn the_keys_that_nodes_use_are_counted() {
    let ours = keys("tyr", &[secret(1), secret(2)]);
    let mut opener = opener(&ours);
    for (node, number) in [(7, 1), (8, 2), (9, 2)] {
        let theirs = keys("tyr", &[secret(number)]);
        let bytes = Sealer::new(theirs, origin(node, 1)).datagram(b"x");
        open_at_start(&mut opener, &bytes).unwrap();
    }
    let mut counts = opener.keys_in_use(START);
    counts.sort_by_key(|&(_, count)| count);
    let ids = ours.ring().ids();
    assert_eq!(counts, [(ids[0], 1), (ids[1], 2)]);
    assert_eq!(opener.keys_in_use(START + Duration::from_secs(61)), []);
}

#[test]
fn secrets_are_required_and_checked() {
    let outside: IpAddr = [10, 0, 0, 1].into();
    let without = |addresses: &[IpAddr]| Keys::new("tyr", &[], addresses).map(|_| ());
    assert_eq!(without(&[SOURCE, outside]), Err(KeyError::Missing));
    assert_eq!(without(&[SOURCE]), Ok(()));
    let with = |secrets: &[Vec<u8>]| Keys::new("tyr", secrets, &[outside]).map(|_| ());
    assert_eq!(with(&[vec![1; 15]]), Err(KeyError::TooShort));
    let five: Vec<_> = (0..5).map(secret).collect();
    assert_eq!(with(&five), Err(KeyError::TooMany));
    assert_eq!(with(&five[..4]), Ok(()));
    let keys = keys("tyr", &[secret(1)]);
    let before = keys.ring().ids();
    assert_eq!(keys.replace(&[]), Err(KeyError::Missing));
    assert_eq!(keys.ring().ids(), before);
}

#[test]
fn a_source_of_bad_messages_is_refused_for_the_rest_of_the_second() {
    let keys = keys("tyr", &[secret(1)]);
    let (sealer, mut opener) = (sealer(&keys), opener(&keys));
    for _ in 0..sources::MOST_BAD {
        let refused = open_at_start(&mut opener, b"junk");
        assert_eq!(refused, Err(OpenError::Malformed));
    }
    let bytes = sealer.datagram(b"x");
    assert_eq!(open_at_start(&mut opener, &bytes), Err(OpenError::Limited));
    let other: IpAddr = [10, 0, 0, 1].into();
    let elsewhere = sealer.datagram(b"x");
    assert!(opener.open(other, &elsewhere, START).is_ok());
    assert!(opener.open(SOURCE, &bytes, START * 2).is_ok());
}

#[test]
fn sources_beyond_the_table_share_one_allowance() {
    let mut sources = BadSources::default();
    let source = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
    for number in 0..sources::MOST_SOURCES as u32 {
        sources.note_bad(source(number), START);
    }
    for number in 0..sources::MOST_BAD {
        let source = source(1_000_000 + number);
        assert!(sources.allows(source, START));
        sources.note_bad(source, START);
    }
    assert!(!sources.allows(source(2_000_000), START));
    assert!(sources.allows(source(0), START));
    assert!(sources.allows(source(2_000_000), START * 2));
}

#[test]
fn invented_sources_keep_no_member_out() {
    let keys = keys("tyr", &[secret(1)]);
    let (sealer, mut opener) = (sealer(&keys), opener(&keys));
    assert!(opener.open(SOURCE, &sealer.datagram(b"x"), START).is_ok());
    let invented = sources::MOST_SOURCES as u32 + 2 * sources::MOST_BAD;
    for number in 0..invented {
        let source = Ipv4Addr::from_bits(0x0b00_0000 + number).into();
        let _ = opener.open(source, b"junk", START * 5);
    }
    let stranger = Ipv4Addr::new(10, 9, 9, 9).into();
    let refused = opener.open(stranger, &sealer.datagram(b"x"), START * 5);
    assert_eq!(refused, Err(OpenError::Limited));
    let bytes = sealer.datagram(b"x");
    assert!(opener.open(SOURCE, &bytes, START * 5).is_ok());
    // A member's own datagrams, played again, are bad ones of whoever plays them.
    for _ in 0..sources::MOST_BAD {
        let again = opener.open(SOURCE, &bytes, START * 5);
        assert_eq!(again, Err(OpenError::Replayed));
    }
    let limited = opener.open(SOURCE, &bytes, START * 5);
    assert_eq!(limited, Err(OpenError::Limited));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let keys = keys("tyr", &[secret(1)]);
        prop_assert!(open_at_start(&mut opener(&keys), &bytes).is_err());
    }

    #[test]
    fn arbitrary_bytes_under_our_key_id_are_refused(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let keys = keys("tyr", &[secret(1)]);
        let mut bytes = vec![SEAL_VERSION];
        bytes.extend(keys.ring().first().id().0);
        bytes.extend(tail);
        prop_assert!(open_at_start(&mut opener(&keys), &bytes).is_err());
    }

    #[test]
    fn any_content_comes_back(content in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let keys = keys("tyr", &[secret(1)]);
        let bytes = sealer(&keys).datagram(&content);
        prop_assert_eq!(open_at_start(&mut opener(&keys), &bytes).unwrap().content, content);
    }
}
