//! What the functions record is what the engine records: digests of mappings, and fingerprints of known rows.

use fastrand::Rng;
use serde_json::{Value, json};

use super::{Sql, json_of};
use crate::nights::case::{FRESH, engine};
use crate::nights::shape::Shape;
use crate::real_data::{example, schema_of};
use crate::support::command::{self, Scratch, install};
use crate::support::{Database, db};
use crate::tally::Drawn;

/// By the functions, and as it stands in the ledger.
const DIGESTS: &str = "
    SELECT name, (rowdelta.compiled(definition, current_schemas(false))).digest = digest FROM rowdelta.mapping";

async fn assert_same(db: &Database, what: &str) {
    let row = |row: &Vec<Option<String>>| row[1].clone();
    let found: Vec<_> = db.table(DIGESTS).await.iter().map(row).collect();
    assert_eq!(found, [Some("t".to_owned())], "{what}: the digest by SQL is the engine's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_digests_of_the_examples_are_the_engines() {
    for name in ["convocatorias", "dotnet_releases"] {
        let (db, scratch) = (db().await, Scratch::new());
        db.execute(&schema_of(name)).await;
        install(db.url());
        let mapping = example(name).join("mapping.toml");
        let (url, empty) = (db.url().to_owned(), scratch.write("empty.ndjson", ""));
        let path = mapping.clone();
        tokio::task::spawn_blocking(move || command::sync(&url, &path, &[&empty]).succeeded()).await.unwrap();
        assert_same(&db, name).await;
        let stored = db.value("SELECT xmin FROM rowdelta.mapping").await;
        Sql::with_file(&db, &mapping).await;
        assert_eq!(
            db.value("SELECT xmin FROM rowdelta.mapping").await,
            stored,
            "{name}: nothing changed, nothing is written"
        );
    }
}

/// How many mappings of the nights' generator.
const SHAPES: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_digests_of_random_mappings_are_the_engines() {
    let db = db().await;
    install(db.url());
    for seed in 0..SHAPES {
        let mut rng = Rng::with_seed(seed);
        let shape = Shape::draw_for_sql(&mut rng, &mut Drawn::default());
        db.execute(&format!("{FRESH}{}", shape.ddl())).await;
        let toml = shape.toml("case");
        let engine = engine(&db, &toml, &mut rng).await.unwrap();
        engine.sync(futures_util::stream::iter(Vec::new())).await.unwrap();
        assert_same(&db, &format!("seed {seed}\n{toml}")).await;
        let sql = Sql::open(&db, &json_of(&toml)).await;
        assert_same(&db, &format!("{} by SQL, seed {seed}", sql.name)).await;
    }
}

/// Types whose names depend on the search path are named as the engine names them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p33_digests_are_the_engines_where_types_and_tables_are_in_other_schemas() {
    let db = db().await;
    install(db.url());
    db.execute(
        "CREATE SCHEMA elsewhere; CREATE TYPE elsewhere.mood AS ENUM ('a'); CREATE DOMAIN elsewhere.code AS varchar(9);
         CREATE TYPE public.color AS ENUM ('b');
         CREATE TABLE elsewhere.t (k elsewhere.code PRIMARY KEY, m elsewhere.mood, c color, ms elsewhere.mood[], n numeric(9,3))",
    )
    .await;
    let toml = r#"
        version = 1
        name = "case"
        [root]
        table = "elsewhere.t"
        key = "k"
        columns = { k = "k", m = "m", c = "c", n = ["n", "o"] }
    "#;
    let engine = engine(&db, toml, &mut Rng::with_seed(1)).await.unwrap();
    engine.sync(futures_util::stream::iter(Vec::new())).await.unwrap();
    assert_same(&db, "other schemas").await;
}

/// Makes fingerprints of a document with digests of the vectors' own.
const VECTOR: &str = "
    CREATE FUNCTION vector(p_definition jsonb, p_digests bytea[], p_document jsonb)
        RETURNS TABLE (name text, fingerprint text, rows text[]) LANGUAGE plpgsql AS $$
    DECLARE
        v_plan   rowdelta.plan_of_mapping := rowdelta.compiled(p_definition, current_schemas(false));
        v        rowdelta.relation;
        v_source rowdelta.source_row[];
        v_print  rowdelta.print;
    BEGIN
        FOR i IN 1 .. cardinality(p_digests) LOOP
            v := v_plan.relations[i];
            v.digest := p_digests[i];
            v_plan.relations[i] := v;
        END LOOP;
        v_source := rowdelta.chosen(v_plan.relations, (rowdelta.shredded(v_plan, ARRAY[1], ARRAY[p_document])).rows);
        v_print := (rowdelta.prints(v_plan.relations, v_source, rowdelta.trees(v_plan.relations, v_source)))[1];
        RETURN QUERY SELECT l.name, encode(u.hash, 'hex'), ARRAY(
            SELECT encode(s.fingerprint, 'hex') FROM unnest(v_source) AS s WHERE s.relation = l.ix AND NOT s.silent ORDER BY 1)
        FROM unnest(v_plan.relations) AS l JOIN rowdelta.unpacked(v_plan.relations, v_print.recorded) AS u USING (ix);
    END $$;
    CREATE TABLE o (id int PRIMARY KEY, name text); CREATE TABLE l (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, o_id int, no int, price numeric);
    CREATE TABLE p (l_id int, part text); CREATE TABLE n (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, o_id int, text text);
    CREATE TABLE m (n_id int, mark jsonb); CREATE TABLE t (o_id int, tag text);
    ALTER TABLE l ADD UNIQUE (o_id, no);";

/// The vectors' document as JSON. What it has of `marks` no document can say: a kept cell of a relation without a key.
fn document() -> Value {
    json!({ "id": 7, "name": "x", "notes": [{ "text": "n", "marks": [] }, { "text": "n", "marks": [] }],
            "lines": [{ "no": 1, "price": "1.50", "parts": ["b", "a", "b"] }, { "no": 2, "price": null },
                      { "no": 3, "price": 1.5, "parts": ["b"] }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p34_sql_finds_the_fingerprints_of_the_vectors() {
    let vectors: Value = serde_json::from_str(include_str!("../../vectors/fingerprint.json")).unwrap();
    let vector = &vectors["documents"][0];
    let relations = vector["relations"].as_array().unwrap();
    let db = db().await;
    install(db.url());
    db.execute(VECTOR).await;
    let digests: Vec<String> =
        relations.iter().map(|one| format!("'\\x{}'::bytea", one["digest"].as_str().unwrap())).collect();
    let found = db
        .table(&format!(
            "SELECT * FROM vector('{}', ARRAY[{}], '{}')",
            vector["mapping"],
            digests.join(", "),
            document()
        ))
        .await;
    for (one, found) in relations.iter().zip(&found) {
        let name = one["name"].as_str().unwrap();
        let mut rows: Vec<&str> =
            one["rows"].as_array().unwrap().iter().map(|row| row["fingerprint"].as_str().unwrap()).collect();
        rows.sort_unstable();
        if name == "marks" {
            continue;
        }
        assert_eq!(found[2].as_deref().unwrap(), format!("{{{}}}", rows.join(",")), "rows of {name}");
        // What notes are is what is in their marks, too.
        if name != "notes" {
            assert_eq!(found[1].as_deref(), one["fingerprint"].as_str(), "{name}");
        }
    }
}
