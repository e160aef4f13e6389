//! Writes that are needed only because rows wait for each other in a circle: parked values, and the first part of
//! an update that is split.
//!
//! A parked value must be nobody's and pass the table's checks. What passes only the server can tell, so it is
//! tried, under a savepoint, value after value by the column's type.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::{Filled, Verb, Writer, same_version, update_sql};
use crate::error::{Error, ErrorKind};
use crate::mapping::RelationIx;
use crate::plan::{Action, Step};
use crate::postgres::fetch::{cells, raw, selected};
use crate::postgres::park::candidates;
use crate::postgres::wire::{Param, typed};
use crate::postgres::{attempt, quote};
use crate::row::Tuple;
use crate::schema::{Attribute, PhysicalColumn, Table, Unique};
use crate::value::{ColumnType, Kind};

/// Stored rows and their locators after a write.
type Rewritten = Vec<((RelationIx, u32), Tuple)>;

impl Writer<'_> {
    /// Runs a step whose rows are written again later. Gives their locators as they are then.
    pub(super) async fn detour(&self, step: &Step) -> Result<Rewritten, Error> {
        match &step.action {
            Action::Park { columns, spare, parent, rows } => {
                self.park(step.relation, columns, spare, *parent, rows).await
            }
            Action::Update { columns, moves, rows, split } => {
                let mut set = self.changed_cells(step.relation, columns, *moves, rows);
                if step.relation == 0 && !split {
                    set.extend(self.mark_cells(rows.iter().map(|pair| pair.1)));
                }
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
        spare: &[usize],
        parent: bool,
        rows: &[u32],
    ) -> Result<Rewritten, Error> {
        match self.park_together(ix, columns, parent, rows).await {
            Err(error) if error.kind() == ErrorKind::Rejected && (rows.len() > 1 || !spare.is_empty()) => {
                let mut locators = Vec::new();
                for row in rows {
                    locators.extend(self.park_one(ix, columns, spare, parent, *row).await?);
                }
                Ok(locators)
            }
            done => done,
        }
    }

    /// Parks a row, with more of its columns where it must be.
    async fn park_one(
        &self,
        ix: RelationIx,
        columns: &[usize],
        spare: &[usize],
        parent: bool,
        row: u32,
    ) -> Result<Rewritten, Error> {
        match self.park_together(ix, columns, parent, &[row]).await {
            Err(error) if error.kind() == ErrorKind::Rejected && !spare.is_empty() => {
                let columns: Vec<usize> = columns.iter().chain(spare).copied().collect();
                self.park_together(ix, &columns, parent, &[row]).await
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
    ) -> Result<Rewritten, Error> {
        let mut parking = Vec::new();
        for &at in columns {
            parking.push(self.parking(ix, at, rows).await?);
        }
        let tries = parking.iter().flatten().map(Vec::len).max().unwrap_or(1);
        let mut refused = None;
        for nth in 0..tries {
            let set = self.parked_cells(ix, columns, parent, &parking, nth, rows.len());
            match attempt(self.transaction, self.rewrite(ix, rows, &set)).await? {
                Ok(locators) => return Ok(locators),
                Err(error) => refused = Some(error),
            }
        }
        let table = &self.schema.tables[ix];
        let names: Vec<&str> = columns.iter().map(|&at| table.names[at].as_str()).collect();
        let why = format!(
            "rows of {} swap values of {}, and no third value can stand in for a moment (make the constraint \
             DEFERRABLE, or the column nullable)",
            table.name,
            names.join(", ")
        );
        Err(refused.map_or_else(|| Error::new(ErrorKind::Rejected, why.clone()), |error| error.because(&why)))
    }

    /// The columns to park, each with the `nth` of the values to try; the last where there are not so many.
    fn parked_cells(
        &self,
        ix: RelationIx,
        columns: &[usize],
        parent: bool,
        parking: &[Vec<Parking>],
        nth: usize,
        rows: usize,
    ) -> Vec<Set<'_>> {
        let table = &self.schema.tables[ix];
        let set = |(&at, values): (&usize, &Vec<Parking>)| {
            let nth = |row: &Parking| row.get(nth).or(row.last()).cloned().flatten().map(String::into_bytes);
            let cells = values.iter().map(nth).collect();
            Set { name: &table.names[at], ty: &table.columns[at], parks: Some(at), cells }
        };
        let mapped = columns.iter().zip(parking).map(set);
        let null = |column| Set::null(column, rows);
        mapped.chain(table.parent.iter().filter(|_| parent).map(null)).collect()
    }

    /// Per row, the values to try for one column.
    async fn parking(&self, ix: RelationIx, at: usize, rows: &[u32]) -> Result<Vec<Parking>, Error> {
        let table = &self.schema.tables[ix];
        let kind = &table.columns[at].kind;
        let mut parking = Vec::new();
        for &row in rows {
            let stored = &self.sides[ix].stored[row as usize];
            let salt = u64::from_be_bytes(*stored.fingerprint.0.first_chunk().expect("16 bytes"));
            let text = match kind {
                Kind::Array(_) | Kind::Composite(_) | Kind::Domain(_) | Kind::Server => {
                    self.text(ix, at, row).await?
                }
                _ => String::new(),
            };
            let values = candidates(kind, stored.tuple.cell(at), &text, salt.wrapping_add(row.into()));
            let null_is_safe = table.nullable[at] && !table.referred.contains(&Attribute::Mapped(at));
            let null = null_is_safe.then_some(None);
            parking.push(null.into_iter().chain(values.into_iter().map(Some)).collect());
        }
        Ok(parking)
    }

    /// A stored value as text.
    async fn text(&self, ix: RelationIx, at: usize, row: u32) -> Result<String, Error> {
        let table = &self.schema.tables[ix];
        let own = table.locator[..table.own_locator].iter();
        let equal =
            own.clone().enumerate().map(|(n, column)| format!("{} = ${}", quote(&column.name), n + 1));
        let equal = equal.collect::<Vec<_>>().join(" AND ");
        let sql = format!("SELECT {}::text FROM {} WHERE {equal}", quote(&table.names[at]), table.name);
        let cells = own.zip(self.locator(ix, row).cells());
        let params: Vec<Param> =
            cells.map(|(column, cell)| Param::scalar(column.ty.oid, cell.bytes())).collect();
        let found = self.transaction.query_typed(&sql, &typed(&params)).await?;
        Ok(found.first().and_then(|row| row.get(0)).unwrap_or_default())
    }

    /// Sets columns of stored rows, and reads their locators anew.
    async fn rewrite(&self, ix: RelationIx, rows: &[u32], set: &[Set<'_>]) -> Result<Rewritten, Error> {
        let table = &self.schema.tables[ix];
        let assigned = set.iter().enumerate().map(|(at, set)| (set.name, set.place(at + 1)));
        let assigned: Vec<(&str, String)> = assigned.collect();
        let locator = table.locator.iter().enumerate();
        let place = |at: usize| format!("${}", set.len() + at + 1);
        let locator: Vec<(&str, String)> =
            locator.map(|(at, column)| (column.name.as_str(), place(at))).collect();
        let parked = set.iter().filter(|set| set.parks.is_some()).map(|set| (set.name, set.ty));
        let returned = table.locator.iter().map(|column| (column.name.as_str(), &column.ty)).chain(parked);
        let returned = returned.map(|(name, ty)| selected("t", name, ty));
        let returned: Vec<String> = returned.chain([freed(table, set)]).collect();
        // The row as it was, for what must differ from it.
        let own = locator[..table.own_locator].iter();
        let own =
            own.map(|(name, value)| format!("{} = {value}", quote(name))).collect::<Vec<_>>().join(" AND ");
        let old = format!("(SELECT {} FROM {} WHERE {own}) AS old", seen(table, set), table.name);
        let sql = update_sql(&table.name, &assigned, Some(&old), &same_version(table, &locator));
        let sql = format!("{sql} RETURNING {}", returned.join(", "));
        let params = rows.iter().enumerate().map(|(place, &row)| {
            let found = table.locator.iter().zip(self.locator(ix, row).cells());
            let found = found.map(|(column, cell)| Param::scalar(column.ty.oid, cell.bytes()));
            set.iter().map(|set| set.param(place)).chain(found).collect()
        });
        let params: Vec<Vec<Param>> = params.collect();
        let typed: Vec<Vec<(&(dyn ToSql + Sync), Type)>> =
            params.iter().map(|params| typed(params)).collect();
        let sent = typed.iter().map(|params| self.transaction.query_typed(&sql, params));
        let answers = join_all(sent).await;
        let has_failed = answers.iter().any(Result::is_err);
        let mut locators = Vec::new();
        for (&row, answer) in rows.iter().zip(answers) {
            let found = answer?;
            self.check_written(ix, Verb::Update, &[row], (1, found.len() as u64), has_failed).await?;
            self.check_parked(ix, row, set, &found[0])?;
            locators.push(((ix, row), cells(&found[0], 0..table.locator.len())?));
        }
        Ok(locators)
    }

    /// A value that is parked is not the one that others wait for.
    fn check_parked(&self, ix: RelationIx, row: u32, set: &[Set<'_>], found: &Row) -> Result<(), Error> {
        let stored = &self.sides[ix].stored[row as usize].tuple;
        let parked = set.iter().filter_map(|set| set.parks);
        let mut frees: bool = found.try_get(found.len() - 1)?;
        for (place, at) in parked.enumerate() {
            frees &= raw(found, self.schema.tables[ix].locator.len() + place)? != stored.cell(at).bytes();
        }
        if frees { Ok(()) } else { Err(Error::new(ErrorKind::Rejected, "no other value is free")) }
    }
}

/// Whether the row that is written does not conflict with itself as it was, under constraints over parked columns of
/// which only the server can tell: by `coalesce(x, 0)`, say, NULL is no other value than 0.
fn freed(table: &Table, set: &[Set<'_>]) -> String {
    let free = judged(table, set).map(|unique| {
        let (keys, condition) = (unique.keys(), unique.condition());
        let side = |row: &str| {
            let columns = names(table, unique).map(|name| format!("{row}.{}", quote(&name)));
            let columns = columns.collect::<Vec<_>>().join(", ");
            format!("(SELECT {keys} FROM (SELECT {columns}) AS row WHERE {condition})")
        };
        let conflict = unique.conflict("f", "t");
        format!("NOT EXISTS (SELECT FROM {} AS f, {} AS t WHERE {conflict})", side("old"), side("t"))
    });
    std::iter::once("true".to_owned()).chain(free).collect::<Vec<_>>().join(" AND ")
}

/// The constraints over parked columns of which only the server can tell.
fn judged<'t>(table: &'t Table, set: &[Set<'_>]) -> impl Iterator<Item = &'t Unique> {
    let parked: Vec<Attribute> = set.iter().filter_map(|set| set.parks.map(Attribute::Mapped)).collect();
    let is_parked = move |unique: &&Unique| {
        !unique.plain && parked.iter().any(|attribute| unique.attributes.contains(attribute))
    };
    table.uniques.iter().filter(is_parked)
}

/// The columns that a constraint looks at.
fn names(table: &Table, unique: &Unique) -> impl Iterator<Item = String> {
    unique.attributes.iter().filter_map(|attribute| match attribute {
        Attribute::Unmapped { name, .. } => Some(name.clone()),
        known => Some(table.column(known)?.name),
    })
}

/// What is read of the row as it was: no more, since the role may have no right to.
fn seen(table: &Table, set: &[Set<'_>]) -> String {
    let own = table.locator[..table.own_locator].iter().map(|column| column.name.clone());
    let columns: BTreeSet<String> =
        own.chain(judged(table, set).flat_map(|unique| names(table, unique))).collect();
    columns.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// The values to try for one column of one row; `None` is NULL.
type Parking = Vec<Option<String>>;

/// A column and its values, one a row.
struct Set<'c> {
    name: &'c str,
    ty: &'c ColumnType,
    /// The mapped column that is parked: its values are texts, for the server to convert.
    parks: Option<usize>,
    cells: Vec<Option<Vec<u8>>>,
}

impl<'c> Set<'c> {
    fn of(filled: &'c Filled<'c>) -> Self {
        Set {
            name: filled.name,
            ty: filled.ty,
            parks: None,
            cells: filled.cells.iter().map(|cell| cell.as_deref().map(<[u8]>::to_vec)).collect(),
        }
    }

    fn null(column: &'c PhysicalColumn, rows: usize) -> Self {
        Set { name: &column.name, ty: &column.ty, parks: None, cells: vec![None; rows] }
    }

    fn place(&self, n: usize) -> String {
        if self.parks.is_some() { format!("${n}::{}", self.ty.sql) } else { format!("${n}") }
    }

    fn param(&self, row: usize) -> Param {
        let oid = if self.parks.is_some() { Type::TEXT.oid() } else { self.ty.oid };
        Param::scalar(oid, self.cells[row].as_deref())
    }
}
