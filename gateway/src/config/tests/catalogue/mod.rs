//! Entities of file and API together.

mod keys;
mod limits;
mod sources;
mod world;
mod write;
