//! How the text of a time becomes Unix milliseconds and the other way round, and the text of a rating a label.

use crate::error::{Result, err};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// The last millisecond of the year 9999, and the bound in both directions.
const LATEST: i64 = 253_402_300_799_999;

/// How a time is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TimeFormat {
    Seconds,
    Milliseconds,
    Iso,
    Year,
    /// `Toy Story (1995)`.
    TrailingYear,
    /// A pattern such as `%d-%b-%Y`.
    Pattern(String),
}

impl TimeFormat {
    pub fn parse(format: &str) -> Result<Self> {
        Ok(match format {
            "s" => Self::Seconds,
            "ms" => Self::Milliseconds,
            "iso" => Self::Iso,
            "year" => Self::Year,
            "trailing-year" => Self::TrailingYear,
            pattern if pattern.contains('%') => Self::Pattern(pattern.to_owned()),
            _ => {
                return Err(err!(
                    InvalidConfig,
                    "`{format}` is no time format; choose \"s\", \"ms\", \"iso\", \"year\", \"trailing-year\" or a pattern \
                     such as \"%d-%b-%Y\""
                ));
            }
        })
    }

    /// Unix milliseconds, UTC where the text has no zone. `None` only where a trailing year is absent. The error is
    /// the reason in words.
    pub fn read(&self, text: &str) -> std::result::Result<Option<i64>, String> {
        let text = text.trim();
        let bad = |wanted: &str| format!("cannot read `{text}` as {wanted}");
        let millis = match self {
            Self::Seconds => {
                let wanted = "a time in seconds since 1970";
                match text.parse::<i64>() {
                    Ok(seconds) => seconds.saturating_mul(1000),
                    Err(_) => match text.parse::<f64>() {
                        Ok(seconds) if seconds.is_finite() => (seconds * 1000.0).round() as i64,
                        _ => return Err(bad(wanted)),
                    },
                }
            }
            Self::Milliseconds => match text.parse::<i64>() {
                Ok(millis) => millis,
                Err(_) => return Err(bad("a whole number of milliseconds since 1970")),
            },
            Self::Iso => iso(text).ok_or_else(|| bad("an ISO 8601 date or time"))?,
            Self::Year => year(text).ok_or_else(|| bad("a year of four digits"))?,
            Self::TrailingYear => {
                let Some(inside) = text.strip_suffix(')').and_then(|t| t.rsplit_once('(')) else { return Ok(None) };
                let Some(millis) = year(inside.1) else { return Ok(None) };
                millis
            }
            Self::Pattern(pattern) => {
                by_pattern(pattern, text).ok_or_else(|| bad(&format!("a time of the form `{pattern}`")))?
            }
        };
        if !(-LATEST..=LATEST).contains(&millis) {
            let hint = if *self == Self::Seconds { "; is it in milliseconds (format = \"ms\")?" } else { "" };
            return Err(format!("the time `{text}` is beyond the year 9999{hint}"));
        }
        Ok(Some(millis))
    }
}

/// Such as `2024-01-31`, UTC; empty beyond the years that have a name.
pub(crate) fn iso_date(ms: i64) -> String {
    written(ms, "%Y-%m-%d")
}

/// Such as `2024-01-31T20:15:00Z`; milliseconds are cut off.
pub(super) fn iso_time(ms: i64) -> String {
    written(ms, "%Y-%m-%dT%H:%M:%SZ")
}

fn written(ms: i64, form: &str) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| String::new(), |at| at.strftime(form).to_string())
}

fn civil(at: DateTime) -> Option<i64> {
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

fn iso(text: &str) -> Option<i64> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(instant.as_millisecond());
    }
    text.parse::<DateTime>().ok().and_then(civil)
}

fn year(text: &str) -> Option<i64> {
    if text.len() != 4 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    civil(Date::new(text.parse().ok()?, 1, 1).ok()?.at(0, 0, 0, 0))
}

fn by_pattern(pattern: &str, text: &str) -> Option<i64> {
    let parts = jiff::fmt::strtime::parse(pattern, text).ok()?;
    if let Ok(instant) = parts.to_timestamp() {
        return Some(instant.as_millisecond());
    }
    parts.to_datetime().ok().or_else(|| Some(parts.to_date().ok()?.at(0, 0, 0, 0))).and_then(civil)
}

/// A condition on a value: `>= 4`, `< 3`, `= like`, `!= view`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    operator: Operator,
    text: String,
    number: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
    Unequal,
}

impl Condition {
    pub fn parse(condition: &str) -> Result<Self> {
        let operators = [
            (">=", Operator::AtLeast),
            ("<=", Operator::AtMost),
            ("!=", Operator::Unequal),
            ("==", Operator::Equal),
            (">", Operator::Above),
            ("<", Operator::Below),
            ("=", Operator::Equal),
        ];
        let bad =
            || err!(InvalidConfig, "`{condition}` is no condition; write for example \">= 4\", \"< 3\" or \"= like\"");
        let (operator, text) = (operators.iter())
            .find_map(|(sign, operator)| Some((*operator, condition.trim().strip_prefix(sign)?.trim())))
            .ok_or_else(bad)?;
        let number = text.parse::<f64>().ok().filter(|x| x.is_finite());
        if text.is_empty() || (number.is_none() && !matches!(operator, Operator::Equal | Operator::Unequal)) {
            return Err(bad());
        }
        Ok(Self { operator, text: text.to_owned(), number })
    }

    /// Whether `value` meets the condition. The error is the reason in words.
    pub fn holds(&self, value: &str) -> std::result::Result<bool, String> {
        let value = value.trim();
        let Some(bound) = self.number else { return Ok((value == self.text) == (self.operator == Operator::Equal)) };
        let number: f64 = value
            .parse()
            .ok()
            .filter(|x: &f64| !x.is_nan())
            .ok_or_else(|| format!("cannot read `{value}` as a number"))?;
        Ok(match self.operator {
            Operator::AtLeast => number >= bound,
            Operator::AtMost => number <= bound,
            Operator::Above => number > bound,
            Operator::Below => number < bound,
            Operator::Equal => number == bound,
            Operator::Unequal => number != bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, text: &str) -> std::result::Result<Option<i64>, String> {
        TimeFormat::parse(format).unwrap().read(text)
    }

    #[test]
    fn each_format_reads_the_same_instant() {
        let millis = Ok(Some(788_918_400_000)); // 1995-01-01
        for (format, text) in [
            ("s", "788918400"),
            ("s", "788918400.0"),
            ("ms", "788918400000"),
            ("iso", "1995-01-01"),
            ("iso", "1995-01-01T00:00:00Z"),
            ("iso", "1995-01-01 00:00:00"),
            ("iso", "1995-01-01T02:00:00+02:00"),
            ("year", "1995"),
            ("trailing-year", "Toy Story (1995)"),
            ("trailing-year", "City (of Lost Children) (1995)"),
            ("%d-%b-%Y", "01-Jan-1995"),
            ("%Y/%m/%d %H:%M", "1995/01/01 00:00"),
            ("%Y/%m/%d %H:%M %z", "1995/01/01 01:00 +0100"),
        ] {
            assert_eq!(read(format, text), millis, "{format} {text}");
        }
        assert_eq!(read("trailing-year", "Toy Story"), Ok(None));
        assert_eq!(read("s", "0.5"), Ok(Some(500)));
    }

    #[test]
    fn moments_are_written_as_they_are_read() {
        assert_eq!((iso_time(0), iso_date(-1)), ("1970-01-01T00:00:00Z".into(), "1969-12-31".into()));
        assert_eq!(iso_time(1_709_251_199_999), "2024-02-29T23:59:59Z");
        assert_eq!(read("iso", &iso_time(1_709_251_199_000)), Ok(Some(1_709_251_199_000)));
        assert_eq!(iso_date(i64::MAX), "");
    }

    #[test]
    fn what_is_no_time_is_named() {
        for (format, text) in
            [("s", "soon"), ("s", "nan"), ("ms", "1.5"), ("iso", "1995-13-01"), ("year", "95"), ("%Y", "x")]
        {
            assert!(read(format, text).unwrap_err().contains(&format!("`{text}`")), "{format} {text}");
        }
        assert!(read("s", "788918400000000").unwrap_err().contains("milliseconds"));
        assert!(read("s", "9223372036854775807").is_err());
        assert!(TimeFormat::parse("seconds").unwrap_err().message().contains("\"ms\""));
    }

    #[test]
    fn conditions_compare_numbers_and_texts() {
        let holds = |condition: &str, value: &str| Condition::parse(condition).unwrap().holds(value);
        assert_eq!(holds(">= 4", "4.0"), Ok(true));
        assert_eq!(holds("<2", "2"), Ok(false));
        assert_eq!(holds("= like", "like"), Ok(true));
        assert_eq!(holds("!= like", "view"), Ok(true));
        assert_eq!(holds("= 1", "1.0"), Ok(true));
        assert!(holds("> 1", "many").unwrap_err().contains("`many`"));
        for bad in ["4", "> much", ">=", ""] {
            assert!(Condition::parse(bad).is_err(), "{bad}");
        }
    }
}
