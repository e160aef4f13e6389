//! What can be said of a place only when all has been read: which lists come without their brackets, and which objects
//! are maps.

use super::names;
use super::node::{Items, Node, Shape};

/// Objects with fewer names than this are no maps, unless the names look like data.
const MAP_NAMES_MIN: usize = 12;
/// Nor are they with fewer objects.
const MAP_OBJECTS_MIN: u64 = 5;

impl Node {
    /// Settles this place and all below.
    pub fn settle(&mut self) {
        self.take_singles();
        self.fields.nodes.iter_mut().for_each(|(_, node)| node.settle());
        if let Some(items) = &mut self.items {
            items.node.settle();
        }
        self.find_map();
    }

    /// Values that stand where elsewhere is a list are its items.
    fn take_singles(&mut self) {
        let singles = self.objects + self.scalars;
        if self.lists == 0 || singles == 0 {
            return;
        }
        let single = Node {
            present: singles,
            scalars: std::mem::take(&mut self.scalars),
            objects: std::mem::take(&mut self.objects),
            guess: self.guess,
            nul: self.nul,
            kinds: self.kinds,
            bytes_max: self.bytes_max,
            values: std::mem::take(&mut self.values),
            fields: std::mem::take(&mut self.fields),
            rest: self.rest.take(),
            ..Node::default()
        };
        let Items { node, contents, .. } = &mut **self.items.get_or_insert_default();
        node.absorb(single);
        *contents = None;
        self.filled += singles;
        self.singles = singles;
    }

    /// Objects whose members' names are data hold one kind of value under many names.
    fn find_map(&mut self) {
        if self.objects == 0 || !(self.has_many_names() || self.has_names_of_data()) || !self.is_of_one_kind()
        {
            return;
        }
        let mut values = Node::default();
        for (_, node) in &self.fields.nodes {
            values.absorb(node.clone());
        }
        if let Some(rest) = &self.rest {
            values.absorb((**rest).clone());
        }
        values.settle();
        self.map = Some(Box::new(values));
    }

    /// Whether there are many names, and each is in a few objects only.
    fn has_many_names(&self) -> bool {
        let nodes = &self.fields.nodes;
        let is_rare = |(_, node): &(String, Node)| node.present * 2 <= self.objects;
        nodes.len() >= MAP_NAMES_MIN && self.objects >= MAP_OBJECTS_MIN && nodes.iter().all(is_rare)
    }

    fn has_names_of_data(&self) -> bool {
        let nodes = &self.fields.nodes;
        nodes.len() > 1 && nodes.iter().all(|(name, _)| names::is_data(name))
    }

    fn is_of_one_kind(&self) -> bool {
        let nodes =
            || self.fields.nodes.iter().map(|(_, node)| node).filter(|node| node.present > node.nulls);
        let Some(first) = nodes().next() else { return false };
        nodes().all(|node| match (first.shape(), node.shape()) {
            (Shape::Scalar, Shape::Scalar) => first.scalar_kind() == node.scalar_kind(),
            (Shape::Object, Shape::Object) => first.has_the_fields_of(node),
            (Shape::List(_), Shape::List(_)) | (Shape::Map(_), Shape::Map(_)) => true,
            _ => false,
        })
    }

    /// Numbers of two types are of one kind, and so are strings.
    fn scalar_kind(&self) -> u8 {
        match self.guess.name() {
            Some("boolean") => 0,
            Some("bigint" | "numeric") => 1,
            _ => 2,
        }
    }

    /// Whether at least half of all fields are common.
    fn has_the_fields_of(&self, other: &Node) -> bool {
        let (own, others) = (&self.fields.nodes, &other.fields.nodes);
        let common = own.iter().filter(|(name, _)| others.iter().any(|(other, _)| name == other)).count();
        common * 2 >= own.len().max(others.len())
    }
}
