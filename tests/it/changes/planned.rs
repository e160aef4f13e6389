//! What a plan said, beside what a sync then did.

use std::collections::HashMap;

use fastrand::Rng;
use rowdelta::engine::Engine;
use rowdelta::engine::changes::Change;
use rowdelta::engine::plan::SavedPlan;
use rowdelta::engine::report::Report;
use rowdelta::mapping::{Atomic, Mapping, Source};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::nights::case::{engine_with, reported};
use crate::support::Database;

/// The report and the rows of a plan.
pub struct Planned {
    pub report: Report,
    pub changes: Vec<Value>,
    pub saved: SavedPlan,
}

impl Planned {
    /// An engine that does just this.
    pub async fn only(
        &self,
        database: &Database,
        toml: &str,
        rng: &mut Rng,
        listener: mpsc::Sender<Change>,
    ) -> Result<Engine, String> {
        let mut file = Vec::new();
        self.saved.write(&mut file).map_err(|error| error.to_string())?;
        let saved = SavedPlan::read(&file[..]).map_err(|error| error.to_string())?;
        engine_with(database, toml, rng, |builder| builder.changes(listener).history(true).only(saved)).await
    }

    /// Compares counts and rows with those of a sync.
    pub fn is_what(&self, mapping: &Mapping, report: &Report, told: &[Value]) -> Result<(), String> {
        let counts = |report: &Report| {
            let documents = &report.documents;
            // A sync forgets that a document is new whose relations are stored in several goes.
            let new = if mapping.sync.atomic == Atomic::Document { documents.new } else { 0 };
            (
                reported(report),
                [documents.read, documents.repeated, new, documents.failed, documents.withheld],
                [documents.absent, documents.removed],
            )
        };
        if counts(&self.report) != counts(report) {
            return Err(format!("planned {:#?}\ndone {report:#?}", self.report));
        }
        let (planned, told) = (plain(mapping, &self.changes), plain(mapping, told));
        let only = |a: &[String], b: &[String]| -> Vec<String> {
            a.iter().filter(|line| !b.contains(line)).cloned().collect()
        };
        match planned == told {
            true => Ok(()),
            false => Err(format!(
                "only planned {:#?}\nonly done {:#?}",
                only(&planned, &told),
                only(&told, &planned)
            )),
        }
    }
}

/// Changes without what cannot be known before: ids of new rows, and what refers to them.
fn plain(mapping: &Mapping, changes: &[Value]) -> Vec<String> {
    let mut labels: HashMap<(String, String), String> = HashMap::new();
    for change in changes.iter().filter(|change| change["document"].is_null() && !change["id"].is_null()) {
        let words = change["key"].as_object().unwrap().values();
        let words: Vec<&str> = words.map(|word| word.as_str().unwrap_or("NULL")).collect();
        let id = (change["relation"].as_str().unwrap().to_owned(), change["id"].as_str().unwrap().to_owned());
        labels.insert(id, format!("(new {})", words.join(",")));
    }
    let mut lines: Vec<String> = changes.iter().map(|change| line(mapping, &labels, change)).collect();
    lines.sort();
    lines
}

fn line(mapping: &Mapping, labels: &HashMap<(String, String), String>, change: &Value) -> String {
    let mut change = change.clone();
    if let Some(relation) = mapping.relations.iter().find(|relation| change["relation"] == relation.name) {
        for column in &relation.columns {
            let Source::Lookup { lookup, .. } = column.source else { continue };
            for part in ["key", "before", "after"] {
                let value = change.get_mut(part).and_then(|part| part.get_mut(&column.name));
                let Some(value) = value.filter(|value| value.is_string()) else { continue };
                let id = (mapping.lookups[lookup].name.clone(), value.as_str().unwrap().to_owned());
                if let Some(label) = labels.get(&id) {
                    *value = json!(label);
                }
            }
        }
        if change["action"] == "moved" {
            for parent in &relation.parent {
                ["before", "after"].iter().for_each(|part| {
                    change[*part].as_object_mut().map(|part| part.remove(parent));
                });
            }
            change["parent"] = Value::Null;
        }
    }
    if change["action"] == "added" {
        change["id"] = Value::Null;
        change["parent"] = Value::Null;
    }
    change.to_string()
}
