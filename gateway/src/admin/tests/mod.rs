//! The admin port as its callers see it.

mod api;
mod listener;
mod world;
