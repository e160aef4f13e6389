//! What it costs to find bad documents among good ones.

use fastrand::Rng;
use serde_json::{Value, json};

use super::proxy::Proxy;
use crate::shop::Shop;

const DOCUMENTS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p25_of_a_batch_of_1000_exactly_the_bad_documents_fail() {
    let mut shop = Shop::open().await;
    let (dir, name) = shop.db.address();
    let (socket, name) = (dir.join(format!(".s.PGSQL.{}", shop.db.port())), name.to_owned());
    let proxy = Proxy::start(socket).await;
    shop.url = proxy.url(&name);
    shop.db.execute("ALTER TABLE line ADD CHECK (qty >= 0)").await;
    let mut rng = Rng::with_seed(41);
    for (night, bad) in [1, 10, 100].into_iter().enumerate() {
        let numbers = rng.choose_multiple(0..DOCUMENTS, bad);
        let order = |n: usize| {
            let qty = if numbers.contains(&n) { -1 } else { night as i32 };
            json!({ "number": format!("N{n:04}"), "units": night, "lines": [{ "no": 1, "qty": qty }, { "no": 2 }] })
        };
        let docs: Vec<Value> = (0..DOCUMENTS).map(order).collect();
        proxy.set(Vec::new());
        let ran = shop.run_with(&docs, &["--workers", "1", "--batch", "1000"]).await;
        let transactions = proxy.transactions();
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        let failures = ran.report["failures"].as_array().unwrap();
        let mut failed: Vec<String> =
            failures.iter().map(|failure| failure["document"].as_str().unwrap().to_owned()).collect();
        let mut expected: Vec<String> = numbers.iter().map(|n| format!("N{n:04}")).collect();
        failed.sort();
        expected.sort();
        assert_eq!(failed, expected);
        assert!(
            failures.iter().all(|failure| failure["sqlstate"] == "23514" && failure["retryable"] == false)
        );
        let good = "SELECT count(*) FROM orders WHERE units =";
        assert_eq!(shop.db.value(&format!("{good} {night}")).await, (DOCUMENTS - bad).to_string());
        let few = 2.0 * bad as f64 * (DOCUMENTS as f64 / bad as f64).log2();
        println!(
            "{bad} bad of {DOCUMENTS}: {transactions} transactions, 2·bad·log2({DOCUMENTS}/bad) = {few:.0}"
        );
    }
}
