//! What a case is about: a root and up to three lists, their tables and constraints. Drawn, and printed as DDL and as
//! a mapping.

mod draw;
mod print;

pub use draw::chance;
pub use print::Purpose;

/// Place of a relation in [`Shape::relations`]; the root is 0, outer relations come first.
pub type Rel = usize;

/// A value: one of a few of its column's type, or NULL.
pub type Cell = Option<u8>;

/// The tables of a case.
pub struct Shape {
    pub relations: Vec<Relation>,
    pub references: Vec<Reference>,
}

/// One list, or the root.
pub struct Relation {
    pub table: String,
    pub outer: Option<Rel>,
    pub keys: Keys,
    pub columns: Vec<Column>,
    /// Whether the table has a surrogate.
    pub id: bool,
    /// Whether rows go with their parents.
    pub cascades: bool,
    pub uniques: Vec<Unique>,
}

/// What identifies a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    InParent,
    All,
    Content,
}

pub struct Column {
    pub name: String,
    pub ty: Type,
    pub nullable: bool,
    pub role: Role,
    /// How many values it takes.
    pub domain: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Key,
    Plain,
    /// The row's place in its list.
    Position,
    Reference,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int,
    Text,
    Varchar,
    Date,
}

/// What no two rows may share: a unique constraint or index, or an exclusion.
pub struct Unique {
    pub name: String,
    /// Whether it counts among the rows of one parent.
    pub in_parent: bool,
    pub columns: Vec<usize>,
    pub form: Form,
    /// Whether two NULLs are two values.
    pub nulls_distinct: bool,
    pub filter: Option<Filter>,
    pub check: When,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Columns,
    /// `lower(x)`
    Lower,
    /// `x % 3`
    Modulo,
    /// `coalesce(x, 0)`
    Coalesce,
    /// `int4range(a, b) WITH &&`
    Overlap,
}

/// Which rows a partial index counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    NotNull(usize),
    Equals(usize, u8),
}

/// When a constraint is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    AtOnce,
    Deferrable,
    Deferred,
}

/// A foreign key beside those of the tree.
pub struct Reference {
    pub name: String,
    pub from: (Rel, usize),
    pub to: (Rel, usize),
    /// Whether both rows have one parent, which is part of the key.
    pub in_parent: bool,
    pub on_delete: OnDelete,
    pub check: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    NoAction,
    Restrict,
    Cascade,
    SetNull,
}

impl Relation {
    pub fn key(&self) -> impl Iterator<Item = usize> + '_ {
        self.with_role(Role::Key)
    }

    pub fn with_role(&self, role: Role) -> impl Iterator<Item = usize> + '_ {
        (0..self.columns.len()).filter(move |&at| self.columns[at].role == role)
    }
}

impl Shape {
    /// The lists directly inside the rows of a relation.
    pub fn inner(&self, rel: Rel) -> impl Iterator<Item = Rel> + '_ {
        (0..self.relations.len()).filter(move |&inner| self.relations[inner].outer == Some(rel))
    }

    /// The relations that enclose one, the root first.
    pub fn around(&self, rel: Rel) -> Vec<Rel> {
        let mut around: Vec<Rel> =
            std::iter::successors(self.relations[rel].outer, |&outer| self.relations[outer].outer).collect();
        around.reverse();
        around
    }

    /// Whether a row of one relation cannot be there before one of the other: going by parents and by references
    /// that are neither NULL nor checked later.
    pub fn needs(&self, rel: Rel, other: Rel) -> bool {
        let strict = |reference: &&Reference| {
            let (from, column) = reference.from;
            from == rel
                && reference.to.0 != rel
                && reference.check == When::AtOnce
                && !self.relations[from].columns[column].nullable
        };
        let needed = self.references.iter().filter(strict).map(|reference| reference.to.0);
        rel == other || needed.chain(self.relations[rel].outer).any(|needed| self.needs(needed, other))
    }

    /// Two tables that refer to each other, beyond child to parent.
    pub fn cycle(&self) -> Option<(&Reference, &Reference)> {
        let meets =
            |a: &&Reference, b: &&Reference| a.from.0 == b.to.0 && b.from.0 == a.to.0 && a.from.0 != a.to.0;
        let pairs = self.references.iter().flat_map(|a| self.references.iter().map(move |b| (a, b)));
        pairs.into_iter().find(|(a, b)| meets(a, b))
    }
}

const TEXTS: [&str; 10] = ["a", "A", "b", "B", "c", "C", "d", "D", "e", "f"];
const VARCHARS: [&str; 10] = ["x", "X", "y", "Y", "z", "Z", "xy", "xY", "w", "v"];

/// A text, or one that no document has.
fn known(texts: &[&str], value: u8) -> String {
    texts.get(usize::from(value)).map_or_else(|| format!("p{}", value % 100), |text| (*text).to_owned())
}

impl Type {
    /// A value as PostgreSQL prints it.
    pub fn print(self, value: u8) -> String {
        match self {
            Type::Int => value.to_string(),
            Type::Text => known(&TEXTS, value),
            Type::Varchar => known(&VARCHARS, value),
            Type::Date if value > 30 => format!("{}-01-01", 2000 + u32::from(value)),
            Type::Date => format!("2024-01-{:02}", value + 1),
        }
    }

    /// A cell as a literal of SQL.
    pub fn literal(self, cell: Cell) -> String {
        match (self, cell) {
            (_, None) => "NULL".to_owned(),
            (Type::Int, Some(value)) => value.to_string(),
            (_, Some(value)) => format!("'{}'", self.print(value)),
        }
    }
}
