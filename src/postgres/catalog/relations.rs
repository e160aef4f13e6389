//! What cannot be synced because of the kind of relation that it is.

use super::check::Mend;
use super::read::CatalogTable;
use crate::mapping::TableName;
use crate::postgres::quote;

/// PostgreSQL's limit, in bytes.
const NAME_MAX: usize = 63;

/// Why a table is not found.
pub(super) fn unknown(name: &TableName) -> String {
    let parts = name.schema.iter().chain([&name.table]);
    if parts.into_iter().any(|part| part.len() > NAME_MAX) {
        return format!(
            "table {name} does not exist: PostgreSQL cuts names after {NAME_MAX} bytes; write it as it is there"
        );
    }
    format!("table {name} does not exist, or is not on the search path; create it, or name its schema")
}

/// What the partition key has beside columns of a key: PostgreSQL makes no unique index of the table without it. An
/// expression is `None`.
pub(super) fn beyond(partitioned_by: &[Option<String>], key: &[String]) -> Option<String> {
    let beyond = partitioned_by.iter().filter(|part| part.as_ref().is_none_or(|name| !key.contains(name)));
    let words = |part: &Option<String>| part.as_deref().map_or("an expression".to_owned(), quote);
    let beyond: Vec<String> = beyond.map(words).collect();
    (!beyond.is_empty()).then(|| beyond.join(", "))
}

/// What can be done about it.
pub(super) const BEYOND_MEND: &str = "add its columns to the mapping's key if documents have them, or \
                                      use a table that is partitioned by columns of the key, or not at all";

/// Why a table cannot be synced, and the statements that mend that.
pub(super) fn unfit(name: &TableName, table: &CatalogTable) -> Vec<(String, Option<Mend>)> {
    let foreign = "whose rows have no version (xmin) by which somebody else's change would be noticed; \
                   run rowdelta on the database that has it";
    let kind = match table.kind.as_str() {
        "r" | "p" => None,
        "v" => Some("is a view; name the table behind it".to_owned()),
        "m" => Some("is a materialized view; name the table behind it".to_owned()),
        "f" => Some(format!("is a foreign table, {foreign}")),
        "S" => Some("is a sequence; name a table".to_owned()),
        "c" => Some("is a composite type; name a table".to_owned()),
        "i" | "I" => Some("is an index; name a table".to_owned()),
        _ => Some("is not a table; name one".to_owned()),
    };
    let (own, schema, role) = (&table.name, &table.schema, &table.role);
    let closed = || {
        let grant = format!("USAGE ON SCHEMA {schema}");
        (format!("the role may not use schema {schema}; GRANT {grant} TO {role}"), Some(Mend::Grant(grant)))
    };
    let temporary = || {
        format!("{name} is a temporary table, which other sessions do not see; CREATE UNLOGGED TABLE instead")
    };
    let rules = || {
        let drops = table.rules.iter().map(|rule| format!("DROP RULE {rule} ON {own}")).collect::<Vec<_>>();
        let rules = table.rules.join(", ");
        format!(
            "{name} has rules ({rules}), which would rewrite what is sent; replace them by triggers: {}",
            drops.join("; ")
        )
    };
    let parts =
        || format!("{name} has partitions that are foreign tables ({}), {foreign}", table.foreign.join(", "));
    let heirs = || {
        let ends = table.heirs.iter().map(|heir| format!("ALTER TABLE {heir} NO INHERIT {own}"));
        format!(
            "{name} has tables that inherit from it ({}): a key is not unique across them, and what is said of {name} \
             reaches their rows; {}",
            table.heirs.join(", "),
            ends.collect::<Vec<_>>().join("; ")
        )
    };
    let faults = [
        table.is_temporary.then(temporary),
        (!table.rules.is_empty()).then(rules),
        (!table.foreign.is_empty()).then(parts),
        (!table.heirs.is_empty()).then(heirs),
    ];
    let is_no_table = kind.map(|kind| (format!("{name} {kind}"), None));
    let faults = faults.into_iter().flatten().map(|fault| (fault, None));
    is_no_table.into_iter().chain((!table.is_open).then(closed)).chain(faults).collect()
}
