//! (mapping, sample, what is there already) → the tables that the mapping asks for, as SQL.
//!
//! A type is the one that the mapping gives, else the one that a [`Sample`] shows,
//! else `text`. Of constraints there are those that rowdelta needs (unique keys) and
//! those that hold by construction (references, NOT NULL in keys): what else no
//! document of a sample breaks, one of tomorrow's may.
//!
//! Statements come in an order in which they can run: catalogues, documents, lists,
//! links. The same input gives the same text.

mod identifier;
mod print;
mod shape;
mod types;

use crate::mapping::{Mapping, TableName};
use crate::sample::Sample;
use shape::{Shaper, Table};
use types::Types;

/// A table of the mapping that the database has already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingTable {
    /// As the mapping names it.
    pub name: TableName,
    /// Its columns: name, and type with modifier as `format_type` spells it.
    pub columns: Vec<(String, String)>,
}

/// The statements that make the tables. `Display` gives them as a script with comments.
#[derive(Clone, Debug)]
pub struct Ddl {
    /// Lines of the comment at the top.
    header: Vec<String>,
    tables: Vec<Table>,
}

impl Ddl {
    /// The tables to create, in order.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        self.tables.iter().map(|table| &table.name)
    }
}

/// Why there is no SQL for a mapping: every reason found, each with its place and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DdlFaults(pub Vec<String>);

impl std::fmt::Display for DdlFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no tables can be made from the mapping:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for DdlFaults {}

/// Makes the statements for the tables of `mapping` that are not among the existing ones.
///
/// # Errors
/// Columns without a type where there is no sample; keys that PostgreSQL or rowdelta cannot have.
pub fn ddl(
    mapping: &Mapping,
    sample: Option<&Sample<'_>>,
    existing: &[ExistingTable],
) -> Result<Ddl, DdlFaults> {
    let mut shaper = Shaper { mapping, types: Types::new(mapping, sample, existing), faults: Vec::new() };
    let tables = shaper.tables();
    let faults: Vec<String> = shaper.types.missing.into_iter().chain(shaper.faults).collect();
    if !faults.is_empty() {
        return Err(DdlFaults(faults));
    }
    Ok(Ddl { header: header(mapping, sample, existing, tables.is_empty()), tables })
}

fn header(
    mapping: &Mapping,
    sample: Option<&Sample<'_>>,
    existing: &[ExistingTable],
    complete: bool,
) -> Vec<String> {
    // Names are quoted as in Rust: a line end in one must not end the comment.
    let mut lines = vec![format!("Tables for the mapping {:?}.", mapping.name)];
    match sample {
        Some(sample) => {
            let count = sample.documents();
            let passed_over = match sample.passed_over() {
                0 => String::new(),
                count => format!(" ({count} more did not fit and were passed over)"),
            };
            let noun = if count == 1 { "document" } else { "documents" };
            lines.push(format!(
                "Types: inferred from {count} {noun}{passed_over}, unless the mapping gives one."
            ));
            lines.push("A sample proves nothing about what comes: only keys are NOT NULL.".into());
        }
        None => lines.push("Types: as the mapping gives them.".into()),
    }
    if !existing.is_empty() {
        let names: Vec<String> =
            existing.iter().map(|table| format!("{:?}", table.name.to_string())).collect();
        lines.push(format!("Left out, because the database has them: {}.", names.join(", ")));
    }
    if complete {
        lines.push("There is nothing to create.".into());
    }
    lines
}

#[cfg(test)]
mod tests;
