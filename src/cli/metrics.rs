//! `--metrics FILE`: what runs recorded, as Prometheus' text format, for node_exporter's textfile collector.
//!
//! Each night is a process of its own, so counters and histograms go on from what the file says: `increase()` over days
//! is right, and the same queries do for a service that embeds the library. Gauges are of the last run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use metrics::{Unit, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::cli::output::Exit;

/// Upper ends of the histograms' buckets, in seconds: from a transaction to a night.
const BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 3_600.0];

/// How a run of the command may end, in words.
const STATUSES: [&str; 7] = ["done", "failed", "retryable", "withheld", "busy", "unable", "stopped"];

/// The metrics of one run of the command.
pub struct Metrics {
    file: PathBuf,
    handle: PrometheusHandle,
    began: Instant,
}

impl Metrics {
    /// Records from now on.
    ///
    /// # Errors
    /// The file's directory is not there; in words. That is said before anything is written.
    pub fn start(file: &Path) -> Result<Self, String> {
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !dir.is_dir() {
            let (file, dir) = (file.display(), dir.display());
            return Err(format!("--metrics {file}: there is no directory {dir}; make it"));
        }
        if file.is_dir() {
            return Err(format!("--metrics {0}: {0} is a directory; name a file in it", file.display()));
        }
        let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).map_err(|error| error.to_string())?;
        let handle = builder.install_recorder().map_err(|error| error.to_string())?;
        rowdelta::engine::metrics::describe();
        describe_gauge!("rowdelta_last_run_timestamp_seconds", Unit::Seconds, "When the last run ended");
        describe_gauge!(
            "rowdelta_last_success_timestamp_seconds",
            Unit::Seconds,
            "When the last run ended with 0"
        );
        describe_gauge!("rowdelta_last_run_seconds", Unit::Seconds, "How long the last run took");
        describe_gauge!("rowdelta_last_run_exit_code", "The exit code of the last run");
        describe_gauge!("rowdelta_last_run_status", "1 for how the last run ended, 0 for the others");
        Ok(Self { file: file.to_owned(), handle, began: Instant::now() })
    }

    /// Writes the file when a run of a mapping has ended, however it did. A file that cannot be written is said on
    /// standard error, and changes nothing else.
    pub fn end(self, mapping: &str, done: &Result<Exit, String>) {
        let exit = done.as_ref().map_or(Exit::Unable, |exit| *exit);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let set = |name: &'static str, value: f64| gauge!(name, "mapping" => mapping.to_owned()).set(value);
        set("rowdelta_last_run_timestamp_seconds", now);
        set("rowdelta_last_run_seconds", self.began.elapsed().as_secs_f64());
        set("rowdelta_last_run_exit_code", f64::from(exit as u8));
        if exit == Exit::Done {
            set("rowdelta_last_success_timestamp_seconds", now);
        }
        for status in STATUSES {
            let labels = [("mapping", mapping.to_owned()), ("status", status.to_owned())];
            gauge!("rowdelta_last_run_status", &labels).set(f64::from(u8::from(status == word(exit))));
        }
        if let Err(error) = self.write() {
            eprintln!("rowdelta: {}: {error}", self.file.display());
        }
    }

    /// Whoever reads the file meanwhile finds the old one or the new one.
    fn write(&self) -> io::Result<()> {
        self.handle.run_upkeep();
        let before = std::fs::read_to_string(&self.file).unwrap_or_default();
        let text = Text::read(&self.handle.render()).after(Text::read(&before)).to_string();
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = self.file.with_file_name(name);
        let written = std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, &self.file));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }
}

fn word(exit: Exit) -> &'static str {
    match exit {
        Exit::Done => "done",
        Exit::Failed | Exit::Differs => "failed",
        Exit::Retryable => "retryable",
        Exit::Withheld => "withheld",
        Exit::Busy => "busy",
        Exit::Unable => "unable",
        Exit::Interrupted | Exit::Terminated => "stopped",
    }
}

/// Prometheus' text format, taken apart as far as is needed to add two of them.
#[derive(Debug, Default, PartialEq)]
struct Text(BTreeMap<String, Family>);

/// A metric with all its series.
#[derive(Debug, Default, PartialEq)]
struct Family {
    help: Option<String>,
    kind: String,
    /// Name with labels, as they stand there, and value; in order.
    series: Vec<(String, f64)>,
}

impl Text {
    /// Lines that are not understood are left out.
    fn read(text: &str) -> Self {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                families.entry(name.to_owned()).or_default().help = Some(help.to_owned());
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                current = name.to_owned();
                families.entry(current.clone()).or_default().kind = kind.to_owned();
            } else if let Some((series, value)) = line.rsplit_once(' ') {
                let family = families.get_mut(&current).filter(|_| series.starts_with(&current));
                if let (Some(family), Ok(value)) = (family, value.parse()) {
                    family.series.push((series.to_owned(), value));
                }
            }
        }
        Text(families)
    }

    /// What this adds to what was counted before: gauges take the place of older ones.
    fn after(mut self, before: Text) -> Self {
        for (name, old) in before.0 {
            let family = self.0.entry(name).or_default();
            if family.kind.is_empty() {
                (family.help, family.kind) = (old.help, old.kind);
            }
            let adds = family.kind == "counter" || family.kind == "histogram";
            let mut series = old.series;
            for (name, value) in family.series.drain(..) {
                match series.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, old)) => *old = if adds { *old + value } else { value },
                    None => series.push((name, value)),
                }
            }
            family.series = series;
        }
        self
    }
}

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, family) in self.0.iter().filter(|(_, family)| !family.series.is_empty()) {
            if let Some(help) = &family.help {
                writeln!(f, "# HELP {name} {help}")?;
            }
            writeln!(f, "# TYPE {name} {}", family.kind)?;
            let mut lines = String::new();
            for (series, value) in &family.series {
                let _ = writeln!(lines, "{series} {value}");
            }
            f.write_str(&lines)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY: &str = "\
# HELP a_total Things
# TYPE a_total counter
a_total{mapping=\"x\",outcome=\"new one\"} 3
a_total{mapping=\"y\"} 1

# TYPE b_seconds histogram
b_seconds_bucket{le=\"0.5\"} 1
b_seconds_bucket{le=\"+Inf\"} 2
b_seconds_sum 0.75
b_seconds_count 2
# TYPE last gauge
last{mapping=\"x\"} 1700000000.5
last{mapping=\"y\"} 5
";

    const TUESDAY: &str = "\
# HELP a_total Things
# TYPE a_total counter
a_total{mapping=\"x\",outcome=\"new one\"} 4
a_total{mapping=\"z\"} 2
# TYPE b_seconds histogram
b_seconds_bucket{le=\"0.5\"} 0
b_seconds_bucket{le=\"+Inf\"} 1
b_seconds_sum 1.5
b_seconds_count 1
# TYPE last gauge
last{mapping=\"x\"} 7
# TYPE new_total counter
new_total 1
";

    #[test]
    fn counters_go_on_and_gauges_are_the_last() {
        let both = "\
# HELP a_total Things
# TYPE a_total counter
a_total{mapping=\"x\",outcome=\"new one\"} 7
a_total{mapping=\"y\"} 1
a_total{mapping=\"z\"} 2
# TYPE b_seconds histogram
b_seconds_bucket{le=\"0.5\"} 1
b_seconds_bucket{le=\"+Inf\"} 3
b_seconds_sum 2.25
b_seconds_count 3
# TYPE last gauge
last{mapping=\"x\"} 7
last{mapping=\"y\"} 5
# TYPE new_total counter
new_total 1
";
        assert_eq!(Text::read(TUESDAY).after(Text::read(MONDAY)).to_string(), both);
    }

    #[test]
    fn a_file_that_is_no_such_text_counts_for_nothing() {
        for before in ["", "\0\u{1}garbage {{{", "a_total 12", "# TYPE a_total counter\na_total{ twelve\n"] {
            let text = Text::read(TUESDAY).after(Text::read(before)).to_string();
            assert_eq!(text, TUESDAY, "{before:?}");
        }
    }
}
