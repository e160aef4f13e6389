//! What stood at one place of the documents: how often, of which kind, and whether its values repeat.

use std::borrow::Cow;
use std::collections::HashMap;

use super::distinct::{Contents, Distinct, Tally, digest};
use crate::json::Json;
use crate::mapping::{Nul, TextForm};
use crate::sample::Guess;
use crate::value::in_form;

/// Beyond so many names an object's members are counted together: a table has no room for more columns, and the names
/// are data most likely.
const NAMES_MAX: usize = 500;
/// Places of all documents together that are told apart.
const NODES_MAX: usize = 20_000;

/// Kinds of scalars, as bits.
pub(super) const STRING: u8 = 1;
pub(super) const NUMBER: u8 = 2;
pub(super) const BOOLEAN: u8 = 4;

/// The values at one place: of one field of all objects of one kind, of all items of one kind of list.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// How often there was a value at all, null included.
    pub present: u64,
    pub nulls: u64,
    pub scalars: u64,
    pub objects: u64,
    pub lists: u64,
    /// Lists that were not empty.
    pub filled: u64,
    /// Values where elsewhere was a list: they are counted as its items.
    pub singles: u64,
    /// Which types the scalars fit.
    pub guess: Guess,
    /// Whether a string, here or below, holds U+0000.
    pub nul: bool,
    /// Which kinds of scalars there were, a bit each.
    pub kinds: u8,
    /// The longest string.
    pub bytes_max: usize,
    pub values: Distinct,
    pub fields: Fields,
    /// Members whose names were too many, all together.
    pub rest: Option<Box<Node>>,
    pub items: Option<Box<Items>>,
    /// The values of the object's members, if their names are data.
    pub map: Option<Box<Node>>,
}

/// The items of the lists at one place.
#[derive(Clone, Debug)]
pub(super) struct Items {
    pub node: Node,
    /// Items that stood in a list with others.
    pub siblings: u64,
    /// The shortest and the longest list that was not empty.
    pub lengths: (usize, usize),
    /// Whole items, while they are scalars or flat objects.
    pub contents: Option<Contents>,
}

/// The members of objects, in the order in which their names were first seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub nodes: Vec<(String, Node)>,
    places: HashMap<String, usize>,
}

impl Items {
    /// Whether the lists look like tuples, of which each place means something else: numbers, always as many.
    pub fn are_tuples(&self) -> bool {
        let (shortest, longest) = self.lengths;
        let lists = self.node.present / longest.max(1) as u64;
        let are_numbers = self.node.kinds == NUMBER && self.node.scalars == self.node.present;
        are_numbers && shortest == longest && longest > 1 && lists > 1
    }
}

/// What the values at a place are, taken together.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'n> {
    /// Nothing but null.
    Never,
    Scalar,
    /// Objects whose members are fields.
    Object,
    /// Objects whose members' names are data.
    Map(&'n Node),
    List(&'n Items),
    /// Several of these, or what has no place in columns.
    Mixed,
}

impl Default for Node {
    fn default() -> Self {
        Node {
            present: 0,
            nulls: 0,
            scalars: 0,
            objects: 0,
            lists: 0,
            filled: 0,
            singles: 0,
            guess: Guess::ANY,
            nul: false,
            kinds: 0,
            bytes_max: 0,
            values: Distinct::default(),
            fields: Fields::default(),
            rest: None,
            items: None,
            map: None,
        }
    }
}

impl Node {
    /// Takes a value into account.
    pub fn see(&mut self, json: &Json<'_>, tally: &mut Tally) {
        self.present += 1;
        match json {
            Json::Null => self.nulls += 1,
            Json::Array(items) => self.see_list(items, tally),
            Json::Object(members) => self.see_object(members, tally),
            scalar => self.see_scalar(scalar, tally),
        }
    }

    fn see_scalar(&mut self, json: &Json<'_>, tally: &mut Tally) {
        self.scalars += 1;
        let (stripped, nul) = in_form(json, TextForm { nul: Nul::Strip, nfc: false });
        self.nul |= nul;
        self.kinds |= match stripped.as_ref() {
            Json::String(_) => STRING,
            Json::Number(_) => NUMBER,
            _ => BOOLEAN,
        };
        if let Json::String(text) = stripped.as_ref() {
            self.bytes_max = self.bytes_max.max(text.len());
        }
        // A scalar is text, if nothing else.
        let _ = self.guess.see(&stripped, false);
        self.values.see(&stripped, tally);
    }

    fn see_object(&mut self, members: &[(Cow<'_, str>, Json<'_>)], tally: &mut Tally) {
        self.objects += 1;
        for (name, value) in counted(members) {
            self.nul |= name.contains('\0');
            match self.fields.at(name, tally) {
                Some(node) => node.see(value, tally),
                None => self.rest.get_or_insert_default().see(value, tally),
            }
        }
    }

    fn see_list(&mut self, list: &[Json<'_>], tally: &mut Tally) {
        self.lists += 1;
        if list.is_empty() {
            return;
        }
        self.filled += 1;
        let items = self.items.get_or_insert_default();
        items.lengths = (items.lengths.0.min(list.len()), items.lengths.1.max(list.len()));
        if list.len() > 1 {
            items.siblings += list.len() as u64;
        }
        tally.depth += 1;
        list.iter().for_each(|item| items.node.see(item, tally));
        tally.depth -= 1;
        items.node.close_list();
        if let Some(contents) = items.contents.take() {
            let before = contents.different();
            let these = list.iter().map(digest).collect::<Option<Vec<u64>>>();
            let all = these.and_then(|these| contents.with(these));
            items.contents = all.filter(|all| tally.has_room(all.different() - before));
        }
    }

    /// Ends a list of which this place was seen: its values were siblings.
    fn close_list(&mut self) {
        self.values.close_list();
        self.fields.nodes.iter_mut().for_each(|(_, node)| node.close_list());
        self.rest.iter_mut().for_each(|node| node.close_list());
    }

    /// Forgets the values that a narrower tally does not look at. Gives how many are left.
    pub fn prune(&mut self, tally: &Tally) -> usize {
        let fields = self.fields.nodes.iter_mut().map(|(_, node)| node);
        let boxed = self.rest.as_deref_mut().into_iter();
        let items = self.items.as_deref_mut().map(|items| &mut items.node);
        let below: usize = fields.chain(boxed).chain(items).map(|node| node.prune(tally)).sum();
        below + self.values.prune(tally)
    }

    /// Adds what was seen at another place.
    pub fn absorb(&mut self, other: Node) {
        self.present += other.present;
        self.nulls += other.nulls;
        self.scalars += other.scalars;
        self.objects += other.objects;
        self.lists += other.lists;
        self.filled += other.filled;
        self.singles += other.singles;
        self.guess = self.guess.and(other.guess);
        self.nul |= other.nul;
        self.kinds |= other.kinds;
        self.bytes_max = self.bytes_max.max(other.bytes_max);
        self.values.absorb(other.values);
        for (name, node) in other.fields.nodes {
            match self.fields.at(&name, &mut Tally::default()) {
                Some(own) => own.absorb(node),
                None => self.rest.get_or_insert_default().absorb(node),
            }
        }
        if let Some(rest) = other.rest {
            self.rest.get_or_insert_default().absorb(*rest);
        }
        if let Some(items) = other.items {
            let own = self.items.get_or_insert_default();
            own.node.absorb(items.node);
            own.siblings += items.siblings;
            own.lengths = (own.lengths.0.min(items.lengths.0), own.lengths.1.max(items.lengths.1));
            own.contents = None;
        }
    }

    /// What all that was seen here is.
    pub fn shape(&self) -> Shape<'_> {
        let is_empty = self.fields.nodes.is_empty() && self.rest.is_none();
        match (self.scalars > 0, self.objects > 0, self.lists > 0) {
            (false, false, false) => Shape::Never,
            (true, false, false) => Shape::Scalar,
            (false, true, false) if is_empty => Shape::Mixed,
            (false, true, false) => match &self.map {
                Some(values) => Shape::Map(values),
                None if self.rest.is_some() => Shape::Mixed,
                None => Shape::Object,
            },
            (false, false, true) => self.items.as_deref().map_or(Shape::Mixed, Shape::List),
            _ => Shape::Mixed,
        }
    }

    /// Whether a string of these values, or of any below, holds U+0000.
    pub fn holds_nul(&self) -> bool {
        let below = |node: &Option<Box<Node>>| node.as_ref().is_some_and(|node| node.holds_nul());
        self.nul
            || self.fields.nodes.iter().any(|(_, node)| node.holds_nul())
            || below(&self.rest)
            || self.items.as_ref().is_some_and(|items| items.node.holds_nul())
    }
}

impl Default for Items {
    fn default() -> Self {
        Items {
            node: Node::default(),
            siblings: 0,
            lengths: (usize::MAX, 0),
            contents: Some(Contents::default()),
        }
    }
}

impl Fields {
    /// The place of a member; `None` if there are too many to tell it apart.
    fn at(&mut self, name: &str, tally: &mut Tally) -> Option<&mut Node> {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None if self.nodes.len() == NAMES_MAX || tally.nodes == NODES_MAX => return None,
            None => {
                tally.nodes += 1;
                self.places.insert(name.to_owned(), self.nodes.len());
                self.nodes.push((name.to_owned(), Node::default()));
                self.nodes.len() - 1
            }
        };
        Some(&mut self.nodes[place].1)
    }
}

/// The members of an object, of a repeated name the last one only.
fn counted<'j>(members: &'j [(Cow<'j, str>, Json<'j>)]) -> impl Iterator<Item = (&'j str, &'j Json<'j>)> {
    let last: HashMap<&str, usize> =
        members.iter().enumerate().map(|(at, (name, _))| (name.as_ref(), at)).collect();
    let counts =
        move |(at, (name, _)): &(usize, &'j (Cow<'j, str>, Json<'j>))| last.get(name.as_ref()) == Some(at);
    members.iter().enumerate().filter(counts).map(|(_, (name, value))| (name.as_ref(), value))
}
