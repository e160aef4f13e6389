//! What `array_in` and `record_in` read: the text of an array, of a composite.

/// An item of an array.
pub enum Item {
    Null,
    Word(String),
    List(Vec<Item>),
}

pub fn array(text: &str, delimiter: char) -> Item {
    let mut scanner = Scanner(text);
    let list = scanner.list(delimiter);
    assert!(scanner.0.is_empty(), "text after the last brace");
    list
}

/// The attributes of a composite; `None` is null.
pub fn composite(text: &str) -> Vec<Option<String>> {
    let mut scanner = Scanner(text);
    assert!(scanner.skip('('));
    let mut words = Vec::new();
    loop {
        words.push(scanner.0.starts_with('"').then(|| scanner.quoted()));
        if !scanner.skip(',') {
            break;
        }
    }
    assert!(scanner.skip(')') && scanner.0.is_empty());
    words
}

struct Scanner<'a>(&'a str);

impl Scanner<'_> {
    fn skip(&mut self, what: char) -> bool {
        let rest = self.0.strip_prefix(what);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn list(&mut self, delimiter: char) -> Item {
        assert!(self.skip('{'));
        let mut items = Vec::new();
        if self.skip('}') {
            return Item::List(items);
        }
        loop {
            items.push(match self.0.chars().next() {
                Some('{') => self.list(delimiter),
                Some('"') => Item::Word(self.quoted()),
                _ => {
                    self.0 = self.0.strip_prefix("NULL").expect("no other word goes without quotes");
                    Item::Null
                }
            });
            if !self.skip(delimiter) {
                break;
            }
        }
        assert!(self.skip('}'));
        Item::List(items)
    }

    fn quoted(&mut self) -> String {
        assert!(self.skip('"'));
        let mut word = String::new();
        let mut letters = self.0.chars();
        loop {
            match letters.next().expect("the quote is closed") {
                '"' => break,
                '\\' => word.push(letters.next().expect("a letter after the backslash")),
                letter => word.push(letter),
            }
        }
        self.0 = letters.as_str();
        word
    }
}
