//! Documents that change from night to night, and how they are spelled.
//!
//! The documents are kept as trees of items. A list or a cell that a document is *silent* about (absent, and the
//! mapping keeps what is stored) stays in the tree as it was, so that the tree is always what is stored, and a key
//! can be given only to an item whose key nothing stored has.

use std::collections::{BTreeSet, HashMap};

use fastrand::Rng;

use super::shape::{Kind, Policy, Rel, Shape, Twins};
use super::spelling::{cell_members, comma, merged, object, one};
use super::value::Spellings;
use crate::tally::Drawn;

/// What a case is said to have drawn that had one.
pub const NULL_KEY: &str = "null in a key";

/// All documents that were ever in the feed.
pub struct World<'s> {
    shape: &'s Shape,
    docs: Vec<Doc>,
    /// Per relation, keys given out so far: of relations whose key is unique in the table.
    keys_next: HashMap<usize, u64>,
}

struct Doc {
    item: Item,
    /// As it stood in the last feed; `None` when it changed since.
    text: Option<String>,
}

#[derive(Clone)]
struct Item {
    /// Stands for the key's cells.
    key: u64,
    cells: Vec<Cell>,
    /// In the order of the shape's enclosed relations.
    lists: Vec<List>,
    /// Whether a feed had it.
    stored: bool,
}

#[derive(Clone)]
pub struct Cell {
    /// One for each value: two for a composite catalogue key.
    pub values: Vec<Spellings>,
    pub null: bool,
    pub silent: bool,
}

#[derive(Clone)]
struct List {
    items: Vec<Item>,
    say: Say,
}

#[derive(Clone, Copy, PartialEq)]
enum Say {
    Items,
    Absent,
    Null,
}

/// The way to a list: places of items in lists, from the document's root on; and the list's place.
#[derive(Clone, PartialEq)]
struct Address {
    doc: usize,
    steps: Vec<(usize, usize)>,
    list: usize,
}

/// One night's feed.
pub struct Night {
    pub docs: Vec<String>,
    /// Each document once: what a feed without repeats would be.
    pub once: Vec<String>,
    present: Vec<usize>,
}

impl Say {
    fn is_silent(self, rel: &Rel) -> bool {
        match self {
            Say::Items => false,
            Say::Absent => rel.when_absent == Policy::Keep,
            Say::Null => rel.when_null == Policy::Keep,
        }
    }
}

impl<'s> World<'s> {
    pub fn new(shape: &'s Shape, rng: &mut Rng, drawn: &mut Drawn) -> Self {
        let mut world = World { shape, docs: Vec::new(), keys_next: HashMap::new() };
        for _ in 0..rng.usize(1..7) {
            world.add_doc(rng, drawn);
        }
        world
    }

    fn add_doc(&mut self, rng: &mut Rng, drawn: &mut Drawn) {
        let mut item = self.item(0, self.docs.len() as u64, rng);
        self.fill(&mut item, 0, rng, drawn);
        self.docs.push(Doc { item, text: None });
    }

    /// An item without lists' items.
    fn item(&self, ix: usize, key: u64, rng: &mut Rng) -> Item {
        let rel = &self.shape.relations[ix];
        let mut item = Item { key, cells: Vec::new(), lists: Vec::new(), stored: false };
        for at in 0..rel.columns.len() {
            let cell = self.cell(ix, at, key, rng);
            item.cells.push(cell);
        }
        item.lists = self.shape.enclosed(ix).map(|_| List { items: Vec::new(), say: Say::Items }).collect();
        item
    }

    fn cell(&self, ix: usize, at: usize, key: u64, rng: &mut Rng) -> Cell {
        let rel = &self.shape.relations[ix];
        let col = &rel.columns[at];
        let key_columns = rel.own_key();
        let place_in_key = key_columns.iter().position(|&column| column == at);
        let full = Cell { values: Vec::new(), null: false, silent: false };
        if col.is_constant() {
            return full;
        }
        if let (Some(place), true) = (place_in_key, rel.kind != Kind::Link) {
            let n = if key_columns.len() == 1 { key } else { [key / 2, key % 2][place] };
            return Cell { values: vec![col.ty.key(n)], null: col.nullable && n == 0, ..full };
        }
        let null = !col.not_null && rng.u8(..6) == 0;
        let silent = col.keep && (!col.not_null || col.default) && rng.u8(..8) == 0;
        let values = match col.catalogue {
            Some(catalogue) => {
                let catalogue = &self.shape.catalogues[catalogue];
                let n = if place_in_key.is_some() { key } else { rng.u64(..catalogue.used) };
                catalogue.key(n)
            }
            // Few values where content is the identity, so that some rows are equal.
            None => vec![col.ty.draw(rng, if rel.key.is_empty() { 3 } else { 1000 })],
        };
        Cell { values, null, silent }
    }

    /// Gives an item its lists.
    fn fill(&mut self, item: &mut Item, ix: usize, rng: &mut Rng, drawn: &mut Drawn) {
        let shape = self.shape;
        for (at, inner) in shape.enclosed(ix).enumerate() {
            let bulk =
                shape.is_leaf(inner) && shape.relations[inner].kind == Kind::Child && rng.u8(..60) == 0;
            let count = if bulk { 60 } else { rng.usize(..4) };
            for _ in 0..count {
                self.add(&mut item.lists[at], inner, rng, drawn);
            }
            if bulk {
                drawn.note("60 rows at once");
            }
        }
    }

    /// A new item with a key that nothing stored has.
    fn add(&mut self, list: &mut List, ix: usize, rng: &mut Rng, drawn: &mut Drawn) {
        let rel = &self.shape.relations[ix];
        let taken: BTreeSet<u64> = list.items.iter().map(|item| item.key).collect();
        let free = match rel.kind {
            Kind::Link => {
                let catalogue = rel.columns[0].catalogue.map_or(0, |at| self.shape.catalogues[at].used);
                (0..catalogue).filter(|key| !taken.contains(key)).collect::<Vec<_>>()
            }
            _ if rel.unique_in_all => {
                let next = self.keys_next.entry(ix).or_default();
                *next += 1;
                vec![*next - 1]
            }
            _ => (0..taken.len() as u64 + 5).filter(|key| !taken.contains(key)).collect(),
        };
        if free.is_empty() {
            return;
        }
        let mut item = self.item(ix, free[rng.usize(..free.len())], rng);
        self.fill(&mut item, ix, rng, drawn);
        list.items.push(item);
    }

    /// Changes the documents, and draws tonight's feed.
    pub fn night(&mut self, rng: &mut Rng, drawn: &mut Drawn) -> Night {
        if self.docs[0].item.stored && rng.bool() {
            self.add_doc(rng, drawn);
        }
        let mut present = Vec::new();
        for at in 0..self.docs.len() {
            if self.docs[at].item.stored && rng.u8(..8) == 0 {
                drawn.note("document missing from the feed");
                continue;
            }
            present.push(at);
            if self.docs[at].item.stored && rng.u8(..5) < 3 {
                let mut item = self.docs[at].item.clone();
                self.mutate(&mut item, 0, rng, drawn);
                self.docs[at] = Doc { item, text: None };
            }
        }
        for _ in 0..rng.usize(..4) {
            self.relocate(&present, rng, drawn);
        }
        rng.shuffle(&mut present);
        self.spell(&present, rng, drawn)
    }

    fn mutate(&mut self, item: &mut Item, ix: usize, rng: &mut Rng, drawn: &mut Drawn) {
        let shape = self.shape;
        for at in 0..item.cells.len() {
            if rng.u8(..5) == 0 {
                item.cells[at] = self.cell(ix, at, item.key, rng);
                drawn.note("value edited");
            }
        }
        for (at, inner) in shape.enclosed(ix).enumerate() {
            if rng.bool() {
                self.mutate_list(&mut item.lists[at], inner, rng, drawn);
            }
        }
    }

    fn mutate_list(&mut self, list: &mut List, ix: usize, rng: &mut Rng, drawn: &mut Drawn) {
        let rel = &self.shape.relations[ix];
        list.say = match rng.u8(..12) {
            _ if self.shape.shares(ix) => Say::Items,
            0 => Say::Absent,
            1 if rel.when_null != Policy::Error => Say::Null,
            _ => Say::Items,
        };
        if list.say.is_silent(rel) {
            return;
        }
        match rng.u8(..8) {
            _ if list.say != Say::Items => list.items.clear(),
            0 => {
                if !list.items.is_empty() {
                    drawn.note("list emptied");
                }
                list.items.clear();
            }
            1 | 2 => {
                self.add(list, ix, rng, drawn);
                drawn.note("row added");
            }
            3 | 4 if !list.items.is_empty() => {
                list.items.swap_remove(rng.usize(..list.items.len()));
                drawn.note("row removed");
            }
            5 => {
                rng.shuffle(&mut list.items);
                drawn.note("list reordered");
            }
            6 if rel.key.is_empty() && !list.items.is_empty() => {
                let twin = list.items[rng.usize(..list.items.len())].clone();
                list.items.push(twin);
                drawn.note("equal rows of a multiset");
            }
            _ => {}
        }
        for item in &mut list.items {
            if rng.u8(..3) == 0 {
                self.mutate(item, ix, rng, drawn);
            }
        }
    }

    /// Moves one item to another list of its relation.
    fn relocate(&mut self, present: &[usize], rng: &mut Rng, drawn: &mut Drawn) {
        let shape = self.shape;
        let all: Vec<usize> =
            (0..shape.relations.len()).filter(|&ix| shape.relations[ix].unique_in_all).collect();
        if all.is_empty() {
            return;
        }
        let ix = all[rng.usize(..all.len())];
        let mut lists = Vec::new();
        for (doc, Doc { item, .. }) in self.docs.iter().enumerate() {
            self.open_lists(item, 0, ix, &mut Address { doc, steps: Vec::new(), list: 0 }, &mut lists);
        }
        let full: Vec<&Address> = lists.iter().filter(|at| !self.list(at).items.is_empty()).collect();
        let open: Vec<&Address> = lists.iter().filter(|at| present.contains(&at.doc)).collect();
        if full.is_empty() || open.is_empty() {
            return;
        }
        let (from, to) = (full[rng.usize(..full.len())].clone(), open[rng.usize(..open.len())].clone());
        if from == to {
            return;
        }
        let items = &mut self.list_mut(&from).items;
        let mut item = items.swap_remove(rng.usize(..items.len()));
        if item.stored {
            drawn.note("move");
            drawn.note(match () {
                () if from.doc == to.doc => "move within a document",
                () if present.contains(&from.doc) => "move between documents",
                () => "move from a missing document",
            });
        }
        if rng.u8(..3) == 0 {
            self.mutate(&mut item, ix, rng, drawn);
        }
        self.docs[from.doc].text = None;
        self.docs[to.doc].text = None;
        self.list_mut(&to).items.push(item);
    }

    /// The lists of a relation that nothing around them is silent about.
    fn open_lists(&self, item: &Item, ix: usize, wanted: usize, at: &mut Address, found: &mut Vec<Address>) {
        for (place, inner) in self.shape.enclosed(ix).enumerate() {
            let list = &item.lists[place];
            if list.say != Say::Items {
                continue;
            }
            if inner == wanted {
                found.push(Address { list: place, ..at.clone() });
            }
            for (n, item) in list.items.iter().enumerate() {
                at.steps.push((place, n));
                self.open_lists(item, inner, wanted, at, found);
                at.steps.pop();
            }
        }
    }

    fn list(&self, at: &Address) -> &List {
        let step = |item, &(list, n): &(usize, usize)| -> &Item {
            let item: &Item = item;
            &item.lists[list].items[n]
        };
        &at.steps.iter().fold(&self.docs[at.doc].item, step).lists[at.list]
    }

    fn list_mut(&mut self, at: &Address) -> &mut List {
        let mut item = &mut self.docs[at.doc].item;
        for &(list, n) in &at.steps {
            item = &mut item.lists[list].items[n];
        }
        &mut item.lists[at.list]
    }

    fn spell(&mut self, present: &[usize], rng: &mut Rng, drawn: &mut Drawn) -> Night {
        let mut night = Night { docs: Vec::new(), once: Vec::new(), present: present.to_vec() };
        for &at in present {
            if self.docs[at].text.is_some() && rng.bool() {
                drawn.note("document byte for byte as before");
            } else {
                if self.docs[at].text.is_some() {
                    drawn.note("document respelled");
                }
                self.docs[at].text = Some(self.text(at, rng, drawn));
            }
            mark_stored(&mut self.docs[at].item);
            night.once.extend(self.docs[at].text.clone());
        }
        night.docs = night.once.clone();
        self.repeat(&mut night, rng, drawn);
        night
    }

    fn repeat(&self, night: &mut Night, rng: &mut Rng, drawn: &mut Drawn) {
        if rng.u8(..4) == 0 && !night.docs.is_empty() {
            let at = rng.usize(..night.docs.len());
            let again =
                if rng.bool() { night.once[at].clone() } else { self.text(night.present[at], rng, drawn) };
            night.docs.insert(rng.usize(at + 1..=night.docs.len()), again);
            drawn.note("document repeated");
        }
    }

    /// The same feed in other words.
    pub fn respell(&mut self, night: &Night, rng: &mut Rng, drawn: &mut Drawn) -> Night {
        let mut present = night.present.clone();
        rng.shuffle(&mut present);
        present.iter().for_each(|&at| self.docs[at].text = Some(self.text(at, rng, drawn)));
        let once: Vec<String> = present.iter().filter_map(|&at| self.docs[at].text.clone()).collect();
        Night { docs: once.clone(), once, present }
    }

    /// Documents that are stored and not in a night's feed, as they are stored, but for such as have lost a row to another
    /// one since; and one that never was in any.
    pub fn others(&mut self, night: &Night, rng: &mut Rng, drawn: &mut Drawn) -> (Vec<String>, String) {
        let missing = |&at: &usize| self.docs[at].text.is_some() && !night.present.contains(&at);
        let missing: Vec<usize> = (0..self.docs.len()).filter(missing).collect();
        let stored = missing.into_iter().map(|at| self.text(at, rng, drawn)).collect();
        let mut item = self.item(0, rng.u64(10_000..1_000_000), rng);
        self.fill(&mut item, 0, rng, drawn);
        (stored, object(self.members(&item, 0, rng, drawn), rng))
    }

    fn text(&self, at: usize, rng: &mut Rng, drawn: &mut Drawn) -> String {
        let mut members = self.members(&self.docs[at].item, 0, rng, drawn);
        if rng.bool() {
            members.push(("unmapped".into(), rng.u32(..).to_string()));
        }
        object(members, rng)
    }

    fn item_text(&self, item: &Item, ix: usize, rng: &mut Rng, drawn: &mut Drawn) -> String {
        let rel = &self.shape.relations[ix];
        if rel.scalar {
            if item.cells[0].null && !rel.key.is_empty() {
                drawn.note(NULL_KEY);
            }
            let text = |rng: &mut Rng| rel.columns[0].form.respell(one(&item.cells[0].values[0], rng), rng);
            return if item.cells[0].null { "null".into() } else { text(rng) };
        }
        let mut members = self.members(item, ix, rng, drawn);
        rel.kinds.iter().for_each(|kinds| members.extend(kinds.members(rng)));
        object(members, rng)
    }

    fn members(&self, item: &Item, ix: usize, rng: &mut Rng, drawn: &mut Drawn) -> Vec<(String, String)> {
        let rel = &self.shape.relations[ix];
        let mut members = Vec::new();
        for (col, cell) in rel.columns.iter().zip(&item.cells) {
            if col.nullable && cell.null {
                drawn.note(NULL_KEY);
            }
            let form = col.catalogue.map_or(col.form, |at| self.shape.catalogues[at].form);
            members.extend(cell_members(col, cell, form, rng));
        }
        let inner: Vec<(&List, usize)> = item.lists.iter().zip(self.shape.enclosed(ix)).collect();
        for &(_, first) in &inner {
            let field = &self.shape.relations[first].field;
            let sharing = inner.iter().copied().filter(|&(_, ix)| self.shape.relations[ix].field == *field);
            let sharing: Vec<(&List, usize)> = sharing.collect();
            // The first of the relations that read a list speaks for all.
            if sharing[0].1 == first {
                members.extend(self.list_text(&sharing, rng, drawn).map(|text| (field.clone(), text)));
            }
        }
        members
    }

    /// What the relations say that read one list. `None`: the field is absent.
    fn list_text(&self, sharing: &[(&List, usize)], rng: &mut Rng, drawn: &mut Drawn) -> Option<String> {
        let (list, ix) = sharing[0];
        let rel = &self.shape.relations[ix];
        let is_empty = sharing.iter().all(|(list, _)| list.items.is_empty());
        let mut says = vec![list.say];
        if is_empty && !list.say.is_silent(rel) {
            says = vec![Say::Items];
            says.extend((rel.when_null == Policy::Empty).then_some(Say::Null));
            says.extend((rel.when_absent == Policy::Empty).then_some(Say::Absent));
        }
        match says[rng.usize(..says.len())] {
            Say::Absent => {
                drawn.note("absent list");
                return None;
            }
            Say::Null => {
                drawn.note("null list");
                return Some("null".into());
            }
            Say::Items if is_empty => drawn.note("empty list"),
            Say::Items => {}
        }
        if rel.map {
            let mut items: Vec<&Item> = list.items.iter().collect();
            rng.shuffle(&mut items);
            let member = |item: &&Item| {
                let name = serde_json::from_str(&item.cells[0].values[0][0]).expect("a string");
                (name, self.item_text(item, ix, &mut *rng, &mut *drawn))
            };
            let members = items.iter().map(member).collect();
            return Some(object(members, rng));
        }
        let mut texts = Vec::new();
        for &(list, ix) in sharing {
            let own = self.item_texts(list, ix, rng, drawn);
            texts = merged(texts, own, rng);
        }
        self.add_strays(sharing, &mut texts, rng, drawn);
        match &texts[..] {
            [one] if rel.single && one != "null" && !one.starts_with('[') && rng.bool() => {
                drawn.note("one item in place of a list");
                Some(one.clone())
            }
            _ => Some(format!("[{}]", texts.join(comma(rng)))),
        }
    }

    /// The items of a list that are one relation's, in an order that may be another one where none is stored.
    fn item_texts(&self, list: &List, ix: usize, rng: &mut Rng, drawn: &mut Drawn) -> Vec<String> {
        let rel = &self.shape.relations[ix];
        let mut items: Vec<&Item> = list.items.iter().collect();
        if !rel.ordered {
            rng.shuffle(&mut items);
        }
        let mut texts: Vec<String> = items.iter().map(|item| self.item_text(item, ix, rng, drawn)).collect();
        let takes_twins = !rel.key.is_empty() && (!rel.ordered || rel.has_position());
        if takes_twins && !items.is_empty() && rng.u8(..5) == 0 {
            self.duplicate(&items, &mut texts, ix, rng, drawn);
        }
        texts
    }

    /// Adds items that no relation takes: some are like one that is taken but for its kind.
    fn add_strays(
        &self,
        sharing: &[(&List, usize)],
        texts: &mut Vec<String>,
        rng: &mut Rng,
        drawn: &mut Drawn,
    ) {
        let (list, ix) = sharing[0];
        let Some(kinds) = self.shape.relations[ix].kinds.as_ref().filter(|kinds| kinds.strays) else {
            return;
        };
        for _ in 0..rng.usize(..3) {
            let stray = match &list.items[..] {
                _ if rng.u8(..4) == 0 => ["null", "7", "\"a\"", "[]"][rng.usize(..4)].to_owned(),
                [] => object(kinds.strange(rng), rng),
                items => {
                    let like = &items[rng.usize(..items.len())];
                    let members = self.members(like, ix, rng, drawn);
                    object(members.into_iter().chain(kinds.strange(rng)).collect(), rng)
                }
            };
            texts.insert(rng.usize(..=texts.len()), stray);
            drawn.note("stray item");
        }
    }

    /// Says one item once more: in the same words, in others, or with other content that does not count.
    fn duplicate(
        &self,
        items: &[&Item],
        texts: &mut Vec<String>,
        ix: usize,
        rng: &mut Rng,
        drawn: &mut Drawn,
    ) {
        let rel = &self.shape.relations[ix];
        let at = rng.usize(..items.len());
        if rel.twins == Twins::Error || rng.u8(..3) == 0 {
            // Where lists are enclosed only the same words count as equal.
            let same_words = !self.shape.is_leaf(ix) && rel.twins == Twins::Error;
            let twin = if same_words || rng.bool() {
                texts[at].clone()
            } else {
                self.item_text(items[at], ix, rng, drawn)
            };
            // Where places count the twin stands on the side that does not.
            let place = match (rel.has_position(), rel.twins) {
                (false, _) => rng.usize(..=texts.len()),
                (true, Twins::Last) => rng.usize(..=at),
                (true, _) => rng.usize(at + 1..=texts.len()),
            };
            texts.insert(place, twin);
            drawn.note("duplicate, equal");
        } else {
            let mut other = items[at].clone();
            // A reference stays as it is: a catalogue row is inserted for an item that does not count, too.
            for at in (0..other.cells.len()).filter(|&at| rel.columns[at].catalogue.is_none()) {
                other.cells[at] = self.cell(ix, at, other.key, rng);
            }
            let twin = self.item_text(&other, ix, rng, drawn);
            let place =
                if rel.twins == Twins::First { rng.usize(at + 1..=texts.len()) } else { rng.usize(..=at) };
            texts.insert(place, twin);
            drawn.note("duplicate, differing");
        }
        drawn.note("duplicate");
    }
}

fn mark_stored(item: &mut Item) {
    item.stored = true;
    item.lists.iter_mut().flat_map(|list| &mut list.items).for_each(mark_stored);
}
