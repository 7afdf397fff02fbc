//! Membership over a network in memory: joins, splits, crashes, pauses, and what bytes may do.

mod failing;
mod joining;
mod net;
mod reading;
