//! The admin port as its callers see it.

mod api;
mod cluster;
mod description;
mod entities;
mod explain;
mod ledger;
mod listener;
mod rights;
mod world;
