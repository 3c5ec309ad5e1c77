//! The date and time that a template asks for, and its formatting as C's `strftime` does it in the C locale.

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

/// A moment of the civil (proleptic Gregorian) calendar, without a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    /// Days since 1970-01-01.
    days: i64,
    /// Seconds since midnight, 0 to 86,399.
    seconds: u32,
}

impl DateTime {
    /// From seconds since 1970-01-01 00:00:00 (add the zone's offset for a local time). Clamped to years -9999 to 9999.
    pub fn from_unix(seconds: i64) -> Self {
        let seconds = seconds.clamp(-377_705_116_800, 253_402_300_799);
        Self { days: seconds.div_euclid(86_400), seconds: seconds.rem_euclid(86_400) as u32 }
    }

    /// From a date; `None` where the calendar has no such day, or the year has more than four digits.
    pub fn from_date(year: i32, month: u32, day: u32) -> Option<Self> {
        if !(-9999..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 {
            return None;
        }
        let date = Self { days: days_from_civil(year.into(), month, day), seconds: 0 };
        (date.civil() == (year.into(), month, day)).then_some(date)
    }

    /// The same day at another time; `None` where there is no such time.
    pub fn at(self, hour: u32, minute: u32, second: u32) -> Option<Self> {
        (hour < 24 && minute < 60 && second < 60).then_some(Self { seconds: hour * 3600 + minute * 60 + second, ..self })
    }

    /// The system clock, in UTC: the standard library knows no time zones. Give [`super::ChatTemplate::with_clock`] a
    /// clock of your own where local time matters. `None` where the platform has no clock (bare WebAssembly).
    pub fn now_utc() -> Option<Self> {
        if cfg!(all(target_family = "wasm", target_os = "unknown")) {
            return None;
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Self::from_unix(i64::try_from(now.as_secs()).ok()?))
    }

    /// `(year, month 1 to 12, day 1 to 31)`.
    pub fn civil(self) -> (i64, u32, u32) {
        // Howard Hinnant's algorithm: years that start in March, eras of 400 years (146,097 days).
        let z = self.days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153; // 0 is March
        let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
        (year_of_era + era * 400 + i64::from(month <= 2), month, day)
    }

    /// Formats as `strftime` does in the C locale, without a time zone (`%z` and `%Z` are empty, as for Python's naive
    /// times). Flags `-` (no padding), `_` (spaces), `0` and `^` (upper case) are understood; an unknown code is copied.
    pub fn strftime(self, format: &str) -> String {
        let mut out = String::with_capacity(format.len() + 16);
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let spec = &rest[at..];
            let flags = spec[1..].bytes().take_while(|b| b"-_0^#".contains(b)).count();
            let Some(code) = spec[1 + flags..].chars().next() else {
                out.push_str(spec);
                return out;
            };
            let end = 1 + flags + code.len_utf8();
            match self.field(code) {
                Some(field) => field.write(&spec[1..1 + flags], &mut out),
                None => out.push_str(&spec[..end]),
            }
            rest = &spec[end..];
        }
        out.push_str(rest);
        out
    }

    fn field(self, code: char) -> Option<Field> {
        use Field::{Number, Text};
        let (year, month, day) = self.civil();
        let (hour, minute, second) = (self.seconds / 3600, self.seconds / 60 % 60, self.seconds % 60);
        let weekday = (self.days + 4).rem_euclid(7); // 1970-01-01 was a Thursday; 0 is Sunday
        let yearday = self.days - days_from_civil(year, 1, 1); // from 0
        let hour12 = (hour + 11) % 12 + 1;
        let (iso_year, iso_week) = self.iso_week(year, weekday, yearday);
        let number = |value: i64, width: usize, pad: char| Some(Number { value, width, pad });
        let text = |text: &str| Some(Text(text.to_owned()));
        match code {
            'a' => text(&DAYS[weekday as usize][..3]),
            'A' => text(DAYS[weekday as usize]),
            'b' | 'h' => text(&MONTHS[month as usize - 1][..3]),
            'B' => text(MONTHS[month as usize - 1]),
            'c' => text(&self.strftime("%a %b %e %H:%M:%S %Y")),
            'C' => number(year.div_euclid(100), 2, '0'),
            'd' => number(day.into(), 2, '0'),
            'D' | 'x' => text(&self.strftime("%m/%d/%y")),
            'e' => number(day.into(), 2, ' '),
            'f' => text("000000"),
            'F' => text(&self.strftime("%Y-%m-%d")),
            'g' => number(iso_year.rem_euclid(100), 2, '0'),
            'G' => number(iso_year, 1, '0'),
            'H' => number(hour.into(), 2, '0'),
            'I' => number(hour12.into(), 2, '0'),
            'j' => number(yearday + 1, 3, '0'),
            'k' => number(hour.into(), 2, ' '),
            'l' => number(hour12.into(), 2, ' '),
            'm' => number(month.into(), 2, '0'),
            'M' => number(minute.into(), 2, '0'),
            'n' => text("\n"),
            'p' => text(if hour < 12 { "AM" } else { "PM" }),
            'P' => text(if hour < 12 { "am" } else { "pm" }),
            'r' => text(&self.strftime("%I:%M:%S %p")),
            'R' => text(&self.strftime("%H:%M")),
            's' => number(self.days * 86_400 + i64::from(self.seconds), 1, '0'),
            'S' => number(second.into(), 2, '0'),
            't' => text("\t"),
            'T' | 'X' => text(&self.strftime("%H:%M:%S")),
            'u' => number((weekday + 6) % 7 + 1, 1, '0'),
            'U' => number((yearday + 7 - weekday) / 7, 2, '0'),
            'V' => number(iso_week, 2, '0'),
            'w' => number(weekday, 1, '0'),
            'W' => number((yearday + 7 - (weekday + 6) % 7) / 7, 2, '0'),
            'y' => number(year.rem_euclid(100), 2, '0'),
            'Y' => number(year, 1, '0'),
            'z' | 'Z' => text(""),
            '%' => text("%"),
            _ => None,
        }
    }

    /// ISO 8601: weeks start on Monday, and week 1 holds the year's first Thursday.
    fn iso_week(self, year: i64, weekday: i64, yearday: i64) -> (i64, i64) {
        let thursday = yearday + 3 - (weekday + 6) % 7; // yearday of this week's Thursday
        let length = |year| days_from_civil(year + 1, 1, 1) - days_from_civil(year, 1, 1);
        if thursday < 0 {
            (year - 1, (thursday + length(year - 1)) / 7 + 1)
        } else if thursday >= length(year) {
            (year + 1, 1)
        } else {
            (year, thursday / 7 + 1)
        }
    }
}

enum Field {
    Number { value: i64, width: usize, pad: char },
    Text(String),
}

impl Field {
    fn write(self, flags: &str, out: &mut String) {
        use std::fmt::Write;
        let result = match self {
            Field::Text(text) if flags.contains('^') => write!(out, "{}", text.to_uppercase()),
            Field::Text(text) => write!(out, "{text}"),
            Field::Number { value, width, pad } => {
                let pad = flags.chars().rev().find(|c| "-_0".contains(*c)).unwrap_or(if pad == ' ' { '_' } else { '0' });
                match pad {
                    '-' => write!(out, "{value}"),
                    '_' => write!(out, "{value:width$}"),
                    _ => write!(out, "{value:0width$}"),
                }
            }
        };
        result.expect("writing to a String cannot fail");
    }
}

fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let shifted = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let day_of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}
