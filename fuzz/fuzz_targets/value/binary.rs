//! What `array_send` and `record_send` write.

pub struct Array<'a> {
    pub has_null: bool,
    pub oid: u32,
    pub lengths: Vec<usize>,
    pub elements: Vec<Option<&'a [u8]>>,
}

pub fn array(stored: &[u8]) -> Array<'_> {
    let mut reader = Reader(stored);
    let dimensions = reader.int();
    assert!(dimensions <= 6);
    let has_null = match reader.int() {
        0 => false,
        flag => flag == 1 || panic!("a flag {flag}"),
    };
    let oid = reader.int();
    let lengths = (0..dimensions).map(|_| {
        let length = reader.int() as usize;
        assert_eq!(reader.int(), 1, "the lower bound");
        length
    });
    let lengths: Vec<_> = lengths.collect();
    assert!(!lengths.contains(&0), "an empty array has no dimensions");
    let count = if lengths.is_empty() { 0 } else { lengths.iter().product() };
    let elements = (0..count).map(|_| reader.value()).collect();
    assert!(reader.0.is_empty(), "bytes after the last element");
    Array { has_null, oid, lengths, elements }
}

/// The oid and the bytes of each attribute.
pub fn composite(stored: &[u8]) -> Vec<(u32, Option<&[u8]>)> {
    let mut reader = Reader(stored);
    let count = reader.int();
    let attributes = (0..count).map(|_| (reader.int(), reader.value())).collect();
    assert!(reader.0.is_empty(), "bytes after the last attribute");
    attributes
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn int(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        match self.int() {
            u32::MAX => None,
            length => Some(self.take(length as usize)),
        }
    }
}
