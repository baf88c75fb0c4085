//! How the text of a time becomes an instant and the other way round, and the text of a rating a label.

use crate::error::{Result, err};
use crate::event::TIMES;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// An instant: Unix milliseconds, and what lies beyond them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moment {
    pub millis: i64,
    /// Nanoseconds after `millis`, below a million.
    pub nanos: u32,
}

impl Moment {
    fn from_nanos(nanos: i128) -> Option<Self> {
        let millis = i64::try_from(nanos.div_euclid(NANOS)).ok()?;
        Some(Self { millis, nanos: nanos.rem_euclid(NANOS) as u32 })
    }
}

/// Nanoseconds in a millisecond.
const NANOS: i128 = 1_000_000;

/// A unit in which times are counted since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Unit {
    const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    /// How `format` calls it.
    fn key(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        }
    }

    /// Nanoseconds in one.
    fn nanos(self) -> i128 {
        match self {
            Self::Seconds => 1000 * NANOS,
            Self::Milliseconds => NANOS,
            Self::Microseconds => 1000,
            Self::Nanoseconds => 1,
        }
    }

    /// The nanoseconds of so many of this unit, exact to the nanosecond where the number is written without exponent.
    fn read(self, text: &str) -> Option<i128> {
        let (negative, digits) = match text.strip_prefix(['-', '+']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(part) || whole.len() > 20 || (whole.is_empty() && part.is_empty()) {
            let number: f64 = text.parse().ok().filter(|x: &f64| x.is_finite())?;
            // Numbers of 64 bits hold today's times to the microsecond.
            return Some((number * self.nanos() as f64 / 1000.0).round() as i128).and_then(|us| us.checked_mul(1000));
        }
        let whole = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? };
        let mut nanos = whole.checked_mul(self.nanos())?;
        let mut place = self.nanos();
        for digit in part.bytes() {
            place /= 10;
            nanos += place * i128::from(digit - b'0');
        }
        Some(if negative { -nanos } else { nanos })
    }
}

/// Unix milliseconds of 1971 and 2100: what lies outside is rarely meant where another unit lies inside.
const YEAR_1971: i64 = 31_536_000_000;
const YEAR_2100: i64 = 4_102_444_800_000;

/// How a time is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TimeFormat {
    Since1970(Unit),
    Iso,
    Year,
    /// `Toy Story (1995)`.
    TrailingYear,
    /// A pattern such as `%d-%b-%Y`.
    Pattern(String),
}

impl TimeFormat {
    pub fn parse(format: &str) -> Result<Self> {
        if let Some(unit) = Unit::ALL.into_iter().find(|u| u.key() == format) {
            return Ok(Self::Since1970(unit));
        }
        Ok(match format {
            "iso" => Self::Iso,
            "year" => Self::Year,
            "trailing-year" => Self::TrailingYear,
            pattern if pattern.contains('%') => Self::Pattern(pattern.to_owned()),
            _ => {
                return Err(err!(
                    InvalidConfig,
                    "`{format}` is no time format; choose \"s\", \"ms\", \"us\", \"ns\", \"iso\", \"year\", \"trailing-year\" \
                     or a pattern such as \"%d-%b-%Y\""
                ));
            }
        })
    }

    /// The instant, in UTC where the text has no zone. `None` only where a trailing year is absent. The error is the reason in
    /// words; it names the format that fits, if one does.
    pub fn read(&self, text: &str) -> std::result::Result<Option<Moment>, String> {
        let text = text.trim();
        let bad = |wanted: &str| {
            let hint = self.other(text).map_or_else(String::new, |format| format!("; is it format = \"{format}\"?"));
            format!("cannot read `{text}` as {wanted}{hint}")
        };
        let moment = match self {
            Self::Since1970(unit) => {
                let nanos = unit.read(text).ok_or_else(|| bad(&format!("a time in {} since 1970", unit.name())))?;
                Moment::from_nanos(nanos)
            }
            Self::Iso => Some(iso(text).ok_or_else(|| bad("an ISO 8601 date or time"))?),
            Self::Year => Some(year(text).ok_or_else(|| bad("a year of four digits"))?),
            Self::TrailingYear => {
                let Some(inside) = text.strip_suffix(')').and_then(|t| t.rsplit_once('(')) else { return Ok(None) };
                let Some(moment) = year(inside.1) else { return Ok(None) };
                Some(moment)
            }
            Self::Pattern(pattern) => {
                Some(by_pattern(pattern, text).ok_or_else(|| bad(&format!("a time of the form `{pattern}`")))?)
            }
        };
        match moment {
            Some(moment) if TIMES.contains(&moment.millis) => Ok(Some(moment)),
            _ => {
                let hint =
                    self.other(text).map_or_else(String::new, |format| format!("; is it format = \"{format}\"?"));
                Err(format!("the time `{text}` is outside the years 0 to 9999{hint}"))
            }
        }
    }

    /// The format that fits `text` where this one does not.
    fn other(&self, text: &str) -> Option<&'static str> {
        let fits = |unit: &Unit| {
            let moment = unit.read(text).and_then(Moment::from_nanos);
            moment.is_some_and(|m| (YEAR_1971..YEAR_2100).contains(&m.millis))
        };
        if let Some(unit) = Unit::ALL.into_iter().find(fits) {
            return Some(unit.key()).filter(|_| *self != Self::Since1970(unit));
        }
        if *self != Self::Year && year(text).is_some() {
            return Some("year");
        }
        (*self != Self::Iso && iso(text).is_some()).then_some("iso")
    }

    /// What to say where all times of a table lie between `first` and `last` (Unix milliseconds), which is hardly meant, and would
    /// not if they were counted in another unit.
    pub fn doubt(&self, first: i64, last: i64) -> Option<String> {
        let Self::Since1970(own) = self else { return None };
        if (YEAR_1971..YEAR_2100).contains(&last) {
            return None;
        }
        let other = Unit::ALL.into_iter().filter(|unit| unit != own).find(|unit| {
            let last = i128::from(last) * unit.nanos() / own.nanos();
            (i128::from(YEAR_1971)..i128::from(YEAR_2100)).contains(&last)
        })?;
        Some(format!(
            "all times lie from {} to {}; they were read as {} since 1970 (format = \"{}\"), and would be of our days as {}: is \
             it format = \"{}\"?",
            iso_date(first),
            iso_date(last),
            own.name(),
            own.key(),
            other.name(),
            other.key()
        ))
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

fn instant(at: jiff::Timestamp) -> Option<Moment> {
    Moment::from_nanos(at.as_nanosecond())
}

fn civil(at: DateTime) -> Option<Moment> {
    instant(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn iso(text: &str) -> Option<Moment> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return instant(at);
    }
    text.strip_suffix(" UTC").unwrap_or(text).parse::<DateTime>().ok().and_then(civil)
}

fn year(text: &str) -> Option<Moment> {
    if text.len() != 4 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    civil(Date::new(text.parse().ok()?, 1, 1).ok()?.at(0, 0, 0, 0))
}

fn by_pattern(pattern: &str, text: &str) -> Option<Moment> {
    let parts = jiff::fmt::strtime::parse(pattern, text).ok()?;
    if let Ok(at) = parts.to_timestamp() {
        return instant(at);
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
        TimeFormat::parse(format).unwrap().read(text).map(|at| at.map(|at| at.millis))
    }

    #[test]
    fn each_format_reads_the_same_instant() {
        let millis = Ok(Some(788_918_400_000)); // 1995-01-01
        for (format, text) in [
            ("s", "788918400"),
            ("s", "788918400.0"),
            ("s", "7.889184e8"),
            ("ms", "788918400000"),
            ("ms", "788918400000.0"),
            ("us", "788918400000000"),
            ("ns", "788918400000000000.9"),
            ("iso", "1995-01-01"),
            ("iso", "1995-01-01T00:00:00Z"),
            ("iso", "1995-01-01 00:00:00"),
            ("iso", "1995-01-01 00:00:00 UTC"),
            ("iso", "1995-01-01T02:00:00+02:00"),
            ("year", "1995"),
            ("trailing-year", "Toy Story (1995)"),
            ("trailing-year", "City (of Lost Children) (1995)"),
            ("%d-%b-%Y", "01-Jan-1995"),
            ("%Y/%m/%d %H:%M", "1995/01/01 00:00"),
            ("%Y-%m-%d %H:%M:%S UTC", "1995-01-01 00:00:00 UTC"),
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
        for (format, text) in [
            ("s", "soon"),
            ("s", "nan"),
            ("ms", "-"),
            ("us", "1.5.1"),
            ("ns", "."),
            ("iso", "1995-13-01"),
            ("year", "95"),
            ("%Y", "x"),
        ] {
            assert!(read(format, text).unwrap_err().contains(&format!("`{text}`")), "{format} {text}");
        }
        assert!(read("s", "9223372036854775807").is_err());
        assert!(read("ns", &"9".repeat(60)).is_err());
        assert!(TimeFormat::parse("seconds").unwrap_err().message().contains("\"ms\""));
    }

    #[test]
    fn times_are_read_to_the_nanosecond() {
        let moment = |format: &str, text: &str| TimeFormat::parse(format).unwrap().read(text).unwrap().unwrap();
        for (format, text) in [
            ("s", "788918400.000123456"),
            ("ms", "788918400000.123456"),
            ("us", "788918400000123.456"),
            ("ns", "788918400000123456"),
            ("iso", "1995-01-01T00:00:00.000123456Z"),
            ("%Y-%m-%d %H:%M:%S%.f", "1995-01-01 00:00:00.000123456"),
        ] {
            assert_eq!(moment(format, text), Moment { millis: 788_918_400_000, nanos: 123_456 }, "{format}");
        }
        assert_eq!(moment("s", "-0.0001"), Moment { millis: -1, nanos: 900_000 });
        assert_eq!(moment("s", "1702387414.123").millis, 1_702_387_414_123);
    }

    #[test]
    fn the_format_that_fits_is_named() {
        for (format, text, fits) in [
            ("s", "1702387414000", "ms"),
            ("s", "1702387414000000", "us"),
            ("ms", "1702387414000000", "us"),
            ("ms", "1702387414000000000", "ns"),
            ("s", "2023-12-12T13:23:34+00:00", "iso"),
            ("ms", "2023-12-12 13:23:34 UTC", "iso"),
            ("iso", "1702387414", "s"),
            ("%d-%b-%Y", "1995-01-01", "iso"),
        ] {
            let why = read(format, text).unwrap_err();
            assert!(why.contains(&format!("is it format = \"{fits}\"?")), "{format} {text}: {why}");
        }
        assert!(!read("s", "soon").unwrap_err().contains("format"));
    }

    #[test]
    fn times_of_the_wrong_unit_are_doubted() {
        let doubt = |format: &str, ms: i64| TimeFormat::parse(format).unwrap().doubt(ms - 1000, ms);
        for (format, ms, fits) in
            [("ms", 1_702_387_414, "s"), ("us", 1_702_387, "s"), ("ns", 1_702_387, "ms"), ("ns", 1_702_387_414, "us")]
        {
            let why = doubt(format, ms).unwrap_or_default();
            assert!(why.contains(&format!("is it format = \"{fits}\"?")), "{format} {ms}: {why}");
        }
        for (format, ms) in
            [("ms", 1_702_387_414_000), ("s", 9000), ("ms", 9), ("ms", i64::MIN), ("iso", 1_702_387_414)]
        {
            assert_eq!(TimeFormat::parse(format).unwrap().doubt(ms, ms), None, "{format} {ms}");
        }
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
