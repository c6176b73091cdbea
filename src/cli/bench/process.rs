//! What the kernel says of a process: its CPU time, its own memory.

use std::fs;
use std::io;
use std::time::Duration;

/// CPU time of the process so far, user and system, all its threads.
///
/// # Errors
/// If there is no such process, or no `/proc`.
pub(super) fn cpu(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = stat_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

/// utime and stime: the 14th and 15th field. The second, the program's name, may hold spaces and brackets.
fn stat_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    next()?.checked_add(next()?)
}

/// Memory of the process that no file backs, in bytes.
///
/// # Errors
/// If there is no such process, or no `/proc`.
pub(super) fn rss_anon(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_a_name_with_brackets() {
        let stat = "42 (a) b) (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(stat_ticks(stat), Some(200));
        assert_eq!(stat_ticks(""), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(rss_anon(std::process::id()).unwrap() > 0);
        cpu(std::process::id()).unwrap();
    }
}
