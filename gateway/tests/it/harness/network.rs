//! Network namespaces of our own: one a node, on one bridge, so that a node can be cut off from
//! others while clients, provider and database still reach it.
//!
//! Needs the right to make them (root) and `ip`. Everything goes when the value is dropped.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A bridge in the tests' own namespace, and a namespace for each node.
pub struct Network {
    tag: String,
    /// The first three numbers of all addresses.
    net: [u8; 3],
    nodes: usize,
}

impl Network {
    /// `nodes` namespaces, numbered from 0. Each node has a second address on the bridge, for a
    /// proxy that stands before it.
    pub fn new(nodes: usize) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = std::process::id().wrapping_mul(31).wrapping_add(number);
        let [_, _, high, low] = id.to_be_bytes();
        let network = Self {
            tag: format!("ty{:04x}", id & 0xffff),
            net: [10, high | 0x80, low],
            nodes,
        };
        // A run that was killed leaves its own behind, and process ids come again.
        network.remove();
        let bridge = network.bridge();
        let mut script = format!(
            "ip link add {bridge} type bridge\nip addr add {}/24 dev {bridge}\nip link set {bridge} up\n",
            network.outside()
        );
        for node in 0..nodes {
            let (name, link) = (network.name(node), format!("{}v{node}", network.tag));
            script += &format!(
                "ip addr add {proxy}/24 dev {bridge}\nip netns add {name}\n\
                 ip link add {link} type veth peer name eth0 netns {name}\n\
                 ip link set {link} master {bridge} up\nip -n {name} link set lo up\n\
                 ip -n {name} addr add {own}/24 dev eth0\nip -n {name} link set eth0 up\n",
                proxy = network.proxy(node),
                own = network.address(node),
            );
        }
        run(&script);
        network
    }

    /// The name of a node's namespace.
    pub fn name(&self, node: usize) -> String {
        format!("{}n{node}", self.tag)
    }

    /// Where a node is.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        self.at(1 + node)
    }

    /// Where what stands before a node is, on the bridge.
    pub fn proxy(&self, node: usize) -> Ipv4Addr {
        self.at(101 + node)
    }

    /// Where the tests themselves are, as nodes see it.
    pub fn outside(&self) -> Ipv4Addr {
        self.at(254)
    }

    /// Lets nothing of `from` arrive at `to`.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        run(&format!(
            "ip -n {} route add blackhole {}/32",
            self.name(from),
            self.address(to)
        ));
    }

    /// Parts these nodes from all others, both ways.
    pub fn cut(&self, apart: &[usize]) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                if apart.contains(&from) != apart.contains(&to) {
                    self.cut_one_way(from, to);
                }
            }
        }
    }

    /// Takes all cuts back.
    pub fn heal(&self) {
        let script: String = (0..self.nodes)
            .map(|node| format!("ip -n {} route flush type blackhole\n", self.name(node)))
            .collect();
        run(&script);
    }

    /// How many nodes it has room for.
    pub fn len(&self) -> usize {
        self.nodes
    }

    /// Takes all of it away; what is gone already is no trouble.
    fn remove(&self) {
        let names: String = (0..self.nodes)
            .map(|node| format!("ip netns del {}\n", self.name(node)))
            .collect();
        let script = format!("{names}ip link del {}\n", self.bridge());
        Command::new("sh").args(["-c", &script]).output().ok();
    }

    fn bridge(&self) -> String {
        format!("{}br", self.tag)
    }

    fn at(&self, host: usize) -> Ipv4Addr {
        let host = u8::try_from(host).expect("a small network");
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, host)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

#[track_caller]
fn run(script: &str) {
    let done = Command::new("sh")
        .args(["-e", "-c", script])
        .output()
        .expect("a shell");
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "network namespaces (root and iproute2 are needed): {complaint}"
    );
}
