//! How much at once, and how fast.

use std::collections::BTreeMap;
use std::time::Duration;

/// The limits of a [`TransferQueue`](super::TransferQueue).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLimits {
    /// Connections in all; at least 1.
    pub total_max: u32,
    /// Connections with one host that has no limit of its own; at least 1.
    pub per_host_max: u32,
    /// Bytes per second in all.
    pub bytes_per_second: Option<u64>,
    /// Limits of schemes, lower case.
    pub schemes: BTreeMap<String, Limit>,
    /// Limits of single hosts: `host:port`, or `host` for each of its ports.
    pub hosts: BTreeMap<String, Limit>,
    /// Bytes of transfers under way, and of finished ones that nobody has taken.
    pub space_max: Option<u64>,
    /// When a host counts as down.
    pub breaker: BreakerPolicy,
}

/// The limits of one scheme or host; what is absent is the general one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Connections at once; at least 1.
    pub connections: Option<u32>,
    /// Bytes per second.
    pub bytes_per_second: Option<u64>,
}

/// When a host counts as down, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// So many missing answers in a row; at least 1.
    pub failures_max: u32,
    /// How long it is left alone then; doubled each time that it does not answer afterwards.
    pub pause_min: Duration,
    /// The longest time that it is left alone.
    pub pause_max: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            failures_max: 5,
            pause_min: Duration::from_secs(5),
            pause_max: Duration::from_mins(2),
        }
    }
}

impl Default for QueueLimits {
    /// Four connections are what browsers and FTP servers think fair to one host; sixteen fill a
    /// wide-area line from four of them.
    fn default() -> Self {
        Self {
            total_max: 16,
            per_host_max: 4,
            bytes_per_second: None,
            schemes: BTreeMap::new(),
            hosts: BTreeMap::new(),
            space_max: None,
            breaker: BreakerPolicy::default(),
        }
    }
}

impl QueueLimits {
    pub(super) fn scheme(&self, scheme: &str) -> Limit {
        self.schemes.get(scheme).copied().unwrap_or_default()
    }

    /// The limits of a host, with all general ones put in: those of `host:port` before `host`'s.
    pub(super) fn host(&self, host: &str) -> Limit {
        let name = name_of(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let own = [host, name, bare].into_iter().find_map(|one| self.hosts.get(one));
        let own = own.copied().unwrap_or_default();
        Limit { connections: Some(own.connections.unwrap_or(self.per_host_max).max(1)), ..own }
    }
}

/// The host in `host:port`, or in `s3:bucket`.
fn name_of(host: &str) -> &str {
    // An IPv6 address has colons of its own, and brackets around it.
    if let Some((start, end)) = host.find('[').zip(host.rfind(']')) {
        return host.get(start..=end).unwrap_or(host);
    }
    host.rsplit_once(':').map_or(host, |(name, port)| {
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        if is_port { name } else { port }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_with_their_port_or_for_each_of_them() {
        let of = |limited: &str, host: &str| {
            let limit = Limit { connections: Some(1), bytes_per_second: None };
            let hosts = [(limited.to_owned(), limit)].into();
            QueueLimits { hosts, ..QueueLimits::default() }.host(host).connections == Some(1)
        };
        for (limited, host) in [
            ("h", "h:22"),
            ("h:22", "h:22"),
            ("bucket", "s3:bucket"),
            ("s3:bucket", "s3:bucket"),
            ("[::1]:22", "[::1]:22"),
            ("[::1]", "[::1]:22"),
            ("::1", "[::1]:22"),
            ("::1", "sftp:[::1]"),
        ] {
            assert!(of(limited, host), "{limited} is {host}");
        }
        for (limited, host) in
            [("h:23", "h:22"), ("g", "h:22"), ("1", "[::1]:22"), ("[::1]:23", "[::1]:22")]
        {
            assert!(!of(limited, host), "{limited} is not {host}");
        }
    }
}
