//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rowdelta::engine::{Builder, DeleteLimits};

/// Keeps PostgreSQL tables in step with nested documents, writing only the rows that changed.
#[derive(Debug, Parser)]
#[command(name = "rowdelta", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// Format of the logs on standard error.
    #[arg(long, global = true, value_enum, default_value_t = Log::Text)]
    pub log: Log,
}

/// From a feed to tables that are in step with it.
const INIT_NEXT: &str = "\
From a feed to tables that are in step with it:
  rowdelta init calls.ndjson.gz -o map.toml
  rowdelta schema -m map.toml --create -d URL
  rowdelta sync -m map.toml --install -d URL calls.ndjson.gz

Exit codes: 0 proposed, 2 nothing to propose: a feed that cannot be read, or no field that tells documents apart.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show four nights on a PostgreSQL of its own: what each wrote, beside deleting and re-creating.
    Demo(Demo),
    /// Say what would hurt a sync, what it costs, and print the statements that mend it.
    Doctor(Doctor),
    /// Print what is noted of a document: which rows changed, when, and how.
    History(History),
    /// Propose a mapping for a feed, with the evidence as comments: where to begin.
    ///
    /// The documents are read once, and nothing else is needed: no database, no tables. What is proposed works as it is,
    /// and is meant to be read: which field is the key, which list becomes which table, the type of each column, and
    /// what was seen that speaks for it.
    #[command(after_help = INIT_NEXT)]
    Init(Init),
    /// Install the schema `rowdelta`, in which state and ledger are kept, or upgrade it.
    Install(Install),
    /// Say what a sync would do with a feed: which rows it would add, change, move and remove. Nothing is written.
    Plan(Plan),
    /// Print the tables of a mapping as SQL, with types given in it or inferred from a feed.
    Schema(Schema),
    /// Say what is recorded: documents, who is at work, the last runs and what failed.
    Status(Status),
    /// Bring the tables in step with a feed.
    Sync(Sync),
    /// Compare what is stored with a feed or with what was recorded, and name what differs.
    Verify(Verify),
    /// Print a script of completions for a shell.
    Completions(Completions),
    /// Print the manual page, or write one for every command.
    Man(Man),
}

/// Print a script of completions for a shell.
///
/// For bash: rowdelta completions bash > ~/.local/share/bash-completion/completions/rowdelta
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// Print the manual page, or write one for every command.
#[derive(Debug, Args)]
pub struct Man {
    /// Write a page for every command into this directory: rowdelta.1, rowdelta-sync.1 and so on.
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What the exit codes of `sync` mean.
const EXIT_CODES: &str = "\
Exit codes:
  0         done
  1         documents failed, and trying again does not help; the others are in
  2         could not run, or not to the end: usage, mapping, connection, feed
  3         deletions were withheld; the rest is in
  4         another run of the mapping is at work
  6         documents failed, and trying again can help some
  130, 143  stopped by a signal; what was in hand is finished";

/// Show four nights on a PostgreSQL of its own: what each wrote, beside deleting and re-creating.
#[derive(Debug, Args)]
pub struct Demo {
    /// How many grant calls are generated.
    #[arg(long, value_name = "N", default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub calls: u32,

    /// What they are drawn from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Leave the databases up afterwards, and say how to connect, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,

    /// Only write the nights' dumps, the mapping and the tables into a directory, for a database of your own.
    #[arg(long, value_name = "DIR", conflicts_with = "keep")]
    pub write: Option<PathBuf>,
}

/// Say what would hurt a sync, what it costs, and print the statements that mend it.
///
/// Nothing is written. Exit codes: 0 no errors, 1 errors (a sync would refuse to start, or documents would fail), 2
/// could not look.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The mapping, a TOML file.
    #[arg(short, long, value_name = "MAP")]
    pub mapping: PathBuf,

    /// The database, as the role that syncs.
    #[command(flatten)]
    pub database: Database,

    /// Count duplicate keys in large tables, too: those of more than 256 MiB, however long it takes.
    #[arg(long)]
    pub thorough: bool,

    /// The workers that a sync will have. Default: the number of cores, 2 to 4.
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// The database.
#[derive(Clone, Debug, Args)]
pub struct Database {
    /// Connection string or URL; otherwise DATABASE_URL, or libpq's PGHOST, PGSERVICE and the like.
    #[arg(short, long, value_name = "URL")]
    pub database: Option<String>,

    /// A PostgreSQL managed by rowdelta instead, started for this command; its data is kept in the user's data directory.
    #[arg(long, conflicts_with = "database")]
    pub local: bool,
}

/// Propose a mapping for a feed, with the evidence as comments.
#[derive(Debug, Args)]
pub struct Init {
    /// The mapping's name, in the database and in reports. Default: that of the feed's file, without digits at its end.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// The table that has one row a document; the names of the others begin with it. Default: the mapping's name.
    #[arg(long, value_name = "[SCHEMA.]TABLE")]
    pub table: Option<String>,

    /// The field that tells documents apart, as a path: `id`, `meta.number`. Repeat it for a key of several fields.
    /// Default: the best of those that every document has, no two alike.
    #[arg(long, value_name = "FIELD")]
    pub key: Vec<String>,

    /// Read so many documents at most: more are better evidence.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: u64,

    /// Write the mapping to a file, not to standard output. One that exists stays as it is.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Overwrite the file of --out.
    #[arg(long, requires = "out")]
    pub force: bool,

    /// Documents longer than this are passed over, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub document_bytes_max: usize,

    /// Files of one feed, or directories of them: JSON objects, one a line or over several, or arrays of them;
    /// plain, .gz or .zst; `-` for standard input.
    #[arg(required = true, value_name = "FEED")]
    pub feed: Vec<PathBuf>,
}

/// Install the schema `rowdelta`, or upgrade it.
#[derive(Debug, Args)]
pub struct Install {
    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// As an extension, whose files the server has; a schema that is installed is handed over to it.
    #[arg(long)]
    pub extension: bool,

    /// Not as an extension, which is the default; a schema that belongs to the extension is taken back from it.
    #[arg(long, conflicts_with = "extension")]
    pub plain: bool,
}

/// Say what a sync would do with a feed. Nothing is written.
///
/// First how many rows of each relation, then the rows, document by document; of a long text that changed the words
/// that did. Exit codes: 0 planned, 1 documents would fail, 2 could not look, 3 deletions would be withheld, 5 with
/// --exit-code: something would be written.
#[derive(Debug, Args)]
pub struct Plan {
    /// The mapping, a TOML file.
    #[arg(short, long, value_name = "MAP")]
    pub mapping: PathBuf,

    /// The database. `SELECT` is enough.
    #[command(flatten)]
    pub database: Database,

    /// Files of one feed, as for `sync`.
    #[arg(required = true, value_name = "FEED")]
    pub feed: Vec<PathBuf>,

    /// What is deleted.
    #[command(flatten)]
    pub deleting: Deleting,

    /// Show every document, every row, and values in full.
    #[arg(long)]
    pub full: bool,

    /// As JSON: a line for each row that would be written, as `sync --changes` has them, and the report as the last line.
    #[arg(long, conflicts_with = "full")]
    pub json: bool,

    /// Exit with 5 if anything would be written.
    #[arg(long)]
    pub exit_code: bool,

    /// Save the plan to a file, for `sync --plan`.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub out: Option<PathBuf>,

    /// Batches worked on at once, each on a connection of its own. Default: the number of cores, 2 to 4.
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// Documents longer than this fail, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub document_bytes_max: usize,
}

/// Print the tables of a mapping as SQL.
#[derive(Debug, Args)]
pub struct Schema {
    /// The mapping, a TOML file.
    #[arg(short, long, value_name = "MAP")]
    pub mapping: PathBuf,

    /// The database whose tables are left out. Only with --create it is taken from the environment.
    #[command(flatten)]
    pub database: Database,

    /// Create the tables, in one transaction, instead of printing them.
    #[arg(long)]
    pub create: bool,

    /// Documents longer than this are passed over, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub document_bytes_max: usize,

    /// Files of one feed to infer types from; without them every column needs a `type` in the mapping.
    #[arg(value_name = "FEED")]
    pub feed: Vec<PathBuf>,
}

/// Bring the tables in step with a feed.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Sync {
    /// The mapping, a TOML file.
    #[arg(short, long, value_name = "MAP")]
    pub mapping: PathBuf,

    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// Files of one feed, or directories of them: JSON objects, one a line or over several, or arrays of them;
    /// plain, .gz or .zst; `-` for standard input.
    #[arg(required = true, value_name = "FEED")]
    pub feed: Vec<PathBuf>,

    /// Write the report as JSON to a file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Write metrics to a file when the run has ended, however it did, in Prometheus' text format: for node_exporter's
    /// textfile collector. Counters go on from what the file says.
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,

    /// Do just what was planned: `plan --out` has written the file, from the same feed. If anything would be done otherwise
    /// by now nothing is written: exit code 2. A document that is changed meanwhile fails.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,

    /// Write a line of JSON for each row that is written, once its transaction is committed, to a file; `-`: to standard
    /// output, and nothing else there.
    #[arg(long, value_name = "FILE")]
    pub changes: Option<PathBuf>,

    /// Note each row that is written in the table rowdelta.change, too, in the same transaction: `rowdelta history`
    /// prints them. They are kept as long as the SQL function rowdelta.keep_history says, or for good.
    #[arg(long)]
    pub history: bool,

    /// Install the schema `rowdelta` first, if it is not there, or upgrade it.
    #[arg(long)]
    pub install: bool,

    /// Batches worked on at once, each on a connection of its own. Default: the number of cores, 2 to 4.
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// Documents of a transaction at most.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub batch: usize,

    /// How long a statement waits for a lock before its documents are tried again, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    pub lock_timeout: u64,

    /// How long to wait while another run of the mapping is at work, in seconds; 0: exit with code 4 at once.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub wait: u64,

    /// How long a run that died blocks the next one, in seconds. A live one renews its lease.
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub lease: u64,

    /// What is deleted.
    #[command(flatten)]
    pub deleting: Deleting,

    /// How often a transaction is tried again after an error that may pass.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub retries: u32,

    /// Documents longer than this fail, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub document_bytes_max: usize,

    /// How progress is shown.
    #[command(flatten)]
    pub progress: Progress,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Args)]
pub struct Progress {
    /// When to draw a progress bar on standard error.
    ///
    /// At the end a summary says what was written, and what was not, whatever stands here.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub progress: When,

    /// How often a line in the log says how far the run is, in seconds, where no bar is drawn.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub progress_every: u64,
}

/// When something is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// A bar on a terminal, otherwise lines in the log.
    Auto,
    /// A bar, whatever standard error is.
    Always,
    /// Neither a bar nor lines.
    Never,
}

/// What a sync may delete.
#[derive(Clone, Debug, Args)]
pub struct Deleting {
    /// The feed is complete: documents recorded and not in it are deleted, or marked, as the mapping's `on_absent` says.
    #[arg(long)]
    pub complete: bool,

    /// A complete feed has at least so many documents; otherwise half as many as the last complete one had.
    #[arg(long, value_name = "N", requires = "complete")]
    pub expect: Option<u64>,

    /// Rows that may be deleted from all tables together, with those that foreign keys delete along. Documents that
    /// would delete more are withheld: exit code 3.
    #[arg(long, value_name = "N", default_value_t = DeleteLimits::default().rows_max)]
    pub deletes_max: u64,

    /// Share of a table's rows that may be deleted, in percent, where that is more than 100 rows.
    #[arg(long, value_name = "P", default_value_t = 20.0)]
    pub deletes_percent_max: f64,

    /// Allow so many deletions this time, whatever share of a table they are; instead of the other two limits.
    #[arg(long, value_name = "N", conflicts_with_all = ["deletes_max", "deletes_percent_max"])]
    pub allow_deletes: Option<u64>,
}

impl Deleting {
    /// Sets up an engine.
    pub fn set(&self, builder: Builder) -> Builder {
        let builder = builder.complete(self.complete).delete_limits(self.limits());
        match self.expect {
            Some(documents) => builder.expect(documents),
            None => builder,
        }
    }

    /// What the run may delete.
    fn limits(&self) -> DeleteLimits {
        match self.allow_deletes {
            Some(rows_max) => DeleteLimits { rows_max, percent_max: None },
            None => DeleteLimits { rows_max: self.deletes_max, percent_max: Some(self.deletes_percent_max) },
        }
    }
}

/// Say what is recorded: documents, who is at work, the last runs and what failed.
#[derive(Debug, Args)]
pub struct Status {
    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// Of this mapping only: its name, or its file.
    #[arg(short, long, value_name = "NAME|MAP")]
    pub mapping: Option<String>,

    /// How many runs of each mapping.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,

    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Print what is noted of a document: which rows changed, when, and how.
///
/// Rows are noted by `sync --history`, and by the SQL functions where rowdelta.keep_history asks for it.
#[derive(Debug, Args)]
pub struct History {
    /// The mapping: its name, or its file.
    #[arg(short, long, value_name = "NAME|MAP")]
    pub mapping: String,

    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// The document's key: its values as the database writes them, joined by commas.
    #[arg(value_name = "DOCUMENT")]
    pub document: String,

    /// How many changes at most: the newest.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max: u32,

    /// Show long values in full.
    #[arg(long)]
    pub full: bool,

    /// As JSON, a line for each changed row.
    #[arg(long)]
    pub json: bool,
}

/// Compare what is stored with a feed or with what was recorded, and name what differs.
#[derive(Debug, Args)]
pub struct Verify {
    /// The mapping, a TOML file.
    #[arg(short, long, value_name = "MAP")]
    pub mapping: PathBuf,

    /// The database.
    #[command(flatten)]
    pub database: Database,

    /// Files of one feed, as for `sync`: every row of its documents is compared. Without any the stored rows are
    /// compared with the fingerprints that were recorded, which tell documents and relations, but not rows.
    #[arg(value_name = "FEED")]
    pub feed: Vec<PathBuf>,

    /// Write what differs; without a feed mark its documents, so that the next sync does them again.
    #[arg(long)]
    pub repair: bool,

    /// Say the values, too, not only the columns that differ.
    #[arg(long)]
    pub values: bool,

    /// Write what was found as JSON to a file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Batches worked on at once, each on a connection of its own. Default: the number of cores, 2 to 4.
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// With --repair: how long to wait while a run of the mapping is at work, in seconds; 0: exit with code 4 at once.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub wait: u64,

    /// With --repair: how long this run blocks the next one if it dies, in seconds.
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub lease: u64,

    /// Documents longer than this fail, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub document_bytes_max: usize,

    /// How progress is shown.
    #[command(flatten)]
    pub progress: Progress,
}

/// Format of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
