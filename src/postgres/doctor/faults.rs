//! The faults that keep a sync from starting: the mapping against the catalog.

use super::words::{create_index, index_caution};
use super::{Exam, Severity};
use crate::mapping::TableName;
use crate::postgres::catalog::{CatalogFault, Mend, SurveyedTable};

/// Every fault is an error, with its place in the mapping.
pub(super) fn report(exam: &mut Exam<'_>, faults: &[CatalogFault]) {
    for fault in faults {
        let (relation, table) = place_of(exam, &fault.place);
        let remedy =
            fault.mend.as_ref().and_then(|mend| remedy(exam, mend, table.map(|at| &exam.tables[at])));
        let table = table.map(|at| exam.tables[at].name.clone());
        let finding = exam.general(Severity::Error, "mapping", fault.to_string());
        (finding.relation, finding.table) = (relation, table);
        if let Some(Mend::Unique(columns, _)) = &fault.mend {
            finding.columns(columns);
        }
        if finding.relation.is_some() && finding.table.is_none() {
            finding.advise("rowdelta schema -m MAP -d URL FEED prints the tables that are not there");
        }
        if let Some((statement, caution)) = remedy {
            finding.mend_or_think(statement, caution);
        }
    }
}

/// The relation or lookup that a fault's place begins with, and its table's place among those that are there.
fn place_of(exam: &Exam<'_>, place: &str) -> (Option<String>, Option<usize>) {
    let mapping = exam.mapping;
    let relations = mapping.relations.iter().map(|r| (r.place(), &r.name, &r.table));
    let lookups = mapping.lookups.iter().map(|l| (format!("lookups.{}", l.name), &l.name, &l.table));
    let place = if place.starts_with("sync.") { "root" } else { place };
    let is_within = |whole: &str| {
        place.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ':']))
    };
    // A name may have dots in it: the longest that fits is meant.
    let named = relations.chain(lookups).filter(|(whole, ..)| is_within(whole)).max_by_key(|w| w.0.len());
    let at = |exam: &Exam<'_>, table: &TableName| exam.tables.iter().position(|known| known.asked == *table);
    match named {
        Some((_, name, table)) => (Some(name.clone()), at(exam, table)),
        // A fault of the table itself has its name as place.
        None => {
            let at = exam.tables.iter().position(|table| table.name == place);
            (at.and_then(|at| exam.relation_of(exam.tables[at].oid)), at)
        }
    }
}

fn remedy(
    exam: &Exam<'_>,
    mend: &Mend,
    table: Option<&SurveyedTable>,
) -> Option<(String, Option<&'static str>)> {
    match mend {
        Mend::Grant(what) => Some((format!("GRANT {what} TO {}", exam.server.quoted_role()), None)),
        Mend::AtOnce(statement) => Some((statement.clone(), None)),
        Mend::WithCare(statement, caution) => Some((statement.clone(), Some(caution))),
        Mend::Unique(columns, with_null) => {
            let table = table?;
            let nulls = match with_null {
                true if exam.server.version < 15 => return None,
                true => " NULLS NOT DISTINCT",
                false => "",
            };
            let statement = create_index(&table.name, table.is_partitioned(), true, columns);
            Some((statement + nulls, index_caution(table)))
        }
    }
}
