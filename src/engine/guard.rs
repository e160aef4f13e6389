//! How much a run may delete: a bad feed shall not empty a table.
//!
//! Rows are reserved before they are deleted, those that cascades take included, and stay reserved once the
//! transaction has committed. What would go beyond the limits is not deleted. A run that deletes nothing asks the
//! database nothing of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;
use tokio_postgres::GenericClient;

use crate::error::Error;
use crate::mapping::RelationIx;
use crate::postgres::{cascade, state};
use crate::schema::Schema;

/// Rows by table (quoted, with its schema).
pub(crate) type Rows = BTreeMap<String, u64>;

/// A table that loses no more rows than this in a run is not looked at by percent: of a small one few rows are much.
const FLOOR: u64 = 100;

/// What one run may delete at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeleteLimits {
    /// Rows of all tables together, with those that foreign keys delete along in tables that nobody maps.
    pub rows_max: u64,
    /// Share of the rows of each table, in percent, where that is more than 100 rows. `None`: any.
    pub percent_max: Option<f64>,
}

impl Default for DeleteLimits {
    /// 10,000 rows; a fifth of a table.
    fn default() -> Self {
        DeleteLimits { rows_max: 10_000, percent_max: Some(20.0) }
    }
}

impl DeleteLimits {
    /// These limits and the database's own: of each the stricter one.
    pub(crate) fn and(self, rows_max: Option<i64>, percent_max: Option<f64>) -> Self {
        let rows = rows_max.map_or(u64::MAX, i64::unsigned_abs);
        let percents = [self.percent_max, percent_max].into_iter().flatten();
        DeleteLimits { rows_max: self.rows_max.min(rows), percent_max: percents.reduce(f64::min) }
    }
}

/// Counts the rows that a run deletes.
pub(crate) struct Guard {
    mapping: String,
    /// The caller's limits.
    asked: DeleteLimits,
    /// With the database's own.
    limits: OnceCell<DeleteLimits>,
    /// Relations whose rows may take others along that nobody reads.
    cascading: OnceCell<HashSet<RelationIx>>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    deleted: Rows,
    /// How many rows tables had before the run.
    sizes: Rows,
    /// Why something was refused, once it was.
    reason: Option<String>,
}

/// Rows that may be deleted. They are given back unless the deletion is kept.
pub(crate) struct Reservation<'g> {
    guard: &'g Guard,
    rows: Rows,
}

impl Reservation<'_> {
    /// The rows are deleted, or will be.
    pub fn keep(mut self) {
        self.rows.clear();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.guard.give_back(&self.rows);
    }
}

impl Guard {
    pub fn new(mapping: String, asked: DeleteLimits) -> Self {
        let (limits, cascading) = (OnceCell::new(), OnceCell::new());
        Guard { mapping, asked, limits, cascading, counts: Mutex::default() }
    }

    /// The relations whose rows may take others along that nobody reads.
    pub async fn cascading(
        &self,
        client: &impl GenericClient,
        schema: &Schema,
    ) -> Result<&HashSet<RelationIx>, Error> {
        self.cascading.get_or_try_init(|| cascade::cascading(client, schema)).await
    }

    async fn limits(&self, client: &impl GenericClient) -> Result<DeleteLimits, Error> {
        let limits = self.limits.get_or_try_init(|| async {
            let (rows_max, percent_max) = state::guard(client, &self.mapping).await?;
            Ok::<_, Error>(self.asked.and(rows_max, percent_max))
        });
        limits.await.copied()
    }

    /// Reserves rows; `Err`: why they must not be deleted. After that nothing more may be, until it is
    /// [reopened](Self::reopen).
    pub async fn reserve(
        &self,
        client: &impl GenericClient,
        rows: Rows,
    ) -> Result<Result<Reservation<'_>, String>, Error> {
        let limits = self.limits(client).await?;
        for table in self.sizes_wanted(limits, &rows) {
            let sql = format!("SELECT count(*) FROM {table}");
            let size: i64 = client.query_typed_one(&sql, &[]).await?.get(0);
            self.with(|counts| {
                // What this run has deleted there was there before it.
                let deleted = counts.deleted.get(&table).copied().unwrap_or(0);
                counts.sizes.entry(table).or_insert(size.unsigned_abs() + deleted);
            });
        }
        Ok(self.with(|counts| {
            let refusal = counts.reason.clone().or_else(|| counts.refusal(self.asked, limits, &rows));
            if let Some(reason) = refusal {
                return Err(counts.reason.insert(reason).clone());
            }
            rows.iter().for_each(|(table, rows)| *counts.deleted.entry(table.clone()).or_default() += rows);
            Ok(Reservation { guard: self, rows })
        }))
    }

    /// Lets deletions be tried again after some were refused: what is done at the end of the feed is judged as a whole.
    pub fn reopen(&self) {
        self.with(|counts| counts.reason = None);
    }

    /// Gives back rows that are not deleted after all.
    pub fn give_back(&self, rows: &Rows) {
        self.with(|counts| {
            for (table, rows) in rows {
                let deleted = counts.deleted.entry(table.clone()).or_default();
                *deleted = deleted.saturating_sub(*rows);
            }
        });
    }

    /// The tables whose size matters and is not known.
    fn sizes_wanted(&self, limits: DeleteLimits, rows: &Rows) -> Vec<String> {
        if limits.percent_max.is_none() {
            return Vec::new();
        }
        self.with(|counts| {
            let matters = |table: &&String| counts.with(table, rows) > FLOOR;
            let tables = rows.keys().filter(matters).filter(|table| !counts.sizes.contains_key(*table));
            tables.cloned().collect()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counts {
    fn with(&self, table: &str, rows: &Rows) -> u64 {
        let of = |rows: &Rows| rows.get(table).copied().unwrap_or(0);
        of(&self.deleted) + of(rows)
    }

    /// Why these rows, beside those deleted already, are too many. How many there will be in the end nobody knows yet.
    fn refusal(&self, asked: DeleteLimits, limits: DeleteLimits, rows: &Rows) -> Option<String> {
        let total: u64 = self.deleted.values().chain(rows.values()).sum();
        if total > limits.rows_max && !rows.values().all(|rows| *rows == 0) {
            let mend = mend(limits.rows_max == asked.rows_max);
            return Some(format!("more than {} rows would be deleted; {mend}", limits.rows_max));
        }
        let percent_max = limits.percent_max?;
        rows.keys().find_map(|table| {
            let (gone, size) = (self.with(table, rows), *self.sizes.get(table)?);
            let percent = 100.0 * gone as f64 / size.max(1) as f64;
            (gone > FLOOR && percent > percent_max).then(|| {
                let mend = mend(asked.percent_max == limits.percent_max);
                format!("more than {percent_max} % of the {size} rows of {table} would be deleted; {mend}")
            })
        })
    }
}

/// What lifts a limit: the caller's, or else the database's.
fn mend(of_caller: bool) -> &'static str {
    match of_caller {
        true => "look at the feed, and if it is right give --allow-deletes the number of rows withheld",
        false => "that is the limit in rowdelta.guard, which no option lifts",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(table: &str, count: u64) -> Rows {
        Rows::from([(table.to_owned(), count)])
    }

    fn counts(deleted: u64, size: u64) -> Counts {
        Counts { deleted: rows("t", deleted), sizes: rows("t", size), reason: None }
    }

    #[test]
    fn p32_limits_are_cumulative_and_a_small_table_may_lose_many_of_its_rows() {
        let limits = DeleteLimits { rows_max: 1_000, percent_max: Some(20.0) };
        let refused =
            |deleted, size, more| counts(deleted, size).refusal(limits, limits, &rows("t", more)).is_some();
        assert!(!refused(0, 100, 100), "no more than the floor");
        assert!(refused(0, 101, 101));
        assert!(!refused(150, 1_000, 50) && refused(150, 1_000, 51), "a fifth, with what is gone");
        assert!(!refused(900, 100_000, 100) && refused(900, 100_000, 101), "rows in all");
        assert!(!refused(1_001, 100_000, 0), "who deletes nothing is not refused");
    }

    #[test]
    fn p32_a_refusal_says_whose_limit_it_is() {
        let asked = DeleteLimits { rows_max: 1_000, percent_max: Some(20.0) };
        let said = |of_database: (Option<i64>, Option<f64>), more| {
            let limits = asked.and(of_database.0, of_database.1);
            counts(50, 1_000).refusal(asked, limits, &rows("t", more)).unwrap()
        };
        assert!(
            said((None, None), 1_000).starts_with("more than 1000 rows would be deleted; look at the feed")
        );
        assert!(said((Some(100), None), 60).ends_with("rowdelta.guard, which no option lifts"));
        let percent = "more than 20 % of the 1000 rows of t would be deleted; look at the feed";
        assert!(said((None, None), 200).starts_with(percent));
        assert!(said((None, Some(10.0)), 60).ends_with("rowdelta.guard, which no option lifts"));
    }

    #[test]
    fn p32_of_two_limits_the_stricter_one_holds() {
        let caller = DeleteLimits { rows_max: 50, percent_max: None };
        assert_eq!(caller.and(None, None), caller);
        assert_eq!(caller.and(Some(10), Some(5.0)), DeleteLimits { rows_max: 10, percent_max: Some(5.0) });
        assert_eq!(DeleteLimits::default().and(Some(1 << 40), Some(50.0)), DeleteLimits::default());
    }
}
