//! From the bytes of a document to its rows: parsing, then parsing and shredding. Answers are checked before
//! they are timed.
//!
//! `cargo bench --bench shred`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rowdelta::json::Json;

#[path = "support/grants.rs"]
mod grants;

use grants::Grants;

const DOCUMENTS: usize = 1_000;

/// How many rows the document asks for: one, and one for each item of a list.
fn rows_expected(document: &str) -> usize {
    let value: serde_json::Value = serde_json::from_str(document).expect("a document is JSON");
    let members = value.as_object().expect("a document is an object").values();
    1 + members.filter_map(|member| member.as_array()).map(Vec::len).sum::<usize>()
}

fn documents(criterion: &mut Criterion) {
    let grants = Grants::generate(DOCUMENTS);
    for document in &grants.documents {
        assert_eq!(grants.rows(document).len(), rows_expected(document), "{document}");
    }
    let mut group = criterion.benchmark_group("shred");
    group.throughput(Throughput::Bytes(grants.bytes()));
    group.bench_function("parse/1k", |bencher| {
        let parse = |document: &String| drop(black_box(Json::parse(document.as_bytes())));
        bencher.iter(|| grants.documents.iter().for_each(parse));
    });
    group.bench_function("parse_and_shred/1k", |bencher| {
        bencher.iter(|| grants.documents.iter().for_each(|document| drop(black_box(grants.rows(document)))));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = documents
}
criterion_main!(benches);
