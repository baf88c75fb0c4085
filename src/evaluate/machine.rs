//! What the figures were measured on.

/// The machine that a result was measured on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize))]
pub struct Machine {
    /// The processor's name; empty where the system does not tell.
    pub cpu: String,
    /// Cores that this process may use; 0 where the system does not tell.
    pub cores: usize,
    /// The operating system and the architecture.
    pub system: String,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
        Self {
            cpu: name.map_or_else(String::new, |(_, v)| v.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        }
    }
}

/// The most memory that this process has held so far, in bytes (`VmHWM` of `/proc/self/status`); 0 where the system does
/// not tell.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn peak_memory_grows_with_what_is_held() {
        let before = super::peak_rss_bytes();
        let held = vec![1u8; 64 << 20];
        assert!(super::peak_rss_bytes() >= before.max(held.len() as u64));
    }

    #[test]
    fn the_machine_has_cores() {
        assert!(super::Machine::here().cores >= 1);
    }
}
