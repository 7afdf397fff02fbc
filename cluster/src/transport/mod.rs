//! How nodes reach each other: sealed datagrams, sealed exchanges over TCP, links over gRPC.
//!
//! Promise: who does not have the cluster's secret can neither read what nodes say nor have a byte
//! of theirs believed; bytes of any kind cost a bounded amount of memory and never panic. Nothing
//! here decides anything: what arrives goes to the core, what the core says goes out.
//!
//! - [`keys`]: what is derived from the secrets; several may be known while they are rotated.
//! - [`seal`]: encryption, proof of origin and protection against replays of gossip.
//! - [`udp`], [`tcp`]: gossip packets, and the exchanges that do not fit one or get no answer.
//! - [`tls`], [`grpc`]: the links. Certificates are made of the secret, or are the operator's.
//!
//! What remains: a datagram that was recorded may be played once to a node that has just started
//! or that it was not meant for, since each receiver remembers for itself what it has seen. It says
//! what was true at its time, from a sender that it names, so membership may hold a view of some
//! seconds ago until the next probe, and no counter can be changed by it. Somebody who can forge the
//! source address of a node can use up that address's allowance of bad datagrams; its gossip then
//! goes over TCP. Whoever has the secret is a member, and is believed what it passes on of others.

pub(crate) mod grpc;
mod guests;
pub(crate) mod keys;
pub(crate) mod seal;
pub(crate) mod socket;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod traffic;
pub(crate) mod udp;
