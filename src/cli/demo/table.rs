//! What the demo prints: a block for each night, of at most 80 columns.

use std::fmt::Write as _;
use std::time::Duration;

use rowdelta::engine::report::Report;
use rowdelta::mapping::Mapping;
use rowdelta::postgres::doctor::size;

use super::rewrite::Written;

/// What one way to sync did in one night.
pub struct Cell {
    skipped: u64,
    /// Added, updated, removed, for each relation of the mapping and then for all catalogues together. What is not
    /// told apart is `None`.
    rows: Vec<([Option<u64>; 3], u64)>,
    /// Wall time.
    pub elapsed: Duration,
    /// Bytes of write-ahead log of the whole server.
    pub wal_bytes: u64,
}

impl Cell {
    /// Of a run of rowdelta.
    pub fn of_report(report: &Report, mapping: &Mapping) -> Self {
        let relations = mapping.relations.len();
        let mut rows = vec![[0; 3]; relations + 1];
        for (at, counts) in report.relations.iter().enumerate() {
            let sums = &mut rows[at.min(relations)];
            sums[0] += counts.added;
            sums[1] += counts.updated + counts.moved;
            sums[2] += counts.removed;
        }
        let rows = rows.into_iter().map(|sums| (sums.map(Some), sums.iter().sum())).collect();
        let skipped = report.documents.unchanged + report.documents.repeated;
        Self { skipped, rows, elapsed: Duration::ZERO, wal_bytes: 0 }
    }

    /// Of a night of deleting and re-creating.
    pub fn of_rewrite(written: &Written) -> Self {
        let counts = written.relations.iter().copied().chain([written.lookups]);
        let rows = counts.map(|count| ([None; 3], count)).collect();
        Self { skipped: written.skipped, rows, elapsed: Duration::ZERO, wal_bytes: 0 }
    }

    fn total(&self) -> u64 {
        self.rows.iter().map(|(_, total)| total).sum()
    }
}

/// What is left of what a later step had filled in, and what the tables hold.
#[derive(Debug)]
pub struct Survived {
    /// Documents of the first night that are still there.
    pub documents: u64,
    /// Of those, with the id that they had.
    pub same_id: u64,
    /// Of those, with the path that the later step filled in.
    pub storage_path: u64,
    /// Name, number of rows and sum of hashes of each relation.
    pub content: Vec<(String, i64, String)>,
}

/// A night: rows written per relation, then the sums. `cells`: rowdelta, recreate, recreate by hash.
pub fn night(at: usize, title: &str, read: u64, mapping: &Mapping, cells: &[Cell]) -> String {
    let mut text = String::new();
    let heading = format!("Night {at}: {title}");
    let _ = writeln!(text, "{heading:<60}{:>16}", format!("{} calls", number(read)));
    let _ =
        writeln!(text, "{:24}{:^30}{:>11}{:>11}", "", "------- rowdelta -------", "delete and", "the same,");
    let _ = writeln!(
        text,
        "{:<24}{:>10}{:>10}{:>10}{:>11}{:>11}",
        "  rows written", "added", "updated", "removed", "recreate", "by hash"
    );
    let names = mapping.relations.iter().map(|relation| relation.name.as_str()).chain(["catalogues"]);
    for (row, name) in names.enumerate().filter(|(row, _)| cells.iter().any(|cell| cell.rows[*row].1 > 0)) {
        let _ = write!(text, "  {name:<22}");
        for count in cells[0].rows[row].0 {
            let _ = write!(text, "{:>10}", count.map_or_else(String::new, dot));
        }
        for cell in &cells[1..] {
            let _ = write!(text, "{:>11}", dot(cell.rows[row].1));
        }
        text.push('\n');
    }
    let mut line = |name: &str, value: &dyn Fn(&Cell) -> String| {
        let _ = write!(text, "  {name:<22}{:>30}", value(&cells[0]));
        cells[1..].iter().for_each(|cell| text.push_str(&format!("{:>11}", value(cell))));
        text.push('\n');
    };
    line("all rows", &|cell| dot(cell.total()));
    line("calls skipped", &|cell| dot(cell.skipped));
    line("write-ahead log", &|cell| size(cell.wal_bytes as i64));
    line("time", &|cell| format!("{:.2} s", cell.elapsed.as_secs_f64()));
    text.push('\n');
    text
}

/// What survived the nights. In the order of the cells of a night.
pub fn survived(of: &[Survived]) -> String {
    let mut text =
        String::from("After the first night a later step filled in storage_path of each document.\n");
    let mut line = |name: &str, value: &dyn Fn(&Survived) -> u64| {
        let _ = write!(text, "  {name:<22}{:>30}", dot(value(&of[0])));
        of[1..].iter().for_each(|one| text.push_str(&format!("{:>11}", dot(value(one)))));
        text.push('\n');
    };
    line("documents still there", &|one| one.documents);
    line("with their id", &|one| one.same_id);
    line("with their path", &|one| one.storage_path);
    text.push('\n');
    text
}

/// Nought as a dot, so that what was written stands out.
fn dot(count: u64) -> String {
    if count == 0 { "·".into() } else { number(count) }
}

/// With commas between thousands.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_between_thousands() {
        let written = [0, 7, 999, 1_000, 1_234_567].map(number);
        assert_eq!(written, ["0", "7", "999", "1,000", "1,234,567"]);
    }
}
