//! Reloads: all or nothing, and counts go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use policy::{CounterTable, ManualClock, Timestamp};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::{Environment, Looked, ReloaderParts, Started, Told, start};
use super::lines;
use crate::upstream::ClientPool;

const TEXT: &str = "\
version: 1
server: {listen: 127.0.0.1:1}
providers: [{name: openai, kind: openai, base_url: https://a.example, keys: [{name: k, value: file.secret}]}]
virtual_keys: [{name: a, value: sk-tyr-0123456789, providers: [{name: openai}], rate_limits: [{requests: 5, every: 1m}]}]
";

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let files = Files { folder };
        files.write("tyr.yaml", TEXT);
        files.write("secret", "sk-first\n");
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, on_reload: impl Fn(Option<u64>) + Send + Sync + 'static) -> Started {
        let parts = ReloaderParts {
            path: self.path("tyr.yaml"),
            environment: Environment::of([].into(), Path::new(self.folder.path()).to_owned()),
            counters: Arc::new(CounterTable::new()),
            clients: Arc::new(ClientPool::new()),
            clock: Arc::new(ManualClock::new(Timestamp(0))),
            on_reload: Box::new(move |told| match told {
                Told::Reloaded(live) | Told::Written(live) => {
                    on_reload(Some(live.policy.revision()));
                }
                Told::Refused => on_reload(None),
            }),
        };
        start(parts).unwrap_or_else(|problems| panic!("{}", lines(&problems)))
    }
}

fn secret(started: &Started) -> String {
    started.live.load().upstreams[0].config.credentials[0]
        .expose()
        .to_owned()
}

#[test]
fn a_bad_file_changes_nothing() {
    let files = Files::new();
    let started = files.start(|_| {});
    let before = started.live.load_full();
    files.write(
        "tyr.yaml",
        &TEXT
            .replace("every: 1m", "every: 1M")
            .replace("a.example", "user@a"),
    );
    let problems = started.reloader.reload().expect_err("it is wrong");
    assert_eq!(problems.len(), 2, "{}", lines(&problems));
    assert!(Arc::ptr_eq(&before, &started.live.load_full()));
    files.write("tyr.yaml", "");
    started.reloader.reload().expect_err("it is empty");
    fs::remove_file(files.path("tyr.yaml")).expect("it was there");
    started.reloader.reload().expect_err("it is gone");
    assert!(Arc::ptr_eq(&before, &started.live.load_full()));
    files.write("tyr.yaml", TEXT);
    let reloaded = started.reloader.reload().expect("it is right again");
    assert_eq!(reloaded.revision, 2);
    assert_eq!(started.live.load().policy.revision(), 2);
}

#[test]
fn an_edited_amount_keeps_the_count() {
    let files = Files::new();
    let started = files.start(|_| {});
    let limit = || {
        let live = started.live.load();
        let key = live.policy.key_named("a").expect("it is there");
        key.scope.as_ref().expect("it has limits").limits[0].clone()
    };
    let before = limit();
    files.write(
        "tyr.yaml",
        &TEXT.replace("requests: 5", "requests: 9, enforcement: strict"),
    );
    started.reloader.reload().expect("it is right");
    assert_eq!((before.amount, limit().amount), (5, 9));
    assert!(Arc::ptr_eq(&before.counter, &limit().counter));
}

#[test]
fn what_takes_a_restart_is_named() {
    let files = Files::new();
    let started = files.start(|_| {});
    files.write(
        "tyr.yaml",
        &TEXT.replace(
            "{listen: 127.0.0.1:1}",
            "\n  threads: 2\n  listen: 127.0.0.1:2",
        ),
    );
    let reloaded = started.reloader.reload().expect("it is right");
    let shown =
        lines(&reloaded.warnings).replace(&format!("{}/", files.folder.path().display()), "");
    assert_eq!(
        shown,
        "tyr.yaml:4: server.listen: has changed, which takes a restart: the old value runs on\n\
         tyr.yaml:3: server.threads: has changed, which takes a restart: the old value runs on"
    );
}

#[test]
fn a_change_is_read_once_it_has_settled() {
    let files = Files::new();
    let started = files.start(|_| {});
    let reloader = &started.reloader;
    assert_eq!(reloader.check_now(), Looked::Unchanged);
    // The secret alone, as a mounted secret is renewed.
    files.write("secret", "sk-second\n");
    assert_eq!(reloader.check_now(), Looked::Settling);
    assert_eq!(secret(&started), "sk-first");
    assert!(matches!(reloader.check_now(), Looked::Reloaded(reloaded) if reloaded.revision == 2));
    assert_eq!(secret(&started), "sk-second");
    assert_eq!(reloader.check_now(), Looked::Unchanged);
    // A secret that went away is a problem until it is back.
    fs::remove_file(files.path("secret")).expect("it was there");
    assert_eq!(reloader.check_now(), Looked::Settling);
    assert!(matches!(reloader.check_now(), Looked::Refused(_)));
    assert_eq!(reloader.check_now(), Looked::Unchanged);
    assert_eq!(secret(&started), "sk-second");
    files.write("secret", "sk-third\n");
    assert_eq!(reloader.check_now(), Looked::Settling);
    assert!(matches!(reloader.check_now(), Looked::Reloaded(_)));
    assert_eq!(secret(&started), "sk-third");
}

#[tokio::test]
async fn the_watch_tells_of_reloads() {
    let files = Files::new();
    let (told, mut heard) = mpsc::channel(16);
    let started = files.start(move |revision| {
        told.try_send(revision).expect("the test listens");
    });
    assert_eq!(heard.recv().await, Some(Some(1)));
    let watch = tokio::spawn(
        Arc::new(started.reloader).watch(tokio::time::interval(Duration::from_millis(1))),
    );
    files.write("tyr.yaml", "version: 2\n");
    assert_eq!(heard.recv().await, Some(None));
    files.write("tyr.yaml", TEXT);
    assert_eq!(heard.recv().await, Some(Some(2)));
    watch.abort();
}
