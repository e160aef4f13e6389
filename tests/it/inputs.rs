//! The same documents laid out in every way that a feed may be.

use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::oracle::Edits;
use crate::shop::{Shop, edits, failures, ndjson};
use crate::support::command;

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap()
}

/// The documents in each layout.
fn layouts(shop: &Shop, docs: &[Value]) -> [PathBuf; 5] {
    let array = Value::from(docs.to_vec());
    let objects: String = docs.iter().map(|doc| pretty(doc) + "\n").collect();
    std::fs::create_dir_all(shop.scratch.path("orders/more")).unwrap();
    for (at, doc) in docs.iter().enumerate() {
        match at % 3 {
            0 => shop.scratch.write(&format!("orders/{at}.json"), pretty(doc)),
            1 => shop.scratch.write(&format!("orders/more/{at}.json.gz"), gzip(&doc.to_string())),
            _ => shop.scratch.write(&format!("orders/more/{at}.jsonl"), ndjson(std::slice::from_ref(doc))),
        };
    }
    [
        shop.scratch.write("lines.ndjson", ndjson(docs)),
        shop.scratch.write("array.json", array.to_string()),
        shop.scratch.write("pretty.json.gz", gzip(&pretty(&array))),
        shop.scratch.write("objects.json", objects),
        shop.scratch.path("orders"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_layout_fills_the_tables_alike_and_the_next_one_writes_nothing() {
    let order = |n: u64| {
        json!({ "number": format!("N{n}"), "note": "a \"{[\\ note\n", "total": n as f64 / 4.0,
                "lines": [{ "no": 1, "qty": n, "serials": ["]", "}"] }, { "no": 2 }], "tags": ["é", "é"] })
    };
    let docs: Vec<Value> = (0..60).map(order).collect();
    for first in 0..5 {
        let shop = Shop::open().await;
        let feeds = layouts(&shop, &docs);
        shop.expect(&docs).await;
        let ran = shop.run_file(&feeds[first], &[]).await.succeeded();
        shop.check(&ran).await;
        assert_eq!((ran.documents("read"), ran.documents("new")), (60, 60));
        let next = shop.run_file(&feeds[(first + 1) % 5], &[]).await.succeeded();
        assert_eq!((next.documents("read"), next.documents("unchanged")), (60, 60));
        assert_eq!((next.rows_written(), shop.written().await), (0, Edits::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_bad_elements_of_an_array_are_reported_with_line_and_item_and_all_others_are_in() {
    let shop = Shop::open().await;
    let long = "x".repeat(300);
    let text = format!(
        r#"[{{"number":"A"}}, {{"number":"BROKEN","total":}}, 7,
  {{
    "number": "WORD",
    "units": "two"
  }}, {{"number":"MUCH","note":"{long}"}}, {{"number":"A","note":"other"}}, {{"number":"Z"}}]"#
    );
    let ran = shop.run_file(&shop.scratch.write("feed.json", text), &["--document-bytes-max", "200"]).await;
    let path = shop.scratch.path("feed.json");
    let found: Vec<String> =
        failures(&ran).iter().map(|said| said.replace(path.to_str().unwrap(), "feed.json")).collect();
    assert_eq!(
        found,
        [
            "feed.json:1, item 2: not JSON: expected a value at byte 28 of the document",
            "feed.json:1, item 3 shop .: expected an object, found a number",
            r#"feed.json:2, item 4 [WORD] shop units: invalid input syntax for type bigint: "two""#,
            "feed.json:5, item 5: the document has 327 bytes; at most 200 are read (--document-bytes-max)",
            "feed.json:5, item 6 [A]: stands twice in the feed with different content: first at feed.json:1, item 1",
        ]
    );
    assert_eq!((ran.code, ran.documents("read"), ran.documents("new")), (1, 7, 2), "{}", ran.stderr);
    assert!(ran.stderr.contains("feed.json:1, item 2: not JSON"), "{}", ran.stderr);
    assert_eq!(shop.rows("SELECT number FROM orders ORDER BY 1").await, ["A", "Z"]);
    assert_eq!(shop.rows("SELECT line, item FROM rowdelta.failure ORDER BY 2 LIMIT 1").await, ["1|2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_an_array_that_breaks_off_aborts_the_run_and_what_came_before_is_in() {
    let shop = Shop::open().await;
    let broken = [
        (
            r#"[{"number":"A"},{"number":"B"}"#,
            "1: after item 2: expected `,` or `]`, found the end of the file",
        ),
        ("[{\"number\":\"A\"},\n{\"number\":\"B\"} {", "2: after item 2: expected `,` or `]`, found `{`"),
        (
            "{\n\"number\":\"A\"}\n{\n\"number\":\"C\"",
            "4: after item 1: the file ends within the document that begins on line 3",
        ),
    ];
    for (text, said) in broken {
        let feed = shop.scratch.write("feed.json", text);
        let ran = shop.run_file(&feed, &[]).await;
        assert_eq!((ran.code, &ran.report["status"]), (2, &json!("aborted")), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("feed.json:{said}\n")), "{}", ran.stderr);
    }
    assert_eq!(shop.rows("SELECT number FROM orders ORDER BY 1").await, ["A", "B"]);
    assert_eq!(shop.written().await, edits(&[("orders", 2, 0, 0)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_without_feed_files_exits_2_before_anything_is_written() {
    let shop = Shop::open().await;
    let good = shop.scratch.write("good.json", r#"{"number":"A"}"#);
    let directory = shop.scratch.path("empty");
    std::fs::create_dir(&directory).unwrap();
    let arguments: Vec<String> =
        ["sync", "-d", shop.db.url(), "-m", shop.mapping.to_str().unwrap(), good.to_str().unwrap()]
            .map(str::to_owned)
            .into_iter()
            .chain([directory.to_str().unwrap().to_owned()])
            .collect();
    let run = move || command::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, said) = tokio::task::spawn_blocking(run).await.unwrap();
    let expected = format!(
        "rowdelta: {}: no file in this directory, or below it, ends in .json, .ndjson or .jsonl (or these with .gz or \
         .zst)\n",
        directory.display()
    );
    assert_eq!((code, said), (2, expected));
    assert_eq!(shop.written().await, Edits::new());
}
