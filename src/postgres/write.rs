//! Applies a plan: steps become statements, and every count is checked.

mod cells;
mod copy;
mod detour;
mod references;
mod traced;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{SinkExt, pin_mut};
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::error::{Error, ErrorKind};
use crate::mapping::{Mapping, RelationIx};
use crate::plan::{Action, Batch, Plan, Sides, Step};
use crate::postgres::fetch::{raw, referable};
use crate::postgres::quote;
use crate::postgres::turns::Turns;
use crate::postgres::wire::{ArrayBuilder, Param, typed};
use crate::row::{Cell, Tuple};
use crate::schema::{Check, IdSource, Schema, Table, WriteWay};
use cells::Filled;
use copy::copy_chunks;

use traced::Subject;
pub(crate) use traced::{Places, Verb, changes_identity, suppressed, suppressing};

/// From so many rows on, new rows are sent by COPY. Below it one `INSERT … SELECT unnest` costs less across a
/// network, because COPY waits for two more answers and cannot be sent along with other statements; over a Unix
/// socket COPY would be cheaper from the first row on. See `docs/performance.md` for the measurement.
pub(crate) const COPY_ROWS_MIN: usize = 50;

/// What a batch writes, besides the rows themselves.
pub(crate) struct Marking {
    /// Per document of the batch, the text for `mark_hash`.
    pub hashes: Vec<String>,
    /// The time of the transaction in the type of the `mark_time` column.
    pub time: Option<Vec<u8>>,
}

/// Everything that turns a step into statements.
pub(crate) struct Writer<'a> {
    pub transaction: &'a Transaction<'a>,
    pub mapping: &'a Mapping,
    pub schema: &'a Schema,
    pub sides: &'a [Sides],
    /// `None`: no root row is marked.
    pub marking: Option<&'a Marking>,
    /// Per relation, whether new rows' ids must be known before they are written.
    draws: Vec<bool>,
    /// Per relation and source row, what enclosed rows refer to.
    pub references: Vec<Vec<Tuple>>,
    /// Of stored rows that an earlier step wrote.
    rewritten: Locators,
    /// Per relation, whether rows that are written will be looked at again.
    pub traced: Vec<bool>,
    /// Where these are.
    pub places: Places,
}

/// Locators of stored rows, by relation and number.
pub(crate) type Locators = HashMap<(RelationIx, u32), Tuple>;

/// One statement and the number of rows it must touch.
struct Statement {
    /// `None`: about several.
    relation: Option<RelationIx>,
    sql: String,
    params: Vec<Param>,
    rows: usize,
    /// Whether it numbers its rows.
    is_numbered: bool,
    subject: Subject,
}

/// The time of the transaction, as the `mark_time` column stores it.
pub(crate) async fn transaction_time(
    transaction: &Transaction<'_>,
    schema: &Schema,
) -> Result<Option<Vec<u8>>, Error> {
    let Some(column) = &schema.tables[0].marks.time else { return Ok(None) };
    let sql = format!("SELECT now()::{}", column.ty.sql);
    let row = transaction.query_typed_one(&sql, &[]).await?;
    Ok(raw(&row, 0)?.map(<[u8]>::to_vec))
}

impl<'a> Writer<'a> {
    /// Allocates the ids of new rows that a plan needs to know, or all of them where they are `told`, and prepares to
    /// write. `rewritten`: stored rows that this transaction wrote already.
    pub async fn new(
        transaction: &'a Transaction<'a>,
        Batch { mapping, schema, sides, .. }: Batch<'a>,
        marking: Option<&'a Marking>,
        plan: &Plan,
        rewritten: Locators,
        told: bool,
    ) -> Result<Self, Error> {
        let references = Vec::new();
        let fills =
            |ix| plan.steps.iter().any(|s| s.relation == ix && matches!(s.action, Action::Fill { .. }));
        let draws =
            (0..sides.len()).map(|ix| told || mapping.enclosed(ix).next().is_some() || fills(ix)).collect();
        let (traced, places) = (schema.tables.iter().map(Table::is_rewritten).collect(), Places::new());
        let mut writer = Writer {
            transaction,
            mapping,
            schema,
            sides,
            marking,
            draws,
            references,
            rewritten,
            traced,
            places,
        };
        let ids = join_all((0..sides.len()).map(|ix| writer.new_ids(ix))).await;
        for (ix, ids) in ids.into_iter().enumerate() {
            let references = writer.referables(ix, ids?);
            writer.references.push(references);
        }
        (0..sides.len()).try_for_each(|ix| writer.check_references(ix))?;
        Ok(writer)
    }

    /// Runs all steps, adding to the time spent per relation. Statements between two COPYs are sent without waiting for each other's answers.
    ///
    /// # Errors
    /// Transient if a count differs from the plan's: someone else wrote meanwhile.
    pub async fn apply(&mut self, plan: &Plan, times: Vec<Duration>) -> Result<Vec<Duration>, Error> {
        let applied = self.run_all(plan, times).await;
        applied.map_err(|error| self.replaced(error))
    }

    async fn run_all(&mut self, plan: &Plan, mut times: Vec<Duration>) -> Result<Vec<Duration>, Error> {
        let mut pending = Vec::new();
        pending.extend(self.set_constraints(&plan.deferred, "DEFERRED"));
        for step in &plan.steps {
            match &step.action {
                action if self.is_followed(step.relation, action) => {
                    self.run(std::mem::take(&mut pending), &mut times).await?;
                    let started = Instant::now();
                    let found = self.detour(step).await;
                    let name = &self.mapping.relations[step.relation].name;
                    let found = found.map_err(|error| error.in_relation(name))?;
                    self.trace(step, &found);
                    self.rewritten.extend(found);
                    times[step.relation] += started.elapsed();
                }
                Action::Insert { columns, holes, rows } if self.copies(step.relation, rows.len()) => {
                    self.run(std::mem::take(&mut pending), &mut times).await?;
                    let started = Instant::now();
                    self.copy(step.relation, columns, holes, rows)
                        .await
                        .map_err(|error| error.in_relation(&self.mapping.relations[step.relation].name))?;
                    times[step.relation] += started.elapsed();
                }
                _ => pending.extend(self.statements(step)),
            }
        }
        pending.extend(self.set_constraints(&self.late_checks(plan), "IMMEDIATE"));
        self.run(pending, &mut times).await?;
        Ok(times)
    }

    /// Whether rows of a step are looked for again after it, and need not be where they were.
    fn is_followed(&self, ix: RelationIx, action: &Action) -> bool {
        match action {
            Action::Park { .. } | Action::Update { split: true, .. } => true,
            // Rows that were detached are attached again.
            Action::Update { rows, .. } if self.schema.tables[ix].is_found_by_place() => {
                rows.iter().any(|pair| self.rewritten.contains_key(&(ix, pair.0)))
            }
            _ => false,
        }
    }

    /// Where stored rows are found by now that were written more than once.
    pub fn rewritten(&self) -> &Locators {
        &self.rewritten
    }

    /// What is checked at the end only is checked here already, while an error can still be told apart.
    fn late_checks(&self, plan: &Plan) -> BTreeSet<String> {
        let tables: BTreeSet<RelationIx> = plan.steps.iter().map(|step| step.relation).collect();
        let of_table = |ix| {
            let table: &Table = &self.schema.tables[ix];
            let uniques = table.uniques.iter().map(|unique| &unique.check);
            uniques.chain(table.references.iter().map(|reference| &reference.check))
        };
        let deferred = tables.into_iter().flat_map(of_table).filter_map(|check| match check {
            Check::Deferred(name) => Some(name.clone()),
            _ => None,
        });
        plan.deferred.iter().cloned().chain(deferred).collect()
    }

    fn set_constraints(&self, names: &BTreeSet<String>, when: &str) -> Option<Statement> {
        let list = names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let sql = format!("SET CONSTRAINTS {list} {when}");
        (!names.is_empty()).then_some(Statement {
            relation: None,
            sql,
            params: Vec::new(),
            rows: 0,
            is_numbered: false,
            subject: Subject::default(),
        })
    }

    fn copies(&self, ix: RelationIx, rows: usize) -> bool {
        self.schema.tables[ix].way == WriteWay::Copy && rows >= COPY_ROWS_MIN
    }

    async fn run(&mut self, statements: Vec<Statement>, times: &mut [Duration]) -> Result<(), Error> {
        let turns = Turns::start();
        let params: Vec<_> = statements.iter().map(|statement| typed(&statement.params)).collect();
        let (this, turns) = (&*self, &turns);
        let sent = statements.iter().zip(&params).map(|(statement, params)| async move {
            let answer = this.send(statement, params).await;
            (answer, turns.next())
        });
        let (answers, took): (Vec<_>, Vec<Duration>) = join_all(sent).await.into_iter().unzip();
        let has_failed = answers.iter().any(Result::is_err);
        // The first error is the cause; those after it only say that the transaction has failed.
        for (statement, answer) in statements.iter().zip(answers) {
            let answer = answer.map_err(|error| self.named(error.into(), statement.relation))?;
            let places = self.written(statement, answer, has_failed).await;
            self.places.extend(places.map_err(|error| self.named(error, statement.relation))?);
        }
        let took =
            statements.iter().zip(took).filter_map(|(statement, took)| Some((statement.relation?, took)));
        took.for_each(|(ix, took)| times[ix] += took);
        Ok(())
    }

    /// Names the relation of an error: the statement's, else the one whose table the server names.
    fn named(&self, error: Error, relation: Option<RelationIx>) -> Error {
        match relation {
            Some(ix) => error.in_relation(&self.mapping.relations[ix].name),
            None => named_by_table(self.mapping, self.schema, error),
        }
    }

    /// The ids of new rows that others will refer to: the column's default, evaluated by the server in bulk.
    async fn new_ids(&self, ix: RelationIx) -> Result<Vec<Vec<u8>>, Error> {
        let (table, added) = (&self.schema.tables[ix], self.sides[ix].changes.added.len());
        let (Some(id), true) = (&table.id, added > 0 && self.draws[ix]) else {
            return Ok(Vec::new());
        };
        let IdSource::Expression(default) = &id.source else { return Ok(Vec::new()) };
        let value = format!("({default})::{}", id.column.ty.sql);
        let value = if Type::from_oid(id.column.ty.oid).is_some() {
            value
        } else {
            format!("{}({value})", id.column.ty.send)
        };
        let sql = format!("SELECT {value} FROM generate_series(1, $1)");
        let rows = self.transaction.query_typed(&sql, &[(&(added as i32), Type::INT4)]).await?;
        rows.iter().map(|row| Ok(raw(row, 0)?.unwrap_or_default().to_vec())).collect()
    }

    fn referables(&self, ix: RelationIx, ids: Vec<Vec<u8>>) -> Vec<Tuple> {
        referables(&self.schema.tables[ix], &self.sides[ix], ids)
    }

    fn statements(&self, step: &Step) -> Vec<Statement> {
        let ix = step.relation;
        match &step.action {
            Action::Delete(rows) => self.delete(ix, rows),
            Action::Update { columns, moves, rows, .. } => {
                let mut set = self.changed_cells(ix, columns, *moves, rows);
                if ix == 0 {
                    set.extend(self.mark_cells(rows.iter().map(|pair| pair.1)));
                }
                self.update(ix, set, rows)
            }
            Action::Mark(rows) => {
                let set = self.mark_cells(rows.iter().map(|pair| pair.1));
                self.update(ix, set, rows)
            }
            Action::Insert { columns, holes, rows } => self.insert(ix, columns, holes, rows),
            Action::Fill { columns, rows } => self.fill(ix, columns, rows),
            Action::Cascade(_) => Vec::new(),
            // Its statements need answers: see `detour`.
            Action::Park { .. } => Vec::new(),
        }
    }

    fn delete(&self, ix: RelationIx, rows: &[u32]) -> Vec<Statement> {
        let (table, locator) = (&self.schema.tables[ix], self.locator_cells(ix, rows.iter().copied()));
        let statements = self.split(ix, locator, rows.len(), |names, source| {
            let condition = same_version(table, &names);
            match source {
                Some(unnest) => format!("DELETE FROM {} t USING {unnest} WHERE {condition}", table.name),
                None => format!("DELETE FROM {} t WHERE {condition}", table.name),
            }
        });
        self.about(ix, statements, Verb::Delete, rows, &[])
    }

    fn update(&self, ix: RelationIx, set: Vec<Filled<'_>>, rows: &[(u32, u32)]) -> Vec<Statement> {
        let table = &self.schema.tables[ix];
        let assigned = set.len();
        let mut filled = set;
        filled.extend(self.locator_cells(ix, rows.iter().map(|pair| pair.0)));
        let statements = self.split(ix, filled, rows.len(), |names, source| {
            let (set, locator) = names.split_at(assigned);
            update_sql(&table.name, set, source, &same_version(table, locator))
        });
        let (stored, source): (Vec<u32>, Vec<u32>) = rows.iter().copied().unzip();
        self.about(ix, statements, Verb::Update, &stored, &source)
    }

    /// Sets columns of rows that this transaction inserted.
    fn fill(&self, ix: RelationIx, columns: &[usize], rows: &[u32]) -> Vec<Statement> {
        let table = &self.schema.tables[ix];
        let mut filled = self.source_cells(ix, columns, rows.iter().copied());
        filled.extend(self.new_row_cells(ix, rows));
        let statements = self.split(ix, filled, rows.len(), |names, source| {
            let (set, locator) = names.split_at(columns.len());
            let equal = |(column, value): &(&str, String)| format!("t.{} = {value}", quote(column));
            let condition = locator.iter().map(equal).collect::<Vec<_>>().join(" AND ");
            update_sql(&table.name, set, source, &condition)
        });
        self.about(ix, statements, Verb::Update, &[], rows)
    }

    fn insert(&self, ix: RelationIx, columns: &[usize], holes: &[usize], rows: &[u32]) -> Vec<Statement> {
        let table = &self.schema.tables[ix];
        let filled = self.inserted_cells(ix, columns, holes, rows);
        let names: Vec<String> = filled.iter().map(|filled| quote(filled.name)).collect();
        let names = names.join(", ");
        let alias = if self.traced[ix] { " AS t" } else { "" };
        // OVERRIDING has an effect only on columns GENERATED ALWAYS AS IDENTITY, which COPY fills without being told.
        let statements = self.split(ix, filled, rows.len(), |values, source| {
            let list: Vec<&str> = values.iter().map(|(_, value)| value.as_str()).collect();
            let values = match source {
                Some(unnest) => format!("SELECT {} FROM {unnest}", list.join(", ")),
                None => format!("VALUES ({})", list.join(", ")),
            };
            format!("INSERT INTO {}{alias} ({names}) OVERRIDING SYSTEM VALUE {values}", table.name)
        });
        self.about(ix, statements, Verb::Insert, &[], rows)
    }

    /// One statement over `unnest`, or, where a column's type has no array, one a row.
    ///
    /// `sql` gets each column's name with the expression of its value, and the `unnest` item.
    fn split(
        &self,
        relation: RelationIx,
        filled: Vec<Filled<'_>>,
        rows: usize,
        sql: impl Fn(Vec<(&str, String)>, Option<&str>) -> String,
    ) -> Vec<Statement> {
        if filled.iter().all(|column| column.ty.array_oid != 0) {
            let names =
                filled.iter().enumerate().map(|(at, column)| (column.name, format!("v.c{at}"))).collect();
            let is_numbered = self.traced[relation];
            let count = filled.len() + usize::from(is_numbered);
            let places: Vec<String> = (1..=count).map(|n| format!("${n}")).collect();
            let mut aliases: Vec<String> = (0..filled.len()).map(|at| format!("c{at}")).collect();
            aliases.extend(is_numbered.then(|| "n".to_owned()));
            let unnest = format!("unnest({}) AS v ({})", places.join(", "), aliases.join(", "));
            let sql = sql(names, Some(&unnest));
            let params = filled.iter().map(|column| {
                let mut array = ArrayBuilder::new(column.ty.oid, column.ty.array_oid);
                column.cells.iter().for_each(|cell| array.push(cell.as_deref()));
                array.finish()
            });
            let params = params.chain(is_numbered.then(|| numbers(rows))).collect();
            let (relation, subject) = (Some(relation), Subject::default());
            return vec![Statement { relation, sql, params, rows, is_numbered, subject }];
        }
        let names =
            || filled.iter().enumerate().map(|(at, column)| (column.name, format!("${}", at + 1))).collect();
        let scalar = |row: usize| {
            filled
                .iter()
                .map(move |column| Param::scalar(column.ty.oid, column.cells[row].as_deref()))
                .collect()
        };
        (0..rows)
            .map(|row| Statement {
                relation: Some(relation),
                sql: sql(names(), None),
                params: scalar(row),
                rows: 1,
                is_numbered: false,
                subject: Subject::default(),
            })
            .collect()
    }

    async fn copy(
        &self,
        ix: RelationIx,
        columns: &[usize],
        holes: &[usize],
        rows: &[u32],
    ) -> Result<(), Error> {
        let filled = self.inserted_cells(ix, columns, holes, rows);
        let names: Vec<String> = filled.iter().map(|column| quote(column.name)).collect();
        let sql =
            format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.schema.tables[ix].name, names.join(", "));
        // Where the server refuses the COPY before it asks for data, it answers once more than the client expects.
        let refused = |error| Error::from(error).out_of_step();
        let sink = self.transaction.copy_in::<_, bytes::Bytes>(&sql).await.map_err(refused)?;
        pin_mut!(sink);
        for chunk in copy_chunks(&filled, rows.len()) {
            sink.send(chunk).await?;
        }
        check_count(&self.schema.tables[ix], rows.len(), sink.finish().await?)
    }
}

/// What rows enclosed in each source row refer to: its id (stored, mapped or new), else its key. Of a new row whose id is
/// not given it is empty.
pub(crate) fn referables(table: &Table, side: &Sides, ids: Vec<Vec<u8>>) -> Vec<Tuple> {
    let of_source = |row: &crate::plan::SourceRow| match &table.id {
        Some(id) => match id.source {
            IdSource::Mapped(at) => row.tuple.project(&[at]),
            IdSource::Expression(_) => Tuple::default(),
        },
        None => row.tuple.project(&table.key),
    };
    let mut references: Vec<Tuple> = side.source.iter().map(of_source).collect();
    for (stored, source) in side.changes.matched() {
        references[source as usize] = referable(table, &side.stored[stored as usize]);
    }
    for (&row, id) in side.changes.added.iter().zip(ids) {
        references[row as usize] = Tuple::of([Cell::Value(&id)]);
    }
    references
}

/// Names the relation whose table the server names in an error.
pub(crate) fn named_by_table(mapping: &Mapping, schema: &Schema, error: Error) -> Error {
    let of_table = |(namespace, table): (&str, &str)| {
        // The server names it without quotes.
        let name = format!("{namespace}.{table}").replace('"', "");
        schema.tables.iter().position(|table| table.name.replace('"', "") == name)
    };
    match error.table().and_then(of_table) {
        Some(ix) => error.in_relation(&mapping.relations[ix].name),
        None => error,
    }
}

fn update_sql(table: &str, set: &[(&str, String)], source: Option<&str>, condition: &str) -> String {
    let assignments: Vec<String> =
        set.iter().map(|(column, value)| format!("{} = {value}", quote(column))).collect();
    let assignments = assignments.join(", ");
    match source {
        Some(unnest) => format!("UPDATE {table} t SET {assignments} FROM {unnest} WHERE {condition}"),
        None => format!("UPDATE {table} t SET {assignments} WHERE {condition}"),
    }
}

/// Finds the version of a row that was read, by its locator: its own columns, the reference to the parent
/// (NULL for a row that lost it), the version last. A version of this very transaction will do: a trigger of
/// the user's may have touched the row since.
fn same_version(table: &Table, columns: &[(&str, String)]) -> String {
    found_at(table, columns, |version| format!("(t.xmin = {version} OR t.xmin = pg_current_xact_id()::xid)"))
}

/// Finds a row by its locator, of which the version is asked for by `is_version`.
fn found_at(table: &Table, columns: &[(&str, String)], is_version: impl Fn(&str) -> String) -> String {
    let version = columns.len() - 1;
    let equal = |(at, (name, value)): (usize, &(&str, String))| match at {
        _ if at == version => is_version(value),
        _ if at < table.own_locator => format!("t.{} = {value}", quote(name)),
        _ => format!("t.{} IS NOT DISTINCT FROM {value}", quote(name)),
    };
    columns.iter().enumerate().map(equal).collect::<Vec<_>>().join(" AND ")
}

/// An array parameter of the numbers of so many rows.
fn numbers(rows: usize) -> Param {
    let mut numbers = ArrayBuilder::new(Type::INT4.oid(), Type::INT4_ARRAY.oid());
    (0..rows as i32).for_each(|number| numbers.push(Some(&number.to_be_bytes())));
    numbers.finish()
}

fn check_count(table: &Table, expected: usize, found: u64) -> Result<(), Error> {
    if expected as u64 == found {
        return Ok(());
    }
    let policy = match table.way {
        WriteWay::Copy => "",
        WriteWay::Insert => ", or a policy of row-level security lets them be seen but not written",
    };
    let lost = (expected as u64).saturating_sub(found);
    let message = format!(
        "{lost} of {expected} rows could not be written: someone else changed them meanwhile{policy}"
    );
    Err(Error::new(ErrorKind::Transient, message))
}
