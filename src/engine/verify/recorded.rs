//! Without a feed: fingerprints made anew from the stored rows, beside those that were recorded.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::document::DocumentKey;
use crate::engine::Engine;
use crate::engine::lease::{self, Heart};
use crate::engine::metrics::LeaseMeters;
use crate::engine::patience::Patience;
use crate::engine::rewritten::{self, Known};
use crate::engine::verify::VerifyOptions;
use crate::engine::verify::report::{Against, Difference, Kind, Repair, Unknown, Verification};
use crate::engine::whole::whole;
use crate::error::{Error, ErrorKind, TAKEN_OVER};
use crate::fingerprint::rewritten::Rewritten;
use crate::fingerprint::{self, Coverage, Extent, RelationFingerprint};
use crate::mapping::{Mapping, RelationIx};
use crate::plan::StoredRow;
use crate::postgres::state::{self, Lease, Recorded};
use crate::postgres::words::words;
use crate::postgres::{begin, catalog};
use crate::row::{RelationRows, Row, RowSet, Tuple};
use crate::schema::Schema;
use crate::shred::{NULL_LABEL, key_cells};

/// Documents compared in one transaction.
const DOCUMENTS_MAX: usize = 200;

impl Engine {
    /// Compares the stored rows of all settled documents with the fingerprints that were recorded as they were
    /// written. Names the documents and relations that differ, and documents whose root row is gone.
    ///
    /// Catalogues are not compared: of them nothing is recorded.
    ///
    /// # Errors
    /// What kept it from starting, or from coming to its end; no run of the mapping was ever begun.
    pub async fn verify_recorded(&self, options: VerifyOptions) -> Result<Verification, Error> {
        let started = Instant::now();
        let client = self.connections.get().await?;
        let schema = catalog::read_for(&client, &self.mapping, options.repair).await?;
        let Some(mapping) = state::mapping_id(&client, &self.mapping.name).await? else {
            let message =
                format!("no run of the mapping `{}` is recorded in this database", self.mapping.name);
            return Err(Error::new(ErrorKind::Setup, message));
        };
        let patience = Patience::unstopped(&self.options);
        let lease = match options.repair {
            true => Some(lease::acquire(&client, mapping, &lease::holder(), &self.options, &patience).await?),
            false => None,
        };
        let rewrites = rewritten::is_possible(&client, &schema, mapping).await?;
        drop(client);
        let verification = Verification::new(&self.mapping, Against::Record);
        let digest = fingerprint::digest(&schema);
        let mut check = Check { engine: self, patience, schema, mapping, digest, rewrites, verification };
        let checked = check.all(lease.as_ref()).await;
        if let Some(lease) = &lease {
            let client = self.connections.get().await?;
            state::release(&client, lease).await?;
        }
        checked?;
        check.verification.elapsed_ms = started.elapsed().as_millis() as u64;
        Ok(check.verification)
    }
}

/// A verification in the making.
struct Check<'a> {
    engine: &'a Engine,
    patience: Patience,
    schema: Schema,
    mapping: i32,
    digest: [u8; 8],
    /// Whether rows may be stored otherwise than they were sent.
    rewrites: bool,
    verification: Verification,
}

/// Some documents, compared.
#[derive(Default)]
struct Part {
    /// The key of the last one that was read.
    last: Option<DocumentKey>,
    read: u64,
    equal: u64,
    unknown: Unknown,
    differing: Vec<Differing>,
}

/// A document of which something differs.
struct Differing {
    key: DocumentKey,
    /// The key in words, by column.
    words: BTreeMap<String, Option<String>>,
    label: String,
    /// `None`: the root row is gone.
    relations: Option<Vec<RelationIx>>,
}

/// What is recorded of a document whose fingerprints can be made anew.
struct Settled {
    key: DocumentKey,
    root: Tuple,
    relations: Vec<RelationFingerprint>,
    coverage: Coverage,
}

impl Check<'_> {
    /// With a lease the documents that differ are marked.
    async fn all(&mut self, lease: Option<&Lease>) -> Result<(), Error> {
        let engine = self.engine;
        let heart = lease.map(|lease| {
            let meters = LeaseMeters::of(&engine.mapping.name);
            Heart::start(engine.connections.clone(), lease.clone(), engine.options.lease, meters)
        });
        let (mut after, mut unsettled) = (None, 0);
        loop {
            if heart.as_ref().is_some_and(Heart::is_lost) {
                return Err(Error::new(ErrorKind::Busy, TAKEN_OVER));
            }
            let part = self.part(after.as_ref()).await?;
            let Some(last) = part.last.clone() else { break };
            if let Some(lease) = lease.filter(|_| !part.differing.is_empty()) {
                self.unsettle(lease, &part).await?;
                unsettled += part.differing.len() as u64;
            }
            self.add(part);
            after = Some(last);
        }
        self.verification.repair = lease.map(|_| Repair { run: None, unsettled });
        let mut connection = engine.connections.get().await?;
        let transaction = begin(&mut connection, engine.options.limits(true)).await?;
        let root = &self.schema.tables[0];
        self.verification.unrecorded_roots =
            state::unrecorded_roots(&transaction, self.mapping, root).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Compares some documents; again after errors that may pass.
    async fn part(&self, after: Option<&DocumentKey>) -> Result<Part, Error> {
        self.patience.retry(|| self.part_once(after)).await
    }

    async fn part_once(&self, after: Option<&DocumentKey>) -> Result<Part, Error> {
        let Engine { mapping, connections, options, .. } = self.engine;
        let mut connection = connections.get().await?;
        let transaction = begin(&mut connection, options.limits(true)).await?;
        let limit = options.batch_documents_max.min(DOCUMENTS_MAX) as i32;
        let recorded = state::recorded(&transaction, self.mapping, &self.schema, after, limit).await?;
        let last = recorded.last().map(|recorded| recorded.key.clone());
        let mut part = Part { last, read: recorded.len() as u64, ..Part::default() };
        let known = recorded.into_iter().filter_map(|recorded| self.known(recorded, &mut part.unknown));
        let known: Vec<Settled> = known.collect();
        let keys: Vec<&DocumentKey> = known.iter().map(|document| &document.key).collect();
        let stored = whole(&transaction, mapping, &self.schema, &keys).await?;
        let mut rewritten = Known::new(self.rewrites.then_some(self.mapping), mapping.relations.len());
        rewritten.read(&transaction, mapping, &self.schema, &keys).await?;
        let forms = rewritten.take_all(&self.schema, &stored);
        let sets = row_sets(mapping, stored, forms, known.len());
        let columns = self.schema.tables[0].key_columns();
        for (document, set) in known.into_iter().zip(sets) {
            let relations = set.map(|set| self.altered(&document, set, &mut part.unknown));
            if relations.as_ref().is_some_and(Vec::is_empty) {
                part.equal += 1;
                continue;
            }
            let values = words(&transaction, &columns, &[document.root]).await?.pop().unwrap_or_default();
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| NULL_LABEL.to_owned());
            let label = values.iter().map(text).collect::<Vec<_>>().join(",");
            let words = columns.iter().map(|column| column.name.clone()).zip(values).collect();
            part.differing.push(Differing { key: document.key, words, label, relations });
        }
        transaction.commit().await?;
        Ok(part)
    }

    /// What can be compared of a document; counts it where nothing can.
    fn known(&self, recorded: Recorded, unknown: &mut Unknown) -> Option<Settled> {
        if !recorded.settled {
            unknown.unsettled += 1;
            return None;
        }
        let relations = self.schema.tables.len();
        let coverage = recorded.coverage.and_then(|bytes| Coverage::from_bytes(&bytes, relations));
        let coverage = coverage.filter(|coverage| coverage.digest == self.digest);
        match (coverage, key_cells(&self.schema, &recorded.key)) {
            (Some(coverage), Some(root)) if recorded.relations.len() == relations => {
                Some(Settled { key: recorded.key, root, relations: recorded.relations, coverage })
            }
            _ => {
                unknown.other_mapping += 1;
                None
            }
        }
    }

    /// The relations of a document whose rows are not those that were recorded.
    fn altered(
        &self,
        document: &Settled,
        (mut set, forms): Stored,
        unknown: &mut Unknown,
    ) -> Vec<RelationIx> {
        document.coverage.mask(&mut set);
        let mut rows = fingerprint::rows(&self.schema, &set);
        for (row, form) in rows.iter_mut().flatten().zip(forms.into_iter().flatten()) {
            *row = form.filter(|form| form.stored == *row).map_or(*row, |form| form.sent);
        }
        let found = fingerprint::of_rows(&self.engine.mapping, &self.schema, &set, rows).relations;
        let mut altered = Vec::new();
        for (ix, (found, recorded)) in found.into_iter().zip(&document.relations).enumerate() {
            match &document.coverage.relations[ix] {
                Extent::Nothing => unknown.lists += 1,
                Extent::Rows { without, .. } => unknown.columns += u64::from(!without.is_empty()),
            }
            if document.coverage.expected(ix, *recorded).is_some_and(|expected| expected != found) {
                altered.push(ix);
            }
        }
        altered
    }

    async fn unsettle(&self, lease: &Lease, part: &Part) -> Result<(), Error> {
        let keys: Vec<DocumentKey> = part.differing.iter().map(|document| document.key.clone()).collect();
        let mut connection = self.engine.connections.get().await?;
        let transaction = begin(&mut connection, self.engine.options.limits(false)).await?;
        state::enter(&transaction, lease).await?;
        state::unsettle(&transaction, self.mapping, &keys).await?;
        transaction.commit().await?;
        Ok(())
    }

    fn add(&mut self, part: Part) {
        let verification = &mut self.verification;
        let (documents, unknown) = (&mut verification.documents, &mut verification.unknown);
        documents.read += part.read;
        documents.equal += part.equal;
        documents.differing += part.differing.len() as u64;
        documents.unknown += part.unknown.unsettled + part.unknown.other_mapping;
        unknown.unsettled += part.unknown.unsettled;
        unknown.other_mapping += part.unknown.other_mapping;
        unknown.lists += part.unknown.lists;
        unknown.columns += part.unknown.columns;
        for document in part.differing {
            let difference = |ix: RelationIx, kind, key| Difference {
                document: document.label.clone(),
                relation: self.engine.mapping.relations[ix].name.clone(),
                kind,
                key,
                ..Difference::default()
            };
            match &document.relations {
                None => {
                    let gone = difference(0, Kind::Missing, document.words.clone());
                    verification.add(0, Kind::Missing, Some(gone));
                }
                Some(relations) => relations.iter().for_each(|&ix| {
                    let key = if ix == 0 { document.words.clone() } else { BTreeMap::new() };
                    verification.add(ix, Kind::Altered, Some(difference(ix, Kind::Altered, key)));
                }),
            }
        }
    }
}

/// The rows of a document, each with what it was made of, if a trigger rewrote it.
type Stored = (RowSet, Vec<Vec<Option<Rewritten>>>);

/// The rows of each document; `None` where it has no root row.
fn row_sets(
    mapping: &Mapping,
    stored: Vec<Vec<StoredRow>>,
    forms: Vec<Vec<Option<Rewritten>>>,
    documents: usize,
) -> Vec<Option<Stored>> {
    let relations = mapping.relations.len();
    let empty = || RowSet { relations: vec![RelationRows::default(); relations], ..RowSet::default() };
    let mut sets: Vec<Stored> = (0..documents).map(|_| (empty(), vec![Vec::new(); relations])).collect();
    // Per relation, where each row stands among those of its document.
    let mut places: Vec<Vec<u32>> = Vec::new();
    for (ix, (rows, forms)) in stored.into_iter().zip(forms).enumerate() {
        let outer = mapping.relations[ix].enclosing;
        let mut standing = Vec::with_capacity(rows.len());
        for (row, form) in rows.into_iter().zip(forms) {
            let parent = outer.zip(row.parent).map_or(0, |(outer, parent)| places[outer][parent as usize]);
            let document = row.document.map_or(0, |document| document as usize);
            let (set, made_of) = &mut sets[document];
            let list = &mut set.relations[ix].rows;
            standing.push(list.len() as u32);
            list.push(Row { parent, tuple: row.tuple });
            made_of[ix].push(form);
        }
        places.push(standing);
    }
    sets.into_iter().map(|set| (!set.0.relations[0].rows.is_empty()).then_some(set)).collect()
}
