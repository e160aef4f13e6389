//! Triggers that rowdelta cannot live with are named; those that it can are not refused.

use serde_json::json;

use super::{TIDY, order, writes};
use crate::shop::{MAPPING, SCHEMA, Shop, failures};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p20_p21_a_reference_of_another_width_is_no_other_reference() {
    let line = "line (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint";
    assert!(SCHEMA.contains(line));
    let schema = SCHEMA.replace(line, &line.replace("order_id bigint", "order_id int"));
    let shop = Shop::with(&schema, MAPPING).await;
    shop.db.execute(TIDY).await;
    let mut docs = vec![order(1)];
    shop.run(&docs).await.succeeded();
    shop.written().await;
    docs[0]["lines"][0]["label"] = json!("Uno");
    writes(&shop, &docs, &[("line", 0, 1, 0)]).await;
}

/// With a foreign key rows below are refused; without one nothing but the trigger would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p25_a_trigger_that_replaces_the_id_fails_the_document_by_name() {
    let unchecked = SCHEMA.replace(" REFERENCES orders", "");
    let mapped = MAPPING.replace("[root.columns]\n", "[root.columns]\nid = \"id\"\n");
    for (schema, mapping) in
        [(&*unchecked, MAPPING), (&unchecked, &mapped), (SCHEMA, MAPPING), (SCHEMA, &mapped)]
    {
        let shop = Shop::with(schema, mapping).await;
        shop.db
            .execute(
                "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN NEW.id := NEW.id + 1000; RETURN NEW; END $$;
                 CREATE TRIGGER other BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.number = 'N2')
                     EXECUTE FUNCTION other()",
            )
            .await;
        let mut docs = vec![order(1), order(2), order(3)];
        docs.iter_mut().zip(1..).for_each(|(doc, id)| doc["id"] = json!(id));
        for _ in 0..2 {
            let ran = shop.run(&docs).await;
            assert_eq!((ran.code, ran.report["retries"].as_u64()), (1, Some(0)), "{}", ran.stderr);
            let start = "feed.ndjson:2 [N2] shop: a trigger of public.orders (\"other\") changes \"id\", ";
            assert!(matches!(&failures(&ran)[..], [one] if one.starts_with(start)), "{:#?}", failures(&ran));
            assert_eq!(shop.rows("SELECT number FROM orders ORDER BY 1").await, ["N1", "N3"]);
        }
    }
}

const HUSH: &str = "CREATE FUNCTION hush() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;";

/// What fails because of it is not what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p25_p27_a_suppressed_write_that_another_write_needs_is_looked_at_again() {
    let shop = Shop::open().await;
    let mut docs = vec![order(1)];
    shop.db.execute(&format!("{HUSH} CREATE UNIQUE INDEX ON line (order_id, label)")).await;
    shop.run(&docs).await.succeeded();
    let quiet =
        "CREATE TRIGGER quiet BEFORE UPDATE ON line FOR EACH ROW WHEN (OLD.no = 1) EXECUTE FUNCTION hush()";
    shop.db.execute(quiet).await;
    docs[0]["lines"][0]["label"] = json!("three");
    docs[0]["lines"][1]["label"] = json!("One");
    let ran = shop.run_with(&docs, &["--retries", "1"]).await;
    let message = "1 of 1 rows could not be written: someone else changed them meanwhile, or a BEFORE trigger suppressed it \
                   (\"quiet\")";
    assert_eq!(failures(&ran), [format!("feed.ndjson:1 [N1] lines: {message} retryable")]);
    assert!(ran.code == 6 && ran.report["retries"] != 0, "{}", ran.stderr);
    shop.db.execute("DROP TRIGGER quiet ON line").await;
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.rows("SELECT no, label FROM line ORDER BY 1").await, ["1|three", "2|One"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p19_p21_p25_a_suppressed_detour_fails_the_document_by_name() {
    let shop = Shop::open().await;
    let mut docs = vec![order(1), order(2)];
    shop.db.execute(&format!("{HUSH} CREATE UNIQUE INDEX ON line (order_id, label)")).await;
    shop.run(&docs).await.succeeded();
    shop.db.execute("CREATE TRIGGER quiet BEFORE UPDATE ON line FOR EACH ROW EXECUTE FUNCTION hush()").await;
    docs[1]["lines"][0]["label"] = json!("two");
    docs[1]["lines"][1]["label"] = json!("One");
    let ran = shop.run(&docs).await;
    let message = "rows of public.line swap values of label, and no third value can stand in for a moment (make the \
                   constraint DEFERRABLE, or the column nullable): 1 of 1 rows of public.line were not \
                   updated: a BEFORE trigger suppressed it (\"quiet\"); have it let them through, or leave them out of \
                   the feed";
    assert_eq!(failures(&ran), [format!("feed.ndjson:2 [N2] lines: {message}")]);
    assert_eq!((ran.code, ran.report["retries"].as_u64()), (1, Some(0)), "{}", ran.stderr);
}

/// A new order and its file refer to each other: the order is inserted without, and filled in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_p21_p25_a_suppressed_fill_fails_the_document_by_name() {
    let shop = Shop::open().await;
    shop.db
        .execute(&format!(
            "{HUSH} ALTER TABLE orders ADD FOREIGN KEY (units) REFERENCES file (official);
             CREATE TRIGGER quiet BEFORE UPDATE ON orders FOR EACH ROW WHEN (OLD.number = 'N2') EXECUTE FUNCTION hush()"
        ))
        .await;
    let mut docs = vec![order(1), order(2), order(3)];
    docs.iter_mut().zip(1..).for_each(|(doc, file)| doc["units"] = json!(file));
    let ran = shop.run(&docs).await;
    let message = "1 of 1 rows of public.orders were not updated: a BEFORE trigger suppressed it (\"quiet\"); have it \
                   let them through, or leave them out of the feed";
    assert_eq!(failures(&ran), [format!("feed.ndjson:2 [N2] shop: {message}")]);
    assert_eq!((ran.code, ran.report["retries"].as_u64()), (1, Some(0)), "{}", ran.stderr);
    assert_eq!(shop.rows("SELECT number, units FROM orders ORDER BY 1").await, ["N1|1", "N3|3"]);
}

/// A line refers by name to a file that is replaced by another one of that name: for a moment it must refer to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p18_p21_p25_p27_a_suppressed_detachment_fails_the_document_by_name() {
    let shop = Shop::open().await;
    shop.db
        .execute(&format!(
            "{HUSH} CREATE UNIQUE INDEX ON file (name);
             ALTER TABLE line ADD FOREIGN KEY (label) REFERENCES file (name)"
        ))
        .await;
    let line = json!([{ "no": 1, "label": "F" }]);
    let file = |id: usize| json!([{ "id": id, "name": "F" }]);
    let mut docs =
        vec![json!({ "number": "N1", "files": file(1) }), json!({ "number": "N2", "lines": line })];
    shop.run(&docs).await.succeeded();
    docs.pop();
    docs[0]["files"] = file(2);
    // First the line cannot let go; then it cannot be given back what it referred to.
    for when in ["OLD.label = 'F'", "NEW.label = 'F'"] {
        shop.db
            .execute(&format!(
                "DROP TRIGGER IF EXISTS quiet ON line;
                 CREATE TRIGGER quiet BEFORE UPDATE ON line FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION hush()"
            ))
            .await;
        let ran = shop.run(&docs).await;
        let message = "1 of 1 rows of public.line were not updated: a BEFORE trigger suppressed it (\"quiet\"); have it \
                       let them through, or leave them out of the feed";
        let failed = failures(&ran);
        assert!(
            matches!(&failed[..], [one] if one.starts_with("feed.ndjson:1 [N1]") && one.ends_with(message)),
            "{failed:#?}"
        );
        assert_eq!((ran.code, ran.report["retries"].as_u64()), (1, Some(0)), "{}", ran.stderr);
        assert_eq!(shop.rows("SELECT official, name FROM file").await, ["1|F"]);
    }
    shop.db.execute("DROP TRIGGER quiet ON line").await;
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.rows("SELECT official, name, label FROM file, line").await, ["2|F|F"]);
}
