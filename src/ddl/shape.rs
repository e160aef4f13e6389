//! Which columns and constraints each table has.

use super::types::{TypeOf, Types};
use crate::mapping::{LookupIx, Mapping, Missing, RelationIx, RelationKind, Source, TableName, UniqueIn};

/// A table to create.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub name: TableName,
    pub section: &'static str,
    /// What its reader should know.
    pub note: Option<String>,
    pub columns: Vec<Column>,
    /// Empty: it has none.
    pub primary_key: Vec<String>,
    /// Further keys.
    pub unique: Vec<UniqueKey>,
    pub references: Vec<Reference>,
}

#[derive(Clone, Debug)]
pub(super) struct UniqueKey {
    pub columns: Vec<String>,
    /// Whether NULL is a value like any other in them.
    pub nulls_equal: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub name: String,
    pub ty: TypeOf,
    pub identity: bool,
    pub not_null: bool,
}

/// A foreign key.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub columns: Vec<String>,
    pub table: TableName,
    pub referred: Vec<String>,
    /// Whether rows go with the row that they refer to.
    pub cascade: bool,
}

impl Table {
    /// The references that no key serves as an index: without one every DELETE of what they refer to would read the
    /// whole table.
    pub fn without_index(&self) -> impl Iterator<Item = &Reference> {
        let serves = |key: &Vec<String>, reference: &Reference| {
            let start = &key[..reference.columns.len().min(key.len())];
            !start.is_empty() && reference.columns.iter().all(|column| start.contains(column))
        };
        let keys = || self.unique.iter().map(|unique| &unique.columns).chain([&self.primary_key]);
        self.references.iter().filter(move |reference| !keys().any(|key| serves(key, reference)))
    }
}

impl Column {
    fn identity(name: &str) -> Self {
        Column { name: name.to_owned(), ty: "bigint".into(), identity: true, not_null: false }
    }

    fn plain(name: &str, ty: impl Into<TypeOf>, not_null: bool) -> Self {
        Column { name: name.to_owned(), ty: ty.into(), identity: false, not_null }
    }
}

pub(super) struct Shaper<'a> {
    pub mapping: &'a Mapping,
    pub types: Types<'a>,
    pub faults: Vec<String>,
}

impl Shaper<'_> {
    /// The tables that are not there yet, in the order in which they can be created.
    pub fn tables(&mut self) -> Vec<Table> {
        let mapping = self.mapping;
        let mut tables: Vec<Table> = Vec::new();
        for (ix, lookup) in mapping.lookups.iter().enumerate() {
            let first = mapping.lookups.iter().position(|other| other.table == lookup.table);
            match first.filter(|first| *first != ix) {
                Some(first) => self.check_shared(first, ix),
                None if !self.types.exists(&lookup.table) => tables.push(self.catalogue(ix)),
                None => {}
            }
        }
        for kind in [RelationKind::Root, RelationKind::Child, RelationKind::Link] {
            for (ix, relation) in mapping.relations.iter().enumerate() {
                if relation.kind == kind && !self.types.exists(&relation.table) {
                    tables.push(self.relation(ix));
                }
            }
        }
        tables
    }

    /// Two lookups in one table make one table only if they find rows in the same way.
    fn check_shared(&mut self, first: LookupIx, second: LookupIx) {
        let (first, second) = (&self.mapping.lookups[first], &self.mapping.lookups[second]);
        if (&first.id, &first.key) != (&second.id, &second.key) && !self.types.exists(&first.table) {
            let message =
                format!("its table {} is that of {:?} with another id or key", first.table, first.name);
            self.faults.push(format!(
                "lookups.{}: {message}; give both the same, or create it by hand",
                second.name
            ));
        }
    }

    fn catalogue(&mut self, ix: LookupIx) -> Table {
        let lookup = &self.mapping.lookups[ix];
        let mut names = lookup.key.clone();
        for other in self.mapping.lookups.iter().filter(|other| other.table == lookup.table) {
            for (name, _) in &other.columns {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        let mut columns = Vec::new();
        if !names.contains(&lookup.id) {
            columns.push(Column::identity(&lookup.id));
        }
        for name in &names {
            let ty = self.types.catalogue_column(ix, name);
            let is_key = lookup.key.contains(name);
            if is_key {
                self.check_key(&format!("lookups.{}.key", lookup.name), name, &ty);
            }
            columns.push(Column::plain(name, ty, is_key && !lookup.nullable.contains(name)));
        }
        let note = match lookup.missing {
            Missing::Insert => None,
            Missing::Error | Missing::Skip => Some("A sync adds no rows to it: fill it first.".to_owned()),
        };
        let primary_key = vec![lookup.id.clone()];
        let unique = further_key(&primary_key, lookup.key.clone(), !lookup.nullable.is_empty());
        let name = lookup.table.clone();
        let references = Vec::new();
        Table { name, section: "Catalogues", note, columns, primary_key, unique, references }
    }

    fn relation(&mut self, ix: RelationIx) -> Table {
        let relation = &self.mapping.relations[ix];
        let key = match relation.unique_in {
            _ if !relation.is_keyed() => Vec::new(),
            UniqueIn::All => relation.key.clone(),
            UniqueIn::Parent => [relation.parent.as_slice(), relation.key.as_slice()].concat(),
        };
        // What may be NULL is no primary key.
        let own_key = || if relation.has_nullable_key() { Vec::new() } else { key.clone() };
        let primary_key = self.surrogate(ix).map_or_else(own_key, |id| vec![id]);
        let mut unique = further_key(&primary_key, key, relation.has_nullable_key());
        unique.extend(further_key(&primary_key, relation.alternate_key.clone(), false));
        Table {
            name: relation.table.clone(),
            section: match relation.kind {
                RelationKind::Root => "Documents",
                RelationKind::Child => "Lists",
                RelationKind::Link => "Links",
            },
            note: None,
            columns: self.columns(ix),
            unique,
            primary_key,
            references: self.references(ix),
        }
    }

    /// The column that alone identifies a row: the id, also one that the mapping does not name where rows have no key,
    /// or one that may be NULL.
    fn surrogate(&self, ix: RelationIx) -> Option<String> {
        let relation = &self.mapping.relations[ix];
        let is_taken = || {
            relation.parent.iter().chain(relation.columns.iter().map(|c| &c.name)).any(|name| name == "id")
        };
        let needs_one = !relation.is_keyed() || relation.has_nullable_key();
        let own = || (needs_one && !is_taken()).then(|| "id".to_owned());
        relation.id.clone().or_else(own)
    }

    fn columns(&mut self, ix: RelationIx) -> Vec<Column> {
        let relation = &self.mapping.relations[ix];
        let mut columns = Vec::new();
        let is_mapped = |name: &String| relation.columns.iter().any(|column| column.name == *name);
        if let Some(id) = self.surrogate(ix).filter(|id| !is_mapped(id)) {
            columns.push(Column::identity(&id));
        }
        let referred = relation.enclosing.map(|outer| self.types.referable(outer)).unwrap_or_default();
        for (name, (_, ty)) in relation.parent.iter().zip(referred) {
            columns.push(Column::plain(name, ty.as_str(), true));
        }
        for (at, column) in relation.columns_as_written() {
            let ty = self.types.column(ix, at);
            let is_key = relation.key.contains(&column.name);
            if is_key {
                self.check_key(&format!("{}.key", relation.place()), &column.name, &ty);
            }
            columns.push(Column::plain(&column.name, ty, is_key && !column.nullable));
        }
        if relation.kind == RelationKind::Root {
            let sync = &self.mapping.sync;
            let ty = |name| if sync.mark_hash.as_deref() == Some(name) { "text" } else { "timestamptz" };
            columns.extend(sync.marks().map(|name| Column::plain(name, ty(name), false)));
        }
        columns
    }

    fn references(&mut self, ix: RelationIx) -> Vec<Reference> {
        let relation = &self.mapping.relations[ix];
        let mut references = Vec::new();
        if let Some(outer) = relation.enclosing {
            references.push(Reference {
                columns: relation.parent.clone(),
                table: self.mapping.relations[outer].table.clone(),
                referred: self.types.referable(outer).into_iter().map(|(name, _)| name).collect(),
                cascade: true,
            });
        }
        for (_, column) in relation.columns_as_written() {
            let Source::Lookup { lookup, .. } = column.source else { continue };
            let lookup = &self.mapping.lookups[lookup];
            references.push(Reference {
                columns: vec![column.name.clone()],
                table: lookup.table.clone(),
                referred: vec![lookup.id.clone()],
                // A catalogue row is shared: while anything refers to it, it stays.
                cascade: false,
            });
        }
        references
    }

    fn check_key(&mut self, place: &str, name: &str, ty: &TypeOf) {
        let message = match ty.sql.to_lowercase().as_str() {
            "json" | "jsonb" => "holds lists or objects, and cannot be part of a key",
            "citext" | "interval" | "timetz" => "is of a type in which different values are equal",
            _ => return,
        };
        self.faults.push(format!("{place}: column {name:?} {message}; choose another key"));
    }
}

/// The key, unless the primary key has its columns.
fn further_key(primary_key: &[String], key: Vec<String>, nulls_equal: bool) -> Vec<UniqueKey> {
    let is_same = key.len() == primary_key.len() && key.iter().all(|column| primary_key.contains(column));
    if is_same || key.is_empty() { Vec::new() } else { vec![UniqueKey { columns: key, nulls_equal }] }
}
