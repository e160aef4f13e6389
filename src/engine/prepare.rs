//! Documents → rows and fingerprints, a batch at a time, asking the database where shredding needs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::document::{Document, DocumentKey, Origin, short};
use crate::engine::foresight::Foresight;
use crate::engine::patience::Tries;
use crate::engine::report::Failure;
use crate::engine::roots::alternate_key;
use crate::engine::run::Run;
use crate::engine::spans;
use crate::error::{Error, ErrorKind};
use crate::fingerprint::{Fingerprints, RawFingerprint, coverage, fingerprints};
use crate::json::Json;
use crate::mapping::Missing;
use crate::postgres::begin;
use crate::postgres::changes::Told;
use crate::postgres::newcomers::{Newcomer, in_words};
use crate::postgres::questions::{self, Looked};
use crate::row::RowSet;
use crate::shred::{Answers, Questions, Shredded, document_key, key_of, label, shred};

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
    /// What these cover, as it is recorded.
    pub coverage: Vec<u8>,
    /// Length of the document.
    pub bytes: usize,
    /// What it has taken so far, in microseconds.
    spent_us: AtomicU64,
}

impl Prepared {
    /// How long it has taken so far.
    pub fn spent(&self) -> Duration {
        Duration::from_micros(self.spent_us.load(Ordering::Relaxed))
    }

    /// Notes that it took longer still.
    pub fn spend(&self, time: Duration) {
        self.spent_us.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }
}

/// What one pass over a batch came to.
#[derive(Default)]
struct Pass {
    prepared: Vec<Prepared>,
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
        let (shared, span) = (run.clone(), tracing::Span::current());
        let blocking = tokio::task::spawn_blocking(move || {
            let pass = span.in_scope(|| pass(&shared, &answers, group));
            (pass, answers)
        });
        let pass;
        (pass, answers) = blocking.await.map_err(crate::engine::panicked)?;
        run.tally(|tally| {
            tally.fail_all(pass.failures);
            pass.prepared.iter().for_each(|document| tally.slow(document));
        });
        prepared.extend(pass.prepared);
        if !pass.waiting.is_empty() {
            let answered = ask(run, pass.questions, &mut answers).await;
            groups.extend(after_asking(run, pass.waiting, answered, &answers)?);
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
    answers: &Answers,
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
                let json = Json::parse(&unread.document.bytes).ok();
                run.registry().unfit(json.as_ref().and_then(|json| key(run, answers, json)).as_ref());
                let document = json.map(|json| label(&run.mapping, &json));
                Failure::of_error(&unread.document.origin, &document.unwrap_or_default(), &error)
            };
            let failures = waiting.iter().map(failure).collect();
            run.tally(|tally| tally.fail_all(failures));
            Ok(Vec::new())
        }
    }
}

/// Asks, and asks again after errors that may pass.
async fn ask(run: &Run, questions: Questions, answers: &mut Answers) -> Result<(), Error> {
    let mut tries = Tries::default();
    loop {
        let error = match ask_once(run, questions.clone(), answers).await {
            Ok(looked) => {
                run.tally(|tally| tally.looked_up(&looked));
                return Ok(());
            }
            Err(error) if error.may_pass() => error,
            Err(error) => return Err(error),
        };
        if !run.patience.again(&mut tries, &error).await {
            return Err(error);
        }
    }
}

async fn ask_once(run: &Run, questions: Questions, answers: &mut Answers) -> Result<Vec<Looked>, Error> {
    let mut connection = run.connection().await?;
    let mut told = Told { telling: run.outlet.telling(), labels: run.outlet.labels(), ..Told::default() };
    // Whoever refers to a new catalogue row commits after it, and is told after it.
    let turn = told.telling.on.then(|| run.outlet.reserve());
    let answered = match run.purpose.foresight() {
        Some(foresight) => foresee(run, foresight, &mut connection, questions, answers, &mut told).await,
        None => answer(run, &mut connection, questions, answers, &mut told).await,
    };
    drop(connection);
    if let Some((id, changes)) = told.unsure.take() {
        if run.is_committed(&id).await {
            told.changes.extend(changes);
        }
    }
    if let Some(turn) = turn {
        turn.tell_all(told).await;
    }
    answered
}

async fn answer(
    run: &Run,
    client: &mut Client,
    questions: Questions,
    answers: &mut Answers,
    told: &mut Told,
) -> Result<Vec<Looked>, Error> {
    let (mapping, schema, limits) = (&run.mapping, &run.schema, run.limits());
    questions::answer(client, mapping, schema, limits, questions, answers, told).await
}

/// As [`answer`], where nothing may be written: catalogue rows that would be inserted get a stand-in for their id.
async fn foresee(
    run: &Run,
    foresight: &Foresight,
    client: &mut Client,
    questions: Questions,
    answers: &mut Answers,
    told: &mut Told,
) -> Result<Vec<Looked>, Error> {
    let asked = questions.lookups.clone();
    let mut looked = answer(run, client, questions, answers, told).await?;
    let transaction = begin(client, run.limits()).await?;
    for ((ix, key), row) in asked {
        let (lookup, table) = (&run.mapping.lookups[ix], &run.schema.lookups[ix]);
        let is_missing = matches!(answers.lookups[ix].get(&key), Some(None));
        if !is_missing || lookup.missing != Missing::Insert {
            continue;
        }
        let known = foresight.stand_in(ix, &key);
        let id = match known {
            Some(id) => Some(id),
            None => {
                let new = Newcomer { id: None, key: row.key, columns: Some(&row.columns) };
                let change = in_words(&transaction, lookup, table, vec![new]).await?.pop();
                let id = foresight.add(ix, table, key.clone(), change.as_ref());
                looked[ix].inserted += u64::from(id.is_some());
                told.changes.extend(change.filter(|_| id.is_some()));
                id
            }
        };
        answers.lookups[ix].insert(key, id);
    }
    transaction.commit().await?;
    Ok(looked)
}

fn pass(run: &Run, answers: &Answers, unread: Vec<Unread>) -> Pass {
    let mut pass = Pass::default();
    for unread in unread {
        let started = Instant::now();
        match spans::document(&unread.document).in_scope(|| one(run, answers, &unread)) {
            One::Prepared(document) => {
                document.spend(started.elapsed());
                pass.prepared.push(*document);
            }
            One::Asks(questions) => {
                pass.questions.extend(questions);
                pass.waiting.push(unread);
            }
            One::Fails(failure, key) => {
                run.registry().unfit(key.as_ref());
                pass.failures.push(*failure);
            }
        }
    }
    pass
}

enum One {
    Prepared(Box<Prepared>),
    Asks(Questions),
    /// With the key, if that could be read.
    Fails(Box<Failure>, Option<DocumentKey>),
}

fn key(run: &Run, answers: &Answers, json: &Json<'_>) -> Option<DocumentKey> {
    key_of(&run.mapping, &run.schema, answers, json)
}

fn one(run: &Run, answers: &Answers, unread: &Unread) -> One {
    let (mapping, schema) = (&run.mapping, &run.schema);
    let Document { bytes, origin } = &unread.document;
    let json = match Json::parse(bytes) {
        Ok(json) => json,
        Err(error) => {
            return One::Fails(Box::new(Failure::of_document(origin, None, error.to_string())), None);
        }
    };
    let (label, span) = (label(mapping, &json), tracing::Span::current());
    span.record("document", label.as_str());
    match shred(mapping, schema, answers, &json) {
        Err(error) => {
            let failure = Failure {
                relation: Some(error.relation),
                path: Some(error.path),
                ..Failure::of_document(origin, (!label.is_empty()).then_some(label), error.message)
            };
            One::Fails(Box::new(failure), key(run, answers, &json))
        }
        Ok(Shredded::Asks(questions)) => One::Asks(questions),
        Ok(Shredded::Rows(rows)) => {
            span.record("rows", rows.len());
            One::Prepared(Box::new(prepared(run, unread, label, rows)))
        }
    }
}

fn prepared(run: &Run, unread: &Unread, label: String, rows: RowSet) -> Prepared {
    let (mapping, schema) = (&run.mapping, &run.schema);
    let root = &rows.relations[0].rows[0].tuple;
    let fingerprints = fingerprints(mapping, schema, &rows);
    Prepared {
        sequence: unread.sequence,
        origin: unread.document.origin.clone(),
        key: document_key(schema, root),
        alternate: alternate_key(mapping, &schema.tables[0], root).map(|key| short(key.as_bytes())),
        label,
        raw: unread.raw,
        coverage: coverage(mapping, schema, &rows, &fingerprints).to_bytes(),
        fingerprints,
        rows,
        bytes: unread.document.bytes.len(),
        spent_us: AtomicU64::new(0),
    }
}
