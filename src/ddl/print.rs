//! The statements as text, laid out as a person would.

use std::collections::BTreeSet;
use std::fmt;

use super::Ddl;
use super::identifier::{identifier, list, table};
use super::shape::{Column, Reference, Table, UniqueKey};

impl fmt::Display for Ddl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header.iter().try_for_each(|line| writeln!(f, "-- {line}"))?;
        let schemas: BTreeSet<&str> =
            self.tables.iter().filter_map(|table| table.name.schema.as_deref()).collect();
        // Every database has `public`, and not every role may create schemas.
        let schemas: Vec<&str> = schemas.into_iter().filter(|schema| *schema != "public").collect();
        if !schemas.is_empty() {
            writeln!(f)?;
        }
        for schema in schemas {
            writeln!(f, "CREATE SCHEMA IF NOT EXISTS {};", identifier(schema))?;
        }
        let mut section = "";
        for table in &self.tables {
            if table.section != section {
                section = table.section;
                write!(f, "\n-- {section}\n")?;
            }
            write!(f, "\n{table}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = table(&self.name);
        if let Some(note) = &self.note {
            writeln!(f, "-- {note}")?;
        }
        writeln!(f, "CREATE TABLE {name} (")?;
        let width = self.columns.iter().map(|column| identifier(&column.name).chars().count()).max();
        let columns = self.columns.iter().map(|column| self.column(column, width.unwrap_or(0)));
        let constraints = self.constraints().into_iter().map(|constraint| (constraint, ""));
        let lines: Vec<(String, &str)> = columns.chain(constraints).collect();
        for (at, (line, note)) in lines.iter().enumerate() {
            let comma = if at + 1 < lines.len() { "," } else { "" };
            writeln!(f, "    {line}{comma}{note}")?;
        }
        writeln!(f, ");")?;
        self.without_index()
            .try_for_each(|reference| writeln!(f, "CREATE INDEX ON {name} ({});", list(&reference.columns)))
    }
}

impl Table {
    /// A column with the constraints that are its alone, and a comment.
    fn column(&self, column: &Column, width: usize) -> (String, &'static str) {
        let is_alone = |key: &[String]| key.len() == 1 && key[0] == column.name;
        let mut line = format!("{:<width$} {}", identifier(&column.name), column.ty.sql);
        if column.identity {
            line += " GENERATED ALWAYS AS IDENTITY";
        }
        if is_alone(&self.primary_key) {
            line += " PRIMARY KEY";
        } else if column.not_null {
            line += " NOT NULL";
        }
        if let Some(key) = self.unique.iter().find(|key| is_alone(&key.columns)) {
            line += " ";
            line += key.word();
        }
        for reference in self.references.iter().filter(|reference| is_alone(&reference.columns)) {
            line += " ";
            line += &refers(reference);
        }
        (line, if column.ty.blind { " -- the sample has no value" } else { "" })
    }

    /// The constraints over several columns.
    fn constraints(&self) -> Vec<String> {
        let primary =
            (self.primary_key.len() > 1).then(|| format!("PRIMARY KEY ({})", list(&self.primary_key)));
        let unique = self.unique.iter().filter(|key| key.columns.len() > 1);
        let references = self.references.iter().filter(|reference| reference.columns.len() > 1);
        primary
            .into_iter()
            .chain(unique.map(|key| format!("{} ({})", key.word(), list(&key.columns))))
            .chain(references.map(|it| format!("FOREIGN KEY ({}) {}", list(&it.columns), refers(it))))
            .collect()
    }
}

impl UniqueKey {
    fn word(&self) -> &'static str {
        if self.nulls_equal { "UNIQUE NULLS NOT DISTINCT" } else { "UNIQUE" }
    }
}

fn refers(reference: &Reference) -> String {
    let cascade = if reference.cascade { " ON DELETE CASCADE" } else { "" };
    format!("REFERENCES {} ({}){cascade}", table(&reference.table), list(&reference.referred))
}
