//! Hashing: bytes of a document, one row, all rows of a document. Every answer is checked before it is timed.
//!
//! `cargo bench --bench fingerprint`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rowdelta::fingerprint::{fingerprints, raw, row};
use rowdelta::row::RowSet;

#[path = "support/grants.rs"]
mod grants;

use grants::Grants;

const DOCUMENTS: usize = 1_000;
const RAW_BYTES: usize = 4096;

/// 1,000 documents of 4 KB each, all different: more than the first-level cache holds.
fn raw_bytes(criterion: &mut Criterion) {
    let schema = Grants::generate(1).schema;
    let mut random = fastrand::Rng::with_seed(3);
    let mut document = || {
        let mut bytes = vec![0; RAW_BYTES];
        random.fill(&mut bytes);
        bytes
    };
    let documents: Vec<Vec<u8>> = (0..DOCUMENTS).map(|_| document()).collect();
    assert_eq!(
        raw(&schema, &documents[0]).0,
        blake3::keyed_hash(&schema.digest, &documents[0]).as_bytes()[..16]
    );
    let mut group = criterion.benchmark_group("fingerprint/raw");
    group.throughput(Throughput::Bytes((DOCUMENTS * RAW_BYTES) as u64));
    group.bench_function("4KB", |bencher| {
        bencher.iter(|| {
            documents.iter().map(|bytes| raw(&schema, black_box(bytes)).0[0]).fold(0, u8::wrapping_add)
        });
    });
    group.finish();
}

fn one_row(criterion: &mut Criterion) {
    let grants = Grants::generate(1);
    let set = grants.rows(&grants.documents[0]);
    let all = fingerprints(&grants.mapping, &grants.schema, &set);
    let mut group = criterion.benchmark_group("fingerprint/row");
    for (name, relation) in [("wide", "convocatorias"), ("narrow", "documentos"), ("link", "regiones")] {
        let found = grants.mapping.relations.iter().position(|other| other.name == relation);
        let ix = found.expect("the example has the relation");
        let (table, tuple) = (&grants.schema.tables[ix], &set.relations[ix].rows[0].tuple);
        assert_eq!(row(table, tuple), all.rows[ix][0]);
        group.throughput(Throughput::Bytes(tuple.as_bytes().len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| row(table, black_box(tuple))));
    }
    group.finish();
}

fn whole_document(criterion: &mut Criterion) {
    let grants = Grants::generate(DOCUMENTS);
    let sets: Vec<RowSet> = grants.documents.iter().map(|document| grants.rows(document)).collect();
    let of = |set: &RowSet| fingerprints(&grants.mapping, &grants.schema, set);
    let mut respelled = sets[4].clone();
    respelled.relations.iter_mut().for_each(|relation| relation.rows.reverse());
    assert_ne!(respelled, sets[4]);
    assert_eq!(of(&respelled).document, of(&sets[4]).document, "the order of a list is no difference");
    assert_ne!(of(&sets[3]).document, of(&sets[4]).document);
    let cells = |set: &RowSet| {
        let rows = set.relations.iter().flat_map(|relation| &relation.rows);
        rows.map(|row| row.tuple.as_bytes().len() as u64).sum::<u64>()
    };
    let mut group = criterion.benchmark_group("fingerprint/document");
    group.throughput(Throughput::Bytes(sets.iter().map(cells).sum()));
    group.bench_function("1k", |bencher| {
        bencher.iter(|| sets.iter().for_each(|set| drop(black_box(of(set)))));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = raw_bytes, one_row, whole_document
}
criterion_main!(benches);
