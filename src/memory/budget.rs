//! How much clients may hold together, and what happens beyond it: whoever holds the most is
//! refused first.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::source::Sources;

/// Of the limit of the control group: the rest is for what is not counted by client, and for what
/// the kernel holds for sockets.
const OF_GROUP: usize = 2;
/// Of a machine's memory, where no group limits us: it has other tenants.
const OF_MACHINE: usize = 4;
/// What is assumed where nothing can be read.
const FALLBACK_BYTES: usize = 256 * 1024 * 1024;
/// From one line of the log to the next that says who is refused.
const LINE_EVERY_NS: u64 = 10_000_000_000;

/// How the limit is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// By what the process may have.
    #[default]
    Auto,
    /// There is none.
    Off,
    /// In bytes.
    Bytes(u64),
}

/// The budget of all connections.
#[derive(Debug, Default)]
pub struct Budget {
    /// What [`Limit::Auto`] means, in bytes.
    auto: usize,
    /// Most connections by the descriptors, where no number is set.
    connections: Option<u32>,
    /// In force, in bytes.
    limit: AtomicUsize,
    /// Somebody is refused.
    is_short: AtomicBool,
    line_ns: AtomicU64,
    sources: Arc<Sources>,
}

impl Budget {
    /// A budget by what the process may have: memory by its control group or machine, and
    /// connections by `files`, its limit of descriptors.
    #[must_use]
    pub fn of_process(files: Option<u64>) -> Self {
        let group = group_limit(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"));
        let machine = machine_bytes(&read("/proc/meminfo"));
        let auto = match (group, machine) {
            (Some(group), machine) if machine.is_none_or(|machine| group < machine) => {
                group / OF_GROUP
            }
            (_, Some(machine)) => machine / OF_MACHINE,
            _ => FALLBACK_BYTES,
        };
        Self { auto, connections: files.map(connections_by_files), ..Self::default() }
    }

    /// Where connections come from.
    #[must_use]
    pub fn sources(&self) -> &Arc<Sources> {
        &self.sources
    }

    /// Most connections where no number is set.
    #[must_use]
    pub fn connections(&self) -> Option<u32> {
        self.connections
    }

    /// Most connections of one source where no number is set: a share, so that four strangers are
    /// needed to take all, and an office behind one address is far below it.
    #[must_use]
    pub fn connections_per_source(&self) -> Option<u32> {
        self.connections.map(|most| (most / 4).max(1))
    }

    /// The limit in force, in bytes; 0 while nobody has looked.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Looks whether clients hold too much; true when some of the connections have to end. To be
    /// called at every sweep.
    #[must_use]
    pub fn look(&self, limit: Limit, now_ns: u64) -> bool {
        let limit = match limit {
            Limit::Auto if self.auto > 0 => self.auto,
            Limit::Auto | Limit::Off => usize::MAX,
            Limit::Bytes(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        self.limit.store(limit, Ordering::Relaxed);
        let held = self.sources.held();
        if held > limit {
            self.is_short.store(true, Ordering::Relaxed);
            // A little more goes, or the next piece would have the next connection go.
            let excess = held - limit + limit / 16;
            if let Some((source, of_it)) = self.sources.refuse_heaviest(excess) {
                self.say(source, of_it, held, limit, now_ns);
            }
            return true;
        }
        if held < limit / 4 * 3 && self.is_short.swap(false, Ordering::Relaxed) {
            self.sources.admit_all();
            tracing::info!(held, limit, "memory is enough again; nobody is refused");
        }
        false
    }

    fn say(&self, source: IpAddr, of_it: usize, held: usize, limit: usize, now_ns: u64) {
        let last_ns = self.line_ns.load(Ordering::Relaxed);
        if last_ns == 0 || now_ns.saturating_sub(last_ns) > LINE_EVERY_NS {
            self.line_ns.store(now_ns.max(1), Ordering::Relaxed);
            tracing::warn!(
                %source,
                bytes = of_it,
                held,
                limit,
                "clients hold more than `limits.memory`; the source that holds the most is refused \
                 and its heaviest connections end"
            );
        }
    }
}

/// Connections that `files` descriptors allow: half, for each may need one to an upstream, of what
/// the admin API, probes, logs and the journal leave.
fn connections_by_files(files: u64) -> u32 {
    const KEPT: u64 = 256;
    u32::try_from(files.saturating_sub(KEPT) / 2).unwrap_or(u32::MAX).max(16)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The least limit of the process's control group and those above it: version 2, else version 1.
/// `root` is where they are mounted, `membership` the text of `/proc/self/cgroup`.
fn group_limit(root: &Path, membership: &str) -> Option<usize> {
    let mut least = None;
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            some if some.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Within a container the path is often that of the host: then its root is the group.
        let mut path = Path::new(path.trim_start_matches('/'));
        loop {
            let text = std::fs::read_to_string(mount.join(path).join(file)).unwrap_or_default();
            if let Ok(bytes) = text.trim().parse::<usize>() {
                least = Some(least.map_or(bytes, |least: usize| least.min(bytes)));
            }
            let Some(parent) = path.parent() else { break };
            path = parent;
        }
    }
    least
}

/// The machine's memory by the text of `/proc/meminfo`.
fn machine_bytes(text: &str) -> Option<usize> {
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_control_groups_of_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(group_limit(root.path(), "0::/a/b\n"), None);
        write("memory.max", "max\n");
        write("a/memory.max", "1000\n");
        write("a/b/memory.max", "max\n");
        assert_eq!(group_limit(root.path(), "0::/a/b\n"), Some(1_000));
        write("a/b/memory.max", "500\n");
        assert_eq!(group_limit(root.path(), "0::/a/b\n"), Some(500));
        // The path of a container's host is not there; its root is the group.
        write("memory.max", "700\n");
        assert_eq!(group_limit(root.path(), "0::/elsewhere\n"), Some(700));
        write("memory/c/memory.limit_in_bytes", "300\n");
        let membership = "5:cpu,cpuacct:/c\n4:memory:/c\n";
        assert_eq!(group_limit(root.path(), membership), Some(300));
        assert_eq!(
            machine_bytes("MemTotal:       24684252 kB\nMemFree: 1 kB\n"),
            Some(25_276_674_048)
        );
        assert_eq!(machine_bytes(""), None);
    }

    #[test]
    fn beyond_the_limit_the_heaviest_is_refused_until_there_is_room() {
        let budget = Budget::default();
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let enter = |last| budget.sources().enter(address(last), None);
        let (one, two) = (enter(1).unwrap(), enter(2).unwrap());
        one.hold(600);
        two.hold(500);
        assert!(!budget.look(Limit::Off, 1) && !budget.look(Limit::Auto, 1));
        assert!(budget.look(Limit::Bytes(1_000), 1));
        assert!(enter(1).is_err() && enter(2).is_ok());
        one.let_go(300);
        assert!(!budget.look(Limit::Bytes(1_000), 2));
        assert!(enter(1).is_err(), "until there is some room");
        one.let_go(300);
        assert!(!budget.look(Limit::Bytes(1_000), 3));
        assert!(enter(1).is_ok());
    }

    #[test]
    fn descriptors_leave_room_for_upstreams_and_the_admin_api() {
        assert_eq!(connections_by_files(1_024), 384);
        assert_eq!(connections_by_files(100), 16);
        assert_eq!(connections_by_files(u64::MAX), u32::MAX);
    }
}
