//! Exact counts of prompts, for requests that come close to a strict limit.
//!
//! Promise: no tokenizer runs on a thread that serves requests; a count waits
//! at most [`WAIT`], behind at most [`QUEUE`] others, and reads at most
//! [`TEXT_MAX`] bytes. State: [`THREADS`] threads that end with the counter.
//! Failure: [`NoCount`]; the estimate by bytes then stands.

mod text;

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

/// Threads that count.
const THREADS: usize = 2;
/// Prompts that may wait for a thread.
const QUEUE: usize = 64;
/// Longest wait for a count.
const WAIT: Duration = Duration::from_millis(50);
/// Most text of a prompt that is counted, in bytes.
const TEXT_MAX: usize = 64 * 1024;

/// The text of one body and where its count goes.
struct Job {
    body: Bytes,
    answer: oneshot::Sender<Option<PromptCount>>,
}

/// What a prompt amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PromptCount {
    /// Tokens of the text that was counted.
    pub tokens: u64,
    /// Bytes of text beyond it, to be estimated.
    pub rest_bytes: u64,
}

/// Why there is no count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCount {
    /// As many prompts wait as may.
    Full,
    /// It took too long.
    Late,
    /// The body is nested too deep to be read here.
    Unreadable,
}

impl NoCount {
    /// The label in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            NoCount::Full => "full",
            NoCount::Late => "late",
            NoCount::Unreadable => "unreadable",
        }
    }
}

/// Counts prompts on threads of its own, which end when it is dropped.
#[derive(Clone, Debug)]
pub struct TokenCounter {
    jobs: SyncSender<Job>,
}

impl TokenCounter {
    /// Starts the threads. The vocabulary is read with the first count.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..THREADS {
            let queue = Arc::clone(&queue);
            thread::Builder::new()
                .name(format!("tyr-tokens-{number}"))
                .spawn(move || work(&queue))?;
        }
        Ok(TokenCounter { jobs })
    }

    /// The tokens of a body's prompt in the vocabulary `o200k`: the text of
    /// all its strings, names of fields included, which stand for what the
    /// provider puts around the messages.
    pub(super) async fn count(&self, body: &Bytes) -> Result<PromptCount, NoCount> {
        let (answer, counted) = oneshot::channel();
        let job = Job {
            body: body.clone(),
            answer,
        };
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                return Err(NoCount::Full);
            }
        }
        match tokio::time::timeout(WAIT, counted).await {
            Ok(Ok(count)) => count.ok_or(NoCount::Unreadable),
            Ok(Err(_)) | Err(_) => Err(NoCount::Late),
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        // Only these threads share the lock; a panic cannot spoil a receiver.
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { body, answer }) = next else {
            return;
        };
        if answer.is_closed() {
            continue; // nobody waits any more
        }
        let counted = std::panic::catch_unwind(|| count(&body));
        // Whoever asked may have left meanwhile.
        let _ = answer.send(counted.unwrap_or(None));
    }
}

fn count(body: &[u8]) -> Option<PromptCount> {
    let read = text::read(body, TEXT_MAX)?;
    let tokens = bpe_openai::o200k_base().count(read.text.as_str()) as u64;
    Some(PromptCount {
        tokens: tokens + read.scalars,
        rest_bytes: read.rest_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_text_and_leaves_the_rest_to_an_estimate() {
        // "hello world" and "content" are two tokens and one; each string
        // ends in a line break, which is one more.
        let few = count(br#"{"content":"hello world"}"#).unwrap();
        assert_eq!(few.rest_bytes, 0);
        assert_eq!(few.tokens, 5);
        let numbers = count(br#"{"input":[1,2,3]}"#).unwrap();
        assert_eq!(numbers.tokens, 2 + 3);
        let long = format!(r#"{{"content":"{}"}}"#, "word ".repeat(20_000));
        let long = count(long.as_bytes()).unwrap();
        assert!(long.rest_bytes > 30_000, "{long:?}");
        assert!((13_000..14_000).contains(&long.tokens), "{long:?}");
    }

    #[test]
    fn too_deep_a_body_is_not_counted() {
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(count(deep.as_bytes()), None);
    }

    #[tokio::test]
    async fn a_count_comes_back_and_a_full_queue_says_so() {
        let counter = TokenCounter::start().unwrap();
        // The first count reads the vocabulary, which may take longer.
        while counter.count(&Bytes::from_static(b"{}")).await.is_err() {}
        let body = Bytes::from_static(br#"{"content":"hello world"}"#);
        let counted = counter.count(&body).await.map(|count| count.tokens);
        assert_eq!(counted, Ok(5));
        let (jobs, _never_read) = sync_channel(0);
        let full = TokenCounter { jobs };
        assert_eq!(full.count(&body).await, Err(NoCount::Full));
    }
}
