//! How far a run is: a bar on a terminal, else a line in the log now and then.
//!
//! Logs that come while a bar is drawn go above it: [`Stderr`] takes the bar away for as long as a line is written.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{BinaryBytes, HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rowdelta::engine::progress::{Phase, Progress, Snapshot};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cli::args::{self, When};
use crate::cli::input::FeedBytes;

/// What lines of progress are logged under.
pub const TARGET: &str = "rowdelta::progress";

/// How often the bar is drawn.
const REDRAW: Duration = Duration::from_millis(100);

/// … and at most so many times a second, whatever is logged meanwhile.
const DRAWN_HZ: u8 = 20;

/// Before so long a time a rate says nothing.
const RATE_AFTER: Duration = Duration::from_millis(500);

/// What is drawn on standard error.
static SCREEN: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));

/// Standard error for logs: nothing that is drawn is torn by them.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        SCREEN.suspend(|| io::stderr().write(text))
    }

    fn write_all(&mut self, text: &[u8]) -> io::Result<()> {
        SCREEN.suspend(|| io::stderr().write_all(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A run to watch.
pub struct Watched {
    pub progress: Arc<Progress>,
    pub bytes: FeedBytes,
    /// The signal that stops it, once it has come.
    pub stop: watch::Receiver<u8>,
}

/// The progress that is shown.
pub struct Shown {
    task: Option<JoinHandle<()>>,
    bar: Option<ProgressBar>,
}

impl Shown {
    /// Shows how far a run is, until its end.
    pub fn start(args: args::Progress, watched: Watched) -> Self {
        let target = match args.progress {
            When::Never => return Self { task: None, bar: None },
            When::Auto if is_terminal() => Some(ProgressDrawTarget::stderr_with_hz(DRAWN_HZ)),
            When::Auto => None,
            When::Always => {
                let terminal = Box::new(Term::buffered_stderr());
                Some(ProgressDrawTarget::term_like_with_hz(terminal, DRAWN_HZ))
            }
        };
        let bar = target.map(|target| bar(target, &watched.bytes));
        let task = match bar.clone() {
            Some(bar) => tokio::spawn(draw(bar, watched)),
            None => tokio::spawn(log(Duration::from_secs(args.progress_every), watched)),
        };
        Self { task: Some(task), bar }
    }

    /// The run has ended: nothing is shown any more.
    pub async fn end(self) {
        if let Some(task) = self.task {
            task.abort();
            let _ = task.await;
        }
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether a bar can be drawn on standard error.
fn is_terminal() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}

fn bar(target: ProgressDrawTarget, bytes: &FeedBytes) -> ProgressBar {
    let template = match bytes.total {
        Some(_) => "[{wide_bar}] {prefix}\n{wide_msg}",
        None => "{spinner} {prefix}\n{wide_msg}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    SCREEN.set_draw_target(target);
    let bar = SCREEN.add(ProgressBar::no_length());
    bar.set_style(style.progress_chars("=> ").tick_chars("|/-\\ "));
    bytes.total.into_iter().for_each(|total| bar.set_length(total));
    bar
}

/// Draws until it is aborted.
async fn draw(bar: ProgressBar, watched: Watched) {
    let mut pace = Pace::default();
    loop {
        let now = watched.progress.snapshot();
        pace.look(&now);
        let left = bar.length().map(|_| bar.eta());
        bar.set_prefix(tail(&watched, &now, &pace, left));
        bar.set_message(counts(&now));
        bar.set_position(watched.bytes.read());
        bar.tick();
        tokio::time::sleep(REDRAW).await;
    }
}

/// Logs until it is aborted.
async fn log(every: Duration, watched: Watched) {
    let mut pace = Pace::default();
    loop {
        tokio::time::sleep(every).await;
        let now = watched.progress.snapshot();
        pace.look(&now);
        let percent = watched.bytes.total.map(|total| percent(watched.bytes.read(), total));
        tracing::info!(
            target: TARGET,
            phase = now.phase.as_str(),
            percent,
            read = now.read,
            documents_per_second = pace.rate().map(|rate| rate as u64),
            seconds_left = pace.left(&watched.bytes).map(|left| left.as_secs()),
            unchanged = now.unchanged,
            new = now.new,
            changed = now.changed,
            failed = now.failed,
            withheld = now.withheld,
            rows_written = now.rows_written,
            "progress"
        );
    }
}

/// How fast the feed is read.
#[derive(Default)]
struct Pace {
    /// Since when, and when that was looked at last; not yet, no more.
    since: Option<Instant>,
    until: Option<Instant>,
    read: u64,
}

impl Pace {
    fn look(&mut self, now: &Snapshot) {
        if now.phase == Phase::Feed {
            self.since.get_or_insert_with(Instant::now);
            self.until = Some(Instant::now());
        }
        self.read = now.read;
    }

    fn elapsed(&self) -> Option<Duration> {
        let elapsed = self.until?.duration_since(self.since?);
        (elapsed >= RATE_AFTER).then_some(elapsed)
    }

    /// Documents a second.
    fn rate(&self) -> Option<f64> {
        self.elapsed().map(|elapsed| self.read as f64 / elapsed.as_secs_f64())
    }

    /// How long the rest of the files takes, if it goes on as it went on average.
    fn left(&self, bytes: &FeedBytes) -> Option<Duration> {
        let (read, total) = (bytes.read(), bytes.total?);
        let share = total.saturating_sub(read) as f64 / read.max(1) as f64;
        (read > 0).then(|| self.elapsed().map(|elapsed| elapsed.mul_f64(share.min(1e6))))?
    }
}

/// What stands behind the bar: how much of the files has been read, how fast, and how long it will take yet; or what
/// is done before and after.
fn tail(watched: &Watched, now: &Snapshot, pace: &Pace, left: Option<Duration>) -> String {
    if *watched.stop.borrow() != 0 && now.phase <= Phase::Finish {
        return "stopping: what is in hand is finished".to_owned();
    }
    let doing = match now.phase {
        Phase::Start => "reading what is known, or waiting for another run",
        Phase::Finish => "the last batches, second tries",
        Phase::Sweep => "removing what the feed does not have",
        Phase::Merge => "packing what is recorded",
        Phase::Feed => return feed(&watched.bytes, now, pace, left),
        _ => "done",
    };
    doing.to_owned()
}

fn feed(bytes: &FeedBytes, now: &Snapshot, pace: &Pace, left: Option<Duration>) -> String {
    let read = bytes.read();
    let mut words = match bytes.total {
        // Files are read ahead of what is done with them.
        Some(total) if read >= total => return format!("all read, {} in hand", HumanCount(in_hand(now))),
        Some(total) => format!("{} % of {}", percent(read, total), BinaryBytes(total)),
        None => format!("{} read", BinaryBytes(read)),
    };
    if let Some(rate) = pace.rate() {
        words += &format!(", {} a second", HumanCount(rate as u64));
        if let Some(left) = left {
            words += &format!(", {} left", clock(left));
        }
    }
    words
}

/// Documents of which it is not decided yet what becomes of them.
fn in_hand(now: &Snapshot) -> u64 {
    now.read.saturating_sub(now.repeated + now.unchanged + now.new + now.changed + now.failed + now.withheld)
}

/// What became of the documents so far.
fn counts(now: &Snapshot) -> String {
    let mut words = format!(
        "{} documents: {} unchanged, {} changed, {} new, {} failed",
        HumanCount(now.read),
        HumanCount(now.unchanged + now.repeated),
        HumanCount(now.changed),
        HumanCount(now.new),
        HumanCount(now.failed),
    );
    for (count, what) in [(now.withheld, "withheld"), (now.removed, "deleted")] {
        if count > 0 {
            words += &format!(", {} {what}", HumanCount(count));
        }
    }
    words
}

/// Rounded down: 100 is the end.
fn percent(read: u64, total: u64) -> u64 {
    (u128::from(read.min(total)) * 100 / u128::from(total.max(1))) as u64
}

/// `0:09`, `12:30`, `1:02:03`.
fn clock(time: Duration) -> String {
    let (hours, minutes, seconds) = (time.as_secs() / 3600, time.as_secs() / 60 % 60, time.as_secs() % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_counts_fits_a_terminal() {
        let progress = Progress::default();
        let now = progress.snapshot();
        assert_eq!(counts(&now), "0 documents: 0 unchanged, 0 changed, 0 new, 0 failed");
        let many = "9,999,999 documents: 9,999,999 unchanged, 99,999 changed, 99,999 new, 9 failed";
        assert!(many.len() <= 80);
    }

    #[test]
    fn percents_and_times_are_short() {
        assert_eq!(
            [(0, 0), (1, 3), (999, 1000), (5, 5), (7, 5)].map(|(read, all)| percent(read, all)),
            [0, 33, 99, 100, 100]
        );
        let clocks = [0, 9, 750, 3_723].map(|seconds| clock(Duration::from_secs(seconds)));
        assert_eq!(clocks, ["0:00", "0:09", "12:30", "1:02:03"]);
    }

    #[test]
    fn there_is_a_rate_only_after_a_while() {
        let pace = Pace { since: Some(Instant::now()), until: Some(Instant::now()), read: 5 };
        assert_eq!((pace.rate(), pace.left(&FeedBytes::default())), (None, None));
        let since = Instant::now();
        let pace = Pace { since: Some(since), until: Some(since + Duration::from_secs(2)), read: 5 };
        assert_eq!(pace.rate(), Some(2.5));
    }
}
