//! Other spellings of documents whose rows are as they were.
//!
//! Recorded with its batch each would be a row of its own, which a merge packs at the end. So they are kept, and recorded
//! together then: where there are many, in the packed rows themselves. Of a run that ends before, they are lost, and its
//! documents are parsed once more by the next.

use crate::engine::prepare::Prepared;
use crate::engine::run::Run;
use crate::error::Error;
use crate::postgres::packing::{self, Renewal};
use crate::postgres::{begin, state};

/// Documents recorded in one transaction: few enough for it to be a short one.
const RENEWALS_MAX: usize = 5_000;

/// Spellings to be recorded when the feed has ended.
#[derive(Default)]
pub(crate) struct Spellings {
    kept: Vec<Renewal>,
    bytes: usize,
}

impl Spellings {
    /// How much memory they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn keep(&mut self, document: &Prepared) {
        let renewal = renewal(document);
        self.bytes += size_of::<Renewal>() + renewal.key.0.capacity();
        self.kept.push(renewal);
    }
}

pub(super) fn renewal(document: &Prepared) -> Renewal {
    let (fingerprint, raw) = (document.fingerprints.document, document.raw);
    Renewal { key: document.key.clone(), fingerprint, raw }
}

/// Records what was kept. What cannot be recorded now is found out once more by the next run.
pub(super) async fn record(run: &Run) {
    let Spellings { mut kept, .. } = run.take_spellings();
    if kept.is_empty() || run.patience.is_stopped() {
        return;
    }
    // Neighbours stand in the same packed rows. A document that was looked at twice is there twice.
    kept.sort_unstable_by(|one, other| one.key.0.cmp(&other.key.0));
    kept.dedup_by(|one, other| one.key == other.key);
    if let Err(error) = renew(run, &kept).await {
        tracing::warn!(%error, "other spellings of documents were not recorded");
    }
}

async fn renew(run: &Run, renewals: &[Renewal]) -> Result<(), Error> {
    let mut connection = run.connection().await?;
    let mut is_packed = false;
    for renewals in renewals.chunks(RENEWALS_MAX) {
        let transaction = begin(&mut connection, run.limits()).await?;
        state::enter(&transaction, &run.lease).await?;
        let (renewed, in_base) = packing::renew_spellings(&transaction, run.lease.mapping, renewals).await?;
        transaction.commit().await?;
        is_packed |= in_base;
        run.tally(|tally| {
            tally.report.documents.renewed += renewed;
            tally.recorded = true;
        });
    }
    match is_packed {
        true => packing::read_back(&connection, run.lease.mapping, b"", None).await,
        false => Ok(()),
    }
}
