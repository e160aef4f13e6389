//! Writes that are needed only because rows wait for each other in a circle: parked values, and the first part of
//! an update that is split.
//!
//! A parked value must be nobody's and pass the table's checks. What passes only the server can tell, so it is
//! tried, under a savepoint, value after value by the column's type.

use tokio_postgres::types::{ToSql, Type};

use super::{Filled, Writer, check_count, same_version, update_sql};
use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::plan::{Action, Step};
use crate::postgres::fetch::{cells, selected};
use crate::postgres::park::candidates;
use crate::postgres::wire::{Param, typed};
use crate::row::Tuple;
use crate::value::ColumnType;
use futures_util::future::join_all;

/// Stored rows and their locators after a write.
type Locators = Vec<((RelationIx, u32), Tuple)>;

impl Writer<'_> {
    /// Runs a step whose rows are written again later. Gives their locators as they are then.
    pub(super) async fn detour(&self, step: &Step) -> Result<Locators, Error> {
        match &step.action {
            Action::Park { columns, parent, rows } => self.park(step.relation, columns, *parent, rows).await,
            Action::Update { columns, moves, rows, .. } => {
                let set = self.changed_cells(step.relation, columns, *moves, rows);
                let set: Vec<Set<'_>> = set.iter().map(Set::of).collect();
                let stored: Vec<u32> = rows.iter().map(|pair| pair.0).collect();
                self.rewrite(step.relation, &stored, &set).await
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Parks rows together, or where that is refused one by one.
    async fn park(
        &self,
        ix: RelationIx,
        columns: &[usize],
        parent: bool,
        rows: &[u32],
    ) -> Result<Locators, Error> {
        match self.park_together(ix, columns, parent, rows).await {
            Err(error) if rows.len() > 1 && error.kind() == ErrorKind::Rejected => {
                let mut locators = Vec::new();
                for row in rows {
                    locators.extend(self.park_together(ix, columns, parent, &[*row]).await?);
                }
                Ok(locators)
            }
            done => done,
        }
    }

    async fn park_together(
        &self,
        ix: RelationIx,
        columns: &[usize],
        parent: bool,
        rows: &[u32],
    ) -> Result<Locators, Error> {
        let table = &self.schema.tables[ix];
        let parked: Vec<Vec<Vec<Option<String>>>> =
            columns.iter().map(|&at| self.parking(ix, at, rows)).collect();
        let tries = parked.iter().flatten().map(Vec::len).max().unwrap_or(1);
        let mut refused = None;
        for nth in 0..tries {
            let mut set: Vec<Set<'_>> = columns
                .iter()
                .zip(&parked)
                .map(|(&at, values)| {
                    let nth = |row: &Vec<Option<String>>| row.get(nth).or(row.last()).cloned().flatten();
                    let values = values.iter().map(|row| nth(row).map(String::into_bytes));
                    Set {
                        name: &table.names[at],
                        ty: &table.columns[at],
                        as_text: true,
                        cells: values.collect(),
                    }
                })
                .collect();
            if parent {
                let null = |column| Set { cells: vec![None; rows.len()], ..Set::empty(column) };
                set.extend(table.parent.iter().map(null));
            }
            self.transaction.batch_execute("SAVEPOINT rowdelta_park").await?;
            match self.rewrite(ix, rows, &set).await {
                Ok(locators) => {
                    self.transaction.batch_execute("RELEASE SAVEPOINT rowdelta_park").await?;
                    return Ok(locators);
                }
                Err(error) if error.kind() != ErrorKind::Rejected => return Err(error),
                Err(error) => refused = Some(error),
            }
            let undo = "ROLLBACK TO SAVEPOINT rowdelta_park; RELEASE SAVEPOINT rowdelta_park";
            self.transaction.batch_execute(undo).await?;
        }
        let names: Vec<&str> = columns.iter().map(|&at| table.names[at].as_str()).collect();
        let why = format!("rows swap values of {}, and none can be parked meanwhile", names.join(", "));
        Err(refused.map_or_else(|| Error::new(ErrorKind::Rejected, why.clone()), |error| error.because(&why)))
    }

    /// Per row, the values that are tried for one column.
    fn parking(&self, ix: RelationIx, at: usize, rows: &[u32]) -> Vec<Vec<Option<String>>> {
        let table = &self.schema.tables[ix];
        let of_row = |&row: &u32| {
            let stored = &self.sides[ix].stored[row as usize];
            let salt = u64::from_be_bytes(*stored.fingerprint.0.first_chunk().expect("16 bytes"));
            let nulls = table.nullable[at].then_some(None);
            let values =
                candidates(&table.columns[at].kind, stored.tuple.cell(at), salt.wrapping_add(row.into()));
            nulls.into_iter().chain(values.into_iter().map(Some)).collect()
        };
        rows.iter().map(of_row).collect()
    }

    /// Sets columns of stored rows, and reads their locators anew.
    async fn rewrite(&self, ix: RelationIx, rows: &[u32], set: &[Set<'_>]) -> Result<Locators, Error> {
        let table = &self.schema.tables[ix];
        let assigned: Vec<(&str, String)> =
            set.iter().enumerate().map(|(at, set)| (set.name, set.place(at + 1))).collect();
        let locator = table.locator.iter().enumerate();
        let locator: Vec<(&str, String)> =
            locator.map(|(at, column)| (column.name.as_str(), format!("${}", set.len() + at + 1))).collect();
        let returned: Vec<String> =
            table.locator.iter().map(|column| selected("t", &column.name, &column.ty)).collect();
        let sql = update_sql(&table.name, &assigned, None, &same_version(table, &locator));
        let sql = format!("{sql} RETURNING {}", returned.join(", "));
        let params: Vec<Vec<Param>> = rows
            .iter()
            .enumerate()
            .map(|(place, &row)| {
                let values = set.iter().map(|set| set.param(place));
                let found = table.locator.iter().zip(self.locator(ix, row).cells());
                values.chain(found.map(|(column, cell)| Param::scalar(column.ty.oid, cell.bytes()))).collect()
            })
            .collect();
        let typed: Vec<Vec<(&(dyn ToSql + Sync), Type)>> =
            params.iter().map(|params| typed(params)).collect();
        let answers = join_all(typed.iter().map(|params| self.transaction.query_typed(&sql, params))).await;
        let mut locators = Vec::new();
        for (&row, answer) in rows.iter().zip(answers) {
            let found = answer?;
            check_count(1, found.len() as u64)?;
            locators.push(((ix, row), cells(&found[0], 0..table.locator.len())?));
        }
        Ok(locators)
    }
}

/// A column and its values, one a row.
struct Set<'c> {
    name: &'c str,
    ty: &'c ColumnType,
    /// Values are texts, for the server to convert.
    as_text: bool,
    cells: Vec<Option<Vec<u8>>>,
}

impl<'c> Set<'c> {
    fn of(filled: &'c Filled<'c>) -> Self {
        Set { name: filled.name, ty: filled.ty, as_text: false, cells: filled.cells.clone() }
    }

    fn empty(column: &'c crate::schema::PhysicalColumn) -> Self {
        Set { name: &column.name, ty: &column.ty, as_text: false, cells: Vec::new() }
    }

    fn place(&self, n: usize) -> String {
        if self.as_text { format!("${n}::{}", self.ty.sql) } else { format!("${n}") }
    }

    fn param(&self, row: usize) -> Param {
        let oid = if self.as_text { Type::TEXT.oid() } else { self.ty.oid };
        Param::scalar(oid, self.cells[row].as_deref())
    }
}
