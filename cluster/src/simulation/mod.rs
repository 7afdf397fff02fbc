//! A whole cluster in one thread and one second: the real cores, counters and admission, with time,
//! network, database and faults made of a seed.
//!
//! Promise: the same seed gives the same run, event by event. A run holds the rules of a cluster
//! against what an onlooker booked, who sees all nodes at once; the first one broken ends it, with
//! a line that repeats it. What is simulated is everything around the cores: no socket, no disk, no
//! thread, no clock.
//!
//! Rules: I1 strict limits are never passed; I2 others are passed by no more than delays explain,
//! and than some node tells; I3 what was settled is counted, by every node and in the database,
//! except what crashed processes had told nobody; I4 no holds remain of requests that have ended;
//! I5 nodes agree soon after the last change, on entities too, of which none lacks what it says it
//! has; I6 a revoked key is refused soon; I7 a term has one holder; I8 who serves has caught up; I9
//! queues are bounded; I10 nothing panics.

mod agenda;
mod chance;
mod clock;
mod database;
mod figures;
mod ledger;
mod links;
mod load;
mod node;
mod run;
mod scenario;
mod shelf;
mod traffic;
mod weather;
mod world;

mod tests;
