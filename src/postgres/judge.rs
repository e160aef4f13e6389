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
use crate::postgres::wire::{ArrayBuilder, Param, array, typed};
use crate::schema::{Attribute, Schema, Table, Unique};
use crate::value::ColumnType;

/// Answers questions: which stored row frees what a source row takes.
pub(crate) async fn conflicts(
    transaction: &Transaction<'_>,
    schema: &Schema,
    sides: &[Sides],
    questions: &[Question],
) -> Result<Vec<Conflict>, Error> {
    let mut conflicts = Vec::new();
    for question in questions {
        let asked = Asked::new(schema, &sides[question.relation], question);
        // Without an array of its type a column cannot be sent: the natural order has to do.
        let Some(params) = asked.params() else { continue };
        transaction.batch_execute("SET LOCAL enable_hashjoin = on").await?;
        let pairs = transaction.query_typed(&asked.sql(), &typed(&params)).await?;
        transaction.batch_execute("SET LOCAL enable_hashjoin = off").await?;
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
    Ok(conflicts)
}

struct Asked<'a> {
    table: &'a Table,
    unique: &'a Unique,
    side: &'a Sides,
    question: &'a Question,
}

/// Names that no column has, it is hoped: the expressions see them beside the table's columns.
const PLACE: &str = "\"rowdelta place\"";
const AFTER: &str = "\"rowdelta after\"";

impl<'a> Asked<'a> {
    fn new(schema: &'a Schema, side: &'a Sides, question: &'a Question) -> Self {
        let table = &schema.tables[question.relation];
        Asked { table, unique: &table.uniques[question.unique], side, question }
    }

    fn candidates(&self) -> impl Iterator<Item = (usize, bool, &'a Candidate)> {
        let frees = self.question.frees.iter().enumerate().map(|(place, row)| (place, false, row));
        frees.chain(self.question.takes.iter().enumerate().map(|(place, row)| (place, true, row)))
    }

    /// The attributes whose values are sent: name and type, and their place among the constraint's.
    fn known(&self) -> impl Iterator<Item = (usize, &'a str, &'a ColumnType)> {
        let (table, attributes) = (self.table, &self.unique.attributes);
        attributes.iter().enumerate().filter_map(move |(place, attribute)| {
            let (name, ty) = match attribute {
                Attribute::Mapped(at) => (&table.names[*at], &table.columns[*at]),
                Attribute::Parent(at) => (&table.parent[*at].name, &table.parent[*at].ty),
                Attribute::Id => table.id.as_ref().map(|id| (&id.column.name, &id.column.ty))?,
                Attribute::Unmapped { .. } => return None,
            };
            Some((place, name.as_str(), ty))
        })
    }

    /// Place, whether it is a row as it will be, the known values, the locator of the stored row.
    fn params(&self) -> Option<Vec<Param>> {
        let places: Vec<[u8; 4]> =
            self.candidates().map(|(place, ..)| (place as i32).to_be_bytes()).collect();
        let after: Vec<[u8; 1]> = self.candidates().map(|(_, after, _)| [u8::from(after)]).collect();
        let mut params = vec![
            array(Type::INT4.oid(), Type::INT4_ARRAY.oid(), places.iter().map(|place| Some(&place[..]))),
            array(Type::BOOL.oid(), Type::BOOL_ARRAY.oid(), after.iter().map(|after| Some(&after[..]))),
        ];
        for (place, _, ty) in self.known() {
            let cells = self.candidates().map(|(.., row)| row.cells[place].as_deref());
            params.push(array(ty.oid, Some(ty.array_oid).filter(|oid| *oid != 0)?, cells));
        }
        for (at, column) in self.table.locator[..self.table.own_locator].iter().enumerate() {
            let mut cells = ArrayBuilder::new(column.ty.oid, column.ty.array_oid);
            for (.., row) in self.candidates() {
                let locator = row.stored.map(|row| self.side.stored[row as usize].locator.cell(at));
                cells.push(locator.and_then(|cell| cell.bytes()));
            }
            params.push(cells.finish());
        }
        Some(params)
    }

    /// The pairs of places of rows that conflict.
    fn sql(&self) -> String {
        let known: Vec<String> = self.known().map(|(_, name, _)| quote(name)).collect();
        let locator = &self.table.locator[..self.table.own_locator];
        let own: Vec<String> = (0..locator.len()).map(|at| format!("\"rowdelta locator {at}\"")).collect();
        let columns: Vec<String> =
            [PLACE.to_owned(), AFTER.to_owned()].into_iter().chain(known).chain(own.clone()).collect();
        let params: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let find =
            locator.iter().zip(&own).map(|(column, own)| format!("t.{} = v.{own}", quote(&column.name)));
        let find = find.collect::<Vec<_>>().join(" AND ");
        let [unmapped, generated] = self.unmapped();
        let keys =
            self.unique.terms.iter().enumerate().map(|(k, term)| format!(", ({}) AS k{k}", term.expression));
        let condition = self.unique.predicate.as_deref().unwrap_or("true");
        format!(
            "WITH given AS (SELECT v.*{unmapped} FROM unnest({}) AS v ({}) LEFT JOIN {} t ON {find}),
                  made AS (SELECT given.*{generated} FROM given),
                  keys AS MATERIALIZED (SELECT {PLACE} AS place, {AFTER} AS after{} FROM made WHERE {condition})
             SELECT f.place, t.place FROM keys f JOIN keys t ON NOT f.after AND t.after{}",
            params.join(", "),
            columns.join(", "),
            self.table.name,
            keys.collect::<String>(),
            self.conflict(),
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

    fn conflict(&self) -> String {
        let one = |(k, operator): (usize, &str)| {
            let conflict = format!("f.k{k} {operator} t.k{k}");
            match self.unique.nulls_distinct {
                true => format!(" AND {conflict}"),
                false => format!(" AND ({conflict} OR f.k{k} IS NULL AND t.k{k} IS NULL)"),
            }
        };
        self.unique.terms.iter().map(|term| term.operator.as_str()).enumerate().map(one).collect()
    }
}
