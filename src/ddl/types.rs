//! Which type a column gets.

use super::ExistingTable;
use crate::mapping::{LookupIx, Mapping, RelationIx, Segment, Source, TableName};
use crate::sample::{Sample, constant_type, place_of};

/// A type in SQL, and whether it is a guess without any value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TypeOf {
    pub sql: String,
    pub blind: bool,
}

impl From<&str> for TypeOf {
    fn from(sql: &str) -> Self {
        TypeOf { sql: sql.to_owned(), blind: false }
    }
}

pub(super) struct Types<'a> {
    mapping: &'a Mapping,
    sample: Option<&'a Sample<'a>>,
    existing: &'a [ExistingTable],
    /// Columns without a type where there is no sample, as faults.
    pub missing: Vec<String>,
}

impl<'a> Types<'a> {
    pub fn new(mapping: &'a Mapping, sample: Option<&'a Sample<'a>>, existing: &'a [ExistingTable]) -> Self {
        Types { mapping, sample, existing, missing: Vec::new() }
    }

    pub fn exists(&self, table: &TableName) -> bool {
        self.existing.iter().any(|existing| existing.name == *table)
    }

    /// The type of the column at a position of a relation's columns.
    pub fn column(&mut self, relation: RelationIx, at: usize) -> TypeOf {
        let column = &self.mapping.relations[relation].columns[at];
        let first = match &column.source {
            Source::Lookup { lookup, .. } => return self.id(*lookup).as_str().into(),
            Source::Path { paths, .. } => place_of(&paths[..1]),
            Source::Position { .. } => Some(&Segment::Index),
            Source::Constant { value } => {
                let inferred = column.ty.as_deref().or_else(|| constant_type(value));
                return inferred.unwrap_or("text").into();
            }
        };
        match (&column.ty, first) {
            (Some(ty), _) => ty.as_str().into(),
            (None, Some(Segment::Index)) => "bigint".into(),
            (None, Some(_)) => "text".into(),
            (None, None) => {
                let place = self.mapping.relations[relation].place();
                let place = format!("{place}.columns.{}", column.name);
                self.inferred(place, |sample| sample.column(relation, at))
            }
        }
    }

    /// The type of a column of a catalogue that documents fill.
    pub fn catalogue_column(&mut self, lookup: LookupIx, name: &str) -> TypeOf {
        let lookup = &self.mapping.lookups[lookup];
        let given = self.mapping.lookups.iter().filter(|other| other.table == lookup.table);
        let given = given.flat_map(|lookup| &lookup.types).find(|(column, _)| column == name);
        match given {
            Some((_, ty)) => ty.as_str().into(),
            None => self.inferred(format!("lookups.{}.columns.{name}", lookup.name), |sample| {
                sample.catalogue_column(&lookup.table, name)
            }),
        }
    }

    fn inferred(&mut self, place: String, guess: impl Fn(&Sample<'_>) -> Option<&'static str>) -> TypeOf {
        if self.sample.is_none() {
            let fault = format!("{place}: no type; give type = \"…\", or a feed to infer it from");
            if !self.missing.contains(&fault) {
                self.missing.push(fault);
            }
        }
        match self.sample.and_then(guess) {
            Some(name) => name.into(),
            None => TypeOf { sql: "text".to_owned(), blind: true },
        }
    }

    /// The type of a catalogue's id, which referring columns have too.
    pub fn id(&mut self, ix: LookupIx) -> String {
        let lookup = &self.mapping.lookups[ix];
        if let Some(ty) = self.existing_column(&lookup.table, &lookup.id) {
            return ty;
        }
        match lookup.key.contains(&lookup.id) || lookup.columns.iter().any(|(name, _)| *name == lookup.id) {
            true => self.catalogue_column(ix, &lookup.id).sql,
            false => "bigint".to_owned(),
        }
    }

    /// What rows of enclosed relations refer to: the id, else the key; each column with its type.
    pub fn referable(&mut self, ix: RelationIx) -> Vec<(String, String)> {
        let relation = &self.mapping.relations[ix];
        let names = relation.id.as_ref().map_or(relation.key.as_slice(), std::slice::from_ref);
        names.iter().map(|name| (name.clone(), self.referable_type(ix, name))).collect()
    }

    fn referable_type(&mut self, ix: RelationIx, name: &str) -> String {
        let relation = &self.mapping.relations[ix];
        if let Some(ty) = self.existing_column(&relation.table, name) {
            return ty;
        }
        match relation.columns.iter().position(|column| column.name == name) {
            Some(at) => self.column(ix, at).sql,
            None => "bigint".to_owned(),
        }
    }

    fn existing_column(&self, table: &TableName, name: &str) -> Option<String> {
        let table = self.existing.iter().find(|existing| existing.name == *table)?;
        table.columns.iter().find(|(column, _)| column == name).map(|(_, ty)| ty.clone())
    }
}
