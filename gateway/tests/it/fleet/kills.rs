//! A node dies without a word: the others lose nothing, and what it did is there when it is back.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Check, scale};
use crate::harness::Fleet;
use crate::harness::counted::Counted;
use crate::harness::fleet::{Plan, chat, state_of};
use crate::harness::load::{Diary, Load};
use crate::harness::wait::within;

/// How old a settled request is at most that a kill may take: one commit interval, and the time that
/// a busy machine takes to answer, to write and to look at the clock.
const AT_RISK: Duration = Duration::from_millis(300);

/// How long others may take to agree that a node is gone whose port refuses.
const AGREED: Duration = Duration::from_secs(5);

/// How long until a dead node's holds are over: its heartbeat has to be old, and be read; and until
/// what it told one of the others only has reached all.
const OVER: Duration = Duration::from_secs(75);

#[test]
fn a_kill_costs_the_others_no_request_and_no_count() {
    let check = Check::begin("R1");
    let mut fleet = Fleet::start(3, Plan::limited(""));
    let of = |node: usize| Load::start(fleet.nodes[node].data, vec![chat(3), chat(4)]);
    let (doomed, others) = (of(0), [of(1), of(2)]);
    within(Duration::from_secs(60), || {
        (doomed.served() > 100).then_some(())
    })
    .expect("traffic");
    let killed = Instant::now();
    fleet.nodes[0].process.kill();
    let down = |node: usize| state_of(&fleet.nodes[node], "n1").as_deref() == Some("down");
    let took = within(AGREED * 6, || {
        (down(1) && down(2)).then(|| killed.elapsed())
    });
    let goal = others[0].served() + 100;
    within(Duration::from_secs(30), || {
        (others[0].served() > goal).then_some(())
    })
    .expect("traffic goes on");
    let others: Vec<Diary> = others.into_iter().flat_map(Load::stop).collect();
    for diary in &others {
        assert!(diary.fault.is_none(), "{:?}", diary.fault);
    }
    let doomed = doomed.stop();
    check.measured(
        format!(
            "0 of {} failed on the other two; they agree after {took:?}",
            served(&others)
        ),
        format!("0; {AGREED:?}"),
    );
    assert!(
        took.is_some_and(|took| took < AGREED * scale().patience),
        "{took:?}"
    );
    let safe = |diary: &Diary| {
        let safe = diary.served.iter();
        let safe = safe.filter(|one| killed.duration_since(one.at) > AT_RISK);
        safe.map(|one| one.request_id.clone()).collect::<Vec<_>>()
    };
    let kept: BTreeSet<String> = doomed.iter().flat_map(safe).collect();
    let at_risk = served(&doomed) - kept.len() as u64;
    // In flight: one request of each client.
    let most = at_risk + doomed.len() as u64;
    lives_on(&fleet, served(&others) + served(&doomed), at_risk);
    fleet.nodes[0].start_again();
    fleet.await_whole();
    // Nodes may have heard of what has no record: it was told before it was written.
    let all = others.iter().flat_map(|diary| &diary.served);
    let all: BTreeSet<&String> = all.map(|one| &one.request_id).chain(&kept).collect();
    let settled = within(Duration::from_secs(60), || {
        let (provided, counted) = (fleet.provided()?, fleet.counted()?);
        let stored: BTreeSet<String> = fleet.database.request_ids().into_iter().collect();
        let recorded = stored.len() as u64;
        let whole = all.iter().all(|id| stored.contains(*id));
        let between = (recorded..=provided.requests).contains(&counted.requests);
        (whole && between).then_some((provided.requests, counted.requests, recorded))
    });
    let Some((provided, counted, recorded)) = settled else {
        let nodes: Vec<_> = fleet.nodes.iter().map(Counted::seen_by).collect();
        panic!(
            "of {} answers, provider {:?}, nodes {nodes:?}, records {:?}",
            all.len(),
            fleet.provided(),
            fleet.recorded()
        );
    };
    check.measured(
        format!(
            "0 of {} answers lost; provider {provided}, all nodes {counted}, records {recorded}",
            all.len()
        ),
        format!("0 lost; at most {most} of the last commit or in flight without a record"),
    );
    assert!(
        provided - recorded <= most,
        "{provided}, {recorded}, {most}"
    );
}

fn served(diaries: &[Diary]) -> u64 {
    diaries.iter().map(|diary| diary.served.len() as u64).sum()
}

/// The others come to the same figures without the dead node, lacking its last moments at most, and
/// nothing stays held for it.
#[track_caller]
fn lives_on(fleet: &Fleet, served: u64, at_risk: u64) {
    let begun = Instant::now();
    let same = within(OVER, || {
        let [one, other] = [1, 2].map(|node| Counted::by(&fleet.nodes[node]));
        one.filter(|_| one == other)
    });
    let same = same.unwrap_or_else(|| {
        let seen = [1, 2].map(|node| fleet.nodes[node].standing("demo"));
        panic!("not the same after {OVER:?}: {seen:?}")
    });
    let lost = served.saturating_sub(same.requests);
    println!(
        "check: R2 | the others lack {lost} of {served} | at most {at_risk}, what was done in its last {AT_RISK:?} | {} s",
        begun.elapsed().as_secs()
    );
    assert!(
        lost <= at_risk,
        "{lost} counts of {served} are lost, at risk {at_risk}"
    );
}
