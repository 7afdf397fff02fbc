//! Spreads the requests to one origin over several HTTP/2 connections.
//!
//! Promise: a request does not wait behind long streams because a provider
//! allows only so many on one connection (100 is common; further ones would
//! silently queue). The first lane is filled first, so that light traffic keeps
//! one warm connection. Owner of the counts: the lanes of one client key; a
//! place is given back when the answer's body is dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Requests on one lane before the next one is used.
const STREAMS: usize = 64;
/// Lanes of an origin that may speak HTTP/2: 8,192 requests at once before
/// lanes are filled beyond `STREAMS`.
const LANES: usize = 128;

/// Several clients of one origin, each with connections of its own.
#[derive(Debug)]
pub(super) struct Lanes<C>(Arc<[Lane<C>]>);

#[derive(Debug)]
struct Lane<C> {
    client: C,
    streams: Arc<AtomicUsize>,
}

/// A request's place on a lane, until dropped.
#[derive(Debug)]
pub(super) struct Seat(Option<Arc<AtomicUsize>>);

impl<C> Clone for Lanes<C> {
    fn clone(&self) -> Self {
        Lanes(Arc::clone(&self.0))
    }
}

impl<C> Lanes<C> {
    /// HTTP/1.1 has one request per connection and needs one lane.
    pub(super) fn single(client: C) -> Self {
        Lanes([Lane::new(client)].into())
    }

    /// Lanes for an origin that may speak HTTP/2. A lane that is not used
    /// holds no connection.
    pub(super) fn several(mut client: impl FnMut() -> C) -> Self {
        Lanes((0..LANES).map(|_| Lane::new(client())).collect())
    }

    /// The first lane with room, or the emptiest one.
    pub(super) fn take(&self) -> (&C, Seat) {
        if let [only] = &*self.0 {
            return (&only.client, Seat(None));
        }
        let room = self.0.iter().find(|lane| lane.enter_below(STREAMS));
        let lane = room.unwrap_or_else(|| {
            let emptiest = self
                .0
                .iter()
                .min_by_key(|lane| lane.streams.load(Ordering::Relaxed));
            let lane = emptiest.unwrap_or(&self.0[0]);
            lane.streams.fetch_add(1, Ordering::Relaxed);
            lane
        });
        (&lane.client, Seat(Some(Arc::clone(&lane.streams))))
    }
}

impl<C> Lane<C> {
    fn new(client: C) -> Self {
        Lane {
            client,
            streams: Arc::default(),
        }
    }

    fn enter_below(&self, limit: usize) -> bool {
        let more = |streams| (streams < limit).then_some(streams + 1);
        self.streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(streams) = &self.0 {
            streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The body of a provider's answer, as it arrives. Dropping it before its end
/// cancels the request at the provider.
#[derive(Debug)]
pub struct AnswerBody {
    body: Incoming,
    _seat: Seat,
}

impl AnswerBody {
    pub(super) fn new(body: Incoming, seat: Seat) -> Self {
        AnswerBody { body, _seat: seat }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered() -> Lanes<usize> {
        let mut next = 0;
        Lanes::several(|| {
            next += 1;
            next - 1
        })
    }

    #[test]
    fn the_first_lane_with_room_is_used() {
        let lanes = numbered();
        let mut seats = Vec::new();
        for request in 0..3 * STREAMS {
            let (lane, seat) = lanes.take();
            assert_eq!(*lane, request / STREAMS);
            seats.push(seat);
        }
        seats.drain(..STREAMS);
        assert_eq!(*lanes.take().0, 0);
    }

    #[test]
    fn full_lanes_are_filled_evenly() {
        let lanes = numbered();
        let seats: Vec<_> = (0..LANES * (STREAMS + 1)).map(|_| lanes.take().1).collect();
        let counts = || {
            lanes
                .0
                .iter()
                .map(|lane| lane.streams.load(Ordering::Relaxed))
        };
        assert!(counts().all(|streams| streams == STREAMS + 1));
        drop(seats);
        assert!(counts().all(|streams| streams == 0));
    }

    #[test]
    fn a_single_lane_counts_nothing() {
        let lanes = Lanes::single(());
        let (_, seat) = lanes.take();
        assert!(seat.0.is_none());
    }
}
