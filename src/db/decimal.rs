//! PostgreSQL's binary `numeric` as decimal text: prices never pass through floating point.
//! Runs in: worker | offline. Format: src/backend/utils/adt/numeric.c, `numeric_send`.

use std::error::Error;

use may_postgres::types::{FromSql, Type};

/// A numeric as its text, with as many decimals as its scale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal(pub String);

const NEGATIVE: u16 = 0x4000;
const NOT_A_NUMBER: u16 = 0xC000;

impl<'a> FromSql<'a> for Decimal {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        read(raw).map(Decimal).ok_or_else(|| "a numeric that is cut or not a number".into())
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::NUMERIC
    }
}

/// ```text
/// digits i16 │ weight i16 │ sign u16 │ decimals i16 │ digits × u16, each 0..9999
/// ```
/// The first digit counts 10000^weight.
fn read(raw: &[u8]) -> Option<String> {
    let (head, body) = raw.split_at_checked(8)?;
    let word = |n: usize| u16::from_be_bytes([head[2 * n], head[2 * n + 1]]);
    let (count, weight, sign, scale) = (word(0) as usize, word(1) as i16, word(2), word(3) as usize);
    if sign >= NOT_A_NUMBER || body.len() != count * 2 {
        return None;
    }
    let digit = |place: i16| -> u16 {
        let at = i32::from(weight) - i32::from(place);
        let pair = usize::try_from(at).ok().and_then(|at| body.get(at * 2..at * 2 + 2));
        pair.map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    };
    let mut text = String::with_capacity(16);
    if sign == NEGATIVE {
        text.push('-');
    }
    text += &digit(weight.max(0)).to_string();
    for place in (0..weight.max(0)).rev() {
        text += &format!("{:04}", digit(place));
    }
    if scale > 0 {
        text.push('.');
        let groups = scale.div_ceil(4) as i16;
        let decimals: String = (1..=groups).map(|g| format!("{:04}", digit(-g))).collect();
        text += decimals.get(..scale)?;
    }
    Some(text)
}

/// Appends an amount in cents, with its length in front, as COPY's binary format wants a numeric with two decimals.
/// Format: `numeric_recv` of the same file.
pub fn write_cents(cents: u64, out: &mut Vec<u8>) {
    let (mut whole, hundredths) = (cents / 100, (cents % 100) as u16);
    let mut digits = [0; 6];
    let mut first = 5;
    while whole > 0 {
        digits[first] = (whole % 10_000) as u16;
        whole /= 10_000;
        first -= 1;
    }
    let weight = 4 - first as i16;
    let digits = digits[first + 1..].iter().copied().chain([hundredths * 100]);
    let count = (weight + 2) as u16;
    out.extend_from_slice(&(8 + 2 * i32::from(count)).to_be_bytes());
    for word in [count, weight as u16, 0, 2].into_iter().chain(digits) {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{read, write_cents};

    fn numeric(weight: i16, sign: u16, scale: u16, digits: &[u16]) -> Vec<u8> {
        let mut raw = (digits.len() as u16).to_be_bytes().to_vec();
        raw.extend(weight.to_be_bytes());
        raw.extend(sign.to_be_bytes());
        raw.extend(scale.to_be_bytes());
        digits.iter().for_each(|d| raw.extend(d.to_be_bytes()));
        raw
    }

    #[test]
    fn prices_keep_their_decimals() {
        let text = |w, s, d, digits: &[u16]| read(&numeric(w, s, d, digits)).unwrap();
        assert_eq!(text(0, 0, 2, &[140]), "140.00");
        assert_eq!(text(0, 0, 2, &[69, 9900]), "69.99");
        assert_eq!(text(1, 0, 2, &[1, 2]), "10002.00");
        assert_eq!(text(1, 0, 2, &[12]), "120000.00");
        assert_eq!(text(-1, 0, 2, &[500]), "0.05");
        assert_eq!(text(0, 0, 2, &[]), "0.00");
        assert_eq!(text(0, 0x4000, 2, &[5, 5000]), "-5.50");
        assert_eq!(text(0, 0, 0, &[7]), "7");
    }

    #[test]
    fn cut_or_strange_values_are_refused() {
        assert_eq!(read(&[0; 7]), None);
        assert_eq!(read(&numeric(0, 0xC000, 0, &[])), None);
        assert_eq!(read(&numeric(0, 0, 2, &[1])[..9]), None);
    }

    #[test]
    fn cents_are_read_back() {
        for (cents, text) in [
            (0, "0.00"),
            (5, "0.05"),
            (14_000, "140.00"),
            (999_999_999_999, "9999999999.99"),
            (1_000_000, "10000.00"),
        ] {
            let mut out = Vec::new();
            write_cents(cents, &mut out);
            assert_eq!(out[..4], (out.len() as i32 - 4).to_be_bytes());
            assert_eq!(read(&out[4..]).as_deref(), Some(text));
        }
    }
}
