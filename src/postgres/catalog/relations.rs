//! What cannot be synced because of the kind of relation that it is.

use super::read::CatalogTable;
use crate::mapping::TableName;

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

/// Why a table cannot be synced.
pub(super) fn unfit(name: &TableName, table: &CatalogTable) -> Vec<String> {
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
    let closed = || format!("the role may not use schema {schema}; GRANT USAGE ON SCHEMA {schema} TO {role}");
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
        kind.map(|kind| format!("{name} {kind}")),
        (!table.is_open).then(closed),
        table.is_temporary.then(temporary),
        (!table.rules.is_empty()).then(rules),
        (!table.foreign.is_empty()).then(parts),
        (!table.heirs.is_empty()).then(heirs),
    ];
    faults.into_iter().flatten().collect()
}
