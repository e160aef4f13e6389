//! Rows → fingerprints. What is stored of them is a file format: this is its specification.
//!
//! All hashes are cut to their first 16 bytes. Integers are big-endian. A *cell*
//! is an int32 length and that many bytes of the value's comparison form
//! ([`crate::value::comparison_form`]); −1 and nothing for NULL; −2 and nothing
//! for a cell the document has no say about, or of a column that the mapping ignores.
//!
//! | fingerprint | is |
//! |---|---|
//! | raw | BLAKE3, keyed with the schema's digest, of the document's bytes |
//! | row | SHA-256 of: int16 number of mapped columns, then their cells: the tuple that COPY BINARY sends |
//! | tree of a row | the row's; where relations are enclosed, SHA-256 of: it, then for each of them the number of entries (int32) and the sorted entries (tree of each row, or `kept`) |
//! | identity of a row | of a keyed one, SHA-256 of: the parent's identity, then the key's cells; of one identified by content, SHA-256 of: the parent's identity, then its tree; of the root, 16 zero bytes |
//! | entry of a row | below the root, the row's; deeper, SHA-256 of: the parent's identity, then the row's |
//! | relation | SHA-256 of: the digest of the relation (32 bytes), then its sorted entries; a list that the document has no say about is an entry of the word `kept`, filled up to 16 bytes with zeros, in place of a row |
//! | document | SHA-256 of the fingerprints of all relations, root first, in the order of the mapping |
//!
//! The digest of a relation ([`crate::schema`]) covers its mapping, the types of
//! its columns and [`FORMAT`]. So whatever changes how rows are made makes a
//! fingerprint *unknown* rather than equal, and no version has to be stored
//! beside it: the rows are compared then, and if they are equal only the
//! fingerprint is renewed. Relation fingerprints of a document form a set: a
//! relation whose fingerprint is in the stored set has not changed.
//!
//! `tests/vectors/fingerprint.json` pins fingerprints of known input, for this program and for others.

mod coverage;
pub mod recorded;
pub mod rewritten;

pub use coverage::{Coverage, Extent, coverage, digest};

use sha2::{Digest, Sha256};

use crate::mapping::{Mapping, RelationIx};
use crate::row::{Cell, RelationRows, RowSet, Tuple};
use crate::schema::{Schema, Table};
use crate::value::{ColumnType, comparison_form};

/// Version of the byte format above. Raising it makes every stored fingerprint unknown.
pub const FORMAT: u8 = 1;

/// Length of a stored fingerprint in bytes.
pub const LENGTH: usize = 16;

macro_rules! fingerprint {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; LENGTH]);
    };
}

fingerprint! {
    /// Of the bytes of a document.
    RawFingerprint
}
fingerprint! {
    /// Of one row, over its mapped columns.
    RowFingerprint
}
fingerprint! {
    /// Of a row and all rows below it.
    TreeFingerprint
}
fingerprint! {
    /// Of the rows of one relation of one document.
    RelationFingerprint
}
fingerprint! {
    /// Of all rows of a document.
    DocumentFingerprint
}

/// The fingerprints of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// `rows[r][i]` of row `i` of relation `r`.
    pub rows: Vec<Vec<RowFingerprint>>,
    /// `trees[r][i]`, likewise.
    pub trees: Vec<Vec<TreeFingerprint>>,
    /// One for each relation of the mapping.
    pub relations: Vec<RelationFingerprint>,
    /// Of the whole document.
    pub document: DocumentFingerprint,
}

/// Of the bytes of a document under a schema.
pub fn raw(schema: &Schema, bytes: &[u8]) -> RawFingerprint {
    RawFingerprint(first(blake3::keyed_hash(&schema.digest, bytes).as_bytes()))
}

/// Of one row.
pub fn row(table: &Table, tuple: &Tuple) -> RowFingerprint {
    let mut hash = Sha256::new();
    hash.update((table.columns.len() as i16).to_be_bytes());
    for (at, (ty, cell)) in table.columns.iter().zip(tuple.cells()).enumerate() {
        update_cell(&mut hash, ty, if table.ignored.contains(&at) { Cell::Kept } else { cell });
    }
    RowFingerprint(finish(hash))
}

/// The comparison form of a tuple whose cells have these types.
pub fn comparison_tuple(types: &[&ColumnType], tuple: &Tuple) -> Tuple {
    let mut compared = Tuple::default();
    types.iter().zip(tuple.cells()).for_each(|(ty, cell)| push_compared(&mut compared, ty, cell));
    compared
}

/// The comparison form of a row's key.
pub fn comparison_key(table: &Table, row: &Tuple) -> Tuple {
    let mut key = Tuple::default();
    for &at in &table.key {
        push_compared(&mut key, &table.columns[at], row.cell(at));
    }
    key
}

fn push_compared(compared: &mut Tuple, ty: &ColumnType, cell: Cell<'_>) {
    match cell {
        Cell::Value(bytes) => compared.push(Cell::Value(&comparison_form(&ty.kind, bytes))),
        other => compared.push(other),
    }
}

fn update_cell(hash: &mut Sha256, ty: &ColumnType, cell: Cell<'_>) {
    match cell {
        Cell::Null => hash.update((-1i32).to_be_bytes()),
        Cell::Kept => hash.update((-2i32).to_be_bytes()),
        Cell::Value(bytes) => {
            let form = comparison_form(&ty.kind, bytes);
            hash.update((form.len() as i32).to_be_bytes());
            hash.update(&form);
        }
    }
}

/// All fingerprints of a document's rows.
pub fn fingerprints(mapping: &Mapping, schema: &Schema, set: &RowSet) -> Fingerprints {
    of_rows(mapping, schema, set, rows(schema, set))
}

/// The fingerprints of a document's rows, one by one, per relation.
pub fn rows(schema: &Schema, set: &RowSet) -> Vec<Vec<RowFingerprint>> {
    let tables = set.relations.iter().zip(&schema.tables);
    let of_table = |(relation, table): (&RelationRows, &Table)| {
        relation.rows.iter().map(|r| row(table, &r.tuple)).collect()
    };
    tables.map(of_table).collect()
}

/// As [`fingerprints`], those of the rows being known.
pub fn of_rows(
    mapping: &Mapping,
    schema: &Schema,
    set: &RowSet,
    rows: Vec<Vec<RowFingerprint>>,
) -> Fingerprints {
    let level = |(relation, rows): (&RelationRows, &Vec<RowFingerprint>)| Level {
        rows: relation.rows.iter().map(|row| row.parent).zip(rows.iter().copied()).collect(),
        kept: relation.kept.clone(),
    };
    let levels: Vec<Level> = set.relations.iter().zip(&rows).map(level).collect();
    let trees = trees(mapping, &levels);
    let identities = identities(mapping, schema, set, &trees);
    let relations: Vec<RelationFingerprint> = (0..mapping.relations.len())
        .map(|ix| relation(mapping, schema, set, ix, &rows[ix], &identities))
        .collect();
    let document = recorded::of_document(&relations);
    Fingerprints { rows, trees, relations, document }
}

const KEPT: &[u8; LENGTH] = b"kept\0\0\0\0\0\0\0\0\0\0\0\0";

/// The rows of one relation, as far as trees need them.
#[derive(Clone, Debug, Default)]
pub struct Level {
    /// The enclosing row of each (`u32::MAX`: not among those of the enclosing level), and its fingerprint.
    pub rows: Vec<(u32, RowFingerprint)>,
    /// Enclosing rows whose list the document has no say about.
    pub kept: Vec<u32>,
}

/// The tree of every row, `levels[r]` being relation `r`.
pub fn trees(mapping: &Mapping, levels: &[Level]) -> Vec<Vec<TreeFingerprint>> {
    let mut trees: Vec<Vec<TreeFingerprint>> = levels.iter().map(|_| Vec::new()).collect();
    // Bottom up: relations stand behind the ones that enclose them.
    for ix in (0..levels.len()).rev() {
        let rows = &levels[ix].rows;
        let enclosed: Vec<RelationIx> = mapping.enclosed(ix).map(|(inner, _)| inner).collect();
        if enclosed.is_empty() {
            trees[ix] = rows.iter().map(|row| TreeFingerprint(row.1.0)).collect();
            continue;
        }
        let mut hashes: Vec<Sha256> = rows.iter().map(|row| Sha256::new().chain_update(row.1.0)).collect();
        for inner in enclosed {
            let mut entries = entries(&levels[inner], &trees[inner], rows.len());
            for (hash, entries) in hashes.iter_mut().zip(&mut entries) {
                entries.sort_unstable();
                hash.update((entries.len() as i32).to_be_bytes());
                hash.update(entries.as_flattened());
            }
        }
        trees[ix] = hashes.into_iter().map(|hash| TreeFingerprint(finish(hash))).collect();
    }
    trees
}

/// What stands below each of `parents` rows.
fn entries(level: &Level, trees: &[TreeFingerprint], parents: usize) -> Vec<Vec<[u8; LENGTH]>> {
    let mut entries = vec![Vec::new(); parents];
    for (row, tree) in level.rows.iter().zip(trees) {
        if let Some(below) = entries.get_mut(row.0 as usize) {
            below.push(tree.0);
        }
    }
    level.kept.iter().for_each(|&parent| entries[parent as usize].push(*KEPT));
    entries
}

/// Top down, and only of rows that enclose others.
fn identities(
    mapping: &Mapping,
    schema: &Schema,
    set: &RowSet,
    trees: &[Vec<TreeFingerprint>],
) -> Vec<Vec<[u8; LENGTH]>> {
    let mut identities: Vec<Vec<[u8; LENGTH]>> = vec![vec![[0; LENGTH]]];
    for (ix, relation) in mapping.relations.iter().enumerate().skip(1) {
        if mapping.enclosed(ix).next().is_none() {
            identities.push(Vec::new());
            continue;
        }
        let table = &schema.tables[ix];
        let parents = &identities[relation.enclosing.unwrap_or(0)];
        let of = |(row, tree): (&crate::row::Row, &TreeFingerprint)| {
            let mut hash = Sha256::new().chain_update(parents[row.parent as usize]);
            if relation.is_keyed() {
                let cells: Vec<Cell<'_>> = row.tuple.cells().collect();
                table.key.iter().for_each(|&at| update_cell(&mut hash, &table.columns[at], cells[at]));
            } else {
                hash.update(tree.0);
            }
            finish(hash)
        };
        identities.push(set.relations[ix].rows.iter().zip(&trees[ix]).map(of).collect());
    }
    identities
}

fn relation(
    mapping: &Mapping,
    schema: &Schema,
    set: &RowSet,
    ix: RelationIx,
    rows: &[RowFingerprint],
    identities: &[Vec<[u8; LENGTH]>],
) -> RelationFingerprint {
    let enclosing = mapping.relations[ix].enclosing.filter(|&outer| outer != 0);
    let entry = |parent: u32, content: &[u8; LENGTH]| match enclosing {
        None => *content,
        Some(outer) => {
            let hash = Sha256::new().chain_update(identities[outer][parent as usize]).chain_update(content);
            finish(hash)
        }
    };
    let relation = &set.relations[ix];
    let mut entries: Vec<[u8; LENGTH]> =
        relation.rows.iter().zip(rows).map(|(row, fingerprint)| entry(row.parent, &fingerprint.0)).collect();
    entries.extend(relation.kept.iter().map(|&parent| entry(parent, KEPT)));
    entries.sort_unstable();
    let hash = Sha256::new().chain_update(schema.tables[ix].digest).chain_update(entries.as_flattened());
    RelationFingerprint(finish(hash))
}

fn finish(hash: Sha256) -> [u8; LENGTH] {
    first(&hash.finalize())
}

fn first(bytes: &[u8]) -> [u8; LENGTH] {
    *bytes.first_chunk().expect("a hash has 32 bytes")
}
