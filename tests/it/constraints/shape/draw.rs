//! Draws a shape. Weights see to it that what the test is about turns up often enough.

use fastrand::Rng;

use super::{
    Cell, Column, Filter, Form, Keys, OnDelete, Reference, Rel, Relation, Role, Shape, Type, Unique, When,
};
use crate::tally::Drawn;

/// Values of a key's column, and of another.
const KEYS: u8 = 10;
const VALUES: u8 = 6;

/// True in so many of a hundred draws.
pub fn chance(rng: &mut Rng, per_cent: u32) -> bool {
    rng.u32(0..100) < per_cent
}

impl Shape {
    /// Draws one for a server of this major version.
    pub fn draw(rng: &mut Rng, major: u32, drawn: &mut Drawn) -> Shape {
        let mut shape = Shape { relations: vec![root(rng, major)], references: Vec::new() };
        let lists = [1, 2, 2, 2, 3, 3][rng.usize(0..6)];
        let dying = lists > 1 && chance(rng, 45);
        for rel in 1..=lists {
            let outers: Vec<Rel> = (0..rel).filter(|&outer| shape.relations[outer].may_enclose()).collect();
            let outer = match rel {
                2 if dying => 1,
                _ => outers[rng.usize(0..outers.len())],
            };
            let keys = match rel {
                1 if dying => [Keys::InParent, Keys::All][rng.usize(0..2)],
                2 if dying => Keys::All,
                _ => [Keys::All, Keys::InParent, Keys::InParent, Keys::Content][rng.usize(0..4)],
            };
            shape.relations.push(list(rng, rel, outer, keys, major));
        }
        for relation in &mut shape.relations {
            constrain(rng, relation, major);
        }
        refer(rng, &mut shape);
        // Nothing refers to the surrogate of a list that encloses none.
        for rel in 1..shape.relations.len() {
            let is_leaf = shape.inner(rel).next().is_none();
            shape.relations[rel].id = !is_leaf || chance(rng, 80);
        }
        shape.note(drawn);
        shape
    }

    fn note(&self, drawn: &mut Drawn) {
        self.relations.iter().for_each(|relation| relation.note(drawn));
        if (0..self.relations.len()).any(|rel| self.around(rel).len() > 1) {
            drawn.note("schema: depth ≥ 2");
        }
        if self.cycle().is_some() {
            drawn.note("schema: cycle of tables");
        }
        for reference in &self.references {
            drawn.note(match (reference.from.0 == reference.to.0, reference.on_delete) {
                (true, _) => "schema: self-reference",
                (_, OnDelete::NoAction) => "schema: reference",
                (_, OnDelete::Restrict) => "schema: reference, on delete restrict",
                (_, OnDelete::Cascade) => "schema: reference, on delete cascade",
                (_, OnDelete::SetNull) => "schema: reference, on delete set null",
            });
            if reference.check != When::AtOnce {
                drawn.note("schema: reference, deferrable");
            }
        }
    }
}

impl Relation {
    fn may_enclose(&self) -> bool {
        self.keys != Keys::Content
    }

    fn note(&self, drawn: &mut Drawn) {
        if self.keys == Keys::Content {
            drawn.note("keyless");
        }
        for unique in &self.uniques {
            drawn.note(match (unique.form, unique.filter) {
                (Form::Overlap, _) => "schema: exclusion",
                (_, Some(_)) => "schema: partial index",
                (Form::Columns, _) if unique.columns.len() + usize::from(unique.in_parent) > 1 => {
                    "schema: unique, composite"
                }
                (Form::Columns, _) => "schema: unique",
                _ => "schema: expression index",
            });
            if !unique.nulls_distinct {
                drawn.note("schema: nulls not distinct");
            }
            match unique.check {
                When::AtOnce => {}
                When::Deferrable => drawn.note("schema: unique, deferrable"),
                When::Deferred => drawn.note("schema: unique, deferred"),
            }
            if unique.columns.iter().any(|&at| self.columns[at].role == Role::Position) {
                drawn.note("schema: unique position");
            }
        }
    }

    /// Adds a column.
    fn add(&mut self, name: &str, ty: Type, nullable: bool, role: Role, domain: u8) -> usize {
        self.columns.push(Column { name: name.to_owned(), ty, nullable, role, domain });
        self.columns.len() - 1
    }

    /// Adds a unique constraint on columns.
    fn unique(&mut self, in_parent: bool, columns: Vec<usize>) -> &mut Unique {
        self.uniques.push(Unique {
            name: format!("{}_u{}", self.table, self.uniques.len()),
            in_parent,
            columns,
            form: Form::Columns,
            nulls_distinct: true,
            filter: None,
            check: When::AtOnce,
        });
        self.uniques.last_mut().expect("one was added")
    }
}

fn relation(rel: Rel, outer: Option<Rel>, keys: Keys, cascades: bool) -> Relation {
    let table = format!("t{rel}");
    Relation { table, outer, keys, columns: Vec::new(), id: true, cascades, uniques: Vec::new() }
}

fn root(rng: &mut Rng, major: u32) -> Relation {
    let mut root = relation(0, None, Keys::All, false);
    let nullable = major >= 15 && chance(rng, 8);
    let key = root.add("k", Type::Text, nullable, Role::Key, KEYS);
    root.unique(false, vec![key]).nulls_distinct = !nullable;
    plain_columns(rng, &mut root);
    root
}

fn list(rng: &mut Rng, rel: Rel, outer: Rel, keys: Keys, major: u32) -> Relation {
    let mut list = relation(rel, Some(outer), keys, chance(rng, 50));
    if keys != Keys::Content {
        let key = key(rng, &mut list, major);
        let nullable = key.iter().any(|&at| list.columns[at].nullable);
        match keys {
            Keys::All => list.unique(false, key).nulls_distinct = !nullable,
            _ if chance(rng, 60) => {
                let nulls_distinct = major < 15 || !nullable || chance(rng, 50);
                list.unique(true, key).nulls_distinct = nulls_distinct;
            }
            _ => {}
        }
    }
    plain_columns(rng, &mut list);
    if keys != Keys::Content && chance(rng, 25) {
        let place = list.add("place", Type::Int, false, Role::Position, 0);
        if chance(rng, 80) {
            list.unique(true, vec![place]).check = when(rng, 25);
        }
    }
    list
}

fn key(rng: &mut Rng, list: &mut Relation, major: u32) -> Vec<usize> {
    let ty = [Type::Text, Type::Int, Type::Varchar][rng.usize(0..3)];
    let composite = chance(rng, 20);
    let nullable = chance(rng, 30) && (list.keys == Keys::InParent || major >= 15);
    let mut key = vec![list.add("k", ty, nullable && !composite, Role::Key, KEYS)];
    if composite {
        key.push(list.add("k2", any_type(rng), nullable, Role::Key, 3));
    }
    key
}

fn any_type(rng: &mut Rng) -> Type {
    [Type::Int, Type::Int, Type::Text, Type::Varchar, Type::Date][rng.usize(0..5)]
}

fn plain_columns(rng: &mut Rng, relation: &mut Relation) {
    for name in &["a", "b", "c"][..rng.usize(1..4)] {
        let (ty, nullable) = (any_type(rng), chance(rng, 50));
        relation.add(name, ty, nullable, Role::Plain, VALUES);
    }
}

fn when(rng: &mut Rng, per_cent: u32) -> When {
    match chance(rng, per_cent) {
        true => [When::Deferrable, When::Deferred][rng.usize(0..2)],
        false => When::AtOnce,
    }
}

/// Adds constraints over the plain columns.
fn constrain(rng: &mut Rng, relation: &mut Relation, major: u32) {
    for _ in 0..rng.usize(0..3) {
        let plain: Vec<usize> = relation.with_role(Role::Plain).collect();
        let column = plain[rng.usize(0..plain.len())];
        let in_parent = relation.outer.is_some() && chance(rng, 40);
        match rng.u32(0..100) {
            0..45 => {
                let mut columns = vec![column];
                let other = plain[rng.usize(0..plain.len())];
                if other != column && chance(rng, 50) {
                    columns.push(other);
                }
                let (nulls_distinct, check) = (major < 15 || chance(rng, 75), when(rng, 25));
                let unique = relation.unique(in_parent, columns);
                (unique.nulls_distinct, unique.check) = (nulls_distinct, check);
            }
            45..60 => partial(rng, relation, in_parent, column, &plain),
            60..80 => expression(rng, relation, in_parent, column, major),
            _ => exclusion(rng, relation, in_parent),
        }
    }
}

fn partial(rng: &mut Rng, relation: &mut Relation, in_parent: bool, column: usize, plain: &[usize]) {
    let other = plain[rng.usize(0..plain.len())];
    let filter = match relation.columns[other].nullable && chance(rng, 50) {
        true => Filter::NotNull(other),
        false => Filter::Equals(other, rng.u8(0..VALUES)),
    };
    // "The main one of a list": a partial index over the parent alone.
    let columns = if in_parent && chance(rng, 40) { Vec::new() } else { vec![column] };
    relation.unique(in_parent, columns).filter = Some(filter);
}

fn expression(rng: &mut Rng, relation: &mut Relation, in_parent: bool, column: usize, major: u32) {
    let form = match relation.columns[column].ty {
        Type::Text | Type::Varchar => Form::Lower,
        Type::Int if chance(rng, 50) => Form::Modulo,
        Type::Int => Form::Coalesce,
        Type::Date => return,
    };
    let nulls_distinct = major < 15 || chance(rng, 75);
    let unique = relation.unique(in_parent, vec![column]);
    (unique.form, unique.nulls_distinct) = (form, nulls_distinct);
}

/// Two columns of their own, the bounds of a range.
fn exclusion(rng: &mut Rng, relation: &mut Relation, in_parent: bool) {
    if relation.uniques.iter().any(|unique| unique.form == Form::Overlap) {
        return;
    }
    let low = relation.add("low", Type::Int, false, Role::Plain, KEYS);
    let high = relation.add("high", Type::Int, false, Role::Plain, KEYS);
    let check = when(rng, 25);
    let unique = relation.unique(in_parent, vec![low, high]);
    (unique.form, unique.check) = (Form::Overlap, check);
}

/// Adds references.
fn refer(rng: &mut Rng, shape: &mut Shape) {
    let all = shape.relations.len();
    match rng.u32(0..100) {
        0..35 => {}
        35..50 => {
            let rel = rng.usize(0..all);
            reference(rng, shape, rel, rel);
        }
        50..78 => {
            for _ in 0..rng.usize(1..3) {
                let (from, to) = (rng.usize(0..all), rng.usize(0..all));
                reference(rng, shape, from, to);
            }
        }
        _ => {
            let from = rng.usize(1..all);
            let to = (from + rng.usize(1..all)) % all;
            reference(rng, shape, from, to);
            reference(rng, shape, to, from);
        }
    }
}

/// Adds one. Where rows of two tables need each other, there is a moment at which one can do without.
fn reference(rng: &mut Rng, shape: &mut Shape, from: Rel, to: Rel) {
    let siblings = shape.relations[from].outer == shape.relations[to].outer && from > 0;
    let in_parent = siblings && chance(rng, 50);
    let target = target(rng, &mut shape.relations[to], in_parent);
    let (ty, domain) = (shape.relations[to].columns[target].ty, shape.relations[to].columns[target].domain);
    let check = when(rng, 25);
    let may_be_strict = check != When::AtOnce || from == to || !shape.needs(to, from);
    let nullable = chance(rng, 75) || !may_be_strict;
    let number = shape.references.len();
    let column = shape.relations[from].add(&format!("r{number}"), ty, nullable, Role::Reference, domain);
    if chance(rng, 15) {
        shape.relations[from].unique(in_parent, vec![column]);
    }
    let on_delete = match rng.u32(0..100) {
        0..15 => OnDelete::Restrict,
        15..35 => OnDelete::Cascade,
        35..55 if nullable && !in_parent => OnDelete::SetNull,
        _ => OnDelete::NoAction,
    };
    let (name, from, to) = (format!("f{number}"), (from, column), (to, target));
    shape.references.push(Reference { name, from, to, in_parent, on_delete, check });
}

/// A column that may be referred to.
fn target(rng: &mut Rng, relation: &mut Relation, in_parent: bool) -> usize {
    let key: Vec<usize> = relation.key().collect();
    let is_unique = |relation: &Relation, column: usize| {
        relation.uniques.iter().any(|unique| {
            unique.in_parent == in_parent
                && unique.columns == [column]
                && unique.form == Form::Columns
                && unique.filter.is_none()
                && unique.check == When::AtOnce
        })
    };
    if let [key] = key[..] {
        if is_unique(relation, key) && chance(rng, 50) {
            return key;
        }
    }
    let plain: Vec<usize> = relation.with_role(Role::Plain).collect();
    let column = plain[rng.usize(0..plain.len())];
    if !is_unique(relation, column) {
        relation.unique(in_parent, vec![column]);
    }
    column
}

impl Column {
    /// Draws a value.
    pub fn draw(&self, rng: &mut Rng) -> Cell {
        match self.role {
            Role::Position => Some(0),
            _ if self.nullable && chance(rng, 20) => None,
            _ => Some(rng.u8(0..self.domain)),
        }
    }
}
