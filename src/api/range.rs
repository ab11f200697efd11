//! Parts of files: what players of videos and broken downloads ask for (RFC 9110, section 14).
//! Runs in: worker.

use std::ops::Range;

/// What a `Range` asks for of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// All of it: nothing that is understood, or several parts, may be answered so.
    Whole,
    Part(Range<usize>),
    /// What begins behind the end.
    Nothing,
}

impl Asked {
    /// Reads the value of a `Range` over `len` bytes.
    pub fn read(value: &[u8], len: usize) -> Asked {
        let Some((first, last)) = bounds(value) else { return Asked::Whole };
        let part = match (first, last) {
            (Some(first), Some(last)) if last < first => return Asked::Whole,
            (Some(first), last) => first..last.map_or(len, |last| last.saturating_add(1).min(len)),
            (None, Some(count)) => len.saturating_sub(count)..len,
            (None, None) => return Asked::Whole,
        };
        match part.start < part.end {
            true => Asked::Part(part),
            false => Asked::Nothing,
        }
    }
}

/// First and last of `bytes=first-last`, either of which may be missing.
fn bounds(value: &[u8]) -> Option<(Option<usize>, Option<usize>)> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    let number = |digits: &str| match digits {
        "" => Some(None),
        digits => digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()),
    };
    unit.eq_ignore_ascii_case("bytes").then_some((number(first)?, number(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_is_understood_and_everything_else_is_the_whole() {
        for (value, asked) in [
            ("bytes=0-4", Asked::Part(0..5)),
            ("bytes=2-", Asked::Part(2..10)),
            ("BYTES=-3", Asked::Part(7..10)),
            ("bytes=-99", Asked::Part(0..10)),
            ("bytes=5-99999", Asked::Part(5..10)),
            ("bytes=9-9", Asked::Part(9..10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=4-2", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("lines=1-2", Asked::Whole),
            ("bytes", Asked::Whole),
            ("bytes=99999999999999999999999-", Asked::Whole),
        ] {
            assert_eq!(Asked::read(value.as_bytes(), 10), asked, "{value}");
        }
        assert_eq!(Asked::read(b"bytes=0-", 0), Asked::Nothing);
    }
}
