use super::*;

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn one_client_gets_its_share_and_others_theirs() {
    let connections = Connections::new(10, 2);
    let first = connections.enter(ip("10.0.0.1")).unwrap();
    let _second = connections.enter(ip("::ffff:10.0.0.1")).unwrap();
    assert_eq!(
        connections.enter(ip("10.0.0.1")).unwrap_err(),
        Full::ForClient
    );
    let _other = connections.enter(ip("10.0.0.2")).unwrap();
    assert_eq!(connections.open(), 3);
    drop(first);
    let _again = connections.enter(ip("10.0.0.1")).unwrap();
    assert_eq!(connections.open(), 3);
}

#[test]
fn ipv6_clients_are_counted_by_network() {
    let connections = Connections::new(10, 1);
    let _place = connections.enter(ip("2001:db8:1:2::1")).unwrap();
    assert_eq!(
        connections.enter(ip("2001:db8:1:2:ffff::9")).unwrap_err(),
        Full::ForClient
    );
    let _next = connections.enter(ip("2001:db8:1:3::1")).unwrap();
}

#[test]
fn all_places_taken_refuses_everyone() {
    let connections = Connections::new(2, 2);
    let first = connections.enter(None).unwrap();
    let _second = connections.enter(ip("10.0.0.1")).unwrap();
    assert_eq!(
        connections.enter(ip("10.0.0.2")).unwrap_err(),
        Full::Everywhere
    );
    drop(first);
    let _third = connections.enter(ip("10.0.0.2")).unwrap();
}

#[test]
fn nothing_is_kept_for_clients_that_left_or_never_got_in() {
    let connections = Connections::new(100, 1);
    for n in 0..50u8 {
        let _place = connections.enter(ip(&format!("10.0.0.{n}"))).unwrap();
        assert!(connections.enter(ip(&format!("10.0.0.{n}"))).is_err());
    }
    let none = Connections::new(100, 0);
    assert_eq!(none.enter(ip("10.0.0.1")).unwrap_err(), Full::ForClient);
    for connections in [connections, none] {
        assert_eq!(connections.open(), 0);
        assert!(
            connections
                .shards
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }
}

#[test]
fn a_panic_gives_the_place_back() {
    let connections = Connections::new(1, 1);
    let inside = Arc::clone(&connections);
    let outcome = std::thread::spawn(move || {
        let _place = inside.enter(ip("10.0.0.1")).unwrap();
        panic!("a connection's task fails");
    })
    .join();
    assert!(outcome.is_err());
    assert_eq!(connections.open(), 0);
    let _place = connections.enter(ip("10.0.0.1")).unwrap();
}

#[test]
fn threads_never_exceed_the_limits_and_end_at_zero() {
    let connections = Connections::new(12, 5);
    let inside: Arc<[AtomicUsize; 4]> = Arc::default();
    let threads: Vec<_> = (0..4usize)
        .map(|thread| {
            let (connections, inside) = (Arc::clone(&connections), Arc::clone(&inside));
            std::thread::spawn(move || {
                for round in 0..3_000usize {
                    let who = (thread + round) % 4;
                    let address = ip(&format!("10.0.0.{who}"));
                    let places: Vec<_> = (0..7)
                        .filter_map(|_| connections.enter(address).ok())
                        .collect();
                    let now = inside[who].fetch_add(places.len(), Ordering::SeqCst);
                    assert!(now + places.len() <= 5, "one client over its share");
                    assert!(connections.open() <= 12);
                    inside[who].fetch_sub(places.len(), Ordering::SeqCst);
                    drop(places);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(connections.open(), 0);
}
