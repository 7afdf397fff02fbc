use super::mesh::tests::{config, parts};
use super::*;
use crate::handle::STALLED;
use crate::testing::FlakyStore;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the process would have ended.
static ENDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whoever has it makes the loop wait.
static TURN: Mutex<()> = Mutex::new(());

fn mesh(dir: &mut Vec<tempfile::TempDir>) -> (Mesh, crate::handle::ClusterHandle) {
    let mut config = config("node-a", &[1], &[]);
    config.fatal = |why| ENDED.lock().unwrap().push(why.to_owned());
    let (parts, its_own) = parts(&FlakyStore::default(), 1, config);
    dir.push(its_own);
    Mesh::open(parts).unwrap()
}

/// Runs it on a thread of its own until it ends or `leave` is dropped.
fn run_on_a_thread(mesh: Mesh) -> (oneshot::Sender<()>, JoinHandle<bool>) {
    let (leave, left) = oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let desk = runtime.block_on(take_part(mesh, left));
        runtime.shutdown_background();
        desk.map(StoreDesk::stop).is_some()
    });
    (leave, thread)
}

#[test]
fn a_panic_of_the_loop_ends_the_process_and_leaving_does_not() {
    let mut dirs = Vec::new();
    let (mesh_that_leaves, handle) = mesh(&mut dirs);
    let (_leave, thread) = run_on_a_thread(mesh_that_leaves);
    handle.leave();
    assert!(thread.join().unwrap());
    assert_eq!(*ENDED.lock().unwrap(), Vec::<String>::new());

    let (mesh, handle) = mesh(&mut dirs);
    let (_leave, thread) = run_on_a_thread(mesh);
    assert!(handle.wait_view(PATIENCE, |view| view.node == "node-a"));
    handle.call(|| panic!("on purpose"));
    assert!(!thread.join().unwrap());
    let why = ["the driver of the cluster panicked".to_owned()];
    assert_eq!(*ENDED.lock().unwrap(), why);
}

#[test]
fn a_loop_that_hangs_is_seen_from_outside_and_left_behind_at_the_end() {
    let mut dirs = Vec::new();
    let (mesh, handle) = mesh(&mut dirs);
    assert!(!handle.is_stalled(), "it has not begun");
    let (leave, thread) = run_on_a_thread(mesh);
    assert!(handle.wait_view(PATIENCE, |view| view.node == "node-a"));
    assert!(!handle.is_stalled());
    let turn = TURN.lock().unwrap();
    handle.call(|| drop(TURN.lock().unwrap_or_else(PoisonError::into_inner)));
    // Nothing is posted meanwhile.
    handle.wait_view(STALLED + Duration::from_secs(1), |_| false);
    assert!(handle.is_stalled());

    let (ends, ended) = sync_channel(0);
    let (stop, stopped) = oneshot::channel();
    let driver = Driver {
        stop,
        ended: Mutex::new(ended),
        thread: thread::spawn(move || {
            let _ends = ends;
            assert!(thread.join().unwrap(), "it ends well");
        }),
    };
    driver.stop_within(Duration::from_millis(50));
    drop((turn, leave, stopped));
    assert!(handle.wait_view(PATIENCE, |_| !handle.is_stalled()));
}
