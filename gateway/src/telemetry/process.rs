//! What the kernel says about this process, from `/proc/self`.
//!
//! Failure answer: a figure that cannot be read is `None` (not Linux, or a
//! hardened `/proc`), and its metric keeps its last value.

use std::fs;

/// Clock ticks a second in `/proc/*/stat`. The kernel scales to this figure on
/// every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessFacts {
    /// Resident memory in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<u64>,
    /// Soft limit of open file descriptors.
    pub(super) max_fds: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// CPU time in user and system mode, in seconds.
    pub(super) cpu_seconds: Option<f64>,
    /// Start of the process in seconds since the Unix epoch.
    pub(super) started_at_seconds: Option<f64>,
}

pub(super) fn read() -> ProcessFacts {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/stat").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    ProcessFacts {
        resident_bytes: first_number(&status, "VmRSS:").map(|kib| kib * 1024),
        // The reading itself holds one descriptor open.
        open_fds: fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| (entries.count() as u64).saturating_sub(1)),
        max_fds: first_number(&limits, "Max open files"),
        threads: first_number(&status, "Threads:"),
        cpu_seconds: cpu_seconds(&stat),
        started_at_seconds: started_at(&stat, &kernel),
    }
}

/// The first number of the line that starts with `label`.
fn first_number(text: &str, label: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Field `number` of `/proc/self/stat`, counted from 1 as in proc(5). The
/// name in field 2 may hold spaces, so counting starts behind its bracket.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn started_at(stat: &str, kernel: &str) -> Option<f64> {
    let boot = first_number(kernel, "btime ")? as f64;
    Some(boot + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (tyr (x) y) S 1 42 42 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 7 0 1000 9 9";

    #[test]
    fn fields_are_counted_behind_the_name() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(
            started_at(STAT, "cpu 1\nbtime 1700000000\n"),
            Some(1_700_000_010.0)
        );
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(
            first_number(
                "Max open files            1024   4096   files\n",
                "Max open files"
            ),
            Some(1024)
        );
        assert_eq!(
            first_number("Max open files   unlimited\n", "Max open files"),
            None
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_descriptors() {
        let facts = read();
        assert!(facts.resident_bytes > Some(1024 * 1024));
        assert!(facts.open_fds > Some(0));
        assert!(facts.threads > Some(0));
        assert!(facts.cpu_seconds.is_some());
        assert!(facts.started_at_seconds > Some(1_600_000_000.0));
    }
}
