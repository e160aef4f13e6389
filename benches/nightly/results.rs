//! What was measured.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contestant::Contestant;
use crate::edit::RowCounts;
use crate::measure::Process;
use crate::scenario::Scenario;
use crate::wal::Wal;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// The program.
    pub process: Process,
    /// CPU time of the server, in seconds.
    pub server_cpu: Option<f64>,
    /// Bytes of write-ahead log.
    pub wal_bytes: u64,
    /// Whose they are; of the first round only.
    pub wal: Option<Wal>,
    /// Transactions committed.
    pub commits: u64,
    /// Rows written, by table of the user's.
    pub rows: BTreeMap<String, RowCounts>,
    /// Dead rows in them afterwards.
    pub dead: u64,
    /// The load average of the last minute, before the run.
    pub load: Option<f64>,
}

/// All runs of a contestant in a scenario.
#[derive(Debug)]
pub struct Cell {
    pub documents: u32,
    pub scenario: &'static Scenario,
    pub contestant: Contestant,
    pub samples: Vec<Sample>,
}

/// Everything that was measured, in the order in which it was.
#[derive(Debug, Default)]
pub struct Results {
    pub cells: Vec<Cell>,
    /// Rows of the smallest edit, by table, for size and scenario.
    pub edits: BTreeMap<(u32, &'static str), BTreeMap<String, RowCounts>>,
}

impl Results {
    /// The runs of a contestant in a scenario.
    pub fn cell(&self, documents: u32, scenario: &str, contestant: Contestant) -> Option<&Cell> {
        let is_meant = |cell: &&Cell| {
            cell.documents == documents && cell.scenario.name == scenario && cell.contestant == contestant
        };
        self.cells.iter().find(is_meant)
    }

    /// All contestants of a scenario.
    pub fn of(&self, documents: u32, scenario: &str) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.documents == documents && cell.scenario.name == scenario)
    }

    /// The sizes, and scenarios of each, in order.
    pub fn nights(&self) -> Vec<(u32, &'static Scenario)> {
        let mut nights: Vec<(u32, &'static Scenario)> = Vec::new();
        for cell in &self.cells {
            if !nights.iter().any(|(documents, scenario)| {
                *documents == cell.documents && scenario.name == cell.scenario.name
            }) {
                nights.push((cell.documents, cell.scenario));
            }
        }
        nights
    }

    /// For programs.
    pub fn to_json(&self, about: &[(&str, String)]) -> serde_json::Value {
        let cell = |cell: &Cell| {
            serde_json::json!({
                "documents": cell.documents,
                "scenario": cell.scenario.name,
                "contestant": cell.contestant.name(),
                "wall_median": cell.wall(),
                "samples": cell.samples,
            })
        };
        let edit = |((documents, scenario), rows): (&(u32, &str), &BTreeMap<String, RowCounts>)| serde_json::json!({ "documents": documents, "scenario": scenario, "rows": rows });
        let about: BTreeMap<_, _> = about.iter().map(|(name, value)| (*name, value)).collect();
        serde_json::json!({
            "about": about,
            "cells": self.cells.iter().map(cell).collect::<Vec<_>>(),
            "smallest_edits": self.edits.iter().map(edit).collect::<Vec<_>>(),
        })
    }
}

impl Cell {
    /// The median of something over all runs.
    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        (values[low] + values[high]) / 2.0
    }

    /// Median wall time in seconds.
    pub fn wall(&self) -> f64 {
        self.median(|sample| sample.process.wall)
    }

    /// Median bytes of write-ahead log.
    pub fn wal_bytes(&self) -> f64 {
        self.median(|sample| sample.wal_bytes as f64)
    }

    /// The most memory of any run, in bytes.
    pub fn memory(&self) -> u64 {
        self.samples.iter().map(|sample| sample.process.memory).max().unwrap_or(0)
    }

    /// Whose write-ahead log it was in the first round.
    pub fn wal(&self) -> Option<Wal> {
        self.samples.iter().find_map(|sample| sample.wal)
    }

    /// Rows written to the user's tables, in the first round.
    pub fn rows(&self) -> RowCounts {
        let mut sum = RowCounts::default();
        self.samples[0].rows.values().for_each(|counts| sum += *counts);
        sum
    }
}
