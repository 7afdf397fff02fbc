//! Whose a row is, as the tables know it.
//!
//! Rows of cells carry one number for their origin, in the column that held the boot before nodes
//! were told apart. So a program of that time, which knows nothing of nodes, still adds to its own
//! rows and still sums up everybody's. The table `origin` says whose a number is; a number that it
//! does not have is the boot of a node that nobody wrote down.

use sha2::{Digest, Sha256};

use crate::data_dir::NodeKey;
use crate::origin::Origin;

/// The node of rows that programs wrote which did not say theirs.
pub(crate) const NOBODY: NodeKey = NodeKey(0);

/// Numbers of origins have this bit; Unix milliseconds do not for the next hundred million years.
const MARK: u64 = 1 << 62;

/// The number of an origin: the same wherever it is asked for.
pub(super) fn number(origin: Origin) -> i64 {
    if origin.node == NOBODY {
        return i64::try_from(origin.boot).unwrap_or(i64::MAX);
    }
    let mut hash = Sha256::new();
    hash.update(origin.node.0.to_be_bytes());
    hash.update(origin.boot.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let first = digest
        .first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first));
    // 62 bits of it and the mark: always positive.
    i64::try_from(first & (MARK - 1) | MARK).unwrap_or(i64::MAX)
}

/// The origin of a row whose number the table `origin` does not have.
pub(super) fn unknown(number: i64) -> Origin {
    Origin {
        node: NOBODY,
        boot: u64::try_from(number).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_nodes_and_boots_apart_and_are_no_boots() {
        let origin = |node, boot| Origin {
            node: NodeKey(node),
            boot,
        };
        let some = [(1, 1), (1, 2), (2, 1), (2, 2), (1 << 64, 1), (1, 1 << 40)];
        let mut numbers: Vec<i64> = some.iter().map(|(n, b)| number(origin(*n, *b))).collect();
        assert!(numbers.iter().all(|number| *number > 1 << 61));
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), some.len());
        assert_eq!(number(origin(0, 7)), 7);
        assert_eq!(unknown(7), origin(0, 7));
    }
}
