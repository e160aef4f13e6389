//! What became of rows that were written: where they are, and which a trigger did not let through.

use std::collections::HashMap;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::{Statement, Writer, check_count, found_at, same_version};
use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::plan::{Action, Step};
use crate::postgres::fetch::{cells, selected};
use crate::postgres::wire::typed;
use crate::row::{Cell, Tuple};
use crate::schema::{IdColumn, Table, Trigger};

/// The own places of rows that were written, by relation and source row.
pub(crate) type Places = HashMap<(RelationIx, u32), Tuple>;

/// The rows of a statement.
#[derive(Default)]
pub(super) struct Subject {
    verb: Verb,
    /// The stored ones that it looks for.
    stored: Vec<u32>,
    /// The source ones whose places it returns.
    traced: Vec<u32>,
}

/// What a statement does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verb {
    #[default]
    Other,
    Insert,
    Update,
    Delete,
}

impl Verb {
    fn fires(self, trigger: &Trigger) -> bool {
        trigger.before
            && match self {
                Verb::Insert => trigger.insert,
                Verb::Update => trigger.update,
                Verb::Delete => trigger.delete,
                Verb::Other => false,
            }
    }

    fn words(self) -> &'static str {
        match self {
            Verb::Insert => "inserted",
            Verb::Delete => "deleted",
            Verb::Update | Verb::Other => "updated",
        }
    }
}

/// What a statement was answered.
pub(super) struct Answer {
    count: u64,
    rows: Vec<Row>,
}

impl Writer<'_> {
    /// Says which rows statements are about: one about all of them, or one about each. Where rows are traced it has
    /// their places returned.
    pub(super) fn about(
        &self,
        ix: RelationIx,
        statements: Vec<Statement>,
        verb: Verb,
        stored: &[u32],
        source: &[u32],
    ) -> Vec<Statement> {
        let is_one = statements.len() == 1;
        let part = |rows: &[u32], at: usize| match rows {
            [] => Vec::new(),
            all if is_one => all.to_vec(),
            all => vec![all[at]],
        };
        let returning = returning(&self.schema.tables[ix]);
        let about = |(at, mut statement): (usize, Statement)| {
            let traced = if self.traced[ix] { part(source, at) } else { Vec::new() };
            if !traced.is_empty() {
                // Rows are inserted in the order in which they are given, but updated in any.
                let number = if verb == Verb::Update && statement.is_numbered { ", v.n" } else { "" };
                statement.sql += &format!(" RETURNING {returning}{number}");
            }
            statement.subject = Subject { verb, stored: part(stored, at), traced };
            statement
        };
        statements.into_iter().enumerate().map(about).collect()
    }

    /// Notes where the rows of a step are that was not a mere statement. What is parked is written again.
    pub(super) fn trace(&mut self, step: &Step, found: &[((RelationIx, u32), Tuple)]) {
        let (ix, Action::Update { rows, .. }) = (step.relation, &step.action) else { return };
        if self.traced[ix] {
            let own: Vec<usize> = (0..self.schema.tables[ix].own_locator).collect();
            let own = |locator: &Tuple| locator.project(&own);
            let places = rows.iter().zip(found).map(|(pair, (_, locator))| ((ix, pair.1), own(locator)));
            self.places.extend(places.collect::<Vec<_>>());
        }
    }

    pub(super) async fn send(
        &self,
        statement: &Statement,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Answer, tokio_postgres::Error> {
        if statement.subject.traced.is_empty() {
            let count = self.transaction.execute_typed(&statement.sql, params).await?;
            return Ok(Answer { count, rows: Vec::new() });
        }
        let rows = self.transaction.query_typed(&statement.sql, params).await?;
        Ok(Answer { count: rows.len() as u64, rows })
    }

    /// Checks how many rows a statement wrote; gives their places, where they are traced. `has_failed`: the transaction.
    pub(super) async fn written(
        &self,
        statement: &Statement,
        answer: Answer,
        has_failed: bool,
    ) -> Result<Places, Error> {
        let (Some(ix), traced) = (statement.relation, &statement.subject.traced) else {
            return Ok(Places::new());
        };
        let Subject { verb, stored, .. } = &statement.subject;
        self.check_written(ix, *verb, stored, (statement.rows, answer.count), has_failed).await?;
        let own = self.schema.tables[ix].own_locator;
        let place = |(at, row): (usize, &Row)| {
            let at = if row.len() > own { row.try_get::<_, i32>(own)? as usize } else { at };
            Ok(((ix, traced[at]), cells(row, 0..own)?))
        };
        answer.rows.iter().enumerate().map(place).collect()
    }

    /// Fails where not as many rows were written as should be. If nobody else changed them a trigger did not let them
    /// through, and will not the next time. `stored`: which they are, if they are older than the transaction.
    pub(super) async fn check_written(
        &self,
        ix: RelationIx,
        verb: Verb,
        stored: &[u32],
        (expected, count): (usize, u64),
        has_failed: bool,
    ) -> Result<(), Error> {
        let table = &self.schema.tables[ix];
        let Some(names) = suppressing(table, verb).filter(|_| expected as u64 != count) else {
            return check_count(table, expected, count);
        };
        let rows = match stored {
            // Nobody else sees them.
            [] => (expected as u64).saturating_sub(count),
            // Then nothing can be asked.
            _ if has_failed => {
                let suppressed = format!(", or a BEFORE trigger suppressed it ({names})");
                return check_count(table, expected, count).map_err(|error| error.and(&suppressed));
            }
            _ => self.untouched(ix, verb, stored).await?,
        };
        if rows == 0 {
            return check_count(table, expected, count);
        }
        Err(suppressed(table, verb, (rows, expected), &names))
    }

    /// Where a foreign key is violated: that a trigger gave a row another id than the one that others refer to by now.
    pub(super) fn replaced(&self, error: Error) -> Error {
        if error.code() != Some(&SqlState::FOREIGN_KEY_VIOLATION) {
            return error;
        }
        let is_other = |&(&(ix, row), place): &(&(RelationIx, u32), &Tuple)| {
            let (table, referred) = (&self.schema.tables[ix], &self.references[ix][row as usize]);
            let is_id = |id: &IdColumn| table.own_locator == 1 && table.locator[0].name == id.column.name;
            let is_known = matches!(referred.cells().next(), Some(Cell::Value(_)));
            table.id.as_ref().is_some_and(is_id) && is_known && referred != place
        };
        let Some((&(ix, _), _)) = self.places.iter().find(is_other) else { return error };
        let table = &self.schema.tables[ix];
        let id = table.id.iter().map(|id| format!("\"{}\"", id.column.name)).collect::<String>();
        changes_identity(table, &id).in_relation(&self.mapping.relations[ix].name)
    }

    /// How many of these rows are as they were read.
    async fn untouched(&self, ix: RelationIx, verb: Verb, stored: &[u32]) -> Result<u64, Error> {
        let (table, locator) = (&self.schema.tables[ix], self.locator_cells(ix, stored.iter().copied()));
        let statements = self.split(ix, locator, stored.len(), |names, source| {
            let condition = match verb {
                // A trigger may have written the row that it did not let go.
                Verb::Delete => same_version(table, &names),
                _ => found_at(table, &names, |version| format!("t.xmin = {version}")),
            };
            let from = source.map_or(String::new(), |unnest| format!(", {unnest}"));
            format!("SELECT count(*) FROM {} t{from} WHERE {condition}", table.name)
        });
        let mut count = 0;
        for statement in statements {
            let row = self.transaction.query_typed_one(&statement.sql, &typed(&statement.params)).await?;
            count += row.try_get::<_, i64>(0)? as u64;
        }
        Ok(count)
    }
}

/// The triggers that can suppress a write, by name.
pub(crate) fn suppressing(table: &Table, verb: Verb) -> Option<String> {
    let triggers = table.triggers.iter().filter(|trigger| verb.fires(trigger));
    let names: Vec<String> = triggers.map(|trigger| format!("\"{}\"", trigger.name)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// So many of so many rows were not written because of triggers.
pub(crate) fn suppressed(table: &Table, verb: Verb, (rows, expected): (u64, usize), names: &str) -> Error {
    let message = format!(
        "{rows} of {expected} rows of {} were not {}: a BEFORE trigger suppressed it ({names}); have it let them \
         through, or leave them out of the feed",
        table.name,
        verb.words(),
    );
    Error::new(ErrorKind::Rejected, message)
}

/// Triggers change these columns.
pub(crate) fn changes_identity(table: &Table, columns: &str) -> Error {
    let triggers = table.triggers.iter().map(|trigger| format!("\"{}\"", trigger.name));
    let message = format!(
        "a trigger of {} ({}) changes {columns}, by which the row is found again: leave that as it is sent, or take it \
         out of the mapping's key",
        table.name,
        triggers.collect::<Vec<_>>().join(", "),
    );
    Error::new(ErrorKind::Rejected, message)
}

fn returning(table: &Table) -> String {
    let own = table.locator[..table.own_locator].iter();
    own.map(|column| selected("t", &column.name, &column.ty)).collect::<Vec<_>>().join(", ")
}
