//! Asks the server which rows of a batch conflict under constraints that only it can judge: over expressions,
//! under a condition, with an operator, a collation or a type of their own.
//!
//! No row is written: the server evaluates the constraint's expressions over the values that rows have and will
//! have. Columns that the mapping does not know come from the stored row, or are a new row's defaults.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use crate::error::Error;
use crate::plan::{Candidate, Conflict, Question, Sides};
use crate::postgres::quote;
use crate::postgres::wire::{Param, array, typed};
use crate::schema::{Attribute, PhysicalColumn, Schema, Table, Unique, UniqueTerm};

/// Answers questions: which stored row frees what a source row takes.
pub(crate) async fn conflicts(
    transaction: &Transaction<'_>,
    schema: &Schema,
    sides: &[Sides],
    questions: &[Question],
) -> Result<Vec<Conflict>, Error> {
    let mut conflicts = Vec::new();
    if questions.is_empty() {
        return Ok(conflicts);
    }
    transaction.batch_execute("SET LOCAL enable_hashjoin = on").await?;
    for question in questions {
        let asked = Asked::new(schema, &sides[question.relation], question);
        // Of so many rows the natural order has to do.
        let Some((given, params)) = asked.given() else { continue };
        let pairs = transaction.query_typed(&asked.sql(&given), &typed(&params)).await?;
        for row in pairs {
            let place = |at: usize| row.get::<_, i32>(at) as usize;
            let (frees, takes) = (&question.frees[place(0)], &question.takes[place(1)]);
            let pair = frees.stored.filter(|_| frees.stored != takes.stored).zip(takes.source);
            conflicts.extend(pair.map(|(frees, takes)| Conflict {
                relation: question.relation,
                unique: question.unique,
                frees,
                takes,
            }));
        }
    }
    transaction.batch_execute("SET LOCAL enable_hashjoin = off").await?;
    Ok(conflicts)
}

struct Asked<'a> {
    table: &'a Table,
    /// The columns whose values are sent, and their places among the constraint's attributes.
    known: Vec<(usize, PhysicalColumn)>,
    unique: &'a Unique,
    side: &'a Sides,
    question: &'a Question,
}

/// Parameters of a statement: the protocol counts them in 16 bits.
const PARAMETERS_MAX: usize = 65_535;

/// Names that no column has, it is hoped: the expressions see them beside the table's columns.
const PLACE: &str = "\"rowdelta place\"";
const AFTER: &str = "\"rowdelta after\"";

impl<'a> Asked<'a> {
    fn new(schema: &'a Schema, side: &'a Sides, question: &'a Question) -> Self {
        let table = &schema.tables[question.relation];
        let unique = &table.uniques[question.unique];
        let known = unique.attributes.iter().enumerate();
        let known = known.filter_map(|(place, attribute)| Some((place, table.column(attribute)?))).collect();
        Asked { table, known, unique, side, question }
    }

    fn candidates(&self) -> impl Iterator<Item = (usize, bool, &'a Candidate)> {
        let frees = self.question.frees.iter().enumerate().map(|(place, row)| (place, false, row));
        frees.chain(self.question.takes.iter().enumerate().map(|(place, row)| (place, true, row)))
    }

    /// The types of what is sent of a row: its place, whether it is a row as it will be, the known values, the
    /// locator of the stored row.
    fn types(&self) -> Vec<(u32, u32, &str)> {
        let locator = &self.table.locator[..self.table.own_locator];
        let sent = self.known.iter().map(|(_, column)| column).chain(locator);
        let mut types = vec![
            (Type::INT4.oid(), Type::INT4_ARRAY.oid(), "int4"),
            (Type::BOOL.oid(), Type::BOOL_ARRAY.oid(), "bool"),
        ];
        types.extend(sent.map(|column| (column.ty.oid, column.ty.array_oid, column.ty.sql.as_str())));
        types
    }

    /// What is sent, a list a row.
    fn rows(&self) -> Vec<Vec<Option<Vec<u8>>>> {
        let row = |(place, after, row): (usize, bool, &Candidate)| {
            let head = [(place as i32).to_be_bytes().to_vec(), vec![u8::from(after)]].map(Some);
            let known = self.known.iter().map(|(place, _)| row.cells[*place].clone());
            let locator = row.stored.map(|stored| &self.side.stored[stored as usize].locator);
            let own = (0..self.table.own_locator)
                .map(|at| locator.and_then(|locator| locator.cell(at).bytes().map(<[u8]>::to_vec)));
            head.into_iter().chain(known).chain(own).collect()
        };
        self.candidates().map(row).collect()
    }

    /// The rows as a table expression, and its parameters: arrays side by side, or where a type has no array each
    /// value for itself. `None` if that would be more than a statement takes.
    fn given(&self) -> Option<(String, Vec<Param>)> {
        let (types, rows) = (self.types(), self.rows());
        if types.iter().all(|(_, array_oid, _)| *array_oid != 0) {
            let column = |(at, (oid, array_oid, _)): (usize, &(u32, u32, &str))| {
                array(*oid, *array_oid, rows.iter().map(|row| row[at].as_deref()))
            };
            let places: Vec<String> = (1..=types.len()).map(|n| format!("${n}")).collect();
            let params = types.iter().enumerate().map(column).collect();
            return Some((format!("unnest({})", places.join(", ")), params));
        }
        if types.len() * rows.len() > PARAMETERS_MAX {
            return None;
        }
        let place = |n: usize| format!("${}::{}", n + 1, types[n % types.len()].2);
        let row =
            |r: usize| (0..types.len()).map(|at| place(r * types.len() + at)).collect::<Vec<_>>().join(", ");
        let values: Vec<String> = (0..rows.len()).map(|r| format!("({})", row(r))).collect();
        let params = rows.iter().flat_map(|row| row.iter().zip(&types));
        let params = params.map(|(value, (oid, ..))| Param::scalar(*oid, value.as_deref())).collect();
        Some((format!("(VALUES {})", values.join(", ")), params))
    }

    /// The pairs of places of rows that conflict.
    fn sql(&self, given: &str) -> String {
        let known: Vec<String> = self.known.iter().map(|(_, column)| quote(&column.name)).collect();
        let locator = &self.table.locator[..self.table.own_locator];
        let own: Vec<String> = (0..locator.len()).map(|at| format!("\"rowdelta locator {at}\"")).collect();
        let columns: Vec<String> =
            [PLACE.to_owned(), AFTER.to_owned()].into_iter().chain(known).chain(own.clone()).collect();
        let find =
            locator.iter().zip(&own).map(|(column, own)| format!("t.{} = v.{own}", quote(&column.name)));
        let find = find.collect::<Vec<_>>().join(" AND ");
        let [unmapped, generated] = self.unmapped();
        format!(
            "WITH given AS (SELECT v.*{unmapped} FROM {given} AS v ({}) LEFT JOIN {} t ON {find}),
                  made AS (SELECT given.*{generated} FROM given),
                  keys AS MATERIALIZED (SELECT {PLACE} AS place, {AFTER} AS after, {} FROM made WHERE {})
             SELECT f.place, t.place FROM keys f JOIN keys t ON NOT f.after AND t.after AND {}",
            columns.join(", "),
            self.table.name,
            self.unique.keys(),
            self.unique.condition(),
            self.unique.conflict("f", "t"),
        )
    }

    /// Columns that the mapping does not know: those of the table, and those made of others.
    fn unmapped(&self) -> [String; 2] {
        let (mut plain, mut made) = (String::new(), String::new());
        for attribute in &self.unique.attributes {
            let Attribute::Unmapped { name, generated, default } = attribute else { continue };
            let name = quote(name);
            match generated {
                Some(sql) => made += &format!(", ({sql}) AS {name}"),
                None => {
                    // Asking for the next value of a sequence would use it up.
                    let default = default.as_deref().filter(|sql| !sql.contains("nextval("));
                    let default =
                        default.map_or(String::new(), |sql| format!(" WHEN t.tableoid IS NULL THEN {sql}"));
                    plain += &match default.is_empty() {
                        true => format!(", t.{name}"),
                        false => format!(", CASE{default} ELSE t.{name} END AS {name}"),
                    };
                }
            }
        }
        [plain, made]
    }
}

impl Unique {
    /// SQL of the terms as columns `k0`, `k1`, … over the table's columns.
    pub(crate) fn keys(&self) -> String {
        let terms = self.terms.iter().enumerate();
        terms.map(|(k, term)| format!("({}) AS k{k}", term.expression)).collect::<Vec<_>>().join(", ")
    }

    /// SQL of the condition for rows to take part.
    pub(crate) fn condition(&self) -> &str {
        self.predicate.as_deref().unwrap_or("true")
    }

    /// SQL of whether two rows conflict, whose terms are columns `k0`, `k1`, … of these aliases.
    pub(crate) fn conflict(&self, one: &str, other: &str) -> String {
        let term = |(k, term): (usize, &UniqueTerm)| {
            let conflict = format!("{one}.k{k} {} {other}.k{k}", term.operator);
            match self.nulls_distinct {
                true => conflict,
                false => format!("({conflict} OR {one}.k{k} IS NULL AND {other}.k{k} IS NULL)"),
            }
        };
        self.terms.iter().enumerate().map(term).collect::<Vec<_>>().join(" AND ")
    }
}
