//! The last good list on disk, for starts without its source.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use super::list::{PriceList, REDUCED_MAX};

/// The file in the node's data folder.
const FILE: &str = "prices.json";

/// The list that was last good, if there is one. One that cannot be read is
/// logged: the next fetch replaces it.
pub(super) fn last_good(data_dir: &Path) -> Option<PriceList> {
    let path = data_dir.join(FILE);
    let read = match read(&path) {
        Ok(bytes) => PriceList::from_bytes(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Err(error.to_string()),
    };
    read.inspect_err(|error| {
        tracing::warn!(path = %path.display(), %error, "the last good price list cannot be read");
    })
    .ok()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(REDUCED_MAX).unwrap_or(u64::MAX);
    // One byte more tells that there is more.
    let mut file = File::open(path)?.take(most.saturating_add(1));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts a list in the place of the last good one: a crash leaves one of them.
pub(super) fn keep(data_dir: &Path, list: &[u8]) -> io::Result<()> {
    let aside = data_dir.join(format!("{FILE}.{}", std::process::id()));
    let mut file = File::create(&aside)?;
    file.write_all(list)?;
    file.sync_all()?;
    fs::rename(&aside, data_dir.join(FILE))
}
