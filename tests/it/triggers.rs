//! Triggers that change what they are given, or do not let it through: a row is known in both forms.

mod forms;
mod refused;

use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{BY_RELATION, MAPPING, SCHEMA, Shop, edits, failures, ndjson};
use crate::verify::{Verified, verify_at};

/// A text in lower case, a number rounded, NULL filled in; in the root, in children with and without a key, and in
/// nested ones.
const TIDY: &str = "
    CREATE FUNCTION tidy_orders() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        NEW.customer := lower(NEW.customer); NEW.total := round(NEW.total); NEW.note := coalesce(NEW.note, 'none');
        RETURN NEW; END $$;
    CREATE FUNCTION tidy_line() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.label := lower(NEW.label); RETURN NEW; END $$;
    CREATE FUNCTION tidy_file() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.name := lower(NEW.name); RETURN NEW; END $$;
    CREATE FUNCTION tidy_page() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.body := lower(NEW.body); RETURN NEW; END $$;
    CREATE FUNCTION tidy_tag() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.word := lower(NEW.word); RETURN NEW; END $$;
    CREATE TRIGGER tidy BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION tidy_orders();
    CREATE TRIGGER tidy BEFORE INSERT OR UPDATE ON line FOR EACH ROW EXECUTE FUNCTION tidy_line();
    CREATE TRIGGER tidy BEFORE INSERT OR UPDATE OF body ON page FOR EACH ROW EXECUTE FUNCTION tidy_page();
    CREATE TRIGGER tidy BEFORE INSERT ON tag FOR EACH ROW EXECUTE FUNCTION tidy_tag();";

fn order(number: usize) -> Value {
    json!({ "number": format!("N{number}"), "customer": "Ana", "total": "1.50", "units": 1,
            "lines": [{ "no": 1, "label": "One", "qty": 1, "serials": ["s"] }, { "no": 2, "label": "two", "qty": 2 }],
            "files": [{ "id": number, "name": "F", "pages": [{ "no": 1, "body": "A" }, { "no": 2, "body": "b" }] },
                      { "id": number + 100, "name": "F", "pages": [{ "no": 1, "body": "a" }] }],
            "tags": ["Red", "Red", "red", null], "products": ["p"] })
}

async fn verify(shop: &Shop, more: &[&str]) -> Verified {
    verify_at(shop.db.url(), &shop.mapping, more).await
}

/// Whatever is lost of what is recorded, nothing is written and nothing differs.
async fn stays_quiet(shop: &Shop, docs: &[Value]) {
    let lost = [
        "SELECT",
        "SELECT rowdelta.unsettle_all(id) FROM rowdelta.mapping",
        "SELECT rowdelta.unsettle(mapping, array_agg(key)) FROM rowdelta.state GROUP BY mapping",
        "TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip",
    ];
    let feed = shop.scratch.write("quiet.ndjson", ndjson(docs));
    let feed = feed.to_str().unwrap();
    for lost in lost {
        shop.db.execute(lost).await;
        let ran = shop.run(docs).await.succeeded();
        assert_eq!((ran.rows_written(), shop.written().await), (0, Edits::new()), "{lost}: {:#}", ran.report);
        verify(shop, &[]).await.finds_nothing();
        verify(shop, &[feed]).await.finds_nothing();
    }
    verify(shop, &["--repair", feed]).await.finds_nothing();
    assert_eq!(shop.written().await, Edits::new());
}

/// Syncs, expects just these writes, and that all is quiet then.
async fn writes(shop: &Shop, docs: &[Value], expected: &[(&str, u64, u64, u64)]) {
    let ran = shop.run(docs).await.succeeded();
    assert_eq!(shop.written().await, edits(expected), "{:#}", ran.report);
    let total: u64 =
        expected.iter().map(|(_, inserted, updated, deleted)| inserted + updated + deleted).sum();
    assert_eq!(ran.rows_written(), total, "{:#}", ran.report);
    stays_quiet(shop, docs).await;
}

async fn what_triggers_change_is_written_once(mapping: &str) {
    let shop = Shop::with(SCHEMA, mapping).await;
    shop.db.execute(TIDY).await;
    let mut docs = vec![order(1), order(2)];
    let many = |no: usize| json!({ "no": no, "label": format!("Line {no}"), "qty": no });
    docs[1]["lines"] = (1..=60).map(many).collect();
    let all = [
        ("file", 4, 0, 0),
        ("line", 62, 0, 0),
        ("order_product", 2, 0, 0),
        ("orders", 2, 0, 0),
        ("page", 6, 0, 0),
        ("product", 1, 0, 0),
        ("serial", 1, 0, 0),
        ("tag", 8, 0, 0),
    ];
    writes(&shop, &docs, &all).await;
    assert_eq!(shop.rows("SELECT DISTINCT customer, total, note FROM orders").await, ["ana|2.00|none"]);
    assert_eq!(shop.rows("SELECT count(*) FROM line WHERE label <> lower(label)").await, ["0"]);
    assert_eq!(shop.rows("SELECT word, count(*) FROM tag GROUP BY 1 ORDER BY 1").await, ["red|6", "NULL|2"]);
    // Rows beside the rewritten ones change, come and go.
    docs[0]["lines"][1]["qty"] = json!(3);
    docs[0]["files"][0]["pages"].as_array_mut().unwrap().push(json!({ "no": 3, "body": "C" }));
    docs[0]["tags"] = json!(["Blue", "Red", "red", null]);
    docs[1]["lines"].as_array_mut().unwrap().remove(7);
    docs[1]["units"] = json!(2);
    let some = [("line", 0, 1, 1), ("orders", 0, 1, 0), ("page", 1, 0, 0), ("tag", 1, 0, 1)];
    writes(&shop, &docs, &some).await;
    // The rewritten ones themselves: to what becomes something else, and to what is stored already.
    docs[0]["customer"] = json!("Eva");
    docs[1]["customer"] = json!("ana");
    docs[0]["lines"][0]["label"] = json!("Uno");
    docs[1]["lines"][1]["label"] = json!("line 2");
    docs[1]["tags"] = json!(["Red", "red", "red", null]);
    docs[0]["files"][0]["pages"][0]["body"] = json!("Z");
    docs[0]["tags"] = json!(["blue", "Red", "red", null]);
    writes(&shop, &docs, &[("line", 0, 1, 0), ("orders", 0, 1, 0), ("page", 0, 1, 0)]).await;
    // What somebody else makes of a row is neither form.
    shop.db
        .execute("UPDATE line SET label = 'hand' WHERE no = 1; UPDATE tag SET word = 'x' WHERE word = 'blue'")
        .await;
    shop.written().await;
    let feed = shop.scratch.write("feed.ndjson", ndjson(&docs));
    let found = verify(&shop, &[feed.to_str().unwrap()]).await;
    let named = [
        "N1: lines no=1: changed label",
        "N1: tags: missing",
        "N1: tags: surplus",
        "N2: lines no=1: changed label",
    ];
    assert_eq!((found.code, found.differences()), (5, named.map(str::to_owned).to_vec()));
    let found = verify(&shop, &[]).await;
    assert_eq!(found.differences(), ["N1: lines: altered", "N1: tags: altered", "N2: lines: altered"]);
    verify(&shop, &["--repair", feed.to_str().unwrap()]).await;
    assert_eq!(shop.written().await, edits(&[("line", 0, 2, 0), ("tag", 1, 0, 1)]));
    stays_quiet(&shop, &docs).await;
    // With the document goes what is recorded of its rows.
    docs.pop();
    shop.run_with(&docs, &["--complete", "--allow-deletes", "1000"]).await.succeeded();
    let count = "SELECT count(DISTINCT key), count(*) FROM rowdelta.rewritten";
    assert_eq!(shop.rows(count).await, ["1|4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_what_triggers_change_is_written_once() {
    what_triggers_change_is_written_once(MAPPING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p24_what_triggers_change_is_written_once_relation_by_relation() {
    what_triggers_change_is_written_once(&format!("{MAPPING}{BY_RELATION}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p03_p21_a_rewritten_column_that_did_not_change_is_not_sent() {
    let shop = Shop::open().await;
    shop.db.execute(TIDY).await;
    let mut docs = vec![order(1)];
    shop.run(&docs).await.succeeded();
    shop.db
        .execute(
            "CREATE TABLE sent (of text);
             CREATE FUNCTION sent() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO sent VALUES (TG_TABLE_NAME); RETURN NULL; END $$;
             CREATE TRIGGER sent AFTER UPDATE OF label ON line FOR EACH ROW EXECUTE FUNCTION sent();
             CREATE TRIGGER sent AFTER UPDATE OF customer, total, note ON orders FOR EACH ROW EXECUTE FUNCTION sent();",
        )
        .await;
    shop.written().await;
    docs[0]["units"] = json!(5);
    docs[0]["lines"][0]["qty"] = json!(5);
    writes(&shop, &docs, &[("line", 0, 1, 0), ("orders", 0, 1, 0)]).await;
    assert_eq!(shop.rows("SELECT count(*) FROM sent").await, ["0"]);
    docs[0]["lines"][0]["label"] = json!("Uno");
    writes(&shop, &docs, &[("line", 0, 1, 0)]).await;
    assert_eq!(shop.rows("SELECT string_agg(of, ' ') FROM sent").await, ["line"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_what_depends_on_the_time_or_a_sequence_is_written_once() {
    let shop = Shop::open().await;
    shop.db
        .execute(
            "CREATE SEQUENCE n;
             CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN NEW.paid := clock_timestamp(); RETURN NEW; END $$;
             CREATE FUNCTION number() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN NEW.word := NEW.word || nextval('n'); RETURN NEW; END $$;
             CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION stamp();
             CREATE TRIGGER number BEFORE INSERT ON tag FOR EACH ROW EXECUTE FUNCTION number();",
        )
        .await;
    let mut docs = vec![order(1)];
    docs[0]["paid"] = json!("2024-06-01T10:00:00Z");
    shop.run(&docs).await.succeeded();
    shop.written().await;
    assert_eq!(shop.rows("SELECT word FROM tag ORDER BY 1").await, ["Red1", "Red2", "red3", "NULL"]);
    stays_quiet(&shop, &docs).await;
    // Which of two rows that were sent alike goes does not matter; which of two others does.
    docs[0]["tags"] = json!(["Red", "Red", null]);
    writes(&shop, &docs, &[("tag", 0, 0, 1)]).await;
    assert_eq!(shop.rows("SELECT word FROM tag ORDER BY 1").await, ["Red1", "Red2", "NULL"]);
    docs[0]["tags"] = json!(["Red", null, "x"]);
    docs[0]["units"] = json!(7);
    writes(&shop, &docs, &[("orders", 0, 1, 0), ("tag", 1, 0, 1)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p17_p21_a_child_that_moves_takes_its_rewritten_rows_along() {
    for more in [&["--batch", "1"][..], &[]] {
        let shop = Shop::open().await;
        shop.db.execute(TIDY).await;
        shop.db.execute("CREATE TRIGGER tidy BEFORE INSERT OR UPDATE ON file FOR EACH ROW EXECUTE FUNCTION tidy_file()")
            .await;
        let mut docs = vec![order(1), order(2), order(3)];
        shop.run(&docs).await.succeeded();
        shop.written().await;
        for (from, to) in [(0, 1), (2, 0)] {
            let file = docs[from]["files"].as_array_mut().unwrap().remove(0);
            docs[to]["files"].as_array_mut().unwrap().push(file);
        }
        let ran = shop.run_with(&docs, &[more, &["--allow-deletes", "99"]].concat()).await.succeeded();
        assert_eq!(shop.written().await, edits(&[("file", 0, 2, 0)]), "{:#}", ran.report);
        stays_quiet(&shop, &docs).await;
        // The document that loses it is not in the feed.
        let file = docs[1]["files"].as_array_mut().unwrap().remove(0);
        docs[2]["files"].as_array_mut().unwrap().push(file);
        let ran = shop.run(&docs[2..]).await.succeeded();
        assert_eq!(shop.written().await, edits(&[("file", 0, 1, 0)]), "{:#}", ran.report);
        shop.run(&docs).await.succeeded();
        stays_quiet(&shop, &docs).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p19_p21_unique_values_that_a_trigger_changes_are_swapped() {
    let shop = Shop::open().await;
    shop.db.execute(TIDY).await;
    shop.db.execute("CREATE UNIQUE INDEX ON line (order_id, label)").await;
    let mut docs = vec![order(1)];
    docs[0]["lines"][1]["label"] = json!("Two");
    shop.run(&docs).await.succeeded();
    shop.written().await;
    docs[0]["lines"][0]["label"] = json!("Two");
    docs[0]["lines"][1]["label"] = json!("One");
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(ran.report["parked"], 1);
    shop.written().await;
    assert_eq!(shop.rows("SELECT no, label FROM line ORDER BY 1").await, ["1|two", "2|one"]);
    stays_quiet(&shop, &docs).await;
}

/// What a row is found by stays as it is sent, or its document is refused; every night alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p25_a_trigger_that_changes_what_rows_are_found_by_fails_the_document_by_name() {
    let cases = [
        ("orders", "NEW.number := lower(NEW.number)", "shop", "\"number\""),
        ("line", "NEW.no := NEW.no + 10", "lines", "\"no\""),
        ("file", "NEW.official := NEW.official + 1000", "files", "\"official\""),
        ("tag", "NEW.order_id := (SELECT min(id) FROM orders)", "tags", "\"order_id\""),
    ];
    for (table, change, relation, column) in cases {
        let shop = Shop::open().await;
        let mut docs = vec![order(1), order(2), order(3)];
        for list in ["lines", "files", "tags"] {
            docs[0][list] = json!([]);
        }
        shop.run(&docs[..1]).await.succeeded();
        shop.written().await;
        let condition = if table == "orders" { "WHEN (NEW.number = 'N2')" } else { "" };
        shop.db
            .execute(&format!(
                "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {change}; RETURN NEW; END $$;
                 CREATE TRIGGER other BEFORE INSERT ON {table} FOR EACH ROW {condition} EXECUTE FUNCTION other()"
            ))
            .await;
        let mut before = None;
        for _ in 0..2 {
            let ran = shop.run(&docs).await;
            assert_eq!((ran.code, ran.report["retries"].as_u64()), (1, Some(0)), "{table}: {}", ran.stderr);
            let found = failures(&ran);
            assert_eq!(found.len(), if table == "orders" { 1 } else { 2 }, "{found:#?}");
            let start = format!(
                "feed.ndjson:2 [N2] {relation}: a trigger of public.{table} (\"other\") changes {column}, "
            );
            assert!(found[0].starts_with(&start), "{found:#?}");
            let counts = shop.rows("SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM line)").await;
            assert_eq!(*before.get_or_insert(counts.clone()), counts);
            if table == "orders" {
                assert_eq!(counts, ["2|2"]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p25_a_trigger_that_suppresses_a_write_fails_the_document_by_name() {
    let shop = Shop::open().await;
    let mut docs = vec![order(1), order(2), order(3)];
    let none = "CREATE FUNCTION hush() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;";
    shop.db.execute(none).await;
    let quiet = |when: &str| {
        format!(
            "DROP TRIGGER IF EXISTS quiet ON line; CREATE TRIGGER quiet BEFORE {when} EXECUTE FUNCTION hush()"
        )
    };
    let refused = |what: &str, rows: &str| {
        let why = "a BEFORE trigger suppressed it (\"quiet\"); have it let them through, or leave them out of the feed";
        vec![format!("feed.ndjson:2 [N2] lines: {rows} rows of public.line were not {what}: {why}")]
    };
    docs[1]["lines"][1]["label"] = json!("secret");
    shop.db.execute(&quiet("INSERT ON line FOR EACH ROW WHEN (NEW.label = 'secret')")).await;
    for _ in 0..2 {
        let ran = shop.run(&docs).await;
        assert_eq!((ran.code, ran.report["retries"].as_u64()), (1, Some(0)), "{}", ran.stderr);
        assert_eq!(failures(&ran), refused("inserted", "1 of 2"));
        assert_eq!(shop.rows("SELECT number FROM orders ORDER BY 1").await, ["N1", "N3"]);
    }
    shop.db.execute("DROP TRIGGER quiet ON line").await;
    shop.run(&docs).await.succeeded();
    shop.db.execute(&quiet("UPDATE ON line FOR EACH ROW WHEN (OLD.label = 'secret')")).await;
    docs.iter_mut().for_each(|doc| doc["lines"][1]["qty"] = json!(9));
    docs[1]["lines"][0]["qty"] = json!(9);
    let ran = shop.run(&docs).await;
    assert_eq!((ran.code, ran.report["retries"].as_u64()), (1, Some(0)), "{}", ran.stderr);
    assert_eq!(failures(&ran), refused("updated", "1 of 2"));
    shop.db.execute(&quiet("DELETE ON line FOR EACH ROW WHEN (OLD.label = 'secret')")).await;
    docs.iter_mut().for_each(|doc| doc["lines"] = json!([doc["lines"][0]]));
    let ran = shop.run(&docs).await;
    assert_eq!((ran.code, ran.report["retries"].as_u64()), (1, Some(0)), "{}", ran.stderr);
    assert_eq!(failures(&ran), refused("deleted", "1 of 1"));
    assert_eq!(shop.rows("SELECT no, qty FROM line ORDER BY 1, 2").await, ["1|1", "1|1", "1|1", "2|2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p26_of_a_document_that_fails_nothing_is_recorded() {
    let shop = Shop::open().await;
    shop.db.execute(TIDY).await;
    shop.db.execute("ALTER TABLE tag ADD CHECK (word <> 'bad')").await;
    let mut docs = vec![order(1), order(2), order(3)];
    docs[1]["tags"][0] = json!("BAD");
    assert_eq!(shop.run(&docs).await.code, 1);
    let keys =
        "SELECT count(DISTINCT key), count(*) FILTER (WHERE key = ANY (SELECT key FROM rowdelta.state))
                FROM rowdelta.rewritten";
    assert_eq!(shop.rows(keys).await, ["2|8"]);
    docs[1]["tags"][0] = json!("good");
    shop.run(&docs).await.succeeded();
    shop.written().await;
    stays_quiet(&shop, &docs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_triggers_may_come_and_go() {
    let shop = Shop::open().await;
    let mut docs = vec![order(1)];
    shop.run(&docs).await.succeeded();
    shop.written().await;
    shop.db.execute(TIDY).await;
    stays_quiet(&shop, &docs).await;
    docs[0]["units"] = json!(2);
    docs[0]["lines"][1]["label"] = json!("Zwei");
    writes(&shop, &docs, &[("line", 0, 1, 0), ("orders", 0, 1, 0)]).await;
    let stored = "SELECT customer, (SELECT string_agg(label, ' ' ORDER BY no) FROM line) FROM orders";
    assert_eq!(shop.rows(stored).await, ["ana|One zwei"]);
    shop.db.execute("DROP TRIGGER tidy ON orders; DROP TRIGGER tidy ON line; DROP TRIGGER tidy ON page; DROP TRIGGER tidy ON tag")
        .await;
    stays_quiet(&shop, &docs).await;
    docs[0]["units"] = json!(3);
    docs[0]["lines"][0]["qty"] = json!(3);
    docs[0]["lines"][1]["qty"] = json!(3);
    writes(&shop, &docs, &[("line", 0, 2, 0), ("orders", 0, 1, 0)]).await;
    assert_eq!(shop.rows(stored).await, ["ana|One zwei"], "a column that did not change is not sent");
    docs[0]["customer"] = json!("Eva");
    docs[0]["lines"][1]["label"] = json!("Drei");
    writes(&shop, &docs, &[("line", 0, 1, 0), ("orders", 0, 1, 0)]).await;
    assert_eq!(shop.rows(stored).await, ["Eva|One Drei"]);
}

/// The other form cannot be known at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p35_rewritten_rows_are_adopted_by_one_write() {
    let shop = Shop::open().await;
    shop.db.execute(TIDY).await;
    let docs = vec![order(1)];
    shop.run(&docs).await.succeeded();
    shop.written().await;
    shop.db.execute("TRUNCATE rowdelta.document, rowdelta.base, rowdelta.skip, rowdelta.rewritten").await;
    // Of the tags `Red` is what became `red`.
    writes(&shop, &docs, &[("line", 0, 1, 0), ("orders", 0, 1, 0), ("page", 0, 1, 0), ("tag", 2, 0, 2)])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_a_mark_may_make_a_trigger_change_the_root() {
    let mapping = format!("{MAPPING}\n[sync]\nmark_hash = \"summary\"\n");
    let shop = Shop::with(SCHEMA, &mapping).await;
    shop.db
        .execute(
            "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN NEW.paid := clock_timestamp(); RETURN NEW; END $$;
             CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION stamp()",
        )
        .await;
    let mut docs = vec![order(1)];
    shop.run(&docs).await.succeeded();
    shop.written().await;
    stays_quiet(&shop, &docs).await;
    docs[0]["tags"] = json!([]);
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!((ran.report["marks"].as_u64(), ran.rows_written()), (Some(1), 4), "{:#}", ran.report);
    shop.written().await;
    stays_quiet(&shop, &docs).await;
}

/// What a document says nothing about may change beside what a trigger changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p36_of_a_rewritten_row_other_columns_are_still_told_apart() {
    let shop = Shop::open().await;
    shop.db.execute(TIDY).await;
    let mut docs = vec![order(1)];
    docs[0].as_object_mut().unwrap().remove("units");
    shop.run(&docs).await.succeeded();
    shop.db.execute("UPDATE orders SET units = 9").await;
    shop.written().await;
    stays_quiet(&shop, &docs).await;
    shop.db.execute("UPDATE line SET qty = 9 WHERE no = 1").await;
    let feed = shop.scratch.write("feed.ndjson", ndjson(&docs));
    let found = verify(&shop, &[feed.to_str().unwrap()]).await;
    assert_eq!(found.differences(), ["N1: lines no=1: changed qty"]);
    assert_eq!(verify(&shop, &[]).await.differences(), ["N1: lines: altered"]);
    verify(&shop, &["--repair", feed.to_str().unwrap()]).await;
    shop.written().await;
    stays_quiet(&shop, &docs).await;
}

/// A document that is missing is marked, and the mark taken from it when it is back: both fire the root's triggers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p31_a_document_that_was_missing_is_known_when_it_is_back() {
    let mapping = MAPPING.replacen("[root]\n", "[root]\non_absent = \"mark\"\n", 1);
    let mapping = format!("{mapping}\n[sync]\nmark_absent = \"gone\"\n");
    let schema = SCHEMA.replace("summary text)", "summary text, gone timestamptz)");
    let shop = Shop::with(&schema, &mapping).await;
    shop.db
        .execute(
            "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN NEW.paid := clock_timestamp(); RETURN NEW; END $$;
             CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION stamp()",
        )
        .await;
    let docs = vec![order(1), order(2)];
    shop.run(&docs).await.succeeded();
    shop.run_with(&docs[..1], &["--complete"]).await.succeeded();
    assert_eq!(shop.rows("SELECT count(gone) FROM orders").await, ["1"]);
    shop.run_with(&docs, &["--complete"]).await.succeeded();
    assert_eq!(shop.rows("SELECT count(gone) FROM orders").await, ["0"]);
    shop.written().await;
    stays_quiet(&shop, &docs).await;
}

/// A trigger that fires afterwards and writes the row again; triggers of a partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p20_p21_triggers_that_fire_afterwards_and_triggers_of_partitions() {
    let orders = "note text, remark text, summary text);";
    let schema = SCHEMA.replace(orders, "note text, remark text, summary text);
        CREATE TABLE page (file_id bigint NOT NULL, no int, body text, PRIMARY KEY (file_id, no)) PARTITION BY HASH (no);
        CREATE TABLE page_0 PARTITION OF page FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE page_1 PARTITION OF page FOR VALUES WITH (MODULUS 2, REMAINDER 1);");
    let own = "CREATE TABLE page (file_id bigint NOT NULL REFERENCES file, no int, body text, PRIMARY KEY (file_id, no));";
    assert!(schema.contains(own));
    let shop = Shop::with(&schema.replace(own, ""), MAPPING).await;
    shop.db
        .execute(
            "CREATE FUNCTION low_page() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN NEW.body := lower(NEW.body); RETURN NEW; END $$;
             CREATE TRIGGER low BEFORE INSERT OR UPDATE ON page_0 FOR EACH ROW EXECUTE FUNCTION low_page();
             CREATE TRIGGER low BEFORE INSERT OR UPDATE ON page_1 FOR EACH ROW EXECUTE FUNCTION low_page();
             CREATE FUNCTION low_line() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN UPDATE line SET label = lower(label) WHERE id = NEW.id AND label <> lower(label); RETURN NULL; END $$;
             CREATE TRIGGER low AFTER INSERT OR UPDATE ON line FOR EACH ROW EXECUTE FUNCTION low_line()",
        )
        .await;
    let mut docs = vec![order(1)];
    docs[0]["files"][0]["pages"] = (1..9).map(|no| json!({ "no": no, "body": "Body" })).collect();
    shop.run(&docs).await.succeeded();
    shop.written().await;
    assert_eq!(shop.rows("SELECT DISTINCT body FROM page ORDER BY 1").await, ["a", "body"]);
    assert_eq!(shop.rows("SELECT label FROM line ORDER BY 1").await, ["one", "two"]);
    stays_quiet(&shop, &docs).await;
    docs[0]["files"][0]["pages"][3]["body"] = json!("Other");
    docs[0]["lines"][1]["qty"] = json!(5);
    writes(&shop, &docs, &[("line", 0, 1, 0), ("page", 0, 1, 0)]).await;
}

/// Where no trigger can change a row nothing is asked, and nothing recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p38_tables_without_such_triggers_pay_nothing() {
    let shop = Shop::open().await;
    shop.db.execute(TIDY).await;
    shop.db
        .execute(
            "ALTER TABLE orders DISABLE TRIGGER tidy; ALTER TABLE page DISABLE TRIGGER tidy;
             ALTER TABLE tag ENABLE REPLICA TRIGGER tidy; DROP TRIGGER tidy ON line;
             CREATE TRIGGER path BEFORE UPDATE OF storage_path ON file FOR EACH ROW EXECUTE FUNCTION tidy_tag();
             DROP FUNCTION rowdelta.rewritten_rows; DROP FUNCTION rowdelta.record_rewritten;",
        )
        .await;
    let mut docs = vec![order(1), order(2)];
    shop.sync(&docs).await;
    docs[0]["customer"] = json!("Eva");
    docs[0]["tags"] = json!(["Red"]);
    shop.sync(&docs).await;
    verify(&shop, &[]).await.finds_nothing();
    shop.db.execute("ALTER TABLE orders ENABLE ALWAYS TRIGGER tidy").await;
    assert_eq!(shop.run(&docs).await.code, 0, "nothing is looked at where nothing changed");
    docs[0]["customer"] = json!("Ana");
    assert_ne!(shop.run(&docs).await.code, 0, "now something would be asked");
}
