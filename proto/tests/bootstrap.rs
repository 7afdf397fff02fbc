//! The generated code is the one that the `.proto` file makes.

use std::fs;
use std::path::Path;

const GENERATED: &str = "src/gen/tyr.cluster.v1.rs";

/// `UPDATE_EXPECT=1` writes the file anew.
#[test]
fn generated_code_is_that_of_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let files = protox::compile([root.join("cluster/v1/cluster.proto")], [root]).unwrap();
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .bytes(".tyr.cluster.v1.Outcome.body")
        .compile_fds(files)
        .unwrap();
    let fresh = fs::read_to_string(folder.path().join("tyr.cluster.v1.rs")).unwrap();
    let kept = root.join(GENERATED);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&kept, &fresh).unwrap();
    }
    let present = fs::read_to_string(&kept).unwrap();
    assert!(
        present == fresh,
        "{GENERATED} is stale: run UPDATE_EXPECT=1 cargo test -p proto"
    );
}
