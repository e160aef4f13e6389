//! Documents whose rows are as they were, told without asking the database about each of them.
//!
//! Of a document in another spelling the fingerprint must be looked up, which costs about as much as parsing it. Where many
//! come so, reading the fingerprints of all settled documents at once costs less. They count for the rest of the run, as
//! the hashes do by which it skips documents.

use std::sync::Arc;

use crate::document::short;
use crate::engine::prepare::Prepared;
use crate::engine::registry::Outcome;
use crate::engine::run::Run;
use crate::error::Error;
use crate::postgres::state::{self, Settled};

/// Looking up one document costs what reading the fingerprints of so many does: 12 µs of CPU against 0.6, both sides.
const READ_FOR_ONE: usize = 20;

/// What is recorded of all settled documents.
pub(crate) struct AllSettled {
    /// Sorted by what stands for the key.
    documents: Vec<Entry>,
}

/// 42 bytes.
type Entry = ([u8; 8], Settled);

impl AllSettled {
    async fn read(run: &Run) -> Result<Self, Error> {
        let mut documents = Vec::with_capacity(run.registry().known());
        let mut connection = run.connection().await?;
        let transaction = state::snapshot(&mut connection).await?;
        let each = |key: &[u8], settled| documents.push((short(key).to_be_bytes(), settled));
        state::all_settled(&transaction, run.lease.mapping, each).await?;
        transaction.commit().await?;
        documents.sort_unstable_by_key(|(key, _)| *key);
        Ok(AllSettled { documents })
    }

    /// What is recorded of a document, if its rows are as it asks for. Of two documents for whose keys the same stands one
    /// is not found.
    fn of(&self, document: &Prepared) -> Option<Settled> {
        let key = document.key.short().to_be_bytes();
        let at = self.documents.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        let settled = self.documents[at].1;
        (settled.fingerprint == document.fingerprints.document).then_some(settled)
    }
}

/// Counts the documents that are as they are recorded. Gives the others.
pub(super) async fn pass_over(run: &Run, documents: Vec<Arc<Prepared>>) -> Vec<Arc<Prepared>> {
    let Some(all) = all_settled(run).await else { return documents };
    let (writes, keeps) = (run.purpose.writes(), run.keeps_spellings());
    let (mut left, mut passed, mut renewed) = (Vec::new(), Vec::new(), Vec::new());
    for document in documents {
        let settled = all.of(&document).filter(|settled| is_respelled(run, &document, settled));
        let renews = settled.map(|settled| state::renews(settled.respelled, document.raw, run.number));
        match renews {
            Some(false) => passed.push(document),
            // What is not kept for the end of the run is recorded with its batch.
            Some(true) if keeps || !writes => renewed.push(document),
            _ => left.push(document),
        }
    }
    passed.iter().chain(&renewed).for_each(|document| run.decide(&document.key, Outcome::Unchanged));
    run.tally(|tally| {
        tally.report.documents.respelled += (passed.len() + renewed.len()) as u64;
        tally.report.documents.renewed += if writes { 0 } else { renewed.len() as u64 };
    });
    if writes {
        run.keep_spellings(renewed.iter().map(|document| &**document));
    }
    left
}

/// Whether nothing is to be found out of a document but that its bytes are others than those recorded.
fn is_respelled(run: &Run, document: &Prepared, settled: &Settled) -> bool {
    let registry = run.registry();
    let is_other = |raw| raw != document.raw && registry.skipped_at(raw, &document.key).is_none();
    settled.raw.is_some_and(is_other) && !registry.is_robbed(&document.key) && run.trusts(&document.key)
}

/// What is recorded, if so many documents had to be looked up for nothing that it pays to read it, and it is not too much
/// to be kept.
async fn all_settled(run: &Run) -> Option<&AllSettled> {
    let respelled = run.tally(|tally| tally.report.documents.respelled) as usize;
    // A run that trusts nothing of what is recorded tells none as respelled.
    if respelled == 0 {
        return None;
    }
    let known = run.registry().known();
    let pays = respelled * READ_FOR_ONE >= known;
    let fits = known * size_of::<Entry>() <= run.options.deferred_bytes_max;
    if !(pays && fits) {
        return None;
    }
    let read = || async {
        let read = AllSettled::read(run).await;
        read.inspect_err(|error| tracing::debug!(%error, "documents are looked up one by one")).ok()
    };
    run.settled.get_or_init(read).await.as_ref()
}
