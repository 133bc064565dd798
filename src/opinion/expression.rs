//! Conditions on the result of a query: `result[0] >= 0.95 && len(result) == 1`. Pure.
//!
//! A small part of the language that Argo Rollouts' users write: numbers, comparisons, logic,
//! arithmetic, and the functions that deal with missing data. What is not in it is a fault with
//! its column, never a guess.

use std::fmt;

/// Longest condition, and how deep it may nest: bounds for what a file may make us do.
const BYTES_MAX: usize = 1_000;
const DEPTH_MAX: usize = 32;

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    root: Node,
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at column {column}: {why}")]
pub struct Fault {
    /// The first column that does not fit, from 1.
    pub column: usize,
    /// What is wrong and what would be right.
    pub why: String,
}

/// Why a condition says neither yes nor no of a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// The value it asks for is not there, or is not a number.
    #[error("no data")]
    NoData,
    /// `result` stands for several values.
    #[error("the query has {0} values; write result[0], or all(result, # …)")]
    Several(usize),
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Number(f64),
    /// The only value of the result.
    Only,
    At(usize),
    /// The element at hand in `all` and `any`.
    Element,
    Count,
    Negated(Box<Node>),
    Calculated(Box<Node>, Arithmetic, Box<Node>),
    Default(Box<Node>, Box<Node>),
    Truth(bool),
    IsNaN(Box<Node>),
    IsInfinite(Box<Node>),
    Compared(Box<Node>, Comparison, Box<Node>),
    Not(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    All(Box<Node>),
    Any(Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Unequal,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What does not fit, with its column.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = |column, why: &str| Err(Fault { column, why: why.to_owned() });
        if text.len() > BYTES_MAX {
            return fault(BYTES_MAX, "a condition has at most 1,000 bytes");
        }
        let mut reader = Reader { bytes: text.as_bytes(), at: 0, depth: 0, in_list: false };
        let root = reader.logic()?;
        reader.blank();
        if reader.at < text.len() {
            return fault(reader.at + 1, "nothing may follow here; is an && or || missing?");
        }
        if !root.is_truth() {
            return fault(1, "is a number; compare it with one, like result >= 0.95");
        }
        Ok(Self { text: text.to_owned(), root })
    }

    /// Whether it holds for the values of a result.
    ///
    /// # Errors
    /// When data is missing.
    pub fn holds(&self, result: &[f64]) -> Result<bool, Undecided> {
        self.root.truth(result, f64::NAN)
    }
}

impl Node {
    fn is_truth(&self) -> bool {
        !matches!(
            self,
            Self::Number(_)
                | Self::Only
                | Self::At(_)
                | Self::Element
                | Self::Count
                | Self::Negated(_)
                | Self::Calculated(..)
                | Self::Default(..)
        )
    }

    /// The value, which may be no number.
    #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
    fn number(&self, result: &[f64], element: f64) -> Result<f64, Undecided> {
        let of = |node: &Self| node.number(result, element);
        Ok(match self {
            Self::Number(number) => *number,
            Self::Only => match result {
                [only] => *only,
                [] => return Err(Undecided::NoData),
                several => return Err(Undecided::Several(several.len())),
            },
            Self::At(index) => *result.get(*index).ok_or(Undecided::NoData)?,
            Self::Element => element,
            Self::Count => result.len() as f64,
            Self::Negated(node) => -of(node)?,
            Self::Calculated(left, operator, right) => {
                let (left, right) = (of(left)?, of(right)?);
                match operator {
                    Arithmetic::Add => left + right,
                    Arithmetic::Subtract => left - right,
                    Arithmetic::Multiply => left * right,
                    Arithmetic::Divide => left / right,
                }
            }
            Self::Default(node, otherwise) => match of(node) {
                Ok(number) if !number.is_nan() => number,
                Ok(_) | Err(Undecided::NoData) => of(otherwise)?,
                Err(several) => return Err(several),
            },
            truth => f64::from(u8::from(truth.truth(result, element)?)),
        })
    }

    fn truth(&self, result: &[f64], element: f64) -> Result<bool, Undecided> {
        let of = |node: &Self| node.truth(result, element);
        let each = |node: &Self| -> Result<Vec<bool>, Undecided> {
            result.iter().map(|element| node.truth(result, *element)).collect()
        };
        Ok(match self {
            Self::Truth(truth) => *truth,
            Self::IsNaN(node) => node.number(result, element)?.is_nan(),
            Self::IsInfinite(node) => node.number(result, element)?.is_infinite(),
            Self::Compared(left, operator, right) => {
                let (left, right) = (left.number(result, element)?, right.number(result, element)?);
                // Nothing by nothing is what a ratio of no requests comes to.
                if left.is_nan() || right.is_nan() {
                    return Err(Undecided::NoData);
                }
                match operator {
                    Comparison::Less => left < right,
                    Comparison::LessOrEqual => left <= right,
                    Comparison::Greater => left > right,
                    Comparison::GreaterOrEqual => left >= right,
                    Comparison::Equal => (left - right).abs() < f64::EPSILON,
                    Comparison::Unequal => (left - right).abs() >= f64::EPSILON,
                }
            }
            Self::Not(node) => !of(node)?,
            Self::And(left, right) => of(left)? && of(right)?,
            Self::Or(left, right) => of(left)? || of(right)?,
            Self::All(_) | Self::Any(_) if result.is_empty() => return Err(Undecided::NoData),
            Self::All(node) => each(node)?.into_iter().all(|holds| holds),
            Self::Any(node) => each(node)?.into_iter().any(|holds| holds),
            number => number.number(result, element)? != 0.0,
        })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// Within `all` or `any`, where `#` is the element.
    in_list: bool,
}

type Read = Result<Node, Fault>;

impl Reader<'_> {
    fn fault<T>(&self, at: usize, why: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { column: at.min(self.bytes.len()) + 1, why: why.into() })
    }

    fn blank(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn takes(&mut self, token: &str) -> bool {
        self.blank();
        let is_next = self.bytes[self.at..].starts_with(token.as_bytes());
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    fn expects(&mut self, token: &str) -> Result<(), Fault> {
        if self.takes(token) {
            Ok(())
        } else {
            self.fault(self.at, format!("`{token}` is missing"))
        }
    }

    fn as_truth(&self, node: Node, at: usize) -> Read {
        if node.is_truth() {
            return Ok(node);
        }
        self.fault(at, "is a number; compare it with one, like result >= 0.95")
    }

    fn as_number(&self, node: Node, at: usize) -> Read {
        if node.is_truth() {
            return self.fault(at, "is true or false; a number is needed");
        }
        Ok(node)
    }

    fn logic(&mut self) -> Read {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fault(self.at, "nests too deep");
        }
        let at = self.at;
        let mut node = self.conjunction()?;
        while self.takes("||") {
            let left = self.as_truth(node, at)?;
            let at = self.at;
            let right = self.conjunction()?;
            node = Node::Or(Box::new(left), Box::new(self.as_truth(right, at)?));
        }
        self.depth -= 1;
        Ok(node)
    }

    fn conjunction(&mut self) -> Read {
        let at = self.at;
        let mut node = self.comparison()?;
        while self.takes("&&") {
            let left = self.as_truth(node, at)?;
            let at = self.at;
            let right = self.comparison()?;
            node = Node::And(Box::new(left), Box::new(self.as_truth(right, at)?));
        }
        Ok(node)
    }

    fn comparison(&mut self) -> Read {
        let at = self.at;
        let left = self.sum()?;
        // The longer ones first: `<=` begins with `<`.
        let operators = [
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let found = operators.into_iter().find(|(token, _)| self.takes(token));
        let Some((_, operator)) = found else { return Ok(left) };
        let left = self.as_number(left, at)?;
        let at = self.at;
        let right = self.sum()?;
        Ok(Node::Compared(Box::new(left), operator, Box::new(self.as_number(right, at)?)))
    }

    fn sum(&mut self) -> Read {
        let operators = [("+", Arithmetic::Add), ("-", Arithmetic::Subtract)];
        self.calculation(&operators, Self::product)
    }

    fn product(&mut self) -> Read {
        let operators = [("*", Arithmetic::Multiply), ("/", Arithmetic::Divide)];
        self.calculation(&operators, Self::unary)
    }

    fn calculation(
        &mut self,
        operators: &[(&str, Arithmetic)],
        operand: impl Fn(&mut Self) -> Read,
    ) -> Read {
        let at = self.at;
        let mut node = operand(self)?;
        while let Some((_, operator)) = operators.iter().find(|(token, _)| self.takes(token)) {
            let left = self.as_number(node, at)?;
            let at = self.at;
            let right = operand(self)?;
            let right = self.as_number(right, at)?;
            node = Node::Calculated(Box::new(left), *operator, Box::new(right));
        }
        Ok(node)
    }

    fn unary(&mut self) -> Read {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fault(self.at, "nests too deep");
        }
        self.blank();
        let is_not = !self.bytes[self.at..].starts_with(b"!=") && self.takes("!");
        let is_minus = !is_not && self.takes("-");
        let at = self.at;
        let node = if is_not {
            let node = self.unary()?;
            Node::Not(Box::new(self.as_truth(node, at)?))
        } else if is_minus {
            let node = self.unary()?;
            Node::Negated(Box::new(self.as_number(node, at)?))
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn primary(&mut self) -> Read {
        self.blank();
        if self.takes("(") {
            let node = self.logic()?;
            self.expects(")")?;
            return Ok(node);
        }
        if self.takes("#") {
            if self.in_list {
                return Ok(Node::Element);
            }
            return self.fault(self.at - 1, "`#` stands only in all(result, …) and any(result, …)");
        }
        let at = self.at;
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._".contains(byte);
        while self.bytes.get(self.at).is_some_and(|byte| {
            // The sign of an exponent belongs to its number.
            let is_number = self.bytes[at].is_ascii_digit();
            let is_sign = is_number && b"+-".contains(byte) && self.bytes[self.at - 1] == b'e';
            is_word(byte) || is_sign
        }) {
            self.at += 1;
        }
        let word = String::from_utf8_lossy(&self.bytes[at..self.at]).into_owned();
        match word.as_str() {
            "" => self.fault(at, "a value is missing, like result or 0.95"),
            "true" => Ok(Node::Truth(true)),
            "false" => Ok(Node::Truth(false)),
            "result" => self.result(),
            _ if self.takes("(") => self.function(&word, at),
            _ => match word.parse::<f64>() {
                Ok(number)
                    if word.starts_with(|char: char| char.is_ascii_digit() || char == '.') =>
                {
                    Ok(Node::Number(number))
                }
                _ => self.fault(
                    at,
                    format!("`{word}` is not known; write result, a number or a function"),
                ),
            },
        }
    }

    fn result(&mut self) -> Read {
        if !self.takes("[") {
            return Ok(Node::Only);
        }
        self.blank();
        let at = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        let index =
            std::str::from_utf8(&self.bytes[at..self.at]).ok().and_then(|text| text.parse().ok());
        let Some(index) = index else {
            return self.fault(at, "an index is missing, like result[0]");
        };
        self.expects("]")?;
        Ok(Node::At(index))
    }

    fn function(&mut self, name: &str, at: usize) -> Read {
        let node = match name {
            "len" => {
                self.expects("result")?;
                Node::Count
            }
            "isNaN" | "isInf" | "isNil" | "asFloat" | "default" => {
                let inner_at = self.at;
                let inner = self.logic()?;
                let inner = Box::new(self.as_number(inner, inner_at)?);
                match name {
                    "isNaN" => Node::IsNaN(inner),
                    "isInf" => Node::IsInfinite(inner),
                    // A value that is not there, made one that is no number.
                    "isNil" => Node::IsNaN(Box::new(Node::Default(
                        inner,
                        Box::new(Node::Number(f64::NAN)),
                    ))),
                    "asFloat" => *inner,
                    _ => {
                        self.expects(",")?;
                        let other_at = self.at;
                        let other = self.logic()?;
                        Node::Default(inner, Box::new(self.as_number(other, other_at)?))
                    }
                }
            }
            "all" | "any" => {
                self.expects("result")?;
                self.expects(",")?;
                let was_in_list = std::mem::replace(&mut self.in_list, true);
                let inner_at = self.at;
                let inner = self.logic()?;
                let inner = Box::new(self.as_truth(inner, inner_at)?);
                self.in_list = was_in_list;
                if name == "all" { Node::All(inner) } else { Node::Any(inner) }
            }
            _ => {
                let known = "known: len, default, isNaN, isInf, isNil, asFloat, all, any";
                return self.fault(at, format!("`{name}` is no function here; {known}"));
            }
        };
        self.expects(")")?;
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, result: &[f64]) -> Result<bool, Undecided> {
        Condition::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}")).holds(result)
    }

    #[test]
    fn conditions_say_yes_or_no() {
        for (text, result, expected) in [
            ("result >= 0.95", &[0.95][..], true),
            ("result >= 0.95", &[0.94], false),
            ("result[0] >= 0.95 && result[1] < 2", &[0.99, 1.0], true),
            ("result[0]<0.5||result[1]<0.5", &[0.9, 0.1], true),
            ("!(result > 1) && true", &[0.5], true),
            ("result * 100 - 5 <= -1 + 2 * 48", &[0.95], true),
            ("-result < 0", &[1.0], true),
            ("result / 2 == 0.25", &[0.5], true),
            ("result != 3", &[3.0], false),
            ("len(result) == 2", &[1.0, 2.0], true),
            ("len(result) == 0 || result[0] >= 0.95", &[], true),
            ("default(result[0], 1) >= 0.95", &[], true),
            ("default(result, 0) >= 0.95", &[f64::NAN], false),
            ("isNaN(result) || result >= 0.95", &[f64::NAN], true),
            ("isNil(result[0]) || result[0] > 1", &[], true),
            ("isInf(result)", &[f64::INFINITY], true),
            ("asFloat(result) < 1e-3", &[0.0001], true),
            ("all(result, # >= 0.9)", &[0.9, 0.95], true),
            ("all(result, # >= 0.9)", &[0.9, 0.85], false),
            ("any(result, # > 1 && # < 3)", &[0.0, 2.0], true),
            // And binds closer than or.
            ("true || false && false", &[], true),
        ] {
            assert_eq!(holds(text, result), Ok(expected), "{text} of {result:?}");
        }
    }

    #[test]
    fn missing_data_is_neither_yes_nor_no() {
        for (text, result) in [
            ("result >= 0.95", &[][..]),
            ("result[1] >= 0.95", &[1.0]),
            ("result >= 0.95", &[f64::NAN]),
            ("!(result >= 0.95)", &[f64::NAN]),
            ("all(result, # >= 0.9)", &[]),
            ("all(result, # >= 0.9)", &[1.0, f64::NAN]),
        ] {
            assert_eq!(holds(text, result), Err(Undecided::NoData), "{text} of {result:?}");
        }
        assert_eq!(holds("result > 1", &[1.0, 2.0]), Err(Undecided::Several(2)));
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_column() {
        for (text, column, why) in [
            ("", 1, "a value is missing"),
            ("result", 1, "is a number"),
            ("result >= ", 11, "a value is missing"),
            ("result >= 0.95 0.9", 16, "nothing may follow"),
            ("result >= latency", 11, "`latency` is not known"),
            ("sum(result) > 1", 1, "`sum` is no function"),
            ("result[x] > 1", 8, "an index is missing"),
            ("(result > 1", 12, "`)` is missing"),
            ("result > 1 && result", 14, "is a number"),
            ("(result > 1) > 2", 1, "is true or false"),
            ("# > 1", 1, "`#` stands only"),
            ("result > 1 & result < 2", 12, "nothing may follow"),
        ] {
            let fault = Condition::parse(text).expect_err(text);
            assert_eq!(fault.column, column, "{text}: {fault}");
            assert!(fault.why.contains(why), "{text}: {fault}");
        }
        for deep in ["(".repeat(100), "!".repeat(100), "-".repeat(100)] {
            assert!(Condition::parse(&deep).expect_err("too deep").why.contains("too deep"));
        }
        assert!(Condition::parse(&"1".repeat(2_000)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[ -~]{0,60}") {
            if let Ok(condition) = Condition::parse(&text) {
                let _ = condition.holds(&[1.0, f64::NAN]);
                let _ = condition.holds(&[]);
            }
        }

        #[test]
        fn the_printed_condition_is_read_again(at_least in 0.0..1.0f64, value in 0.0..2.0f64) {
            let condition = Condition::parse(&format!("result >= {at_least}")).expect("it is one");
            let again = Condition::parse(&condition.to_string()).expect("it is one");
            proptest::prop_assert_eq!(again.holds(&[value]), Ok(value >= at_least));
        }
    }
}
