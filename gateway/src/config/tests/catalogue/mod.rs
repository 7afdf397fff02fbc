//! Entities of file and API together.

mod keys;
mod limits;
mod peers;
mod sources;
mod world;
mod write;
