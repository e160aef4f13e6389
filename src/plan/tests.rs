//! Plans against a small model of a database: two tables with unique columns, which may refer to each other and to
//! themselves. The model is stricter than a server: in one statement no row may take what another still has.
//!
//! For every drawn pair of states the steps are executed. None may violate a constraint, and the end must be what
//! was asked for; where some order of single writes does without a detour, so must the plan. That is tried out:
//! the cases are so small that all orders can be.

use std::collections::HashMap;

use fastrand::Rng;

use super::*;
use crate::row::Cell;
use crate::schema::{Attribute, Check, Marks, OnChange, PhysicalColumn, Reference, Table, Unique, WriteWay};
use crate::value::{ColumnType, Kind};

const MAPPING: &str = r#"
version = 1
name = "model"
[root]
table = "root"
key = ["k"]
columns = { k = "k" }
[[root.children]]
name = "a"
table = "a"
parent = "p"
key = ["k"]
columns = { k = "k", u = "u", v = "v", w = "r" }
[[root.children]]
name = "b"
table = "b"
parent = "p"
key = ["k"]
columns = { k = "k", u = "u", v = "v", w = "r" }
"#;

/// Key, two unique columns, a reference: in the order in which a mapping has its columns.
type Cells = [Option<i32>; 4];
const K: usize = 0;
const U: usize = 1;
const V: usize = 2;
const R: usize = 3;

/// The rows of both tables, by table and key.
type State = BTreeMap<(usize, i32), Cells>;

/// What a case has of constraints.
#[derive(Clone, Debug)]
struct Rules {
    /// Per table, the table that its references are to.
    refers: [Option<usize>; 2],
    /// Whether the second unique column exists: alone, or together with the reference.
    second: Option<Vec<usize>>,
}

impl Rules {
    fn draw(rng: &mut Rng) -> Self {
        let refers = [(); 2].map(|()| (rng.u8(..3) > 0).then(|| rng.usize(1..3)));
        let second = [None, Some(vec![V]), Some(vec![V, R])][rng.usize(..3)].clone();
        Rules { refers, second }
    }

    fn uniques(&self) -> Vec<Vec<usize>> {
        std::iter::once(vec![U]).chain(self.second.clone()).collect()
    }

    fn target(&self, table: usize) -> Option<usize> {
        self.refers[table - 1]
    }

    /// Why a state is impossible.
    fn violation(&self, state: &State) -> Option<String> {
        self.double(state).or_else(|| self.orphan(state))
    }

    fn double(&self, state: &State) -> Option<String> {
        for unique in self.uniques() {
            let mut seen = HashMap::new();
            for ((table, key), cells) in state {
                let values: Option<Vec<i32>> = unique.iter().map(|&at| cells[at]).collect();
                let Some(values) = values else { continue };
                if let Some(other) = seen.insert((*table, values), key) {
                    return Some(format!("{table}: {key} and {other} have the same {unique:?}"));
                }
            }
        }
        None
    }

    fn orphan(&self, state: &State) -> Option<String> {
        let orphan = |((table, key), cells): (&(usize, i32), &Cells)| {
            let (target, value) = self.target(*table).zip(cells[R])?;
            let found = state.iter().any(|((other, _), cells)| *other == target && cells[U] == Some(value));
            (!found).then(|| format!("{table}: {key} refers to {value}, which is not there"))
        };
        state.iter().find_map(orphan)
    }

    /// Executes one statement.
    fn execute(&self, state: &mut State, writes: &[((usize, i32), Option<Cells>)]) -> Result<(), String> {
        for (row, cells) in writes {
            // One row alone, beside all others as they were.
            let mut alone = state.clone();
            set(&mut alone, *row, *cells);
            self.double(&alone).map_or(Ok(()), Err)?;
        }
        writes.iter().for_each(|(row, cells)| set(state, *row, *cells));
        self.violation(state).map_or(Ok(()), Err)
    }

    fn table(&self, ix: usize) -> Table {
        let int = || ColumnType {
            kind: Kind::Int4,
            sql: "integer".into(),
            oid: 23,
            array_oid: 1007,
            input: String::new(),
            send: String::new(),
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let column = |name: &str| PhysicalColumn { name: name.into(), ty: int() };
        let names = if ix == 0 { names(&["k"]) } else { names(&["k", "u", "v", "r"]) };
        let uniques = if ix == 0 { vec![] } else { self.uniques() };
        let referred = self.refers.contains(&Some(ix));
        Table {
            name: ["root", "a", "b"][ix].into(),
            columns: names.iter().map(|_| int()).collect(),
            nullable: vec![false, false, true, true][..names.len()].to_vec(),
            numbers: Vec::new(),
            key: vec![K],
            parent: if ix == 0 { vec![] } else { vec![column("p")] },
            id: None,
            locator: vec![column("k")],
            ignored: Vec::new(),
            own_locator: 1,
            marks: Marks::default(),
            parent_nullable: false,
            uniques: uniques.iter().map(|columns| unique(columns)).collect(),
            references: self
                .refers
                .get(ix.wrapping_sub(1))
                .copied()
                .flatten()
                .map(reference)
                .into_iter()
                .collect(),
            referred: if referred { vec![Attribute::Mapped(U)] } else { vec![] },
            way: WriteWay::Copy,
            triggers: Vec::new(),
            digest: [0; 32],
            names,
        }
    }
}

fn set(state: &mut State, row: (usize, i32), cells: Option<Cells>) {
    match cells {
        Some(cells) => drop(state.insert(row, cells)),
        None => drop(state.remove(&row)),
    }
}

fn unique(columns: &[usize]) -> Unique {
    Unique {
        name: format!("unique_{columns:?}"),
        attributes: columns.iter().map(|&at| Attribute::Mapped(at)).collect(),
        plain: true,
        nulls_distinct: true,
        check: Check::AtOnce,
        terms: Vec::new(),
        predicate: None,
    }
}

fn reference(target: usize) -> Reference {
    Reference {
        name: "refers".into(),
        from: vec![Attribute::Mapped(R)],
        target,
        to: vec![Attribute::Mapped(U)],
        on_delete: OnChange::Refused,
        on_update: OnChange::Refused,
        check: Check::AtOnce,
    }
}

/// Up to three rows a table, of few values.
fn draw(rng: &mut Rng, rules: &Rules) -> State {
    let value = |rng: &mut Rng| rng.i32(1..5);
    loop {
        let mut state = State::new();
        for table in 1..3 {
            for key in 0..3 {
                let v = (rng.u8(..4) > 0).then(|| value(rng));
                let r = (rng.u8(..3) > 0).then(|| value(rng));
                if rng.u8(..4) > 0 {
                    state.insert((table, key), [Some(key), Some(value(rng)), v, r]);
                }
            }
        }
        if rules.violation(&state).is_none() {
            return state;
        }
    }
}

fn tuple(cells: &[Option<i32>]) -> Tuple {
    let bytes: Vec<Option<[u8; 4]>> = cells.iter().map(|cell| cell.map(i32::to_be_bytes)).collect();
    Tuple::of(bytes.iter().map(|bytes| bytes.as_ref().map_or(Cell::Null, |bytes| Cell::Value(bytes))))
}

/// The rows of one table.
fn of(state: &State, table: usize) -> Vec<Cells> {
    state.iter().filter(|((other, _), _)| *other == table).map(|(_, cells)| *cells).collect()
}

/// Both states as the planner gets them: one document, all rows below its root.
fn sides(stored: &State, source: &State) -> Vec<Sides> {
    let children = (1..3).map(|table| side(&of(stored, table), &of(source, table)));
    let root = ChangeSet { unchanged: vec![(0, 0)], ..ChangeSet::default() };
    let root = Sides {
        stored: vec![stored_row(&[Some(1)], None)],
        source: vec![source_row(&[Some(1)])],
        changes: root,
    };
    std::iter::once(root).chain(children).collect()
}

fn side(stored: &[Cells], source: &[Cells]) -> Sides {
    let place = |rows: &[Cells], key| rows.iter().position(|row| row[K] == key).map(|at| at as u32);
    let mut changes = ChangeSet::default();
    for (at, row) in source.iter().enumerate() {
        match place(stored, row[K]) {
            Some(old) if stored[old as usize] == *row => changes.unchanged.push((old, at as u32)),
            Some(old) => changes.updated.push((old, at as u32)),
            None => changes.added.push(at as u32),
        }
    }
    let gone = stored.iter().enumerate().filter(|(_, row)| place(source, row[K]).is_none());
    changes.removed = gone.map(|(at, _)| at as u32).collect();
    Sides {
        stored: stored.iter().map(|cells| stored_row(cells, Some(0))).collect(),
        source: source.iter().map(|cells| source_row(cells)).collect(),
        changes,
    }
}

fn stored_row(cells: &[Option<i32>], parent: Option<u32>) -> StoredRow {
    StoredRow {
        document: Some(0),
        parent,
        reference: if parent.is_some() { tuple(&[Some(1)]) } else { Tuple::default() },
        locator: Tuple::default(),
        id: None,
        tuple: tuple(cells),
        fingerprint: RowFingerprint::default(),
    }
}

fn source_row(cells: &[Option<i32>]) -> SourceRow {
    SourceRow {
        document: 0,
        parent: 0,
        tuple: tuple(cells),
        fingerprint: RowFingerprint::default(),
        tree: TreeFingerprint::default(),
    }
}

/// What came of a plan.
struct Done {
    detours: usize,
    rounds: bool,
}

/// Executes a plan. The error is the violation.
fn execute(rules: &Rules, stored: &State, source: &State, plan: &Plan) -> Result<Done, String> {
    let mut state = stored.clone();
    let mut parked = 0;
    for Step { relation, action, .. } in &plan.steps {
        let (old, new) = (of(stored, *relation), of(source, *relation));
        let row = |cells: &Cells| (*relation, cells[K].unwrap_or_default());
        let now = |cells: &Cells| state[&row(cells)];
        let with = |mut cells: Cells, from: &Cells, columns: &[usize]| {
            columns.iter().for_each(|&at| cells[at] = from[at]);
            cells
        };
        let writes: Vec<_> = match action {
            Action::Delete(rows) => rows.iter().map(|&at| (row(&old[at as usize]), None)).collect(),
            Action::Update { columns, rows, .. } => {
                let update = |&(_, at): &(u32, u32)| {
                    let cells = &new[at as usize];
                    (row(cells), Some(with(now(cells), cells, columns)))
                };
                rows.iter().map(update).collect()
            }
            Action::Fill { columns, rows } => {
                let fill = |&at: &u32| {
                    let cells = &new[at as usize];
                    (row(cells), Some(with(now(cells), cells, columns)))
                };
                rows.iter().map(fill).collect()
            }
            Action::Insert { holes, rows, .. } => {
                let insert =
                    |&at: &u32| (row(&new[at as usize]), Some(with(new[at as usize], &[None; 4], holes)));
                rows.iter().map(insert).collect()
            }
            Action::Park { columns, rows, .. } => {
                let mut park = |&at: &u32| {
                    parked += 1;
                    let values = [None, Some(-parked), None, None];
                    (row(&old[at as usize]), Some(with(now(&old[at as usize]), &values, columns)))
                };
                rows.iter().map(&mut park).collect()
            }
            // The tables here have no foreign key that cascades.
            Action::Cascade(_) => unreachable!("{action:?}"),
            Action::Mark(_) => Vec::new(),
        };
        rules.execute(&mut state, &writes).map_err(|error| format!("{action:?}: {error}"))?;
    }
    if state != *source {
        return Err(format!("the end is {state:?}"));
    }
    let detours = plan.steps.iter().filter(|step| step.action.is_detour()).map(|step| step.action.rows());
    Ok(Done { detours: detours.sum(), rounds: plan.steps.iter().any(|step| !step.after.is_empty()) })
}

/// Whether some order of one write a row does.
fn some_order_does(rules: &Rules, state: &State, source: &State) -> bool {
    let differs = |row: &(usize, i32)| state.get(row) != source.get(row);
    let rows: BTreeSet<(usize, i32)> = state.keys().chain(source.keys()).copied().filter(differs).collect();
    rows.is_empty()
        || rows.into_iter().any(|row| {
            let mut next = state.clone();
            let written = rules.execute(&mut next, &[(row, source.get(&row).copied())]);
            written.is_ok() && some_order_does(rules, &next, source)
        })
}

#[test]
fn p18_p19_no_plan_violates_what_some_order_does_not() {
    let mapping = Mapping::from_toml(MAPPING).unwrap();
    let (mut natural, mut rounds, mut detours, mut refused) = (0, 0, 0, 0);
    for seed in 0..CASES {
        let rng = &mut Rng::with_seed(seed);
        let rules = Rules::draw(rng);
        let (stored, source) = (draw(rng, &rules), draw(rng, &rules));
        let tables = (0..3).map(|ix| rules.table(ix)).collect();
        let schema = Schema { tables, lookups: Vec::new(), digest: [0; 32] };
        let sides = sides(&stored, &source);
        let batch = Batch {
            mapping: &mapping,
            schema: &schema,
            sides: &sides,
            documents: 1,
            holds: rng.bool(),
            marked: super::Marked::Also(&[false]),
        };
        let plan = plan(batch, &[]);
        let case = || format!("seed {seed}: {rules:?}\n{stored:?}\n{source:?}\n{}", plan.describe(&mapping));
        match execute(&rules, &stored, &source, &plan) {
            Ok(Done { detours: 0, rounds: false }) => natural += 1,
            Ok(Done { detours: 0, .. }) => rounds += 1,
            Ok(_) if some_order_does(&rules, &stored, &source) => panic!("a detour without need: {}", case()),
            Ok(_) => detours += 1,
            Err(error) if some_order_does(&rules, &stored, &source) => panic!("{error}\n{}", case()),
            Err(_) => refused += 1,
        }
    }
    println!(
        "{CASES} cases: {natural} in the natural order, {rounds} in rounds, {detours} with detours, {refused} refused"
    );
    assert!(rounds > CASES / 50 && detours > CASES / 50 && refused < CASES / 10);
}

/// As many as take a few seconds.
const CASES: u64 = 20_000;

/// The plan's text for two states of table `a`: key, unique column, reference to a row of the table.
fn text(refers: Option<usize>, stored: &[[Option<i32>; 3]], source: &[[Option<i32>; 3]]) -> String {
    let mapping = Mapping::from_toml(MAPPING).unwrap();
    let rules = Rules { refers: [refers, None], second: None };
    let state = |rows: &[[Option<i32>; 3]]| -> State {
        rows.iter().map(|&[k, u, r]| ((1, k.unwrap_or_default()), [k, u, None, r])).collect()
    };
    let tables = (0..3).map(|ix| rules.table(ix)).collect();
    let schema = Schema { tables, lookups: Vec::new(), digest: [0; 32] };
    let sides = sides(&state(stored), &state(source));
    let batch = Batch {
        mapping: &mapping,
        schema: &schema,
        sides: &sides,
        documents: 1,
        holds: true,
        marked: super::Marked::Also(&[false]),
    };
    let text = plan(batch, &[]).describe(&mapping).to_string();
    // Columns of the text are as wide as tables' names are long.
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn p19_a_swap_parks_one_value_and_a_chain_none() {
    let swap = text(
        None,
        &[[Some(0), Some(1), None], [Some(1), Some(2), None]],
        &[[Some(0), Some(2), None], [Some(1), Some(1), None]],
    );
    assert_eq!(swap, "park a 1 row u\nupdate a 1 row u\nupdate a 1 row u after unique_[1]\n");
    let chain = text(
        None,
        &[[Some(0), Some(1), None], [Some(1), Some(2), None]],
        &[[Some(0), Some(2), None], [Some(1), Some(3), None]],
    );
    assert_eq!(chain, "update a 1 row u\nupdate a 1 row u after unique_[1]\n");
}

#[test]
fn p18_a_plan_says_which_constraints_a_step_waits_for() {
    // The row that is referred to is replaced, and what referred to it refers to the new one.
    let replaced = text(
        Some(1),
        &[[Some(0), Some(1), None], [Some(1), Some(2), Some(1)]],
        &[[Some(1), Some(2), Some(3)], [Some(2), Some(3), None]],
    );
    assert_eq!(replaced, "insert a 1 row\nupdate a 1 row w after refers\ndelete a 1 row after refers\n");
    // In one statement rows may refer to each other.
    let both = text(Some(1), &[], &[[Some(0), Some(1), Some(2)], [Some(1), Some(2), Some(1)]]);
    assert_eq!(both, "insert a 2 rows\n");
}
