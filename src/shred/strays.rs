//! Items of a list that several relations read, each its own kind, and that none of them takes.

use super::ShredError;
use super::item::{Found, Item, all_items};
use crate::json::Json;
use crate::mapping::{Mapping, Otherwise, Path, Relation, RelationIx};
use crate::value::found;

/// Fails where a list holds such an item, unless the mapping says to ignore it.
pub(crate) fn refuse(
    mapping: &Mapping,
    ix: RelationIx,
    outer: &Item<'_>,
    json: &Json<'_>,
) -> Result<(), ShredError> {
    let relation = &mapping.relations[ix];
    if relation.conditions.is_empty() || relation.otherwise == Otherwise::Ignore {
        return Ok(());
    }
    let sharing: Vec<(RelationIx, &Relation)> = mapping.sharing(ix).collect();
    // The first of them looks on behalf of all.
    if sharing[0].0 != ix {
        return Ok(());
    }
    let is_taken = |item: &Item<'_>| sharing.iter().any(|(_, relation)| item.belongs_to(relation));
    match all_items(relation, outer, json)?.iter().find(|item| !is_taken(item)) {
        None => Ok(()),
        Some(stray) => Err(stray.error(relation, &Path::default(), said(stray, &sharing))),
    }
}

fn said(stray: &Item<'_>, sharing: &[(RelationIx, &Relation)]) -> String {
    let mut paths: Vec<&Path> = Vec::new();
    for condition in sharing.iter().flat_map(|(_, relation)| &relation.conditions) {
        if !paths.contains(&&condition.path) {
            paths.push(&condition.path);
        }
    }
    let one = |path: &&Path| match stray.find(path) {
        Ok(Found::Value(value)) => format!("{path} is {}", found(&value)),
        Ok(Found::Absent) | Err(_) => format!("{path} is absent"),
    };
    let paths: Vec<String> = paths.iter().map(one).collect();
    format!(
        "no relation takes this item ({}); add one whose where does, or otherwise = \"ignore\"",
        paths.join(", ")
    )
}
