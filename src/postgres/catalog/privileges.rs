//! What the role must be allowed to do, and is not. `docs/privileges.md` says it in words.

use std::collections::BTreeSet;

use super::check::{Checker, Mend};
use super::read::{Access, CatalogColumn, CatalogTable};
use crate::mapping::{Lookup, Mapping, Missing, OnAbsent, Relation, RelationKind};
use crate::postgres::quote;

/// The columns of a table that are read, filled and changed; and whether rows are deleted.
#[derive(Default)]
pub(super) struct Needed<'n> {
    select: BTreeSet<&'n str>,
    insert: BTreeSet<&'n str>,
    update: BTreeSet<&'n str>,
    delete: bool,
}

impl<'n> Needed<'n> {
    pub fn of_lookup(lookup: &'n Lookup) -> Self {
        let key = lookup.key.iter().map(String::as_str);
        let filled = key.clone().chain(lookup.columns.iter().map(|(name, _)| name.as_str()));
        let inserts = lookup.missing == Missing::Insert;
        Needed {
            select: key.chain([lookup.id.as_str()]).collect(),
            insert: filled.filter(|_| inserts).collect(),
            ..Needed::default()
        }
    }

    pub fn of_relation(mapping: &'n Mapping, relation: &'n Relation, table: &'n CatalogTable) -> Self {
        let mapped = relation.columns.iter().map(|column| &column.name).chain(&relation.parent);
        let mut needed = Needed { delete: true, ..Needed::default() };
        for name in mapped {
            needed.select.insert(name);
            needed.insert.insert(name);
            needed.update.insert(name);
        }
        needed.select.extend(relation.id.as_deref());
        needed.insert.extend(relation.id.as_deref());
        needed.finds(table);
        if relation.kind == RelationKind::Root {
            needed.of_root(mapping);
        }
        needed
    }

    /// What finds a version of a row again; and columns that nobody maps, where a constraint looks at them of which only
    /// the server can tell who violates it.
    fn finds(&mut self, table: &'n CatalogTable) {
        self.select.insert("xmin");
        self.select.extend(table.primary_key().iter().map(String::as_str));
        if table.primary_key().is_empty() {
            self.select.extend(["ctid", "tableoid"]);
        }
        let judged = table.uniques.iter().filter(|unique| !unique.plain);
        self.select.extend(judged.flat_map(|unique| unique.columns.iter().map(String::as_str)));
    }

    fn of_root(&mut self, mapping: &'n Mapping) {
        let sync = &mapping.sync;
        let marks = [&sync.mark_hash, &sync.mark_time].into_iter().flatten();
        for name in marks {
            self.insert.insert(name);
            self.update.insert(name);
        }
        self.delete = sync.on_absent == OnAbsent::Delete;
        if let OnAbsent::Mark(name) = &sync.on_absent {
            self.update.insert(name);
            self.select.extend(["ctid", "tableoid", name]);
        }
    }
}

impl Checker<'_> {
    pub(super) fn privileges(&mut self, place: &str, table: &CatalogTable, needed: &Needed<'_>) {
        let columns = [("SELECT", &needed.select), ("INSERT", &needed.insert), ("UPDATE", &needed.update)];
        let is_needed = |privilege: &str| match privilege {
            "DELETE" => needed.delete,
            _ => columns.iter().any(|(name, columns)| *name == privilege && !columns.is_empty()),
        };
        let whole =
            table.missing_privileges.iter().map(String::as_str).filter(|privilege| is_needed(privilege));
        let whole: Vec<&str> = whole.collect();
        let may_not = |what: &str, grant: &str| {
            format!("the role may not {what}; GRANT {grant} ON {} TO {}", table.name, table.role)
        };
        if !whole.is_empty() {
            let list = whole.join(", ");
            self.mendable(place, may_not(&list, &list), Mend::Grant(format!("{list} ON {}", table.name)));
        }
        for (privilege, columns) in columns.iter().filter(|(privilege, _)| !whole.contains(privilege)) {
            let lacking = columns.iter().filter(|name| !has(table, name, privilege)).map(|name| quote(name));
            let lacking = lacking.collect::<Vec<_>>().join(", ");
            if !lacking.is_empty() {
                let grant = format!("{privilege} ({lacking})");
                let message = may_not(&format!("{privilege} {lacking}"), &grant);
                self.mendable(place, message, Mend::Grant(format!("{grant} ON {}", table.name)));
            }
        }
    }

    /// A default that the role may not evaluate.
    pub(super) fn undrawable(
        &mut self,
        place: &str,
        table: &CatalogTable,
        column: &CatalogColumn,
        sequence: &str,
    ) {
        let (name, role) = (&column.name, &table.role);
        let message = format!("the role may not draw from {sequence}, as \"{name}\" does");
        let grant = format!("USAGE ON SEQUENCE {sequence}");
        self.mendable(place, format!("{message}; GRANT {grant} TO {role}"), Mend::Grant(grant));
    }
}

/// Whether the role has a privilege on a column. One that is not there is another fault.
fn has(table: &CatalogTable, name: &str, privilege: &str) -> bool {
    let Some(column) = table.column(name) else { return !table.hidden.iter().any(|hidden| hidden == name) };
    // What the database makes itself is another fault.
    if column.generated && privilege != "SELECT" {
        return true;
    }
    let Access { select, insert, update } = column.access;
    match privilege {
        "SELECT" => select,
        "INSERT" => insert,
        _ => update,
    }
}
