//! Documents → rows and fingerprints, a batch at a time, asking the database where shredding needs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::document::{Document, DocumentKey, Origin, short};
use crate::engine::patience::Tries;
use crate::engine::report::Failure;
use crate::engine::roots::alternate_key;
use crate::engine::run::Run;
use crate::error::{Error, ErrorKind};
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
    /// Eight bytes that stand for the alternate key, if it has one.
    pub alternate: Option<u64>,
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

/// Shreds a batch. Documents that do not fit the mapping, or about which the database cannot answer, are
/// reported and left out.
///
/// # Errors
/// Only what ends the run: the database is out of reach.
pub(crate) async fn prepare(run: &Arc<Run>, unread: Vec<Unread>) -> Result<Vec<Prepared>, Error> {
    let mut answers = run.take_answers();
    let mut prepared = Vec::new();
    let mut groups = vec![unread];
    while let Some(group) = groups.pop() {
        let shared = run.clone();
        let blocking = tokio::task::spawn_blocking(move || {
            let pass = pass(&shared, &answers, group);
            (pass, answers)
        });
        let pass;
        (pass, answers) = blocking.await.map_err(crate::engine::panicked)?;
        run.tally(|tally| {
            tally.fail_all(pass.failures);
            pass.prepared.iter().for_each(|(document, took)| tally.slow(&document.label, *took));
        });
        prepared.extend(pass.prepared.into_iter().map(|(document, _)| document));
        if !pass.waiting.is_empty() {
            let answered = ask(run, pass.questions, &mut answers).await;
            groups.extend(after_asking(run, pass.waiting, answered)?);
        }
    }
    run.return_answers(answers);
    prepared.sort_by_key(|document| document.sequence);
    Ok(prepared)
}

/// What to shred next: the documents that asked; where the database refused, halves of them, until the one
/// that causes it stands alone.
fn after_asking(
    run: &Run,
    mut waiting: Vec<Unread>,
    answered: Result<(), Error>,
) -> Result<Vec<Vec<Unread>>, Error> {
    match answered {
        Ok(()) => Ok(vec![waiting]),
        Err(error) if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Setup) => Err(error),
        Err(error)
            if run.patience.is_stopped() && (error.is_transient() || error.kind() == ErrorKind::Stopped) =>
        {
            run.patience.give_up();
            Ok(Vec::new())
        }
        Err(error) if waiting.len() > 1 && !error.is_disk_full() => {
            let half = waiting.split_off(waiting.len() / 2);
            Ok(vec![half, waiting])
        }
        Err(error) => {
            let failure = |unread: &Unread| {
                let document = Json::parse(&unread.document.bytes).map(|json| label(&run.mapping, &json));
                Failure::of_error(&unread.document.origin, &document.unwrap_or_default(), &error)
            };
            run.tally(|tally| tally.fail_all(waiting.iter().map(failure).collect()));
            Ok(Vec::new())
        }
    }
}

/// Asks, and asks again after errors that may pass.
async fn ask(run: &Run, questions: Questions, answers: &mut Answers) -> Result<(), Error> {
    let mut tries = Tries::default();
    loop {
        let started = Instant::now();
        let error = match ask_once(run, questions.clone(), answers).await {
            Ok(inserted) => {
                run.tally(|tally| tally.looked_up(&inserted, started.elapsed()));
                return Ok(());
            }
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        let Some(pause) = run.patience.next(&mut tries) else { return Err(error) };
        run.patience.count();
        run.patience.pause(pause).await;
    }
}

async fn ask_once(run: &Run, questions: Questions, answers: &mut Answers) -> Result<Vec<u64>, Error> {
    let mut connection = run.connection().await?;
    questions::answer(&mut connection, &run.mapping, &run.schema, run.limits(), questions, answers).await
}

fn pass(run: &Run, answers: &Answers, unread: Vec<Unread>) -> Pass {
    let mut pass = Pass::default();
    for unread in unread {
        let started = Instant::now();
        match one(run, answers, &unread) {
            One::Prepared(document) => pass.prepared.push((*document, started.elapsed())),
            One::Asks(questions) => {
                pass.questions.extend(questions);
                pass.waiting.push(unread);
            }
            One::Fails(failure) => pass.failures.push(*failure),
        }
    }
    pass
}

enum One {
    Prepared(Box<Prepared>),
    Asks(Questions),
    Fails(Box<Failure>),
}

fn one(run: &Run, answers: &Answers, unread: &Unread) -> One {
    let (mapping, schema) = (&run.mapping, &run.schema);
    let Document { bytes, origin } = &unread.document;
    let json = match Json::parse(bytes) {
        Ok(json) => json,
        Err(error) => return One::Fails(Box::new(Failure::of_document(origin, None, error.to_string()))),
    };
    let label = label(mapping, &json);
    match shred(mapping, schema, answers, &json) {
        Err(error) => One::Fails(Box::new(Failure {
            relation: Some(error.relation),
            path: Some(error.path),
            ..Failure::of_document(origin, (!label.is_empty()).then_some(label), error.message)
        })),
        Ok(Shredded::Asks(questions)) => One::Asks(questions),
        Ok(Shredded::Rows(rows)) => One::Prepared(Box::new(Prepared {
            sequence: unread.sequence,
            origin: origin.clone(),
            key: document_key(schema, &rows.relations[0].rows[0].tuple),
            alternate: alternate_key(mapping, &schema.tables[0], &rows.relations[0].rows[0].tuple)
                .map(|key| short(key.as_bytes())),
            label,
            raw: unread.raw,
            fingerprints: fingerprints(mapping, schema, &rows),
            rows,
            bytes: bytes.len(),
        })),
    }
}
