//! Fingerprints are stored, so they are a file format: known rows keep the fingerprints that
//! `tests/vectors/fingerprint.json` has pinned, and PostgreSQL finds the same ones.
//!
//! The vectors were worked out from the specification in `src/fingerprint.rs` by another program.

use rowdelta::fingerprint::{FORMAT, fingerprints, raw, row};
use rowdelta::mapping::Mapping;
use rowdelta::row::{Cell, RelationRows, Row, RowSet, Tuple};
use rowdelta::schema::{Marks, Schema, Table, WriteWay};
use rowdelta::value::{ColumnType, Kind, comparison_sql};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::db;

/// Fails when the format changes. That makes every stored fingerprint unknown, and the next run compares the
/// rows of every document: raise `FORMAT`, pin new vectors, and say so in the changelog.
#[test]
fn p34_fingerprints_of_known_rows_never_change() {
    let vectors = vectors();
    assert_eq!(vectors["format"], FORMAT);
    for vector in list(&vectors["raw"]) {
        let schema = Schema { tables: vec![], lookups: vec![], digest: digest(vector) };
        assert_eq!(
            hex(&raw(&schema, &unhex(&vector["bytes"])).0),
            vector["fingerprint"],
            "{}",
            vector["name"]
        );
    }
    for vector in list(&vectors["rows"]) {
        assert_eq!(
            hex(&row(&keyless(vector), &tuple(vector)).0),
            vector["fingerprint"],
            "{}",
            vector["name"]
        );
    }
    for vector in list(&vectors["documents"]) {
        check_document(vector);
    }
}

/// Fails when a key that a mapping does not use becomes part of its relations' digests.
#[test]
fn p33_what_a_digest_takes_of_a_mapping_never_changes() {
    let vectors: Value =
        serde_json::from_str(include_str!("../vectors/mapping.json")).expect("the vectors are JSON");
    for (name, text) in [
        ("convocatorias", include_str!("../../examples/convocatorias/mapping.toml")),
        ("dotnet_releases", include_str!("../../examples/dotnet_releases/mapping.toml")),
    ] {
        let mapping = Mapping::from_toml(text).expect("an example");
        let relations: Vec<String> = mapping.relations.iter().map(serialised).collect();
        let lookups: Vec<String> = mapping.lookups.iter().map(serialised).collect();
        assert_eq!(
            serde_json::json!({ "relations": relations, "lookups": lookups }),
            vectors[name],
            "{name}"
        );
    }
}

fn serialised(part: &impl serde::Serialize) -> String {
    hex(&Sha256::digest(serde_json::to_vec(part).expect("a part of a mapping is JSON")))
}

fn check_document(vector: &Value) {
    let mapping = Mapping::from_json(&vector["mapping"]).expect("the vector's mapping");
    let relations = list(&vector["relations"]);
    for (relation, expected) in mapping.relations.iter().zip(relations) {
        assert_eq!(relation.name, expected["name"]);
        assert_eq!(relation.enclosing.map(|outer| outer as u64), expected["enclosing"].as_u64());
    }
    let schema = Schema { tables: relations.iter().map(table).collect(), lookups: vec![], digest: [0; 32] };
    let set = RowSet { relations: relations.iter().map(rows).collect(), ..RowSet::default() };
    let found = fingerprints(&mapping, &schema, &set);
    for (ix, relation) in relations.iter().enumerate() {
        for (at, row) in list(&relation["rows"]).iter().enumerate() {
            assert_eq!(hex(&found.rows[ix][at].0), row["fingerprint"], "row {at} of {}", relation["name"]);
            assert_eq!(hex(&found.trees[ix][at].0), row["tree"], "tree of row {at} of {}", relation["name"]);
        }
        assert_eq!(hex(&found.relations[ix].0), relation["fingerprint"], "{}", relation["name"]);
    }
    assert_eq!(hex(&found.document.0), vector["fingerprint"], "{}", vector["name"]);
}

#[tokio::test]
async fn p34_postgresql_finds_the_same_fingerprint_of_a_row() {
    let db = db().await;
    let mut computed = 0;
    for vector in list(&vectors()["rows"]) {
        let Some(values) = vector["values"].as_array() else { continue };
        let mut tuple = format!("int2send({}::int2)", values.len());
        for ((ty, value), cell) in types(vector).iter().zip(values).zip(list(&vector["cells"])) {
            let value = value.as_str().map_or("NULL".into(), |text| format!("'{text}'"));
            let length_of_none = if cell == "kept" { -2 } else { -1 };
            let send = |value: &str| format!("{}({value})", ty.send);
            let compared = send(&comparison_sql(&ty.kind, &format!("{value}::{}", ty.sql)));
            tuple.push_str(&format!(
                " || coalesce(int4send(octet_length({compared})) || {compared}, int4send({length_of_none}))"
            ));
            if let Some(stored) = cell.as_str().filter(|cell| *cell != "kept") {
                let sql = format!("SELECT encode({}, 'hex')", send(&format!("{value}::{}", ty.sql)));
                assert_eq!(db.value(&sql).await, stored, "{}: the stored form of {value}", vector["name"]);
            }
        }
        let sql = format!("SELECT encode(substring(sha256({tuple}) FOR 16), 'hex')");
        assert_eq!(
            db.value(&sql).await,
            vector["fingerprint"].as_str().unwrap(),
            "{}: {sql}",
            vector["name"]
        );
        computed += 1;
    }
    assert!(computed >= 8, "{computed} rows were computed in SQL");
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/fingerprint.json")).expect("the vectors are JSON")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list in the vectors")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("bytes in hexadecimal");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two hexadecimal digits");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn digest(vector: &Value) -> [u8; 32] {
    unhex(&vector["digest"]).try_into().expect("a digest has 32 bytes")
}

fn tuple(vector: &Value) -> Tuple {
    let mut tuple = Tuple::default();
    for cell in list(&vector["cells"]) {
        match cell.as_str() {
            None => tuple.push(Cell::Null),
            Some("kept") => tuple.push(Cell::Kept),
            Some(_) => tuple.push(Cell::Value(&unhex(cell))),
        }
    }
    tuple
}

fn rows(relation: &Value) -> RelationRows {
    let place = |value: &Value| value.as_u64().expect("a position") as u32;
    let row = |row: &Value| Row { parent: place(&row["parent"]), tuple: tuple(row) };
    let kept = list(&relation["kept"]).iter().map(place).collect();
    RelationRows { rows: list(&relation["rows"]).iter().map(row).collect(), kept }
}

/// What a fingerprint needs of a table: its digest, its types, its key.
fn table(relation: &Value) -> Table {
    let key = list(&relation["key"]).iter().map(|at| at.as_u64().expect("a position") as usize);
    Table { key: key.collect(), digest: digest(relation), ..keyless(relation) }
}

fn keyless(vector: &Value) -> Table {
    Table {
        name: String::new(),
        names: vec![],
        numbers: vec![],
        columns: types(vector),
        key: Vec::new(),
        parent: vec![],
        id: None,
        locator: vec![],
        ignored: Vec::new(),
        own_locator: 0,
        marks: Marks::default(),
        nullable: Vec::new(),
        parent_nullable: false,
        uniques: Vec::new(),
        references: Vec::new(),
        referred: Vec::new(),
        way: WriteWay::Copy,
        triggers: Vec::new(),
        digest: [0; 32],
    }
}

fn types(vector: &Value) -> Vec<ColumnType> {
    list(&vector["types"]).iter().map(|name| column_type(name.as_str().expect("a type's name"))).collect()
}

fn column_type(sql: &str) -> ColumnType {
    let (kind, send) = match sql {
        "boolean" => (Kind::Bool, "boolsend"),
        "smallint" => (Kind::Int2, "int2send"),
        "integer" => (Kind::Int4, "int4send"),
        "bigint" => (Kind::Int8, "int8send"),
        "double precision" => (Kind::Float8, "float8send"),
        "numeric" => (Kind::Numeric(None), "numeric_send"),
        "numeric(10,2)" => (Kind::Numeric(Some((10, 2))), "numeric_send"),
        "text" => (Kind::Text, "textsend"),
        "character varying(20)" => (Kind::Varchar(Some(20)), "varcharsend"),
        "date" => (Kind::Date, "date_send"),
        "timestamp(6) without time zone" => (Kind::Timestamp(6), "timestamp_send"),
        "timestamp(3) with time zone" => (Kind::Timestamptz(3), "timestamptz_send"),
        "uuid" => (Kind::Uuid, "uuid_send"),
        "jsonb" => (Kind::Jsonb, "jsonb_send"),
        other => panic!("no {other} in the vectors so far"),
    };
    ColumnType { kind, sql: sql.into(), oid: 0, array_oid: 0, input: String::new(), send: send.into() }
}
