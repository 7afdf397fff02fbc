//! What peers send and ask for.

use policy::Timestamp;
use proptest::prelude::*;

use super::*;

fn entity(name: &str, revision: u64, body: Option<&str>) -> Entity {
    Entity {
        kind: "team".to_owned(),
        name: name.to_owned(),
        revision,
        body: body.map(Into::into),
        changed_at: Timestamp(1),
    }
}

/// Writes through one node and gives what it would send to its peers.
fn sent(log: &EntityLog, name: &str, body: Option<&str>) -> (u64, Vec<Entity>) {
    let writes = [entity_write(name, Expect::Any, body)];
    let written = log.write(&writes, &change(name)).unwrap();
    (written[0].revision - 1, written)
}

#[test]
fn what_a_peer_sent_is_told_without_the_store() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    let first = sent(&one, "a", Some("1"));
    let second = sent(&one, "b", Some("2"));
    assert_eq!((one.revision(), two.revision()), (2, 0));
    bench.store.set_down(true);
    assert!(two.offer(first.0, first.1.clone()));
    assert_eq!(two.poll().unwrap(), first.1);
    assert!(!two.offer(first.0, first.1.clone()), "twice");
    assert!(two.offer(second.0, second.1));
    assert_eq!(names(two.poll().unwrap()), ["b"]);
    assert_eq!(two.revision(), 2);
    two.poll().unwrap_err();
    // It is in the last-good file like everything else.
    drop(two);
    let mut loaded = names(bench.open_last_good(1).loaded());
    loaded.sort();
    assert_eq!(loaded, ["a", "b"]);
    bench.store.set_down(false);
    assert_eq!(names(bench.open(1).poll().unwrap()), [""; 0]);
}

#[test]
fn a_gap_waits_for_what_is_missing_or_for_the_store() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    let first = sent(&one, "a", Some("1"));
    let second = sent(&one, "b", Some("2"));
    let third = sent(&one, "a", None);
    bench.store.set_down(true);
    assert!(two.offer(third.0, third.1.clone()));
    two.poll().unwrap_err();
    assert!(two.offer(second.0, second.1));
    two.poll().unwrap_err();
    assert_eq!(two.revision(), 0, "nothing is told before its time");
    assert!(two.offer(first.0, first.1));
    assert_eq!(names(two.poll().unwrap()), ["a"]);
    assert_eq!(names(two.poll().unwrap()), ["b"]);
    assert_eq!(names(two.poll().unwrap()), ["-a"]);
}

#[test]
fn what_the_store_told_first_is_not_told_again() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    let missed = sent(&one, "c", Some("3"));
    let later = sent(&one, "d", Some("4"));
    assert!(two.offer(later.0, later.1));
    assert_eq!(names(two.poll().unwrap()), ["c", "d"]);
    assert!(!two.offer(missed.0, missed.1));
    assert_eq!(names(two.poll().unwrap()), [""; 0]);
    assert_eq!(lock(&two.shared.offers).take(0), None, "nothing is kept");
}

#[test]
fn ones_own_writes_are_no_gap_and_no_news() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    put(&two, "own", Some("1"));
    let theirs = sent(&one, "theirs", Some("2"));
    put(&two, "own", Some("3"));
    assert_eq!(two.revision(), 1, "what is between is not seen yet");
    bench.store.set_down(true);
    assert!(two.offer(theirs.0, theirs.1));
    assert_eq!(names(two.poll().unwrap()), ["theirs"]);
    assert_eq!(two.revision(), 3);
    bench.store.set_down(false);
    assert_eq!(names(two.poll().unwrap()), [""; 0]);
    // Sent back by a peer that was asked for everything.
    let all = one.since(0).unwrap();
    assert_eq!(names(all.clone()), ["theirs", "own"]);
    assert!(!two.offer(0, all));
}

#[test]
fn what_cannot_be_right_is_dropped() {
    let bench = Bench::new();
    let log = bench.open(0);
    let large = "x".repeat((1 << 20) + 1);
    for (after, entities) in [
        (0, vec![]),
        (3, vec![entity("a", 3, None)]),
        (0, vec![entity("a", 2, None), entity("b", 1, None)]),
        (0, vec![entity("a", 1, Some(&large))]),
        (0, vec![entity(&large, 1, None)]),
        // After it no change would ever be news.
        (0, vec![entity("a", u64::MAX, None)]),
        (0, vec![entity("a", i64::MAX as u64, None)]),
    ] {
        assert!(!log.offer(after, entities.clone()), "{after}");
        assert_eq!(names(log.poll().unwrap()), [""; 0]);
    }
    // Only so much waits.
    let some = |first: u64| (0..1_000).map(|at| entity("a", first + at, None)).collect();
    let kept = (1..20_u64).filter(|at| log.offer(at * 10_000, some(at * 10_000 + 1)));
    assert_eq!(kept.count(), 8);
    let body = "x".repeat(1 << 20);
    let kept = (30..60_u64).filter(|at| log.offer(*at, vec![entity("b", at + 1, Some(&body))]));
    assert_eq!(kept.count(), 15);
}

#[test]
fn a_peer_is_told_page_by_page_with_and_without_the_store() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    let body = "x".repeat(1 << 19);
    for (name, count) in [("few", 3), ("many", 600), ("more", 2)] {
        let body = if count < 10 { &*body } else { "{}" };
        let writes: Vec<EntityWrite> = (0..count)
            .map(|number| entity_write(&format!("{name} {number}"), Expect::Any, Some(body)))
            .collect();
        one.write(&writes, &change(name)).unwrap();
    }
    put(&one, "few 1", None);
    one.poll().unwrap();
    assert_eq!(one.since(u64::MAX).unwrap(), []);
    bench.store.set_down(true);
    assert_eq!(one.since(u64::MAX).unwrap(), []);
    bench.store.set_down(false);
    let pages = |log: &EntityLog| {
        let (mut after, mut pages) = (0, Vec::new());
        loop {
            let page = log.since(after).unwrap();
            let Some(last) = page.last() else {
                return pages;
            };
            assert!(page[0].revision > after);
            after = last.revision;
            pages.push(page);
        }
    };
    let from_store = pages(&one);
    let sizes: Vec<usize> = from_store.iter().map(Vec::len).collect();
    assert_eq!(sizes, [602, 3], "no revision is cut");
    bench.store.set_down(true);
    one.poll().unwrap_err();
    assert_eq!(pages(&one), from_store, "who wrote it tells it, too");
    bench.store.set_down(false);
    let mut told = 0;
    while let Some(page) = Some(two.poll().unwrap()).filter(|page| !page.is_empty()) {
        told += page.len();
    }
    assert_eq!(told, 605);
    bench.store.set_down(true);
    let from_file = pages(&two);
    assert_eq!(from_file, from_store);

    // A third node without the store learns all of it from them.
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(bench.store.clone());
    let third = EntityLog::open_last_good(store, AuditKey::keyless(), dir.path()).unwrap();
    let mut learnt = Vec::new();
    loop {
        let after = third.revision();
        if !third.offer(after, two.since(after).unwrap()) {
            break;
        }
        learnt.extend(third.poll().unwrap());
    }
    assert_eq!(learnt, from_file.concat());
    assert_eq!(third.revision(), two.revision());
}

#[test]
fn an_adopted_revocation_survives_a_restart_and_comes_to_the_store_once() {
    let bench = Bench::new();
    let [one, two] = [bench.open(0), bench.open(1)];
    bench.store.set_down(true);
    assert_eq!(
        one.revoke("00ff", &change("key")).unwrap(),
        Persisted(false)
    );
    let sent = one.pending_revocations();
    assert_eq!(sent, [("00ff".to_owned(), change("key"))]);
    for (hash, change) in &sent {
        assert!(two.adopt_revocation(hash, change));
        assert!(two.adopt_revocation(hash, change), "again is no harm");
    }
    assert_eq!(two.pending_revocations(), sent);
    drop(two);
    let two = bench.open_last_good(1);
    assert_eq!(names(two.loaded()), ["00ff"]);
    assert_eq!(two.pending_revocations(), sent);

    bench.store.set_down(false);
    let brought = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&brought);
    two.on_brought(move |hash| lock(&told).push(hash.to_owned()));
    two.bring_revocations().unwrap();
    assert_eq!(*lock(&brought), ["00ff"]);
    one.bring_revocations().unwrap();
    assert_eq!(bench.audit(), ["key"], "once");
    assert!(one.pending_revocations().is_empty() && two.pending_revocations().is_empty());
    // It is known; whoever sends it once more makes no work.
    assert!(two.adopt_revocation("00ff", &change("key")));
    assert_eq!(two.waiting_revocations(), 0);
    for log in [&one, &two] {
        assert_eq!(names(log.poll().unwrap()), [""; 0]);
    }
    assert!(!two.adopt_revocation("", &change("key")));
    assert!(!two.adopt_revocation(&"f".repeat(129), &change("key")));
    assert_eq!(names(bench.open(0).loaded()), ["00ff"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes from peers, in whatever order and however often, and whenever the store is
    /// asked: a node tells the others' changes as the store has them, and each state once.
    #[test]
    fn offers_and_polls_in_any_order_tell_what_the_store_has(
        writes in prop::collection::vec((0_usize..2, 0_u8..4, any::<bool>()), 1..12),
        steps in prop::collection::vec((0_usize..16, any::<bool>(), any::<bool>()), 0..40),
    ) {
        let bench = Bench::new();
        let [one, two] = [bench.open(0), bench.open(1)];
        let mut sent_by_one = Vec::new();
        for (number, (node, name, alive)) in writes.iter().enumerate() {
            let body = format!("{number}");
            let log = [&one, &two][*node];
            let write = [entity_write(&format!("{name}"), Expect::Any, Some(&body))];
            let write = if *alive { write } else {
                [entity_write(&format!("{name}"), Expect::Any, None)]
            };
            if let Ok(written) = log.write(&write, &change("x")) && *node == 0 {
                sent_by_one.push((written[0].revision - 1, written));
            }
        }
        let mut known: std::collections::BTreeMap<String, Entity> = Default::default();
        let mut last = 0;
        for (which, page, with_store) in steps {
            if page {
                let after = which as u64 / 2;
                two.offer(after, one.since(after).unwrap());
            } else if let Some((after, entities)) = sent_by_one.get(which) {
                two.offer(*after, entities.clone());
            }
            bench.store.set_down(!with_store);
            for entity in two.poll().unwrap_or_default() {
                prop_assert!(entity.revision > last, "{entity:?} after {last}");
                known.insert(entity.name.clone(), entity);
            }
            bench.store.set_down(false);
            last = last.max(known.values().map(|entity| entity.revision).max().unwrap_or(0));
            prop_assert!(two.revision() >= last);
        }
        while let Some(page) = Some(two.poll().unwrap()).filter(|page| !page.is_empty()) {
            for entity in page {
                known.insert(entity.name.clone(), entity);
            }
        }
        for entity in one.since(0).unwrap() {
            let own = sent_by_one.iter().all(|(_, sent)| !sent.contains(&entity));
            if !own {
                prop_assert_eq!(known.get(&entity.name), Some(&entity));
            }
        }
    }
}
