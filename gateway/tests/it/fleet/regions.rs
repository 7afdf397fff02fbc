//! Nodes and providers in two regions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::Check;
use crate::harness::conf::{KEY, model, provider};
use crate::harness::fleet::{Plan, chat, members};
use crate::harness::upstream::chat_completion;
use crate::harness::{Conf, Fleet, Node, Upstream, eventually};

/// Where each node is: the first of a region is not the first of the cluster, but for one.
const REGIONS: [&str; 4] = ["us", "eu", "us", "eu"];

/// A provider that is sick while it is told so.
struct Provider {
    web: Upstream,
    sick: Arc<AtomicBool>,
}

impl Provider {
    fn start() -> Self {
        let sick = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&sick);
        let web = Upstream::start(move |exchange| match told.load(Ordering::SeqCst) {
            false => exchange.json(200, &chat_completion("pong", 10, 5)),
            true => exchange.fail(500, &[]),
        });
        Self { web, sick }
    }

    fn make_sick(&self, sick: bool) {
        self.sick.store(sick, Ordering::SeqCst);
    }
}

/// Two nodes in each region, and a provider in each that has the same model.
fn regional(eu: &Provider, us: &Provider) -> Fleet {
    let ports = [eu, us].map(|provider| provider.web.address.port());
    let plan = Plan {
        conf: Box::new(move |mock| {
            let mut conf = Conf::empty();
            for (region, port) in ["eu", "us"].into_iter().zip(ports) {
                let at = SocketAddr::from((mock.ip(), port));
                let lines = format!("region: {region}\nretries: {{max: 0}}");
                conf.providers += &provider(region, "openai", at, "sk-of-a-provider-1", &lines);
                conf.models += &model("gpt-4o-mini", region, "{input: 1, output: 1}", 100);
            }
            // By weight nearly all would go to one of them.
            conf.keys = format!(
                "  - {{name: demo, value: {KEY}, providers: [{{name: eu, weight: 1000}}, {{name: us}}], \
                 rate_limits: [{{requests: 1000, every: 1d}}]}}\n"
            );
            conf
        }),
        also: vec![eu.web.address, us.web.address],
        own: REGIONS.map(|region| format!("region: {region}")).to_vec(),
        ..Plan::limited("")
    };
    Fleet::start(REGIONS.len(), plan)
}

/// Waits until these nodes name these leaders: of the cluster, of `eu`, of `us`.
#[track_caller]
fn await_leaders(nodes: &[Node], [cluster, eu, us]: [&str; 3]) {
    let expected = json!({"cluster": cluster, "regions": {"eu": eu, "us": us}});
    for node in nodes {
        let view = eventually("the leaders are named", || {
            let view = node.shown("/api/cluster");
            (view["leaders"] == expected).then_some(view)
        });
        for member in members(node) {
            let leads = |name: &str| json!(member["node"] == name);
            assert_eq!(member["leader"], leads(cluster), "{member}");
            let regional = member["node"] == eu || member["node"] == us;
            assert_eq!(member["regional_leader"], json!(regional), "{member}");
        }
        let name = view["node"].as_str().expect("its name");
        let scope = |scope: &str| node.metric("tyr_cluster_leader", &format!("scope=\"{scope}\""));
        assert_eq!(scope("cluster"), f64::from(name == cluster), "{name}");
        assert_eq!(
            scope("region"),
            f64::from(name == eu || name == us),
            "{name}"
        );
    }
}

#[test]
fn each_region_has_a_leader_and_goes_to_its_own_provider_first() {
    let check = Check::begin("regions");
    const EACH: usize = 10;
    let (eu, us) = (Provider::start(), Provider::start());
    let mut fleet = regional(&eu, &us);
    await_leaders(&fleet.nodes, ["n1", "n2", "n1"]);
    for node in &fleet.nodes {
        let shown: BTreeMap<String, String> = members(node)
            .iter()
            .map(|member| (member["node"].to_string(), member["region"].to_string()))
            .collect();
        let expected = (1..).zip(REGIONS);
        let expected =
            expected.map(|(number, region)| (format!("\"n{number}\""), format!("\"{region}\"")));
        assert_eq!(shown, expected.collect());
    }
    // What both providers got of the nodes of one region.
    let ask = |fleet: &Fleet, region: &str| {
        let before = [eu.web.count(), us.web.count()];
        for (node, _) in fleet
            .nodes
            .iter()
            .zip(REGIONS)
            .filter(|(_, of)| *of == region)
        {
            for _ in 0..EACH {
                let answer = node.ask(&chat(1));
                assert_eq!(answer.status(), 200, "{}", answer.text());
            }
        }
        [eu.web.count() - before[0], us.web.count() - before[1]]
    };
    let all = 2 * EACH;
    let (near_eu, near_us) = (ask(&fleet, "eu"), ask(&fleet, "us"));
    eu.make_sick(true);
    let (sick_eu, well_us) = (ask(&fleet, "eu"), ask(&fleet, "us"));
    eu.make_sick(false);
    us.make_sick(true);
    let (well_eu, sick_us) = (ask(&fleet, "eu"), ask(&fleet, "us"));
    us.make_sick(false);
    check.measured(
        format!(
            "requests at the providers [eu, us]: of nodes in eu {near_eu:?}, in us {near_us:?}; \
             eu is sick: {sick_eu:?}, {well_us:?}; us is sick: {well_eu:?}, {sick_us:?}"
        ),
        format!("the own one first: [{all}, 0], [0, {all}]; both where it is sick; none fails"),
    );
    assert_eq!((near_eu, near_us), ([all, 0], [0, all]));
    assert_eq!((sick_eu, well_us), ([all, all], [0, all]));
    assert_eq!((well_eu, sick_us), ([all, 0], [all, all]));
    // The limit is one for both regions.
    let asked = 6 * all;
    for node in &fleet.nodes {
        eventually("every node counts all of them", || {
            let used = node.standing_of("demo", "requests")["used"].clone();
            (used == asked).then_some(())
        });
    }
    // With the first the cluster and one region have another leader, and the other region has not.
    let mut gone = fleet.nodes.remove(0);
    gone.process.signal("TERM");
    assert!(
        gone.process.wait(Duration::from_secs(30)).is_some(),
        "it ends"
    );
    await_leaders(&fleet.nodes, ["n2", "n2", "n3"]);
}
