//! A number by long-hand arithmetic on decimal digits, which shares nothing with the encoder.

/// ± digits × 10^lowest, without zeros at either end of the digits; zero has none, and is not negative.
#[derive(Clone, Debug)]
pub struct Plain {
    pub negative: bool,
    pub digits: Vec<u8>,
    pub lowest: i64,
    /// Digits after the point as it is written, exponent carried out. No part of the value.
    pub scale_written: i64,
    /// As it is written. The server refuses large ones, of zero too.
    pub exponent: i64,
}

impl PartialEq for Plain {
    fn eq(&self, other: &Self) -> bool {
        (self.negative, &self.digits, self.lowest) == (other.negative, &other.digits, other.lowest)
    }
}

impl Plain {
    /// `None` for what is no JSON number, and for exponents that no column could hold.
    pub fn parse(text: &str) -> Option<Self> {
        // Not `str::parse`: it also takes `.5` and `inf`.
        serde_json::from_str::<&serde_json::value::RawValue>(text).ok()?;
        let text = text.trim();
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        unsigned.starts_with(|first: char| first.is_ascii_digit()).then_some(())?;
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<_> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
        let exponent =
            exponent.parse().unwrap_or(if exponent.starts_with('-') { i64::MIN } else { i64::MAX });
        // Of zero any exponent is as good.
        let bounded = exponent.clamp(-1_000_000, 1_000_000);
        (bounded == exponent || digits.iter().all(|digit| *digit == 0)).then_some(())?;
        let lowest = bounded - fraction.len() as i64;
        Some(Plain { negative, digits, lowest, scale_written: (-lowest).max(0), exponent }.normal())
    }

    fn normal(mut self) -> Self {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
            self.lowest += 1;
        }
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..zeros);
        if self.digits.is_empty() {
            (self.negative, self.lowest) = (false, 0);
        }
        self
    }

    /// To so many digits after the point, half away from zero.
    pub fn rounded(&self, scale: i64) -> Self {
        let mut rounded = self.clone();
        let dropped = -scale - self.lowest;
        if dropped <= 0 {
            return rounded;
        }
        let kept = self.digits.len() as i64 - dropped;
        rounded.lowest = -scale;
        if kept < 0 {
            rounded.digits.clear();
            return rounded.normal();
        }
        let up = self.digits[kept as usize] >= 5;
        rounded.digits.truncate(kept as usize);
        if up {
            let nines = rounded.digits.iter().rev().take_while(|digit| **digit == 9).count();
            let at = rounded.digits.len() - nines;
            rounded.digits[at..].fill(0);
            match at.checked_sub(1) {
                Some(before) => rounded.digits[before] += 1,
                None => rounded.digits.insert(0, 1),
            }
        }
        rounded.normal()
    }
}

/// The value of a `numeric` on the wire, and its display scale.
pub fn decode(wire: &[u8]) -> (Plain, i64) {
    let fields: Vec<u16> = wire.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let (count, weight, sign, scale) = (fields[0], fields[1] as i16, fields[2], fields[3]);
    let groups = &fields[4..];
    assert_eq!(usize::from(count), groups.len());
    assert!(groups.first() != Some(&0) && groups.last() != Some(&0), "zeros at an end");
    assert!(matches!(sign, 0 | 0x4000));
    let digits = groups.iter().flat_map(|group| {
        assert!(*group < 10_000);
        [group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map(|digit| digit as u8)
    });
    let lowest = (i64::from(weight) - i64::from(count) + 1) * 4;
    let value =
        Plain { negative: sign != 0, digits: digits.collect(), lowest, scale_written: 0, exponent: 0 }
            .normal();
    assert!(sign == 0 || !value.digits.is_empty(), "a negative zero");
    (value, i64::from(scale))
}
