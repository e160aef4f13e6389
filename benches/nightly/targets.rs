//! What rowdelta is meant to keep, as ratios between medians of the same run, and whether it does.

use crate::contestant::Contestant::{
    self, HashLines, Planned, RawCopy, Recreate, RecreateEach, Rowdelta, ShredLines,
};
use crate::contestant::PEERS;
use crate::results::{Cell, Results};
use crate::table::{bytes, number};

/// Log of a night in which nothing changed, at most.
const UNCHANGED_WAL_BYTES: f64 = 64.0 * 1024.0;
/// Memory, at most: so much, and so much more for each document.
const MEMORY_BYTES: u64 = 100_000_000;
const MEMORY_BYTES_A_DOCUMENT: u64 = 40;

/// One target, and what came of it.
pub struct Verdict {
    pub documents: u32,
    pub target: String,
    pub bound: String,
    pub measured: String,
    pub is_met: bool,
}

/// What came of all targets for which there are measurements.
pub fn verdicts(results: &Results) -> Vec<Verdict> {
    let mut sizes: Vec<u32> = results.cells.iter().map(|cell| cell.documents).collect();
    sizes.dedup();
    let mut verdicts = Vec::new();
    for &documents in &sizes {
        let mut judge = Judge { results, documents, verdicts: Vec::new() };
        judge.unchanged();
        ["shuffled", "reordered", "unmapped"].into_iter().for_each(|scenario| judge.respelled(scenario));
        ["changed-1", "changed-10"].into_iter().for_each(|scenario| judge.edit(scenario));
        judge.best_peer("changed-100", 0.8);
        judge.first_load();
        judge.recreate();
        judge.memory();
        verdicts.append(&mut judge.verdicts);
    }
    if let [small, .., large] = sizes[..] {
        verdicts.extend(
            ["unchanged", "changed-1"]
                .into_iter()
                .filter_map(|scenario| growth(results, scenario, small, large)),
        );
    }
    verdicts
}

struct Judge<'r> {
    results: &'r Results,
    documents: u32,
    verdicts: Vec<Verdict>,
}

impl<'r> Judge<'r> {
    fn cell(&self, scenario: &str, contestant: Contestant) -> Option<&'r Cell> {
        self.results.cell(self.documents, scenario, contestant)
    }

    fn rowdelta(&self, scenario: &str) -> Option<&'r Cell> {
        self.cell(scenario, Rowdelta)
    }

    fn push(&mut self, target: String, bound: String, measured: String, is_met: bool) {
        self.verdicts.push(Verdict { documents: self.documents, target, bound, measured, is_met });
    }

    /// A number that must not be more than a bound.
    fn at_most(&mut self, target: String, ratio: f64, bound: f64) {
        self.push(target, format!("≤ {bound}"), format!("{ratio:.2}"), ratio <= bound);
    }

    fn at_least(&mut self, target: String, ratio: f64, bound: f64) {
        self.push(target, format!("≥ {bound}"), format!("{ratio:.1}"), ratio >= bound);
    }

    /// Wall time beside the same scenario's of another contestant.
    fn beside(&mut self, scenario: &str, other: Contestant, bound: f64) {
        let Some((own, other)) = self.rowdelta(scenario).zip(self.cell(scenario, other)) else { return };
        let target = format!("{}: wall ÷ {}", own.scenario.title, other.contestant.title());
        self.at_most(target, own.wall() / other.wall(), bound);
    }

    fn best_peer(&mut self, scenario: &str, bound: f64) {
        let Some(own) = self.rowdelta(scenario) else { return };
        let peers = PEERS.into_iter().filter_map(|peer| self.cell(scenario, peer));
        let Some(best) = peers.min_by(|a, b| a.wall().total_cmp(&b.wall())) else { return };
        let target = format!("{}: wall ÷ best peer ({})", own.scenario.title, best.contestant.name());
        self.at_most(target, own.wall() / best.wall(), bound);
    }

    fn unchanged(&mut self) {
        self.beside("unchanged", HashLines, 1.3);
        self.best_peer("unchanged", 0.2);
        let Some(own) = self.rowdelta("unchanged") else { return };
        let rows =
            own.samples.iter().flat_map(|sample| sample.rows.values()).map(|counts| counts.sum()).sum();
        self.push("nothing changed: the user's rows written".into(), "0".into(), number(rows), rows == 0);
        let wal = own.samples.iter().map(|sample| sample.wal_bytes).max().unwrap_or(0) as f64;
        let (target, bound) = ("nothing changed: WAL".into(), format!("< {}", bytes(UNCHANGED_WAL_BYTES)));
        self.push(target, bound, bytes(wal), wal < UNCHANGED_WAL_BYTES);
    }

    fn respelled(&mut self, scenario: &str) {
        self.beside(scenario, ShredLines, 1.3);
    }

    /// A night on which some calls changed.
    fn edit(&mut self, scenario: &'static str) {
        let Some(own) = self.rowdelta(scenario) else { return };
        let title = own.scenario.title;
        if let Some((unchanged, planned)) = self.rowdelta("unchanged").zip(self.cell(scenario, Planned)) {
            let target = format!("{title}: wall ÷ (unchanged night + 2 × planned beforehand)");
            self.at_most(target, own.wall() / (unchanged.wall() + 2.0 * planned.wall()), 1.0);
        }
        self.best_peer(scenario, 0.5);
        if let Some(edit) = self.results.edits.get(&(self.documents, scenario)) {
            let smallest: u64 = edit.values().map(|counts| counts.sum()).sum();
            let is_met = own.samples.iter().all(|sample| sample.rows == *edit);
            let target = format!("{title}: rows written, in every table those of the smallest edit");
            self.push(target, number(smallest), number(own.rows().sum()), is_met);
        }
        let planned = self.cell(scenario, Planned).and_then(Cell::wal).filter(|wal| wal.user.sum() > 0);
        if let Some((own, planned)) = own.wal().zip(planned) {
            let smallest = planned.user.sum() as f64;
            let target = format!("{title}: WAL of the user's tables ÷ the smallest edit's");
            self.at_most(target, own.user.sum() as f64 / smallest, 1.05);
            let target = format!("{title}: the same with the state's");
            self.at_most(target, (own.user.sum() + own.state.sum()) as f64 / smallest, 1.15);
        }
    }

    fn first_load(&mut self) {
        self.beside("first", RawCopy, 0.7);
        self.best_peer("first", 0.5);
    }

    /// How much dearer it is to delete and re-create everything.
    fn recreate(&mut self) {
        let scenario = "changed-1";
        for peer in [RecreateEach, Recreate] {
            let Some((own, recreate)) = self.rowdelta(scenario).zip(self.cell(scenario, peer)) else {
                continue;
            };
            let target = |what| format!("1 % changed: {what} of {} ÷ rowdelta's", peer.title());
            self.at_least(target("wall"), recreate.wall() / own.wall(), 50.0);
            self.at_least(target("WAL"), recreate.wal_bytes() / own.wal_bytes(), 30.0);
        }
    }

    fn memory(&mut self) {
        let own = self
            .results
            .cells
            .iter()
            .filter(|cell| cell.documents == self.documents && cell.contestant == Rowdelta);
        let Some(most) = own.max_by_key(|cell| cell.memory()) else { return };
        let bound = MEMORY_BYTES + MEMORY_BYTES_A_DOCUMENT * u64::from(self.documents);
        let target = format!("memory (most: {})", most.scenario.title);
        let (bound_text, measured) = (bytes(bound as f64), bytes(most.memory() as f64));
        self.push(target, format!("≤ {bound_text}"), measured, most.memory() <= bound);
    }
}

/// Wall time for each document, where there are many, beside that where there are few.
fn growth(results: &Results, scenario: &str, small: u32, large: u32) -> Option<Verdict> {
    let a_document = |documents| {
        let cell = results.cell(documents, scenario, Rowdelta)?;
        Some((cell.wall() / f64::from(documents), cell.scenario.title))
    };
    let ((few, title), (many, _)) = a_document(small).zip(a_document(large))?;
    let target = format!("{title}: wall a document ÷ that of {} documents", number(small.into()));
    let ratio = many / few;
    let (bound, measured) = ("≤ 1.15".into(), format!("{ratio:.2}"));
    Some(Verdict { documents: large, target, bound, measured, is_met: ratio <= 1.15 })
}
