//! Finds where a JSON value ends, without reading what it says.

/// Finds the end of one value in a text that comes in blocks.
///
/// Brackets are counted, not matched, and strings passed over: a value that is whole ends where its last byte
/// stands. One that is not may end anywhere; no such value is valid JSON.
pub struct Extent {
    depth: u64,
    state: State,
}

enum State {
    /// Between strings.
    Plain,
    String,
    /// After a backslash in a string.
    Escape,
    /// A number, `true`, `false`, `null`, or what somebody took for one.
    Word,
}

impl Extent {
    /// Of a value that begins with this byte.
    pub fn of(first: u8) -> Self {
        let state = if matches!(first, b'{' | b'[' | b'"') { State::Plain } else { State::Word };
        Self { depth: 0, state }
    }

    /// Takes the next block of the text, the first of which begins with the value. Says how much of it
    /// belongs to the value, if that ends in it. The end of a word is seen by what comes after it.
    pub fn end(&mut self, block: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < block.len() {
            let rest = &block[at..];
            let found = match self.state {
                State::Word => return rest.iter().position(|byte| ends_word(*byte)),
                State::Plain => rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')),
                State::String => memchr::memchr2(b'"', b'\\', rest),
                State::Escape => Some(0),
            };
            at += found? + 1;
            if self.step(block[at - 1]) {
                return Some(at);
            }
        }
        None
    }

    /// Goes on by one byte that matters where it stands; whether it was the last of the value.
    fn step(&mut self, byte: u8) -> bool {
        match (&self.state, byte) {
            (State::Plain, b'"') => self.state = State::String,
            (State::Plain, b'{' | b'[') => self.depth += 1,
            (State::Plain, _) => self.depth = self.depth.saturating_sub(1),
            (State::String, b'"') => self.state = State::Plain,
            (State::String, _) => self.state = State::Escape,
            (State::Escape | State::Word, _) => self.state = State::String,
        }
        self.depth == 0 && matches!(self.state, State::Plain)
    }
}

/// JSON's white space.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn ends_word(byte: u8) -> bool {
    is_space(byte) || matches!(byte, b',' | b'"' | b'{' | b'}' | b'[' | b']')
}
