//! What the documents of a case say, as rows: the oracle. It knows nothing of rowdelta.
//!
//! A row has a number for life: rows of two states with one number are one row, by the identities that the mapping
//! declares. So the smallest edit is read off directly.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::shape::{Cell, Keys, Rel, Relation, Role, Shape, Type};

/// The number of a row.
pub type Row = u32;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub number: Row,
    /// The number of the enclosing row; 0 for a root row.
    pub parent: Row,
    pub cells: Vec<Cell>,
}

/// Per relation, its rows, those of a list in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub rows: Vec<Vec<Entry>>,
    next: Row,
}

/// A row as it is compared with what is stored: the keys of the enclosing rows, outermost first, and its cells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub relation: Rel,
    pub around: Vec<Vec<Option<String>>>,
    pub cells: Vec<Option<String>>,
}

impl std::fmt::Display for Line {
    /// `t2: A/3: x, NULL`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |cells: &Vec<Option<String>>| {
            let cells = cells.iter().map(|cell| cell.as_deref().unwrap_or("NULL"));
            cells.collect::<Vec<_>>().join(", ")
        };
        let around: Vec<String> = self.around.iter().map(list).collect();
        write!(f, "t{}: {}: {}", self.relation, around.join("/"), list(&self.cells))
    }
}

/// Rows written in one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
}

/// What happens to one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub relation: Rel,
    pub before: Option<Entry>,
    pub after: Option<Entry>,
}

impl State {
    pub fn new(shape: &Shape) -> State {
        State { rows: vec![Vec::new(); shape.relations.len()], next: 1 }
    }

    pub fn add(&mut self, rel: Rel, parent: Row, cells: Vec<Cell>) -> Row {
        let number = self.next;
        self.next += 1;
        self.rows[rel].push(Entry { number, parent, cells });
        number
    }

    pub fn find(&self, rel: Rel, number: Row) -> Option<&Entry> {
        self.rows[rel].iter().find(|row| row.number == number)
    }

    /// Takes a row out, with everything below it.
    pub fn remove(&mut self, shape: &Shape, rel: Rel, number: Row) {
        self.rows[rel].retain(|row| row.number != number);
        for inner in shape.inner(rel) {
            let below: Vec<Row> =
                self.rows[inner].iter().filter(|row| row.parent == number).map(|row| row.number).collect();
            below.into_iter().for_each(|row| self.remove(shape, inner, row));
        }
    }

    /// The root row of the document that a row belongs to.
    pub fn document(&self, shape: &Shape, rel: Rel, number: Row) -> Row {
        let Some(outer) = shape.relations[rel].outer else { return number };
        let parent = self.find(rel, number).map_or(0, |row| row.parent);
        self.document(shape, outer, parent)
    }

    /// Gives every row its place in its list.
    pub fn place(&mut self, shape: &Shape) {
        for (relation, rows) in shape.relations.iter().zip(&mut self.rows) {
            let places: Vec<usize> = relation.with_role(Role::Position).collect();
            let mut counts: HashMap<Row, u8> = HashMap::new();
            for row in rows.iter_mut().filter(|_| !places.is_empty()) {
                let count = counts.entry(row.parent).or_default();
                *count += 1;
                places.iter().for_each(|&at| row.cells[at] = Some(*count));
            }
        }
    }

    /// The same rows, those that `before` has too under their numbers there.
    pub fn numbered_as(&self, shape: &Shape, before: &State) -> State {
        let mut renumbered = self.clone();
        renumbered.next = self.next.max(before.next);
        let mut numbers: HashMap<Row, Row> = HashMap::from([(0, 0)]);
        for (rel, relation) in shape.relations.iter().enumerate() {
            let mut known: HashMap<(Row, Vec<Cell>), Vec<Row>> = HashMap::new();
            for row in before.rows[rel].iter().rev() {
                known.entry(relation.identity(row)).or_default().push(row.number);
            }
            for row in &mut renumbered.rows[rel] {
                row.parent = numbers[&row.parent];
                let same = known.get_mut(&relation.identity(row)).and_then(Vec::pop);
                let number = same.unwrap_or_else(|| {
                    renumbered.next += 1;
                    renumbered.next - 1
                });
                numbers.insert(row.number, number);
                row.number = number;
            }
        }
        renumbered
    }

    /// What happens to the rows from this state to another that is numbered like it.
    pub fn changes(&self, after: &State) -> Vec<Change> {
        let mut changes = Vec::new();
        for (relation, (old, new)) in self.rows.iter().zip(&after.rows).enumerate() {
            let new: BTreeMap<Row, &Entry> = new.iter().map(|row| (row.number, row)).collect();
            let mut left = new.clone();
            for row in old {
                let found = left.remove(&row.number);
                if found != Some(row) {
                    changes.push(Change { relation, before: Some(row.clone()), after: found.cloned() });
                }
            }
            let come = left.into_values();
            changes.extend(come.map(|row| Change { relation, before: None, after: Some(row.clone()) }));
        }
        changes
    }

    /// All rows, sorted.
    pub fn lines(&self, shape: &Shape) -> Vec<Line> {
        let mut lines: Vec<Line> = (0..self.rows.len()).flat_map(|rel| self.lines_of(shape, rel)).collect();
        lines.sort();
        lines
    }

    fn lines_of<'a>(&'a self, shape: &'a Shape, rel: Rel) -> impl Iterator<Item = Line> + 'a {
        let line = move |row: &Entry| Line {
            relation: rel,
            around: self.keys_around(shape, rel, row),
            cells: shape.relations[rel].print(row),
        };
        self.rows[rel].iter().map(line)
    }

    fn keys_around(&self, shape: &Shape, rel: Rel, row: &Entry) -> Vec<Vec<Option<String>>> {
        let Some(outer) = shape.relations[rel].outer else { return Vec::new() };
        let parent = self.find(outer, row.parent).expect("a row is inside another");
        let mut around = self.keys_around(shape, outer, parent);
        let relation = &shape.relations[outer];
        let cells = relation.print(parent);
        around.push(relation.key().map(|at| cells[at].clone()).collect());
        around
    }

    /// The document of a root row.
    pub fn document_json(&self, shape: &Shape, root: &Entry) -> Value {
        self.item(shape, 0, root)
    }

    fn item(&self, shape: &Shape, rel: Rel, row: &Entry) -> Value {
        let relation = &shape.relations[rel];
        let mut item = Map::new();
        for (column, cell) in relation.columns.iter().zip(&row.cells) {
            let value = match (column.ty, cell) {
                _ if column.role == Role::Position => continue,
                (_, None) => Value::Null,
                (Type::Int, Some(value)) => Value::from(*value),
                (ty, Some(value)) => Value::from(ty.print(*value)),
            };
            item.insert(column.name.clone(), value);
        }
        for inner in shape.inner(rel) {
            let rows = self.rows[inner].iter().filter(|inside| inside.parent == row.number);
            let list = rows.map(|inside| self.item(shape, inner, inside)).collect();
            item.insert(shape.relations[inner].table.clone(), Value::Array(list));
        }
        Value::Object(item)
    }

    /// Statements that put all rows into empty tables, each with its number as its id.
    pub fn inserts(&self, shape: &Shape) -> String {
        let tables = shape.relations.iter().zip(&self.rows).filter(|(_, rows)| !rows.is_empty());
        let insert = |(relation, rows): (&Relation, &Vec<Entry>)| {
            let tuples: Vec<String> = rows.iter().map(|row| relation.tuple(row)).collect();
            format!("INSERT INTO {} VALUES {};\n", relation.table, tuples.join(", "))
        };
        tables.map(insert).collect()
    }
}

impl Relation {
    /// What makes a row the same one, beside its relation.
    fn identity(&self, row: &Entry) -> (Row, Vec<Cell>) {
        let key = || self.key().map(|at| row.cells[at]).collect();
        match self.keys {
            Keys::All => (0, key()),
            Keys::InParent => (row.parent, key()),
            Keys::Content => (row.parent, row.cells.clone()),
        }
    }

    /// The cells as PostgreSQL prints them.
    fn print(&self, row: &Entry) -> Vec<Option<String>> {
        let columns = self.columns.iter().zip(&row.cells);
        columns.map(|(column, cell)| cell.map(|value| column.ty.print(value))).collect()
    }

    /// A row with its id, for a table made for a purpose other than the real one.
    pub fn tuple(&self, row: &Entry) -> String {
        let mut literals = vec![row.number.to_string()];
        literals.extend(self.outer.map(|_| row.parent.to_string()));
        literals.extend(self.literals(row));
        format!("({})", literals.join(", "))
    }

    fn literals<'a>(&'a self, row: &'a Entry) -> impl Iterator<Item = String> + 'a {
        self.columns.iter().zip(&row.cells).map(|(column, cell)| column.ty.literal(*cell))
    }
}

impl Change {
    /// As one statement, for tables made with ids.
    pub fn statement(&self, shape: &Shape) -> String {
        let relation = &shape.relations[self.relation];
        let table = &relation.table;
        match (&self.before, &self.after) {
            (Some(before), None) => format!("DELETE FROM {table} WHERE id = {}", before.number),
            (_, None) => String::new(),
            (None, Some(after)) => format!("INSERT INTO {table} VALUES {}", relation.tuple(after)),
            (Some(before), Some(after)) => {
                let columns = relation.columns.iter().zip(before.cells.iter().zip(&after.cells));
                let changed = columns.filter(|(_, (old, new))| old != new);
                let mut sets: Vec<String> = changed
                    .map(|(column, (_, new))| format!("{} = {}", column.name, column.ty.literal(*new)))
                    .collect();
                if before.parent != after.parent {
                    sets.push(format!("parent = {}", after.parent));
                }
                format!("UPDATE {table} SET {} WHERE id = {}", sets.join(", "), before.number)
            }
        }
    }
}

/// What the changes come to, per relation.
pub fn edits(shape: &Shape, changes: &[Change]) -> Vec<Edit> {
    let mut edits = vec![Edit::default(); shape.relations.len()];
    for change in changes {
        let edit = &mut edits[change.relation];
        match (&change.before, &change.after) {
            (None, _) => edit.inserted += 1,
            (Some(_), None) => edit.deleted += 1,
            (Some(_), Some(_)) => edit.updated += 1,
        }
    }
    edits
}
