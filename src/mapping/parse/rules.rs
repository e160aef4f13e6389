//! The rules between the parts of a mapping.

use super::faults::nearest;
use super::relations::Reader;
use super::tree::{At, Spot};
use crate::mapping::{
    Atomic, LookupIx, OnAbsent, Otherwise, Path, Relation, RelationIx, RelationKind, Source, SyncOptions,
    UniqueIn,
};

const SYNC: &[&str] = &["atomic", "mark_hash", "mark_time", "mark_absent"];

impl Reader<'_, '_> {
    /// `match` gives one path for each column of the lookup's key, and nothing else.
    pub(super) fn check_match(&mut self, at: &At<'_>, lookup: LookupIx, paths: &[(&str, Option<Path>)]) {
        let lookup = &self.lookups[lookup];
        if lookup.key.is_empty() {
            return; // Its own fault has been noted.
        }
        let given = |column: &&String| paths.iter().any(|(name, _)| name == column);
        for column in lookup.key.iter().filter(|column| !given(column)) {
            let message =
                format!("key column {column:?} of lookup {:?} is missing; add {column} = \"…\"", lookup.name);
            self.faults.add(&at.spot, message);
        }
        for (name, entry) in at.entries() {
            if !lookup.key.iter().any(|column| column == name) {
                let key = lookup.key.join(", ");
                let message = format!("not a key column of lookup {:?}; its key is {key}", lookup.name);
                self.faults.add(&entry.spot, message);
            }
        }
    }

    /// The further columns of a lookup are seen from every item that refers to it.
    pub(super) fn check_lookup_reach(&mut self, lookup: LookupIx, depth: usize) {
        let Some(at) = self.lookup_places[lookup].get("columns") else { return };
        for (name, path) in &self.lookups[lookup].columns {
            self.faults.check_reach(&at.spot_of(name), path, depth);
        }
    }

    /// A relation without a key has nothing that these keys could be about.
    pub(super) fn check_keyless(&mut self, at: &At<'_>, keyless: bool) {
        for key in ["unique_in", "on_duplicate"] {
            if let Some(at) = at.get(key).filter(|_| keyless) {
                self.faults.add(
                    &at.spot,
                    "rows without a key are told apart by content; add key, or leave this out",
                );
            }
        }
    }

    /// Key columns are among the columns, and none refers to the parent.
    pub(super) fn check_key(&mut self, at: &At<'_>, relation: &Relation) {
        // A link's key is its target; columns that could not be read have their own fault.
        let is_named = relation.kind != RelationKind::Link && !relation.columns.is_empty();
        let Some(key) = at.get("key").filter(|_| is_named) else { return };
        for name in &relation.key {
            if relation.parent.contains(name) {
                let mend = "a key is within its parent already; leave it out of the key";
                self.faults.add(&key.spot, format!("column {name:?} refers to the parent; {mend}"));
            } else {
                self.check_mapped(&key.spot, relation, name);
            }
        }
    }

    fn check_mapped(&mut self, spot: &Spot, relation: &Relation, name: &str) {
        if relation.columns.iter().any(|column| column.name == *name) {
            return;
        }
        let mend = match nearest(name, relation.columns.iter().map(|column| column.name.as_str())) {
            Some(known) => format!("did you mean {known:?}?"),
            None => "add it to columns".to_owned(),
        };
        self.faults.add(spot, format!("column {name:?} is not among its columns; {mend}"));
    }

    /// The alternate key is made of columns too, and can say something that the key does not.
    pub(super) fn check_alternate_key(&mut self, at: &At<'_>, relation: &Relation) {
        let Some(at) = at.get("alternate_key").filter(|_| !relation.columns.is_empty()) else { return };
        let alternate = &relation.alternate_key;
        alternate.iter().for_each(|name| self.check_mapped(&at.spot, relation, name));
        for column in
            relation.columns.iter().filter(|column| column.ignore && alternate.contains(&column.name))
        {
            let message =
                format!("column {:?} is ignored, but documents are found by it; compare it", column.name);
            self.faults.add(&at.spot, message);
        }
        if !alternate.is_empty() && relation.key.iter().all(|name| alternate.contains(name)) {
            let message =
                "it has all columns of key, so it changes whenever that does; name columns that stay";
            self.faults.add(&at.spot, message);
        }
    }

    /// Columns that rowdelta fills with the parent's id are not filled from the document too.
    pub(super) fn check_parent_columns(&mut self, at: &At<'_>, relation: &Relation) {
        for column in relation.columns.iter().filter(|column| relation.parent.contains(&column.name)) {
            let is_target = relation.kind == RelationKind::Link && relation.key.contains(&column.name);
            let columns = at.get("columns").filter(|_| !is_target);
            let spot = columns.map_or_else(|| at.spot_of("target"), |at| at.spot_of(&column.name));
            let message =
                format!("column {:?} refers to the parent and is filled from it; leave it out", column.name);
            self.faults.add(&spot, message);
        }
    }

    /// A place is one in a list, and identifies nothing.
    pub(super) fn check_positions(&mut self, at: &At<'_>, relation: &Relation) {
        for column in relation.position_columns().into_iter().map(|column| &relation.columns[column]) {
            let message = match () {
                () if relation.kind == RelationKind::Root => {
                    "a document has no place in a list; leave it out"
                }
                () if relation.key.contains(&column.name) => {
                    "rows would be told apart by their place; take the column out of the key, or map it to @index"
                }
                () if relation.is_map() => {
                    "the relation reads an object as a map (@key), which has no order; leave it out"
                }
                () => continue,
            };
            let columns = at.get("columns");
            let spot = columns.map_or_else(|| at.spot_of("columns"), |at| at.spot_of(&column.name));
            self.faults.add(&spot, message);
        }
    }

    pub(super) fn check_id(&mut self, at: &At<'_>, relation: &Relation) {
        if relation.id.as_ref().is_some_and(|id| relation.parent.contains(id)) {
            let message = "this column refers to the parent; name a column of the row's own, or leave id out";
            self.faults.add(&at.spot_of("id"), message);
        }
    }

    /// Rows inside need something in the whole table to refer to.
    pub(super) fn check_encloses(&mut self, at: &At<'_>, relation: RelationIx) {
        let relation = &self.relations[relation];
        if relation.id.is_some() {
            return;
        }
        if relation.has_nullable_key() {
            let message = "has relations inside it, and a key that may be NULL, which nothing can refer to";
            self.faults.add(&at.spot, format!("{message}; add id, or leave nullable out"));
        }
        if !relation.alternate_key.is_empty() {
            let message =
                "has relations inside it, and a key that may change (alternate_key), to which they refer";
            self.faults.add(&at.spot, format!("{message}; add id"));
        }
        if relation.kind == RelationKind::Root {
            return;
        }
        if at.get("key").is_none() {
            let message = "has relations inside it, which need something to refer to";
            self.faults.add(&at.spot, format!("{message}; add id, or key with unique_in = \"all\""));
        } else if relation.unique_in == UniqueIn::Parent {
            let message = "has relations inside it, and its key is unique only within the parent";
            self.faults.add(&at.spot, format!("{message}; add id, or unique_in = \"all\""));
        }
    }

    /// Rows with a key are matched by it.
    pub(super) fn check_pair(&mut self, at: &At<'_>, keyed: bool) {
        if keyed {
            let message = "rows with a key are the same row if their key is; leave pair out, or key";
            self.faults.add(&at.spot_of("pair"), message);
        }
    }

    /// Names are unique: reports are read by them.
    pub(super) fn check_names(&mut self) {
        for (ix, relation) in
            self.relations.iter().enumerate().filter(|(_, relation)| !relation.name.is_empty())
        {
            let is_taken = |name: &str| self.relations.iter().any(|other| other.name == name);
            let is_it = |earlier: &Relation| earlier.name == relation.name;
            let Some(first) = self.relations[..ix].iter().position(is_it) else { continue };
            let outer = relation.enclosing.map_or("", |outer| self.relations[outer].name.as_str());
            let other = format!("{outer}_{}", relation.name);
            let mend = match is_taken(&other) {
                false => format!("name this one {other:?}, say, and add path if it has none"),
                true => "give this one another name, and add path if it has none".to_owned(),
            };
            let first = self.places[first].spot.named();
            let message = format!("{first} is named {:?} too; {mend}", relation.name);
            self.faults.add(&self.places[ix].spot_of("name"), message);
        }
    }

    /// Every table is fed by one relation, or is the table of lookups.
    pub(super) fn check_tables(&mut self) {
        let tables = || {
            self.relations.iter().zip(&self.places).filter(|(relation, _)| !relation.table.table.is_empty())
        };
        for (ix, (relation, at)) in tables().enumerate() {
            if let Some((_, first)) = tables().take(ix).find(|(earlier, _)| earlier.table == relation.table) {
                let message = format!("{} is fed by {} already", relation.table, first.spot.named());
                self.faults
                    .add(&at.spot_of("table"), format!("{message}; every relation has a table of its own"));
            }
        }
        for (lookup, at) in self.lookups.iter().zip(&self.lookup_places) {
            if let Some((_, first)) = tables().find(|(relation, _)| relation.table == lookup.table) {
                let message = format!("{} is fed by {}", lookup.table, first.spot.named());
                self.faults
                    .add(&at.spot_of("table"), format!("{message}; a catalogue has a table of its own"));
            }
        }
    }

    /// What becomes of items that no relation takes is said of a list, by one or all of the relations that read it.
    pub(super) fn settle_otherwise(&mut self) {
        let sharing: Vec<Vec<RelationIx>> = (0..self.relations.len()).map(|ix| self.sharing(ix)).collect();
        for (ix, others) in sharing.iter().enumerate() {
            if let Some(message) = self.otherwise_fault(ix, others) {
                let spot = self.places[ix].spot_of("otherwise");
                self.faults.add(&spot, message);
            }
        }
        for others in sharing {
            let ignores = |&ix: &RelationIx| self.relations[ix].otherwise == Otherwise::Ignore;
            if others.iter().any(ignores) {
                others.into_iter().for_each(|ix| self.relations[ix].otherwise = Otherwise::Ignore);
            }
        }
    }

    /// The relations that read the same list, itself among them.
    fn sharing(&self, ix: RelationIx) -> Vec<RelationIx> {
        let Relation { enclosing, path, .. } = &self.relations[ix];
        let is_same = |&other: &RelationIx| {
            let other = &self.relations[other];
            other.enclosing == *enclosing && other.path == *path
        };
        (0..self.relations.len()).filter(is_same).collect()
    }

    fn otherwise_fault(&self, ix: RelationIx, sharing: &[RelationIx]) -> Option<String> {
        let says = |ix: RelationIx| self.places[ix].get("otherwise").is_some();
        let takes_all = |ix: RelationIx| self.places[ix].get("where").is_none();
        let contradicts = |other: &&RelationIx| {
            **other < ix && says(**other) && self.relations[**other].otherwise != self.relations[ix].otherwise
        };
        let place = |other: &RelationIx| self.places[*other].spot.named();
        if !says(ix) {
            return None;
        }
        if takes_all(ix) {
            return Some(
                "without where every item is this relation's; add where, or leave this out".to_owned(),
            );
        }
        if let Some(other) = sharing.iter().find(|other| takes_all(**other)) {
            let mend = "leave this out, or add where there";
            return Some(format!("{} takes every item of this list; {mend}", place(other)));
        }
        let other = sharing.iter().find(contradicts)?;
        Some(format!("{} says the opposite of the same list; say it once", place(other)))
    }

    /// A key that is the same in every row identifies at most one, which is enough only within a parent.
    pub(super) fn check_constant_key(&mut self, at: &At<'_>, relation: &Relation) {
        let is_constant = |at: usize| matches!(relation.columns[at].source, Source::Constant { .. });
        let all = |columns: Vec<usize>| !columns.is_empty() && columns.into_iter().all(is_constant);
        let wide = relation.kind == RelationKind::Root || relation.unique_in == UniqueIn::All;
        for (key, columns) in
            [("key", relation.key_columns()), ("alternate_key", relation.alternate_key_columns())]
        {
            if wide && all(columns) {
                let message = "the same in every row of the table, so there could be one row only; add a column that differs";
                self.faults.add(&at.spot_of(key), message);
            }
        }
    }

    pub(super) fn sync(&mut self, top: &At<'_>) -> SyncOptions {
        let Some(at) = top.get("sync").filter(|at| self.faults.table(at, SYNC)) else {
            return SyncOptions { on_absent: self.on_absent(top, None), ..SyncOptions::default() };
        };
        let atomic = [("document", Atomic::Document), ("relation", Atomic::Relation)];
        SyncOptions {
            atomic: self.faults.choice(&at, "atomic", &atomic, Atomic::Document),
            mark_hash: self.mark(&at, "mark_hash", &[]),
            mark_time: self.mark(&at, "mark_time", &["mark_hash"]),
            on_absent: self.on_absent(top, Some(&at)),
        }
    }

    /// The root says what becomes of a document that is missing; a column to mark it is one of the marks.
    fn on_absent(&mut self, top: &At<'_>, sync: Option<&At<'_>>) -> OnAbsent {
        let column = sync.and_then(|at| self.mark(at, "mark_absent", &["mark_hash", "mark_time"]));
        let Some(root) = top.get("root") else { return OnAbsent::Delete };
        let words = [
            ("delete", OnAbsent::Delete),
            ("mark", OnAbsent::Mark(column.clone().unwrap_or_default())),
            ("keep", OnAbsent::Keep),
        ];
        let on_absent = self.faults.choice(&root, "on_absent", &words, OnAbsent::Delete);
        match (&on_absent, column, sync) {
            (OnAbsent::Mark(_), None, _) => {
                self.faults
                    .add(&root.spot_of("on_absent"), "name the column to mark: [sync] mark_absent = \"…\"");
            }
            (OnAbsent::Delete | OnAbsent::Keep, Some(_), Some(sync)) => {
                self.faults.add(
                    &sync.spot_of("mark_absent"),
                    "filled only by root.on_absent = \"mark\"; write that, or leave it out",
                );
            }
            _ => {}
        }
        on_absent
    }

    /// A root column that only the marks fill.
    fn mark(&mut self, at: &At<'_>, key: &str, others: &[&str]) -> Option<String> {
        let name = self.faults.optional(at, key)?;
        let root = self.relations.first();
        let spot = at.spot_of(key);
        if root.is_some_and(|root| root.columns.iter().any(|column| column.name == name)) {
            self.faults.add(
                &spot,
                format!("column {name:?} is filled from the document; name another, or unmap it"),
            );
        }
        if root.is_some_and(|root| root.id.as_ref() == Some(&name)) {
            self.faults.add(&spot, format!("column {name:?} is the id; name another"));
        }
        let is_same = |other: &&str| matches!(at.get(other), Some(At { node, .. }) if node.is_text(&name));
        if let Some(other) = others.iter().find(|other| is_same(other)) {
            self.faults.add(&spot, format!("column {name:?} is {other} already; name another"));
        }
        Some(name)
    }
}
