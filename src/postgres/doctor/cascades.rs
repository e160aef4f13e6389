//! What foreign keys do beside: rows of other tables that go along, change along, or stand in the way.

use std::collections::BTreeSet;

use tokio_postgres::{Row, Transaction};

use super::tables::measure;
use super::words::list;
use super::{Exam, Severity, ask};
use crate::error::Error;
use crate::mapping::RelationKind;

/// A foreign key, seen from the table it refers to.
struct Reference {
    name: String,
    from: u32,
    /// Quoted, with its schema.
    from_name: String,
    to: u32,
    columns: Vec<String>,
    on_delete: char,
    on_update: char,
    is_deferrable: bool,
}

pub(super) async fn look(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    let mut level = exam.relation_oids();
    let mut seen: BTreeSet<u32> = level.iter().copied().collect();
    while !level.is_empty() {
        let found = ask(transaction, REFERENCES, &level).await?;
        let found: Vec<Reference> = found.iter().map(reference).collect();
        level.clear();
        for reference in &found {
            let is_mapped = exam.by_oid(reference.to).is_some();
            if is_mapped {
                judge(exam, transaction, reference).await?;
            }
            if reference.on_delete == 'c' && seen.insert(reference.from) {
                level.push(reference.from);
                if !is_mapped {
                    further(exam, transaction, reference).await?;
                }
            }
        }
    }
    deferrable(exam, transaction).await
}

async fn judge(
    exam: &mut Exam<'_>,
    transaction: &Transaction<'_>,
    reference: &Reference,
) -> Result<(), Error> {
    let is_mapped = exam.by_oid(reference.from).is_some();
    let is_parent = exam.relations().any(|(relation, table)| {
        table.oid == reference.from
            && relation.kind != RelationKind::Root
            && relation.parent == reference.columns
    });
    match (is_mapped, reference.on_delete) {
        (true, _) if is_parent => {}
        (true, 'c' | 'n' | 'd') => mapped(exam, reference),
        (false, 'c') => taken_along(exam, transaction, reference).await?,
        (false, 'n' | 'd') => cleared(exam, reference),
        (false, _) => in_the_way(exam, reference),
        _ => {}
    }
    if reference.on_update == 'c' && !is_parent {
        let (from, columns) = (&reference.from_name, list(&reference.columns));
        let message =
            format!("a key that changes here changes {columns} of {from} along ({})", reference.name);
        exam.about(Severity::Note, "update_cascade", reference.to, message).costs(if is_mapped {
            "a document that is not in the same batch keeps its old fingerprint: verify tells"
        } else {
            "an UPDATE of each row that refers to it, which the report does not count"
        });
    }
    Ok(())
}

/// Between tables of the mapping, but not from a child to its parent.
fn mapped(exam: &mut Exam<'_>, reference: &Reference) {
    let from = &reference.from_name;
    let what = if reference.on_delete == 'c' { "deletes" } else { "clears" };
    let message = format!(
        "a row that goes from here {what} along what refers to it in {from} {} ({})",
        list(&reference.columns),
        reference.name
    );
    let finding = exam.about(Severity::Warning, "mapped_cascade", reference.to, message);
    finding.costs(
        "where the two are of documents that are not in one batch the other one's change goes unnoticed",
    );
    finding.advise(format!(
        "a foreign key with ON DELETE NO ACTION in place of {}, or verify --repair after deletions",
        reference.name
    ));
}

async fn taken_along(
    exam: &mut Exam<'_>,
    transaction: &Transaction<'_>,
    reference: &Reference,
) -> Result<(), Error> {
    let (from, name) = (&reference.from_name, &reference.name);
    let size = &measure(transaction, &[reference.from]).await?[&reference.from];
    let message =
        format!("a row that goes from here takes its rows of {from} along, which nobody maps ({name})");
    let finding = exam.about(Severity::Warning, "cascade", reference.to, message);
    finding.costs(format!(
        "it holds {size} by now; what goes counts against the limits on deletions (--deletes-max, rowdelta.guard)"
    ));
    finding.advise("if they should stay: a foreign key with ON DELETE RESTRICT, or SET NULL");
    Ok(())
}

/// From a table that goes along itself.
async fn further(
    exam: &mut Exam<'_>,
    transaction: &Transaction<'_>,
    reference: &Reference,
) -> Result<(), Error> {
    let size = &measure(transaction, &[reference.from]).await?[&reference.from];
    let (from, name) = (&reference.from_name, &reference.name);
    let message = format!("rows of {from} go along with rows that go along ({name})");
    exam.general(Severity::Warning, "cascade", message)
        .costs(format!("it holds {size} by now; what goes counts against the limits on deletions"));
    Ok(())
}

fn cleared(exam: &mut Exam<'_>, reference: &Reference) {
    let to_what = if reference.on_delete == 'n' { "NULL" } else { "its default" };
    let message = format!(
        "a row that goes from here sets {} of {} to {to_what}, which nobody maps ({})",
        list(&reference.columns),
        reference.from_name,
        reference.name
    );
    exam.about(Severity::Note, "clears", reference.to, message)
        .costs("an UPDATE of each row that refers to it, which the report does not count");
}

fn in_the_way(exam: &mut Exam<'_>, reference: &Reference) {
    let (from, name) = (&reference.from_name, &reference.name);
    let message = format!("a row that {from} refers to cannot go ({name}), and nobody maps that table");
    exam.about(Severity::Note, "restricts", reference.to, message)
        .costs("a document that removes such a row fails, by name, until nothing refers to it");
}

/// Foreign keys that are put off.
async fn deferrable(exam: &mut Exam<'_>, transaction: &Transaction<'_>) -> Result<(), Error> {
    let pointing = ask(transaction, REFERENCES, &exam.relation_oids()).await?;
    for reference in pointing.iter().map(reference).filter(|reference| reference.is_deferrable) {
        let message = format!(
            "foreign key {} of {} is deferrable: it is put off where rows trade places",
            reference.name, reference.from_name
        );
        exam.about(Severity::Note, "deferrable", reference.to, message).costs(
            "none; what it forbids is told at the end of a batch only, whose documents are then tried apart",
        );
    }
    Ok(())
}

fn reference(row: &Row) -> Reference {
    let code = |name: &str| row.get::<_, &str>(name).chars().next().unwrap_or('a');
    Reference {
        name: row.get("name"),
        from: row.get("from"),
        from_name: row.get("from_name"),
        to: row.get("to"),
        columns: row.get("columns"),
        on_delete: code("on_delete"),
        on_update: code("on_update"),
        is_deferrable: row.get("deferrable"),
    }
}

/// What refers to a table that a partition is of refers to the partition.
const REFERENCES: &str = "
SELECT quote_ident(f.conname) AS name, f.conrelid AS from, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS from_name,
       t.oid AS to, f.confdeltype::text AS on_delete, f.confupdtype::text AS on_update, f.condeferrable AS deferrable,
       array(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
             JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number ORDER BY k.place) AS columns
FROM unnest($1::oid[]) AS t (oid)
CROSS JOIN LATERAL (SELECT t.oid UNION SELECT relid FROM pg_partition_ancestors(t.oid::regclass)) AS whole (oid)
JOIN pg_constraint f ON f.contype = 'f' AND f.conparentid = 0 AND f.confrelid = whole.oid
JOIN pg_class c ON c.oid = f.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY 4, 3, 1";
