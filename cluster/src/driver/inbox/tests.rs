use super::*;
use crate::entity::Change;
use policy::Timestamp;

fn revoked(hash: &str) -> Incoming {
    let text = String::new;
    let change = Change {
        at: Timestamp(1),
        actor: text(),
        peer: text(),
        action: text(),
        kind: text(),
        name: text(),
        before: None,
        after: None,
    };
    let hash = hash.to_owned();
    Incoming::Revoked { hash, change }
}

fn duty(task: &str, term: u64) -> Incoming {
    let (task, scope) = (task.to_owned(), "cluster".to_owned());
    Incoming::Duty { task, scope, term }
}

#[test]
fn newer_news_replaces_older_of_the_same_thing() {
    let inbox = Arc::new(Inbox::default());
    for news in [
        Incoming::Poll,
        revoked("a"),
        Incoming::Poll,
        revoked("b"),
        duty("prices", 1),
        duty("prices", 2),
        revoked("a"),
    ] {
        assert!(inbox.put(news));
    }
    inbox.close();
    let receiver = inbox.receiver().unwrap();
    let wait = Duration::from_secs(5);
    for expected in [
        Incoming::Poll,
        revoked("b"),
        duty("prices", 2),
        revoked("a"),
    ] {
        assert_eq!(receiver.recv_timeout(wait), Ok(expected));
    }
    assert_eq!(receiver.recv_timeout(wait), Err(NoNews::EverMore));
}

fn outcome(task: &str, bytes: usize) -> Incoming {
    Incoming::Outcome(crate::message::Outcome {
        task: task.to_owned(),
        scope: String::new(),
        term: 1,
        hash: [0; 32],
        at: Timestamp(1),
        body: vec![0; bytes].into(),
    })
}

#[test]
fn what_waits_is_bounded_in_bytes_and_room_comes_back() {
    let inbox = Arc::new(Inbox::default());
    let large = 4 << 20;
    let kept = (0..100).filter(|task| inbox.put(outcome(&task.to_string(), large)));
    assert_eq!(kept.count(), 15, "of 4 MiB and a little in 64 MiB");
    assert!(inbox.put(revoked("small things still fit")));
    assert!(
        inbox.put(outcome("0", large)),
        "in the place of its older one"
    );
    assert!(!inbox.put(outcome("0", 9 * large)));
    let receiver = inbox.receiver().unwrap();
    while receiver.recv_timeout(Duration::ZERO).is_ok() {}
    assert!(inbox.put(outcome("99", 15 * large)));
}

#[test]
fn a_full_inbox_takes_newer_news_as_fast_as_an_empty_one() {
    let inbox = Arc::new(Inbox::default());
    for number in 0..MOST {
        assert!(inbox.put(revoked(&number.to_string())));
    }
    assert!(!inbox.put(revoked("one more")));
    let begun = Instant::now();
    for number in 0..MOST {
        assert!(inbox.put(revoked(&number.to_string())));
    }
    // To look at each of those that wait would take minutes.
    assert!(begun.elapsed() < Duration::from_secs(30));
    let receiver = inbox.receiver().unwrap();
    assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(revoked("0")));
}

#[test]
fn there_is_one_receiver() {
    let inbox = Arc::new(Inbox::default());
    let receiver = inbox.receiver().unwrap();
    assert!(inbox.receiver().is_none());
    assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(NoNews::Yet));
}

#[test]
fn whoever_waits_is_woken() {
    let inbox = Arc::new(Inbox::default());
    let receiver = inbox.receiver().unwrap();
    let waits = std::thread::spawn(move || receiver.recv_timeout(Duration::from_secs(60)));
    assert!(inbox.put(Incoming::Poll));
    assert_eq!(waits.join().unwrap(), Ok(Incoming::Poll));
}
