//! Days, weekdays and ISO 8601 texts of Unix milliseconds, in UTC.

use super::options::DAY;

/// Year, month and day of the month (the civil-from-days algorithm of H. Hinnant).
pub(super) fn date(ms: i64) -> (i64, i64, i64) {
    let z = ms.div_euclid(DAY) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// 0 is Monday.
pub(super) fn weekday(ms: i64) -> usize {
    (ms.div_euclid(DAY) + 3).rem_euclid(7) as usize
}

/// Such as `2024-01-31`.
pub(crate) fn iso_date(ms: i64) -> String {
    let (year, month, day) = date(ms);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Such as `2024-01-31T20:15:00Z`; milliseconds are cut off.
#[cfg(any(feature = "files", test))]
pub(super) fn iso_time(ms: i64) -> String {
    let s = ms.rem_euclid(DAY) / 1000;
    format!("{}T{:02}:{:02}:{:02}Z", iso_date(ms), s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_weekdays() {
        assert_eq!(iso_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(weekday(0), 3);
        assert_eq!(iso_time(1_709_251_199_000), "2024-02-29T23:59:59Z");
        assert_eq!(weekday(1_704_067_200_000), 0);
        assert_eq!(iso_date(-DAY), "1969-12-31");
    }
}
