//! meta.json: what was recorded, how, where, and what was lost.  See docs/recording-format.md.

use serde_json::{Value, json};

use super::survey::Counts;
use crate::spool::{Footer, Header};

const FORMAT: &str = "sberf-recording";
const MAJOR: u32 = 1;
const MINOR: u32 = 2;

/// What the finaliser itself has to tell.
pub struct Outcome<'a> {
    /// Not by the process that captured.
    pub recovered: bool,
    pub counts: &'a Counts,
    pub stack_collisions: u64,
    pub refused_stacks: u64,
    /// Of perf maps and jitdumps.
    pub name_warnings: &'a [String],
    /// Stacks that were finished from a copy.
    pub copied_stacks: u64,
    pub unresolved_stacks: u64,
    pub late_samples: u64,
    pub rows: [(&'static str, u64); 6],
}

/// Builds the content of meta.json; `footer` is None when the capture was killed.
pub fn meta(header: &Header, footer: Option<&Footer>, outcome: &Outcome<'_>) -> Value {
    let counts = outcome.counts;
    let first_ns = counts.first_ns.unwrap_or(header.clock.monotonic_ns);
    let (start_ns, end_ns) = match footer {
        Some(footer) => (footer.start_ns, footer.end_ns),
        None => (first_ns, counts.last_ns.unwrap_or(first_ns)),
    };
    let dropped = dropped_by_cpu(footer, counts);
    let tables = footer.map(|footer| footer.tables);
    json!({
        "format": FORMAT,
        "version": { "major": MAJOR, "minor": MINOR },
        "sberf_version": header.sberf_version,
        "host": header.host,
        "command_line": header.command_line,
        "command": footer.and_then(|footer| footer.command.as_ref()),
        "clock": header.clock,
        "window": { "start_ns": start_ns, "end_ns": end_ns },
        "target": header.target,
        "sources": header.sources,
        "losses": {
            "dropped_records": dropped.iter().fold(0, |sum: u64, n| sum.saturating_add(*n)),
            "dropped_by_cpu": dropped,
            "missed_samples": footer.map_or(0, |footer| footer.missed_samples),
            "throttled": counts.throttled,
            "lost_sideband": counts.lost_sideband,
            "late_samples": outcome.late_samples,
            "unresolved_stacks": outcome.unresolved_stacks,
            "stack_collisions": outcome.stack_collisions,
            "max_sample_rate_before": header.max_sample_rate,
            "max_sample_rate_after": footer.and_then(|footer| footer.max_sample_rate),
        },
        "tables": {
            "made": tables.map(|tables| tables.made),
            "cached": tables.map(|tables| tables.cached),
            "refused": tables.map(|tables| tables.refused),
            "evicted": tables.map(|tables| tables.evicted),
            "copied_stacks": outcome.copied_stacks,
        },
        "warnings": warnings(footer, outcome),
        "recovered": outcome.recovered,
        "rows": outcome.rows.iter().map(|(table, rows)| (table.to_string(), json!(rows))).collect::<serde_json::Map<_, _>>(),
    })
}

/// The kernel side's own count, or what the sequence numbers show to be missing where that is more.
fn dropped_by_cpu(footer: Option<&Footer>, counts: &Counts) -> Vec<u64> {
    let gaps = counts.gaps_by_cpu();
    let counted = footer.map_or(&[][..], |footer| &footer.dropped_by_cpu);
    let at = |list: &[u64], cpu: usize| list.get(cpu).copied().unwrap_or(0);
    (0..gaps.len().max(counted.len())).map(|cpu| at(&gaps, cpu).max(at(counted, cpu))).collect()
}

fn warnings(footer: Option<&Footer>, outcome: &Outcome<'_>) -> Vec<String> {
    let mut warnings = footer.map_or(Vec::new(), |footer| footer.warnings.clone());
    let mut warn_if = |count: u64, text: String| {
        if count > 0 {
            warnings.push(text);
        }
    };
    let counts = outcome.counts;
    let killed = "the capture did not end by itself: what it had not yet written is missing";
    warn_if(u64::from(footer.is_none()), killed.to_string());
    let damaged = "the spool is cut off or damaged: what lies behind that place is missing";
    warn_if(u64::from(counts.damaged), damaged.to_string());
    warn_if(
        counts.malformed,
        format!("{} records of the spool make no sense and were left out", counts.malformed),
    );
    let late = outcome.late_samples;
    warn_if(late, format!("{late} samples came too late to be put in order and were left out"));
    let refused = outcome.refused_stacks;
    warn_if(refused, format!("{refused} stacks were too many to keep; their samples have none"));
    warnings.extend_from_slice(outcome.name_warnings);
    warnings
}
