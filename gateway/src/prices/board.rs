//! How the price list fares, for who asks.

use arc_swap::ArcSwap;
use policy::Timestamp;

use super::PriceList;

/// What is known of the price list now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceState {
    /// Models in it that have a price; 0 = there is no list.
    pub models: usize,
    /// When it was last found to be what its source says.
    pub fetched_at: Option<Timestamp>,
    /// When this node last asked the source.
    pub tried_at: Option<Timestamp>,
    /// Why the last try, or the taking over of what another node found, failed.
    pub error: Option<String>,
}

/// Where [`super::PriceSync`] says how it goes.
#[derive(Debug, Default)]
pub struct PriceBoard {
    state: ArcSwap<PriceState>,
}

// === impl PriceBoard ===

impl PriceBoard {
    /// As it stands.
    pub fn state(&self) -> PriceState {
        self.state.load().as_ref().clone()
    }

    pub(super) fn took(&self, list: &PriceList) {
        self.change(|state| {
            state.models = list.len();
            state.fetched_at = (!list.is_empty()).then(|| list.fetched_at());
            state.error = None;
        });
    }

    pub(super) fn trying(&self, at: Timestamp) {
        self.change(|state| state.tried_at = Some(at));
    }

    pub(super) fn failed(&self, error: &str) {
        self.change(|state| state.error = Some(error.to_owned()));
    }

    /// One writer: the task that keeps the list fresh.
    fn change(&self, change: impl Fn(&mut PriceState)) {
        let mut next = self.state();
        change(&mut next);
        self.state.store(std::sync::Arc::new(next));
    }
}
