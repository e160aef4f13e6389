//! `rowdelta plan`: what a sync would do, nothing written. That it is what a sync then does is checked on random nights,
//! in `crate::changes`; here is what it prints, its exit codes, and plans that are saved.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::changes::replay::counts;
use crate::oracle::{Edits, State, Writes};
use crate::real_data::{example, nights, schema_of};
use crate::shop::{Shop, edits, failures, ndjson};
use crate::support::command::{self, Scratch};
use crate::support::{Database, db};

fn order(number: &str, customer: &str) -> Value {
    json!({ "number": number, "customer": customer, "lines": [{ "no": 1, "label": "one", "qty": 1 }],
            "files": [{ "id": number.len(), "name": "f" }], "tags": ["red"], "products": ["p"] })
}

/// Runs the plan of documents: its exit code, what it printed, and standard error. Nothing may be written.
async fn plan(shop: &Shop, docs: &[Value], more: &[&str]) -> (i32, String, String) {
    let traces = async || {
        let traces = "SELECT (SELECT count(*) FROM rowdelta.run), (SELECT count(*) FROM rowdelta.mapping),
                      (SELECT md5(string_agg(s::text, ' ' ORDER BY s.sequencename)) FROM pg_sequences s)";
        shop.rows(traces).await
    };
    let (before, written) = (traces().await, shop.written().await);
    assert_eq!(written, Edits::new(), "of before");
    let feed = shop.scratch.write("planned.ndjson", ndjson(docs));
    let given = ["plan", "-d", shop.db.url(), "-m", shop.mapping.to_str().unwrap(), feed.to_str().unwrap()];
    let ran = command::output(&[&given[..], more].concat());
    assert_eq!((shop.written().await, traces().await), (Edits::new(), before), "{}", ran.2);
    ran
}

/// What was printed without the time it took.
fn timeless(text: &str) -> String {
    let (head, rest) = text.split_once(" s: ").unwrap();
    format!("{}: {rest}", head.rsplit_once(" in ").unwrap().0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_a_plan_says_how_many_rows_and_then_which() {
    let shop = Shop::open().await;
    let long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";
    let mut docs = vec![order("A", "Ana"), order("BB", "Eva"), order("CCC", "Ida")];
    docs[0]["note"] = json!(long);
    shop.run(&docs).await.succeeded();
    shop.written().await;
    let (code, out, stderr) = plan(&shop, &docs, &["--exit-code"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(
        timeless(&out),
        "shop: 3 documents compared: 3 unchanged, 0 new, 0 changed, 0 would fail\n\nNothing to do. Nothing was written.\n"
    );
    docs[0]["customer"] = json!("Ana M.");
    docs[0]["note"] = json!(long.replace("seven", "SEVEN"));
    docs[0]["tags"] = json!([]);
    docs[0]["products"] = json!(["p", "new one"]);
    let file = docs[1]["files"].as_array_mut().unwrap().pop().unwrap();
    docs[0]["files"].as_array_mut().unwrap().push(file);
    docs[2]["lines"][0]["qty"] = json!(null);
    docs.push(order("DDDD", ""));
    docs[3]["lines"] = json!([]);
    let (code, out, stderr) = plan(&shop, &docs, &[]).await;
    assert_eq!(code, 0, "{stderr}");
    let said = "\
shop: 4 documents compared: 0 unchanged, 1 new, 3 changed, 0 would fail
  relation       add    update      move    remove
  shop             1         1         ·         ·
  lines            ·         1         ·         ·
  files            1         ·         1         ·
  tags             1         ·         ·         1
  products         2         ·         ·         ·
  product          1         ·         ·         ·

catalogues
  + product code=new one

document A
  - tags
      word  red
  ~ shop number=A
      customer  Ana -> Ana M.
      note      … three four five six [-seven-]{+SEVEN+} eight nine ten eleven …
  > files official=2
      order_id  2 -> 1
  + products product_id=(new new one)

document CCC
  ~ lines no=1
      qty  1 -> NULL

document DDDD
  + shop number=DDDD
      customer  \"\"
  + files official=4
      name  f
  + tags
      word  red
  + products product_id=1 (p)

Plan: 6 to add, 2 to update, 1 to move, 1 to remove. Nothing was written.
";
    assert_eq!(timeless(&out), said);
    // The same as lines, and then done.
    let (code, out, _) = plan(&shop, &docs, &["--json", "--exit-code"]).await;
    assert_eq!(code, 5);
    let mut lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let report = lines.pop().unwrap();
    assert_eq!((lines.len(), &report["documents"]["changed"]), (10, &json!(3)));
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(ran.rows_written(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_p32_a_plan_names_documents_that_would_fail_and_deletions_that_would_be_withheld() {
    let shop = Shop::open().await;
    let docs: Vec<Value> = (1..=30).map(|n| order(&"x".repeat(n), "Ana")).collect();
    shop.run(&docs).await.succeeded();
    shop.written().await;
    // A document that does not fit, and one that is no JSON.
    let mut bad = docs.clone();
    bad[4]["units"] = json!("many");
    let (code, out, _) = plan(&shop, &bad, &[]).await;
    assert_eq!(code, 1);
    assert!(out.contains("1 would fail\n  would fail: xxxxx (") && out.contains("): units: "), "{out}");
    // Deletions.
    let (code, out, _) = plan(&shop, &docs[..28], &["--complete"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("  2 recorded, and not in the feed\n  2 would be deleted\n"), "{out}");
    assert!(out.contains("Plan: 0 to add, 0 to update, 0 to move, 10 to remove."), "{out}");
    let (code, out, _) = plan(&shop, &docs[..28], &["--complete", "--deletes-max", "3"]).await;
    assert_eq!(code, 3, "{out}");
    assert!(
        out.contains("2 would be withheld\n") && out.contains("more than 3 rows would be deleted; "),
        "{out}"
    );
    let (code, out, _) = plan(&shop, &docs[..3], &["--complete", "--expect", "20"]).await;
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("withheld: the feed has 3 documents; at least 20 were expected"), "{out}");
    // What cannot be planned at all.
    let (code, _, stderr) = plan(&shop, &docs, &["no-such-feed"]).await;
    assert_eq!(code, 2, "{stderr}");
    // Many documents are cut, and --full shows them.
    let mut changed = docs.clone();
    changed.iter_mut().for_each(|doc| doc["customer"] = json!("Eva"));
    let (_, out, _) = plan(&shop, &changed, &[]).await;
    assert_eq!(out.matches("\ndocument ").count(), 20);
    assert!(out.contains("\nand more documents: --full shows all"), "{out}");
    let (_, out, _) = plan(&shop, &changed, &["--full"]).await;
    assert_eq!(out.matches("\ndocument ").count(), 30);
}

/// Root rows that somebody deleted, and a table that was emptied, are found as a sync finds them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p36_a_plan_finds_what_was_lost() {
    let shop = Shop::open().await;
    let docs = vec![order("A", "Ana"), order("BB", "Eva"), order("CCC", "Ida")];
    shop.run(&docs).await.succeeded();
    shop.db.execute("TRUNCATE tag; DELETE FROM file WHERE official = 2").await;
    shop.written().await;
    let (_, out, _) = plan(&shop, &docs, &["--exit-code"]).await;
    assert!(out.contains("Plan: 4 to add, 0 to update, 0 to move, 0 to remove."), "{out}");
    shop.run(&docs).await.succeeded();
    assert_eq!(shop.written().await, edits(&[("file", 1, 0, 0), ("tag", 3, 0, 0)]));
    let lost = "DELETE FROM line WHERE order_id = 2; DELETE FROM file WHERE order_id = 2; DELETE FROM tag WHERE order_id = 2;
                DELETE FROM order_product WHERE order_id = 2; DELETE FROM orders WHERE id = 2;
                DELETE FROM line WHERE order_id = 1";
    shop.db.execute(lost).await;
    shop.written().await;
    // What is below a root row that is there is believed.
    let (_, out, _) = plan(&shop, &docs, &[]).await;
    assert!(out.contains("Plan: 5 to add, 0 to update, 0 to move, 0 to remove."), "{out}");
    let ran = shop.run(&docs).await.succeeded();
    assert_eq!(ran.rows_written(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p29_a_saved_plan_is_done_as_it_is_or_refused_as_stale() {
    let shop = Shop::open().await;
    let mut docs = vec![order("A", "Ana"), order("BB", "Eva"), order("CCC", "Ida")];
    let file = shop.scratch.path("saved.plan");
    let file = file.to_str().unwrap();
    plan(&shop, &docs, &["--out", file]).await;
    let ran = shop.run_with(&docs, &["--plan", file]).await.succeeded();
    assert_eq!(ran.rows_written(), 16);
    shop.written().await;
    // Done once, it is stale.
    let ran = shop.run_with(&docs, &["--plan", file]).await;
    assert_eq!(ran.code, 2);
    let why =
        "the plan is stale: these documents would change otherwise now: A (rows planned: 5, now: 0), BB";
    assert!(
        ran.stderr.contains(why) && ran.stderr.contains("; plan anew; nothing was written"),
        "{}",
        ran.stderr
    );
    // Another feed; a row that somebody changed meanwhile; another mapping.
    docs[0]["customer"] = json!("Ana M.");
    docs[1]["products"] = json!(["p", "brand new"]);
    docs[2]["files"] = json!([]);
    plan(&shop, &docs, &["--out", file]).await;
    let ran = shop.run_with(&docs[..2], &["--plan", file]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("CCC (rows planned: 1, now: 0)"), "{}", ran.stderr);
    shop.db.execute("UPDATE orders SET customer = 'other' WHERE number = 'A'").await;
    shop.written().await;
    let ran = shop.run_with(&docs, &["--plan", file]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("A (rows planned: 1, now: 1)"), "{}", ran.stderr);
    shop.db
        .execute(
            "UPDATE orders SET customer = 'Ana' WHERE number = 'A'; ALTER TABLE line ALTER qty TYPE bigint",
        )
        .await;
    shop.written().await;
    let ran = shop.run_with(&docs, &["--plan", file]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("the mapping, or the type of a column, was changed since"), "{}", ran.stderr);
    assert_eq!(shop.written().await, Edits::new());
    shop.db.execute("ALTER TABLE line ALTER qty TYPE int").await;
    plan(&shop, &docs, &["--out", file]).await;
    let ran = shop.run_with(&docs, &["--plan", file]).await.succeeded();
    assert_eq!(ran.rows_written(), 4, "{:#}", ran.report);
}

/// What changes between the plan's last look and the write fails the document, by name, and keeps no other out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p24_p29_a_document_that_is_changed_under_a_plan_fails_by_name() {
    let shop = Shop::open().await;
    let mut docs = vec![order("A", "Ana"), order("BB", "Eva"), order("CCC", "Ida")];
    shop.run(&docs).await.succeeded();
    docs.iter_mut().for_each(|doc| doc["customer"] = json!("new"));
    docs[1]["lines"][0]["qty"] = json!(7);
    shop.written().await;
    let file = shop.scratch.path("saved.plan");
    let file = file.to_str().unwrap();
    plan(&shop, &docs, &["--out", file]).await;
    // As the run begins, which is after the plan was looked at again, somebody else writes.
    let meddle = "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            UPDATE public.line SET qty = 9 WHERE order_id = (SELECT id FROM public.orders WHERE number = 'BB');
            UPDATE public.orders SET customer = 'new' WHERE number = 'CCC'; RETURN NULL; END $$;
        CREATE TRIGGER meddle AFTER INSERT ON rowdelta.run FOR EACH ROW EXECUTE FUNCTION meddle()";
    shop.db.execute(meddle).await;
    let ran = shop.run_with(&docs, &["--plan", file]).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let said = failures(&ran);
    let otherwise =
        "a row would be written otherwise than planned: what it depends on was changed meanwhile; plan anew";
    assert!(said.iter().any(|one| one.contains("[BB] lines") && one.ends_with(otherwise)), "{said:#?}");
    assert!(
        said.iter()
            .any(|one| one.starts_with("the plan:0 [CCC]") && one.contains("needed no change any more")),
        "{said:#?}"
    );
    let stored = shop.rows("SELECT number, customer FROM orders ORDER BY 1").await;
    assert_eq!(stored, ["A|new", "BB|Eva", "CCC|new"]);
}

/// Syncs each feed by a saved plan. What was planned, told and written is the same, row for row; gives how many rows.
async fn done_as_planned(db: &Database, schema: &str, mapping: &Path, feeds: &[PathBuf]) -> Vec<u64> {
    db.execute(schema).await;
    command::install(db.url());
    let state = State::open(db.client().await, mapping).await.unwrap();
    let writes = Writes::count(db.client().await, &state.mapping).await.unwrap();
    let scratch = Scratch::new();
    let [saved, changes] = ["saved.plan", "changes.ndjson"].map(|name| scratch.path(name));
    let mut rows = Vec::new();
    for feed in feeds {
        let files = [mapping, feed].map(|path| path.to_str().unwrap());
        let given = ["plan", "--complete", "-d", db.url(), "-m", files[0], files[1]];
        let (code, stdout, stderr) = command::output(&[&given[..], &["--json"]].concat());
        assert_eq!(code, 0, "{stderr}");
        let mut planned: Vec<Value> =
            stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let report = planned.pop().unwrap();
        let (code, _, stderr) = command::output(&[&given[..], &["--out", saved.to_str().unwrap()]].concat());
        assert_eq!((code, writes.take().await.unwrap()), (0, Edits::new()), "{stderr}");
        let by_plan =
            ["--complete", "--plan", saved.to_str().unwrap(), "--changes", changes.to_str().unwrap()];
        let ran = command::sync_with(db.url(), mapping, &[feed], &by_plan).succeeded();
        let told = std::fs::read_to_string(&changes).unwrap();
        let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let written = writes.take().await.unwrap();
        assert_eq!((counts(&planned), counts(&told)), (written.clone(), written), "{}", feed.display());
        for count in ["read", "repeated", "unchanged", "new", "changed", "removed"] {
            assert_eq!(report["documents"][count], ran.report["documents"][count], "{count}");
        }
        rows.push(ran.rows_written());
    }
    println!("{}: rows planned, told and written: {rows:?}", mapping.display());
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_real_nights_are_done_as_planned() {
    let (Some(replay), Some(releases)) = (nights("bdns/replay"), nights("dotnet-releases")) else { return };
    for (name, feeds) in [("convocatorias", replay), ("dotnet_releases", releases)] {
        let mapping = example(name).join("mapping.toml");
        let rows = done_as_planned(&db().await, &schema_of(name), &mapping, &feeds).await;
        assert!(rows.iter().all(|rows| *rows > 0), "{rows:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p05_generated_nights_are_done_as_planned() {
    let scratch = Scratch::new();
    let dir = scratch.path("dumps");
    let (code, _, stderr) = command::output(&["demo", "--calls", "400", "--write", dir.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let schema = std::fs::read_to_string(dir.join("schema.sql")).unwrap();
    let feeds: Vec<PathBuf> = (1..=4).map(|n| dir.join(format!("night-{n}.ndjson.gz"))).collect();
    let rows = done_as_planned(&db().await, &schema, &dir.join("mapping.toml"), &feeds).await;
    assert!(rows[0] > 3_000 && rows[2] > 0 && (rows[1], rows[3]) == (0, 0), "{rows:?}");
}
