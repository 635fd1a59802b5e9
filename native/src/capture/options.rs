//! What to capture, as sberf/capture/options.py sends it.

use serde::Deserialize;

/// Everything that a capture needs to know.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The directory to create for the spool.
    pub spool: std::path::PathBuf,
    pub sberf_version: String,
    pub command_line: Vec<String>,
    pub host: serde_json::Value,
    pub target: Target,
    pub sources: Vec<SourceOptions>,
    pub max_user_frames: u32,
    pub max_kernel_frames: u32,
    /// Unwind user stacks by tables; else by frame pointer alone.
    pub use_tables: bool,
    /// All ring buffers together.
    pub buffer_bytes: u64,
    pub max_sample_rate: Option<u64>,
    /// Enable the events later, by `start`, also for a command.
    pub delayed: bool,
    /// Who owns the files: the user behind sudo.
    pub owner: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub kind: TargetKind,
    pub pids: Vec<i32>,
    pub tids: Vec<i32>,
    /// None: every online CPU.
    pub cpus: Option<Vec<u16>>,
    /// Empty: tasks are wanted wherever they are.
    pub cgroups: Vec<Cgroup>,
    /// Runs while the capture does; it is also the target when `kind` is `command`.
    /// Words are bytes: the kernel knows no encoding.
    pub argv: Option<Vec<Vec<u8>>>,
    pub inherit: bool,
    /// As meta.json shows it.
    pub description: serde_json::Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    All,
    Pids,
    Tids,
    Command,
    Cgroup,
    Container,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cgroup {
    /// Inode of the cgroup's directory.
    pub id: u64,
    /// The v1 controller's name; None in the v2 hierarchy.
    pub v1_controller: Option<String>,
}

/// One event, as perf_event_open(2) wants it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceOptions {
    pub event: String,
    pub unit: String,
    #[serde(rename = "type")]
    pub kind: u32,
    pub config: u64,
    pub frequency_hz: Option<u64>,
    pub period: Option<u64>,
    pub user: bool,
    pub kernel: bool,
    pub precise: u8,
    pub exclude_idle: bool,
    pub exclude_hypervisor: bool,
    pub exclude_host: bool,
    pub exclude_guest: bool,
}

impl Target {
    /// Are the samples of every process wanted?
    pub fn is_system_wide(&self) -> bool {
        self.kind == TargetKind::All
    }

    /// Is each event bound to a task, rather than to a CPU?
    pub fn is_per_task(&self) -> bool {
        matches!(self.kind, TargetKind::Pids | TargetKind::Tids | TargetKind::Command)
    }
}
