//! Draws a mapping, and the tables for it.

use fastrand::Rng;

use super::kinds::{Form, Kinds};
use super::value::{self, CONSTANTS, Ty};
use crate::support::cluster::cluster;
use crate::tally::Drawn;

/// Labels of the enum type `mood`.
pub const LABELS: [&str; 3] = ["low", "mid dle", "hïgh"];

/// A mapping as it was drawn: the root first, an enclosing relation before the ones inside it.
pub struct Shape {
    pub relations: Vec<Rel>,
    pub catalogues: Vec<Catalogue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Root,
    Child,
    Link,
}

/// What a missing field, or null in place of a list, does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Keep,
    Empty,
    Error,
}

/// What two siblings with one key and different content are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twins {
    Error,
    First,
    Last,
}

pub struct Rel {
    pub name: String,
    pub table: String,
    pub kind: Kind,
    pub enclosing: Option<usize>,
    /// Surrogate column, and its type.
    pub id: Option<(&'static str, &'static str)>,
    /// Positions of the key's columns. Empty: by content.
    pub key: Vec<usize>,
    pub unique_in_all: bool,
    pub when_absent: Policy,
    pub when_null: Policy,
    pub twins: Twins,
    pub absent_columns: Option<bool>,
    pub columns: Vec<Col>,
    pub parent: Vec<String>,
    /// The member of the enclosing item that holds its list. Several relations may read one.
    pub field: String,
    /// What tells its items from the others of the list.
    pub kinds: Option<Kinds>,
    /// Whether the only item may stand in place of the list.
    pub single: bool,
    /// Whether items are scalars: one column, path `.`.
    pub scalar: bool,
    /// Whether the list is an object whose names are the key.
    pub map: bool,
    /// Whether the last column is the item's place in the list, or the row's among those that the list asks for.
    pub ordered: bool,
    /// Without a key: whether what is left over is paired.
    pub pair: bool,
    /// Whether the key (with the parent) is the primary key where there is no surrogate.
    pub primary: bool,
    pub cascade: bool,
}

/// Where a column's value stands in the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The item itself.
    Item,
    Field,
    /// Inside an object of its own.
    Nested,
    /// Whichever of two fields is not null.
    Either,
    /// The item's name in the map.
    Name,
    /// The item's place in the list.
    Index,
    /// The row's place among those that the list asks for, from this number on.
    Position(i8),
    /// The same in every row: which of [`CONSTANTS`].
    Constant(usize),
}

pub struct Col {
    pub name: String,
    pub field: String,
    pub ty: Ty,
    pub place: Place,
    pub catalogue: Option<usize>,
    /// As written in the mapping: `when_absent` of the column.
    pub when_absent: Option<bool>,
    /// Whether a missing field leaves the stored value alone.
    pub keep: bool,
    /// Whether NULL is a value of the key.
    pub nullable: bool,
    pub not_null: bool,
    pub default: bool,
    /// How its strings are altered.
    pub form: Form,
}

pub struct Catalogue {
    pub name: String,
    pub table: String,
    pub composite: bool,
    pub missing: &'static str,
    /// Keys that are there from the start.
    pub there: u64,
    /// Keys that documents use: 0 to this.
    pub used: u64,
    /// How the text of its key is altered.
    pub form: Form,
}

impl Catalogue {
    /// The cells of the `n`-th key: a text, and a number where the key is composite.
    pub fn key(&self, n: u64) -> Vec<value::Spellings> {
        match self.composite {
            true => vec![Ty::Text.key(n / 2), Ty::Int4.key(n % 2)],
            false => vec![Ty::Text.key(n)],
        }
    }
}

impl Shape {
    pub fn draw(rng: &mut Rng, drawn: &mut Drawn) -> Self {
        let mut shape = Self::relations(rng);
        shape.settle(rng);
        shape.tell_apart(rng);
        shape.note(drawn);
        shape
    }

    /// One whose mapping has nothing that the SQL functions do not know.
    pub fn draw_for_sql(rng: &mut Rng, drawn: &mut Drawn) -> Self {
        let mut shape = Self::relations(rng);
        shape.settle(rng);
        shape.keep_to_sql();
        shape.note(drawn);
        shape
    }

    fn relations(rng: &mut Rng) -> Self {
        let mut shape = Shape { relations: Vec::new(), catalogues: Vec::new() };
        for at in 0..rng.usize(0..3) {
            let catalogue = Catalogue::draw(rng, at);
            shape.catalogues.push(catalogue);
        }
        let prefix = ["c", "Col ", "ü_", "c.d"][rng.usize(..4)];
        shape.add(rng, Kind::Root, None, prefix);
        for _ in 0..rng.usize(1..5) {
            // Towards depth: the last relation is as likely as all others together.
            let hosts: Vec<usize> = (0..shape.relations.len()).filter(|&ix| shape.may_enclose(ix)).collect();
            let host = if rng.bool() { hosts[hosts.len() - 1] } else { hosts[rng.usize(..hosts.len())] };
            let link = !shape.catalogues.is_empty() && rng.u8(..4) == 0;
            shape.add(rng, if link { Kind::Link } else { Kind::Child }, Some(host), prefix);
        }
        shape
    }

    /// Takes out what the SQL functions do not know.
    fn keep_to_sql(&mut self) {
        self.catalogues.iter_mut().for_each(|catalogue| catalogue.form = Form::default());
        for rel in &mut self.relations {
            (rel.map, rel.single, rel.pair, rel.ordered) = (false, false, false, false);
            // These stand behind all others, so that the others keep their positions.
            let is_known =
                |col: &Col| !matches!(col.place, Place::Index | Place::Position(_) | Place::Constant(_));
            rel.columns.retain(is_known);
            let columns = rel.columns.len();
            rel.key.retain(|&at| at < columns);
            for col in &mut rel.columns {
                col.form = Form::default();
                if col.place == Place::Name {
                    col.place = Place::Field;
                }
            }
        }
        // What a key has lost nobody refers to.
        for ix in 1..self.relations.len() {
            let Some(outer) = self.relations[ix].enclosing.map(|outer| &self.relations[outer]) else {
                continue;
            };
            let width = if outer.id.is_some() { 1 } else { outer.key.len() };
            self.relations[ix].parent.truncate(width);
        }
    }

    fn may_enclose(&self, ix: usize) -> bool {
        self.relations[ix].kind != Kind::Link && self.depth(ix) < 3
    }

    /// 0 for the root.
    pub fn depth(&self, ix: usize) -> usize {
        std::iter::successors(self.relations[ix].enclosing, |&ix| self.relations[ix].enclosing).count()
    }

    /// The relations directly inside one.
    pub fn enclosed(&self, ix: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.relations.len()).filter(move |&inner| self.relations[inner].enclosing == Some(ix))
    }

    pub fn is_leaf(&self, ix: usize) -> bool {
        self.enclosed(ix).next().is_none()
    }

    fn add(&mut self, rng: &mut Rng, kind: Kind, enclosing: Option<usize>, prefix: &str) {
        let at = self.relations.len();
        let ids = [
            ("id", "bigint GENERATED ALWAYS AS IDENTITY"),
            ("Own Id", "integer GENERATED BY DEFAULT AS IDENTITY"),
            ("id", "uuid DEFAULT gen_random_uuid()"),
        ];
        let policy = |rng: &mut Rng, of: &[Policy]| of[rng.usize(..of.len())];
        let mut rel = Rel {
            name: if kind == Kind::Root { "root".into() } else { format!("r{at}") },
            table: format!("{}{at}", ["t", "Table ", "tabla_ñ"][rng.usize(..3)]),
            kind,
            enclosing,
            id: (kind != Kind::Link && rng.u8(..3) > 0).then(|| ids[rng.usize(..3)]),
            key: Vec::new(),
            unique_in_all: kind == Kind::Child && rng.bool(),
            when_absent: policy(rng, &[Policy::Keep, Policy::Empty]),
            when_null: policy(rng, &[Policy::Empty, Policy::Empty, Policy::Keep, Policy::Error]),
            twins: [Twins::Error, Twins::First, Twins::Last][rng.usize(..3)],
            absent_columns: [None, Some(true), Some(false)][rng.usize(..3)],
            columns: Vec::new(),
            parent: Vec::new(),
            field: format!("r{at}"),
            kinds: None,
            single: rng.u8(..3) == 0,
            scalar: kind == Kind::Child && rng.u8(..8) == 0,
            map: false,
            ordered: false,
            pair: false,
            primary: rng.bool(),
            cascade: rng.u8(..6) == 0,
        };
        let keys = if kind == Kind::Link { 0 } else { 1 + usize::from(rng.u8(..3) == 0 && !rel.scalar) };
        let plain = if rel.scalar { 0 } else { rng.usize(usize::from(kind != Kind::Link)..5) };
        for n in 0..keys + plain {
            let ty = match (n < keys, keys) {
                // The pair of two small numbers is unique where neither is.
                (true, _) => value::KEYS[rng.usize(..value::KEYS.len())],
                (false, _) => value::ALL[rng.usize(..value::ALL.len())],
            };
            let place = [Place::Field, Place::Field, Place::Nested, Place::Either][rng.usize(..4)];
            let catalogue = (n >= keys && !self.catalogues.is_empty() && rng.u8(..5) == 0)
                .then(|| rng.usize(..self.catalogues.len()));
            let place = match catalogue {
                _ if rel.scalar => Place::Item,
                Some(_) => Place::Nested,
                None => place,
            };
            rel.columns.push(Col {
                name: format!("{prefix}{n}"),
                field: format!("{}{n}", ["f", "f.", "F g"][rng.usize(..3)]),
                ty,
                place,
                catalogue,
                when_absent: [None, None, Some(true), Some(false)][rng.usize(..4)],
                keep: false,
                nullable: false,
                not_null: false,
                default: rng.u8(..6) == 0,
                form: Form::draw(rng, catalogue.is_none() && ty.has_text()),
            });
        }
        rel.key = (0..keys).collect();
        if kind == Kind::Link {
            let target = rng.usize(..self.catalogues.len());
            rel.columns.insert(
                0,
                Col {
                    name: "target".into(),
                    field: "f".into(),
                    ty: Ty::Int8,
                    place: Place::Nested,
                    catalogue: Some(target),
                    when_absent: None,
                    keep: false,
                    nullable: false,
                    not_null: true,
                    default: false,
                    form: Form::default(),
                },
            );
            rel.key = vec![0];
        }
        self.relations.push(rel);
    }

    /// What depends on what is inside a relation, and around it.
    fn settle(&mut self, rng: &mut Rng) {
        for ix in 0..self.relations.len() {
            let leaf = self.is_leaf(ix);
            let outer = self.relations[ix].enclosing;
            let parent = outer.map_or(Vec::new(), |outer| match &self.relations[outer] {
                Rel { id: Some(_), .. } => vec!["parent".to_owned()],
                outer => (0..outer.key.len()).map(|n| format!("Parent {n}")).collect(),
            });
            let rel = &mut self.relations[ix];
            rel.parent = parent;
            rel.scalar &= leaf;
            if !rel.scalar {
                rel.columns
                    .iter_mut()
                    .filter(|col| col.place == Place::Item)
                    .for_each(|col| col.place = Place::Field);
            }
            // Equal rows that differ only below may be matched not minimally: such a relation has a key.
            if rel.kind == Kind::Child && leaf && rng.u8(..3) == 0 {
                rel.key.clear();
                rel.unique_in_all = false;
                rel.pair = rng.bool();
            }
            if rel.kind == Kind::Child && !leaf && rel.id.is_none() {
                rel.unique_in_all = true;
            }
            if rel.kind == Kind::Child && rel.key.len() == 1 && !rel.scalar && rng.u8(..6) == 0 {
                rel.map = true;
                rel.columns[0].place = Place::Name;
                rel.columns[0].ty = Ty::Text;
                rel.columns[0].form = Form::default();
            }
            let place = match rng.u8(..8) {
                0 if rel.kind == Kind::Child && !rel.scalar => Some(Place::Index),
                1 | 2 if rel.kind != Kind::Root => Some(Place::Position(rng.i8(-2..3))),
                _ => None,
            };
            if let Some(place) = place.filter(|_| !rel.map) {
                rel.ordered = true;
                rel.columns.push(Col::placeless("place", Ty::Int4, place));
            }
            if rng.u8(..4) == 0 {
                let at = rng.usize(..CONSTANTS.len());
                if rel.kind != Kind::Link && !rel.key.is_empty() && CONSTANTS[at].1.is_key() && rng.bool() {
                    rel.key.push(rel.columns.len());
                }
                rel.columns.push(Col::placeless("constant", CONSTANTS[at].1, Place::Constant(at)));
            }
            // Nothing refers to a key that may be NULL, and only new servers have unique indexes for it.
            let is_local = rel.kind == Kind::Child && !rel.unique_in_all;
            let has_index = is_local || counts_nulls_as_equal();
            let may_be_null = rel.kind != Kind::Link && !rel.map && (leaf || rel.id.is_some());
            if may_be_null && has_index && !rel.key.is_empty() && rng.u8(..3) == 0 {
                let own = rel.own_key();
                let always = rng.usize(..own.len());
                own.iter().for_each(|&at| rel.columns[at].nullable = at == own[always] || rng.bool());
                rel.primary = false;
            }
            let inherited = self.inherited(ix);
            let rel = &mut self.relations[ix];
            let (keyless, key) = (rel.key.is_empty(), rel.key.clone());
            for (at, col) in rel.columns.iter_mut().enumerate() {
                let identifies = keyless || key.contains(&at);
                let is_position = matches!(col.place, Place::Position(_) | Place::Constant(_));
                if identifies || is_position || matches!(col.place, Place::Index | Place::Name | Place::Item)
                {
                    col.when_absent = None;
                }
                col.keep = !identifies && !is_position && col.when_absent.unwrap_or(inherited);
                col.default &= col.catalogue.is_none() && !key.contains(&at);
                col.not_null |=
                    (key.contains(&at) && !col.nullable) || (col.default && col.catalogue.is_none());
            }
        }
    }

    /// Whether missing fields of a relation keep their columns' values.
    fn inherited(&self, ix: usize) -> bool {
        let rel = &self.relations[ix];
        rel.absent_columns.unwrap_or_else(|| rel.enclosing.is_none_or(|outer| self.inherited(outer)))
    }

    fn note(&self, drawn: &mut Drawn) {
        for (ix, rel) in self.relations.iter().enumerate() {
            let notes = [
                ("depth ≥ 2", self.depth(ix) >= 2),
                ("depth 3", self.depth(ix) >= 3),
                ("keyless", rel.key.is_empty()),
                ("unique in all", rel.unique_in_all),
                ("link", rel.kind == Kind::Link),
                ("composite key", rel.key.len() > 1),
                ("referred to by its key", rel.id.is_none() && !self.is_leaf(ix)),
                ("map", rel.map),
                ("place in the list", rel.columns.iter().any(|col| col.place == Place::Index)),
                ("constant", rel.columns.iter().any(Col::is_constant)),
                ("constant in a key", rel.own_key().len() < rel.key.len()),
                ("where", rel.kinds.is_some()),
                ("where, strays ignored", rel.kinds.as_ref().is_some_and(|kinds| kinds.strays)),
                ("list of two kinds", ix > 0 && rel.field != rel.name),
                ("when_single", ix > 0 && rel.single),
                ("nul = strip", rel.columns.iter().any(|col| col.form.nul == "strip")),
                ("nul = replace", rel.columns.iter().any(|col| col.form.nul == "replace")),
                ("nfc", rel.columns.iter().any(|col| col.form.nfc)),
                ("nfc in a key", rel.key.iter().any(|&at| rel.columns[at].form.nfc)),
                ("position", rel.has_position()),
                ("position without a key", rel.has_position() && rel.key.is_empty()),
                ("pair", rel.pair),
                ("list of scalars", rel.scalar),
                (
                    "lookup as a column",
                    rel.kind != Kind::Link && rel.columns.iter().any(|c| c.catalogue.is_some()),
                ),
                ("default", rel.columns.iter().any(|col| col.default)),
                (
                    "server-converted type",
                    rel.columns.iter().any(|col| col.catalogue.is_none() && col.ty.is_server_converted()),
                ),
            ];
            notes.iter().filter(|note| note.1).for_each(|note| drawn.note(note.0));
        }
    }
}

impl Rel {
    /// Positions of the key's columns that differ from row to row.
    pub fn own_key(&self) -> Vec<usize> {
        self.key.iter().copied().filter(|&at| !self.columns[at].is_constant()).collect()
    }

    /// Whether a column holds the row's place among those that are asked for.
    pub fn has_position(&self) -> bool {
        self.columns.iter().any(|col| matches!(col.place, Place::Position(_)))
    }
}

impl Col {
    /// A column that no field of the item fills.
    fn placeless(name: &str, ty: Ty, place: Place) -> Self {
        Col {
            name: name.into(),
            field: String::new(),
            ty,
            place,
            catalogue: None,
            when_absent: None,
            keep: false,
            nullable: false,
            not_null: false,
            default: false,
            form: Form::default(),
        }
    }

    pub fn is_constant(&self) -> bool {
        matches!(self.place, Place::Constant(_))
    }
}

/// Whether the server has `NULLS NOT DISTINCT`.
pub fn counts_nulls_as_equal() -> bool {
    cluster().major >= 15
}

impl Catalogue {
    fn draw(rng: &mut Rng, at: usize) -> Self {
        let missing = ["insert", "insert", "error", "skip"][rng.usize(..4)];
        let (there, used) = match missing {
            "insert" => (rng.u64(..2), 6),
            "error" => (6, 6),
            _ => (3, 6),
        };
        let composite = rng.bool();
        let (name, table, form) = (format!("cat{at}"), format!("Cat {at}"), Form::draw(rng, true));
        Catalogue { name, table, composite, missing, there, used, form }
    }
}

/// A quoted identifier.
pub fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
