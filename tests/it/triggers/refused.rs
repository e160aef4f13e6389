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

/// Nothing but the trigger would notice: no foreign key refers to the order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p21_p25_a_trigger_that_replaces_the_id_fails_the_document_by_name() {
    let schema = SCHEMA.replace(" REFERENCES orders", "");
    let mapped = MAPPING.replace("[root.columns]\n", "[root.columns]\nid = \"id\"\n");
    for mapping in [MAPPING, &mapped] {
        let shop = Shop::with(&schema, mapping).await;
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
