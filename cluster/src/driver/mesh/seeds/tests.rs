//! What names mean, and where this node stands among them.

use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn own() -> Own {
    Own {
        advertised: at("10.0.0.2:10101"),
        bound: at("0.0.0.0:10101"),
    }
}

fn seeds(peers: &[&str]) -> Seeds {
    let peers = peers.iter().map(|&peer| peer.to_owned()).collect();
    let (advertised, bound) = (at("127.0.0.1:10101"), at("127.0.0.1:10101"));
    Seeds::new(peers, Own { advertised, bound })
}

#[tokio::test]
async fn the_own_address_and_what_means_nothing_are_left_out() {
    let peers = [
        "127.0.0.1:10101",
        "127.0.0.2:7",
        "no port",
        "[::1]:7",
        "127.0.0.2:7",
    ];
    let mut seeds = seeds(&peers);
    let found = seeds.look().unwrap().await;
    let meant = seeds.take(found);
    assert_eq!(meant.others, [at("127.0.0.2:7"), at("[::1]:7")]);
    assert_eq!((meant.unknown, meant.rank), (1, Some(0)));
    assert!(self::seeds(&[]).look().is_none());
}

#[tokio::test]
async fn a_name_follows_its_machine_and_is_kept_while_it_cannot_be_looked_up() {
    let mut seeds = seeds(&["one:7", "other:7"]);
    assert!(seeds.look().is_some());
    assert!(seeds.look().is_none(), "one at a time");
    let of = |text: &str| Some(vec![at(text)]);
    let (old, new, other) = ("10.0.0.1:7", "10.0.0.9:7", "10.0.0.2:7");
    let first = seeds.take(vec![of(old), of(other)]);
    assert_eq!(first.others, [at(old), at(other)]);
    assert!(seeds.look().is_some());
    let moved = seeds.take(vec![of(new), None]);
    assert_eq!(moved.others, [at(other), at(new)]);
    assert_eq!(seeds.take(vec![None, None]), moved);
}

#[test]
fn who_is_named_and_the_place_of_this_node() {
    // (names and what they mean, others, unknown, rank)
    type Named = &'static [(&'static str, &'static [&'static str])];
    let cases: [(Named, usize, u64, Option<u64>); 7] = [
        // Each by its name, the own among them.
        (
            &[
                ("t-0:10101", &["10.0.0.1:10101"]),
                ("t-1:10101", &["10.0.0.2:10101"]),
                ("t-2:10101", &["10.0.0.3:10101"]),
            ],
            2,
            0,
            Some(1),
        ),
        // One cannot be looked up yet; it may be this node.
        (&[("t-0:1", &["10.0.0.1:1"]), ("t-1:1", &[])], 1, 1, None),
        // One name for all.
        (
            &[(
                "t:1",
                &["10.0.0.1:10101", "10.0.0.2:10101", "10.0.0.3:10101"],
            )],
            2,
            0,
            None,
        ),
        // Others alone, by address.
        (
            &[
                ("10.0.0.1:10101", &["10.0.0.1:10101"]),
                ("10.0.0.3:10101", &["10.0.0.3:10101"]),
            ],
            2,
            0,
            Some(1),
        ),
        // Others alone, by name.
        (&[("t-0:1", &["10.0.0.1:1"])], 1, 0, None),
        // The own name by the hosts file.
        (&[("t-1:10101", &["127.0.1.1:10101"])], 0, 0, Some(0)),
        (&[("t-1:7", &["127.0.1.1:7"])], 1, 0, None),
    ];
    for (named, others, unknown, rank) in cases {
        let found = named.iter().map(|(name, means)| {
            let means = means.iter().map(|text| at(text)).collect();
            ((*name).to_owned(), means)
        });
        let seeds = made_of(found, own());
        let seen = (seeds.others.len(), seeds.unknown, seeds.rank);
        assert_eq!(seen, (others, unknown, rank), "{named:?}");
    }
}
