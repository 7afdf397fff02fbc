//! Which addresses the gateway may open connections to.
//!
//! Promise: the judgement is made on the socket address that is dialled, after
//! resolution, so no spelling of a host (decimal, octal, mapped, a name that
//! points inwards) gets around it. A refusal is a value, never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The rule of one provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EgressRule {
    /// Addresses of the public internet only.
    PublicOnly,
    /// Private and local networks too, for models served in-house. Addresses
    /// at which clouds hand out machine credentials stay closed.
    AllowPrivate,
}

impl EgressRule {
    /// Whether a connection to `address` may be opened.
    pub fn allows(self, address: IpAddr) -> bool {
        match reach(address) {
            Reach::Public => true,
            Reach::Inside => self == EgressRule::AllowPrivate,
            Reach::Metadata => false,
        }
    }
}

/// How far from this machine an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Public,
    Inside,
    Metadata,
}

/// Services from which a cloud hands its machines their credentials.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254), // AWS, GCP, Azure and most others
    Ipv4Addr::new(169, 254, 170, 2),   // AWS ECS task credentials
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254), // AWS
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254), // GCP
];

fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Metadata;
    }
    let [a, b, c, _] = address.octets();
    let inside = a == 0 // "this network"; Linux dials itself
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0) // protocol assignments
        || (a == 192 && b == 88 && c == 99) // former 6to4 relays
        || (a == 198 && (18..20).contains(&b)) // benchmarking
        || address.is_documentation()
        || address == Ipv4Addr::new(168, 63, 129, 16) // Azure's host agent
        || a >= 224; // multicast, reserved, broadcast
    if inside { Reach::Inside } else { Reach::Public }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if METADATA_V6.contains(&address) {
        return Reach::Metadata;
    }
    if let Some(v4) = embedded_v4(address) {
        return reach_v4(v4);
    }
    let segments = address.segments();
    // Only 2000::/3 is handed out for the public internet, less a few ranges.
    let global = segments[0] & 0xe000 == 0x2000;
    let special = match (segments[0], segments[1]) {
        (0x2001, next) => next < 0x0200 || next == 0x0db8, // Teredo, ORCHID; documentation
        (0x3fff, next) => next < 0x1000,                   // documentation
        _ => false,
    };
    if global && !special {
        Reach::Public
    } else {
        Reach::Inside
    }
}

/// The IPv4 address that a packet to `address` ends at, where translation
/// (mapped, compatible, NAT64, 6to4) makes that a different one.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let pair = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // ::1 and :: end up in 0.0.0.0/8, which is inside as well.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => pair(high, low),
        [0, 0, 0, 0, 0xffff, 0, high, low] => pair(high, low), // ::ffff:0:a.b.c.d
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => pair(high, low), // NAT64
        [0x2002, high, low, ..] => pair(high, low),            // 6to4
        _ => None,
    }
}

#[cfg(test)]
mod tests;
