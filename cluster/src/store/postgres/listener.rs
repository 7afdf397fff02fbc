//! Word of what other nodes write, over a connection of its own.
//!
//! Promise: who writes entities makes every listener hear of it with the commit. Each time the
//! connection was made anew there may have been something that nobody heard: that is told, too.
//! Failure: without a connection, or behind a pooler that passes no notifications on, nothing is told;
//! whoever must not miss anything asks by itself now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::connect::{Connector, Fault};
use crate::store::News;

/// Ends the writing transaction.
pub(super) const NOTIFY: &str = "NOTIFY tyr_entities";

const LISTEN: &str = "LISTEN tyr_entities";

/// How often a connection is tried.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Listens for as long as its runtime lives.
pub(super) async fn listen(connector: Arc<Connector>, news: News) {
    let mut tries = interval_at(Instant::now(), TRY_EVERY);
    tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tries.tick().await;
        // That the store is away is said by whoever needs it.
        let Ok(mut direct) = connector.direct_for(Some(news.clone())).await else {
            continue;
        };
        if let Err(error) = direct.client.batch_execute(LISTEN).await {
            tracing::debug!(error = %Fault::from(error), "cannot listen for changes");
            continue;
        }
        news.tell();
        direct.ended().await;
    }
}
