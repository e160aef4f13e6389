//! A plan in words.

use std::collections::BTreeMap;
use std::fmt;

use super::{Action, Plan, Step};
use crate::mapping::{Mapping, RelationIx};

impl Plan {
    /// The steps in words, one a line, each with the constraints that it had to wait for.
    pub fn describe<'p>(&'p self, mapping: &'p Mapping) -> impl fmt::Display + 'p {
        Described { plan: self, mapping }
    }

    fn held_per_relation(&self) -> BTreeMap<RelationIx, usize> {
        let mut counts = BTreeMap::new();
        self.held.iter().for_each(|row| *counts.entry(row.0).or_default() += 1);
        counts
    }
}

struct Described<'p> {
    plan: &'p Plan,
    mapping: &'p Mapping,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.deferred.iter().try_for_each(|name| writeln!(f, "defer   {name}"))?;
        for step in &self.plan.steps {
            let line = self.line(step);
            writeln!(f, "{}", line.trim_end())?;
        }
        for (relation, count) in self.plan.held_per_relation() {
            writeln!(f, "hold    {:<24} {count}", self.mapping.relations[relation].table.to_string())?;
        }
        Ok(())
    }
}

impl Described<'_> {
    fn line(&self, step: &Step) -> String {
        let relation = &self.mapping.relations[step.relation];
        let names = |columns: &[usize]| -> Vec<&str> {
            columns.iter().map(|&at| relation.columns[at].name.as_str()).collect()
        };
        let (word, mut columns) = match &step.action {
            Action::Park { columns, .. } => ("park", names(columns)),
            Action::Delete(_) => ("delete", Vec::new()),
            Action::Cascade(_) => ("cascade", Vec::new()),
            Action::Update { columns, moves: false, .. } => ("update", names(columns)),
            Action::Update { columns, moves: true, .. } => ("move", names(columns)),
            Action::Mark(_) => ("mark", Vec::new()),
            Action::Insert { .. } => ("insert", Vec::new()),
            Action::Fill { columns, .. } => ("fill", names(columns)),
        };
        if let Action::Park { parent: true, .. } = step.action {
            columns.extend(relation.parent.iter().map(String::as_str));
        }
        let after: Vec<&str> = step.after.iter().map(String::as_str).collect();
        let after = if after.is_empty() { String::new() } else { format!("  after {}", after.join(", ")) };
        let rows = step.action.rows();
        let plural = if rows == 1 { "row" } else { "rows" };
        let table = relation.table.to_string();
        format!("{word:<7} {table:<24} {rows} {plural}  {}{after}", columns.join(", "))
    }
}
