//! The trace that a request is part of (W3C Trace Context, 3.2): taken over into the log, so that a line here is found from a trace there.
//! Runs in: worker.

use may_minihttp::Request;

/// `traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'r> {
    /// 32 hexadecimal digits.
    pub trace_id: &'r str,
    /// 16: the span that asks.
    pub parent_id: &'r str,
}

impl<'r> TraceParent<'r> {
    /// The request's, if it has a valid one.
    pub fn of(req: &Request<'_, 'r>) -> Option<TraceParent<'r>> {
        TraceParent::read(std::str::from_utf8(req.header("traceparent")?).ok()?)
    }

    fn read(text: &'r str) -> Option<TraceParent<'r>> {
        let mut parts = text.trim_ascii().split('-');
        let mut hex = |len: usize| {
            let part = parts.next()?;
            let is_hex = part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            Some(part).filter(|part| part.len() == len && is_hex)
        };
        let (version, trace_id, parent_id) = (hex(2)?, hex(32)?, hex(16)?);
        hex(2)?;
        let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
        // A later version may have more parts; the first one has none.
        let has_more = parts.next().is_some();
        let is_valid =
            version != "ff" && !is_zero(trace_id) && !is_zero(parent_id) && (version != "00" || !has_more);
        is_valid.then_some(TraceParent { trace_id, parent_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_valid_is_taken_and_nothing_else() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        const SPAN: &str = "00f067aa0ba902b7";
        let valid = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(TraceParent::read(&valid), Some(TraceParent { trace_id: TRACE, parent_id: SPAN }));
        assert!(TraceParent::read(&format!("cc-{TRACE}-{SPAN}-01-more")).is_some(), "of a later version");
        for bad in [
            "".to_string(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{TRACE}-{SPAN}x-01"),
        ] {
            assert_eq!(TraceParent::read(&bad), None, "{bad}");
        }
    }
}
