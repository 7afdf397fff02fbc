//! Room for frames that were read and wait for the driver.
//!
//! Promise: frames that wait take at most [`ROOM`] bytes of memory, those of one node at most
//! [`SHARE`], over however many links. A link that finds no room is read no further until there is:
//! nothing is dropped, the flood stays with its sender, and the others keep their part. Besides, each
//! link holds the one frame that it has read, and a node has at most [`LINKS`] of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::transport::tls::PeerName;

/// Most bytes of all frames that wait.
pub(super) const ROOM: usize = 64 << 20;

/// Most bytes of the frames of one node; more than any frame takes.
pub(super) const SHARE: usize = 16 << 20;

/// What a frame takes at least, so that small ones do not fill the queue either.
const LEAST: usize = 64 << 10;

/// Frames that can wait, all nodes together.
pub(crate) const FRAMES: usize = ROOM / LEAST;

/// Links of one node at a time: the one in use, its successor, and some whose end was not heard.
pub(super) const LINKS: usize = 8;

/// The room of all nodes. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    all: Arc<Semaphore>,
    /// By the name in the certificate; those that nobody uses are gone.
    nodes: Arc<Mutex<BTreeMap<String, Weak<Account>>>>,
}

/// The part of one node.
#[derive(Debug)]
struct Account {
    bytes: Arc<Semaphore>,
    links: Arc<Semaphore>,
}

/// One link's way to the part of its node.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<Semaphore>,
    account: Arc<Account>,
    _link: OwnedSemaphorePermit,
}

/// Room that a frame takes; dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Taken {
    _of_node: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    /// While it lives a node that comes anew gets the same part.
    _account: Arc<Account>,
}

// === impl Room ===

impl Default for Room {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ROOM)),
            nodes: Arc::default(),
        }
    }
}

impl Room {
    /// For one more link of `peer`; `None` if it has too many.
    pub(super) fn enter(&self, peer: &PeerName) -> Option<Share> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = nodes.get(peer.uri()).and_then(Weak::upgrade);
        let account = known.unwrap_or_else(|| {
            nodes.retain(|_, account| account.strong_count() > 0);
            let account = Arc::new(Account {
                bytes: Arc::new(Semaphore::new(SHARE)),
                links: Arc::new(Semaphore::new(LINKS)),
            });
            nodes.insert(peer.uri().to_owned(), Arc::downgrade(&account));
            account
        });
        let link = Arc::clone(&account.links).try_acquire_owned().ok()?;
        Some(Share {
            all: Arc::clone(&self.all),
            account,
            _link: link,
        })
    }
}

// === impl Share ===

impl Share {
    /// Waits for room for a frame of `bytes`; may be dropped while it waits.
    pub(super) async fn take(&self, bytes: usize) -> Taken {
        let bytes = u32::try_from(bytes.clamp(LEAST, SHARE)).unwrap_or(u32::MAX);
        // First the node's own part: while it waits there it takes nothing of the others'.
        let of_node = Arc::clone(&self.account.bytes).acquire_many_owned(bytes);
        let of_node = of_node.await.expect("nobody closes it");
        let of_all = Arc::clone(&self.all).acquire_many_owned(bytes);
        let of_all = of_all.await.expect("nobody closes it");
        Taken {
            _of_node: of_node,
            _of_all: of_all,
            _account: Arc::clone(&self.account),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    /// What is there at once.
    async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        // Not as often as a task may do something without a pause, but as often as there is room.
        let mut future = pin!(tokio::task::unconstrained(future));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn share(room: &Room, node: &str) -> Share {
        room.enter(&PeerName::named("tyr", node)).unwrap()
    }

    #[tokio::test]
    async fn a_node_takes_its_part_and_leaves_that_of_the_others() {
        let room = Room::default();
        let (a, b) = (share(&room, "a"), share(&room, "b"));
        let mut held = Vec::new();
        while let Some(taken) = now(a.take(1 << 20)).await {
            held.push(taken);
        }
        assert_eq!(held.len(), SHARE >> 20);
        let other = share(&room, "a");
        assert!(now(other.take(1)).await.is_none(), "another link of it");
        drop((a, other));
        let back = share(&room, "a");
        assert!(now(back.take(1)).await.is_none(), "what waits still waits");
        assert!(now(b.take(1 << 20)).await.is_some(), "others have theirs");
        held.pop();
        assert!(
            now(back.take(1 << 20)).await.is_some(),
            "room is free again"
        );
    }

    #[tokio::test]
    async fn all_nodes_together_take_no_more_than_there_is() {
        let room = Room::default();
        let mut held = Vec::new();
        for node in 0..10 {
            let share = share(&room, &format!("n{node}"));
            while let Some(taken) = now(share.take(SHARE)).await {
                held.push(taken);
            }
        }
        assert_eq!(held.len(), ROOM / SHARE);
        held.clear();
        let small = share(&room, "a");
        while let Some(taken) = now(small.take(1)).await {
            held.push(taken);
        }
        assert_eq!(held.len(), FRAMES / (ROOM / SHARE), "of one node");
        let last = share(&room, "b");
        assert!(now(last.take(usize::MAX)).await.is_some());
    }

    #[test]
    fn links_of_one_node_are_counted_and_forgotten() {
        let room = Room::default();
        let links: Vec<Share> = (0..LINKS).map(|_| share(&room, "a")).collect();
        assert!(room.enter(&PeerName::named("tyr", "a")).is_none());
        share(&room, "b");
        drop(links);
        share(&room, "a");
        share(&room, "c");
        assert_eq!(room.nodes.lock().unwrap().len(), 1);
    }
}
