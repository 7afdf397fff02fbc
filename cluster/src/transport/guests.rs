//! Connections of whoever has not shown yet that it belongs here.
//!
//! Promise: at most [`Guests::most`] are served at a time, and no address takes more than a quarter
//! of these places, so that one that only connects and waits keeps nobody else out. Owner of the
//! tasks that serve them; dropped, they end.

use std::collections::HashMap;
use std::net::IpAddr;

use tokio::task::{Id, JoinError, JoinSet};

/// Tasks, each with the address that it serves.
#[derive(Debug)]
pub(super) struct Guests<T> {
    tasks: JoinSet<T>,
    sources: HashMap<Id, IpAddr>,
    most: usize,
}

impl<T: Send + 'static> Guests<T> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            tasks: JoinSet::new(),
            sources: HashMap::new(),
            most,
        }
    }

    /// Whether one more of `source` may come in.
    pub(super) fn has_room_for(&self, source: IpAddr) -> bool {
        let same = self.sources.values().filter(|other| **other == source);
        self.sources.len() < self.most && same.count() < self.most / 4
    }

    /// Serves one of `source`.
    pub(super) fn serve(
        &mut self,
        source: IpAddr,
        serving: impl Future<Output = T> + Send + 'static,
    ) {
        let id = self.tasks.spawn(serving).id();
        self.sources.insert(id, source);
    }

    /// Waits for the end of one; `None` at once if there are none. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Option<Result<T, JoinError>> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        self.sources.remove(&id);
        Some(ended.map(|(_, result)| result))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn one_address_leaves_places_for_the_others() {
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut guests = Guests::new(8);
        guests.serve(one, futures(true));
        assert!(guests.has_room_for(one));
        guests.serve(one, futures(false));
        assert!(!guests.has_room_for(one) && guests.has_room_for(other));
        assert!(matches!(guests.next().await, Some(Ok(()))));
        assert!(guests.has_room_for(one));
        for last in 3..10 {
            guests.serve(IpAddr::from([10, 0, 0, last]), futures(true));
        }
        assert!(!guests.has_room_for(other), "all places are taken");
    }

    async fn futures(stays: bool) {
        if stays {
            pending().await
        } else {
            ready(()).await
        }
    }
}
