//! W3C Trace Context, level 1: the field by which callers tell where a request belongs.

/// What a `traceparent` field tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never zero.
    pub trace: u128,
    /// The caller's span; never zero.
    pub span: u64,
    /// The caller may have recorded its part.
    pub sampled: bool,
}

/// Bytes from the start of the span's digits to the end of a field line made by
/// [`TraceParent::line`].
pub const SPAN_TO_END: usize = 16 + "-00\r\n".len();

impl TraceParent {
    /// Reads a field's value; `None` when it is malformed and hence to be ignored.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let version = hex(value.get(..2)?)?;
        // A later version may append to what version 0 has; 255 is forbidden.
        let is_ended = if version == 0 { value.len() == 55 } else { more(value) };
        let dashed = [2, 35, 52].iter().all(|&at| value.get(at) == Some(&b'-'));
        if version == 255 || !is_ended || !dashed {
            return None;
        }
        let (trace, span) = (hex(&value[3..35])?, hex(&value[36..52])?);
        let flags = hex(&value[53..55])?;
        let span = u64::try_from(span).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The field line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { trace, span, sampled } = self;
        format!("traceparent: 00-{trace:032x}-{span:016x}-{:02x}\r\n", u8::from(*sampled))
    }
}

fn more(value: &[u8]) -> bool {
    value.len() == 55 || value.get(55) == Some(&b'-')
}

/// Lower-case hexadecimal digits, as the field must have them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_example_is_read_and_written() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(parent.span, 0x00f0_67aa_0ba9_02b7);
        assert!(parent.sampled);
        let line = parent.line();
        assert_eq!(line, format!("traceparent: {GOOD}\r\n"));
        assert!(line[line.len() - SPAN_TO_END..].starts_with("00f067aa0ba902b7"));
        let parent = TraceParent { sampled: false, ..parent };
        assert_eq!(TraceParent::parse(&parent.line().as_bytes()[13..]), Some(parent));
    }

    #[test]
    fn later_versions_may_append_and_the_malformed_is_ignored() {
        let later = GOOD.replacen("00", "cc", 1);
        assert!(TraceParent::parse(later.as_bytes()).is_some());
        assert!(TraceParent::parse(format!("{later}-what-will-be").as_bytes()).is_some());
        for bad in [
            "",
            "00",
            &format!("{GOOD}-more"),
            &format!("{later}.more"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace("-00f067aa0ba902b7-", "-0000000000000000-"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("-01", "-0"),
            &GOOD.replace("-01", "-0g"),
            &GOOD.replacen('-', "_", 1),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
