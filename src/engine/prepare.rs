//! Documents → rows and fingerprints, a batch at a time, asking the database where shredding needs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::document::{Document, DocumentKey, Origin};
use crate::engine::report::Failure;
use crate::engine::run::Run;
use crate::error::Error;
use crate::fingerprint::{Fingerprints, RawFingerprint, fingerprints};
use crate::json::Json;
use crate::postgres::questions;
use crate::row::RowSet;
use crate::shred::{Answers, Questions, Shredded, document_key, label, shred};

/// A document with the hash of its bytes.
#[derive(Debug)]
pub(crate) struct Unread {
    /// Place in the feed, over all its files.
    pub sequence: u64,
    pub document: Document,
    pub raw: RawFingerprint,
}

/// A document whose rows are known.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub sequence: u64,
    pub origin: Origin,
    /// The key in words.
    pub label: String,
    pub key: DocumentKey,
    pub raw: RawFingerprint,
    pub rows: RowSet,
    pub fingerprints: Fingerprints,
    /// Length of the document.
    pub bytes: usize,
}

/// What one pass over a batch came to.
#[derive(Default)]
struct Pass {
    prepared: Vec<(Prepared, Duration)>,
    failures: Vec<Failure>,
    /// Documents that could not be finished without answers.
    waiting: Vec<Unread>,
    questions: Questions,
}

/// Shreds a batch. Documents that do not fit the mapping are reported and left out.
pub(crate) async fn prepare(run: &Arc<Run>, mut unread: Vec<Unread>) -> Result<Vec<Prepared>, Error> {
    let mut answers = run.take_answers();
    let mut prepared = Vec::new();
    while !unread.is_empty() {
        let shared = run.clone();
        let blocking = tokio::task::spawn_blocking(move || {
            let pass = pass(&shared, &answers, unread);
            (pass, answers)
        });
        let pass;
        (pass, answers) = blocking.await.map_err(crate::engine::panicked)?;
        run.tally(|tally| {
            tally.fail_all(pass.failures);
            pass.prepared.iter().for_each(|(document, took)| tally.slow(&document.label, *took));
        });
        prepared.extend(pass.prepared.into_iter().map(|(document, _)| document));
        unread = pass.waiting;
        if !pass.questions.is_empty() {
            ask(run, pass.questions, &mut answers).await?;
        }
    }
    run.return_answers(answers);
    prepared.sort_by_key(|document| document.sequence);
    Ok(prepared)
}

async fn ask(run: &Run, questions: Questions, answers: &mut Answers) -> Result<(), Error> {
    let started = Instant::now();
    let mut connection = run.connections.get().await?;
    let inserted =
        questions::answer(&mut connection, &run.mapping, &run.schema, run.limits(), questions, answers).await?;
    run.tally(|tally| tally.looked_up(&inserted, started.elapsed()));
    Ok(())
}

fn pass(run: &Run, answers: &Answers, unread: Vec<Unread>) -> Pass {
    let mut pass = Pass::default();
    for unread in unread {
        let started = Instant::now();
        match one(run, answers, &unread) {
            Ok(One::Prepared(document)) => pass.prepared.push((*document, started.elapsed())),
            Ok(One::Asks(questions)) => {
                pass.questions.extend(questions);
                pass.waiting.push(unread);
            }
            Err(failure) => pass.failures.push(failure),
        }
    }
    pass
}

enum One {
    Prepared(Box<Prepared>),
    Asks(Questions),
}

fn one(run: &Run, answers: &Answers, unread: &Unread) -> Result<One, Failure> {
    let (mapping, schema) = (&run.mapping, &run.schema);
    let Document { bytes, origin } = &unread.document;
    let json = Json::parse(bytes).map_err(|error| Failure::of_document(origin, None, error.to_string()))?;
    let label = label(mapping, &json);
    let shredded = shred(mapping, schema, answers, &json).map_err(|error| Failure {
        relation: Some(error.relation),
        path: Some(error.path),
        ..Failure::of_document(origin, (!label.is_empty()).then(|| label.clone()), error.message)
    })?;
    Ok(match shredded {
        Shredded::Asks(questions) => One::Asks(questions),
        Shredded::Rows(rows) => One::Prepared(Box::new(Prepared {
            sequence: unread.sequence,
            origin: origin.clone(),
            key: document_key(schema, &rows.relations[0].rows[0].tuple),
            label,
            raw: unread.raw,
            fingerprints: fingerprints(mapping, schema, &rows),
            rows,
            bytes: bytes.len(),
        })),
    })
}
