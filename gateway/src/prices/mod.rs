//! What models cost by a list that somebody else keeps.
//!
//! Promise: a price is read from the digits of the list and never passes
//! through a float; a model whose price no list has said is not served, and
//! never free. A list that cannot be fetched or read changes nothing: the last
//! good one stays, also over a restart.
//!
//! Owner: the list in use belongs to the running configuration, which is
//! resolved again when a price changes; [`PriceSync`] brings new ones there,
//! and [`PriceBoard`] says how that goes. Failure: a [`FetchError`] on the
//! board, in the log and counted.
//!
//! Read in this order: `litellm` (the list as it is published), `list` (what
//! is kept of it), `source` (where it comes from), `kept` (the last good one
//! on disk), `sync` (when, and who in a cluster).

mod amount;
mod board;
mod kept;
mod list;
mod litellm;
mod source;
mod sync;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use board::{PriceBoard, PriceState};
pub use list::{ListError, Listed, PriceList, Wanted};
pub use source::{FetchError, Fetched, PriceSource};
pub use sync::{Fleet, Order, Orders, PriceDuties, PriceSync, TASK, duties, task};

/// Where prices come from, and what is known of them. Part of the running
/// configuration: its models were priced by this list.
#[derive(Clone, Debug, Default)]
pub struct Pricing {
    /// `catalogue` of the configuration.
    pub source: Option<Arc<PriceSource>>,
    /// The list in use; empty before there was one.
    pub list: Arc<PriceList>,
}
